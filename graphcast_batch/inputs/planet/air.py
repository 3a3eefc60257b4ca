"""Weather and a time become the air on pressure levels: balanced, and moist where it rises.

Everything balanced follows from one function in closed form, the geopotential: a climate plus travelling waves. Its
slope with height is the temperature; its horizontal slopes are the wind. Numbers without a reason beside them were
chosen by eye, so that maps look like the Earth's and the statistics by level come near the published ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from graphcast_batch.inputs.planet.climate import mean_geopotential, stability
from graphcast_batch.inputs.planet.earth import (
    DAY,
    DRY_AIR,
    RADIUS,
    REFERENCE,
    Floats,
    Modes,
    cosine,
    eastward_slope,
    field,
    inverse_coriolis,
)
from graphcast_batch.inputs.planet.ground import Ground
from graphcast_batch.inputs.planet.waves import TIDES, Weather, long_profile, short_profile, tidal_profile

_YEAR = 365.24219  # days, tropical year
_WARMEST = 205  # days from the epoch, 1 January 2000, to the height of a northern summer: 24 July
_STEP = 1e-3  # of height, or of latitude in radians: smooth functions change little over it, but more than rounding
_STEP_DAYS = 0.01  # the same for time


@dataclass(frozen=True, eq=False)
class Air:
    """The air at one time.

    Attributes:
        weather: the waves in it.
        days: since 2000-01-01T00 UTC.
        pressure: (level,) hPa.
        ground: what it lies on.
    """

    weather: Weather
    days: float
    pressure: Floats
    ground: Ground

    @cached_property
    def season(self) -> float:
        """1 at the height of the northern summer, -1 half a year later."""
        return float(np.cos(2 * np.pi * (self.days - _WARMEST) / _YEAR))

    @cached_property
    def height(self) -> Floats:
        """(level,) ln(REFERENCE / pressure)."""
        return np.log(REFERENCE / self.pressure)

    @cached_property
    def geopotential(self) -> Floats:
        """(level, lat, lon) m**2 s**-2."""
        return field(self._geopotential_modes(self.height, self.ground.latitude), self.ground.longitude)

    @cached_property
    def temperature(self) -> Floats:
        """(level, lat, lon) K."""
        return field(self._temperature_modes(self.ground.latitude), self.ground.longitude)

    @cached_property
    def mean_temperature(self) -> Floats:
        """(level, lat) K, zonal mean."""
        return np.asarray(self._temperature_modes(self.ground.latitude)[0].real)

    @cached_property
    def u(self) -> Floats:
        """(level, lat, lon) m s**-1, geostrophic wind toward the east."""
        return field(self._u_modes, self.ground.longitude)

    @cached_property
    def v(self) -> Floats:
        """(level, lat, lon) m s**-1, geostrophic wind toward the north."""
        return field(self._v_modes, self.ground.longitude)

    @cached_property
    def vertical_velocity(self) -> Floats:
        """(level, lat, lon) Pa s**-1: no flow through the ground, and tropical clusters beside the balanced climb."""
        depth = np.clip(1 - (self.pressure / 1020) ** 8, 0, 1)[:, np.newaxis]  # as if the ground lay at 1020 hPa
        return field(depth * (self._climb_modes() + self._convection_modes()), self.ground.longitude)

    @cached_property
    def humidity(self) -> Floats:
        """(level, lat, lon) kg kg**-1, specific: near the ground and where it rises air is closest to saturation."""
        relative = (0.34 + 0.38 * np.exp(-self.height / 0.35)) * np.exp(-((self.height / 1.65) ** 8))
        moist = 1 - 0.7 * np.tanh(self.vertical_velocity / 0.15)
        saturated = _saturation(self.temperature, self.pressure[:, np.newaxis, np.newaxis])
        share = np.minimum(relative[:, np.newaxis, np.newaxis] * moist, 1)
        return np.asarray(share * saturated + self._stratospheric_humidity()[:, :, np.newaxis])

    def _geopotential_modes(self, height: Floats, latitude: Floats, later: float = 0.0) -> Modes:
        """(wavenumber, level, lat) m**2 s**-2, some days later: the climate and the waves, stronger in winter."""
        days = self.days + later
        modes = self.weather.long.modes(days, long_profile(height), latitude, 0.6 * self.season)
        modes += self.weather.short.modes(days, short_profile(height), latitude, 0.3 * self.season)
        modes += TIDES.modes(days, tidal_profile(height), latitude)
        modes[0] = mean_geopotential(height, np.sin(latitude), self.season)
        return modes

    def _temperature_modes(self, latitude: Floats, later: float = 0.0) -> Modes:
        """(wavenumber, level, lat) K, some days later; R T is the slope of the geopotential with height."""
        rise = _difference(lambda height: self._geopotential_modes(height, latitude, later), self.height)
        return np.asarray(rise / (2 * _STEP * DRY_AIR))

    @cached_property
    def _u_modes(self) -> Modes:
        """(wavenumber, level, lat) m s**-1."""
        latitude = self.ground.latitude
        rise = _difference(lambda latitude: self._geopotential_modes(self.height, latitude), latitude)
        return np.where(cosine(latitude) > 0, -rise / (2 * _STEP * RADIUS) * inverse_coriolis(latitude), 0)

    @cached_property
    def _v_modes(self) -> Modes:
        """(wavenumber, level, lat) m s**-1."""
        latitude = self.ground.latitude
        return eastward_slope(self._geopotential_modes(self.height, latitude), latitude) * inverse_coriolis(latitude)

    def _climb_modes(self) -> Modes:
        """(wavenumber, level, lat) Pa s**-1: air keeps its potential temperature, so where it would warm it climbs."""
        latitude = self.ground.latitude
        after, before = (self._temperature_modes(latitude, days) for days in (_STEP_DAYS, -_STEP_DAYS))
        northward = _difference(lambda latitude: self._temperature_modes(latitude)[0], latitude)
        warming = (after - before) / (2 * _STEP_DAYS * DAY) + self._v_modes * northward / (2 * _STEP * RADIUS)
        warming += self._u_modes[0] * eastward_slope((after + before) / 2, latitude)
        return np.asarray(warming / stability(self.pressure)[:, np.newaxis])

    def _convection_modes(self) -> Modes:
        """(wavenumber, level, lat) Pa s**-1: a tropical belt of clusters that rise, and what sinks on both its sides.

        The belt follows the sun, from 5 degrees south to 11 north; the air sinks about 0.42 rad, 24 degrees, from
        half-way between the belt and the equator.
        """
        latitude, belt = self.ground.latitude, np.deg2rad(3 + 8 * self.season)
        modes = self.weather.clusters.modes(self.days, np.ones(self.pressure.size), latitude)
        modes[0] = 1
        modes *= -0.06 * np.exp(-(((latitude - belt) / 0.15) ** 2))
        modes[0] += 0.025 * np.exp(-(((np.abs(latitude - belt / 2) - 0.42) / 0.17) ** 2))
        return modes * np.sin(np.pi * np.clip(self.pressure / REFERENCE, 0, 1))[:, np.newaxis]  # most at 500 hPa

    def _stratospheric_humidity(self) -> Floats:
        """(level, lat) kg kg**-1: a little more the higher, and less above the tropics, where it comes in dry."""
        uneven = np.outer(0.28 * np.exp(-0.25 * np.abs(self.height - 2)), -np.cos(2 * self.ground.latitude))
        return np.asarray((2.0e-6 + 2.7e-7 * np.maximum(self.height, 0))[:, np.newaxis] * (1 + uneven))


def _difference(function: Callable[[Floats], Modes], at: Floats) -> Modes:
    """What a smooth function gains from one step before to one step after: by 2 steps, its central slope."""
    return np.asarray(function(at + _STEP) - function(at - _STEP))


def _saturation(temperature: Floats, pressure: Floats) -> Floats:
    """Specific humidity, kg kg**-1, of air saturated over water, from K and hPa.

    The vapour's pressure, Pa, is equation 10 of Bolton 1980, "The computation of equivalent potential temperature",
    Monthly Weather Review 108; 0.622 is the molar mass of water over that of dry air.
    """
    vapour = 611.2 * np.exp(17.67 * (temperature - 273.15) / (temperature - 29.65))
    return np.asarray(0.622 * vapour / (100 * pressure - 0.378 * vapour))
