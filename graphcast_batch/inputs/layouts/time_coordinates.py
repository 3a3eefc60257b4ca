"""Check that the times of a dataset are dates of the standard calendar, and round them to whole minutes."""

from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import InputError

_ROUNDING: Final = np.timedelta64(10, "s")
"""Largest distance from a whole minute at which a time is rounded to it: days in float32 are off by seconds within a
year, in float64 by microseconds."""
_MINUTE: Final = np.timedelta64(1, "m")
_YEARS: Final = (np.datetime64("1678", "Y"), np.datetime64("2261", "Y"))
"""First and last year that are accepted; 64 bits of nanoseconds since 1970 reach a little further."""


def check_dates(times: xr.Variable, name: str, origin: str) -> None:
    """Check that a coordinate holds dates of the standard calendar, of years that data can be of.

    Args:
        times: the coordinate, of any dimensions.
        name: name of the coordinate in the data.
        origin: path or address of the data, for messages.

    Raises:
        InputError: the coordinate holds something else; the error names a remedy.
    """
    if not np.issubdtype(times.dtype, np.datetime64):
        raise InputError(
            f"the coordinate {name} of {origin} must hold dates of the standard calendar, but "
            f"{_other_dates(times, name, origin)}"
        )
    years = times.values.astype("datetime64[Y]")
    odd = times.values[(years < _YEARS[0]) | (years > _YEARS[1])]
    if odd.size:
        raise InputError(
            f"the coordinate {name} of {origin} must hold dates of the years {_YEARS[0]} to {_YEARS[1]}, but holds "
            f"{odd.flat[0]}; correct its units"
        )


def to_whole_minutes(times: NDArray[Any]) -> NDArray[Any]:
    """Round dates or durations in ns that are within 10 s of a whole minute to that minute; keep the others."""
    counts = times.astype(np.int64)
    minute = int(_MINUTE / np.timedelta64(1, "ns"))
    rounded = ((counts + minute // 2) // minute * minute).astype(times.dtype)
    return np.where(np.isnat(times) | (np.abs(times - rounded) > _ROUNDING), times, rounded)


def furthest(stored: NDArray[Any], rounded: NDArray[Any]) -> float:
    """Return the largest difference between stored and rounded times in seconds; 0 without any."""
    moved = np.abs(stored.astype(rounded.dtype) - rounded)
    return float(moved[~np.isnat(moved)].max(initial=np.timedelta64(0, "ns")) / np.timedelta64(1, "s"))


def _other_dates(times: xr.Variable, name: str, origin: str) -> str:
    calendar = getattr(times.values.flat[0] if times.size else None, "calendar", "")
    if not calendar:
        return f'holds {times.dtype}; give it units such as "hours since 1900-01-01" and the calendar "standard"'
    options = ["use_cftime=False"]
    options += [f'dim="{name}"'] if name != "time" else []
    options += ['align_on="date"'] if calendar == "360_day" else []
    return (
        f"holds those of the calendar {calendar}; if the weather is of real dates, convert them: python -c 'import "
        f'xarray; xarray.open_dataset("{origin}").convert_calendar("standard", {", ".join(options)})'
        '.to_netcdf("standard.nc")\', and give standard.nc'
    )
