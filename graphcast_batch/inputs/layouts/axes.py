"""Find the coordinates of a dataset that are its time, lead time, level, latitude and longitude, whatever their names.

Of the parameters named ``names``, each key is a name in the dataset and each value the model's name for it.
"""

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
"""Other names of each coordinate, by the model's name; they are compared without regard to case."""
_UNITS: Final[Mapping[str, tuple[str, ...]]] = {
    "latitude": ("degrees_north", "degree_north", "degrees_N", "degree_N", "degreesN", "degreeN"),
    "longitude": ("degrees_east", "degree_east", "degrees_E", "degree_E", "degreesE", "degreeE"),
}
"""Units by which the CF conventions identify latitude and longitude (sections 4.1 and 4.2)."""
_STANDARD: Final = {LEVEL: "air_pressure", LEAD: "forecast_period"}


def axes(dataset: xr.Dataset, names: Mapping[str, str]) -> dict[str, str]:
    """Return the model's names of the coordinates that have other names in a dataset and can be identified.

    A coordinate is identified by a known name, or else by its units or standard name as the CF conventions define
    them. The time is the coordinate of valid times, or of initial times if there are lead times.

    Args:
        dataset: the dataset, with its own names.
        names: names that the configuration gives; they take precedence.
    """
    taken, free = set(names.values()), [str(dim) for dim in dataset.dims if dim not in names]
    found: dict[str, str] = {}
    for model_name in [model_name for model_name in _NAMES if model_name not in taken]:
        own_name = _find(dataset, model_name, [dim for dim in free if dim not in found])
        if own_name and own_name not in names:
            found[own_name] = model_name
    found = {own_name: model_name for own_name, model_name in found.items() if own_name != model_name}
    times = _time(dataset, LEAD in {*found.values(), *taken, *free})
    return found | {times: TIME} if times and times not in names and TIME not in taken else found


def with_leads(dataset: xr.Dataset, names: Mapping[str, str], origin: str) -> xr.Dataset:
    """Return a dataset with a dimension of lead times, if a scalar coordinate gives one lead time for all fields.

    Args:
        dataset: the dataset, with its own names.
        names: names that the configuration gives.
        origin: path or address of the dataset, for messages.

    Raises:
        InputError: the dataset has one lead time, but does not state whether its times are initial or valid times.
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
            f"the coordinate {start} of {origin} must be known to hold initial or valid times, because all fields have "
            f"one lead time ({lead}), but the data do not state which; if it holds initial times, make {lead} a "
            f"dimension (expand_dims of xarray); if it holds valid times, set inputs.names {{{lead}: other_{lead}}}"
        )
    every = set(dataset[start].dims)
    moving = [name for name, array in dataset.data_vars.items() if every <= set(array.dims)]
    return expanded(dataset, moving, lead)


def only_lead(dataset: xr.Dataset, names: Mapping[str, str]) -> str | None:
    """Return the scalar coordinate that gives the lead time of all fields; None if there is none.

    Args:
        dataset: the dataset, with its own names.
        names: names that the configuration gives.
    """
    called = {LEAD, *_NAMES[LEAD]}
    found = [
        str(name)
        for name, one in dataset.coords.items()
        if not one.dims and one.dtype.kind in "iufm" and names.get(str(name), str(name).lower()) in called
    ]
    return found[0] if len(found) == 1 else None


def dates(dataset: xr.Dataset) -> list[str]:
    """Return the dimensions whose coordinates hold dates."""
    return [str(dim) for dim in dataset.dims if dim in dataset.variables and _are_dates(dataset, str(dim))]


def _find(dataset: xr.Dataset, model_name: str, dims: Sequence[str]) -> str | None:
    called = {name.lower() for name in (model_name, *_NAMES[model_name])}
    if model_name in dims:
        return model_name
    found = [dim for dim in dims if dim.lower() in called]
    if model_name == LEVEL and not found:  # one level, selected without its dimension
        found = [str(name) for name, one in dataset.coords.items() if not one.dims and name in _NAMES[LEVEL]]
    if not found:
        unknown = [dim for dim in dims if dim in dataset.variables and not _are_dates(dataset, dim)]
        found = [dim for dim in unknown if _is_identified(dataset[dim], model_name)]
    return found[0] if len(found) == 1 else None


def _is_identified(coordinate: xr.DataArray, model_name: str) -> bool:
    """Return whether the attributes of a coordinate identify it."""
    units, standard = (str(coordinate.attrs.get(key, "")) for key in ("units", "standard_name"))
    if model_name == LEVEL:
        return standard == _STANDARD[LEVEL] or is_pressure(units)
    return standard == _STANDARD.get(model_name, model_name) or units in _UNITS.get(model_name, ())


def _time(dataset: xr.Dataset, has_leads: bool) -> str | None:
    """Return the name of the time coordinate; None if that is the model's name already, or there is none."""
    if has_leads:
        return None if TIME in dataset.variables else _first(dataset, _STARTS)
    valid = dataset.variables.get("valid_time")
    if valid is not None and len(valid.dims) <= 1:  # a coordinate time beside it is the initial time
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
