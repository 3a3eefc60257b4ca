"""An open dataset in any order of its axes becomes fields in ours: time, level, latitude, longitude, ascending.

Latitudes that descend are flipped, longitudes in -180..180 rolled to 0..360, levels sorted and selected.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import GridError, InputError
from graphcast_batch.grid import Grid
from graphcast_batch.inputs.opening import load
from graphcast_batch.variables import DIMS

_OTHER_NAMES: Final = {"lat": "latitude", "lon": "longitude"}
_HIGHEST_HPA: Final = 1100
"""No place on Earth has more pressure than this, so larger levels are in another unit."""
_SAME_PLACE: Final = 1e-3  # degrees; rolled float32 longitudes differ in the last bit


@dataclass(frozen=True, eq=False)
class Contents:
    """What a file or store holds, without its data.

    Attributes:
        origin: the path, for messages.
        grid: the points, in our order.
        times: (time,) datetime64[ns], as stored.
        levels: pressure levels that are whole hPa, ascending.
        dims: dimensions of every variable, in our names, as stored.
        order: for level, latitude and longitude, where each value of ours lies in the file.
    """

    origin: str
    grid: Grid
    times: NDArray[np.datetime64]
    levels: tuple[int, ...]
    dims: Mapping[str, tuple[str, ...]]
    order: Mapping[str, NDArray[np.intp]]


def in_our_names(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with ``lat`` and ``lon`` called latitude and longitude."""
    names: dict[Hashable, str] = {old: new for old, new in _OTHER_NAMES.items() if old in dataset.variables}
    return dataset.rename(names)


def describe(dataset: xr.Dataset, origin: str) -> Contents:
    """What a dataset in our names holds.

    Args:
        dataset: with datetime64 coordinate time, and coordinates latitude and longitude in any order.
        origin: its path.

    Raises:
        InputError: a coordinate is missing, repeats a value or is no number.
        GridError: the points are not a global grid.
    """
    latitude = _coordinate(dataset, "latitude", origin)
    longitude = _from_zero(_coordinate(dataset, "longitude", origin))
    order = {"latitude": np.argsort(latitude), "longitude": np.argsort(longitude)}
    levels, order["level"] = _levels(dataset, origin)
    return Contents(
        origin=origin,
        grid=_grid(latitude[order["latitude"]], longitude[order["longitude"]], origin),
        times=np.asarray(dataset["time"].values, "datetime64[ns]"),
        levels=levels,
        dims={str(name): tuple(map(str, array.dims)) for name, array in dataset.data_vars.items()},
        order=order,
    )


def read_fields(
    dataset: xr.Dataset,
    contents: Contents,
    names: Sequence[str],
    times: NDArray[np.datetime64],
    levels: Sequence[int],
) -> xr.Dataset:
    """Reads some times and levels of some variables.

    Args:
        dataset: in our names, still open.
        contents: its description.
        names: variables that it holds.
        times: (time,) times that it holds.
        levels: hPa, ascending, that it holds.

    Returns:
        Float32 variables with those of the dimensions time, level, latitude, longitude that they have, in that order.

    Raises:
        InputError: a variable has other dimensions, is no number or cannot be read.
    """
    _check_dims(contents, names)
    wanted = {"time": _places(contents, times)}
    if any("level" in contents.dims[name] for name in names):
        wanted["level"] = _places_of_levels(contents, levels)
    loaded = load(dataset[list(names)].isel(wanted, missing_dims="ignore"), contents.origin)
    # Flipping and rolling in memory is cheaper than asking the file for its points one by one.
    turned = loaded.isel({axis: contents.order[axis] for axis in ("latitude", "longitude")}, missing_dims="ignore")
    return _plain(turned, contents, times, levels)


def same_points(one: Grid, other: Grid) -> bool:
    """Whether two grids are equal but for the rounding of their coordinates."""
    return one.shape == other.shape and all(
        np.allclose(a, b, rtol=0, atol=_SAME_PLACE)
        for a, b in ((one.latitude, other.latitude), (one.longitude, other.longitude))
    )


def level_hint(found: Sequence[int]) -> str:
    """What to do about missing levels, from those found."""
    if found and max(found) > _HIGHEST_HPA:
        return "these look like Pa: divide the level coordinate by 100"
    return "provide them, or use a checkpoint whose levels these are"


def _coordinate(dataset: xr.Dataset, name: str, origin: str) -> NDArray[np.float64]:
    if name not in dataset.variables or dataset[name].dims != (name,):
        raise InputError(
            f"{origin} must have the coordinate {name} of one dimension, but has the coordinates "
            f"{', '.join(sorted(map(str, dataset.coords))) or 'none'}"
        )
    values = dataset[name].values
    if not np.issubdtype(values.dtype, np.number):
        raise InputError(f"the coordinate {name} of {origin} must hold numbers, but holds {values.dtype}")
    return np.asarray(values, np.float64)


def _from_zero(longitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """Degrees in 0..360, where rounding to float32 may not reach 360."""
    turned = np.where((longitude < 0) | (longitude >= 360), longitude % 360, longitude)
    return np.where(turned.astype(np.float32) >= 360, 0.0, turned)


def _grid(latitude: NDArray[np.float64], longitude: NDArray[np.float64], origin: str) -> Grid:
    try:
        return Grid(latitude.astype(np.float32), longitude.astype(np.float32))
    except GridError as error:
        raise GridError(f"the grid of {origin} cannot be used: {error}") from error


def _levels(dataset: xr.Dataset, origin: str) -> tuple[tuple[int, ...], NDArray[np.intp]]:
    """Levels that are whole numbers, ascending, and where each lies in the file."""
    if "level" not in dataset.dims:
        return (), np.zeros(0, np.intp)
    stored = _coordinate(dataset, "level", origin)
    order = np.argsort(stored)
    order = order[np.isclose(stored[order], np.round(stored[order]), rtol=0, atol=1e-4)]
    levels = tuple(int(level) for level in np.round(stored[order]))
    if len(set(levels)) < len(levels):
        raise InputError(f"the coordinate level of {origin} must hold each level once, but is {list(levels)}")
    return levels, order


def _check_dims(contents: Contents, names: Sequence[str]) -> None:
    absent = [name for name in names if name not in contents.dims]
    if absent:
        raise InputError(f"{contents.origin} must hold {', '.join(absent)}, but holds {', '.join(contents.dims)}")
    for name in names:
        foreign = [dim for dim in contents.dims[name] if dim not in DIMS]
        if foreign:
            raise InputError(
                f"the variable {name} of {contents.origin} must have dimensions among {', '.join(DIMS)}, "
                f"but has {', '.join(contents.dims[name])}; select one place along {', '.join(foreign)}"
            )


def _places(contents: Contents, wanted: NDArray[np.datetime64]) -> NDArray[np.intp]:
    absent = wanted[~np.isin(wanted, contents.times)]
    if absent.size:
        raise InputError(f"{contents.origin} must hold the times asked for, but lacks {', '.join(map(str, absent))}")
    order = np.argsort(contents.times)
    return order[np.searchsorted(contents.times[order], wanted)]


def _places_of_levels(contents: Contents, wanted: Sequence[int]) -> NDArray[np.intp]:
    absent = [level for level in wanted if level not in contents.levels]
    if absent:
        raise InputError(
            f"{contents.origin} must hold the levels {list(wanted)} hPa, but lacks {absent} and has "
            f"{list(contents.levels)}; {level_hint(contents.levels)}"
        )
    return contents.order["level"][np.searchsorted(contents.levels, wanted)]


def _plain(turned: xr.Dataset, contents: Contents, times: NDArray[np.datetime64], levels: Sequence[int]) -> xr.Dataset:
    """The data alone, in our order and type, with our coordinates."""
    variables: dict[str, tuple[tuple[Hashable, ...], NDArray[np.float32]]] = {}
    for name, array in turned.data_vars.items():
        if not (np.issubdtype(array.dtype, np.number) or array.dtype == bool):
            raise InputError(f"the variable {name} of {contents.origin} must hold numbers, but holds {array.dtype}")
        array = array.transpose(*DIMS, missing_dims="ignore")
        variables[str(name)] = array.dims, np.ascontiguousarray(array.values, np.float32)
    return xr.Dataset(variables, coords=_coordinates(variables, contents.grid, times, levels))


def _coordinates(
    variables: Mapping[str, tuple[tuple[Hashable, ...], Any]],
    grid: Grid,
    times: NDArray[np.datetime64],
    levels: Sequence[int],
) -> dict[str, NDArray[Any]]:
    """Of the points and times always; of the levels where a variable has them."""
    coordinates: dict[str, NDArray[Any]] = {
        "time": np.asarray(times, "datetime64[ns]"),
        "latitude": grid.latitude,
        "longitude": grid.longitude,
    }
    if any("level" in dims for dims, _ in variables.values()):
        coordinates["level"] = np.asarray(levels, np.int32)
    return coordinates
