"""Compute what figures show of the scores of an ensemble: error and spread, CRPS, and the ranks of the truth."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.evaluation.energy_score import ENERGY
from graphcast_batch.evaluation.metrics import METRICS, Metric
from graphcast_batch.evaluation.pointwise_statistics import CRPS, RANK_PREFIX, VARIANCE
from graphcast_batch.evaluation.score_curves import ScoreCurve, curves_of, lead_hours, shown_lines
from graphcast_batch.evaluation.score_groups import stored_vectors
from graphcast_batch.evaluation.score_headlines import read_headlines, unit_of, vector_lines
from graphcast_batch.evaluation.score_results import average
from graphcast_batch.evaluation.score_store import ScoreStore
from graphcast_batch.variables import HOUR

SPREAD: Final = "error and spread"
"""Metric of the curves of `spread_curves`."""
_MOST_LEADS: Final = 3
"""Lead times of a rank histogram."""


@dataclass(frozen=True, eq=False)
class RankHistogram:
    """How often the truth has each rank among the members, of one variable at some lead times.

    Attributes:
        variable: name of the variable.
        level: hPa; None at the surface.
        hours: (lead,) lead times.
        shares: (lead, rank) share of places and initial times; each lead time adds up to 1.
        cases: the most initial times that a share averages over.
    """

    variable: str
    level: int | None
    hours: NDArray[np.int64]
    shares: NDArray[np.float64]
    cases: int


def is_ensemble(store: Path, name: str) -> bool:
    """Return whether scores are those of an ensemble.

    Raises:
        StoreError: the scores cannot be read.
    """
    statistics = ScoreStore.at(store, name).identity["statistics"]
    return isinstance(statistics, list) and CRPS in statistics


def spread_curves(store: Path, name: str, region: str) -> list[ScoreCurve]:
    """Compute the error of the mean of an ensemble, and its spread, which is as large if the ensemble is reliable.

    The spread has the factor sqrt((members + 1) / members) of Fortin et al. 2014,
    https://doi.org/10.1175/JHM-D-14-0008.1.

    Args:
        store: its path.
        name: of the scores.
        region: name of the region.

    Raises:
        StoreError: there are no scores, or they cannot be read.
    """
    means = read_headlines(store, name, region).isel(region=0)
    members = len(_ranks(means)) - 1
    inflation = (members + 1) / members
    drawn = {
        f"{name}: error of the mean": METRICS["rmse"],
        f"{name}: spread": Metric(SPREAD, (VARIANCE,), lambda variance: (inflation * variance) ** 0.5),
    }
    return [
        replace(found, metric=SPREAD)
        for line in shown_lines(means)
        for label, metric in drawn.items()
        for found in curves_of(label, metric, line, means)
    ]


def crps_curves(scores: Mapping[str, tuple[Path, str]], region: str) -> list[ScoreCurve]:
    """Compute the CRPS of ensembles, beside that of single forecasts, which is their mean absolute error.

    Args:
        scores: path of a store and name of scores in it, by the name of the forecast; all have some initial times.
        region: name of the region.

    Raises:
        StoreError: there are no scores, or they cannot be read.
    """
    means = {name: read_headlines(*where, region).isel(region=0) for name, where in scores.items()}
    common = reduce(np.intersect1d, (each["time"].values for each in means.values()))
    means = {name: each.sel(time=common) for name, each in means.items()}
    both = Metric(CRPS, (CRPS,), lambda mean: mean), Metric(CRPS, ("absolute_error",), lambda mean: mean)
    return [
        found
        for line in shown_lines(next(iter(means.values())))
        for name, each in means.items()
        for found in curves_of(name, both[CRPS not in each["statistic"].values.tolist()], line, each)
    ]


def energy_curves(scores: Mapping[str, tuple[Path, str]], region: str) -> list[ScoreCurve]:
    """Compute the energy score of the vectors of ensembles, each at 850 hPa or the first level that was read.

    Args:
        scores: path of a store and name of scores in it, by the name of the ensemble.
        region: name of the region.

    Returns:
        The curves; none where no vectors were scored.

    Raises:
        StoreError: there are no scores, or they cannot be read.
    """
    units = {
        name: {vector: unit_of(part) for vector, part in stored_vectors(*at).items()} for name, at in scores.items()
    }
    means = {name: read_headlines(*scores[name], region) for name, held in units.items() if held}
    lines = {name: vector_lines(average(each), lead_hours(each), units[name]) for name, each in means.items()}
    metric = Metric(ENERGY, (ENERGY,), lambda mean: mean)
    found = [
        curve
        for name, each in means.items()
        for line in lines[name]
        for curve in curves_of(name, metric, line, each.isel(region=0))
    ]
    return sorted(found, key=lambda curve: (curve.variable, curve.level or 0))


def rank_histograms(store: Path, name: str, region: str) -> list[RankHistogram]:
    """Compute how often the truth has each rank: equally often, if the ensemble is reliable (Hamill 2001).

    https://doi.org/10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2

    Args:
        store: its path.
        name: of the scores.
        region: name of the region.

    Raises:
        StoreError: there are no scores, or they cannot be read.
    """
    means = read_headlines(store, name, region).isel(region=0)
    found = []
    for line in shown_lines(means):
        if line.variable not in means:
            continue
        array = means[line.variable] if line.level is None else means[line.variable].sel(level=line.level)
        ranks = array.sel(statistic=_ranks(means)).transpose("time", "prediction_timedelta", "statistic")
        there = np.isfinite(ranks.values).all(axis=2)
        chosen = shown_leads(there)
        if chosen.size:
            hours = (ranks["prediction_timedelta"].values[chosen] // HOUR).astype(np.int64)
            shares = np.array([ranks.values[there[:, lead], lead].mean(axis=0) for lead in chosen])
            found.append(RankHistogram(line.variable, line.level, hours, shares, int(there.sum(axis=0).max())))
    return found


def shown_leads(there: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Choose the lead times of a histogram, evenly spaced, with the first and the last that were scored.

    Args:
        there: (time, lead) where there are scores.

    Returns:
        (shown,) indices of lead times, three at most; none if nothing was scored.
    """
    leads = np.flatnonzero(there.any(axis=0))
    if not leads.size:
        return leads
    return np.unique(leads[np.linspace(0, leads.size - 1, min(_MOST_LEADS, leads.size)).round().astype(int)])


def _ranks(means: xr.Dataset) -> list[str]:
    names = [str(name) for name in means["statistic"].values if str(name).startswith(RANK_PREFIX)]
    return sorted(names, key=lambda name: int(name.removeprefix(RANK_PREFIX)))
