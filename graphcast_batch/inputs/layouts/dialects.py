"""Translate the names and units of known archive layouts, one table for each layout.

Sources of the tables: WeatherBench 2's data guide, the ARCO-ERA5 repository, the CDS documentation of ERA5 downloads
(before and since September 2024), ECMWF's parameter database and cfgrib's names for it, the CF standard name table.
What coordinates are called is for `axes`, and their directions need no table: `gridded` puts every order right.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import xarray as xr

from graphcast_batch.config.inputs_section import Accumulation, DialectName
from graphcast_batch.errors import InputError, LayoutError
from graphcast_batch.inputs.findings import listed, near_pair
from graphcast_batch.inputs.layouts.axes import LEAD, TIME, axes, dates
from graphcast_batch.inputs.layouts.standard_names import by_standard_name
from graphcast_batch.inputs.layouts.units import LEVEL, SAME, Conversion, conversion
from graphcast_batch.variables import VARIABLES

ACCUMULATED: Final = "total_precipitation"
"""Precipitation since some time before, of which the model's own, over 6 h, is made."""
SUM_HOURS: Final = 6
SUMMED: Final = f"{ACCUMULATED}_{SUM_HOURS}hr"
"""The model's own precipitation."""
VERSIONS: Final = "expver"
"""Where a download mixes final and preliminary ERA5, each has a place along this dimension, NaN where it holds none."""

_SHORT: Final = {
    "t": "temperature",
    "z": "geopotential",
    "gh": "geopotential",
    "u": "u_component_of_wind",
    "v": "v_component_of_wind",
    "w": "vertical_velocity",
    "q": "specific_humidity",
    "t2m": "2m_temperature",
    "2t": "2m_temperature",
    "msl": "mean_sea_level_pressure",
    "prmsl": "mean_sea_level_pressure",
    "mslet": "mean_sea_level_pressure",
    "u10": "10m_u_component_of_wind",
    "v10": "10m_v_component_of_wind",
    "10u": "10m_u_component_of_wind",
    "10v": "10m_v_component_of_wind",
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
_YIELDING: Final = ("geopotential_height", "gh", "orography", "orog", "gh_surface", "prmsl", "mslet")
"""Theirs that give way to another name of the same variable, the later to the earlier: NCEP reduces pressure twice."""
_FLAT: Final = {TIME, LEAD, "latitude", "longitude", VERSIONS, *_MEMBERS}
"""Dimensions of what lies on no level."""
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
        variables: theirs to ours, beside ours.
        precipitation: since when its total precipitation is summed up; empty where that differs between data.
    """

    name: DialectName
    title: str
    spoken: Callable[[xr.Dataset], bool]
    variables: Mapping[str, str] = field(default_factory=dict)
    precipitation: Accumulation | None = None


def _has(*names: str) -> Callable[[xr.Dataset], bool]:
    return lambda dataset: any(name in dataset.variables or name in dataset.dims for name in names)


def _is_arco(dataset: xr.Dataset) -> bool:
    return _has(*VARIABLES)(dataset) and (ACCUMULATED in dataset or "valid_time_stop" in dataset.attrs)


# The first that is spoken is taken.
_TABLE: Final = (
    Dialect("grib", "GRIB", lambda dataset: "GRIB_edition" in dataset.attrs, _SHORT),
    Dialect(
        "cds",
        "CDS names since September 2024",
        _has("valid_time", "pressure_level"),
        {**_SHORT, **_LONG},
        "hourly",
    ),
    Dialect("cds-legacy", "ECMWF's short names", _has(*_SHORT), {**_SHORT, **_LONG}, "hourly"),
    Dialect("weatherbench2-hres", "WeatherBench 2 forecasts", _has(LEAD), _LONG, "since_start"),
    Dialect("arco-era5", "ARCO-ERA5's names", _is_arco, _LONG, "hourly"),
    Dialect("weatherbench2", "WeatherBench 2's names", _has("latitude"), _LONG),
    Dialect("graphcast", "GraphCast's names", lambda _: True, _LONG),
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
        recognised: theirs to ours, of variables that the CF standard name told.
    """

    dialect: DialectName
    names: Mapping[str, str]
    conversions: Mapping[str, Conversion]
    units: Mapping[str, str]
    recognised: Mapping[str, str] = field(default_factory=dict)

    def apply(self, dataset: xr.Dataset) -> xr.Dataset:
        """The dataset in our names, without dimensions that say nothing; its values still in their units."""
        named = self.rename(dataset)
        single = [dim for dim in _MEMBERS if named.sizes.get(dim) == 1]
        return named.isel(dict.fromkeys(single, 0), drop=True)

    def rename(self, dataset: xr.Dataset) -> xr.Dataset:
        """The dataset in our names, otherwise as it is."""
        theirs: dict[Hashable, str] = {old: new for old, new in self.names.items() if old in dataset.variables}
        theirs |= {old: new for old, new in self.names.items() if old in dataset.dims}
        for old, new in theirs.items():
            if old in dataset.variables and dataset[old].dims == (new,):  # as cfgrib's valid_time lies along time
                dataset = dataset.drop_vars([old, new], errors="ignore").assign_coords({new: dataset[old].variable})
        theirs = {old: new for old, new in theirs.items() if old in dataset.variables or old in dataset.dims}
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
    given, stated = dict(names or {}), units or {}
    coordinates = axes(dataset, given)
    places = {**coordinates, **{old: new for old, new in given.items() if old not in dataset.data_vars}}
    standard = by_standard_name(dataset, places)
    spoken = DIALECTS[dialect] if dialect else _recognised(dataset, origin, {**standard, **given})
    _check_dates(dataset, origin, places)
    known = {**spoken.variables, **coordinates, **given}
    ours = {name: _meant(dataset, name, known, places, given) for name in _names(dataset)}
    held = set(ours.values())
    recognised = {old: new for old, new in standard.items() if ours[old] == old and new not in held}
    ours = _once({**ours, **recognised}, given)
    found = {old: new for old, new in ours.items() if new != old}
    _check_once(found, dataset, origin)
    said = {new: stated.get(new) or _stated(dataset, old) for old, new in ours.items()}
    if ACCUMULATED in said and SUMMED in stated:
        said[ACCUMULATED] = stated.get(ACCUMULATED, stated[SUMMED])
    every = {name: conversion(name, unit, origin) for name, unit in said.items()}
    converted = {name: how for name, how in every.items() if how != SAME}
    units_of = {name: said[name] for name in converted}
    return Translation(spoken.name, found, converted, units_of, recognised)


def spellings(names: Iterable[str]) -> list[str]:
    """How any layout spells some of our variables."""
    wanted = set(names)
    return [*wanted, *(theirs for theirs, ours in {**_SHORT, **_LONG}.items() if ours in wanted)]


def _names(dataset: xr.Dataset) -> list[str]:
    return list(map(str, [*dataset.variables, *(dim for dim in dataset.dims if dim not in dataset.variables)]))


def _meant(
    dataset: xr.Dataset, name: str, known: Mapping[str, str], places: Mapping[str, str], given: Mapping[str, str]
) -> str:
    """What a name is in ours; one on levels without a level may be that of the surface."""
    new = known.get(name, name)
    if name not in dataset.data_vars or name in given or new not in _WITHOUT_LEVEL:
        return new
    dims = {places.get(str(dim), str(dim)) for dim in dataset[name].dims}
    beside = {places.get(str(coordinate), str(coordinate)) for coordinate in dataset[name].coords}
    is_flat = LEVEL not in dims | beside and dims <= _FLAT
    return _WITHOUT_LEVEL[new] if is_flat else new


def _once(ours: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """Without those that give way to another name of the same."""
    kept = dict(ours)
    for name in reversed(_YIELDING):
        others = [old for old, new in kept.items() if new == kept.get(name) and old != name]
        if name in kept and name not in given and others:
            kept[name] = name
    return kept


def _stated(dataset: xr.Dataset, name: str) -> str:
    """The unit that the data state, as text."""
    default = "gpm" if name in _HEIGHTS else ""
    return str(dataset[name].attrs.get("units", default)) if name in dataset.variables else ""


def _check_dates(dataset: xr.Dataset, origin: str, places: Mapping[str, str]) -> None:
    """Raises where fields lie along dates of which nothing says that they are the fields'."""
    along = [dim for dim in dates(dataset) if dim not in places]
    if TIME in places.values() or TIME in dataset.variables or not along:
        return
    raise InputError(
        f"{origin} must have the dimension {TIME}, but has dates along {', '.join(along)}, of which nothing says that "
        f"fields are valid at them; if they are, set inputs.names {{{along[0]}: {TIME}}}"
    )


def _recognised(dataset: xr.Dataset, origin: str, names: Mapping[str, str]) -> Dialect:
    held = sorted(map(str, dataset.data_vars))
    for dialect in _TABLE:
        if dialect.spoken(dataset) and not {*VARIABLES, ACCUMULATED, *dialect.variables, *names}.isdisjoint(held):
            return dialect
    if not held:
        raise InputError(f"{origin} must have variables, but has none; correct inputs.path")
    theirs, ours = near_pair(held, VARIABLES) or (held[0], "temperature")
    raise LayoutError(
        f"{origin} must have variables of a known layout ({', '.join(DIALECTS)}), but has "
        f"{listed(held, VARIABLES)}; say which of ours they are, such as inputs.names {{{theirs}: {ours}}}"
    )


def _check_once(found: Mapping[str, str], dataset: xr.Dataset, origin: str) -> None:
    for what, names in (("variable", dataset.data_vars), ("dimension", dataset.dims)):
        sources: dict[str, list[str]] = {}
        for old in map(str, names):
            sources.setdefault(found.get(old, old), []).append(old)
        for new, both in sources.items():
            if len(both) > 1:
                skipped = next(old for old in both if old != new)
                raise InputError(
                    f"one {what} of {origin} must be {new}, but {' and '.join(both)} both are; say in inputs.names "
                    f"what the other one is, such as inputs.names {{{skipped}: other_{skipped}}}"
                )
