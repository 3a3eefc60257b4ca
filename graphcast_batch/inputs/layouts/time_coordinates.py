"""Read the times of a dataset: dates of the standard calendar, brought to the whole minutes that they mean."""

from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import InputError

_ROUNDING: Final = np.timedelta64(10, "s")
"""How far a time may lie from a whole minute and still mean it: days as float32 are out by seconds within a year, as
float64 by microseconds."""
_MINUTE: Final = np.timedelta64(1, "m")
_YEARS: Final = (np.datetime64("1678", "Y"), np.datetime64("2261", "Y"))
"""Nanoseconds since 1970 in 64 bits reach a little further."""


def check_dates(times: xr.Variable, name: str, origin: str) -> None:
    """Raises unless a coordinate holds dates of the standard calendar, of centuries that data are of.

    Args:
        times: any dimensions.
        name: of the coordinate in the data.
        origin: the path.

    Raises:
        InputError: with what helps.
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
    """Dates or durations in ns, of which those within 10 s of a whole minute are brought to it."""
    counts = times.astype(np.int64)
    minute = int(_MINUTE / np.timedelta64(1, "ns"))
    complete = ((counts + minute // 2) // minute * minute).astype(times.dtype)
    return np.where(np.isnat(times) | (np.abs(times - complete) > _ROUNDING), times, complete)


def furthest(stored: NDArray[Any], complete: NDArray[Any]) -> float:
    """Seconds that the time was moved by that was moved most; 0 where none was."""
    moved = np.abs(stored.astype(complete.dtype) - complete)
    return float(moved[~np.isnat(moved)].max(initial=np.timedelta64(0, "ns")) / np.timedelta64(1, "s"))


def _other_dates(times: xr.Variable, name: str, origin: str) -> str:
    calendar = getattr(times.values.flat[0] if times.size else None, "calendar", "")
    if not calendar:
        return f'holds {times.dtype}; give it units such as "hours since 1900-01-01" and the calendar "standard"'
    options = ["use_cftime=False"]
    options += [f'dim="{name}"'] if name != "time" else []
    options += ['align_on="date"'] if calendar == "360_day" else []
    return (
        f"holds those of the calendar {calendar}; if the weather is of real dates, write them so: python -c 'import "
        f'xarray; xarray.open_dataset("{origin}").convert_calendar("standard", {", ".join(options)})'
        '.to_netcdf("standard.nc")\', and give standard.nc'
    )
