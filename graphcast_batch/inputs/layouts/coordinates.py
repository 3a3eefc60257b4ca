"""Read the coordinates of a dataset: points, levels, initial and lead times, as numbers in our units."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import GridError, InputError
from graphcast_batch.grid import SAME_PLACE_DEGREES, Grid, exact_grid
from graphcast_batch.inputs.layouts.axes import LEAD
from graphcast_batch.inputs.layouts.dialects import VERSIONS
from graphcast_batch.inputs.layouts.units import LEVEL, Conversion
from graphcast_batch.variables import DIMS

_HIGHEST: Final = 1e6
"""No level in any unit reaches this; what does is damaged."""
_WHOLE_HPA: Final = 1e-2
"""hPa that a level may lie from a whole number and still mean it; none are so near to each other."""
_LEAD_UNITS: Final = {"hours": 3600e9, "days": 86400e9, "minutes": 60e9, "seconds": 1e9, "nanoseconds": 1.0}
"""ns; as xarray and CF write units of time."""


def stored_times(dataset: xr.Dataset) -> NDArray[np.datetime64]:
    """(time,) datetime64[ns] as stored; none where the coordinate holds no dates, which no variable then may have."""
    starts = "time" in dataset.dims or (LEAD in dataset.dims and "time" in dataset.variables)
    if not starts or not np.issubdtype(dataset["time"].dtype, np.datetime64):
        return np.zeros(0, "datetime64[ns]")
    return np.atleast_1d(np.asarray(dataset["time"].values, "datetime64[ns]"))


def lead_times(dataset: xr.Dataset, origin: str) -> NDArray[np.timedelta64]:
    """As the coordinate has them, timedelta64[ns]; whole numbers are hours if they have no unit.

    Raises:
        InputError: it holds no lead times, or gaps.
    """
    values = dataset[LEAD].values
    if np.issubdtype(values.dtype, np.timedelta64):
        return np.asarray(values, "timedelta64[ns]")
    unit = str(dataset[LEAD].attrs.get("units", "hours"))
    if not np.issubdtype(values.dtype, np.number) or unit not in _LEAD_UNITS or not np.isfinite(values).all():
        raise InputError(
            f"the coordinate {LEAD} of {origin} must hold lead times in {', '.join(_LEAD_UNITS)}, but holds "
            f"{values.dtype} in {unit!r}, or gaps; correct its units and values"
        )
    return np.asarray(np.round(values * np.float64(_LEAD_UNITS[unit])), "int64").astype("timedelta64[ns]")


def coordinate(dataset: xr.Dataset, name: str, origin: str) -> NDArray[np.float64]:
    """A coordinate of one dimension, as finite numbers in its own unit.

    Raises:
        InputError: there is none of that name, or it holds something else.
    """
    if name not in dataset.variables or dataset[name].dims != (name,):
        others = [str(dim) for dim in dataset.dims if dim not in (*DIMS, LEAD, VERSIONS)]
        example = f", such as inputs.names {{{others[0]}: {name}}}" if others else ""
        raise InputError(
            f"{origin} must have the coordinate {name} of one dimension, but has the coordinates "
            f"{', '.join(_with_dims(dataset.coords)) or 'none'}; "
            f"say in inputs.names what its own is called{example}, or regrid it to latitudes and longitudes"
        )
    values = dataset[name].values
    if not np.issubdtype(values.dtype, np.number):
        raise InputError(
            f"the coordinate {name} of {origin} must hold numbers, but holds {values.dtype}; give it as numbers"
        )
    if not np.all(np.isfinite(values)):
        place = int(np.argmin(np.isfinite(values)))
        raise InputError(
            f"the coordinate {name} of {origin} must hold finite numbers, but holds {values[place]} at place {place} "
            f"of {values.size}; correct it"
        )
    return np.asarray(values, np.float64)


def _with_dims(coordinates: Mapping[Any, xr.DataArray]) -> list[str]:
    return sorted(f"{name} ({', '.join(map(str, array.dims))})" for name, array in coordinates.items())


def check_once(values: NDArray[np.float64], name: str, origin: str) -> None:
    """Compares the places of a coordinate, in degrees, with each other.

    Raises:
        InputError: one is there twice.
    """
    once, counts = np.unique(values, return_counts=True)
    if np.any(counts > 1):
        twice = ", ".join(f"{value:g}°" for value in once[counts > 1][:4])
        raise InputError(
            f"the coordinate {name} of {origin} must hold each place on the globe once, but {twice} is there twice; "
            "drop the repeats, as of 0° and 360°, or -180° and 180°"
        )


def from_zero(longitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """Degrees in 0..360, where rounding errors may not put 0 just below 360."""
    turned = np.where((longitude < 0) | (longitude >= 360), longitude % 360, longitude)
    return np.where(turned > 360 - SAME_PLACE_DEGREES, 0.0, turned)


def grid_of(latitude: NDArray[np.float64], longitude: NDArray[np.float64], origin: str) -> Grid:
    """The points of a dataset, both coordinates ascending, in degrees.

    Raises:
        GridError: they are not a global grid.
    """
    try:
        return exact_grid(latitude, longitude)
    except GridError as error:
        raise GridError(f"the grid of {origin} cannot be used: {error}") from error


def whole_levels(dataset: xr.Dataset, origin: str, to_hpa: Conversion) -> tuple[tuple[int, ...], NDArray[np.intp]]:
    """Levels that are whole numbers of hPa, but for rounding, ascending, and where each lies in the file."""
    if LEVEL not in dataset.dims:
        return (), np.zeros(0, np.intp)
    stored = coordinate(dataset, LEVEL, origin) * to_hpa.factor
    order = np.argsort(stored)
    order = order[_is_complete(stored[order]) & (stored[order] < _HIGHEST)]
    levels = tuple(int(level) for level in np.round(stored[order]))
    if len(set(levels)) < len(levels):
        raise InputError(
            f"the coordinate level of {origin} must hold each level once, but is {list(levels)}; drop the repeats"
        )
    return levels, order


def _is_complete(levels: NDArray[np.float64]) -> NDArray[np.bool_]:
    complete = np.round(levels)
    return np.asarray(np.isclose(levels, complete, rtol=0, atol=_WHOLE_HPA) & (complete > 0))


def odd_levels(dataset: xr.Dataset, origin: str, to_hpa: Conversion) -> tuple[float, ...]:
    """hPa, ascending: levels that are no whole number."""
    if LEVEL not in dataset.dims:
        return ()
    stored = coordinate(dataset, LEVEL, origin) * to_hpa.factor
    return tuple(sorted(float(level) for level in stored[~_is_complete(stored)]))
