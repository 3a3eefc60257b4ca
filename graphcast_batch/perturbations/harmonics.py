"""Sum spherical harmonics on a latitude-longitude grid."""

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import sph_legendre_p_all

from graphcast_batch.grid import Grid

_ROWS_AT_ONCE: Final = 16
"""Number of latitudes whose Legendre functions are computed at once, to bound the memory: SciPy also computes those of
negative orders, and those of orders above the degree, which are 0."""


class Harmonics:
    """The real spherical harmonics up to a degree, on a grid; orthonormal on the unit sphere.

    Legendre functions are from SciPy, Fourier sums from NumPy. The functions take 4 (degree + 1) (degree + 2) bytes for
    each latitude; they are computed at the first use, and kept.

    All sums are in one fixed order, while that of a matrix product depends on the number of threads, the processor and
    the number of fields.
    """

    def __init__(self, grid: Grid, degree: int) -> None:
        """Take the grid and the highest degree, which must be less than half the number of longitudes."""
        self.degree = degree
        self._colatitude = np.deg2rad(90 - grid.latitude.astype(np.float64))
        self._longitudes = grid.longitude.size
        # numpy.cos and numpy.sin have other last bits on other processors.
        angles = [order * math.radians(float(grid.longitude[0])) for order in range(degree + 1)]
        self._cos = np.asarray([math.cos(angle) for angle in angles])
        self._sin = np.asarray([math.sin(angle) for angle in angles])

    def fields(self, coefficients: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
        """Yield fields, (lat, lon), that are sums of harmonics.

        Args:
            coefficients: (field, 2, degree, order), of the harmonics sqrt(2) P(l, m) cos(m longitude) and sqrt(2)
                P(l, m) sin(m longitude) of degree l and order m > 0, and of P(l, 0), where P are SciPy's Legendre
                functions. Those of an order above the degree, and of sines at order 0, do not count.
        """
        cos, sin = coefficients[:, 0], coefficients[:, 1]
        from_first = np.stack([cos * self._cos + sin * self._sin, sin * self._cos - cos * self._sin], axis=1)
        for cos, sin in self._waves(from_first).transpose(1, 2, 3, 0):
            spectrum = np.empty(cos.shape, np.complex128)
            spectrum.real, spectrum.imag = cos, -sin
            spectrum[:, 1:] *= math.sqrt(0.5)  # of the wanted sqrt(2), the Fourier sum has 2
            yield np.fft.irfft(spectrum, self._longitudes, axis=-1, norm="forward")

    def _waves(self, coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sums over degrees: (order, field, 2, lat)."""
        count, rows = coefficients.shape[0], self._colatitude.size
        by_order = np.ascontiguousarray(coefficients.reshape(2 * count, *coefficients.shape[2:]).T)
        # Not optimized, einsum calls no BLAS: it adds a row of latitudes at a time, degree after degree.
        waves = [
            np.einsum("df,dy->fy", by_order[order, order:], functions, optimize=False)
            for order, functions in enumerate(self._functions)
        ]
        return np.stack(waves).reshape(-1, count, 2, rows)

    @cached_property
    def _functions(self) -> list[NDArray[np.float64]]:
        """Legendre functions, (degree, lat), for each order; the first degree is the order."""
        degrees, rows = range(self.degree + 1), self._colatitude.size
        found = [np.empty((self.degree + 1 - order, rows)) for order in degrees]
        for start in range(0, rows, _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            every = sph_legendre_p_all(self.degree, self.degree, self._colatitude[part])[0]
            for order in degrees:
                found[order][:, part] = every[order:, order]
        return found
