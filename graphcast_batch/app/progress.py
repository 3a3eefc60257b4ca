"""Define how a command reports its progress, and an implementation that shows nothing.

`Progress` has three implementations: `SilentProgress` here, `TerminalProgress` (bars, for the command line) and
`LineProgress` (lines, for notebooks) in `graphcast_batch.terminal`. A program may pass an object of its own.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self, TypeVar

from graphcast_batch.cluster import outcome
from graphcast_batch.pipeline.stages import CaseStage
from graphcast_batch.plan import Case
from graphcast_batch.stores.case_records import CaseFailure, CaseRecord
from graphcast_batch.stores.journal import Journal
from graphcast_batch.terminal import LineProgress

Item = TypeVar("Item")
Severity = Literal["info", "warning", "error"]
"""How serious a message is: it says how far the work is, what the user should know, or what has failed."""


class TrainingProgress(Protocol):
    """Follows one training."""

    def __enter__(self) -> Self:
        """Begin to show the training."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Stop showing the training."""

    def record(self, line: Mapping[str, Any]) -> None:
        """Take one line of the record of the training: an update, a validation or a loss of workers."""


class Progress(Protocol):
    """Follows what a command does.

    Every method returns at once and raises nothing; a command calls them from its main thread.
    """

    def run(self, store: Path, steps: int, step_hours: int) -> AbstractContextManager[outcome.RunProgress]:
        """Follow a run for as long as the context lasts.

        Args:
            store: folder of the store.
            steps: number of model steps of each forecast.
            step_hours: length of a step in hours.
        """

    def training(
        self, steps_after: Callable[[int], int], updates: int, done: int
    ) -> AbstractContextManager[TrainingProgress]:
        """Follow a training for as long as the context lasts.

        Args:
            steps_after: gives the number of rollout steps that are left after a number of updates.
            updates: number of updates of the whole training.
            done: number of updates made before.
        """

    def track(self, results: Iterable[Item], what: str, total: int) -> Iterator[Item]:
        """Pass results on unchanged and count them.

        Args:
            results: what the work gives, one result after the other.
            what: the work in a word or two, such as "scoring".
            total: number of results if nothing stops the work.
        """

    def download(self, name: str, total_bytes: int | None) -> AbstractContextManager[Callable[[int, int], None]]:
        """Follow the download of one file for as long as the context lasts.

        Args:
            name: of the file.
            total_bytes: size of the file; None if unknown.

        Returns:
            A context that gives a function of the bytes received and the bytes expected.
        """

    def waiting(self, what: str) -> AbstractContextManager[None]:
        """Show, for as long as the context lasts, that something takes a while which cannot be counted."""

    def report(self, text: str, severity: Severity = "info") -> None:
        """Take a message of one or more lines."""


ProgressChoice = Progress | Literal["notebook"] | None
"""None for silence, "notebook" for lines on standard output, or an object that implements `Progress`."""


class SilentRun:
    """Follows a run and shows nothing."""

    def started(self, workers: int, device: str, total: int, complete: int) -> None:
        """Ignore that workers are starting."""

    def under_way(self, worker: str, stages: Sequence[CaseStage]) -> None:
        """Ignore which stages the Cases of a worker are in."""

    def finished(self, record: CaseRecord) -> None:
        """Ignore that a Case is complete."""

    def combined(self, record: CaseRecord) -> None:
        """Ignore that an ensemble is complete."""

    def retried(self, case: Case, error: BaseException) -> None:
        """Ignore that a Case is tried again."""

    def failed(self, failure: CaseFailure) -> None:
        """Ignore that a Case has failed."""

    def note(self, event: str, text: str) -> None:
        """Ignore any other event."""


class SilentTraining:
    """Follows a training and shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def record(self, line: Mapping[str, Any]) -> None:
        """Ignore a line of the record."""


class SilentProgress:
    """Follows whatever a command does and shows nothing."""

    @contextmanager
    def run(self, store: Path, steps: int, step_hours: int) -> Iterator[outcome.RunProgress]:
        """Follow a run in silence."""
        yield SilentRun()

    def training(self, steps_after: Callable[[int], int], updates: int, done: int) -> SilentTraining:
        """Follow a training in silence."""
        return SilentTraining()

    def track(self, results: Iterable[Item], what: str, total: int) -> Iterator[Item]:
        """Pass results on unchanged."""
        yield from results

    @contextmanager
    def download(self, name: str, total_bytes: int | None) -> Iterator[Callable[[int, int], None]]:
        """Follow a download in silence."""
        yield lambda done, total: None

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show nothing while something takes a while."""
        yield

    def report(self, text: str, severity: Severity = "info") -> None:
        """Ignore a message."""


SILENT: Final[Progress] = SilentProgress()


def chosen_progress(choice: ProgressChoice) -> Progress:
    """Return the implementation that a caller has chosen.

    Args:
        choice: None, "notebook" or an implementation of its own.

    Raises:
        ValueError: ``choice`` is another text.
    """
    if choice is None:
        return SILENT
    if isinstance(choice, str):
        if choice != "notebook":
            raise ValueError(
                f'progress must be None, "notebook" or an object with the methods of Progress, not {choice!r}'
            )
        return LineProgress()
    return choice


class JournaledRun:
    """Writes the journal of a run, and passes every event on to whoever follows the run."""

    def __init__(self, store: Path, watcher: outcome.RunProgress) -> None:
        """Write nothing yet.

        Args:
            store: folder of the store, which must exist when the first event comes.
            watcher: whoever follows the run.
        """
        self._watcher = watcher
        self._journal = Journal(store, lambda text: watcher.note("journal", text))

    def started(self, workers: int, device: str, total: int, complete: int) -> None:
        """Record that workers are starting."""
        self._journal.started(workers, device, total, complete)
        self._watcher.started(workers, device, total, complete)

    def under_way(self, worker: str, stages: Sequence[CaseStage]) -> None:
        """Pass on which stages the Cases of a worker are in; the journal has them once a Case is complete."""
        self._watcher.under_way(worker, stages)

    def finished(self, record: CaseRecord) -> None:
        """Record that a Case is complete."""
        self._journal.finished(record)
        self._watcher.finished(record)

    def combined(self, record: CaseRecord) -> None:
        """Record that an ensemble is complete."""
        self._journal.combined(record)
        self._watcher.combined(record)

    def retried(self, case: Case, error: BaseException) -> None:
        """Record that a Case has failed and is tried again."""
        self._journal.retried(case, error)
        self._watcher.retried(case, error)

    def failed(self, failure: CaseFailure) -> None:
        """Record that a Case has failed for good."""
        self._journal.failed(failure)
        self._watcher.failed(failure)

    def note(self, event: str, text: str) -> None:
        """Record any other event."""
        self._journal.note(event, text)
        self._watcher.note(event, text)
