"""Join fields of several files, and compare fields that two files hold."""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import InputError
from graphcast_batch.inputs.layouts.contents import check_known
from graphcast_batch.inputs.layouts.members import member_dims
from graphcast_batch.inputs.layouts.units import LEVEL
from graphcast_batch.inputs.sources.shares import FileOverlap
from graphcast_batch.inputs.sources.volumes import Volume

_ALIKE: Final = 1e-3
"""Largest difference of two copies of a field, as a fraction of its range: packing into 12 bits or more changes a field
by less, and two analyses of one time differ by more."""
_MOST: Final = 24
"""Largest number of comparisons of each variable, so that hundreds of overlapping files open in seconds."""


def join_fields(
    parts: Sequence[xr.DataArray], times: NDArray[np.datetime64], levels: Sequence[int]
) -> tuple[xr.DataArray, NDArray[np.datetime64]]:
    """Join parts of one variable that were read from several files.

    Args:
        parts: one or more (time, [level], ...) arrays, which do not overlap.
        times: (time,) datetime64[ns] times of the result, in this order.
        levels: levels of the result in hPa, ascending; ignored for a variable without levels.

    Returns:
        The variable, and the times at which it is incomplete.
    """
    first = parts[0]
    has_levels = LEVEL in first.dims
    if len(parts) == 1 and first.sizes["time"] == times.size and (not has_levels or first.sizes[LEVEL] == len(levels)):
        return first, times[:0]
    lead = (times.size, len(levels)) if has_levels else (times.size,)
    values = np.empty((*lead, *first.shape[len(lead) :]), first.dtype)
    there = np.zeros(lead, bool)
    for part in parts:
        at = np.isin(times, part["time"].values)
        place = np.ix_(at, np.isin(levels, part[LEVEL].values)) if has_levels else np.ix_(at)
        values[place], there[place] = part.values, True
    coords = {LEVEL: np.asarray(levels, np.int32)} if has_levels else {}
    joined = xr.DataArray(values, coords, first.dims, name=first.name, attrs=first.attrs)
    return joined, times[~(there.all(axis=1) if has_levels else there)]


def check_overlaps(overlaps: Sequence[FileOverlap]) -> None:
    """Compare fields that two files hold, which are read from the first file.

    Raises:
        InputError: the fields of two files differ.
    """
    counts: dict[str, int] = {}
    for overlap in overlaps:
        counts[overlap.name] = counts.get(overlap.name, 0) + 1
        if counts[overlap.name] <= _MOST:
            _compare(overlap)


def check_single(volumes: Sequence[Volume], names: Iterable[str]) -> None:
    """Check that no file holds several members of an ensemble of some variables.

    Raises:
        InputError: a file does; the error names it, and what to do.
    """
    for volume in volumes:
        for name in sorted(set(names) & volume.contents.dims.keys()):
            if member_dims(volume.contents.dims[name]):
                check_known(name, volume.contents.dims[name], volume.origin)


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
