"""Weighted means of pointwise statistics become metrics, by the names and definitions of WeatherBench 2.

Rasp et al. 2024, https://doi.org/10.1029/2023MS004019: everything is a mean over a region, each cell weighted with its
area, of a statistic of single points; a metric is a function of such means.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]
SEEPS: Final = "seeps"
CRPS: Final = "crps"
VARIANCE: Final = "variance"
BRIER: Final = "brier"
_RANK: Final = "rank_"
_AT: Final = "@"
"""Between a name and the quantile that it is of."""
DRY_BELOW: Final[Mapping[str, float]] = {"total_precipitation_6hr": 0.1e-3, "total_precipitation_24hr": 0.25e-3}
"""m; less counts as no precipitation, in evaluations and published climatologies of WeatherBench 2 (0.2 mm a day in
Rodwell et al. 2010, where gauges report tenths). Of other precipitation there is no SEEPS."""
_DRIEST: Final = (0.1, 0.85)
ENOUGH: Final = 1e-12
"""Share of the mean square of a field below which its variance is rounding: such a field counts as constant."""


@dataclass(frozen=True, eq=False)
class Rain:
    """What is usual of precipitation at points.

    Attributes:
        heavy: float32 (field, point) m, the least that is heavy; NaN where nothing is.
        dry: (point,) share of the times that are dry, 0..1.
        dry_below: m, less is dry; see `DRY_BELOW`.
    """

    heavy: NDArray[np.float32]
    dry: NDArray[np.float32]
    dry_below: float

    def part(self, fields: slice, points: slice) -> "Rain":
        """Some of the fields at some of the points."""
        return Rain(self.heavy[fields, points], self.dry[points], self.dry_below)

    @cached_property
    def counted(self) -> NDArray[np.bool_]:
        """(point,) whether it is neither so dry nor so wet that a score would say little (Rodwell et al. 2010)."""
        return np.asarray((self.dry >= _DRIEST[0]) & (self.dry <= _DRIEST[1]))


@dataclass(frozen=True, eq=False)
class Points:
    """A forecast at points, with what came true and what is usual there; departures in float64, each computed once.

    Attributes:
        forecast: float32 (field, point), in the unit of the variable; of an ensemble (member, field, point).
        truth: float32 (field, point), likewise.
        usual: climatological mean, the same; None where there is no climatology.
        rain: what SEEPS needs; None for what is no precipitation.
        deviation: climatological standard deviation, as the truth; None where nothing counts as extreme.
    """

    forecast: NDArray[np.float32]
    truth: NDArray[np.float32]
    usual: NDArray[np.float32] | None = None
    rain: "Rain | None" = None
    deviation: NDArray[np.float32] | None = None

    @property
    def members(self) -> int:
        """Of an ensemble; else 1."""
        return len(self.forecast) if self.forecast.ndim > self.truth.ndim else 1

    def part(self, fields: slice, points: slice) -> "Points":
        """Some of the fields at some of the points."""
        usual = None if self.usual is None else self.usual[fields, points]
        rain = None if self.rain is None else self.rain.part(fields, points)
        deviation = None if self.deviation is None else self.deviation[fields, points]
        return Points(self.forecast[..., fields, points], self.truth[fields, points], usual, rain, deviation)

    @cached_property
    def errors(self) -> Floats:
        """Forecast minus truth; of an ensemble that of each member."""
        # The difference of two near float32 is exact, and that of others as good as they are.
        return np.subtract(self.forecast, self.truth).astype(np.float64)

    @cached_property
    def error(self) -> Floats:
        """The same; of an ensemble that of its mean."""
        return self._mean(self.errors)

    @cached_property
    def forecast_anomalies(self) -> Floats:
        """Forecast minus what is usual; of an ensemble that of each member."""
        assert self.usual is not None
        return np.subtract(self.forecast, self.usual).astype(np.float64)

    @cached_property
    def forecast_anomaly(self) -> Floats:
        """The same; of an ensemble that of its mean."""
        return self._mean(self.forecast_anomalies)

    @cached_property
    def truth_anomaly(self) -> Floats:
        """Truth minus what is usual."""
        assert self.usual is not None
        return np.subtract(self.truth, self.usual).astype(np.float64)

    @cached_property
    def ranks(self) -> tuple[NDArray[np.int16], NDArray[np.int16], Floats]:
        """(field, point) lowest and highest rank of the truth among the members, from 0, and the share that each has.

        Lowest and highest differ where members tie with the truth.
        """
        lowest, tied = (each.sum(axis=0, dtype=np.int16) for each in (self.errors < 0, self.errors == 0))
        return lowest, lowest + tied, 1.0 / (1.0 + tied)

    def beyond(self, quantile: float) -> tuple[Floats, Floats]:
        """(field, point) each, 1 where forecast and where truth are beyond a quantile of what is usual, else 0.

        That is above it, or below one that is less than a half. Of an ensemble it is the share of its members. What is
        usual counts as Gaussian: WeatherBench 2's thresholds of that name (Rasp et al. 2024).
        """
        if quantile not in self._beyond:
            assert self.deviation is not None
            compare, threshold = np.greater if quantile >= 0.5 else np.less, ndtri(quantile) * self.deviation
            # Nothing is beyond what is not a number, which must not pass for a score.
            forecast, truth = (
                self._mean(compare(anomalies, threshold) + 0.0 * threshold)
                for anomalies in (self.forecast_anomalies, self.truth_anomaly)
            )
            self._beyond[quantile] = forecast, truth
        return self._beyond[quantile]

    @cached_property
    def _beyond(self) -> dict[float, tuple[Floats, Floats]]:
        return {}

    def _mean(self, values: Floats) -> Floats:
        return values if values.ndim == self.truth.ndim else values.mean(axis=0)


PLAIN: Final[Mapping[str, Callable[[Points], Floats]]] = {
    "error": lambda at: at.error,
    "squared_error": lambda at: at.error * at.error,
    "absolute_error": lambda at: np.abs(at.error),
}
"""Statistics of forecast and truth alone."""
OF_ANOMALIES: Final[Mapping[str, Callable[[Points], Floats]]] = {
    "anomaly_product": lambda at: at.forecast_anomaly * at.truth_anomaly,
    "forecast_anomaly": lambda at: at.forecast_anomaly,
    "squared_forecast_anomaly": lambda at: at.forecast_anomaly * at.forecast_anomaly,
    "truth_anomaly": lambda at: at.truth_anomaly,
    "squared_truth_anomaly": lambda at: at.truth_anomaly * at.truth_anomaly,
}
"""Statistics that need a climatology."""
STATISTICS: Final = {**PLAIN, **OF_ANOMALIES}
AT_QUANTILES: Final[Mapping[str, Callable[[Points, float], Floats]]] = {
    "forecast_beyond": lambda at, quantile: at.beyond(quantile)[0],
    "truth_beyond": lambda at, quantile: at.beyond(quantile)[1],
    "both_beyond": lambda at, quantile: np.multiply(*at.beyond(quantile)),
    "squared_error_beyond": lambda at, quantile: at.error * at.error * at.beyond(quantile)[1],
    BRIER: lambda at, quantile: np.subtract(*at.beyond(quantile)) ** 2,
}
"""Statistics that need a quantile of what is usual."""


def at_quantiles(quantiles: Sequence[float]) -> tuple[str, ...]:
    """Names of those of a single forecast, such as ``truth_beyond@0.99``; its Brier score follows from the others."""
    return tuple(f"{kind}{_AT}{quantile}" for quantile in quantiles for kind in AT_QUANTILES if kind != BRIER)


def of_ensemble(members: int, quantiles: Sequence[float]) -> tuple[str, ...]:
    """Names of the statistics that only an ensemble has."""
    briers = (f"{BRIER}{_AT}{quantile}" for quantile in quantiles)
    return (CRPS, VARIANCE, *(f"{_RANK}{rank}" for rank in range(members + 1)), *briers)


def crps(at: Points) -> Floats:
    """Continuous ranked probability score of an ensemble, fair to its size, in the unit of the variable.

    Mean distance of the members from the truth, less half of the mean distance of two members from each other (Ferro
    2014, https://doi.org/10.1002/qj.2270). The latter is a sum over members by rank: the one at place i of M, from 0,
    is above i others and below M - 1 - i.
    """
    members = at.members
    above = (2.0 * np.arange(members) - (members - 1)) / (members * (members - 1))
    # Side by side in memory, and in float32, which they are in any case, many are sorted several times as fast.
    ordered = np.sort(np.moveaxis(at.errors, 0, -1).astype(np.float32, order="C"), axis=-1)
    return np.asarray(np.abs(at.errors).mean(axis=0) - ordered @ above)


def _share_of_rank(at: Points, rank: int) -> Floats:
    """1 where the truth has a rank among the members; where it ties with some its share of the ranks it may have."""
    lowest, highest, share = at.ranks
    return np.where((lowest <= rank) & (rank <= highest), share, 0.0)


def seeps(at: Points) -> Floats:
    """Stable equitable error in probability space: 0 for the right one of dry, light and heavy, 1 for a usual error.

    Rodwell et al. 2010, https://doi.org/10.1002/qj.656; the share of dry times is that over the whole year, as
    WeatherBench 2 has it, and what is heavy that of the day and hour.

    Args:
        at: with rain.

    Returns:
        (field, point) 0 or more; 0 at points that do not count.
    """
    assert at.rain is not None
    forecast, truth = (_category(values, at.rain) for values in (at.forecast, at.truth))
    errors = seeps_errors(np.where(at.rain.counted, at.rain.dry, 0.5).astype(np.float64))
    return np.asarray(errors[forecast, truth, np.arange(at.rain.dry.size)] * at.rain.counted)


def seeps_errors(dry: Floats) -> Floats:
    """(forecast, truth, point) the error for each pair of categories, given (point,) shares of dry times."""
    none = np.zeros_like(dry)
    return 0.5 * np.array(
        [
            [none, 1 / (1 - dry), 4 / (1 - dry)],
            [1 / dry, none, 3 / (1 - dry)],
            [1 / dry + 3 / (2 + dry), 3 / (2 + dry), none],
        ]
    )


def _category(values: NDArray[np.float32], rain: Rain) -> NDArray[np.int8]:
    """0 dry, 1 light, 2 heavy."""
    wet = values >= rain.dry_below
    return np.asarray(wet.astype(np.int8) + (wet & (values >= rain.heavy)))


_OTHERS: Final[Mapping[str, Callable[[Points], Floats]]] = {
    SEEPS: seeps,
    CRPS: crps,
    VARIANCE: lambda at: at.errors.var(axis=0, ddof=1),
}


def statistic(name: str) -> Callable[[Points], Floats]:
    """What gives the statistic of a name at points, (field, point)."""
    kind, _, quantile = name.partition(_AT)
    if quantile:
        return lambda at: AT_QUANTILES[kind](at, float(quantile))
    if kind.startswith(_RANK):
        return lambda at: _share_of_rank(at, int(kind.removeprefix(_RANK)))
    return {**STATISTICS, **_OTHERS}[kind]


def applies(name: str, at: Points) -> bool:
    """Whether the variable has the statistic of a name."""
    if _AT in name:
        return at.deviation is not None
    return name != SEEPS or at.rain is not None


@dataclass(frozen=True)
class Metric:
    """A function of weighted means.

    Attributes:
        name: as WeatherBench 2 has it, if it does.
        statistics: whose means it takes.
        value: from those means, in that order.
        averaged: over initial times, ``means``: of all of them first, then one value; ``values``: of each by itself.
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
    """NaN where an anomaly is 0 everywhere."""
    norm = forecast * truth
    return product / norm.where(norm > 0) ** 0.5


def _deviation(square: xr.DataArray, mean: xr.DataArray) -> xr.DataArray:
    variance = square - mean**2
    return variance.where(variance > ENOUGH * square, 0.0 * square) ** 0.5


def _ratio(some: xr.DataArray, of: xr.DataArray) -> xr.DataArray:
    """NaN where there is nothing that it could be a share of."""
    return some / of.where(of > 0)


def _sedi(forecast: xr.DataArray, truth: xr.DataArray, both: xr.DataArray) -> xr.DataArray:
    """Symmetric extremal dependence index; 1 is perfect, 0 chance.

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
        # One correlation for each initial time, of which the mean is taken: so too there.
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
"""Whose squared error is the sum of those of two components (Rasp et al. 2024, wind vector RMSE)."""
_OF_VECTORS: Final = ("squared_error", VARIANCE)


def metrics_of(statistics: Collection[str]) -> list[Metric]:
    """All metrics that follow from means of some statistics, by name."""
    quantiles = dict.fromkeys(name.partition(_AT)[2] for name in statistics if _AT in name)
    ranks = [name for name in statistics if name.startswith(_RANK)]
    known = [*METRICS.values(), *(metric for quantile in quantiles for metric in _of_extremes(quantile))]
    known += _of_ensemble(ranks)
    return [metric for metric in known if set(metric.statistics).issubset(statistics)]


def _of_extremes(quantile: str) -> list[Metric]:
    forecast, truth, both, square, brier = (f"{kind}{_AT}{quantile}" for kind in AT_QUANTILES)
    return [
        Metric(brier, (forecast, truth, both), lambda forecast, truth, both: forecast + truth - 2 * both),
        Metric(brier, (brier,), _same),
        Metric(f"frequency_bias{_AT}{quantile}", (forecast, truth), _ratio),
        Metric(f"sedi{_AT}{quantile}", (forecast, truth, both), _sedi),
        # Where what came true is beyond the quantile.
        Metric(f"rmse{_AT}{quantile}", (square, truth), lambda square, truth: _root(_ratio(square, truth))),
    ]


def _of_ensemble(ranks: Sequence[str]) -> list[Metric]:
    """Those of its mean have the names that those of a single forecast have."""
    members = max(1, len(ranks) - 1)
    # The spread of a reliable ensemble is as large as the error of its mean only if this factor is heeded (Fortin et
    # al. 2014, https://doi.org/10.1175/JHM-D-14-0008.1).
    inflation = (members + 1) / members
    return [
        Metric(CRPS, (CRPS,), _same),
        Metric("spread", (VARIANCE,), _root),
        Metric(
            "spread_skill_ratio",
            (VARIANCE, "squared_error"),
            lambda variance, square: _root(inflation * _ratio(variance, square)),
        ),
        *(Metric(rank, (rank,), _same) for rank in ranks),
    ]


def with_vectors(means: xr.Dataset) -> xr.Dataset:
    """The same with the winds as vectors, as far as both components are there; they have squares alone.

    Args:
        means: variables over (statistic, ...).
    """
    added = {}
    for name, (u, v) in VECTORS.items():
        if u in means and v in means:
            added[name] = (means[u] + means[v]).where(means["statistic"].isin(_OF_VECTORS))
    return means.assign(added)


def metric_of(means: xr.Dataset, metric: Metric) -> xr.Dataset:
    """One metric of every variable.

    Args:
        means: variables over (statistic, ...) that hold the metric's statistics.
        metric: which.

    Returns:
        variables over the other dimensions; NaN where a mean is, or the metric is undefined.
    """
    return xr.Dataset(
        {
            name: metric.value(*(array.sel(statistic=one, drop=True) for one in metric.statistics))
            for name, array in means.data_vars.items()
        }
    )
