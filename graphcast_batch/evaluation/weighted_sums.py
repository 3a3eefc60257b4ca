"""Parts of scores, from whatever fields, processes and initial times, become one: sums with the weights behind them."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sums:
    """Weighted sums of statistics, which add up in any order.

    Attributes:
        totals: float64, sum of weight times value, over whatever dimensions.
        weights: float64, sum of the weights; the same shape; 0 where nothing was added yet.
    """

    totals: Floats
    weights: Floats

    @classmethod
    def none(cls, shape: tuple[int, ...]) -> Self:
        """Of nothing: what adding leaves unchanged."""
        return cls(np.zeros(shape), np.zeros(shape))

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.totals + other.totals, self.weights + other.weights)

    @property
    def means(self) -> Floats:
        """Weighted means; NaN where nothing was added."""
        counted = self.weights > 0
        means = np.full(self.totals.shape, np.nan)
        np.divide(self.totals, self.weights, out=means, where=counted)
        return means
