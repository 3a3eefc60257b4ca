"""Open all groups of the scores of a name: the first one, and those of statistics and variables added later."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.evaluation.score_layout import VECTORS
from graphcast_batch.evaluation.score_store import ScoreStore
from graphcast_batch.plan import parse_key


@dataclass(frozen=True, eq=False)
class ScoreGroup:
    """One group of the scores of a name.

    Attributes:
        scores: the group.
        first: the first group of the name.
        opened: dataset of the group, read lazily.
    """

    scores: ScoreStore
    first: ScoreStore
    opened: xr.Dataset

    @cached_property
    def times(self) -> NDArray[np.datetime64]:
        """Initial times of the scored Cases, ascending; scores of a forecast that was replaced do not count."""
        found, current = self.scores.records(), self.first.records() if self.scores != self.first else None
        keys = [
            key
            for key, record in found.items()
            if current is None or (key in current and current[key].forecast == record.forecast)
        ]
        times = np.array([parse_key(key)[0] for key in keys], "datetime64[ns]")
        return np.intersect1d(times, self.opened["time"].values)


def open_groups(store: Path, name: str) -> list[ScoreGroup]:
    """Open all groups of the scores of a name, one at least.

    Raises:
        StoreError: there are no scores, or they cannot be read.
    """
    groups = ScoreStore.groups(store, name) or [ScoreStore.at(store, name)]
    return [ScoreGroup(scores, groups[0], scores.dataset()) for scores in groups]


def scored_variables(opened: xr.Dataset) -> list[str]:
    """Return the variables of a group that have statistics; the areas of regions and spectra are not among them."""
    return [str(name) for name, array in opened.data_vars.items() if "statistic" in array.dims]


def stored_variables(store: Path, name: str) -> list[str]:
    """Return the variables that have statistics among the scores of a name.

    Raises:
        StoreError: there are no scores, or they cannot be read.
    """
    return list(dict.fromkeys(each for group in open_groups(store, name) for each in scored_variables(group.opened)))


def stored_vectors(store: Path, name: str) -> dict[str, str]:
    """Return the first component of each vector among the scores of a name, by the name of the vector.

    Raises:
        StoreError: there are no scores, or they cannot be read.
    """
    found = (group.scores.identity.get(VECTORS) for group in open_groups(store, name))
    held = (each for each in found if isinstance(each, dict))
    return {vector: str(parts[0]) for each in held for vector, parts in each.items() if isinstance(parts, list)}


def stored_levels(store: Path, name: str) -> list[int]:
    """Return the levels of the scores of a name, hPa; empty if no variable is on levels.

    Raises:
        StoreError: there are no scores, or they cannot be read.
    """
    held = (group.opened["level"].values.tolist() for group in open_groups(store, name) if "level" in group.opened)
    return next(held, [])
