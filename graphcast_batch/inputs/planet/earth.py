"""Amplitudes of zonal wavenumbers become fields and slopes on a round, turning Earth, whose constants are here.

Modes are complex amplitudes (wavenumber, level, lat): the field is the real part of the sum over wavenumbers m of
amplitude times exp(i m longitude). Mode 0 is the zonal mean.
"""

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

_EQUATORIAL_BELT = 6  # degrees within which winds no longer balance slopes; by eye
_POLAR_CAP = 1e-6  # radians: more than float32 degrees are off, less than any grid's spacing


def cosine(latitude: Floats) -> Floats:
    """Cosine that is exactly 0 at the poles, so that longitude has no say there."""
    return np.where(np.abs(latitude) > np.pi / 2 - _POLAR_CAP, 0, np.cos(latitude))


def inverse_coriolis(latitude: Floats) -> Floats:
    """Inverse of the Coriolis parameter, s, which turns smoothly to 0 at the equator, where nothing balances a slope.

    Args:
        latitude: (lat,) radians.
    """
    coriolis, least = 2 * ROTATION * np.sin(latitude), 2 * ROTATION * np.sin(np.deg2rad(_EQUATORIAL_BELT))
    return np.asarray(coriolis / (coriolis**2 + least**2))


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
