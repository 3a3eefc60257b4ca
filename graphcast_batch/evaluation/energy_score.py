"""Compute the energy score of an ensemble of vectors, such as the wind, at single points."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.evaluation.pointwise_statistics import Points

ENERGY: Final = "energy_score"


@dataclass(frozen=True, eq=False)
class VectorPoints(Points):
    """Forecast and truth of a vector at points; ``forecast`` and ``truth`` are those of the first component.

    Attributes:
        components: of the vector, all in one unit.
    """

    components: tuple[Points, ...] = ()

    @classmethod
    def of(cls, components: tuple[Points, ...]) -> "VectorPoints":
        """Join the components of a vector, which have the same fields, points and members."""
        return cls(components[0].forecast, components[0].truth, components=components)

    def part(self, fields: slice, points: slice) -> "VectorPoints":
        """Return some of the fields at some of the points."""
        return VectorPoints.of(tuple(each.part(fields, points) for each in self.components))


def energy_score(at: Points) -> NDArray[np.float64]:
    """Compute the energy score of an ensemble of vectors, fair to its size, in the unit of the components.

    The score is the mean distance of the members from the truth, less half of the mean distance of two different
    members from each other; distances are Euclidean (Gneiting and Raftery 2007, section 4.3,
    https://doi.org/10.1198/016214506000001437; fair as the CRPS of Ferro 2014, https://doi.org/10.1002/qj.2270). With
    one component it is the fair CRPS.

    Args:
        at: of a vector.

    Returns:
        (field, point).
    """
    assert isinstance(at, VectorPoints)
    errors, members = [each.errors.astype(np.float64) for each in at.components], at.members
    from_truth = _length(errors).mean(axis=0)
    apart = np.zeros_like(from_truth)
    for step in range(1, members):
        # Pairs of members so many places apart: all of them together would take members times the memory.
        apart += _length([each[step:] - each[:-step] for each in errors]).sum(axis=0)
    return np.asarray(from_truth - apart / (members * (members - 1)))


def _length(components: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(sum(each * each for each in components)))
