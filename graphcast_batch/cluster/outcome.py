"""What a run reports while it goes on, and when it has ended."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from graphcast_batch.pipeline import CaseStage, CompletedCase
from graphcast_batch.plan import Case
from graphcast_batch.stores.base import Store
from graphcast_batch.stores.case_records import CaseFailure, CaseRecord
from graphcast_batch.timing import Balance, StageOverlap


class Progress(Protocol):
    """Who watches a run."""

    def started(self, workers: int, device: str, total: int, complete: int) -> None:
        """Workers are starting, on cpu or gpu; so many of the Cases were whole before."""

    def under_way(self, worker: str, stages: Sequence[CaseStage]) -> None:
        """A worker tells, every few seconds while it has any, where its Cases are."""

    def finished(self, record: CaseRecord) -> None:
        """A Case is whole."""

    def retried(self, case: Case, error: BaseException) -> None:
        """A Case failed and will be tried again."""

    def failed(self, failure: CaseFailure) -> None:
        """A Case is set aside."""

    def note(self, event: str, text: str) -> None:
        """Something else happened that a person should know."""


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended.

    Attributes:
        store: what it wrote into.
        total: Cases planned.
        complete: those of them that are whole now.
        made: those that this run made.
        failed: Cases set aside, in this run or before.
        left: Cases neither whole nor failed: a drain, or another driver at work.
        seconds: from the start of the workers to the last result.
        balance: how well reading, computing and writing overlapped; None if nothing was made.
        trace: all of what it made, if that was asked for.
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

    @property
    def steps_per_second(self) -> float:
        """6 h steps that this run made in a second, all workers together."""
        return sum(case.steps for case in self.made) / self.seconds if self.made else 0.0


@dataclass
class CompletedCases:
    """What became whole in a run; of each Case no more than its end asks for, as there may be very many.

    Attributes:
        traced: whether all of what was made is kept.
        cases: that became whole.
        overlap: of the stages they went through.
        trace: what was made of them.
    """

    traced: bool = False
    cases: list[Case] = field(default_factory=list)
    overlap: StageOverlap = field(default_factory=StageOverlap)
    trace: list[CompletedCase] = field(default_factory=list)

    def add(self, case: Case, made: CompletedCase) -> None:
        """A Case became whole."""
        self.cases.append(case)
        self.overlap.add(made.record.worker, made.spans)
        if self.traced:
            self.trace.append(made)
