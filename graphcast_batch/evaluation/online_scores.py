"""Score forecasts online: compare the frames of a running forecast with the truth, on their way to the store."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.errors import EvaluationError, StoreError
from graphcast_batch.evaluation.case_scoring import (
    ScoringPiece,
    add_piece,
    as_points,
    empty_sums,
    expectation,
    scoring_pieces,
)
from graphcast_batch.evaluation.climatology import Climatology
from graphcast_batch.evaluation.derived import steps_of_parts, with_derived_forecasts
from graphcast_batch.evaluation.ensemble import ENSEMBLE
from graphcast_batch.evaluation.group_scoring import lay_out_groups
from graphcast_batch.evaluation.regions import Regions
from graphcast_batch.evaluation.score_store import FORECAST, ScoreStore
from graphcast_batch.evaluation.scoring_setup import TERM_HOURS, Fields, ScoringSetup
from graphcast_batch.evaluation.store_scoring import ensemble_of, identity_of, score_stored, scoring_of, truth_of
from graphcast_batch.evaluation.stored_members import members_of
from graphcast_batch.plan import Case
from graphcast_batch.stores.base import Store
from graphcast_batch.stores.store_kinds import open_store
from graphcast_batch.timing import Stopwatch


@dataclass(frozen=True, eq=False)
class OnlineScorer:
    """Scores the forecasts of one run while they are computed.

    Attributes:
        store: of the run.
        scores: to write to.
        scoring: what is scored against what.
        regions: with the weights of the points.
        ensemble: what all members together are scored against; None without members.
    """

    store: Store
    scores: ScoreStore
    scoring: ScoringSetup
    regions: Regions
    ensemble: ScoringSetup | None = None

    def begin(self, case: Case, watch: Stopwatch, reading: AbstractContextManager[object]) -> "OnlineCaseScorer | None":
        """Start scoring a Case; None of a member but the first. See `graphcast_batch.pipeline.ports.Scorer`.

        Raises:
            EvaluationError: there is no truth at any lead time of the Case.
        """
        first = members_of(self.store)[0].number
        return OnlineCaseScorer(self, case, watch, reading) if case.member == first else None

    def score_ensemble(self, case: Case, advanced: Callable[[], None], reading: AbstractContextManager[object]) -> None:
        """Score all members of an initial time; see `graphcast_batch.pipeline.ports.Scorer`.

        Raises:
            StoreError: another process is scoring them.
            GraphcastBatchError: they cannot be scored.
        """
        assert self.ensemble is not None, "only stores with members have ensembles"
        if score_stored(self.store.path, ENSEMBLE, self.ensemble, case, advanced, reading) is None:
            raise StoreError(
                f"{case.key}: the lease on the scores of its ensemble must be free, but another process has it; wait "
                "until that process ends, and run again"
            )

    @cached_property
    def times(self) -> dict[str, NDArray[np.datetime64] | None]:
        """For each variable the times at which its truth is available; None for every time."""
        return self.scoring.times()

    @property
    def derived(self) -> tuple[str, ...]:
        """Names of the variables that are derived from those of a forecast before it is scored."""
        return tuple(self.scoring.steps)


def run_scorer(config: RunConfig) -> OnlineScorer:
    """Open truth and climatology of a run, and lay out its scores.

    Args:
        config: of the run, whose store is laid out.

    Raises:
        StoreMismatchError: the store has scores that are not comparable with these.
        GraphcastBatchError: truth or climatology cannot be read, or do not fit the forecasts.
    """
    store = open_store(config.store)
    folder = config.scores.climatology
    climatology = Climatology(folder, store.kept) if folder else None
    scoring = scoring_of(config.scores, store, truth_of(config, store.kept), climatology)
    # Groups that were added later are left to the next evaluation, which scores what a Case lacks.
    identity, ensemble = identity_of(config, climatology), None
    first, *_ = lay_out_groups(store, FORECAST, scoring, identity)
    if config.combines_members:
        ensemble = ensemble_of(scoring, [store])
        lay_out_groups(store, ENSEMBLE, ensemble, identity)
    return OnlineScorer(store, first.scores, first.scoring, first.scoring.weighed(), ensemble)


class OnlineCaseScorer:
    """Scores one Case in the same pieces and the same order as a stored forecast, which gives the same numbers.

    The truth of the next piece is read ahead in a thread of its own.
    """

    def __init__(
        self, run: OnlineScorer, case: Case, watch: Stopwatch, reading: AbstractContextManager[object]
    ) -> None:
        self._run = run
        self._case = replace(case, member=None)  # scores have one forecast of each initial time
        self._index = run.store.place_of(case)["time"]
        self._watch = watch
        self._reading = reading
        self._pieces = deque(scoring_pieces(run.scoring, case, run.times))
        if not self._pieces:
            raise EvaluationError(
                f"{case.key}: there must be truth at one lead time at least, but {run.scoring.truth.origin} has none; "
                "give a truth with later times in scores.truth"
            )
        self._fields = sum(piece.leads.size * len(piece.names) for piece in self._pieces)
        self._sums = empty_sums(run.scoring, case, run.regions)
        self._frames = PendingFrames(run.store, steps_of_parts(run.derived))
        self._forecasts = with_derived_forecasts(self._frames, run.derived)
        self._ahead = ThreadPoolExecutor(1, f"truth {case.key}")
        self._expected = self._ahead.submit(self._expect, self._pieces[0])

    def add(self, first: int, values: Mapping[str, NDArray[np.float32]]) -> None:
        """Add the next lead times that the store keeps, and score every piece that is then complete."""
        self._frames.take(first, values)
        last = first + len(next(iter(values.values())))
        while self._pieces and self._pieces[0].block.stop <= last:
            self._score(self._pieces.popleft())
        self._frames.drop_before(self._pieces[0].block.start if self._pieces else None)

    def write(self, forecast: str) -> None:
        """Write the scores, unless an evaluation is scoring the same Case."""
        scores, index = self._run.scores, self._index
        lease = scores.lease(self._case)
        if lease is None and self._run.store.only_scores:
            raise StoreError(
                f"{self._case.key}: the lease on its scores must be free, but another process has it; wait until that "
                "process ends, and run again"
            )
        if lease is None:
            return
        with scores.keeping(lease):
            means = {name: found.means for name, found in self._sums.items()}
            scores.write(index, self._case, means, self._fields, forecast, self._watch.seconds, lease)

    def close(self) -> None:
        """Stop reading ahead."""
        self._ahead.shutdown(cancel_futures=True)

    def _score(self, piece: ScoringPiece) -> None:
        expected = self._expected.result()
        if self._pieces:
            self._expected = self._ahead.submit(self._expect, self._pieces[0])
        with self._watch.stage("score"):
            scoring = self._run.scoring
            forecast = self._forecasts.fields(self._case, piece.names, piece.hours.tolist(), scoring.levels)
            fields = as_points(scoring, piece.names, forecast, expected)
            add_piece(self._sums, scoring, self._run.regions, self._case, piece, fields)

    def _expect(self, piece: ScoringPiece) -> tuple[Fields, Fields]:
        with self._reading, self._watch.stage("truth"):
            return expectation(self._run.scoring, self._case, piece)


class PendingFrames:
    """Reader of a forecast in progress: keeps the lead times that are still needed, with the values the store keeps."""

    def __init__(self, store: Store, steps: Mapping[str, int]) -> None:
        """Start without lead times.

        Args:
            store: of the run, laid out for the forecast.
            steps: for variables that sums are made of, the number of their values, 6 h apart.
        """
        self._kept = store.kept
        self._steps = steps
        self._as_stored = store.as_stored
        self._fields: dict[str, dict[int, NDArray[np.float32]]] = {name: {} for name in store.kept.variables}

    def take(self, first: int, values: Mapping[str, NDArray[np.float32]]) -> None:
        """Add the next lead times; ``first`` is the index of the first, counted from 0 among those the store keeps."""
        for name, fields in values.items():
            hours = self._kept.lead_hours[first : first + len(fields)]
            # A field that outlives its block must not be a view, which would keep all of its frame in memory.
            own = fields.copy() if self._steps.get(name, 1) > 1 else fields
            self._fields[name] |= dict(zip(hours, own, strict=True))

    def drop_before(self, lead: int | None) -> None:
        """Drop the fields not needed for the lead time of an index and later ones; None drops all."""
        for name, fields in self._fields.items():
            reach = TERM_HOURS * self._steps.get(name, 1)
            over = np.inf if lead is None else self._kept.lead_hours[lead] - reach
            self._fields[name] = {hours: field for hours, field in fields.items() if hours > over}

    def fields(self, case: Case, names: Sequence[str], lead_hours: Sequence[int], levels: Sequence[int]) -> Fields:
        """Return variables at lead times that were added and not dropped; see `ForecastReader`.

        The values are rounded to the bits that the store keeps.
        """
        on_levels = dict(self._kept.on_levels)
        places = [self._kept.levels.index(level) for level in levels]
        found = {}
        for name in names:
            # Contiguous like values read from a store, whatever the memory layout of the frames.
            values = np.ascontiguousarray(np.stack([self._fields[name][hours] for hours in lead_hours]))
            chosen = _at(values, places) if on_levels[name] else values
            found[name] = self._as_stored(name, chosen)
        return found


def _at(values: NDArray[np.float32], levels: Sequence[int]) -> NDArray[np.float32]:
    """Select levels by index from fields over (lead time, level, latitude, longitude); all of them without a copy."""
    everything = list(levels) == list(range(values.shape[1]))
    return values if everything else np.ascontiguousarray(values[:, levels])
