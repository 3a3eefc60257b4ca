"""Show the progress of any command: as bars on a terminal, or as lines in a log or a notebook."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Final, Literal, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import DownloadColumn, Progress, track
from rich.text import Text

from graphcast_batch.screen import Screen
from graphcast_batch.terminal.run_progress import LINE_SECONDS, Level, RunWatcher
from graphcast_batch.terminal.training_progress import TrainingWatcher

Item = TypeVar("Item")
_COLORS: Final = {"info": "default", "warning": "yellow", "error": "red"}


class TerminalProgress:
    """Shows bars where the console is a terminal, and prints lines elsewhere."""

    def __init__(
        self, console: Console, errors: Console, level: Level = "normal", line_seconds: float = LINE_SECONDS
    ) -> None:
        """Show nothing yet.

        Args:
            console: for progress.
            errors: for warnings and errors.
            level: how much is shown.
            line_seconds: least time between two lines about the same work, where bars cannot be shown.
        """
        self._console, self._errors, self._level, self._line_seconds = console, errors, level, line_seconds

    def run(self, store: Path, steps: int, step_hours: int) -> RunWatcher:
        """Show the progress of a run."""
        return RunWatcher(self._console, store, steps, step_hours, self._level, self._line_seconds)

    def training(self, steps_after: Callable[[int], int], updates: int, done: int) -> TrainingWatcher:
        """Show the progress of a training."""
        return TrainingWatcher(self._console, steps_after, updates, done, self._level)

    def track(self, results: Iterable[Item], what: str, total: int) -> Iterator[Item]:
        """Pass results on, with a bar that counts them, or a line now and then."""
        if self._has_bars:
            yield from track(results, escape(what), total=total, console=self._console, transient=True)
            return
        printed = monotonic()
        for count, result in enumerate(results, start=1):
            yield result
            if monotonic() - printed > self._line_seconds:
                printed = monotonic()
                self.report(f"{what}: {count} of {total}")

    @contextmanager
    def download(self, name: str, total_bytes: int | None) -> Iterator[Callable[[int, int], None]]:
        """Show how much of a file has been received."""
        columns = (*Progress.get_default_columns(), DownloadColumn())
        with Progress(*columns, console=self._console, transient=True, disable=self._level == "quiet") as bar:
            task = bar.add_task(escape(name), total=total_bytes)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show on a terminal that something takes a while."""
        if self._has_bars:
            with self._console.status(Text(what)):
                yield
        else:
            yield

    def report(self, text: str, severity: Literal["info", "warning", "error"] = "info") -> None:
        """Print a message; one that only says how far the work is, unless the level is quiet."""
        if severity == "info" and self._level == "quiet":
            return
        console = self._console if severity == "info" else self._errors
        console.print(Text(text, _COLORS[severity]), highlight=False, soft_wrap=True)

    @property
    def _has_bars(self) -> bool:
        return self._console.is_interactive and self._level != "quiet"


class LineProgress(TerminalProgress):
    """Prints lines on standard output, with nothing that moves the cursor: what a notebook or a log can show."""

    def __init__(self) -> None:
        """Print on what is standard output now."""
        screen = Screen(force_terminal=False, force_jupyter=False, force_interactive=False, width=110)
        super().__init__(screen, screen)

    def track(self, results: Iterable[Item], what: str, total: int) -> Iterator[Item]:
        """Pass results on, with a line now and then, and one at the end, that says how many have come."""
        count = 0
        for result in super().track(results, what, total):
            count += 1
            yield result
        self.report(f"{what}: {count} of {total}")

    @contextmanager
    def download(self, name: str, total_bytes: int | None) -> Iterator[Callable[[int, int], None]]:
        """Print the name of the file that is being received."""
        self.report(f"downloading {name}")
        yield lambda done, total: None
