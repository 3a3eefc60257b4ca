"""Show the progress of a run: bars on a terminal, and a line for each Case elsewhere."""

import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from time import monotonic
from types import MappingProxyType
from typing import Final, Literal, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from graphcast_batch.plan import Case
from graphcast_batch.stores.case_records import CaseFailure, CaseRecord

Level = Literal["quiet", "normal", "verbose"]
"""How much is printed: problems and the result; also the progress; also each stage of each Case."""

_MOST_ROWS: Final = 12
"""Cases in progress that are shown at once."""
_SILENT_SECONDS: Final = 30.0
"""How long a worker is shown that sends no news: it may be dead."""
_BAR_WIDTH: Final = 20
_STAGES: Final = MappingProxyType({"read": "reading", "wait": "waiting", "compute": "computing", "write": "writing"})


class WorkerLine(Protocol):
    """Describes how far a Case in progress is."""

    @property
    def key(self) -> str:
        """Key of the Case."""

    @property
    def name(self) -> str:
        """Name of the stage that the Case is in."""

    @property
    def steps(self) -> int:
        """Number of steps of the forecast that are made."""


class RunWatcher:
    """Shows the progress of a run: bars on a terminal, and a line for each Case elsewhere."""

    def __init__(self, console: Console, store: Path, steps: int, step_hours: int, level: Level = "normal") -> None:
        """Show nothing yet.

        Args:
            console: where to show it.
            store: folder of the store of the run.
            steps: number of model steps of each forecast.
            step_hours: length of a step in hours.
            level: how much is shown.
        """
        self._console, self._store, self._level = console, store, level
        self._steps, self._step_hours = steps, step_hours
        self._bar = Progress(
            TextColumn("[bold]forecasts"),
            BarColumn(),
            TextColumn("{task.fields[done]} of {task.total} Cases"),
            TextColumn("{task.fields[failed]}", style="red"),
            TextColumn("{task.fields[speed]:.1f} steps/s"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
        )
        self._task = self._bar.add_task("", start=False, done=0, failed="", speed=0.0)
        self._total = self._done = self._failed = self._made_steps = 0
        # By the name of a worker: the time of its last news, and its Cases. The dictionary is replaced and never
        # changed, because another thread draws it.
        self._news: dict[str, tuple[float, tuple[WorkerLine, ...]]] = {}
        shown = console.is_interactive and level != "quiet"
        self._live = Live(get_renderable=self._view, console=console, transient=True) if shown else None

    def __enter__(self) -> "RunWatcher":
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def started(self, workers: int, device: str, total: int, complete: int) -> None:
        """Show that workers are starting, and how many Cases there are to make."""
        self._total, self._done = total, complete
        if self._level != "quiet":
            self._print(f"{total} Cases, {total - complete} to make; {workers} workers on {device} are starting")
        self._bar.start_task(self._task)
        self._update()
        if self._live:
            self._live.start()

    def under_way(self, worker: str, stages: Sequence[WorkerLine]) -> None:
        """Show which stages the Cases of a worker are in, which each worker reports every few seconds."""
        if self._level == "verbose":
            before = {stage.key: stage.name for stage in self._stages_of(worker)}
            for stage in stages:
                if before.get(stage.key) != stage.name:
                    hours = f" from {stage.steps * self._step_hours} h on" if stage.steps else ""
                    self._print(f"{stage.key} {_STAGES.get(stage.name, stage.name)}{hours} ({worker})")
        self._news = self._news | {worker: (monotonic(), tuple(stages))}
        self._update()

    def finished(self, record: CaseRecord) -> None:
        """Show that a Case is complete."""
        self._done += 1
        self._made_steps += record.steps
        self._remove(record.key, [record.worker])
        stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in record.seconds.items())
        if self._level == "verbose" or not (self._live or self._level == "quiet"):
            count = self._done + self._failed
            self._print(f"{record.key} complete ({count}/{self._total}; {stages}; {record.worker})")
        self._update()

    def retried(self, case: Case, error: BaseException) -> None:
        """Show that a Case has failed and will be tried again."""
        self._remove(case.key)
        self._warn(f"{case.key} failed and will be tried again: {error}")
        if self._level == "verbose":
            self._print(Text("".join(traceback.format_exception(error)).rstrip(), "dim"))

    def failed(self, failure: CaseFailure) -> None:
        """Show that a Case has failed for good."""
        self._remove(failure.key)
        self._failed += 1
        self._print(Text(f"{failure.key} failed: {failure.error}: {failure.message}", "red"))
        if self._failed == 1:
            text = f"tracebacks: {self._store / 'ledger'}; earlier events: {self._store / 'log'}"
            self._print(Text(text, "red"))
        self._update()

    def note(self, event: str, text: str) -> None:
        """Show any other event."""
        self._warn(f"{event}: {text}")

    def _warn(self, text: str) -> None:
        self._print(Text(text, "yellow"))

    def _print(self, text: str | Text) -> None:
        self._console.print(Text(text) if isinstance(text, str) else text, soft_wrap=True)

    def _remove(self, key: str, workers: Iterable[str] | None = None) -> None:
        """Remove a Case from those in progress with the given workers, or with any."""
        changed = {}
        for worker in list(self._news) if workers is None else workers:
            when, stages = self._news.get(worker, (0.0, ()))
            changed[worker] = when, tuple(stage for stage in stages if stage.key != key)
        self._news = self._news | changed

    def _stages_of(self, worker: str) -> tuple[WorkerLine, ...]:
        return self._news.get(worker, (0.0, ()))[1]

    def _update(self) -> None:
        """Update the bar with the steps of Cases in progress too, so that the time left is right for few Cases."""
        ahead = sum(stage.steps for _, stages in self._news.values() for stage in stages)
        elapsed = self._bar.tasks[0].elapsed
        self._bar.update(
            self._task,
            total=self._total,
            completed=self._done + self._failed + ahead / self._steps,
            done=self._done,
            failed=f"{self._failed} failed" if self._failed else "",
            speed=(self._made_steps + ahead) / elapsed if elapsed else 0.0,
        )

    def _view(self) -> Group:
        """Return the bar of the run, and below it the Cases in progress, the most advanced first."""
        since = monotonic() - _SILENT_SECONDS
        shown = [(worker, stage) for worker, (when, stages) in self._news.items() if when > since for stage in stages]
        shown.sort(key=lambda row: (-row[1].steps, row[1].key))
        table = Table.grid(padding=(0, 2))
        for worker, stage in shown[:_MOST_ROWS]:
            hours = f"{stage.steps * self._step_hours} of {self._steps * self._step_hours} h"
            bar = ProgressBar(self._steps, stage.steps, width=_BAR_WIDTH)
            table.add_row(Text(stage.key), _STAGES.get(stage.name, stage.name), bar, hours, Text(worker, "dim"))
        more = len(shown) - _MOST_ROWS
        return Group(self._bar, table, *([Text(f"and {more} more in progress", "dim")] if more > 0 else []))
