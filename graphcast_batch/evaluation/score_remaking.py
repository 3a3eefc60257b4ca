"""Find out what can make the scores of a Case again: an evaluation, the next run, or nothing any more."""

import re
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Final

import numpy as np

from graphcast_batch.errors import ConfigError, StoreError
from graphcast_batch.evaluation.ensemble import ENSEMBLE
from graphcast_batch.evaluation.lagged import LAGGED
from graphcast_batch.evaluation.score_store import FORECAST, ScoreStore
from graphcast_batch.evaluation.stored_members import members_of
from graphcast_batch.plan import parse_key
from graphcast_batch.setup.ensemble_store import ensembles_of
from graphcast_batch.setup.kept_config import kept_config
from graphcast_batch.stores.base import Store
from graphcast_batch.stores.flaws import REPAIR
from graphcast_batch.variables import HOUR

_FEWER_MEMBERS: Final = re.compile(rf"{ENSEMBLE}-\d+")
"""Matches the names of scores of fewer members than a store has, which stay as they are."""


class Remaking(Enum):
    """What can make the scores of a Case again."""

    EVALUATION = "the next evaluation"
    RUN = "the next run"
    NOTHING = "nothing"


@dataclass(frozen=True, eq=False)
class ScoreRemaking:
    """What can make the scores in a store again. It looks at the ledger once.

    Attributes:
        store: the store that the scores are in.
    """

    store: Store

    def of(self, scores: ScoreStore, key: str) -> Remaking:
        """Return what can make the scores of a Case again.

        Args:
            scores: the scores.
            key: key of the Case.

        Raises:
            StoreError: the store cannot be read.
        """
        base = scores.added_to or scores.name
        if self.is_all_there_is(scores):
            return Remaking.RUN
        if _FEWER_MEMBERS.fullmatch(base):
            return Remaking.NOTHING
        if not self._is_removed(scores, base, key):
            return Remaking.EVALUATION
        by_run = scores.name == FORECAST or base == ENSEMBLE
        return Remaking.RUN if by_run and self._online and self.ensembles else Remaking.NOTHING

    def is_all_there_is(self, scores: ScoreStore) -> bool:
        """Return whether nothing but these scores is kept of the forecasts in a store."""
        return self.store.only_scores and scores.name == FORECAST

    def remedy(self, scores: ScoreStore, key: str) -> str:
        """Return what to do about damaged scores of a Case; for the arguments see `of`."""
        base = scores.added_to or scores.name
        match self.of(scores, key):
            case Remaking.EVALUATION:
                return "verify with --repair, so that the next evaluation scores the Case again"
            case Remaking.RUN if self.is_all_there_is(scores):
                return REPAIR
            case Remaking.RUN:
                return (
                    "verify with --repair, so that the next run makes the members again whose values were removed, and "
                    "scores them"
                )
        record = scores.record_path(key).relative_to(self.store.path)
        without = f"put back a copy of {scores.folder.name}, or remove {record} to go without the scores of this Case"
        if _FEWER_MEMBERS.fullmatch(base):
            return f"they are of fewer members than the store has now, which no evaluation scores again: {without}"
        reason = "the values that they were computed from were removed (outputs.members), so they cannot be made again"
        if scores.name == FORECAST or base == ENSEMBLE:
            return (
                f"{reason} from the store: run once with online: true in scores, and then verify with --repair, so "
                f"that a further run makes the members again and scores them; or {without}"
            )
        return f"{reason}: {without}"

    @cached_property
    def ensembles(self) -> Store | None:
        """The store of what is computed of all members together, whose Cases let a run make removed members again."""
        return ensembles_of(self.store)

    def _is_removed(self, scores: ScoreStore, base: str, key: str) -> bool:
        """Return whether values that the scores of a Case need were removed."""
        start, first = parse_key(key)[0], members_of(self.store)[0].number
        if base == ENSEMBLE:
            return bool(self._removed.get(start))
        return any(first in self._removed.get(start - lag * HOUR, ()) for lag in _lags(scores, base))

    @cached_property
    def _removed(self) -> dict[np.datetime64, set[int | None]]:
        """The members whose values were removed, by initial time."""
        there, found = self.store.ledger.complete_steps(), dict[np.datetime64, set[int | None]]()
        for key in self.store.ledger.dropped_steps():
            if key not in there:
                start, number = parse_key(key)
                found.setdefault(start, set()).add(number)
        return found

    @cached_property
    def _online(self) -> bool:
        """Whether the next run, with the config of the last one, scores its forecasts."""
        with suppress(ConfigError, StoreError):
            return kept_config(self.store.path).scores.online
        return False


def _lags(scores: ScoreStore, base: str) -> list[int]:
    """Return the lags of the forecasts that scores were computed from, h."""
    if base != LAGGED:
        return [0]
    with suppress(StoreError):
        lags = scores.identity.get("lag_hours")
        return [int(str(lag)) for lag in lags] if isinstance(lags, list) else [0]
    return [0]
