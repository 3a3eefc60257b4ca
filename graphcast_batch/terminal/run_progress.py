"""What happens in a run becomes bars on a terminal, lines elsewhere, and a journal."""

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
from graphcast_batch.stores.journal import Journal

Level = Literal["quiet", "normal", "verbose"]
"""How much is said: what goes wrong and the end; also how far it is; also what each Case is at."""

_MOST_ROWS: Final = 12
"""Cases under way that are shown."""
_FORGOTTEN_SECONDS: Final = 30.0
"""How long a worker is shown that tells nothing more, which may be dead."""
_BAR_WIDTH: Final = 20
_SPOKEN: Final = MappingProxyType({"read": "reading", "wait": "waiting", "compute": "computing", "write": "writing"})


class WorkerLine(Protocol):
    """Where a Case is that is under way."""

    @property
    def key(self) -> str:
        """Of the Case."""

    @property
    def name(self) -> str:
        """Of the stage that it is in."""

    @property
    def steps(self) -> int:
        """Steps of its forecast that were made so far."""


class Watcher:
    """Shows a run's progress, bars on a terminal and a line for each Case elsewhere, and keeps its journal."""

    def __init__(self, console: Console, store: Path, steps: int, step_hours: int, level: Level = "normal") -> None:
        """Shows nothing yet.

        Args:
            console: to show it on.
            store: of the run, whose journal is kept.
            steps: of each forecast.
            step_hours: hours of a step.
            level: how much is shown.
        """
        self._console, self._store, self._level = console, store, level
        self._steps, self._step_hours = steps, step_hours
        self._journal = Journal(store, self._warn)
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
        # By the name of a worker: when it told, and its Cases. Replaced, never changed, as another thread draws it.
        self._told: dict[str, tuple[float, tuple[WorkerLine, ...]]] = {}
        shown = console.is_interactive and level != "quiet"
        self._live = Live(get_renderable=self._view, console=console, transient=True) if shown else None

    def __enter__(self) -> "Watcher":
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def started(self, workers: int, device: str, total: int, complete: int) -> None:
        """Workers are starting."""
        self._journal.started(workers, device, total, complete)
        self._total, self._done = total, complete
        if self._level != "quiet":
            self._say(f"{total} Cases, {total - complete} to make; {workers} workers on {device} are starting")
        self._bar.start_task(self._task)
        self._update()
        if self._live:
            self._live.start()

    def under_way(self, worker: str, places: Sequence[WorkerLine]) -> None:
        """A worker tells, every few seconds, where its Cases are."""
        if self._level == "verbose":
            before = {place.key: place.name for place in self._places_of(worker)}
            for place in places:
                if before.get(place.key) != place.name:
                    hours = f" from {place.steps * self._step_hours} h on" if place.steps else ""
                    self._say(f"{place.key} {_SPOKEN.get(place.name, place.name)}{hours} ({worker})")
        self._told = self._told | {worker: (monotonic(), tuple(places))}
        self._update()

    def finished(self, record: CaseRecord) -> None:
        """A Case is whole."""
        self._journal.finished(record)
        self._done += 1
        self._made_steps += record.steps
        self._forget(record.key, [record.worker])
        stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in record.seconds.items())
        if self._level == "verbose" or not (self._live or self._level == "quiet"):
            self._say(f"{record.key} whole ({self._done + self._failed}/{self._total}; {stages}; {record.worker})")
        self._update()

    def retried(self, case: Case, error: BaseException) -> None:
        """A Case failed and will be tried again."""
        self._journal.retried(case, error)
        self._forget(case.key)
        self._warn(f"{case.key} failed and will be tried again: {error}")
        if self._level == "verbose":
            self._say(Text("".join(traceback.format_exception(error)).rstrip(), "dim"))

    def failed(self, failure: CaseFailure) -> None:
        """A Case is set aside."""
        self._journal.failed(failure)
        self._forget(failure.key)
        self._failed += 1
        self._say(Text(f"{failure.key} failed: {failure.error}: {failure.message}", "red"))
        if self._failed == 1:
            self._say(Text(f"tracebacks: {self._store / 'ledger'}; what came before: {self._store / 'log'}", "red"))
        self._update()

    def note(self, event: str, text: str) -> None:
        """Something happened that does not end a Case."""
        self._journal.note(event, text)
        self._warn(f"{event}: {text}")

    def _warn(self, text: str) -> None:
        self._say(Text(text, "yellow"))

    def _say(self, text: str | Text) -> None:
        self._console.print(Text(text) if isinstance(text, str) else text, soft_wrap=True)

    def _forget(self, key: str, workers: Iterable[str] | None = None) -> None:
        """A Case is no longer under way, with these workers or any."""
        changed = {}
        for worker in list(self._told) if workers is None else workers:
            when, places = self._told.get(worker, (0.0, ()))
            changed[worker] = when, tuple(place for place in places if place.key != key)
        self._told = self._told | changed

    def _places_of(self, worker: str) -> tuple[WorkerLine, ...]:
        return self._told.get(worker, (0.0, ()))[1]

    def _update(self) -> None:
        """Counts in the part of the Cases under way, so that the time left is right for few long ones too."""
        ahead = sum(place.steps for _, places in self._told.values() for place in places)
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
        """The bar of the run, and beneath it the Cases under way, those that are furthest first."""
        since = monotonic() - _FORGOTTEN_SECONDS
        shown = [(w, place) for w, (when, places) in self._told.items() if when > since for place in places]
        shown.sort(key=lambda row: (-row[1].steps, row[1].key))
        table = Table.grid(padding=(0, 2))
        for worker, place in shown[:_MOST_ROWS]:
            hours = f"{place.steps * self._step_hours} of {self._steps * self._step_hours} h"
            bar = ProgressBar(self._steps, place.steps, width=_BAR_WIDTH)
            table.add_row(Text(place.key), _SPOKEN.get(place.name, place.name), bar, hours, Text(worker, "dim"))
        more = len(shown) - _MOST_ROWS
        return Group(self._bar, table, *([Text(f"and {more} more under way", "dim")] if more > 0 else []))
