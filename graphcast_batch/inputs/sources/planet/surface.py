"""Compute the weather at the surface of the synthetic planet from the air above and the ground.

Numbers without a stated reason were chosen by eye, so that maps look like the Earth's.
"""

import numpy as np

from graphcast_batch.inputs.sources.planet.air import Air
from graphcast_batch.inputs.sources.planet.earth import DRY_AIR, GRAVITY, REFERENCE, Floats, Modes, cosine

LEVELS = np.array([700.0, REFERENCE])
"""Levels of the air that the functions of this module need, (level,) hPa: that at which rain forms, and the lowest."""

_RAIN, _LOWEST = 0, 1  # indices into LEVELS
_LAPSE = 6.5e-3  # K m**-1, of the ICAO standard atmosphere's troposphere
_WATER = 1000  # kg m**-3


def mean_sea_level_pressure(air: Air) -> Floats:
    """Return the pressure at sea level (lat, lon), Pa: from 1000 hPa down through air with the standard lapse rate."""
    geopotential = air.geopotential[_LOWEST]
    between = air.temperature[_LOWEST] + _LAPSE * geopotential / (2 * GRAVITY)
    return np.asarray(100 * REFERENCE * np.exp(geopotential / (DRY_AIR * between)))


def two_meter_temperature(air: Air) -> Floats:
    """Return the temperature at 2 m (lat, lon), K.

    It varies less over the sea, is low on mountains, and on land follows the season and the local solar time.
    """
    ground, lowest = air.ground, air.temperature[_LOWEST]
    sea = (lowest + air.mean_temperature[_LOWEST][:, np.newaxis]) / 2
    sine, sunshine = np.sin(ground.latitude), cosine(ground.latitude)
    daily = 5 * np.outer(sunshine, np.cos(2 * np.pi * (air.solar_hour - 15) / 24))  # warmest at 15 h
    yearly = (14 * air.season - 6) * sunshine * sine * np.abs(sine)
    land = lowest + yearly[:, np.newaxis] + daily - _LAPSE * ground.height
    return np.asarray(sea + ground.land * (land - sea))


def ten_meter_wind(air: Air) -> Modes:
    """Return the wind at 10 m (lat, lon), u + iv, m s**-1.

    Friction slows the lowest wind and turns it toward low pressure, more so on land.
    """
    land = air.ground.land
    turn = np.deg2rad(15 + 15 * land) * np.tanh(air.ground.latitude / 0.15)[:, np.newaxis]  # none at the equator
    return np.asarray((0.85 - 0.35 * land) * np.exp(1j * turn) * (air.u[_LOWEST] + 1j * air.v[_LOWEST]))


def precipitation(air: Air) -> Floats:
    """Return the precipitation over 6 h (lat, lon), m of water.

    Air that rises at 700 hPa loses its water vapor as rain, more of it in moist air. The factor of 1.9 brings the
    global mean near the Earth's; air that rises by less than 0.02 Pa s**-1 forms clouds without rain.
    """
    lifted = np.maximum(-air.vertical_velocity[_RAIN] - 0.02, 0) * air.humidity[_RAIN]
    return np.asarray(1.9 * air.relative_humidity[_RAIN] ** 2 * lifted / GRAVITY / _WATER * 6 * 3600)
