"""Add random fields to the input frames of a Case, within what the variables can be."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import InputError
from graphcast_batch.inputs.quality.limits import limits
from graphcast_batch.inputs.quality.locations import finding, stamp
from graphcast_batch.perturbations.draws import Draw
from graphcast_batch.perturbations.scales import PRECIPITATION, Scale
from graphcast_batch.variables import attributes

_NEVER_NEGATIVE: Final = frozenset({"specific_humidity", PRECIPITATION})
"""Variables whose perturbed values are cut off at 0."""


class RandomField(Protocol):
    """Random fields with mean 0 and standard deviation 1 at every point."""

    def __call__(self, name: str, levels: Sequence[int | None], draw: Draw) -> Iterator[NDArray[np.float64]]:
        """Yield one field, (lat, lon), for each of some levels of a variable.

        The field at a level depends on the arguments name, level and draw alone, to the last bit.

        Args:
            name: name of the variable.
            levels: levels in hPa, or (None,) for a variable that is not on levels.
            draw: the perturbation that the fields are for.
        """


@dataclass(frozen=True, eq=False)
class AdditivePerturbation:
    """Adds one random field to all input frames, so that the change from frame to frame stays as it was.

    Attributes:
        scales: variables and levels, with the standard deviation of the perturbation.
        field: draws the random fields.
        centred: whether the states 2 k and 2 k + 1 have the field k, added in the first and subtracted in the second.
        seed: seed of the random fields.
    """

    scales: tuple[Scale, ...]
    field: RandomField
    centred: bool
    seed: int

    def __call__(self, frames: xr.Dataset, number: int, init_time: np.datetime64) -> xr.Dataset:
        """Return perturbed input frames; see `graphcast_batch.perturbations.base.Perturbation`."""
        drawn, sign = (number // 2, 1 - 2 * (number % 2)) if self.centred else (number, 1)
        draw = Draw(self.seed, drawn, init_time)
        origin = f"the perturbed state number {number} of {stamp(init_time)}"
        return with_added(frames, {scale: self._fields(scale, sign, draw) for scale in self.scales}, origin)

    def read_bytes(self, number: int, init_time: np.datetime64) -> int:
        """Return 0: random numbers are computed."""
        return 0

    def _fields(self, scale: Scale, sign: int, draw: Draw) -> Iterator[NDArray[np.float64]]:
        """Yield what is added to each level of a variable; a level at a time bounds the memory."""
        for stddev, field in zip(scale.stddev, self.field(scale.name, scale.levels, draw), strict=True):
            yield sign * stddev * field


def with_added(frames: xr.Dataset, fields: Mapping[Scale, Iterable[NDArray[np.floating]]], origin: str) -> xr.Dataset:
    """Return frames to which fields were added, within what the variables can be.

    Args:
        frames: input frames, as `graphcast_batch.inputs.case_inputs.CaseInputs` holds them; they stay as they are.
        fields: for each variable a field at each of its levels, ([time], lat, lon).
        origin: what the frames are, for messages.

    Returns:
        New frames, float32. Other variables share the memory of the given ones.

    Raises:
        InputError: a value was moved beyond the limits of its variable.
    """
    return frames.assign({scale.name: _sum_of(frames[scale.name], scale, fields[scale], origin) for scale in fields})


def _sum_of(array: xr.DataArray, scale: Scale, fields: Iterable[NDArray[np.floating]], origin: str) -> xr.DataArray:
    changed = array.copy(deep=True)
    for level, field in zip(scale.levels, fields, strict=True):
        place = place_of(array, level)
        changed.values[place] = _sum(scale.name, array.values[place], field)
        if not _is_within(changed.values[place], scale.name, level):
            at = {} if level is None else {"level": level}
            _refuse_moved(array.sel(at), changed.sel(at), level, origin)
    return changed


def place_of(array: xr.DataArray, level: int | None) -> tuple[slice | int, ...]:
    """Return the indices of a level; those of xarray would take longer than the sum, for a small grid."""
    if level is None:
        return ()
    before = array.get_axis_num("level")
    return (*(slice(None),) * before, array["level"].values.tolist().index(level))


def _sum(name: str, values: NDArray[np.float32], perturbation: NDArray[np.floating]) -> NDArray[np.float32]:
    """Add in float64, round once to float32; (time, lat, lon) and ([time], lat, lon)."""
    total = values + perturbation.astype(np.float64, copy=False)
    if name in _NEVER_NEGATIVE:
        np.maximum(total, 0, out=total)
    return total.astype(np.float32)


def _is_within(values: NDArray[np.float32], name: str, level: int | None) -> bool:
    """Return whether all values are within the limits; a NaN is not."""
    low, high = limits(name, level) or (-np.inf, np.inf)
    return bool(low <= values.min() and values.max() <= high)


def _refuse_moved(before: xr.DataArray, after: xr.DataArray, level: int | None, origin: str) -> None:
    """Refuse values that only the perturbation moved beyond the limits: the inputs may be random numbers, in tests."""
    low, high = limits(str(after.name), level) or (-np.inf, np.inf)
    bad = _beyond(after.values, low, high) & ~_beyond(before.values, low, high)
    worst = after.values[bad]
    expected = f"stay within {low:g} and {high:g} {attributes(str(after.name)).get('units', '')}".rstrip()
    where = "" if level is None else f" at {level} hPa"
    found = finding(
        after,
        bad,
        f"{expected}{where}",
        f"perturbed values lie beyond these limits, at {worst.min(initial=np.inf):g} to {worst.max(initial=-np.inf):g}",
        "lower ensemble.perturbations.amplitude",
    )
    if found:
        raise InputError(f"{origin} cannot start a forecast: {found}")


def _beyond(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.bool_]:
    return np.asarray((values < low) | (values > high))
