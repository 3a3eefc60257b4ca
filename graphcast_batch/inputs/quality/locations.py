"""Describe the bad values of an array: their number, the first location, and how many levels and times have them."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.inputs.findings import Finding


def finding(array: xr.DataArray, bad: NDArray[np.bool_], expected: str, found: str, remedy: str) -> Finding | None:
    """Return a finding with the number of bad values and the location of the first; None if there are no bad values."""
    count = int(np.count_nonzero(bad))
    if not count:
        return None
    place = first(bad)
    places = [_coordinate(array, str(dim), index) for dim, index in zip(array.dims, place, strict=True)]
    elsewhere = "".join(_reach(array, bad, dim) for dim in ("level", "time") if dim in array.dims)
    where = f"the first at {', '.join(places) or 'its only value'}{elsewhere}"
    level, time = level_and_time(array, place)
    return Finding(str(array.name), expected, f"{count} of {bad.size} {found}, {where}", remedy, level, time)


def first(bad: NDArray[np.bool_]) -> tuple[int, ...]:
    """Return the index of the first bad value along each dimension."""
    return tuple(int(index) for index in np.unravel_index(int(np.argmax(bad)), bad.shape))


def level_and_time(array: xr.DataArray, place: tuple[int, ...]) -> tuple[float | None, np.datetime64 | None]:
    """Return the level in hPa and the time at an index; None for a dimension that the array does not have."""
    there = {
        dim: array[dim].values[index]
        for dim, index in zip(array.dims, place, strict=True)
        if dim in ("level", "time") and dim in array.coords
    }
    level, time = there.get("level"), there.get("time")
    return None if level is None else float(level), time


def _coordinate(array: xr.DataArray, dim: str, index: int) -> str:
    if dim not in array.coords:
        return f"{dim} number {index}"
    value = array[dim].values[index]
    return f"{dim} {stamp(value) if dim == 'time' else f'{value:g}'}"


def _reach(array: xr.DataArray, bad: NDArray[np.bool_], dim: str) -> str:
    """Return the number of levels or times with bad values as text; empty if there is only one level or time."""
    axes = tuple(axis for axis, name in enumerate(array.dims) if name != dim)
    affected = int(np.count_nonzero(bad.any(axis=axes)))
    return f", in {affected} of {array.sizes[dim]} {dim}s" if array.sizes[dim] > 1 else ""


def stamp(time: np.datetime64) -> str:
    """Return a time to the minute, as text."""
    return str(time.astype("datetime64[m]"))
