"""The command ``graphcast-batch``: parses, calls one function, prints."""

from graphcast_batch.cli import clusters, runs, scoring, single, sources
from graphcast_batch.cli.app import app, main

__all__ = ["app", "clusters", "main", "runs", "scoring", "single", "sources"]
