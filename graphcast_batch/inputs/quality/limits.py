"""Return the lowest and highest value of a variable at a level anywhere on Earth, with a margin.

The limits distinguish wrong units and broken files from weather; they are not a climatology. Records are those of the
WMO World Weather and Climate Extremes Archive (wmo.asu.edu). Numbers without a source were chosen with a wide margin
around the values of reanalyses, which include extrapolated values below the ground.
"""

import math
from typing import Final

import numpy as np

Limits = tuple[float, float]

_HIGHEST_HPA: Final = 1100
"""Larger than any pressure at the surface of the Earth."""
_GRAVITY: Final = 9.80665  # m s**-2, standard gravity, and the gas constant of the ICAO standard atmosphere
_DRY_AIR: Final = 287.05287  # J kg**-1 K**-1

_STANDARD: Final = (
    *((0.0, 1013.25, 288.15, -6.5e-3), (11e3, 226.3206, 216.65, 0.0), (20e3, 54.7489, 216.65, 1e-3)),
    *((32e3, 8.68019, 228.65, 2.8e-3), (47e3, 1.10906, 270.65, 0.0)),
)
"""Layers of the standard atmosphere: geopotential m, hPa and K at the base, and K m**-1 above it.

ICAO Doc 7488; above 32 km US Standard Atmosphere 1976 (NOAA-S/T 76-1562), whose next layer starts above 1 hPa.
"""
_STRETCH: Final = 0.15
"""Largest relative difference of the depth of a column from the standard atmosphere: it is shallower over a polar
vortex, and deeper in summer."""
_FOOT: Final = 15e3
"""Largest difference of geopotential at the bottom of a column from the standard atmosphere, m**2 s**-2: R T ln(p / p0)
of the lowest pressure at sea level, with a margin."""

_UPDRAFT: Final = 10
"""Fastest updraft in m s**-1, as the mean of a grid cell; updrafts of thunderstorms are faster, but narrower."""

_SOLAR_CONSTANT: Final = 1361  # W m**-2 (Kopp and Lean 2011, doi:10.1029/2010GL045777)

_TABLE: Final = np.array(
    [  # hPa, ascending; coldest and warmest, K; fastest wind either way, m s**-1; most humid, kg kg**-1
        (1, 160, 350, 300, 5e-5),
        (10, 155, 320, 250, 7e-5),
        (30, 155, 300, 200, 1e-4),  # the polar night's jet ends
        (100, 155, 285, 170, 3e-4),
        (200, 160, 285, 180, 2e-3),  # jets of 120 m s**-1
        (300, 165, 290, 180, 6e-3),
        (500, 170, 310, 150, 0.02),
        (600, 170, 320, 140, 0.025),  # from here on the ground of Antarctica: 184 K (Vostok 1983)
        (850, 170, 340, 140, 0.04),
        (1000, 170, 355, 120, 0.05),
    ]
)
_COLDEST, _WARMEST, _FASTEST, _MOST_HUMID = 1, 2, 3, 4
_NEGATIVE: Final = 0.1
"""Lowest humidity, as a fraction of the highest, with a minus sign.

Interpolation overshoots: ERA5 has -4 % of a field's highest value (forum.ecmwf.int, topic 2028).
"""

_ANYWHERE: Final[dict[str, Limits]] = {
    "2m_temperature": (170, 345),  # records: 184 K (Vostok 1983), 330 K (Furnace Creek 1913)
    "mean_sea_level_pressure": (83e3, 112e3),  # records: 870 hPa (Tip 1979), 1084 and, reduced from high, 1089 hPa
    "10m_u_component_of_wind": (-110, 110),  # record: 96 m s**-1 over a minute (Patricia 2015)
    "10m_v_component_of_wind": (-110, 110),
    "total_precipitation_6hr": (-0.01, 1.2),  # record: 1.14 m in 12 h (Foc-Foc 1966); differences of sums dip below 0
    "toa_incident_solar_radiation": (-1e4, 1.04 * _SOLAR_CONSTANT * 3600),  # 1.034: perihelion
    "geopotential_at_surface": (-1e4, 9e4),  # -430 m to 8849 m; spectral fields ripple beside mountains
    "land_sea_mask": (-0.05, 1.05),
    **{f"{period}_progress_{wave}": (-1.001, 1.001) for period in ("year", "day") for wave in ("sin", "cos")},
}
_PEAKS: Final = {
    "toa_incident_solar_radiation": 1e6,  # the sun is always high somewhere: 3600 s of 1361 W m**-2
    "geopotential_at_surface": 9e3,  # Antarctica reaches 3 km, and no mountain 9000 m
    "total_precipitation_6hr": 5e-4,  # below its mean, 7e-4; a thousandth of any record is less
}
_PEAKS_ON_LEVELS: Final = {
    # Anywhere on the globe, however coarse its grid is: a fifth of what a sample of 62 places of an analysis reaches.
    "specific_humidity": ((300, 5e-5), (500, 5e-4), (700, 1.5e-3), (850, 3e-3), (1000, 4e-3), (_HIGHEST_HPA, 4e-3)),
    "vertical_velocity": ((300, 0.1), (500, 0.15), (850, 0.15)),
}
"""Pressures in hPa, ascending, and the least peak at each: linear in the logarithm of pressure between them, and
unknown outside."""

_DRIFT: Final = 1.0
"""Largest distance of a forecast from the limits on either side, in widths of the limits.

Random weights, which are used in tests, drift: with configs/demo.yaml, humidity at 850 hPa by 0.35 widths within two
days, and by 2.2 within ten, when winds reach 600 m s**-1.
"""


def limits(name: str, level: float | None = None) -> Limits | None:
    """Return the lowest and highest value of a variable on Earth in the model's unit, with a margin.

    Args:
        name: name of the variable.
        level: level in hPa, for variables on levels.

    Returns:
        The limits; None if they are unknown: for other variables, for a variable on levels without a level, and for
        levels outside 0 to 1100 hPa.
    """
    if name in _ANYWHERE:
        return _ANYWHERE[name]
    if name not in _ON_LEVELS or level is None or not 0 < level <= _HIGHEST_HPA:
        return None
    return _ON_LEVELS[name](level)


def forecast_limits(name: str, level: float | None = None) -> Limits | None:
    """Return the limits of a forecast, beyond which it is absurd: `limits`, extended by their width on either side.

    Args:
        name: name of the variable.
        level: level in hPa, for variables on levels.
    """
    known = limits(name, level)
    if known is None:
        return None
    low, high = known
    margin = _DRIFT * (high - low)
    return low - margin, high + margin


def least_peak(name: str, level: float | None = None) -> float | None:
    """Return a magnitude that a variable exceeds somewhere on the globe at any time, in the model's unit.

    Args:
        name: name of the variable.
        level: level in hPa, for variables on levels.

    Returns:
        The magnitude; None if it is unknown.
    """
    known = _PEAKS_ON_LEVELS.get(name)
    if known is None or level is None:
        return _PEAKS.get(name)
    pressures, peaks = zip(*known, strict=True)
    if not pressures[0] <= level <= pressures[-1]:
        return None
    return float(np.interp(math.log(level), np.log(pressures), peaks))


def standard_geopotential(level: float) -> float:
    """Return the geopotential of a pressure level in the standard atmosphere, m**2 s**-2.

    Args:
        level: pressure in hPa.
    """
    base, pressure, temperature, lapse = max(row for row in _STANDARD if level <= row[1] or row[0] == 0)
    depth = _DRY_AIR / _GRAVITY * math.log(pressure / level)
    height = base + temperature * (math.expm1(lapse * depth) / lapse if lapse else depth)
    return _GRAVITY * height


def _temperature(level: float) -> Limits:
    return _tabled(_COLDEST, level), _tabled(_WARMEST, level)


def _geopotential(level: float) -> Limits:
    middle = standard_geopotential(level)
    margin = _FOOT + _STRETCH * abs(middle)
    return middle - margin, middle + margin


def _wind(level: float) -> Limits:
    fastest = _tabled(_FASTEST, level)
    return -fastest, fastest


def _vertical_velocity(level: float) -> Limits:
    """Return the limits of an updraft as a change of pressure, w rho g (Holton and Hakim 2013, section 3.5)."""
    density = 100 * level / (_DRY_AIR * _tabled(_COLDEST, level))
    return -_UPDRAFT * density * _GRAVITY, _UPDRAFT * density * _GRAVITY


def _humidity(level: float) -> Limits:
    highest = _tabled(_MOST_HUMID, level)
    return -_NEGATIVE * highest, highest


_ON_LEVELS: Final = {
    "temperature": _temperature,
    "geopotential": _geopotential,
    "u_component_of_wind": _wind,
    "v_component_of_wind": _wind,
    "vertical_velocity": _vertical_velocity,
    "specific_humidity": _humidity,
}


def _tabled(column: int, level: float) -> float:
    """Interpolate a column of the table, linear in the logarithm of pressure and constant beyond its ends."""
    return float(np.interp(math.log(level), np.log(_TABLE[:, 0]), _TABLE[:, column]))
