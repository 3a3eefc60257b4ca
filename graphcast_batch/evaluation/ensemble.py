"""Stores of forecasts from the same initial times become the members of an ensemble, read side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation.case_scoring import Fields, ForecastReader
from graphcast_batch.plan import Case, OutputGrid
from graphcast_batch.stores.base import Store

ENSEMBLE: Final = "ensemble"
"""What its scores are called, in the first of its stores."""


@dataclass(frozen=True, eq=False)
class Members:
    """Forecasts of several stores as those of one ensemble.

    Attributes:
        held: those of each member.
    """

    held: tuple[ForecastReader, ...]

    def fields(self, case: Case, names: Sequence[str], lead_hours: Sequence[int], levels: Sequence[int]) -> Fields:
        """Variables of one Case, members first."""
        found: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = {}
        for n, member in enumerate(self.held):
            # One after the other into its place, as all of them at once take the memory that a piece may.
            for name, values in member.fields(case, names, lead_hours, levels).items():
                found.setdefault(name, np.empty((len(self.held), *values.shape), np.float32))[n] = values
        return found


def check_members(stores: Sequence[Store]) -> None:
    """Looks whether stores can be the members of an ensemble.

    Raises:
        EvaluationError: one is there twice, keeps no forecasts, or keeps others than the first.
    """
    first, paths = stores[0], [store.path.resolve() for store in stores]
    for store, path in zip(stores, paths, strict=True):
        if paths.count(path) > 1:
            raise EvaluationError(
                f"the members of an ensemble must be stores other than each other, but {path} is there more than once; "
                "name others with --member or in scores.members"
            )
        if store.only_scores:
            raise EvaluationError(
                f"the members of an ensemble must hold forecasts, but {path} keeps only scores (outputs: none); make "
                "them again into a store that keeps them"
            )
        ours, theirs = _described(first.kept), _described(store.kept)
        other = [what for what in ours if ours[what] != theirs[what]]
        if other:
            raise EvaluationError(
                f"the members of an ensemble must be alike, but the {other[0]} of {path} are {theirs[other[0]]}, and "
                f"those of {first.path} {ours[other[0]]}; run both with the same outputs"
            )


def _described(kept: OutputGrid) -> dict[str, str]:
    """What must be the same in all members, each in words."""
    axes = {"latitudes": kept.latitude, "longitudes": kept.longitude}
    return {
        **{what: f"{axis.size} from {axis[0]:g} to {axis[-1]:g}" for what, axis in axes.items()},
        "levels": f"{', '.join(map(str, kept.levels))} hPa",
        "variables": ", ".join(f"{name} (on levels)" if levelled else name for name, levelled in kept.on_levels),
        "lead times": f"{', '.join(map(str, kept.lead_hours))} h",
    }
