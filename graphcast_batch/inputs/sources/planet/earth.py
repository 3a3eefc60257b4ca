"""Compute fields and slopes from amplitudes of zonal wavenumbers, with the constants of the Earth.

Modes are complex amplitudes (wavenumber, level, lat): the field is the real part of the sum over wavenumbers m of
amplitude times exp(i m longitude). Mode 0 is the zonal mean.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Modes = NDArray[np.complex128]

RADIUS = 6.371e6  # m, mean
ROTATION = 7.292e-5  # rad s**-1, once a sidereal day
GRAVITY = 9.80665  # m s**-2, standard gravity
DRY_AIR = 287.05  # J kg**-1 K**-1, gas constant
DAY = 86400  # s, solar day
REFERENCE = 1000.0  # hPa, at height 0: heights are ln(REFERENCE / pressure), in which d(geopotential) = R T d(height)

_EQUATORIAL_BELT = 7  # degrees of latitude within which the slope's own slope is what winds balance; by eye
STEP = 1e-3  # of height, or of latitude in radians: smooth functions change little over it, but more than rounding
_POLAR_CAP = 1e-6  # radians: more than float32 degrees are off, less than any grid's spacing


def cosine(latitude: Floats) -> Floats:
    """Cosine that is exactly 0 at the poles, so that longitude has no say there."""
    return np.where(np.abs(latitude) > np.pi / 2 - _POLAR_CAP, 0, np.cos(latitude))


def balanced(slope: Callable[[Floats], Modes], latitude: Floats) -> Modes:
    """Wind that balances a slope of the geopotential, finite at the equator too.

    Where f, the Coriolis parameter, is large this is geostrophy, f wind = slope. Its derivative by latitude holds where
    f is 0 as well: there beta wind = slope's derivative. A bell of latitude leads from one to the other.

    Args:
        slope: of the geopotential toward the north or the east, m s**-2, at latitudes.
        latitude: (lat,) radians.

    Returns:
        (wavenumber, level, lat) m s**-1; 0 at the poles, where directions end.
    """
    distance = np.sin(latitude) / np.sin(np.deg2rad(_EQUATORIAL_BELT))
    near = np.exp(-(distance**2))
    far = -np.expm1(-(distance**2)) / np.where(latitude == 0, 1, 2 * ROTATION * np.sin(latitude))
    steeper = difference(slope, latitude) / (2 * STEP)
    return np.where(cosine(latitude) > 0, far * slope(latitude) + near * steeper / (2 * ROTATION), 0)


def difference(function: Callable[[Floats], Modes], at: Floats) -> Modes:
    """What a smooth function gains from one step before to one step after: by 2 steps, its central slope."""
    return np.asarray(function(at + STEP) - function(at - STEP))


def eastward_slope(modes: Modes, latitude: Floats) -> Modes:
    """Derivative of modes toward the east, per m; 0 at the poles, where all but mode 0 must be 0."""
    circle = RADIUS * np.maximum(cosine(latitude), 1e-9)  # 1e-9: only to divide by something at the poles
    return np.asarray(1j * np.arange(modes.shape[0])[:, np.newaxis, np.newaxis] / circle * modes)


def field(modes: Modes, longitude: Floats) -> Floats:
    """Sums modes up to a field (level, lat, lon).

    Args:
        modes: (wavenumber, level, lat) in any unit.
        longitude: (lon,) radians.
    """
    turns = np.outer(np.arange(modes.shape[0]), longitude)
    crests = np.concatenate([np.cos(turns), -np.sin(turns)])
    return np.tensordot(np.concatenate([modes.real, modes.imag]), crests, ((0,), (0,)))
