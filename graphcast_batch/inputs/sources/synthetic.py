"""Compute the weather of a synthetic planet from a seed: balanced, moving, and reproducible."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import InputError
from graphcast_batch.grid import Grid
from graphcast_batch.inputs.sources.planet import surface
from graphcast_batch.inputs.sources.planet.air import Air
from graphcast_batch.inputs.sources.planet.earth import GRAVITY, Floats
from graphcast_batch.inputs.sources.planet.ground import Ground, ground_of
from graphcast_batch.inputs.sources.planet.waves import draw_weather
from graphcast_batch.variables import VARIABLES, attributes

_EPOCH = np.datetime64("2000-01-01", "ns")
_DIMS = {
    "level": ("time", "level", "latitude", "longitude"),
    "surface": ("time", "latitude", "longitude"),
    "static": ("latitude", "longitude"),
}
_STATIC: dict[str, Callable[[Ground], Floats]] = {
    "geopotential_at_surface": lambda ground: GRAVITY * ground.height,
    "land_sea_mask": lambda ground: ground.land,
}
_ON_LEVELS: dict[str, Callable[[Air], Floats]] = {
    "temperature": lambda air: air.temperature,
    "geopotential": lambda air: air.geopotential,
    "u_component_of_wind": lambda air: air.u,
    "v_component_of_wind": lambda air: air.v,
    "vertical_velocity": lambda air: air.vertical_velocity,
    "specific_humidity": lambda air: air.humidity,
}
_AT_SURFACE: dict[str, Callable[[Air], Floats]] = {
    "2m_temperature": surface.two_meter_temperature,
    "mean_sea_level_pressure": surface.mean_sea_level_pressure,
    "10m_u_component_of_wind": lambda air: surface.ten_meter_wind(air).real,
    "10m_v_component_of_wind": lambda air: surface.ten_meter_wind(air).imag,
    "total_precipitation_6hr": surface.precipitation,
}


@dataclass(frozen=True)
class SyntheticPlanet:
    """An Earth whose weather is a function of time and seed; the climate is that of every seed."""

    seed: int = 0

    def fields(
        self, names: Sequence[str], times: NDArray[np.datetime64], grid: Grid, levels: Sequence[int]
    ) -> xr.Dataset:
        """Compute variables of GraphCast's published tasks, except the forcings.

        Args:
            names: names of variables on levels, at the surface or static.
            times: (time,) valid times, UTC.
            grid: grid of the fields; the weather at a point does not depend on the grid.
            levels: pressure levels in hPa.

        Returns:
            Float32 variables (time, level, latitude, longitude), or without level at the surface, or without time
            and level for static fields. Precipitation is the rate at the time, times 6 h.

        Raises:
            InputError: the planet has no variable of a name.
        """
        _check_known(names)
        coords = {"time": np.asarray(times, "datetime64[ns]"), "level": np.asarray(levels, np.int32)}
        coords |= {"latitude": grid.latitude, "longitude": grid.longitude}
        dims = {name: _DIMS[VARIABLES[name].kind] for name in names}
        values = {name: np.empty([coords[dim].size for dim in dims[name]], np.float32) for name in names}
        ground, weather = ground_of(grid), draw_weather(self.seed)
        for name in values.keys() & _STATIC:
            values[name][:] = _STATIC[name](ground)
        for n, days in enumerate((coords["time"] - _EPOCH) / np.timedelta64(1, "D")):
            aloft = Air(weather, days, coords["level"].astype(np.float64), ground)
            for name in values.keys() & _ON_LEVELS:
                values[name][n] = _ON_LEVELS[name](aloft)
            low = Air(weather, days, surface.LEVELS, ground)
            for name in values.keys() & _AT_SURFACE:
                values[name][n] = _AT_SURFACE[name](low)
        return xr.Dataset({name: (dims[name], values[name], attributes(name)) for name in names}, coords)


def _check_known(names: Sequence[str]) -> None:
    known = sorted({*_ON_LEVELS, *_AT_SURFACE, *_STATIC})
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(
            f"the synthetic planet has no {', '.join(unknown)}; it has {', '.join(known)}; use those only, or an "
            "archive that holds the others"
        )
