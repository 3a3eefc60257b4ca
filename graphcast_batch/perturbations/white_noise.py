"""Draw white noise on a grid: an independent normal number at each point."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.grid import SAME_PLACE_DEGREES, Grid
from graphcast_batch.perturbations.draws import Draw


class WhiteNoise:
    """Fields of independent normal numbers with mean 0 and standard deviation 1.

    All points of a row on a pole are one place and have one number. Points are closer together near the poles, and so
    are independent numbers: averaged over equal areas, the noise is weaker at high latitudes.
    """

    def __init__(self, grid: Grid) -> None:
        self._shape = grid.shape
        self._poles = np.abs(grid.latitude) > 90 - SAME_PLACE_DEGREES

    def __call__(self, name: str, levels: Sequence[int | None], draw: Draw) -> Iterator[NDArray[np.float64]]:
        """Yield one field, (lat, lon), for each of some levels of a variable."""
        for level in levels:
            field = draw.generator(name, level).standard_normal(self._shape)
            field[self._poles] = field[self._poles, :1]
            yield field
