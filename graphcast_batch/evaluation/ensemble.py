"""Read forecasts from the same initial times, of one store or of several, as the members of an ensemble."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation.scoring_setup import Fields, ForecastReader
from graphcast_batch.plan import Case
from graphcast_batch.stores.base import Store
from graphcast_batch.stores.layout import OutputGrid

ENSEMBLE: Final = "ensemble"
"""Name of an ensemble's scores, in its first store."""


@dataclass(frozen=True, eq=False)
class EnsembleForecasts:
    """Reader of the forecasts of all members as one ensemble.

    Attributes:
        held: reader of each member.
    """

    held: tuple[ForecastReader, ...]

    def fields(self, case: Case, names: Sequence[str], lead_hours: Sequence[int], levels: Sequence[int]) -> Fields:
        """Read variables of one Case, with the members as first dimension."""
        found: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = {}
        for n, member in enumerate(self.held):
            # One after the other into one array, as all members together take all the memory of a piece.
            for name, values in member.fields(case, names, lead_hours, levels).items():
                found.setdefault(name, np.empty((len(self.held), *values.shape), np.float32))[n] = values
        return found


def check_members(stores: Sequence[Store]) -> None:
    """Check that stores can be the members of one ensemble.

    Raises:
        EvaluationError: a store is given twice, keeps no forecasts, or differs from the first in grid, levels,
            variables or lead times.
    """
    first, paths = stores[0], [store.path.resolve() for store in stores]
    for store, path in zip(stores, paths, strict=True):
        if paths.count(path) > 1:
            raise EvaluationError(
                f"the members of an ensemble must be different stores, but {path} is given more than once; "
                "name others with --member or in scores.members"
            )
        if store.only_scores:
            raise EvaluationError(
                f"the members of an ensemble must hold forecasts, but {path} keeps only scores (outputs: none); run "
                "them again into a store that keeps forecasts"
            )
        ours, theirs = _described(first.kept), _described(store.kept)
        other = [what for what in ours if ours[what] != theirs[what]]
        if other:
            raise EvaluationError(
                f"the members of an ensemble must be alike, but the {other[0]} of {path} are {theirs[other[0]]}, and "
                f"those of {first.path} {ours[other[0]]}; run both with the same outputs"
            )


def _described(kept: OutputGrid) -> dict[str, str]:
    """Describe in words what must be equal in all members."""
    axes = {"latitudes": kept.latitude, "longitudes": kept.longitude}
    return {
        **{what: f"{axis.size} from {axis[0]:g} to {axis[-1]:g}" for what, axis in axes.items()},
        "levels": f"{', '.join(map(str, kept.levels))} hPa",
        "variables": ", ".join(f"{name} (on levels)" if levelled else name for name, levelled in kept.on_levels),
        "lead times": f"{', '.join(map(str, kept.lead_hours))} h",
    }
