"""Hold weighted sums of statistics with their weights, which add up over fields and processes in any order."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class WeightedSums:
    """Weighted sums of statistics, which can be added in any order.

    Attributes:
        totals: float64 of any shape, sum of weight times value.
        weights: float64 of the same shape, sum of the weights; 0 where nothing was added yet.
    """

    totals: Floats
    weights: Floats

    @classmethod
    def none(cls, shape: tuple[int, ...]) -> Self:
        """Return sums of nothing, which change no other sums they are added to."""
        return cls(np.zeros(shape), np.zeros(shape))

    def __add__(self, other: "WeightedSums") -> "WeightedSums":
        return WeightedSums(self.totals + other.totals, self.weights + other.weights)

    @property
    def means(self) -> Floats:
        """Weighted means; NaN where nothing was added."""
        counted = self.weights > 0
        means = np.full(self.totals.shape, np.nan)
        np.divide(self.totals, self.weights, out=means, where=counted)
        return means
