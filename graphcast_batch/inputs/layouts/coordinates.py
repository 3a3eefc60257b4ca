"""Read the coordinates of a dataset, points, levels, initial and lead times, as numbers in the model's units."""

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
"""Larger than a level in any unit; such a value is damaged."""
_WHOLE_HPA: Final = 1e-2
"""Largest difference of a level from a whole number, in hPa, at which it is rounded; no two levels are so close."""
_LEAD_UNITS: Final = {"hours": 3600e9, "days": 86400e9, "minutes": 60e9, "seconds": 1e9, "nanoseconds": 1.0}
"""Nanoseconds in each unit of time, named as xarray and the CF conventions do."""


def stored_times(dataset: xr.Dataset) -> NDArray[np.datetime64]:
    """Return the times in the order of the dataset, (time,) datetime64[ns]; empty if there are no dates."""
    starts = "time" in dataset.dims or (LEAD in dataset.dims and "time" in dataset.variables)
    if not starts or not np.issubdtype(dataset["time"].dtype, np.datetime64):
        return np.zeros(0, "datetime64[ns]")
    return np.atleast_1d(np.asarray(dataset["time"].values, "datetime64[ns]"))


def lead_times(dataset: xr.Dataset, origin: str) -> NDArray[np.timedelta64]:
    """Return the lead times in the order of the dataset, timedelta64[ns]; numbers without a unit are hours.

    Raises:
        InputError: the coordinate does not hold lead times, or some are missing.
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
    """Return the values of a coordinate in the unit of the dataset.

    Raises:
        InputError: there is no coordinate of that name, it has not one dimension, or does not hold finite numbers.
    """
    if name not in dataset.variables or dataset[name].dims != (name,):
        others = [str(dim) for dim in dataset.dims if dim not in (*DIMS, LEAD, VERSIONS)]
        example = f", such as inputs.names {{{others[0]}: {name}}}" if others else ""
        raise InputError(
            f"{origin} must have the coordinate {name} of one dimension, but has the coordinates "
            f"{', '.join(_with_dims(dataset.coords)) or 'none'}; "
            f"map its own name in inputs.names{example}, or regrid it to latitudes and longitudes"
        )
    values = dataset[name].values
    if not np.issubdtype(values.dtype, np.number):
        raise InputError(
            f"the coordinate {name} of {origin} must hold numbers, but holds {values.dtype}; give it as numbers"
        )
    if not np.all(np.isfinite(values)):
        place = int(np.argmin(np.isfinite(values)))
        raise InputError(
            f"the coordinate {name} of {origin} must hold finite numbers, but holds {values[place]} at index {place} "
            f"of {values.size}; correct it"
        )
    return np.asarray(values, np.float64)


def _with_dims(coordinates: Mapping[Any, xr.DataArray]) -> list[str]:
    return sorted(f"{name} ({', '.join(map(str, array.dims))})" for name, array in coordinates.items())


def check_once(values: NDArray[np.float64], name: str, origin: str) -> None:
    """Check that the values of a coordinate, in degrees, do not repeat.

    Raises:
        InputError: a value is there twice.
    """
    once, counts = np.unique(values, return_counts=True)
    if np.any(counts > 1):
        twice = ", ".join(f"{value:g}°" for value in once[counts > 1][:4])
        raise InputError(
            f"the coordinate {name} of {origin} must hold each place on the globe once, but {twice} is there twice; "
            "drop the repeats, as of 0° and 360°, or -180° and 180°"
        )


def from_zero(longitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return longitudes in 0..360 degrees; a value that is just below 360 by a rounding error is 0."""
    turned = np.where((longitude < 0) | (longitude >= 360), longitude % 360, longitude)
    return np.where(turned > 360 - SAME_PLACE_DEGREES, 0.0, turned)


def grid_of(latitude: NDArray[np.float64], longitude: NDArray[np.float64], origin: str) -> Grid:
    """Return the grid of a dataset from its coordinates, in degrees, ascending.

    Raises:
        GridError: the coordinates do not form a global grid.
    """
    try:
        return exact_grid(latitude, longitude)
    except GridError as error:
        raise GridError(f"the grid of {origin} cannot be used: {error}") from error


def whole_levels(dataset: xr.Dataset, origin: str, to_hpa: Conversion) -> tuple[tuple[int, ...], NDArray[np.intp]]:
    """Return the levels that are whole numbers of hPa, rounded, ascending, and the index of each in the file."""
    if LEVEL not in dataset.dims:
        return (), np.zeros(0, np.intp)
    stored = coordinate(dataset, LEVEL, origin) * to_hpa.factor
    order = np.argsort(stored)
    order = order[_is_whole(stored[order]) & (stored[order] < _HIGHEST)]
    levels = tuple(int(level) for level in np.round(stored[order]))
    if len(set(levels)) < len(levels):
        raise InputError(
            f"the coordinate level of {origin} must hold each level once, but is {list(levels)}; drop the repeats"
        )
    return levels, order


def _is_whole(levels: NDArray[np.float64]) -> NDArray[np.bool_]:
    rounded = np.round(levels)
    return np.asarray(np.isclose(levels, rounded, rtol=0, atol=_WHOLE_HPA) & (rounded > 0))


def odd_levels(dataset: xr.Dataset, origin: str, to_hpa: Conversion) -> tuple[float, ...]:
    """Return the levels that are not whole numbers of hPa, in hPa, ascending."""
    if LEVEL not in dataset.dims:
        return ()
    stored = coordinate(dataset, LEVEL, origin) * to_hpa.factor
    return tuple(sorted(float(level) for level in stored[~_is_whole(stored)]))
