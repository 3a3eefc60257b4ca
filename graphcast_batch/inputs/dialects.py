"""The names and units of the layouts that people have become ours: a table for each layout.

Sources of the tables: WeatherBench 2's data guide, the ARCO-ERA5 repository, the CDS documentation of ERA5 downloads
(before and since September 2024), ECMWF's parameter database and cfgrib's names for it. Directions of axes need no
table: `gridded` puts every order right.
"""

import difflib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import xarray as xr

from graphcast_batch.config import Accumulation, DialectName
from graphcast_batch.errors import InputError
from graphcast_batch.inputs.units import SAME, Conversion, conversion
from graphcast_batch.variables import VARIABLES

ACCUMULATED: Final = "total_precipitation"
"""Precipitation since some time before, of which the model's own, over 6 h, is made."""
SUM_HOURS: Final = 6
SUMMED: Final = f"{ACCUMULATED}_{SUM_HOURS}hr"
"""The model's own precipitation."""
LEAD: Final = "prediction_timedelta"
VERSIONS: Final = "expver"
"""Where a download mixes final and preliminary ERA5, each has a place along this dimension, NaN where it holds none."""

_PERIODS: Final = "step_lengths"
"""Attribute in which `grib` keeps how many hours each message sums up."""

_SHORT: Final = {
    "t": "temperature",
    "z": "geopotential",
    "gh": "geopotential",
    "u": "u_component_of_wind",
    "v": "v_component_of_wind",
    "w": "vertical_velocity",
    "q": "specific_humidity",
    "t2m": "2m_temperature",
    "msl": "mean_sea_level_pressure",
    "u10": "10m_u_component_of_wind",
    "v10": "10m_v_component_of_wind",
    "tp": ACCUMULATED,
    "tisr": "toa_incident_solar_radiation",
    "lsm": "land_sea_mask",
    "z_surface": "geopotential_at_surface",
    "gh_surface": "geopotential_at_surface",
    "orog": "geopotential_at_surface",
}
_LONG: Final = {"geopotential_height": "geopotential", "orography": "geopotential_at_surface"}
_MEMBERS: Final = ("number", "realization", "member", "surface", "heightAboveGround", "meanSea", "height")
"""Dimensions that say nothing where they have one place only."""
_HEIGHTS: Final = ("gh", "gh_surface", "geopotential_height", "orog", "orography")
"""Theirs that are heights, where ours are geopotentials: gpm if the data do not say."""
_WITHOUT_LEVEL: Final = {"geopotential": "geopotential_at_surface"}
"""What a variable is that has the name of one on levels, but no level."""


@dataclass(frozen=True)
class Dialect:
    """How one layout spells what we know.

    Attributes:
        name: in configurations.
        title: for people.
        spoken: whether a dataset is in this layout.
        coordinates: theirs to ours, beside ``lat`` and ``lon``, which all may use.
        variables: theirs to ours, beside ours.
        precipitation: since when its total precipitation is summed up; empty where that differs between data.
    """

    name: DialectName
    title: str
    spoken: Callable[[xr.Dataset], bool]
    coordinates: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    precipitation: Accumulation | None = None


def _has(*names: str) -> Callable[[xr.Dataset], bool]:
    return lambda dataset: any(name in dataset.variables or name in dataset.dims for name in names)


def _is_arco(dataset: xr.Dataset) -> bool:
    return _has(*VARIABLES)(dataset) and (ACCUMULATED in dataset or "valid_time_stop" in dataset.attrs)


# The first that is spoken is taken.
_TABLE: Final = (
    Dialect(
        "grib",
        "ECMWF GRIB",
        lambda dataset: "GRIB_edition" in dataset.attrs,
        {"isobaricInhPa": "level", "valid_time": "time", "step": LEAD},
        _SHORT,
    ),
    Dialect(
        "cds",
        "CDS netCDF since September 2024",
        _has("valid_time", "pressure_level"),
        {"valid_time": "time", "pressure_level": "level"},
        {**_SHORT, **_LONG},
        "hourly",
    ),
    Dialect("cds-legacy", "CDS netCDF before September 2024", _has(*_SHORT), {}, {**_SHORT, **_LONG}, "hourly"),
    Dialect("weatherbench2-hres", "WeatherBench 2 forecasts", _has(LEAD), {}, _LONG, "since_start"),
    Dialect("arco-era5", "ARCO-ERA5", _is_arco, {}, _LONG, "hourly"),
    Dialect("weatherbench2", "WeatherBench 2", _has("latitude"), {}, _LONG),
    Dialect("graphcast", "GraphCast's names", _has("lat"), {}, _LONG),
)
DIALECTS: Final[Mapping[DialectName, Dialect]] = {dialect.name: dialect for dialect in _TABLE}


@dataclass(frozen=True, eq=False)
class Translation:
    """What turns a dataset into our names, and its values into our units.

    Attributes:
        dialect: name of the layout's.
        names: theirs to ours, of variables, coordinates and dimensions that are called otherwise.
        conversions: by our names, of variables in other units than ours, and of ``level``.
        units: of those, as the data or the configuration say.
        accumulation: since when total precipitation is summed up, if the file says so itself.
    """

    dialect: DialectName
    names: Mapping[str, str]
    conversions: Mapping[str, Conversion]
    units: Mapping[str, str]
    accumulation: Accumulation | None

    def apply(self, dataset: xr.Dataset) -> xr.Dataset:
        """The dataset in our names, without dimensions that say nothing; its values still in their units."""
        named = self.rename(dataset)
        single = [dim for dim in _MEMBERS if named.sizes.get(dim) == 1]
        return named.isel(dict.fromkeys(single, 0), drop=True)

    def rename(self, dataset: xr.Dataset) -> xr.Dataset:
        """The dataset in our names, otherwise as it is."""
        theirs: dict[Hashable, str] = {old: new for old, new in self.names.items() if old in dataset.variables}
        theirs |= {old: new for old, new in self.names.items() if old in dataset.dims}
        in_the_way = [name for name in theirs.values() if name in dataset.variables and name not in theirs]
        return dataset.drop_vars(in_the_way).rename(theirs)


def translation(
    dataset: xr.Dataset,
    origin: str,
    dialect: DialectName | None = None,
    names: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
) -> Translation:
    """Finds out how a dataset is turned into ours.

    Args:
        dataset: as it was opened.
        origin: its path.
        dialect: that it is in; without it the dataset is looked at.
        names: theirs to ours, beyond the dialect's or against it.
        units: by our name or ``level``, against what the data say.

    Raises:
        InputError: no layout is recognised, two variables get one name, or a unit cannot be converted.
    """
    given, stated = names or {}, units or {}
    spoken = DIALECTS[dialect] if dialect else _recognised(dataset, origin, given)
    ours = {"lat": "latitude", "lon": "longitude", **spoken.coordinates, **spoken.variables, **given}
    levels = {"level", *(old for old, new in ours.items() if new == "level")}
    found: dict[str, str] = {}
    periods: list[int] = []
    said: dict[str, str] = {}
    for old in map(str, [*dataset.variables, *(dim for dim in dataset.dims if dim not in dataset.variables)]):
        new = ours.get(old, old)
        if old in dataset.data_vars and old not in given and not levels & {*dataset[old].dims, *dataset[old].coords}:
            new = _WITHOUT_LEVEL.get(new, new)
        if new == ACCUMULATED:
            periods = _periods(dataset[old], origin)
            new = SUMMED if periods == [SUM_HOURS] else ACCUMULATED
        if new != old:
            found[old] = new
        unit = dataset[old].attrs.get("units", "gpm" if old in _HEIGHTS else "") if old in dataset.variables else ""
        said[new] = str(stated.get(new, unit))
    _check_once(found, dataset, origin)
    every = {name: conversion(name, unit, origin) for name, unit in said.items()}
    converted = {name: how for name, how in every.items() if how != SAME}
    since: Accumulation | None = None if not periods else "hourly" if periods == [1] else "since_start"
    return Translation(spoken.name, found, converted, {name: said[name] for name in converted}, since)


def _periods(array: xr.DataArray, origin: str) -> list[int]:
    said = array.attrs.get(_PERIODS, [])
    try:
        return [int(hours) for hours in np.atleast_1d(said)]
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the attribute {_PERIODS} of {array.name} in {origin} must hold whole hours, but is {said!r}; correct it"
        ) from error


def _recognised(dataset: xr.Dataset, origin: str, names: Mapping[str, str]) -> Dialect:
    for dialect in _TABLE:
        known = {*VARIABLES, ACCUMULATED, *dialect.variables, *names}
        if dialect.spoken(dataset) and any(str(name) in known for name in dataset.data_vars):
            return dialect
    held = sorted(map(str, dataset.variables))
    near = [name for name in held if difflib.get_close_matches(name, VARIABLES, n=1, cutoff=0.8)]
    raise InputError(
        f"{origin} must have variables and coordinates of a known layout ({', '.join(DIALECTS)}), but has "
        f"{', '.join(held) or 'none'}; "
        + (f"{', '.join(near)} are close to a known name: " if near else "")
        + "map its names in inputs.names, or set inputs.dialect"
    )


def _check_once(found: Mapping[str, str], dataset: xr.Dataset, origin: str) -> None:
    sources: dict[str, list[str]] = {}
    for old in map(str, dataset.data_vars):
        sources.setdefault(found.get(old, old), []).append(old)
    twice = {new: old for new, old in sources.items() if len(old) > 1}
    if twice:
        new, both = next(iter(twice.items()))
        raise InputError(
            f"one variable of {origin} must be {new}, but {' and '.join(both)} both are; say in inputs.names what the "
            "other one is"
        )
