"""The names, units and dimensions of the variables that GraphCast's published tasks use.

Names and units are those of ERA5 as DeepMind's dataset files and WeatherBench 2 spell them; standard names are from
the CF standard name table (version 85). A task may use other variables, for which the data give the dimensions.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from graphcast_batch.errors import TaskError

HOUR: Final = np.timedelta64(1, "h")
"""The unit in which lead times are counted."""
DIMS: Final = ("time", "level", "latitude", "longitude")
"""All dimensions that a variable of the inputs may have, in the order in which it is read."""
DIMS_OF_KIND: Final = {
    "surface": ("time", "latitude", "longitude"),
    "level": ("time", "level", "latitude", "longitude"),
    "static": ("latitude", "longitude"),
}
"""Dimensions of a variable by its kind; forcings are computed and have none here."""

Kind = Literal["surface", "level", "static", "forcing"]


@dataclass(frozen=True)
class Variable:
    """The properties of a variable that do not depend on the data."""

    name: str
    kind: Kind
    units: str
    long_name: str
    standard_name: str = ""
    cell_methods: str = ""

    @property
    def attributes(self) -> dict[str, str]:
        """CF attributes that are not empty."""
        found = {
            "units": self.units,
            "long_name": self.long_name,
            "standard_name": self.standard_name,
            "cell_methods": self.cell_methods,
        }
        return {key: value for key, value in found.items() if value}


_TABLE = (
    Variable("2m_temperature", "surface", "K", "2 metre temperature", "air_temperature"),
    Variable("mean_sea_level_pressure", "surface", "Pa", "Mean sea level pressure", "air_pressure_at_mean_sea_level"),
    Variable("10m_u_component_of_wind", "surface", "m s**-1", "10 metre U wind component", "eastward_wind"),
    Variable("10m_v_component_of_wind", "surface", "m s**-1", "10 metre V wind component", "northward_wind"),
    Variable(
        "total_precipitation_6hr",
        "surface",
        "m",
        "Total precipitation over the past 6 hours",
        "lwe_thickness_of_precipitation_amount",
        "prediction_timedelta: sum (interval: 6 hours)",
    ),
    Variable("temperature", "level", "K", "Temperature", "air_temperature"),
    Variable("geopotential", "level", "m**2 s**-2", "Geopotential", "geopotential"),
    Variable("u_component_of_wind", "level", "m s**-1", "U component of wind", "eastward_wind"),
    Variable("v_component_of_wind", "level", "m s**-1", "V component of wind", "northward_wind"),
    Variable("vertical_velocity", "level", "Pa s**-1", "Vertical velocity", "lagrangian_tendency_of_air_pressure"),
    Variable("specific_humidity", "level", "kg kg**-1", "Specific humidity", "specific_humidity"),
    Variable("toa_incident_solar_radiation", "forcing", "J m**-2", "TOA incident solar radiation over the past hour"),
    Variable("year_progress_sin", "forcing", "1", "Sine of the fraction of the year"),
    Variable("year_progress_cos", "forcing", "1", "Cosine of the fraction of the year"),
    Variable("day_progress_sin", "forcing", "1", "Sine of the fraction of the local solar day"),
    Variable("day_progress_cos", "forcing", "1", "Cosine of the fraction of the local solar day"),
    Variable("geopotential_at_surface", "static", "m**2 s**-2", "Geopotential at the surface", "surface_geopotential"),
    Variable("land_sea_mask", "static", "1", "Land-sea mask", "land_area_fraction"),
)
VARIABLES: Final = {variable.name: variable for variable in _TABLE}

LEVELS_13: Final = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
LEVELS_37: Final = (
    *(1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100, 125, 150, 175, 200, 225, 250, 300, 350, 400, 450, 500),
    *(550, 600, 650, 700, 750, 775, 800, 825, 850, 875, 900, 925, 950, 975, 1000),
)


def attributes(name: str) -> dict[str, str]:
    """Return the CF attributes of a variable: of one that is not in `VARIABLES`, the long name alone."""
    known = VARIABLES.get(name)
    return known.attributes if known else {"long_name": name.replace("_", " ")}


def is_on_levels(name: str, dims: Mapping[str, Collection[str]]) -> bool:
    """Return whether a variable has a level dimension, by its dimensions in the data or else by `VARIABLES`.

    Args:
        name: name of the variable.
        dims: dimensions of the variables of the data.

    Raises:
        TaskError: the variable is in neither, or has a dimension in the data that is not among `DIMS`.
    """
    if name in dims:
        _check_dims(name, dims[name])
        return "level" in dims[name]
    if name in VARIABLES:
        return VARIABLES[name].kind == "level"
    raise TaskError(
        f"the variable {name} is neither in the inputs nor among those this program knows, so whether it is on "
        "pressure levels is unknown; add it to the inputs"
    )


def _check_dims(name: str, found: Collection[str]) -> None:
    unknown = [dim for dim in found if dim not in DIMS]
    if not unknown:
        return
    lacks_level = name in VARIABLES and VARIABLES[name].kind == "level" and "level" not in found
    expected = "the dimension level" if lacks_level else f"dimensions among {', '.join(DIMS)}"
    remedy = f"select one place along {', '.join(unknown)}"
    if lacks_level:
        remedy = f"say in inputs.names which it is, such as inputs.names {{{unknown[0]}: level}}"
    raise TaskError(f"{name} must have {expected}, but has {', '.join(found)}; {remedy}")
