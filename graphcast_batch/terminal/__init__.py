"""Print plans, progress and results as text and tables, for a terminal, a log or a notebook."""

from graphcast_batch.terminal.run_progress import Level, RunWatcher
from graphcast_batch.terminal.run_tables import (
    PlannedMemory,
    show_balance,
    show_diagnosis,
    show_failures,
    show_faults,
    show_jobs,
    show_plan,
    show_repair,
    show_skipped,
    show_states,
    show_verification,
    show_warnings,
)
from graphcast_batch.terminal.score_tables import (
    show_comparison,
    show_ensemble,
    show_evaluation,
    show_losses,
    show_potential,
    show_scores,
)
from graphcast_batch.terminal.terminal_progress import LineProgress, TerminalProgress
from graphcast_batch.terminal.training_progress import TrainingWatcher

__all__ = [
    "Level",
    "LineProgress",
    "PlannedMemory",
    "RunWatcher",
    "TerminalProgress",
    "TrainingWatcher",
    "show_balance",
    "show_comparison",
    "show_diagnosis",
    "show_ensemble",
    "show_evaluation",
    "show_failures",
    "show_faults",
    "show_jobs",
    "show_losses",
    "show_plan",
    "show_potential",
    "show_repair",
    "show_scores",
    "show_skipped",
    "show_states",
    "show_verification",
    "show_warnings",
]
