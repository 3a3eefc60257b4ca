"""Draw smooth Gaussian random fields on the sphere, correlated over levels."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.errors import ConfigError
from graphcast_batch.grid import Grid
from graphcast_batch.perturbations.draws import Draw
from graphcast_batch.perturbations.harmonics import Harmonics

EARTH_RADIUS_KM: Final = 6371.0
"""Mean radius of the Earth."""
_FEWEST_STEPS: Final = 2
"""Least length of correlation in grid spacings: with less, neighbors have a correlation below exp(-1/8) = 0.88."""
_FAINTEST: Final = 1e-6
"""Least power of a harmonic, as a fraction of that of degree 0; those of higher degrees are left out."""


class SmoothField:
    """Gaussian random fields with mean 0 and standard deviation 1 at every point.

    The power of a harmonic of degree l is proportional to exp(-l (l + 1) L^2 / (2 a^2)) with the length of correlation
    L and the radius of the Earth a. The fields are those that isotropic diffusion makes of white noise on the sphere,
    and the correlation of two points at the distance r is nearly exp(-r^2 / (2 L^2)) (Weaver and Courtier 2001,
    doi:10.1002/qj.49712757518).

    From level to level, each coefficient is a first-order autoregressive series: the correlation between the pressures
    p and q is exp(-|ln(p / q)| / scale), since those of neighboring levels multiply to those of distant ones.
    """

    def __init__(self, grid: Grid, length_km: float, level_scale: float, levels: Sequence[int]) -> None:
        """Choose the correlations.

        Args:
            grid: grid of the fields.
            length_km: distance at which the horizontal correlation is exp(-1/2), km.
            level_scale: difference of the logarithm of pressure at which the vertical correlation is exp(-1).
            levels: all levels of the model in hPa, ascending. A field at one of them depends on those above it, whether
                they are perturbed or not.

        Raises:
            ConfigError: the grid is too coarse for the length.
        """
        _check_length(grid, length_km)
        half_square = (length_km / EARTH_RADIUS_KM) ** 2 / 2
        self._amplitudes = _amplitudes(half_square)
        self._harmonics = Harmonics(grid, self._amplitudes.size - 1)
        self._levels = levels
        self._from_above = [0.0, *(math.pow(above / below, 1 / level_scale) for above, below in pairwise(levels))]

    def __call__(self, name: str, levels: Sequence[int | None], draw: Draw) -> Iterator[NDArray[np.float64]]:
        """Yield one field, (lat, lon), for each of some levels of a variable."""
        drawn = [(None, self._independent(name, None, draw))] if None in levels else self._correlated(name, draw)
        found = dict[int | None, NDArray[np.float64]](drawn)
        yield from self._harmonics.fields(np.stack([found[level] for level in levels]))

    def _correlated(self, name: str, draw: Draw) -> Iterator[tuple[int | None, NDArray[np.float64]]]:
        """Yield every level with its coefficients, from the top down."""
        state: NDArray[np.float64] | float = 0.0
        for level, share in zip(self._levels, self._from_above, strict=True):
            state = share * state + math.sqrt(1 - share**2) * self._independent(name, level, draw)
            yield level, state

    def _independent(self, name: str, level: int | None, draw: Draw) -> NDArray[np.float64]:
        """Draw the coefficients of one field, (2, degree, order)."""
        count = self._amplitudes.size
        return self._amplitudes[:, np.newaxis] * draw.generator(name, level).standard_normal((2, count, count))


def _check_length(grid: Grid, length_km: float) -> None:
    spacing = math.radians(max(grid.resolution, grid.latitude_step)) * EARTH_RADIUS_KM
    least = math.ceil(_FEWEST_STEPS * spacing)
    if length_km < least:
        raise ConfigError(
            f"ensemble.perturbations.length_km must be at least {least} on the grid {grid}, {_FEWEST_STEPS} of its "
            f"spacings at the equator, but is {length_km:g}; give {least} or more, or the kind gaussian for "
            "noise of the scale of the grid"
        )


def _amplitudes(half_square: float) -> NDArray[np.float64]:
    """Return the standard deviation of the coefficients by degree, with which that of the field is 1 at every point.

    The squares of the 2 l + 1 harmonics of degree l add up to (2 l + 1) / (4 pi) at every point.
    """
    highest = int(math.sqrt(0.25 - math.log(_FAINTEST) / half_square) - 0.5)
    power = [math.exp(-degree * (degree + 1) * half_square) for degree in range(highest + 1)]
    variance = math.fsum((2 * degree + 1) / (4 * math.pi) * each for degree, each in enumerate(power))
    return np.sqrt(np.asarray(power) / variance)
