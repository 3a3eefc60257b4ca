"""Read fields of an open dataset in the order of dimensions, directions and units of the model.

The dimensions are time, level, latitude and longitude, with levels, latitudes and longitudes ascending: descending
latitudes are flipped, longitudes in -180..180 rolled to 0..360, levels sorted and selected.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import InputError
from graphcast_batch.grid import Grid
from graphcast_batch.inputs.formats.opening import load
from graphcast_batch.inputs.layouts.axes import LEAD
from graphcast_batch.inputs.layouts.contents import (
    Contents,
    check_dims,
    check_known,
    forecast_of,
    level_indices,
    shortest_lead,
    time_indices,
)
from graphcast_batch.inputs.layouts.dialects import VERSIONS
from graphcast_batch.inputs.layouts.units import LEVEL, SAME, Conversion
from graphcast_batch.variables import DIMS

ZEROS_MISSING: Final = "zeros_are_missing"
"""Attribute of fields whose zeros are missing values, because 0 is their fill value."""


def read_fields(
    dataset: xr.Dataset,
    contents: Contents,
    names: Sequence[str],
    times: NDArray[np.datetime64],
    levels: Sequence[int],
) -> xr.Dataset:
    """Read some times and levels of some variables.

    Args:
        dataset: an open dataset in the model's names.
        contents: contents of the dataset.
        names: variables that the dataset holds.
        times: (time,) datetime64[ns] times that it holds.
        levels: levels in hPa that it holds, ascending.

    Returns:
        Float32 variables in the model's units; each has those of the dimensions time, level, latitude and longitude
        that it has in the dataset, in this order.

    Raises:
        InputError: a variable has other dimensions, does not hold numbers or cannot be read.
    """
    check_dims(contents, names)
    _check_times(contents, times)
    wanted = dataset[list(names)]
    if any(LEVEL in contents.dims[name] for name in names):
        wanted = wanted.isel({LEVEL: _as_slice(level_indices(contents, levels))}, missing_dims="ignore")
    loaded = _of_times(wanted, contents, times)
    return _plain(_turned(loaded, contents), contents, times, levels)


def read_at_indices(
    dataset: xr.Dataset, contents: Contents, name: str, indices: Mapping[str, NDArray[np.intp]]
) -> NDArray[np.float32]:
    """Read some fields of one variable without levels, by their indices.

    Args:
        dataset: an open dataset in the model's names.
        contents: contents of the dataset.
        name: name of the variable.
        indices: for each dimension of the variable but latitude and longitude, the index of each field: (field,).

    Returns:
        (field, latitude, longitude) values in the model's unit, latitudes and longitudes ascending.

    Raises:
        InputError: the variable has other dimensions, does not hold numbers or cannot be read.
    """
    wanted = dataset[[name]]
    check_known(name, [dim for dim in map(str, wanted[name].dims) if dim not in (*indices, VERSIONS)], contents.origin)
    if len(indices) == 1:
        ((dim, where),) = indices.items()
        loaded = load(wanted.isel({dim: _as_slice(where)}), contents.origin).drop_vars(dim, errors="ignore")
        joined = loaded.rename({dim: "time"}) if dim != "time" else loaded
    else:  # fields of forecasts are read one by one, since each may be of another forecast
        fields = [
            load(wanted.isel(dict(zip(indices, position, strict=True)), drop=True), contents.origin)
            for position in zip(*indices.values(), strict=True)
        ]
        joined = xr.concat(fields, "time")
    dims, values, _ = _plain_values(_turned(joined, contents)[name], contents)
    expected = ("time", "latitude", "longitude")
    if dims != expected:
        raise InputError(
            f"the variable {name} of {contents.origin} must have the dimensions {', '.join(expected)}, but has "
            f"{', '.join(map(str, dims))}; give it along all of them"
        )
    return values


def _of_times(wanted: xr.Dataset, contents: Contents, times: NDArray[np.datetime64]) -> xr.Dataset:
    """Load some times; those of forecasts one by one, since each may be of another forecast."""
    fixed = [name for name in wanted.data_vars if "time" not in contents.dims.get(str(name), ("time",))]
    moving = wanted.drop_vars(fixed)
    parts = [load(wanted[fixed].isel({"time": 0, LEAD: 0}, missing_dims="ignore", drop=True), contents.origin)]
    if contents.init_times is None:
        # Of no times the first is read and dropped: xarray up to 2026.4 at least loads nothing in another shape.
        indices = _as_slice(time_indices(contents, times)) if times.size else slice(1)
        held = load(moving.isel(time=indices, missing_dims="ignore"), contents.origin)
        parts.append(held.isel(time=slice(times.size), missing_dims="ignore"))
    else:
        parts += [_of_forecasts(moving[[name]], contents, times) for name in moving.data_vars]
    return xr.merge([part.drop_vars(("time", LEAD), errors="ignore") for part in parts], join="exact")


def _of_forecasts(wanted: xr.Dataset, contents: Contents, times: NDArray[np.datetime64]) -> xr.Dataset:
    """Load one variable at valid times, each from the last forecast that started early enough."""
    shortest = shortest_lead(str(next(iter(wanted.data_vars))))
    indices = [forecast_of(contents, time, shortest) for time in times]
    if not indices:
        return load(_forecast(wanted, 0, 0).expand_dims("time").isel(time=slice(0)), contents.origin)
    frames = [load(_forecast(wanted, init, lead), contents.origin) for init, lead in indices]
    return xr.concat(frames, "time")


def _forecast(wanted: xr.Dataset, init: int, lead: int) -> xr.Dataset:
    """Select the fields of one forecast; if all have one initial time, there is no dimension of initial times."""
    return wanted.isel({"time": init, LEAD: lead}, drop=True, missing_dims="ignore")


def _check_times(contents: Contents, wanted: NDArray[np.datetime64]) -> None:
    absent = wanted[~np.isin(wanted, contents.times)]
    if absent.size:
        raise InputError(f"{contents.origin} must hold the requested times, but lacks {', '.join(map(str, absent))}")


def _as_slice(indices: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """Return evenly spaced indices as a slice, which is read and copied several times faster than an array of them."""
    steps = np.diff(indices)
    if not indices.size or np.any(steps != steps[:1]) or np.any(steps == 0):
        return indices
    step = int(steps[0]) if steps.size else 1
    end = int(indices[-1]) + step
    return slice(int(indices[0]), None if end < 0 else end, step)


def _turned(loaded: xr.Dataset, contents: Contents) -> xr.Dataset:
    """Merge the versions of loaded data, and bring latitudes and longitudes into ascending order.

    Flipping and rolling in memory is faster than reading the points from the file in another order.
    """
    order = {axis: _as_slice(contents.order[axis]) for axis in ("latitude", "longitude")}
    return _one_version(loaded.isel(order, missing_dims="ignore"))


def _one_version(dataset: xr.Dataset) -> xr.Dataset:
    """Remove the dimension of versions: each value is that of the first version that is not NaN there."""
    if VERSIONS not in dataset.dims:
        return dataset
    single = dataset.isel({VERSIONS: 0}, drop=True)
    for version in range(1, dataset.sizes[VERSIONS]):
        single = single.fillna(dataset.isel({VERSIONS: version}, drop=True))
    return single


def _plain(turned: xr.Dataset, contents: Contents, times: NDArray[np.datetime64], levels: Sequence[int]) -> xr.Dataset:
    """Return the data in the model's order, type and units, with coordinates and without other attributes."""
    variables = {str(name): _plain_values(array, contents) for name, array in turned.data_vars.items()}
    return xr.Dataset(variables, coords=_coordinates(variables, contents.grid, times, levels))


def _plain_values(
    array: xr.DataArray, contents: Contents
) -> tuple[tuple[Hashable, ...], NDArray[np.float32], dict[str, bool]]:
    """Return the dimensions, values and attributes of a variable in the model's order, type and unit."""
    if not (np.issubdtype(array.dtype, np.number) or array.dtype == bool):
        raise InputError(
            f"the variable {array.name} of {contents.origin} must hold numbers, but holds {array.dtype}; give it as "
            "numbers, or give it another name in inputs.names"
        )
    array = array.transpose(*DIMS, missing_dims="ignore")
    values = _converted(array.values, contents.conversions.get(str(array.name), SAME))
    attributes = {ZEROS_MISSING: True} if array.name in contents.zero_filled else {}
    return array.dims, np.ascontiguousarray(values, np.float32), attributes


def _converted(values: NDArray[Any], how: Conversion) -> NDArray[Any]:
    """Convert values to the model's unit, in float64 so that they are rounded once."""
    return values if how == SAME else values.astype(np.float64) * how.factor + how.offset


def _coordinates(
    variables: Mapping[str, tuple[tuple[Hashable, ...], Any, Any]],
    grid: Grid,
    times: NDArray[np.datetime64],
    levels: Sequence[int],
) -> dict[str, NDArray[Any]]:
    """Return the coordinates of points and times, and of levels if a variable is on levels."""
    coordinates: dict[str, NDArray[Any]] = {
        "time": np.asarray(times, "datetime64[ns]"),
        "latitude": grid.latitude,
        "longitude": grid.longitude,
    }
    if any(LEVEL in dims for dims, _, _ in variables.values()):
        coordinates[LEVEL] = np.asarray(levels, np.int32)
    return coordinates
