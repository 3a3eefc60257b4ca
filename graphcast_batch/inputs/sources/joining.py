"""Join fields of several files, and compare those that two files hold."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import InputError
from graphcast_batch.inputs.layouts.units import LEVEL
from graphcast_batch.inputs.sources.shares import FileOverlap
from graphcast_batch.inputs.sources.volumes import Volume

_ALIKE: Final = 1e-3
"""Share of a field's range: packed into 12 bits or more, a field is off by less; two analyses of one time by more."""
_MOST: Final = 24
"""Comparisons of each variable, so that hundreds of files that overlap by a time each still open in seconds."""


def join_fields(
    parts: Sequence[xr.DataArray], times: NDArray[np.datetime64], levels: Sequence[int]
) -> tuple[xr.DataArray, NDArray[np.datetime64]]:
    """One variable of the parts that several files gave.

    Args:
        parts: (time, [level], ...) one or more, which do not overlap.
        times: (time,) datetime64[ns] that are wanted, in that order.
        levels: hPa that are wanted, ascending; a variable without levels ignores them.

    Returns:
        The variable, and the times at which it is not complete.
    """
    first = parts[0]
    has_levels = LEVEL in first.dims
    if len(parts) == 1 and first.sizes["time"] == times.size and (not has_levels or first.sizes[LEVEL] == len(levels)):
        return first, times[:0]
    lead = (times.size, len(levels)) if has_levels else (times.size,)
    complete = np.empty((*lead, *first.shape[len(lead) :]), first.dtype)
    there = np.zeros(lead, bool)
    for part in parts:
        at = np.isin(times, part["time"].values)
        place = np.ix_(at, np.isin(levels, part[LEVEL].values)) if has_levels else np.ix_(at)
        complete[place], there[place] = part.values, True
    coords = {LEVEL: np.asarray(levels, np.int32)} if has_levels else {}
    joined = xr.DataArray(complete, coords, first.dims, name=first.name, attrs=first.attrs)
    return joined, times[~(there.all(axis=1) if has_levels else there)]


def check_overlaps(overlaps: Sequence[FileOverlap]) -> None:
    """Compares fields that two files hold, of which the first file's are taken.

    Raises:
        InputError: two differ.
    """
    counts: dict[str, int] = {}
    for overlap in overlaps:
        counts[overlap.name] = counts.get(overlap.name, 0) + 1
        if counts[overlap.name] <= _MOST:
            _compare(overlap)


def _compare(overlap: FileOverlap) -> None:
    one, other = (_field(volume, overlap) for volume in (overlap.first, overlap.second))
    gaps = np.isnan(one)
    limit = _ALIKE * np.ptp(one[~gaps]) if not gaps.all() else 0.0
    if np.array_equal(gaps, np.isnan(other)) and np.all(np.abs(one - other)[~gaps] <= limit):
        return
    apart = np.nanmax(np.abs(one - other)) if np.any(~np.isnan(one - other)) else np.nan
    where = overlap.time.astype("datetime64[m]")
    level = "" if overlap.level is None else f" on {overlap.level} hPa"
    raise InputError(
        f"each time of {overlap.name} must be in one file, or be alike in all that hold it, but {where}{level} is in "
        f"{overlap.first.origin} and in {overlap.second.origin} with values that differ by up to {apart:.3g}; leave "
        "one of them out of inputs.path"
    )


def _field(volume: Volume, overlap: FileOverlap) -> NDArray[np.float64]:
    levels = () if overlap.level is None else (overlap.level,)
    fields = volume.fields([overlap.name], np.asarray([overlap.time]), levels)
    return np.asarray(fields[overlap.name].values, np.float64)
