"""Define metrics as functions of weighted means of pointwise statistics, with WeatherBench 2's names and definitions.

Rasp et al. 2024, https://doi.org/10.1029/2023MS004019: everything is a mean over a region, each cell weighted with its
area, of a statistic of single points; a metric is a function of such means.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import xarray as xr

from graphcast_batch.evaluation.energy_score import ENERGY
from graphcast_batch.evaluation.pointwise_statistics import (
    AT_EVENTS,
    CRPS,
    CRPS_CLIMATOLOGY,
    CRPS_GAUSSIAN,
    EVENT_MARK,
    RANK_PREFIX,
    SEEPS,
    VARIANCE,
)
from graphcast_batch.evaluation.reliability import counts_of, decomposed

CRPSS: Final = "crpss"
"""Skill of the CRPS over that of the climatology: 1 is perfect, 0 as good as the climatology."""
ENOUGH: Final = 1e-12
"""Share of the mean square of a field below which its variance is rounding: such a field counts as constant."""


@dataclass(frozen=True)
class Metric:
    """A score as a function of weighted means of statistics.

    Attributes:
        name: WeatherBench 2's, where it has the metric.
        statistics: names of the statistics whose means the metric needs.
        value: computes the metric from those means, given in that order.
        averaged: how initial times are averaged. ``means``: the means over all initial times give one value;
            ``values``: each initial time gives a value, and the values are averaged.
    """

    name: str
    statistics: tuple[str, ...]
    value: Callable[..., xr.DataArray]
    averaged: Literal["means", "values"] = "means"


def _same(mean: xr.DataArray) -> xr.DataArray:
    return mean


def _root(mean: xr.DataArray) -> xr.DataArray:
    return mean**0.5


def _correlation(product: xr.DataArray, forecast: xr.DataArray, truth: xr.DataArray) -> xr.DataArray:
    """Compute a correlation of anomalies; NaN where an anomaly is 0 everywhere."""
    norm = forecast * truth
    return product / norm.where(norm > 0) ** 0.5


def _deviation(square: xr.DataArray, mean: xr.DataArray) -> xr.DataArray:
    variance = square - mean**2
    return variance.where(variance > ENOUGH * square, 0.0 * square) ** 0.5


def _ratio(some: xr.DataArray, of: xr.DataArray) -> xr.DataArray:
    """Divide one mean by another; NaN where the divisor is not above 0."""
    return some / of.where(of > 0)


def _sedi(forecast: xr.DataArray, truth: xr.DataArray, both: xr.DataArray) -> xr.DataArray:
    """Compute the symmetric extremal dependence index; 1 is perfect, 0 is chance.

    Ferro and Stephenson 2011, https://doi.org/10.1175/WAF-D-10-05030.1; NaN where one of the four cells of the
    contingency table is empty.
    """
    false, missed, neither = forecast - both, truth - both, 1 - forecast - truth + both
    filled = (both > ENOUGH) & (false > ENOUGH) & (missed > ENOUGH) & (neither > ENOUGH)
    hits, alarms = (both / truth).where(filled), (false / (1 - truth)).where(filled)
    wrong, right = np.log(alarms) + np.log(1 - hits), np.log(hits) + np.log(1 - alarms)
    found: xr.DataArray = (wrong - right) / (wrong + right)
    return found


METRICS: Final = {
    metric.name: metric
    for metric in (
        # The root is taken after the mean over initial times, as in Rasp et al. 2024.
        Metric("rmse", ("squared_error",), _root),
        Metric("mse", ("squared_error",), _same),
        Metric("mae", ("absolute_error",), _same),
        Metric("bias", ("error",), _same),
        # One correlation for each initial time, whose mean is taken, as in Rasp et al. 2024.
        Metric("acc", ("anomaly_product", "squared_forecast_anomaly", "squared_truth_anomaly"), _correlation, "values"),
        Metric(SEEPS, (SEEPS,), _same),
        # Standard deviation of the anomalies, over space and initial times together.
        Metric("forecast_activity", ("squared_forecast_anomaly", "forecast_anomaly"), _deviation),
        Metric("truth_activity", ("squared_truth_anomaly", "truth_anomaly"), _deviation),
    )
}
VECTORS: Final[Mapping[str, tuple[str, str]]] = {
    "wind_vector": ("u_component_of_wind", "v_component_of_wind"),
    "10m_wind_vector": ("10m_u_component_of_wind", "10m_v_component_of_wind"),
}
"""Wind vectors and their components; the squared error of a vector is the sum of its components' (wind vector RMSE of
Rasp et al. 2024)."""
_OF_VECTORS: Final = ("squared_error", VARIANCE)


def metrics_of(statistics: Collection[str]) -> list[Metric]:
    """Return all metrics that can be computed from the means of some statistics, given by name."""
    events = dict.fromkeys(name.partition(EVENT_MARK)[2] for name in statistics if EVENT_MARK in name)
    ranks = [name for name in statistics if name.startswith(RANK_PREFIX)]
    known = [*METRICS.values(), *(metric for event in events for metric in _of_event(event))]
    known += [*_of_ensemble(ranks), Metric(CRPS_GAUSSIAN, (CRPS_GAUSSIAN,), _same)]
    known += [*(metric for event in events for metric in _of_reliability(event, statistics))]
    return [metric for metric in known if set(metric.statistics).issubset(statistics)]


def _of_event(event: str) -> list[Metric]:
    forecast, truth, both, square, brier = (f"{kind}{EVENT_MARK}{event}" for kind in AT_EVENTS)
    return [
        Metric(brier, (forecast, truth, both), lambda forecast, truth, both: forecast + truth - 2 * both),
        Metric(brier, (brier,), _same),
        Metric(f"frequency_bias{EVENT_MARK}{event}", (forecast, truth), _ratio),
        Metric(f"sedi{EVENT_MARK}{event}", (forecast, truth, both), _sedi),
        # Over the points where the event is in the truth.
        Metric(f"rmse{EVENT_MARK}{event}", (square, truth), lambda square, truth: _root(_ratio(square, truth))),
    ]


def _of_ensemble(ranks: Sequence[str]) -> list[Metric]:
    """Return the metrics that only an ensemble has; metrics of its mean have the names of a single forecast's."""
    members = max(1, len(ranks) - 1)
    # The spread of a reliable ensemble equals the error of its mean only with this factor (Fortin et al. 2014,
    # https://doi.org/10.1175/JHM-D-14-0008.1).
    inflation = (members + 1) / members
    return [
        Metric(CRPS, (CRPS,), _same),
        Metric(CRPS_CLIMATOLOGY, (CRPS_CLIMATOLOGY,), _same),
        Metric(CRPSS, (CRPS, CRPS_CLIMATOLOGY), lambda crps, climatology: 1 - _ratio(crps, climatology)),
        Metric(ENERGY, (ENERGY,), _same),
        Metric("spread", (VARIANCE,), _root),
        Metric(
            "spread_skill_ratio",
            (VARIANCE, "squared_error"),
            lambda variance, square: _root(inflation * _ratio(variance, square)),
        ),
        *(Metric(rank, (rank,), _same) for rank in ranks),
    ]


def _of_reliability(event: str, statistics: Collection[str]) -> list[Metric]:
    """Return the metrics of the probabilities k / M of an event that an ensemble of M members gives."""
    issued, observed = counts_of(event, list(statistics))
    parts = ("reliability", "resolution", "uncertainty") if issued else ()
    pairs = list(enumerate(zip(issued, observed, strict=True)))
    return [
        *(Metric(f"forecast_frequency_{count}{EVENT_MARK}{event}", (each,), _same) for count, (each, _) in pairs),
        *(
            Metric(f"observed_frequency_{count}{EVENT_MARK}{event}", (both, each), _ratio)
            for count, (each, both) in pairs
        ),
        *(Metric(f"{part}{EVENT_MARK}{event}", (*issued, *observed), _part_of_brier(part)) for part in parts),
    ]


def _part_of_brier(part: str) -> Callable[..., xr.DataArray]:
    def value(*means: xr.DataArray) -> xr.DataArray:
        middle = len(means) // 2
        return decomposed(means[:middle], means[middle:])[part]

    return value


def with_vectors(means: xr.Dataset) -> xr.Dataset:
    """Add wind vectors to means of statistics where both components are present; vectors have squares alone.

    Args:
        means: variables over (statistic, ...).
    """
    added = {}
    for name, (u, v) in VECTORS.items():
        if u in means and v in means:
            added[name] = (means[u] + means[v]).where(means["statistic"].isin(_OF_VECTORS))
    return means.assign(added)


def metric_of(means: xr.Dataset, metric: Metric) -> xr.Dataset:
    """Compute one metric of every variable.

    Args:
        means: variables over (statistic, ...) that hold the metric's statistics.
        metric: to compute.

    Returns:
        variables over the other dimensions; NaN where a mean is NaN, or the metric is undefined.
    """
    return xr.Dataset(
        {
            name: metric.value(*(array.sel(statistic=one, drop=True) for one in metric.statistics))
            for name, array in means.data_vars.items()
        }
    )
