"""Read configs from YAML, and check them before anything else happens."""
