"""Show the progress of a run: bars on a terminal; elsewhere a line for each Case, and one a minute."""

import threading
import traceback
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from types import MappingProxyType
from typing import Final, Literal, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from graphcast_batch.plan import Case
from graphcast_batch.stores.case_records import CaseFailure, CaseRecord
from graphcast_batch.text import counted

Level = Literal["quiet", "normal", "verbose"]
"""How much is printed: problems and the result; also the progress; also each stage of each Case."""

_MOST_ROWS: Final = 12
"""Cases in progress that are shown at once."""
_MOST_IN_A_LINE: Final = 4
"""Cases in progress that a line names."""
LINE_SECONDS: Final = 60.0
"""Time between two lines about work in progress, where bars cannot be shown."""
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
    """Shows the progress of a run: bars on a terminal; elsewhere a line for each Case, and one a minute."""

    def __init__(
        self,
        console: Console,
        store: Path,
        steps: int,
        step_hours: int,
        level: Level = "normal",
        line_seconds: float = LINE_SECONDS,
    ) -> None:
        """Show nothing yet.

        Args:
            console: where to show it.
            store: folder of the store of the run.
            steps: number of model steps of each forecast.
            step_hours: length of a step in hours.
            level: how much is shown.
            line_seconds: time between two lines about the Cases in progress, where bars cannot be shown.
        """
        self._console, self._store, self._level = console, store, level
        self._steps, self._step_hours = steps, step_hours
        self._bar = Progress(
            TextColumn("[bold]forecasts"),
            BarColumn(),
            TextColumn("{task.fields[done]} of {task.total} Cases"),
            TextColumn("{task.fields[failed]}", style="red"),
            TextColumn("{task.fields[speed]:.1f} steps/s"),
            TextColumn("{task.fields[left]} left"),
            console=console,
        )
        self._task = self._bar.add_task("", start=False, done=0, failed="", speed=0.0, left="-")
        self._total = self._done = self._failed = self._made_steps = self._before = 0
        # When the first steps of the run were known to be made, and when the last, with how many.
        self._first_steps = self._last_steps = (0.0, 0)
        # By the name of a worker: the time of its last news, and its Cases. The dictionary is replaced and never
        # changed, because another thread draws it.
        self._news: dict[str, tuple[float, tuple[WorkerLine, ...]]] = {}
        shown = console.is_interactive and level != "quiet"
        self._live = Live(get_renderable=self._view, console=console, transient=True) if shown else None
        self._ended = threading.Event()
        # A thread, so that a line also comes while workers start, or none of them answers.
        self._lines = threading.Thread(target=self._print_lines, args=(line_seconds,), name="progress", daemon=True)

    def __enter__(self) -> "RunWatcher":
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
        self._ended.set()
        if self._lines.is_alive():
            self._lines.join()

    def started(self, workers: int, device: str, total: int, complete: int) -> None:
        """Show that workers are starting, and how many Cases there are to make."""
        self._total, self._done, self._before = total, complete, complete
        if self._level != "quiet":
            at_work = f"{counted(workers, 'worker')} on {device} {'is' if workers == 1 else 'are'} starting"
            self._print(f"{counted(total, 'Case')}, {total - complete} to make; {at_work}")
        self._bar.start_task(self._task)
        self._update()
        if self._live:
            self._live.start()
        elif self._level != "quiet":
            self._lines.start()

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

    def combined(self, record: CaseRecord) -> None:
        """Show that what is kept of all members of an initial time together is complete."""
        self._remove(record.key, [record.worker])
        if self._level == "verbose" or not (self._live or self._level == "quiet"):
            members, seconds = record.details.get("members"), sum(record.seconds.values())
            self._print(f"{record.key}: {members} members combined ({seconds:.1f} s; {record.worker})")

    def retried(self, case: Case, error: BaseException) -> None:
        """Show that a Case has failed and will be tried again."""
        self._remove(case.key)
        self._warn(f"{case.key} failed and will be tried again: {error}")
        if self._level == "verbose":
            self._print(Text("".join(traceback.format_exception(error)).rstrip(), "dim"))
        self._update()

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
        made, elapsed = self._made_steps + ahead, self._bar.tasks[0].elapsed
        if made != self._last_steps[1]:
            self._last_steps = monotonic(), made
            if not 0 < self._first_steps[1] <= made:  # a Case that is tried again has no steps any more
                self._first_steps = self._last_steps
        left = self._left()
        self._bar.update(
            self._task,
            total=self._total,
            completed=self._done + self._failed + ahead / self._steps,
            done=self._done,
            failed=f"{self._failed} failed" if self._failed else "",
            speed=made / elapsed if elapsed else 0.0,
            left="-" if left is None else left,
        )

    def _left(self) -> timedelta | None:
        """Return the time that the steps left would take at the speed since the first ones; None if it is not known.

        Until the first steps workers start, read and compile, which they do once.
        """
        (first, before), (last, made) = self._first_steps, self._last_steps
        if made <= before:
            return None
        left = (self._total - self._before - self._failed) * self._steps - made
        return timedelta(seconds=max(0, round(left * (last - first) / (made - before) - (monotonic() - last))))

    def _in_progress(self) -> list[tuple[str, WorkerLine]]:
        """Return the Cases in progress with their workers, the most advanced first."""
        since = monotonic() - _SILENT_SECONDS
        shown = [(worker, stage) for worker, (when, stages) in self._news.items() if when > since for stage in stages]
        return sorted(shown, key=lambda row: (-row[1].steps, row[1].key))

    def _view(self) -> Group:
        """Return the bar of the run, and below it the Cases in progress."""
        shown = self._in_progress()
        table = Table.grid(padding=(0, 2))
        for worker, stage in shown[:_MOST_ROWS]:
            hours = f"{stage.steps * self._step_hours} of {self._steps * self._step_hours} h"
            bar = ProgressBar(self._steps, stage.steps, width=_BAR_WIDTH)
            table.add_row(Text(stage.key), _STAGES.get(stage.name, stage.name), bar, hours, Text(worker, "dim"))
        more = len(shown) - _MOST_ROWS
        return Group(self._bar, table, *([Text(f"and {more} more in progress", "dim")] if more > 0 else []))

    def _print_lines(self, seconds: float) -> None:
        while not self._ended.wait(seconds):
            self._print(self._line())

    def _line(self) -> str:
        """Return how far the run is: steps, Cases, those in progress, and the expected end."""
        planned = (self._total - self._before) * self._steps
        made = f"{self._last_steps[1]} of {planned} steps made, {self._done} of {self._total} Cases complete"
        parts = [made + (f", {self._failed} failed" if self._failed else ""), self._doing()]
        if (left := self._left()) is not None:
            parts.append(f"end expected at {datetime.now(UTC) + left:%Y-%m-%d %H:%M} UTC, in {left}")
        return "; ".join(filter(None, parts))

    def _doing(self) -> str:
        """Return which Cases are in progress, or why none is known to be; empty if there is none for a moment."""
        if not self._news:
            return "workers are starting"
        cases = [
            f"{stage.key} {_STAGES.get(stage.name, stage.name)} ({stage.steps} of {self._steps} steps)"
            for _, stage in self._in_progress()
        ]
        more = f" and {len(cases) - _MOST_IN_A_LINE} more" if len(cases) > _MOST_IN_A_LINE else ""
        if cases:
            return f"in progress: {', '.join(cases[:_MOST_IN_A_LINE])}{more}"
        silent = any(stages for _, stages in self._news.values())
        return f"no worker has answered for {_SILENT_SECONDS:.0f} s" if silent else ""
