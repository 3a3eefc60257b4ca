"""Compute what reliability diagrams show: how often an event occurs where an ensemble gives it a probability."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.evaluation.ensemble_curves import shown_leads
from graphcast_batch.evaluation.metrics import ENOUGH
from graphcast_batch.evaluation.pointwise_statistics import EVENT_MARK, threshold_of
from graphcast_batch.evaluation.reliability import counts_of, decomposed, is_count
from graphcast_batch.evaluation.score_curves import shown_lines
from graphcast_batch.evaluation.score_headlines import ScoreHeadline, read_headlines
from graphcast_batch.variables import HOUR

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ReliabilityDiagram:
    """How often an event is in the truth, by the probability that an ensemble of M members gives it.

    Attributes:
        variable: name of the variable.
        level: hPa; None at the surface.
        units: of the variable; empty where they are not known.
        quantile: of the climatology, beyond which the event is; None for a threshold.
        threshold: in the unit of the variable, above which the event is; None for a quantile.
        hours: (lead,) lead times.
        issued: (lead, M + 1) share of places and initial times at which the probability is k / M, k from 0.
        observed: (lead, M + 1) share of these at which the event is in the truth; NaN where there are none.
        skill: (lead,) Brier skill score over the frequency of the event itself, (resolution - reliability) /
            uncertainty; NaN where the event is always or never in the truth.
        cases: the most initial times that a share averages over.
    """

    variable: str
    level: int | None
    units: str
    quantile: float | None
    threshold: float | None
    hours: NDArray[np.int64]
    issued: Floats
    observed: Floats
    skill: Floats
    cases: int


def reliability_diagrams(store: Path, name: str, region: str) -> list[ReliabilityDiagram]:
    """Compute reliability diagrams (Wilks 2011, chapter 8) of an ensemble; none if its events were not counted.

    Args:
        store: its path.
        name: of the scores.
        region: name of the region.

    Returns:
        Diagrams at three lead times at most; those of one event follow each other.

    Raises:
        StoreError: there are no scores, or they cannot be read.
    """
    means = read_headlines(store, name, region).isel(region=0)
    statistics = [str(each) for each in means["statistic"].values]
    events = dict.fromkeys(each.partition(EVENT_MARK)[2] for each in statistics if is_count(each))
    lines = shown_lines(means) if events else []
    return [found for event in events for line in lines for found in _diagram(means, statistics, event, line)]


def _diagram(means: xr.Dataset, statistics: list[str], event: str, line: ScoreHeadline) -> Iterator[ReliabilityDiagram]:
    """Compute the diagram of one variable, if it has the event."""
    if line.variable not in means:
        return
    array = means[line.variable] if line.level is None else means[line.variable].sel(level=line.level)
    members, both = counts_of(event, statistics)
    counts = array.sel(statistic=[*members, *both]).transpose("statistic", "time", "prediction_timedelta")
    there = np.isfinite(counts.values).all(axis=0)
    chosen = shown_leads(there)
    if not chosen.size:
        return
    counts = counts.isel(prediction_timedelta=chosen).mean("time")
    issued, also = (counts.sel(statistic=each) for each in (members, both))
    parts = decomposed(*([each.isel(statistic=n) for n in range(len(members))] for each in (issued, also)))
    skill = (parts["resolution"] - parts["reliability"]) / parts["uncertainty"].where(parts["uncertainty"] > ENOUGH)
    threshold = threshold_of(event)
    yield ReliabilityDiagram(
        line.variable,
        line.level,
        line.unit,
        float(event) if threshold is None else None,
        threshold,
        (counts["prediction_timedelta"].values // HOUR).astype(np.int64),
        issued.values.T,
        (also.drop_vars("statistic") / issued.drop_vars("statistic").where(issued.values > 0)).values.T,
        skill.values,
        int(there.sum(axis=0).max()),
    )
