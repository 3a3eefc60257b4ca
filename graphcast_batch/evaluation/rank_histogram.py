"""Count at which rank the truth lies among the members of an ensemble."""

import numpy as np

from graphcast_batch.evaluation.pointwise_statistics import RANK_PREFIX, Floats, Points


def is_rank(name: str) -> bool:
    """Whether a statistic is the share of a rank."""
    return name.startswith(RANK_PREFIX)


def rank_sums(at: Points, weights: Floats) -> Floats:
    """Compute the area where the truth has each rank; where members tie with it, all ranks it may have share the area.

    Args:
        at: of an ensemble.
        weights: (point, region) area of the points.

    Returns:
        (rank, field, region), ranks from 0: the number of members below the truth.
    """
    ranks, areas = at.members + 1, np.ascontiguousarray(weights.T)
    lowest, tied = (each.sum(axis=0, dtype=np.int16) for each in (at.errors < 0, at.errors == 0))
    if tied.any():
        share = 1.0 / (1.0 + tied)
        each = (np.where((lowest <= rank) & (rank <= lowest + tied), share, 0.0) @ weights for rank in range(ranks))
        return np.stack([*each])
    # A sum for each rank at once: as a statistic of its own, each rank would pass over all points.
    sums = [[np.bincount(field, area, ranks) for area in areas] for field in lowest.astype(np.intp)]
    return np.array(sums).transpose(2, 0, 1)
