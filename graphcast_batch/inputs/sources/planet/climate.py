"""Compute the zonal mean climate of the synthetic planet, to which waves are added.

The table and the belts were chosen by eye, so that the means by level come near those that were published with
GraphCast, and jets are at the latitudes of the Earth's; tests check both.
"""

import numpy as np

from graphcast_batch.inputs.sources.planet.earth import DRY_AIR, REFERENCE, Floats, remembered

# Temperature, K. A row is a pressure in hPa; the yearly mean at 0, 30, 60 and 90 degrees; the difference of the north
# pole and the south pole; and the difference of a pole in the middle of its summer and in the yearly mean.
_TABLE = np.array(
    [
        (1000, 299.5, 293.0, 275.0, 252.0, 14, 12),
        (850, 290.5, 286.0, 268.0, 250.0, 10, 11),
        (700, 282.0, 277.0, 261.5, 246.0, 8, 10),
        (500, 267.0, 261.5, 247.0, 234.5, 5, 9),
        (300, 242.0, 235.5, 223.0, 218.0, 3, 7),
        (200, 219.5, 218.5, 219.0, 217.0, 3, 8),
        (100, 193.5, 204.0, 219.0, 216.0, 4, 12),
        (50, 207.0, 211.0, 217.5, 211.0, 4, 17),
        (10, 231.0, 229.5, 226.0, 221.0, 2, 19),
        (1, 264.0, 263.0, 260.0, 258.0, 1, 17),
    ]
)
_PRESSURE, _YEARLY, _NORTHERN, _SUMMER = _TABLE[:, 0], _TABLE[:, 1:5], _TABLE[:, 5:6], _TABLE[:, 6:7]
_HEIGHT = np.log(REFERENCE / _PRESSURE)
_ANCHORS = np.sin(np.deg2rad([0, 30, 60, 90]))
_POWERS = (0, 4, 6, 8)  # of the sine: without the square the tropics are flat, and jets blow at their edge

_SEA_LEVEL = 1012  # hPa, between the belts
# Belts of pressure at sea level: hPa above `_SEA_LEVEL`, then center and width in the sine of the latitude. The
# equatorial trough, both subtropical highs, the low of the subarctic, the deep trough around Antarctica.
_BELTS = ((-0.9, 0.0, 0.2), (7.0, 0.52, 0.2), (7.0, -0.50, 0.2), (-4.0, 0.88, 0.13), (-28.0, -0.91, 0.15))
_KAPPA = 2 / 7  # gas constant over heat capacity of a gas of two atoms, as air is


def mean_geopotential(height: Floats, sine: Floats, season: float) -> Floats:
    """Return the zonal mean of the geopotential: the integral of a temperature that is linear between the table's rows.

    Args:
        height: (level,) ln(REFERENCE / pressure); beyond the table the slopes of its end rows are used.
        sine: (lat,) sine of the latitude.
        season: 1 in the middle of the northern summer, -1 half a year later.

    Returns:
        (level, lat) m**2 s**-2.
    """
    temperature, step = _temperature(sine, season), np.diff(_HEIGHT)[:, np.newaxis]
    layers = DRY_AIR * step * (temperature[1:] + temperature[:-1]) / 2
    base = np.cumsum(np.concatenate([_lowest_geopotential(temperature[:1], sine), layers]), axis=0)
    row = np.clip(np.searchsorted(_HEIGHT, height, side="right") - 1, 0, _HEIGHT.size - 2)
    above, slope = (height - _HEIGHT[row])[:, np.newaxis], np.diff(temperature, axis=0) / step
    return np.asarray(base[row] + DRY_AIR * above * (temperature[row] + slope[row] * above / 2))


def stability(pressure: Floats) -> Floats:
    """Return the warming of sinking air relative to the air around it, (level,) K Pa**-1; mean of 30 and 60 degrees."""
    rising, mean = _PRESSURE[::-1], _YEARLY[::-1, 1:3].mean(axis=1)
    warming = _KAPPA * mean / rising - np.gradient(mean, rising)
    return np.asarray(np.interp(pressure, rising, warming) / 100)


@remembered
def _temperature(sine: Floats, season: float) -> Floats:
    """Return the temperature (row of the table, lat), K: even powers of the sine through the table, and an odd part."""
    shares = np.linalg.solve(np.power.outer(_ANCHORS, _POWERS), _YEARLY.T).T
    even = shares @ np.power.outer(sine, _POWERS).T
    odd = (5 * sine**3 - 3 * sine**5) / 2  # 1 and flat in the sine at the pole, flat at the equator
    yearly = _SUMMER * season * (1 + 0.3 * sine)  # 0.3: more land in the north, so more season
    return np.asarray(even + _NORTHERN / 2 * sine**7 + yearly * odd)  # 7: affects the poles, and little else


def _lowest_geopotential(temperature: Floats, sine: Floats) -> Floats:
    """Return the geopotential at 1000 hPa (1, lat), m**2 s**-2, from the belts of pressure at sea level."""
    pressure = _SEA_LEVEL + sum(high * np.exp(-(((sine - at) / width) ** 2)) for high, at, width in _BELTS)
    return np.asarray(DRY_AIR * temperature * np.log(pressure / REFERENCE))
