"""Count how often an ensemble gives each probability of an event, and how often the event is then in the truth.

An ensemble of M members gives the probabilities k / M. The area where exactly k members have the event, and the part of
it where the truth has it too, are all that a reliability diagram and the parts of the Brier score need.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.evaluation.pointwise_statistics import EVENT_MARK, Points, applies

Floats = NDArray[np.float64]
_PREFIX: Final = "members_"
_AND_TRUTH: Final = "_and_truth"


def of_reliability(members: int, events: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the statistics: for each event those of 0 to M members, then of these and the truth.

    ``members_3@0.99`` is the share of the area where three members have the event, and ``members_3_and_truth@0.99``
    that where the truth has it too.
    """
    return tuple(
        f"{_PREFIX}{count}{also}{EVENT_MARK}{event}"
        for event in events
        for also in ("", _AND_TRUTH)
        for count in range(members + 1)
    )


def is_count(name: str) -> bool:
    """Whether a statistic is one of `of_reliability`."""
    return name.startswith(_PREFIX)


def counts_of(event: str, statistics: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names of the statistics of an event among others: those of members alone, and those with the truth.

    Both are in the order of the number of members, from 0; empty if there are none.
    """
    mark = f"{EVENT_MARK}{event}"
    members = sum(name.startswith(_PREFIX) and name.endswith(mark) for name in statistics) // 2
    names = of_reliability(members - 1, [event]) if members else ()
    return list(names[:members]), list(names[members:])


def places_of(statistics: Sequence[str], at: Points) -> dict[str, NDArray[np.intp]]:
    """Return by event where its statistics are among others, (kind, members), kinds without and with the truth.

    Events that are not defined for the variable are left out.
    """
    places = {name: n for n, name in enumerate(statistics) if is_count(name) and applies(name, at)}
    events = dict.fromkeys(name.partition(EVENT_MARK)[2] for name in places)
    return {
        event: np.array([[places[name] for name in kind] for kind in counts_of(event, [*places])]) for event in events
    }


def count_sums(at: Points, event: str, weights: Floats) -> Floats:
    """Compute the area where each number of members has an event, and where the truth has it too.

    Args:
        at: of an ensemble.
        event: see `Points.beyond`.
        weights: (point, region) area of the points.

    Returns:
        (kind, members, field, region) of the kinds without and with the truth, members from 0; NaN if a value of a
        point is.
    """
    share, truth = at.beyond(event)
    fields, (kinds, counts) = len(share), (2, at.members + 1)
    if not (np.isfinite(share).all() and np.isfinite(truth).all()):
        return np.full((kinds, counts, fields, weights.shape[1]), np.nan)
    bins = np.rint(share * at.members).astype(np.intp) + counts * truth.astype(np.intp)
    # A sum for each bin at once: as a statistic of its own, each number of members would pass over all points.
    areas = np.ascontiguousarray(weights.T)
    sums = np.array([[np.bincount(field, area, kinds * counts) for area in areas] for field in bins])
    without, both = sums.reshape(fields, -1, kinds, counts).transpose(2, 3, 0, 1)
    return np.stack([without + both, both])


def decomposed(issued: Sequence[xr.DataArray], observed: Sequence[xr.DataArray]) -> Mapping[str, xr.DataArray]:
    """Compute the parts of the Brier score: it is reliability - resolution + uncertainty.

    Murphy 1973, https://doi.org/10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2. It is exact, since the probabilities
    are those that the ensemble gives, k / M, and not classes of several of them.

    Args:
        issued: share of the area where k of M members have the event, for each k from 0.
        observed: share of the area where the truth has it too.
    """
    members, rate = len(issued) - 1, sum(observed[1:], observed[0])
    reliability = resolution = 0.0 * rate
    for count, (area, both) in enumerate(zip(issued, observed, strict=True)):
        frequency = (both / area.where(area > 0)).fillna(0.0)  # a probability that is never given has the weight 0
        reliability = reliability + area * (count / members - frequency) ** 2
        resolution = resolution + area * (frequency - rate) ** 2
    return {"reliability": reliability, "resolution": resolution, "uncertainty": rate * (1 - rate)}
