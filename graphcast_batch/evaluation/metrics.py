"""Weighted means of pointwise statistics become metrics, by the names and definitions of WeatherBench 2.

Rasp et al. 2024, https://doi.org/10.1029/2023MS004019: everything is a mean over a region, each cell weighted with its
area, of a statistic of single points; a metric is a function of such means.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SEEPS: Final = "seeps"
DRY_BELOW: Final = 0.25e-3
"""m; less counts as no precipitation (WeatherBench 2; 0.2 mm in Rodwell et al. 2010, where gauges report tenths)."""
_DRIEST: Final = (0.1, 0.85)
ENOUGH: Final = 1e-12
"""Share of the mean square of a field below which its variance is rounding: such a field counts as constant."""


@dataclass(frozen=True, eq=False)
class Rain:
    """What is usual of precipitation at points.

    Attributes:
        heavy: float32 (field, point) m, the least that is heavy; NaN where nothing is.
        dry: (point,) share of the times that are dry, 0..1.
    """

    heavy: NDArray[np.float32]
    dry: NDArray[np.float32]

    @cached_property
    def counted(self) -> NDArray[np.bool_]:
        """(point,) whether it is neither so dry nor so wet that a score would say little (Rodwell et al. 2010)."""
        return np.asarray((self.dry >= _DRIEST[0]) & (self.dry <= _DRIEST[1]))


@dataclass(frozen=True, eq=False)
class Points:
    """A forecast at points, with what came true and what is usual there; departures in float64, each computed once.

    Attributes:
        forecast: float32 (field, point), in the unit of the variable.
        truth: the same.
        usual: climatological mean, the same; None where there is no climatology.
        rain: what SEEPS needs; None for what is no precipitation.
    """

    forecast: NDArray[np.float32]
    truth: NDArray[np.float32]
    usual: NDArray[np.float32] | None = None
    rain: "Rain | None" = None

    def part(self, fields: slice, points: slice) -> "Points":
        """Some of the fields at some of the points."""
        usual = None if self.usual is None else self.usual[fields, points]
        rain = None if self.rain is None else Rain(self.rain.heavy[fields, points], self.rain.dry[points])
        return Points(self.forecast[fields, points], self.truth[fields, points], usual, rain)

    @cached_property
    def error(self) -> Floats:
        """Forecast minus truth."""
        # The difference of two near float32 is exact, and that of others as good as they are.
        return np.subtract(self.forecast, self.truth).astype(np.float64)

    @cached_property
    def forecast_anomaly(self) -> Floats:
        """Forecast minus what is usual."""
        assert self.usual is not None
        return np.subtract(self.forecast, self.usual).astype(np.float64)

    @cached_property
    def truth_anomaly(self) -> Floats:
        """Truth minus what is usual."""
        assert self.usual is not None
        return np.subtract(self.truth, self.usual).astype(np.float64)


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
    forecast, truth = (_category(values, at.rain.heavy) for values in (at.forecast, at.truth))
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


def _category(values: NDArray[np.float32], heavy: NDArray[np.float32]) -> NDArray[np.int8]:
    """0 dry, 1 light, 2 heavy."""
    wet = values >= DRY_BELOW
    return np.asarray(wet.astype(np.int8) + (wet & (values >= heavy)))


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
        # Standard deviation of the anomalies in space.
        Metric("forecast_activity", ("squared_forecast_anomaly", "forecast_anomaly"), _deviation),
        Metric("truth_activity", ("squared_truth_anomaly", "truth_anomaly"), _deviation),
    )
}
VECTORS: Final[Mapping[str, tuple[str, str]]] = {
    "wind_vector": ("u_component_of_wind", "v_component_of_wind"),
    "10m_wind_vector": ("10m_u_component_of_wind", "10m_v_component_of_wind"),
}
"""Whose squared error is the sum of those of two components (Rasp et al. 2024, wind vector RMSE)."""


def with_vectors(means: xr.Dataset) -> xr.Dataset:
    """The same with the winds as vectors, as far as both components are there; they have squared errors alone.

    Args:
        means: variables over (statistic, ...).
    """
    added = {}
    for name, (u, v) in VECTORS.items():
        if u in means and v in means:
            added[name] = (means[u] + means[v]).where(means["statistic"] == "squared_error")
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
