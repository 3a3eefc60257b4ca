"""Compute the air of the synthetic planet on pressure levels: balanced, and moist where it rises.

The balanced fields follow from one function in closed form, the geopotential: a climate plus traveling waves. Its
derivative with height gives the temperature, its horizontal derivatives the wind. Numbers without a stated reason were
chosen by eye, so that maps look like the Earth's and the statistics by level come near the published ones.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from graphcast_batch.inputs.sources.planet.climate import mean_geopotential, stability
from graphcast_batch.inputs.sources.planet.continents import centers_of_action
from graphcast_batch.inputs.sources.planet.earth import (
    DAY,
    DRY_AIR,
    GRAVITY,
    RADIUS,
    REFERENCE,
    STEP,
    Floats,
    Modes,
    balanced,
    difference,
    eastward_slope,
    field,
)
from graphcast_batch.inputs.sources.planet.ground import Ground
from graphcast_batch.inputs.sources.planet.waves import (
    CLUSTER_RESPONSE,
    TIDES,
    Weather,
    cluster_profile,
    long_profile,
    ripple_profile,
    short_profile,
    tidal_profile,
)

_YEAR = 365.24219  # days, tropical year
_WARMEST = 205  # days from the epoch, 1 January 2000, to the height of a northern summer: 24 July
_STEP_DAYS = 0.01  # a wave changes little over it, but more than rounding


@dataclass(frozen=True, eq=False)
class Air:
    """The air at one time.

    Attributes:
        weather: the waves of the planet.
        days: time in days since 2000-01-01T00 UTC.
        pressure: (level,) pressure levels, hPa.
        ground: the ground below the air.
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
    def solar_hour(self) -> Floats:
        """(lon,) local solar time, hours."""
        return np.asarray(np.mod(24 * np.mod(self.days, 1) + np.rad2deg(self.ground.longitude) / 15, 24))

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
        """(level, lat, lon) m s**-1, balanced wind toward the east."""
        return field(self._u_modes, self.ground.longitude)

    @cached_property
    def v(self) -> Floats:
        """(level, lat, lon) m s**-1, balanced wind toward the north."""
        return field(self._v_modes, self.ground.longitude)

    @cached_property
    def vertical_velocity(self) -> Floats:
        """(level, lat, lon) Pa s**-1: the sum of balanced motion, tropical clusters, and wind over mountains."""
        depth = np.clip(1 - (self.pressure / 1020) ** 8, 0, 1)[:, np.newaxis]  # as if the ground lay at 1020 hPa
        drafts = self.weather.drafts.modes(self.days, (self.pressure / REFERENCE) ** 0.9, self.ground.latitude)
        free = field(depth * (self._climb_modes() + drafts), self.ground.longitude)
        clustered = np.sin(np.pi * np.clip(self.pressure / REFERENCE, 0, 1)) ** 1.5  # most at 500 hPa
        return np.asarray(free + clustered[:, np.newaxis, np.newaxis] * self._convection() + self._over_mountains())

    @cached_property
    def relative_humidity(self) -> Floats:
        """(level, lat, lon) 0..1: near the ground and where it rises air is moist, in the subtropics it is dry."""
        mean = (0.34 + 0.38 * np.exp(-self.height / 0.35)) * np.exp(-((np.maximum(self.height, 0) / 1.66) ** 7.5))
        climb = -self.vertical_velocity / self.pressure[:, np.newaxis, np.newaxis]
        dried = 0.75 * (1 - np.exp(-(self.height + 0.15) / 0.35))  # less near the ground, where the sea moistens again
        moist = 1 + dried[:, np.newaxis, np.newaxis] * np.tanh(climb / 4e-4)
        return np.asarray(np.minimum(mean[:, np.newaxis, np.newaxis] * moist * (1 - 0.35 * self._subtropics), 1))

    @cached_property
    def humidity(self) -> Floats:
        """(level, lat, lon) kg kg**-1, specific."""
        saturated = _saturation(self.temperature, self.pressure[:, np.newaxis, np.newaxis])
        carried = (0.007 + 4.5e-6 * np.minimum(self.pressure, 125) ** 2)[:, np.newaxis, np.newaxis]  # share per K
        warmer = self.temperature - self.mean_temperature[:, :, np.newaxis]
        above = self._stratospheric_humidity()[:, :, np.newaxis] * np.exp(carried * warmer)
        return np.asarray(self.relative_humidity * saturated + above)

    @cached_property
    def _subtropics(self) -> Floats:
        """(lat, 1) 0..1, how much air sinks: most at 0.42 rad, 24 degrees, from a latitude that follows the season."""
        away = np.abs(self.ground.latitude - np.deg2rad(1.5 + 3 * self.season))
        return np.asarray(np.exp(-(((away - 0.42) / 0.17) ** 2))[:, np.newaxis])

    def _geopotential_modes(self, height: Floats, latitude: Floats, later: float = 0.0) -> Modes:
        """Return the geopotential (wavenumber, level, lat), m**2 s**-2, some days later: climate and waves."""
        days = self.days + later
        modes = self.weather.long.modes(days, long_profile(height), latitude, 0.6 * self.season)
        modes += self.weather.short.modes(days, short_profile(height), latitude, 0.2 * self.season)
        modes += self.weather.ripples.modes(days, ripple_profile(height), latitude)
        modes += CLUSTER_RESPONSE * self.weather.clusters.modes(days, cluster_profile(height), latitude)
        modes += TIDES.modes(days, tidal_profile(height), latitude)
        modes += centers_of_action(height, latitude, self.season, modes.shape[0])
        modes[0] += mean_geopotential(height, np.sin(latitude), self.season)
        return modes

    def _temperature_modes(self, latitude: Floats, later: float = 0.0) -> Modes:
        """Return the temperature (wavenumber, level, lat), K, some days later; R T is the slope with height."""
        rise = difference(lambda height: self._geopotential_modes(height, latitude, later), self.height)
        return np.asarray(rise / (2 * STEP * DRY_AIR))

    @cached_property
    def _u_modes(self) -> Modes:
        """(wavenumber, level, lat) m s**-1."""
        return balanced(self._southward_slope, self.ground.latitude)

    @cached_property
    def _v_modes(self) -> Modes:
        """(wavenumber, level, lat) m s**-1."""
        return balanced(self._eastward_slope, self.ground.latitude)

    def _southward_slope(self, latitude: Floats) -> Modes:
        """Return the southward slope of the geopotential (wavenumber, level, lat), m s**-2."""
        rise = difference(lambda latitude: self._geopotential_modes(self.height, latitude), latitude)
        return np.asarray(-rise / (2 * STEP * RADIUS))

    def _eastward_slope(self, latitude: Floats) -> Modes:
        """Return the eastward slope of the geopotential (wavenumber, level, lat), m s**-2."""
        return eastward_slope(self._geopotential_modes(self.height, latitude), latitude)

    def _climb_modes(self) -> Modes:
        """Return the balanced vertical velocity (wavenumber, level, lat), Pa s**-1.

        Air keeps its potential temperature, so it rises where it would become warmer.
        """
        latitude = self.ground.latitude
        after, before = (self._temperature_modes(latitude, days) for days in (_STEP_DAYS, -_STEP_DAYS))
        northward = difference(lambda latitude: self._temperature_modes(latitude)[0], latitude)
        warming = (after - before) / (2 * _STEP_DAYS * DAY) + self._v_modes * northward / (2 * STEP * RADIUS)
        warming += self._u_modes[0] * eastward_slope((after + before) / 2, latitude)
        return np.asarray(warming / stability(self.pressure)[:, np.newaxis])

    def _convection(self) -> Floats:
        """Return the vertical velocity of convection at 500 hPa (lat, lon), Pa s**-1.

        Air rises in clusters of a tropical belt, and sinks on both its sides. The belt follows the sun, further over
        land; there rain is strongest in the late afternoon.
        """
        latitude, land = self.ground.latitude[:, np.newaxis], self.ground.land
        modes = self.weather.clusters.modes(self.days, np.ones(1), self.ground.latitude)
        afternoon = land * np.cos(2 * np.pi * (self.solar_hour - 17) / 24)
        strength = np.exp(0.85 * field(modes, self.ground.longitude)[0] + 0.5 * afternoon)
        belt = np.deg2rad(3 + (6 + 7 * land) * self.season)
        return np.asarray(0.025 * self._subtropics - 0.04 * strength * np.exp(-(((latitude - belt) / 0.15) ** 2)))

    def _over_mountains(self) -> Floats:
        """Return the vertical velocity over mountains (level, lat, lon), Pa s**-1; part of the wind climbs them."""
        pressure = self.pressure[:, np.newaxis, np.newaxis]
        climb = 0.6 * (self.u * self.ground.eastward_slope + self.v * self.ground.northward_slope)
        weight = -GRAVITY * 100 * pressure / (DRY_AIR * self.temperature)  # of a cubic meter of air, N
        return np.asarray(weight * climb * (pressure / REFERENCE) ** 3)

    def _stratospheric_humidity(self) -> Floats:
        """Return the humidity of the stratosphere (level, lat), kg kg**-1; it is least in the tropics."""
        uneven = np.outer(0.28 * np.exp(-0.25 * np.abs(self.height - 2)), -np.cos(2 * self.ground.latitude))
        return np.asarray((2.0e-6 + 2.7e-7 * np.maximum(self.height, 0))[:, np.newaxis] * (1 + uneven))


def _saturation(temperature: Floats, pressure: Floats) -> Floats:
    """Return the specific humidity, kg kg**-1, of air saturated over water, from K and hPa.

    The vapor pressure, Pa, is equation 10 of Bolton 1980, "The computation of equivalent potential temperature",
    Monthly Weather Review 108; 0.622 is the molar mass of water over that of dry air.
    """
    vapor = 611.2 * np.exp(17.67 * (temperature - 273.15) / (temperature - 29.65))
    return np.asarray(0.622 * vapor / (100 * pressure - 0.378 * vapor))
