"""Translate the names and units of known archive layouts to the model's, with one table for each layout.

In mappings of names, each key is a name in the dataset and each value the model's name for it.

Sources of the tables: WeatherBench 2's data guide, the ARCO-ERA5 repository, the CDS documentation of ERA5 downloads
(before and since September 2024), ECMWF's parameter database and cfgrib's names for it, the CF standard name table.
`axes` identifies coordinates, and `gridded` reads coordinates in any direction.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import xarray as xr

from graphcast_batch.config.inputs_section import Accumulation, DialectName
from graphcast_batch.errors import InputError, LayoutError
from graphcast_batch.inputs.findings import listed, near_pair
from graphcast_batch.inputs.layouts.axes import LEAD, TIME, axes, dates
from graphcast_batch.inputs.layouts.members import MEMBER_NAMES
from graphcast_batch.inputs.layouts.standard_names import by_standard_name
from graphcast_batch.inputs.layouts.units import LEVEL, SAME, Conversion, conversion
from graphcast_batch.variables import VARIABLES

ACCUMULATED: Final = "total_precipitation"
"""Precipitation summed over any time window, from which the model's variable, over 6 h, is computed."""
SUM_HOURS: Final = 6
SUMMED: Final = f"{ACCUMULATED}_{SUM_HOURS}hr"
"""The model's precipitation variable."""
VERSIONS: Final = "expver"
"""Dimension of final and preliminary ERA5 in downloads that mix both; each is NaN where it has no values."""

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
_MEMBERS: Final = (*MEMBER_NAMES, "surface", "heightAboveGround", "meanSea", "height")
"""Dimensions that are dropped if they have one value only."""
_YIELDING: Final = ("geopotential_height", "gh", "orography", "orog", "gh_surface", "prmsl", "mslet")
"""Names that are ignored if another name of the same variable is there; of two of these, the later one is ignored. NCEP
has two reductions of pressure to sea level, for example."""
_FLAT: Final = {TIME, LEAD, "latitude", "longitude", VERSIONS, *_MEMBERS}
"""Dimensions of a variable that is not on levels."""
_HEIGHTS: Final = ("gh", "gh_surface", "geopotential_height", "orog", "orography")
"""Names of geopotential heights, which are in gpm if the data state no unit; the model has geopotentials instead."""
_WITHOUT_LEVEL: Final = {"geopotential": "geopotential_at_surface"}
"""The model's variable for a name of a variable on levels, if the data have it without a level."""


@dataclass(frozen=True)
class Dialect:
    """The names of one layout.

    Attributes:
        name: name of the layout in configurations.
        title: name of the layout in printed text.
        matches: returns whether a dataset has this layout.
        variables: the model's names of variables; in addition, the model's own names are accepted.
        precipitation: how total precipitation is accumulated; None if that differs between data of this layout.
    """

    name: DialectName
    title: str
    matches: Callable[[xr.Dataset], bool]
    variables: Mapping[str, str] = field(default_factory=dict)
    precipitation: Accumulation | None = None


def _has(*names: str) -> Callable[[xr.Dataset], bool]:
    return lambda dataset: any(name in dataset.variables or name in dataset.dims for name in names)


def _is_arco(dataset: xr.Dataset) -> bool:
    return _has(*VARIABLES)(dataset) and (ACCUMULATED in dataset or "valid_time_stop" in dataset.attrs)


# The first layout that matches is used.
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
    """Renames the variables of a dataset to the model's names, and knows the conversions to the model's units.

    Attributes:
        dialect: name of the layout.
        names: the model's names of variables, coordinates and dimensions that have other names in the dataset.
        conversions: conversions of variables in other units than the model's, and of ``level``, by the model's names.
        units: units of these variables, as the data or the configuration state them.
        recognized: the model's names of variables that were identified by their CF standard names.
    """

    dialect: DialectName
    names: Mapping[str, str]
    conversions: Mapping[str, Conversion]
    units: Mapping[str, str]
    recognized: Mapping[str, str] = field(default_factory=dict)

    def apply(self, dataset: xr.Dataset) -> xr.Dataset:
        """Return a dataset in the model's names, without dimensions of one member; values keep their units."""
        named = self.rename(dataset)
        single = [dim for dim in _MEMBERS if named.sizes.get(dim) == 1]
        return named.isel(dict.fromkeys(single, 0), drop=True)

    def rename(self, dataset: xr.Dataset) -> xr.Dataset:
        """Return a dataset in the model's names, otherwise unchanged."""
        renamed: dict[Hashable, str] = {old: new for old, new in self.names.items() if old in dataset.variables}
        renamed |= {old: new for old, new in self.names.items() if old in dataset.dims}
        for old, new in renamed.items():
            if old in dataset.variables and dataset[old].dims == (new,):  # as cfgrib's valid_time lies along time
                dataset = dataset.drop_vars([old, new], errors="ignore").assign_coords({new: dataset[old].variable})
        renamed = {old: new for old, new in renamed.items() if old in dataset.variables or old in dataset.dims}
        in_the_way = [name for name in renamed.values() if name in dataset.variables and name not in renamed]
        return dataset.drop_vars(in_the_way).rename(renamed)


def translation(
    dataset: xr.Dataset,
    origin: str,
    dialect: DialectName | None = None,
    names: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
) -> Translation:
    """Return the translation of a dataset to the model's names and units.

    Args:
        dataset: the dataset, with its own names.
        origin: path or address of the dataset, for messages.
        dialect: name of the layout; None to recognize it from the dataset.
        names: the model's names of variables, coordinates and dimensions; they take precedence over the layout's.
        units: units by the model's name or ``level``; they take precedence over those of the data.

    Raises:
        InputError: no layout is recognized, two variables get one name, or a unit cannot be converted.
    """
    given, stated = dict(names or {}), units or {}
    coordinates = axes(dataset, given)
    places = {**coordinates, **{old: new for old, new in given.items() if old not in dataset.data_vars}}
    standard = by_standard_name(dataset, places)
    matching = DIALECTS[dialect] if dialect else _recognize(dataset, origin, {**standard, **given})
    _check_dates(dataset, origin, places)
    known = {**matching.variables, **coordinates, **given}
    model_names = {name: _meant(dataset, name, known, places, given) for name in _names(dataset)}
    held = set(model_names.values())
    recognized = {old: new for old, new in standard.items() if model_names[old] == old and new not in held}
    model_names = _once({**model_names, **recognized}, given)
    found = {old: new for old, new in model_names.items() if new != old}
    _check_once(found, dataset, origin)
    all_units = {new: stated.get(new) or _stated(dataset, old) for old, new in model_names.items()}
    if ACCUMULATED in all_units and SUMMED in stated:
        all_units[ACCUMULATED] = stated.get(ACCUMULATED, stated[SUMMED])
    every = {name: conversion(name, unit, origin) for name, unit in all_units.items()}
    converted = {name: how for name, how in every.items() if how != SAME}
    units_of = {name: all_units[name] for name in converted}
    return Translation(matching.name, found, converted, units_of, recognized)


def spellings(names: Iterable[str]) -> list[str]:
    """Return the names of some variables in all layouts, and the model's names."""
    wanted = set(names)
    return [*wanted, *(own for own, model_name in {**_SHORT, **_LONG}.items() if model_name in wanted)]


def _names(dataset: xr.Dataset) -> list[str]:
    return list(map(str, [*dataset.variables, *(dim for dim in dataset.dims if dim not in dataset.variables)]))


def _meant(
    dataset: xr.Dataset, name: str, known: Mapping[str, str], places: Mapping[str, str], given: Mapping[str, str]
) -> str:
    """Return the model's name for a name; a variable on levels that has no level may be one at the surface."""
    new = known.get(name, name)
    if name not in dataset.data_vars or name in given or new not in _WITHOUT_LEVEL:
        return new
    dims = {places.get(str(dim), str(dim)) for dim in dataset[name].dims}
    beside = {places.get(str(coordinate), str(coordinate)) for coordinate in dataset[name].coords}
    is_flat = LEVEL not in dims | beside and dims <= _FLAT
    return _WITHOUT_LEVEL[new] if is_flat else new


def _once(model_names: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """Keep one name of each variable: names in `_YIELDING` are ignored if there is another one."""
    kept = dict(model_names)
    for name in reversed(_YIELDING):
        others = [old for old, new in kept.items() if new == kept.get(name) and old != name]
        if name in kept and name not in given and others:
            kept[name] = name
    return kept


def _stated(dataset: xr.Dataset, name: str) -> str:
    """Return the unit that the data state; empty if they state none."""
    default = "gpm" if name in _HEIGHTS else ""
    return str(dataset[name].attrs.get("units", default)) if name in dataset.variables else ""


def _check_dates(dataset: xr.Dataset, origin: str, places: Mapping[str, str]) -> None:
    """Check that a dataset has no dates except along a dimension that is known to be the time."""
    along = [dim for dim in dates(dataset) if dim not in places]
    if TIME in places.values() or TIME in dataset.variables or not along:
        return
    raise InputError(
        f"{origin} must have the dimension {TIME}, but has dates along {', '.join(along)}, which are not marked as "
        f"valid times; if they are valid times, set inputs.names {{{along[0]}: {TIME}}}"
    )


def _recognize(dataset: xr.Dataset, origin: str, names: Mapping[str, str]) -> Dialect:
    held = sorted(map(str, dataset.data_vars))
    for dialect in _TABLE:
        if dialect.matches(dataset) and not {*VARIABLES, ACCUMULATED, *dialect.variables, *names}.isdisjoint(held):
            return dialect
    if not held:
        raise InputError(f"{origin} must have variables, but has none; correct inputs.path")
    own_name, model_name = near_pair(held, VARIABLES) or (held[0], "temperature")
    raise LayoutError(
        f"{origin} must have variables of a known layout ({', '.join(DIALECTS)}), but has "
        f"{listed(held, VARIABLES)}; map them to the names of the model's variables, such as inputs.names "
        f"{{{own_name}: {model_name}}}"
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
                    f"one {what} of {origin} must be {new}, but {' and '.join(both)} both are; give one of them "
                    f"another name, such as inputs.names {{{skipped}: other_{skipped}}}"
                )
