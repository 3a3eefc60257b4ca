"""The command ``graphcast-batch``: parses, calls one function, prints."""

from graphcast_batch.cli import (
    cluster_commands,
    config_commands,
    data_commands,
    figure_commands,
    infer_command,
    report_command,
    run_commands,
    score_commands,
)
from graphcast_batch.cli.application import app, main

__all__ = [
    "app",
    "cluster_commands",
    "config_commands",
    "data_commands",
    "figure_commands",
    "infer_command",
    "main",
    "report_command",
    "run_commands",
    "score_commands",
]
