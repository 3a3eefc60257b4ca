"""A store becomes one page that a browser opens from disk."""
