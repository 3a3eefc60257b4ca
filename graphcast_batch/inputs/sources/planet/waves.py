"""Compute traveling waves from a seed: the random part of the weather of the synthetic planet.

Numbers, belts, speeds and sizes of the waves were chosen by eye, so that maps look like the Earth's and the standard
deviations by level come near those that were published with GraphCast; tests check the latter.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.inputs.sources.planet.earth import DAY, RADIUS, Floats, Modes, cosine, remembered

_LARGEST_WAVENUMBER = 24  # waves of 15 degrees of longitude, which grids of 6 degrees or finer resolve
_LONG = np.repeat(np.arange(1, 4), 6)  # six waves of each wavenumber
_SHORT = np.repeat(np.arange(4, 17), 8)
_CLUSTERS = np.repeat(np.arange(1, _LARGEST_WAVENUMBER + 1), 4)
_DRAFTS = np.repeat(np.arange(12, _LARGEST_WAVENUMBER + 1), 20)
_RIPPLES = np.repeat(np.arange(8, _LARGEST_WAVENUMBER + 1), 12)
_TROPOPAUSE = 1.25  # height, at 287 hPa: short waves are largest there, and long ones grow above it


@dataclass(frozen=True, eq=False)
class Waves:
    """Traveling waves; each wave is one element of every array.

    Attributes:
        wavenumber: (wave,) number of crests around the globe.
        frequency: (wave,) frequency in radians a day, > 0 for eastward waves.
        center: (wave,) latitude of the center in radians.
        width: (wave,) width in latitude in radians.
        amplitude: (wave,) amplitude at the center, before the factor of the squared cosine, in the unit of the field.
        phase: (wave,) phase in radians.
    """

    wavenumber: NDArray[np.int64]
    frequency: Floats
    center: Floats
    width: Floats
    amplitude: Floats
    phase: Floats

    def modes(self, days: float, profile: Modes | Floats, latitude: Floats, summer: float = 0.0) -> Modes:
        """Return the sum of the waves, (wavenumber, level, lat).

        Args:
            days: time in days since the epoch.
            profile: (level,) amplitude and phase by height.
            latitude: (lat,) radians.
            summer: fraction by which waves of the northern hemisphere are weaker, and southern ones stronger.
        """
        return np.asarray(profile[:, np.newaxis] * _sums(self, days, latitude, summer)[:, np.newaxis])


@remembered
def _sums(waves: Waves, days: float, latitude: Floats, summer: float) -> Modes:
    """Return the sum of the waves of each wavenumber, (wavenumber, lat)."""
    size = waves.amplitude * (1 - summer * np.sign(waves.center))
    turned = size * np.exp(1j * (waves.phase - waves.frequency * days))
    total = np.zeros((_LARGEST_WAVENUMBER + 1, latitude.size), np.complex128)
    np.add.at(total, waves.wavenumber, turned[:, np.newaxis] * _crests(waves, latitude) * cosine(latitude) ** 2)
    return total


@remembered
def _crests(waves: Waves, latitude: Floats) -> Modes:
    """Return the amplitude and phase of waves by latitude before the factor of the squared cosine, (wave, lat)."""
    away = (latitude - waves.center[:, np.newaxis]) / waves.width[:, np.newaxis]
    return np.asarray(np.exp((0.7j - 1) * away**2))  # 0.7j bends crests back on both sides, as jets do


CLUSTER_RESPONSE = 250 / np.arange(1, _LARGEST_WAVENUMBER + 2)[:, np.newaxis, np.newaxis]
"""Change of the geopotential around clusters, (wavenumber, 1, 1) m**2 s**-2; it is less for small clusters."""

TIDES = Waves(
    wavenumber=np.array([1, 2]),
    frequency=np.array([-2, -4]) * np.pi,
    center=np.zeros(2),
    width=np.array([0.9, 0.7]),
    amplitude=np.array([40.0, 40.0]),  # about 0.5 hPa
    phase=np.array([0.0, 1.0]),
)
"""The sun's daily and half-daily tides in the geopotential, m**2 s**-2 at 1000 hPa; westward with the sun."""


@dataclass(frozen=True, eq=False)
class Weather:
    """The waves of a seed.

    Attributes:
        long: slow waves of the middle latitudes in the geopotential, m**2 s**-2.
        short: the highs and lows that travel along the jets, in the geopotential.
        ripples: small fast waves outside the tropics in the geopotential, which affect the temperature most.
        drafts: fine waves of vertical velocity alone, Pa s**-1 at 1000 hPa.
        clusters: waves of tropical convection; dimensionless, with a standard deviation of about 1.
    """

    long: Waves
    short: Waves
    ripples: Waves
    drafts: Waves
    clusters: Waves


@lru_cache(maxsize=2)
def draw_weather(seed: int) -> Weather:
    """Return waves with random locations, speeds, sizes and phases."""
    generator = np.random.default_rng(seed)
    short_size = 1040 * _SHORT / 5 * np.exp(1 - _SHORT / 5)  # largest at wavenumber 5
    return Weather(
        long=_draw(generator, _LONG, 850 / np.sqrt(_LONG), belt=(45, 65), speed=(-4, 5), width=20),
        short=_draw(generator, _SHORT, short_size, belt=(38, 70), speed=(7.5, 15.5), width=34 / np.sqrt(_SHORT)),
        ripples=_draw(generator, _RIPPLES, 19, belt=(22, 78), speed=(15, 32), width=34 / np.sqrt(_RIPPLES)),
        drafts=_draw(generator, _DRAFTS, 0.19, belt=(0, 80), speed=(12, 28), width=22 / np.sqrt(_DRAFTS)),
        clusters=_draw(generator, _CLUSTERS, 0.26, belt=(-20, 20), speed=(-12, 8), width=14),
    )


def _draw(
    generator: np.random.Generator,
    wavenumber: NDArray[np.int64],
    size: Floats | float,
    *,
    belt: tuple[float, float],
    speed: tuple[float, float],
    width: Floats | float,
) -> Waves:
    """Return waves in a belt of both hemispheres alternately; belt and width in degrees, speed in m s**-1 eastward."""
    count = wavenumber.size
    center = np.deg2rad(generator.uniform(*belt, count)) * np.resize([-1, 1], count)
    return Waves(
        wavenumber=wavenumber,
        frequency=wavenumber * generator.uniform(*speed, count) / (RADIUS * np.cos(center)) * DAY,
        center=center,
        width=np.broadcast_to(np.deg2rad(width), count),
        amplitude=size * generator.uniform(0.6, 1.4, count),
        phase=generator.uniform(0, 2 * np.pi, count),
    )


def long_profile(height: Floats) -> Modes:
    """Return the amplitude and phase of long waves by height, (level,); they continue into the stratosphere.

    Only the longest waves do (Charney and Drazin 1961, "Propagation of planetary-scale disturbances from the lower into
    the upper atmosphere").
    """
    above = height - _TROPOPAUSE
    return np.asarray((0.7 + 0.55 * (above + np.sqrt(above**2 + 1))) * _lean(height))


def short_profile(height: Floats) -> Modes:
    """Return the amplitude and phase of short waves by height, (level,); they end above the tropopause."""
    return np.asarray(np.exp(-(((height - _TROPOPAUSE) / 1.4) ** 2)) * _lean(height))


def ripple_profile(height: Floats) -> Modes:
    """Return the amplitude and phase of ripples by height, (level,): crests alternate with troughs, and grow upward."""
    return np.asarray(np.exp((0.22 + 4j) * height))


def cluster_profile(height: Floats) -> Floats:
    """Return the geopotential around clusters by height, (level,): low pressure near the ground, high at 200 hPa."""
    return np.asarray(-np.cos(np.pi * height / 1.6) * np.exp(-((height / 2) ** 4)))


def tidal_profile(height: Floats) -> Floats:
    """Return the amplitude of tides by height, (level,): it grows with the inverse square root of pressure."""
    return np.exp(height / 2)


def _lean(height: Floats) -> Modes:
    """Return the phase by height, (level,): waves tilt westward with height, most of all near the ground."""
    return np.asarray(np.exp(1j * (1.2 * (1 - np.exp(-np.maximum(height, -0.5) / 0.7)) + 0.25 * height)))
