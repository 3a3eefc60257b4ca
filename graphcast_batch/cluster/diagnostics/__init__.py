"""Examine a machine, a cluster and a folder before a run depends on them."""
