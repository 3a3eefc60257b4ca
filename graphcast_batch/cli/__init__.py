"""The command ``graphcast-batch``: parses, calls one function, prints."""

from graphcast_batch.cli import clusters, figures, report, runs, scoring, single, sources, start
from graphcast_batch.cli.app import app, main

__all__ = ["app", "clusters", "figures", "main", "report", "runs", "scoring", "single", "sources", "start"]
