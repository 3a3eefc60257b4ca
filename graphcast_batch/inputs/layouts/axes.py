"""Which coordinates of a dataset are its time, lead time, level, latitude and longitude, whatever they are called."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import xarray as xr

from graphcast_batch.errors import InputError
from graphcast_batch.inputs.layouts.expanding import expanded
from graphcast_batch.inputs.layouts.units import LEVEL, is_pressure

LEAD: Final = "prediction_timedelta"
TIME: Final = "time"

_VALID: Final = ("valid_time", "date", "datetime", "times")
_STARTS: Final = ("forecast_reference_time", "init_time", "initial_time", "initialization_time")
_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "latitude": ("lat", "lats"),
    "longitude": ("lon", "lons", "long"),
    LEAD: ("step", "lead_time", "leadtime", "lead", "forecast_period", "forecast_hour"),
    LEVEL: ("pressure_level", "isobaricInhPa", "isobaricInPa", "plev", "plevel", "pressure", "levels", "isobaric"),
}
"""By our coordinate, what others call it; capitals make no difference."""
_UNITS: Final[Mapping[str, tuple[str, ...]]] = {
    "latitude": ("degrees_north", "degree_north", "degrees_N", "degree_N", "degreesN", "degreeN"),
    "longitude": ("degrees_east", "degree_east", "degrees_E", "degree_E", "degreesE", "degreeE"),
}
"""By which the CF conventions tell the coordinates of the globe (4.1, 4.2)."""
_STANDARD: Final = {LEVEL: "air_pressure", LEAD: "forecast_period"}


def axes(dataset: xr.Dataset, names: Mapping[str, str]) -> dict[str, str]:
    """Theirs to ours, of the coordinates that are called otherwise and are not to be mistaken.

    By a name that is known; else by what the CF conventions say of its units or standard name. Of dates, those that
    fields are valid at are the time; where there are lead times, those that forecasts start from.

    Args:
        dataset: as it was opened.
        names: theirs to ours as the configuration has them, which nothing here contradicts.
    """
    said, free = set(names.values()), [str(dim) for dim in dataset.dims if dim not in names]
    found: dict[str, str] = {}
    for ours in [ours for ours in _NAMES if ours not in said]:
        theirs = _find(dataset, ours, [dim for dim in free if dim not in found])
        if theirs and theirs not in names:
            found[theirs] = ours
    found = {theirs: ours for theirs, ours in found.items() if theirs != ours}
    times = _time(dataset, LEAD in {*found.values(), *said, *free})
    return found | {times: TIME} if times and times not in names and TIME not in said else found


def with_leads(dataset: xr.Dataset, names: Mapping[str, str], origin: str) -> xr.Dataset:
    """The dataset, with a dimension of lead times also where one coordinate says which lead time all of it is of.

    Args:
        dataset: as it was opened.
        names: theirs to ours as the configuration has them.
        origin: its path.

    Raises:
        InputError: nothing says whether its times are those that forecasts start from.
    """
    lead, start = only_lead(dataset, names), TIME if TIME in dataset.variables else _first(dataset, _STARTS)
    if (
        lead is None
        or start is None
        or not dataset[lead].values.astype(np.float64) > 0
        or TIME in names.values()
        or dataset[start].dims not in ((), (start,))
    ):
        return dataset
    valid = dataset.variables.get("valid_time")
    if valid is not None and np.array_equal(valid.values, dataset[start].values):
        return dataset
    if valid is None and not _are_starts(dataset, start):
        raise InputError(
            f"the coordinate {start} of {origin} must be known as that which forecasts start from, or which fields are "
            f"valid at, as all of them are of one lead time ({lead}), but nothing says which; make {lead} a dimension "
            f"(expand_dims of xarray) if it is the start, or set inputs.names {{{lead}: other_{lead}}} if fields are "
            "valid at it"
        )
    every = set(dataset[start].dims)
    moving = [name for name, array in dataset.data_vars.items() if every <= set(array.dims)]
    return expanded(dataset, moving, lead)


def only_lead(dataset: xr.Dataset, names: Mapping[str, str]) -> str | None:
    """The coordinate that says which one lead time all of a dataset is of; None if there is none.

    Args:
        dataset: as it was opened.
        names: theirs to ours as the configuration has them.
    """
    called = {LEAD, *_NAMES[LEAD]}
    found = [
        str(name)
        for name, one in dataset.coords.items()
        if not one.dims and one.dtype.kind in "iufm" and names.get(str(name), str(name).lower()) in called
    ]
    return found[0] if len(found) == 1 else None


def dates(dataset: xr.Dataset) -> list[str]:
    """Dimensions along which there are dates."""
    return [str(dim) for dim in dataset.dims if dim in dataset.variables and _are_dates(dataset, str(dim))]


def _find(dataset: xr.Dataset, ours: str, dims: Sequence[str]) -> str | None:
    called = {name.lower() for name in (ours, *_NAMES[ours])}
    if ours in dims:
        return ours
    found = [dim for dim in dims if dim.lower() in called]
    if ours == LEVEL and not found:  # of one level that has lost its dimension
        found = [str(name) for name, one in dataset.coords.items() if not one.dims and name in _NAMES[LEVEL]]
    if not found:
        unknown = [dim for dim in dims if dim in dataset.variables and not _are_dates(dataset, dim)]
        found = [dim for dim in unknown if _is_told(dataset[dim], ours)]
    return found[0] if len(found) == 1 else None


def _is_told(coordinate: xr.DataArray, ours: str) -> bool:
    """Whether its attributes say what it is."""
    units, standard = (str(coordinate.attrs.get(key, "")) for key in ("units", "standard_name"))
    if ours == LEVEL:
        return standard == _STANDARD[LEVEL] or is_pressure(units)
    return standard == _STANDARD.get(ours, ours) or units in _UNITS.get(ours, ())


def _time(dataset: xr.Dataset, has_leads: bool) -> str | None:
    """None where it is called as ours is, or none is to be found."""
    if has_leads:
        return None if TIME in dataset.variables else _first(dataset, _STARTS)
    valid = dataset.variables.get("valid_time")
    if valid is not None and len(valid.dims) <= 1:  # beside it, time is what the forecast started from
        return "valid_time"
    if TIME in dataset.variables or TIME in dataset.dims:
        return None
    by_name = _first(dataset, (TIME, *_VALID))
    along = [dim for dim in dates(dataset) if not _are_starts(dataset, dim)]
    return by_name or (along[0] if len(along) == 1 else None)


def _first(dataset: xr.Dataset, names: Sequence[str]) -> str | None:
    held = {str(name).lower(): str(name) for name, one in dataset.coords.items() if len(one.dims) <= 1}
    return next((held[name] for name in names if name in held), None)


def _are_starts(dataset: xr.Dataset, dim: str) -> bool:
    return dim.lower() in _STARTS or "reference" in str(dataset[dim].attrs.get("standard_name", ""))


def _are_dates(dataset: xr.Dataset, name: str) -> bool:
    return np.issubdtype(dataset[name].dtype, np.datetime64)
