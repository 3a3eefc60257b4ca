"""Score one Case while it is made, so that a failure of the scores need not fail the forecast."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from graphcast_batch.errors import GraphcastBatchError
from graphcast_batch.pipeline.ports import CaseScorer, Scorer
from graphcast_batch.plan import Case
from graphcast_batch.stores.frame_blocks import Block
from graphcast_batch.timing import Stopwatch


class CaseScores:
    """The scores of one Case, if it is scored.

    A failure ends the scoring and leaves the forecast as it is, unless the scores are all that is kept of it.

    Attributes:
        fault: why the Case has no scores although it should have; empty otherwise.
    """

    def __init__(self, *, needed: bool) -> None:
        """Score nothing yet.

        Args:
            needed: whether a failure of the scores fails the Case.
        """
        self.fault = ""
        self._needed = needed
        self._scorer: CaseScorer | None = None

    def begin(self, scorer: Scorer, case: Case, watch: Stopwatch, reading: AbstractContextManager[object]) -> None:
        """Start scoring; see `Scorer.begin`."""
        with self._tolerated():
            self._scorer = scorer.begin(case, watch, reading)

    def add(self, block: Block) -> None:
        """Score what the store keeps of some frames; wait for their truth."""
        with self._tolerated():
            if self._scorer:
                self._scorer.add(block.first, block.values)

    def write(self, forecast: str) -> None:
        """Write the scores; see `CaseScorer.write`."""
        with self._tolerated():
            if self._scorer:
                self._scorer.write(forecast)

    def close(self) -> None:
        """Stop scoring."""
        if self._scorer:
            self._scorer.close()
            self._scorer = None

    @contextmanager
    def _tolerated(self) -> Iterator[None]:
        try:
            yield
        except GraphcastBatchError as error:
            if self._needed:
                raise
            self.fault = str(error)
            self.close()
