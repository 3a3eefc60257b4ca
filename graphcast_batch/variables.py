"""The names, units and dimensions of the variables that GraphCast's published tasks use.

Names and units are those of ERA5 as DeepMind's dataset files and WeatherBench 2 spell them; standard names are from
the CF standard name table (version 85). A task may use other names: they are taken as the data have them.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

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
    """What is known of a variable without looking at data."""

    name: str
    kind: Kind
    units: str
    long_name: str
    standard_name: str = ""
    cell_methods: str = ""

    @property
    def attributes(self) -> dict[str, str]:
        """CF attributes, without empty ones."""
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
    """CF attributes of a variable; only its name for one that is not in the table."""
    known = VARIABLES.get(name)
    return known.attributes if known else {"long_name": name.replace("_", " ")}
