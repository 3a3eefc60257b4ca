"""What a run reports: its progress while it goes on, and its outcome when it has ended."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from graphcast_batch.pipeline.stages import CaseStage
from graphcast_batch.pipeline.worker_context import CompletedCase
from graphcast_batch.plan import Case
from graphcast_batch.stores.base import Store
from graphcast_batch.stores.case_records import CaseFailure, CaseRecord
from graphcast_batch.timing import Balance, StageOverlap


class RunProgress(Protocol):
    """Receives what happens in a run, to show or record it."""

    def started(self, workers: int, device: str, total: int, complete: int) -> None:
        """Workers are starting.

        Args:
            workers: how many workers.
            device: ``cpu`` or ``gpu``.
            total: how many Cases are planned.
            complete: how many of them are complete or failed already.
        """

    def under_way(self, worker: str, stages: Sequence[CaseStage]) -> None:
        """A worker reports the stages of its Cases, every few seconds while it has any."""

    def finished(self, record: CaseRecord) -> None:
        """A Case is complete."""

    def combined(self, record: CaseRecord) -> None:
        """All that is kept of the members of an initial time together is complete."""

    def retried(self, case: Case, error: BaseException) -> None:
        """A Case failed and will be tried again."""

    def failed(self, failure: CaseFailure) -> None:
        """A Case has failed for good."""

    def note(self, event: str, text: str) -> None:
        """Something else happened that a person should know."""


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended.

    Attributes:
        store: the store that the run wrote into.
        total: how many Cases are planned.
        complete: the planned Cases that are complete now.
        made: the Cases that this run completed.
        failed: the failures of Cases, in this run or before.
        left: how many Cases are neither complete nor failed, after a drain or while another driver makes them.
        seconds: from the start of the workers to the last result.
        balance: how well reading, computing and writing overlapped; None if no Case was completed.
        trace: all Cases that this run completed with their spans, if the run was traced; else empty.
        ensembles: how many initial times there are whose members are combined.
        combined: those of them that are complete now.
        awaited: how many of them are left, and can be combined because none of their members has failed.
    """

    store: Store
    total: int
    complete: tuple[Case, ...]
    made: tuple[Case, ...]
    failed: tuple[CaseFailure, ...]
    left: int
    seconds: float
    balance: Balance | None
    trace: tuple[CompletedCase, ...]
    ensembles: int = 0
    combined: tuple[Case, ...] = ()
    awaited: int = 0


@dataclass
class CompletedCases:
    """The Cases that a run has completed; little is kept of each, as there may be very many.

    Attributes:
        traced: whether `trace` is kept.
        cases: the completed Cases, without those of ensembles.
        overlap: how their stages overlapped.
        trace: records and spans of all.
    """

    traced: bool = False
    cases: list[Case] = field(default_factory=list)
    overlap: StageOverlap = field(default_factory=StageOverlap)
    trace: list[CompletedCase] = field(default_factory=list)

    def add(self, case: Case, made: CompletedCase) -> None:
        """Add a Case that was completed."""
        if not made.of_ensemble:
            self.cases.append(case)
            self.overlap.add(made.record.worker, made.spans)
        if self.traced:
            self.trace.append(made)
