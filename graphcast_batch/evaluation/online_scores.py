"""Forecasts become scores while they are made: frames on their way to the store meet what came true."""

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.errors import EvaluationError, StoreError
from graphcast_batch.evaluation.case_scoring import (
    Fields,
    ScorePart,
    ScoringSetup,
    add_piece,
    beside,
    expectation,
    no_sums,
    pieces_of,
)
from graphcast_batch.evaluation.climatology import Climatology
from graphcast_batch.evaluation.derived import steps_of_parts, with_derived_forecasts
from graphcast_batch.evaluation.regions import Regions
from graphcast_batch.evaluation.score_store import FORECAST, ScoreStore
from graphcast_batch.evaluation.store_scoring import identity_of, scored_by, scoring_of, truth_of
from graphcast_batch.plan import Case
from graphcast_batch.stores.base import Store
from graphcast_batch.stores.store_kinds import open_store
from graphcast_batch.timing import Stopwatch


@dataclass(frozen=True, eq=False)
class RunScorer:
    """What the forecasts of one run are held against.

    Attributes:
        store: that they go to.
        scores: where their scores go.
        scoring: what is scored against what.
        regions: with what each point weighs.
    """

    store: Store
    scores: ScoreStore
    scoring: ScoringSetup
    regions: Regions

    def begin(self, case: Case, watch: Stopwatch, reading: AbstractContextManager[object]) -> "CaseScores":
        """Begins with a Case; see `graphcast_batch.pipeline.Scorer`.

        Raises:
            EvaluationError: no truth is held at any of its lead times.
        """
        return CaseScores(self, case, watch, reading)

    @cached_property
    def times(self) -> dict[str, NDArray[np.datetime64] | None]:
        """By variable, the times at which its truth is held."""
        return self.scoring.times()

    @property
    def derived(self) -> tuple[str, ...]:
        """What is made of the variables of a forecast before it is scored."""
        return tuple(self.scoring.steps)


def run_scorer(config: RunConfig) -> RunScorer:
    """Opens what the forecasts of a run are held against, and makes room for their scores.

    Args:
        config: of the run, whose store is laid out.

    Raises:
        StoreMismatchError: there are scores in the store which cannot be compared with these.
        GraphcastBatchError: truth or climatology cannot be read, or do not fit the forecasts.
    """
    store = open_store(config.store)
    folder = config.scores.climatology
    usual = Climatology(folder, store.kept) if folder else None
    scoring = scoring_of(config.scores, store, truth_of(config, store.kept), usual)
    regions = scoring.weighed()
    scores = ScoreStore.lay_out(store.path, FORECAST, scored_by(scoring, regions, identity_of(config)))
    return RunScorer(store, scores, scoring, regions)


class CaseScores:
    """Scores of one Case: the same pieces, in the same order, as those of a stored forecast, and so the same numbers.

    What the next piece is held against is read ahead in a thread of its own.
    """

    def __init__(self, run: RunScorer, case: Case, watch: Stopwatch, reading: AbstractContextManager[object]) -> None:
        self._run = run
        self._case = case
        self._watch = watch
        self._reading = reading
        self._pieces = deque(pieces_of(run.scoring, case, run.times))
        if not self._pieces:
            raise EvaluationError(
                f"{case.key}: truth must be held at one lead time at least, but {run.scoring.truth.origin} holds none; "
                "give a truth that reaches further in scores.truth"
            )
        self._fields = sum(piece.leads.size * len(piece.names) for piece in self._pieces)
        self._sums = no_sums(run.scoring, case, run.regions)
        self._frames = Frames(run.store, steps_of_parts(run.derived))
        self._forecasts = with_derived_forecasts(self._frames, run.derived)
        self._ahead = ThreadPoolExecutor(1, f"truth {case.key}")
        self._expected = self._ahead.submit(self._expect, self._pieces[0])

    def add(self, first: int, values: Mapping[str, NDArray[np.float32]]) -> None:
        """Takes the next lead times that the store keeps, and scores every piece that is complete with them."""
        self._frames.take(first, values)
        last = first + len(next(iter(values.values())))
        while self._pieces and self._pieces[0].block.stop <= last:
            self._score(self._pieces.popleft())
        self._frames.drop_before(self._pieces[0].block.start if self._pieces else None)

    def write(self, forecast: str) -> None:
        """Writes the scores, unless an evaluation is just doing that."""
        scores, index = self._run.scores, self._run.store.index_of(self._case)
        lease = scores.lease(self._case)
        if lease is None and self._run.store.only_scores:
            raise StoreError(f"{self._case.key}: its scores must be this run's to write, but another one writes them")
        if lease is None:
            return
        with scores.keeping(lease):
            means = {name: found.means for name, found in self._sums.items()}
            scores.write(index, self._case, means, self._fields, forecast, self._watch.seconds, lease)

    def close(self) -> None:
        """Ends what is still read ahead."""
        self._ahead.shutdown(cancel_futures=True)

    def _score(self, piece: ScorePart) -> None:
        expected = self._expected.result()
        if self._pieces:
            self._expected = self._ahead.submit(self._expect, self._pieces[0])
        with self._watch.stage("score"):
            scoring = self._run.scoring
            forecast = self._forecasts.fields(self._case, piece.names, piece.hours.tolist(), scoring.levels)
            fields = beside(scoring, forecast, expected)
            add_piece(self._sums, scoring, self._run.regions, self._case, piece, fields)

    def _expect(self, piece: ScorePart) -> tuple[Fields, Fields]:
        with self._reading, self._watch.stage("truth"):
            return expectation(self._run.scoring, self._case, piece)


class Frames:
    """Those lead times of a forecast in the making that are still needed, as the store gives them once it has them."""

    def __init__(self, store: Store, steps: Mapping[str, int]) -> None:
        """Begins with none.

        Args:
            store: that the forecast goes to, laid out for it.
            steps: of variables that sums over several steps of 6 h are made of, of how many.
        """
        self._kept, self._step_hours = store.kept, store.step_hours
        self._steps = steps
        self._as_stored = store.as_stored
        self._fields: dict[str, dict[int, NDArray[np.float32]]] = {name: {} for name in store.kept.variables}

    def take(self, first: int, values: Mapping[str, NDArray[np.float32]]) -> None:
        """Takes the next lead times, counted from 0 among those that the store keeps."""
        for name, fields in values.items():
            hours = self._kept.lead_hours[first : first + len(fields)]
            # What outlives its block must not be a view, which would keep all of its frame in memory.
            own = fields.copy() if self._steps.get(name, 1) > 1 else fields
            self._fields[name] |= dict(zip(hours, own, strict=True))

    def drop_before(self, lead: int | None) -> None:
        """Drops what is not needed for a lead time and those behind it; None for all."""
        for name, fields in self._fields.items():
            reach = self._step_hours * self._steps.get(name, 1)
            over = np.inf if lead is None else self._kept.lead_hours[lead] - reach
            self._fields[name] = {hours: field for hours, field in fields.items() if hours > over}

    def fields(self, case: Case, names: Sequence[str], lead_hours: Sequence[int], levels: Sequence[int]) -> Fields:
        """Return variables at lead times that were added and not dropped; see `ForecastReader`.

        They have no more bits than the store keeps.
        """
        on_levels = dict(self._kept.on_levels)
        places = [self._kept.levels.index(level) for level in levels]
        found = {}
        for name in names:
            # As they are read from a store, in whatever order the parts of frames lie in memory.
            values = np.ascontiguousarray(np.stack([self._fields[name][hours] for hours in lead_hours]))
            chosen = _at(values, places) if on_levels[name] else values
            found[name] = self._as_stored(name, chosen)
        return found


def _at(values: NDArray[np.float32], places: Sequence[int]) -> NDArray[np.float32]:
    """Some levels of fields over (lead time, level, latitude, longitude); all of them without a copy."""
    everything = list(places) == list(range(values.shape[1]))
    return values if everything else np.ascontiguousarray(values[:, places])
