"""Turn a config and what is there into a plan, a store, and the parts that a worker needs."""
