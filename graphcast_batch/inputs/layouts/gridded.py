"""Read fields of an open dataset with dimensions time, level, latitude, longitude, ascending.

Latitudes that descend are flipped, longitudes in -180..180 rolled to 0..360, levels sorted and selected, values
brought to our units. Where forecasts are stored by initial and lead time, a time is that of the shortest lead.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import InputError
from graphcast_batch.grid import SAME_PLACE_DEGREES, Grid
from graphcast_batch.inputs.findings import listed
from graphcast_batch.inputs.formats.opening import load
from graphcast_batch.inputs.layouts.axes import LEAD
from graphcast_batch.inputs.layouts.coordinates import (
    check_once,
    coordinate,
    from_zero,
    grid_of,
    lead_times,
    odd_levels,
    stored_times,
    whole_levels,
)
from graphcast_batch.inputs.layouts.dialects import ACCUMULATED, SUM_HOURS, SUMMED, VERSIONS
from graphcast_batch.inputs.layouts.time_coordinates import furthest, to_whole_minutes
from graphcast_batch.inputs.layouts.units import LEVEL, SAME, Conversion
from graphcast_batch.inputs.window_names import WINDOW
from graphcast_batch.variables import DIMS, HOUR, VARIABLES

_HIGHEST_HPA: Final = 1100
"""No place on Earth has more pressure than this, so larger levels are in another unit."""
ZEROS_MISSING: Final = "zeros_are_missing"
"""Attribute of fields whose zeros are gaps, because 0 is their fill value."""
_NO_LEADS: Final = np.zeros(0, "timedelta64[ns]")
_SUM: Final = np.timedelta64(SUM_HOURS, "h")


@dataclass(frozen=True, eq=False)
class Contents:
    """What a file or store holds, without its data.

    Attributes:
        origin: the path, for messages.
        grid: the points, in our order.
        times: (time,) datetime64[ns], as stored; those that forecasts are valid at, ascending.
        levels: pressure levels that are whole hPa, ascending.
        dims: dimensions of every variable, in our names, as stored, but without those that reading takes away.
        order: for level, latitude and longitude, where each value of ours lies in the file.
        init_times: (init,) datetime64[ns] of forecasts; None where fields have a time only.
        lead_times: (lead,) timedelta64[ns] of forecasts, as stored.
        conversions: by variable, to our units.
        zero_filled: variables whose fill value is 0, so that their zeros read as missing.
        odd_levels: hPa, ascending, those that are no whole number and so cannot be asked for.
        moved_seconds: by how much at most times were brought to whole minutes.
    """

    origin: str
    grid: Grid
    times: NDArray[np.datetime64]
    levels: tuple[int, ...]
    dims: Mapping[str, tuple[str, ...]]
    order: Mapping[str, NDArray[np.intp]]
    init_times: NDArray[np.datetime64] | None
    lead_times: NDArray[np.timedelta64]
    conversions: Mapping[str, Conversion]
    zero_filled: frozenset[str] = frozenset()
    odd_levels: tuple[float, ...] = ()
    moved_seconds: float = 0.0


def describe(dataset: xr.Dataset, origin: str, conversions: Mapping[str, Conversion] | None = None) -> Contents:
    """What a dataset in our names holds.

    Args:
        dataset: with coordinates latitude and longitude in any order, and datetime64 coordinate time if it has one.
        origin: its path.
        conversions: by variable or ``level``, to our units.

    Raises:
        InputError: a coordinate is missing, repeats a value or is no number.
        GridError: the points are not a global grid.
    """
    known = conversions or {}
    latitude = coordinate(dataset, "latitude", origin)
    longitude = from_zero(coordinate(dataset, "longitude", origin))
    check_once(latitude, "latitude", origin)
    check_once(longitude, "longitude", origin)
    order = {"latitude": np.argsort(latitude), "longitude": np.argsort(longitude)}
    levels, order[LEVEL] = whole_levels(dataset, origin, known.get(LEVEL, SAME))
    stored = stored_times(dataset)
    times = to_whole_minutes(stored)
    leads = to_whole_minutes(lead_times(dataset, origin) if LEAD in dataset.dims else _NO_LEADS)
    return Contents(
        origin=origin,
        grid=grid_of(latitude[order["latitude"]], longitude[order["longitude"]], origin),
        times=np.unique(times[:, np.newaxis] + leads) if leads.size else times,
        levels=levels,
        dims=_dims(dataset, times.size),
        order=order,
        init_times=times if leads.size else None,
        lead_times=leads,
        conversions={name: how for name, how in known.items() if name in dataset.data_vars},
        zero_filled=frozenset(str(name) for name, array in dataset.data_vars.items() if _is_zero_filled(array)),
        odd_levels=odd_levels(dataset, origin, known.get(LEVEL, SAME)),
        moved_seconds=furthest(stored, times),
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
        Float32 variables in our units with those of the dimensions time, level, latitude, longitude that they have, in
        that order.

    Raises:
        InputError: a variable has other dimensions, is no number or cannot be read.
    """
    check_dims(contents, names)
    _check_times(contents, times)
    wanted = dataset[list(names)]
    if any(LEVEL in contents.dims[name] for name in names):
        wanted = wanted.isel({LEVEL: _as_slice(_places_of_levels(contents, levels))}, missing_dims="ignore")
    loaded = _of_times(wanted, contents, times)
    return _plain(_turned(loaded, contents), contents, times, levels)


def read_places(
    dataset: xr.Dataset, contents: Contents, name: str, places: Mapping[str, NDArray[np.intp]]
) -> NDArray[np.float32]:
    """Reads some fields of one variable without levels, by where they lie.

    Args:
        dataset: in our names, still open.
        contents: its description.
        name: of the variable.
        places: (field,) along each of its dimensions but latitude and longitude, by dimension.

    Returns:
        (field, latitude, longitude) in our order and units.

    Raises:
        InputError: the variable has other dimensions, is no number or cannot be read.
    """
    wanted = dataset[[name]]
    check_known(name, [dim for dim in map(str, wanted[name].dims) if dim not in (*places, VERSIONS)], contents.origin)
    if len(places) == 1:
        ((dim, where),) = places.items()
        loaded = load(wanted.isel({dim: _as_slice(where)}), contents.origin).drop_vars(dim, errors="ignore")
        joined = loaded.rename({dim: "time"}) if dim != "time" else loaded
    else:  # of forecasts one by one, as each may be another forecast's
        spots = zip(*places.values(), strict=True)
        fields = [load(wanted.isel(dict(zip(places, spot, strict=True)), drop=True), contents.origin) for spot in spots]
        joined = xr.concat(fields, "time")
    dims, values, _ = _plain_values(_turned(joined, contents)[name], contents)
    expected = ("time", "latitude", "longitude")
    if dims != expected:
        raise InputError(
            f"the variable {name} of {contents.origin} must have the dimensions {', '.join(expected)}, but has "
            f"{', '.join(map(str, dims))}; give it along all of them"
        )
    return values


def same_points(one: Grid, other: Grid) -> bool:
    """Whether two grids are equal but for the rounding of their coordinates."""
    return one.shape == other.shape and all(
        np.allclose(a, b, rtol=0, atol=SAME_PLACE_DEGREES)
        for a, b in ((one.latitude, other.latitude), (one.longitude, other.longitude))
    )


def level_hint(found: Sequence[int]) -> str:
    """What to do about missing levels, from those found."""
    if found and max(found) > _HIGHEST_HPA:
        return "these look like Pa: set inputs.units: {level: Pa}"
    return "provide them, or use a checkpoint whose levels these are"


def times_of(contents: Contents, name: str) -> NDArray[np.datetime64]:
    """(time,) datetime64[ns] times at which a variable is held, which in forecasts may need a lead time behind it."""
    if contents.init_times is None:
        return contents.times
    leads = contents.lead_times[contents.lead_times >= _shortest_lead(name)]
    return np.unique(contents.init_times[:, np.newaxis] + leads)


def hours_of(contents: Contents, name: str) -> NDArray[np.float64]:
    """(time,) lead time, hours, of the field that is read at each time of `times_of`, of forecasts."""
    assert contents.init_times is not None
    leads = contents.lead_times[contents.lead_times >= _shortest_lead(name)]
    valid, every = np.broadcast_arrays(contents.init_times[:, np.newaxis] + leads, leads)
    order = np.lexsort((every.ravel(), valid.ravel()))
    first = np.unique(valid.ravel()[order], return_index=True)[1]
    return np.asarray(every.ravel()[order][first] / HOUR)


def is_instant(name: str) -> bool:
    """Whether a variable holds at its time, and not over some time before."""
    return bool(_shortest_lead(name) == np.timedelta64(0, "h"))


def positions(contents: Contents, times: NDArray[np.datetime64], levels: Sequence[int]) -> dict[str, NDArray[np.intp]]:
    """Which places along the stored dimensions a read of times and levels takes, as far as they are held."""
    held = [level for level in levels if level in contents.levels]
    found = {LEVEL: _places_of_levels(contents, held), "time": _places_of_times(contents, times)}
    if contents.init_times is not None:
        pairs = [_forecast_of(contents, time, np.timedelta64(0, "h")) for time in times]
        found["time"], found[LEAD] = np.asarray(pairs, np.intp).reshape(-1, 2).T
    return found


def check_dims(contents: Contents, names: Sequence[str]) -> None:
    """Raises unless variables are held, along dimensions that we know.

    Raises:
        InputError: naming the variable and the dimension.
    """
    absent = [name for name in names if name not in contents.dims]
    if absent:
        raise InputError(f"{contents.origin} must hold {', '.join(absent)}, but holds {listed(contents.dims, absent)}")
    for name in names:
        check_known(name, contents.dims[name], contents.origin)


def check_known(name: str, dims: Sequence[str], origin: str) -> None:
    """Raises unless the dimensions of a variable are those that we know.

    Raises:
        InputError: naming the variable and the dimension.
    """
    foreign = [dim for dim in dims if dim not in DIMS]
    if foreign:
        raise InputError(
            f"the variable {name} of {origin} must have dimensions among {', '.join(DIMS)}, "
            f"but has {', '.join(dims)}; select one place along {', '.join(foreign)}"
        )


def _dims(dataset: xr.Dataset, times: int) -> dict[str, tuple[str, ...]]:
    """Dimensions of every variable but precipitation that is no field at a time: `windows` has what there is of it."""
    apart = {ACCUMULATED: {LEAD, WINDOW}, SUMMED: {WINDOW}}
    return {
        str(name): _kept_dims(str(name), array, times)
        for name, array in dataset.data_vars.items()
        if apart.get(str(name), set()).isdisjoint(map(str, array.dims))
    }


def _is_zero_filled(array: xr.DataArray) -> bool:
    return np.any(np.asarray(array.encoding.get("_FillValue", np.nan)) == 0).item()


def _kept_dims(name: str, array: xr.DataArray, times: int) -> tuple[str, ...]:
    """Without lead times and versions, which reading resolves, and without the one time of what never changes."""
    fixed = times == 1 and name in VARIABLES and VARIABLES[name].kind == "static"
    gone = (LEAD, VERSIONS, "time") if fixed else (LEAD, VERSIONS)
    of_one_start = LEAD in array.dims and "time" not in array.dims and not fixed
    return (*(["time"] if of_one_start else []), *(str(dim) for dim in array.dims if dim not in gone))


def _of_times(wanted: xr.Dataset, contents: Contents, times: NDArray[np.datetime64]) -> xr.Dataset:
    """Loads the times; those of forecasts one by one, as each may be another forecast's."""
    fixed = [name for name in wanted.data_vars if "time" not in contents.dims.get(str(name), ("time",))]
    moving = wanted.drop_vars(fixed)
    parts = [load(wanted[fixed].isel({"time": 0, LEAD: 0}, missing_dims="ignore", drop=True), contents.origin)]
    if contents.init_times is None:
        places = _as_slice(_places_of_times(contents, times))
        parts.append(load(moving.isel(time=places, missing_dims="ignore"), contents.origin))
    else:
        parts += [_of_forecasts(moving[[name]], contents, times) for name in moving.data_vars]
    return xr.merge([part.drop_vars(("time", LEAD), errors="ignore") for part in parts], join="exact")


def _of_forecasts(wanted: xr.Dataset, contents: Contents, times: NDArray[np.datetime64]) -> xr.Dataset:
    """One variable at valid times, each from the forecast that started last before it."""
    shortest = _shortest_lead(str(next(iter(wanted.data_vars))))
    places = [_forecast_of(contents, time, shortest) for time in times]
    if not places:
        return load(_forecast(wanted, 0, 0).expand_dims("time").isel(time=slice(0)), contents.origin)
    frames = [load(_forecast(wanted, init, lead), contents.origin) for init, lead in places]
    return xr.concat(frames, "time")


def _forecast(wanted: xr.Dataset, init: int, lead: int) -> xr.Dataset:
    """Fields of one forecast; where all are of one start, that has no dimension."""
    return wanted.isel({"time": init, LEAD: lead}, drop=True, missing_dims="ignore")


def _shortest_lead(name: str) -> np.timedelta64:
    """How long a forecast must have run to give a variable: what is summed over time needs a time before."""
    known = VARIABLES.get(name)
    return _SUM if known and (known.cell_methods or known.kind == "forcing") else np.timedelta64(0, "h")


def _forecast_of(contents: Contents, time: np.datetime64, shortest: np.timedelta64) -> tuple[int, int]:
    """Where the forecast lies that is valid at a time and has the shortest lead that will do: initial time, lead."""
    assert contents.init_times is not None
    found = [
        (lead, int(init), place)
        for place, lead in enumerate(contents.lead_times)
        if lead >= shortest
        for init in np.flatnonzero(contents.init_times == time - lead)
    ]
    if not found:
        raise InputError(
            f"{contents.origin} must hold a forecast of {shortest} or longer valid at {time}, but has none"
        )
    _, init, place = min(found)
    return init, place


def _check_times(contents: Contents, wanted: NDArray[np.datetime64]) -> None:
    absent = wanted[~np.isin(wanted, contents.times)]
    if absent.size:
        raise InputError(f"{contents.origin} must hold the times asked for, but lacks {', '.join(map(str, absent))}")


def _places_of_times(contents: Contents, times: NDArray[np.datetime64]) -> NDArray[np.intp]:
    order = np.argsort(contents.times)
    return order[np.searchsorted(contents.times[order], times)]


def _as_slice(places: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """Evenly spaced places as a slice, which is read and copied several times faster than a list of them."""
    steps = np.diff(places)
    if not places.size or np.any(steps != steps[:1]) or np.any(steps == 0):
        return places
    step = int(steps[0]) if steps.size else 1
    end = int(places[-1]) + step
    return slice(int(places[0]), None if end < 0 else end, step)


def _places_of_levels(contents: Contents, wanted: Sequence[int]) -> NDArray[np.intp]:
    absent = [level for level in wanted if level not in contents.levels]
    if absent:
        raise InputError(
            f"{contents.origin} must hold the levels {list(wanted)} hPa, but lacks {absent} and has "
            f"{list(contents.levels)}; {level_hint(contents.levels)}"
        )
    return contents.order[LEVEL][np.searchsorted(contents.levels, wanted)]


def _turned(loaded: xr.Dataset, contents: Contents) -> xr.Dataset:
    """Of one version, with latitudes and longitudes in our order.

    Flipping and rolling in memory is cheaper than asking the file for its points one by one.
    """
    order = {axis: _as_slice(contents.order[axis]) for axis in ("latitude", "longitude")}
    return _one_version(loaded.isel(order, missing_dims="ignore"))


def _one_version(dataset: xr.Dataset) -> xr.Dataset:
    """Without the dimension of versions: at each place the first that is there."""
    if VERSIONS not in dataset.dims:
        return dataset
    single = dataset.isel({VERSIONS: 0}, drop=True)
    for version in range(1, dataset.sizes[VERSIONS]):
        single = single.fillna(dataset.isel({VERSIONS: version}, drop=True))
    return single


def _plain(turned: xr.Dataset, contents: Contents, times: NDArray[np.datetime64], levels: Sequence[int]) -> xr.Dataset:
    """The data alone, in our order, type and units, with our coordinates."""
    variables = {str(name): _plain_values(array, contents) for name, array in turned.data_vars.items()}
    return xr.Dataset(variables, coords=_coordinates(variables, contents.grid, times, levels))


def _plain_values(
    array: xr.DataArray, contents: Contents
) -> tuple[tuple[Hashable, ...], NDArray[np.float32], dict[str, bool]]:
    """Dimensions, values and attributes of a variable in our order, type and units."""
    if not (np.issubdtype(array.dtype, np.number) or array.dtype == bool):
        raise InputError(
            f"the variable {array.name} of {contents.origin} must hold numbers, but holds {array.dtype}; give it as "
            "numbers, or say in inputs.names what else it is"
        )
    array = array.transpose(*DIMS, missing_dims="ignore")
    values = _converted(array.values, contents.conversions.get(str(array.name), SAME))
    attributes = {ZEROS_MISSING: True} if array.name in contents.zero_filled else {}
    return array.dims, np.ascontiguousarray(values, np.float32), attributes


def _converted(values: NDArray[Any], how: Conversion) -> NDArray[Any]:
    """In our unit, by way of float64 so that only the last step rounds."""
    return values if how == SAME else values.astype(np.float64) * how.factor + how.offset


def _coordinates(
    variables: Mapping[str, tuple[tuple[Hashable, ...], Any, Any]],
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
    if any(LEVEL in dims for dims, _, _ in variables.values()):
        coordinates[LEVEL] = np.asarray(levels, np.int32)
    return coordinates
