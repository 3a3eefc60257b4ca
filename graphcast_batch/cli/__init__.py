"""Define the command ``graphcast-batch``: parse arguments, call one function of `graphcast_batch.app`, print."""

from graphcast_batch.cli import (
    cluster_commands,
    config_commands,
    data_commands,
    demo_command,
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
    "demo_command",
    "figure_commands",
    "infer_command",
    "main",
    "report_command",
    "run_commands",
    "score_commands",
]
