"""Compute fields and slopes from amplitudes of zonal wavenumbers, with the constants of the Earth.

Modes are complex amplitudes (wavenumber, level, lat): the field is the real part of the sum over wavenumbers m of
amplitude times exp(i m longitude). Mode 0 is the zonal mean.
"""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Modes = NDArray[np.complex128]
_Array = TypeVar("_Array", Floats, Modes)

RADIUS = 6.371e6  # m, mean
ROTATION = 7.292e-5  # rad s**-1, once a sidereal day
GRAVITY = 9.80665  # m s**-2, standard gravity
DRY_AIR = 287.05  # J kg**-1 K**-1, gas constant
DAY = 86400  # s, solar day
REFERENCE = 1000.0  # hPa, at height 0: heights are ln(REFERENCE / pressure), in which d(geopotential) = R T d(height)

_EQUATORIAL_BELT = 7  # degrees of latitude within which winds balance the derivative of the slope; chosen by eye
STEP = 1e-3  # of height, or of latitude in radians: smooth functions change little over it, but more than rounding
_POLAR_CAP = 1e-6  # radians: more than the rounding of float32 degrees, less than the spacing of any grid


def remembered(function: Callable[..., _Array]) -> Callable[..., _Array]:
    """Keep the arrays that a function returned lately: the same latitudes come again with each height and time.

    Args:
        function: of positional arguments, whose arrays are float64 and have one dimension.
    """

    @lru_cache(maxsize=64)
    def kept(*arguments: object) -> _Array:
        found = function(*(np.frombuffer(one) if isinstance(one, bytes) else one for one in arguments))
        found.setflags(write=False)
        return found

    @wraps(function)
    def call(*arguments: object) -> _Array:
        return kept(*(one.tobytes() if isinstance(one, np.ndarray) else one for one in arguments))

    return call


def cosine(latitude: Floats) -> Floats:
    """Return the cosine of a latitude, exactly 0 at the poles, so that fields do not depend on longitude there."""
    return np.where(np.abs(latitude) > np.pi / 2 - _POLAR_CAP, 0, np.cos(latitude))


def balanced(slope: Callable[[Floats], Modes], latitude: Floats) -> Modes:
    """Return the wind that balances a slope of the geopotential, finite at the equator too.

    Where the Coriolis parameter f is large, this is the geostrophic wind, f wind = slope. At the equator, where f is 0,
    the derivative of that equation by latitude is used: beta wind = derivative of the slope. A Gaussian of latitude
    blends both.

    Args:
        slope: returns the slope of the geopotential toward the north or the east, m s**-2, at latitudes.
        latitude: (lat,) radians.

    Returns:
        (wavenumber, level, lat) m s**-1; 0 at the poles, where directions are undefined.
    """
    distance = np.sin(latitude) / np.sin(np.deg2rad(_EQUATORIAL_BELT))
    near = np.exp(-(distance**2))
    far = -np.expm1(-(distance**2)) / np.where(latitude == 0, 1, 2 * ROTATION * np.sin(latitude))
    steeper = difference(slope, latitude) / (2 * STEP)
    return np.where(cosine(latitude) > 0, far * slope(latitude) + near * steeper / (2 * ROTATION), 0)


def difference(function: Callable[[Floats], Modes], at: Floats) -> Modes:
    """Return the central difference of a function over two steps; divided by two steps it is the derivative."""
    return np.asarray(function(at + STEP) - function(at - STEP))


def eastward_slope(modes: Modes, latitude: Floats) -> Modes:
    """Return the derivative of modes toward the east, per m; 0 at the poles, where all but mode 0 must be 0."""
    circle = RADIUS * np.maximum(cosine(latitude), 1e-9)  # 1e-9: avoids a division by 0 at the poles
    return np.asarray(1j * np.arange(modes.shape[0])[:, np.newaxis, np.newaxis] / circle * modes)


def field(modes: Modes, longitude: Floats) -> Floats:
    """Return the field (level, lat, lon) of modes.

    Args:
        modes: (wavenumber, level, lat) in any unit.
        longitude: (lon,) radians.
    """
    turns = np.outer(np.arange(modes.shape[0]), longitude)
    crests = np.concatenate([np.cos(turns), -np.sin(turns)])
    return np.tensordot(np.concatenate([modes.real, modes.imag]), crests, ((0,), (0,)))
