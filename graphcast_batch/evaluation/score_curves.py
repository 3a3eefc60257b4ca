"""Compute the headline metrics of several forecasts by lead time, with confidence intervals, for curves."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation.comparison import check_alike
from graphcast_batch.evaluation.metrics import METRICS, Metric
from graphcast_batch.evaluation.score_headlines import ScoreHeadline, headlines, read_headlines
from graphcast_batch.evaluation.score_results import average
from graphcast_batch.evaluation.significance import CONFIDENCE, block_bootstrap
from graphcast_batch.variables import HOUR

Floats = NDArray[np.float64]
DRAWN: Final = ("rmse", "acc", "bias")
"""Metrics that have curves, where their statistics were scored."""
_ENDS: Final = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)


@dataclass(frozen=True, eq=False)
class ScoreCurve:
    """A metric of one variable of one forecast, by lead time.

    Attributes:
        name: of the forecast or baseline.
        metric: name of the metric.
        variable: name of the variable.
        level: hPa; None at the surface.
        units: of the variable; empty where they are not known.
        hours: (lead,) lead times.
        values: (lead,) in the unit of the variable, if the metric has one; NaN where nothing was scored.
        low: (lead,) lower end of the confidence interval by block bootstrap; NaN where the initial times are too few.
        high: (lead,) upper end of the interval; NaN where the initial times are too few.
        cases: the most initial times that a value averages over.
    """

    name: str
    metric: str
    variable: str
    level: int | None
    units: str
    hours: NDArray[np.int64]
    values: Floats
    low: Floats
    high: Floats
    cases: int


def curves(scores: Mapping[str, tuple[Path, str]], region: str) -> list[ScoreCurve]:
    """Compute curves of the headline scores of several forecasts, at the initial times that all of them have.

    Args:
        scores: path of a store and name of scores in it, by the name of the forecast; the variables and levels of the
            first are used.
        region: name of the region.

    Returns:
        Curves that have a value; those of one metric, variable and level follow each other.

    Raises:
        EvaluationError: the forecasts were scored against different truth or climatology, or have no initial time in
            common.
        StoreError: there are no scores.
    """
    for one, other in pairwise(scores.values()):
        check_alike(one, other)
    means = {name: read_headlines(*where, region).isel(region=0) for name, where in scores.items()}
    common = reduce(np.intersect1d, (each["time"].values for each in means.values()))
    if not common.size:
        raise EvaluationError(
            f"{', '.join(scores)} must have initial times in common, but have none; evaluate the same times of all"
        )
    means = {name: each.sel(time=common) for name, each in means.items()}
    shown = shown_lines(next(iter(means.values())))
    return [
        found
        for metric in DRAWN
        for line in shown
        for name, each in means.items()
        for found in curves_of(name, METRICS[metric], line, each)
    ]


def shown_lines(means: xr.Dataset) -> list[ScoreHeadline]:
    """Return the lines of the table of headline scores, for their variables and levels."""
    results = average(means.expand_dims("region"))
    return headlines(results, lead_hours(means))


def lead_hours(means: xr.Dataset) -> list[int]:
    """Return the lead times of means, h."""
    return list((means["prediction_timedelta"].values // HOUR).astype(int).tolist())


def curves_of(name: str, metric: Metric, line: ScoreHeadline, means: xr.Dataset) -> Iterator[ScoreCurve]:
    """Compute one curve, if its variable and statistics were scored."""
    if line.variable not in means or not set(metric.statistics).issubset(means["statistic"].values.tolist()):
        return
    array = means[line.variable] if line.level is None else means[line.variable].sel(level=line.level)
    array = array.sel(statistic=list(metric.statistics)).transpose("time", "statistic", "prediction_timedelta")
    parts, value = array.values, metric.value
    if metric.averaged == "values":
        parts, value = _applied(metric.value, parts)[:, np.newaxis], lambda mean: mean
    there = np.isfinite(parts).all(axis=1)
    if there.any():
        hours = (array["prediction_timedelta"].values // HOUR).astype(np.int64)
        times = array["time"].values
        ends = _sure(parts, there, times, value)
        most = int(there.sum(axis=0).max())
        yield ScoreCurve(name, metric.name, line.variable, line.level, line.unit, hours, *ends, most)


def _sure(
    parts: Floats, there: NDArray[np.bool_], times: NDArray[np.datetime64], value: Callable[..., xr.DataArray]
) -> tuple[Floats, Floats, Floats]:
    """Compute value, lower and upper end, (lead,); lead times with the same initial times share their draws.

    Args:
        parts: (time, part, lead) statistics from whose means the value is computed.
        there: (time, lead) where they were scored.
        times: (time,) initial times, ascending.
        value: computes the value from the means.
    """
    found = np.full((3, there.shape[1]), np.nan)
    patterns, of = np.unique(there, axis=1, return_inverse=True)
    for n, pattern in enumerate(patterns.T):
        leads = np.flatnonzero(of == n)
        if pattern.any():
            some = parts[pattern][:, :, leads]
            drawn = _applied(value, block_bootstrap(some, times[pattern]))
            found[0, leads] = _applied(value, some.mean(axis=0, keepdims=True))[0]
            found[1:, leads] = np.quantile(drawn, _ENDS, axis=0)
    return found[0], found[1], found[2]


def _applied(value: Callable[..., xr.DataArray], means: Floats) -> Floats:
    """Apply a function of the means to (time or draw, part, lead); return (time or draw, lead)."""
    return np.asarray(value(*(xr.DataArray(means[:, n], dims=("each", "lead")) for n in range(means.shape[1]))).values)
