"""Describe the grid, times, levels and variables of an open dataset, and find where they lie in it.

Where forecasts are stored by initial and lead time, the field at a time is that of the forecast with the shortest lead
time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import InputError
from graphcast_batch.grid import Grid
from graphcast_batch.inputs.findings import listed
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
from graphcast_batch.inputs.layouts.members import member_dims
from graphcast_batch.inputs.layouts.time_coordinates import furthest, to_whole_minutes
from graphcast_batch.inputs.layouts.units import LEVEL, SAME, Conversion
from graphcast_batch.inputs.window_names import WINDOW
from graphcast_batch.variables import DIMS, HOUR, VARIABLES

_HIGHEST_HPA: Final = 1100
"""Larger than any pressure at the surface of the Earth: levels above it are in another unit."""
_NO_LEADS: Final = np.zeros(0, "timedelta64[ns]")
_SUM: Final = np.timedelta64(SUM_HOURS, "h")


@dataclass(frozen=True, eq=False)
class Contents:
    """The grid, times, levels and variables of a file or store.

    Attributes:
        origin: path or address of the file or store, for messages.
        grid: grid of the fields, latitudes and longitudes ascending.
        times: (time,) datetime64[ns] times of the fields: in the order of the file, or, if the file holds forecasts,
            all valid times, ascending.
        levels: pressure levels that are whole numbers of hPa, ascending.
        dims: dimensions of every variable, in the model's names and the order of the file, without the dimensions that
            reading removes.
        order: for level, latitude and longitude, the index in the file of each value of ``levels`` and ``grid``.
        init_times: (init,) datetime64[ns] initial times of forecasts; None if the fields have a time only.
        lead_times: (lead,) timedelta64[ns] lead times of forecasts, in the order of the file.
        conversions: by variable, the conversion to the model's unit.
        zero_filled: variables whose fill value is 0, so that their zeros are read as missing values.
        odd_levels: levels that are not whole numbers of hPa and so cannot be read; hPa, ascending.
        moved_seconds: largest difference between a stored time and the whole minute that it was rounded to.
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
    """Return the contents of a dataset.

    Args:
        dataset: a dataset in the model's names, with coordinates latitude and longitude in any order, and a datetime64
            coordinate time if it has times.
        origin: path or address of the dataset, for messages.
        conversions: conversions to the model's units, by variable or ``level``.

    Raises:
        InputError: a coordinate is missing, repeats a value or does not hold numbers.
        GridError: the points do not form a global grid.
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


def level_hint(found: Sequence[int]) -> str:
    """Return what a user can do about missing levels, as text.

    Args:
        found: levels that the data hold.
    """
    if found and max(found) > _HIGHEST_HPA:
        return "these look like Pa: set inputs.units: {level: Pa}"
    return "provide them, or use a checkpoint whose levels these are"


def times_of(contents: Contents, name: str) -> NDArray[np.datetime64]:
    """Return the times at which the file holds a variable: (time,) datetime64[ns].

    Of forecasts, those valid times count that are at least `shortest_lead` after an initial time.
    """
    if contents.init_times is None:
        return contents.times
    leads = contents.lead_times[contents.lead_times >= shortest_lead(name)]
    return np.unique(contents.init_times[:, np.newaxis] + leads)


def hours_of(contents: Contents, name: str) -> NDArray[np.float64]:
    """Return the lead time, in hours, of the field that is read at each time of `times_of`: (time,).

    The contents must be those of forecasts.
    """
    assert contents.init_times is not None
    leads = contents.lead_times[contents.lead_times >= shortest_lead(name)]
    valid, every = np.broadcast_arrays(contents.init_times[:, np.newaxis] + leads, leads)
    order = np.lexsort((every.ravel(), valid.ravel()))
    first = np.unique(valid.ravel()[order], return_index=True)[1]
    return np.asarray(every.ravel()[order][first] / HOUR)


def is_instant(name: str) -> bool:
    """Return whether a variable is instantaneous, and not summed over a time window."""
    return bool(shortest_lead(name) == np.timedelta64(0, "h"))


def positions(contents: Contents, times: NDArray[np.datetime64], levels: Sequence[int]) -> dict[str, NDArray[np.intp]]:
    """Return the indices along the stored dimensions that a read of times and levels needs.

    Args:
        contents: contents of the file.
        times: (time,) datetime64[ns] times that the file holds.
        levels: levels in hPa; those that the file does not hold are left out.
    """
    held = [level for level in levels if level in contents.levels]
    found = {LEVEL: level_indices(contents, held), "time": time_indices(contents, times)}
    if contents.init_times is not None:
        pairs = [forecast_of(contents, time, np.timedelta64(0, "h")) for time in times]
        found["time"], found[LEAD] = np.asarray(pairs, np.intp).reshape(-1, 2).T
    return found


def check_dims(contents: Contents, names: Sequence[str]) -> None:
    """Check that the file holds variables, along known dimensions.

    Raises:
        InputError: a variable is missing, or has a dimension that is not among `DIMS`; the error names both.
    """
    absent = [name for name in names if name not in contents.dims]
    if absent:
        raise InputError(f"{contents.origin} must hold {', '.join(absent)}, but holds {listed(contents.dims, absent)}")
    for name in names:
        check_known(name, contents.dims[name], contents.origin)


def check_known(name: str, dims: Sequence[str], origin: str) -> None:
    """Check that the dimensions of a variable are known.

    Raises:
        InputError: a dimension is not among `DIMS`; the error names the variable and the dimension.
    """
    unknown, members = [dim for dim in dims if dim not in DIMS], member_dims(dims)
    if unknown:
        raise InputError(
            f"the variable {name} of {origin} must have dimensions among {', '.join(DIMS)}, "
            f"but has {', '.join(dims)}; select one place along {', '.join(unknown)}"
            + (", or give the data in ensemble.perturbations, kind: file" if members else "")
        )


def shortest_lead(name: str) -> np.timedelta64:
    """Return the shortest lead time at which a forecast has a variable: sums need the length of their window."""
    known = VARIABLES.get(name)
    return _SUM if known and (known.cell_methods or known.kind == "forcing") else np.timedelta64(0, "h")


def forecast_of(contents: Contents, time: np.datetime64, shortest: np.timedelta64) -> tuple[int, int]:
    """Return the indices, of initial time and lead time, of the last forecast that is valid at a time.

    Args:
        contents: contents of a file of forecasts.
        time: valid time.
        shortest: shortest lead time that is allowed.

    Raises:
        InputError: the file holds no such forecast.
    """
    assert contents.init_times is not None
    found = [
        (lead, int(init), index)
        for index, lead in enumerate(contents.lead_times)
        if lead >= shortest
        for init in np.flatnonzero(contents.init_times == time - lead)
    ]
    if not found:
        raise InputError(
            f"{contents.origin} must hold a forecast of {shortest} or longer valid at {time}, but has none"
        )
    _, init, index = min(found)
    return init, index


def time_indices(contents: Contents, times: NDArray[np.datetime64]) -> NDArray[np.intp]:
    """Return the index in the file of each of some times that it holds."""
    order = np.argsort(contents.times)
    return order[np.searchsorted(contents.times[order], times)]


def level_indices(contents: Contents, wanted: Sequence[int]) -> NDArray[np.intp]:
    """Return the index in the file of each of some levels, in hPa.

    Raises:
        InputError: the file lacks a level.
    """
    absent = [level for level in wanted if level not in contents.levels]
    if absent:
        raise InputError(
            f"{contents.origin} must hold the levels {list(wanted)} hPa, but lacks {absent} and has "
            f"{list(contents.levels)}; {level_hint(contents.levels)}"
        )
    return contents.order[LEVEL][np.searchsorted(contents.levels, wanted)]


def _dims(dataset: xr.Dataset, times: int) -> dict[str, tuple[str, ...]]:
    """Return the dimensions of all variables, without precipitation along lead times or windows; see `windows`."""
    apart = {ACCUMULATED: {LEAD, WINDOW}, SUMMED: {WINDOW}}
    return {
        str(name): _kept_dims(str(name), array, times)
        for name, array in dataset.data_vars.items()
        if apart.get(str(name), set()).isdisjoint(map(str, array.dims))
    }


def _is_zero_filled(array: xr.DataArray) -> bool:
    return np.any(np.asarray(array.encoding.get("_FillValue", np.nan)) == 0).item()


def _kept_dims(name: str, array: xr.DataArray, times: int) -> tuple[str, ...]:
    """Return the dimensions of a variable without those that reading removes.

    These are lead times and versions, and the time of a constant field that has one time.
    """
    fixed = times == 1 and name in VARIABLES and VARIABLES[name].kind == "static"
    gone = (LEAD, VERSIONS, "time") if fixed else (LEAD, VERSIONS)
    of_one_start = LEAD in array.dims and "time" not in array.dims and not fixed
    return (*(["time"] if of_one_start else []), *(str(dim) for dim in array.dims if dim not in gone))
