"""Compute statistics of forecast, truth and climatology at single points, from whose means metrics follow.

Names and definitions are those of WeatherBench 2 (Rasp et al. 2024, https://doi.org/10.1029/2023MS004019): every score
is a function of means over a region, each cell weighted with its area, of such statistics.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from graphcast_batch.evaluation.member_order import in_order

Floats = NDArray[np.float64]
SEEPS: Final = "seeps"
CRPS: Final = "crps"
CRPS_CLIMATOLOGY: Final = "crps_climatology"
CRPS_GAUSSIAN: Final = "crps_gaussian"
VARIANCE: Final = "variance"
BRIER: Final = "brier"
RANK_PREFIX: Final = "rank_"
EVENT_MARK: Final = "@"
"""Between the name of a statistic and its event: a quantile of the climatology, as in ``truth_beyond@0.99``, or a
threshold, as in ``truth_beyond@>0.001``."""
_ABOVE: Final = ">"
"""Before the threshold of an event."""
DRY_BELOW: Final[Mapping[str, float]] = {"total_precipitation_6hr": 0.1e-3, "total_precipitation_24hr": 0.25e-3}
"""m; less counts as no precipitation, in evaluations and published climatologies of WeatherBench 2 (0.2 mm a day in
Rodwell et al. 2010, where gauges report tenths). SEEPS is computed for these variables only."""
_DRIEST: Final = (0.1, 0.85)


@dataclass(frozen=True, eq=False)
class PrecipitationClimatology:
    """The climatology of precipitation at points, which SEEPS needs.

    Attributes:
        heavy_threshold: float32 (field, point) m, the least precipitation that counts as heavy; NaN where none does.
        dry_fraction: (point,) share of the times that are dry, 0..1.
        dry_below: m; less counts as dry, see `DRY_BELOW`.
    """

    heavy_threshold: NDArray[np.float32]
    dry_fraction: NDArray[np.float32]
    dry_below: float

    def part(self, fields: slice, points: slice) -> "PrecipitationClimatology":
        """Return some of the fields at some of the points."""
        return PrecipitationClimatology(self.heavy_threshold[fields, points], self.dry_fraction[points], self.dry_below)

    @cached_property
    def counted(self) -> NDArray[np.bool_]:
        """Whether each point is scored, (point,): where it is too dry or too wet, SEEPS says little (Rodwell 2010)."""
        return np.asarray((self.dry_fraction >= _DRIEST[0]) & (self.dry_fraction <= _DRIEST[1]))


@dataclass(frozen=True, eq=False)
class Points:
    """Forecast, truth and climatology at points. Differences are each computed once, their sums in float64.

    Attributes:
        forecast: float32 (field, point), in the unit of the variable; of an ensemble (member, field, point).
        truth: float32 (field, point), in the unit of the variable.
        climatology: climatological mean, float32 (field, point); None without a climatology.
        precipitation: climatology that SEEPS needs; None for other variables than precipitation.
        deviation: climatological standard deviation, float32 (field, point); None where no extremes are scored.
        thresholds: in the unit of the variable, above which values are scored as events.
    """

    forecast: NDArray[np.float32]
    truth: NDArray[np.float32]
    climatology: NDArray[np.float32] | None = None
    precipitation: "PrecipitationClimatology | None" = None
    deviation: NDArray[np.float32] | None = None
    thresholds: tuple[float, ...] = ()

    @property
    def members(self) -> int:
        """Number of members of an ensemble; 1 for a single forecast."""
        return len(self.forecast) if self.forecast.ndim > self.truth.ndim else 1

    def part(self, fields: slice, points: slice) -> "Points":
        """Return some of the fields at some of the points."""
        climatology = None if self.climatology is None else self.climatology[fields, points]
        precipitation = None if self.precipitation is None else self.precipitation.part(fields, points)
        deviation = None if self.deviation is None else self.deviation[fields, points]
        forecast, truth = self.forecast[..., fields, points], self.truth[fields, points]
        return Points(forecast, truth, climatology, precipitation, deviation, self.thresholds)

    @cached_property
    def errors(self) -> NDArray[np.float32]:
        """Forecast minus truth, of each member of an ensemble."""
        # The difference of two close float32 is exact; that of others is as precise as the values themselves.
        return np.subtract(self.forecast, self.truth)

    @cached_property
    def error(self) -> Floats:
        """Forecast minus truth, of the mean of an ensemble, (field, point)."""
        return self._mean(self.errors)

    @cached_property
    def forecast_anomalies(self) -> Floats:
        """Forecast minus climatology, of each member of an ensemble."""
        assert self.climatology is not None
        return np.subtract(self.forecast, self.climatology).astype(np.float64)

    @cached_property
    def forecast_anomaly(self) -> Floats:
        """Forecast minus climatology, of the mean of an ensemble, (field, point)."""
        return self._mean(self.forecast_anomalies)

    @cached_property
    def truth_anomaly(self) -> Floats:
        """Truth minus climatology, (field, point)."""
        assert self.climatology is not None
        return np.subtract(self.truth, self.climatology).astype(np.float64)

    def beyond(self, event: str) -> tuple[Floats, Floats]:
        """Mark where an event is in the forecast and in the truth: 1 there, else 0, (field, point) each.

        The event ``>0.001`` is a value above 0.001. The event ``0.99`` is a value beyond a quantile of the climatology:
        above it, or below a quantile that is less than one half. Of an ensemble it is the share of its members. The
        climatology counts as Gaussian: WeatherBench 2's thresholds of that name (Rasp et al. 2024).
        """
        if event not in self._beyond:
            threshold = threshold_of(event)
            self._beyond[event] = self._beyond_quantile(float(event)) if threshold is None else self._above(threshold)
        return self._beyond[event]

    def _above(self, threshold: float) -> tuple[Floats, Floats]:
        # No comparison with NaN is true; adding the value keeps its NaN, so that it cannot pass for a score.
        forecast, truth = (self._mean((each > threshold) + 0.0 * each) for each in (self.forecast, self.truth))
        return forecast.astype(np.float64), truth.astype(np.float64)

    def _beyond_quantile(self, quantile: float) -> tuple[Floats, Floats]:
        assert self.deviation is not None
        compare, threshold = np.greater if quantile >= 0.5 else np.less, ndtri(quantile) * self.deviation
        # No comparison with NaN is true; adding the threshold keeps its NaN, so that it cannot pass for a score.
        forecast, truth = (
            self._mean(compare(anomalies, threshold) + 0.0 * threshold)
            for anomalies in (self.forecast_anomalies, self.truth_anomaly)
        )
        return forecast, truth

    @cached_property
    def _beyond(self) -> dict[str, tuple[Floats, Floats]]:
        return {}

    def _mean(self, values: NDArray[np.floating]) -> Floats:
        if values.ndim == self.truth.ndim:
            return values.astype(np.float64)
        return np.asarray(values.mean(axis=0, dtype=np.float64))


PLAIN: Final[Mapping[str, Callable[[Points], Floats]]] = {
    "error": lambda at: at.error,
    "squared_error": lambda at: at.error * at.error,
    "absolute_error": lambda at: np.abs(at.error),
}
"""Statistics that need forecast and truth alone."""
OF_ANOMALIES: Final[Mapping[str, Callable[[Points], Floats]]] = {
    "anomaly_product": lambda at: at.forecast_anomaly * at.truth_anomaly,
    "forecast_anomaly": lambda at: at.forecast_anomaly,
    "squared_forecast_anomaly": lambda at: at.forecast_anomaly * at.forecast_anomaly,
    "truth_anomaly": lambda at: at.truth_anomaly,
    "squared_truth_anomaly": lambda at: at.truth_anomaly * at.truth_anomaly,
}
"""Statistics that need a climatology."""
STATISTICS: Final = {**PLAIN, **OF_ANOMALIES}
AT_EVENTS: Final[Mapping[str, Callable[[Points, str], Floats]]] = {
    "forecast_beyond": lambda at, event: at.beyond(event)[0],
    "truth_beyond": lambda at, event: at.beyond(event)[1],
    "both_beyond": lambda at, event: np.multiply(*at.beyond(event)),
    "squared_error_beyond": lambda at, event: at.error * at.error * at.beyond(event)[1],
    BRIER: lambda at, event: np.subtract(*at.beyond(event)) ** 2,
}
"""Statistics that need an event: a quantile of the climatology, or a threshold."""


def events_of(quantiles: Sequence[float], thresholds: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    """Return the names of the events beyond quantiles, such as ``0.99``, and then above thresholds, as ``>0.001``.

    Args:
        quantiles: of the climatology.
        thresholds: by variable, in its unit.
    """
    above = sorted({value for values in thresholds.values() for value in values})
    return (*map(str, quantiles), *map(_event_above, above))


def threshold_of(event: str) -> float | None:
    """Return the threshold of an event, in the unit of the variable; None if the event is beyond a quantile."""
    return float(event.removeprefix(_ABOVE)) if event.startswith(_ABOVE) else None


def _event_above(threshold: float) -> str:
    return f"{_ABOVE}{int(threshold) if threshold.is_integer() else threshold}"


def at_events(events: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a single forecast's statistics of events, such as ``truth_beyond@0.99``.

    The Brier score is not among them, since that of a single forecast follows from the others.
    """
    return tuple(f"{kind}{EVENT_MARK}{event}" for event in events for kind in AT_EVENTS if kind != BRIER)


def of_ensemble(members: int, events: Sequence[str], *, deviations: bool) -> tuple[str, ...]:
    """Return the names of the statistics that only an ensemble has.

    Args:
        members: number of members.
        events: that are scored, from `events_of`.
        deviations: whether the climatology has standard deviations, so that it is an ensemble itself.
    """
    briers = (f"{BRIER}{EVENT_MARK}{event}" for event in events)
    ranks = (f"{RANK_PREFIX}{rank}" for rank in range(members + 1))
    return (CRPS, *((CRPS_CLIMATOLOGY,) if deviations else ()), VARIANCE, *ranks, *briers)


def crps(at: Points) -> Floats:
    """Compute the continuous ranked probability score of an ensemble, fair to its size, in the unit of the variable.

    The score is the mean distance of the members from the truth, less half of the mean distance of two members from
    each other (Ferro 2014, https://doi.org/10.1002/qj.2270). The latter is a sum over members by rank: the member at
    rank i of M, from 0, is above i others and below M - 1 - i.
    """
    members = at.members
    above = (2.0 * np.arange(members) - (members - 1)) / (members * (members - 1))
    score: Floats = np.abs(at.errors).mean(axis=0, dtype=np.float64)
    for share, values in zip(above, in_order(at.errors), strict=True):
        score -= share * values.astype(np.float64)
    return score


def variance(at: Points) -> Floats:
    """Compute the variance of the members of an ensemble, unbiased, in the square of the variable's unit."""
    deviations = at.errors - at.error
    return np.asarray(np.einsum("m...,m...->...", deviations, deviations) / (at.members - 1))


def crps_climatology(at: Points) -> Floats:
    """Compute the continuous ranked probability score of the climatology, in the unit of the variable.

    The climatology counts as Gaussian; without any deviation it is the distance of the truth from the mean.
    """
    assert at.deviation is not None
    return _gaussian_crps(at.truth_anomaly, at.deviation.astype(np.float64))


def crps_gaussian(at: Points) -> Floats:
    """Compute the continuous ranked probability score of a Gaussian about a single forecast, in the variable's unit.

    Its standard deviation is that of the climatology: a forecast that claims to know no more than its mean.
    """
    assert at.deviation is not None
    return _gaussian_crps(at.error, at.deviation.astype(np.float64))


def _gaussian_crps(distance: Floats, deviation: Floats) -> Floats:
    """Compute the continuous ranked probability score of Gaussian distributions in closed form.

    Gneiting et al. 2005, https://doi.org/10.1175/MWR2904.1, eq. 5.

    Args:
        distance: (field, point) of the truth from the mean.
        deviation: (field, point) standard deviation; where it is 0, the score is the distance without its sign.
    """
    ratio = np.divide(distance, deviation, out=np.zeros_like(distance), where=deviation != 0)
    density = np.exp(-0.5 * ratio**2) / np.sqrt(2 * np.pi)
    found = deviation * (ratio * (2 * ndtr(ratio) - 1) + 2 * density - 1 / np.sqrt(np.pi))
    return np.asarray(np.where(deviation == 0, np.abs(distance), found))


def seeps(at: Points) -> Floats:
    """Compute the stable equitable error in probability space (SEEPS) of precipitation.

    The error is 0 where the forecast has the right category of dry, light and heavy, and 1 on average for a forecast
    without skill (Rodwell et al. 2010, https://doi.org/10.1002/qj.656). The share of dry times is that over the whole
    year, as in WeatherBench 2; the threshold of heavy precipitation is that of the day and hour.

    Args:
        at: values of a precipitation, with its climatology.

    Returns:
        (field, point) 0 or more; 0 at points that are not scored.
    """
    assert at.precipitation is not None
    forecast, truth = (_category(values, at.precipitation) for values in (at.forecast, at.truth))
    errors = seeps_errors(np.where(at.precipitation.counted, at.precipitation.dry_fraction, 0.5).astype(np.float64))
    return np.asarray(errors[forecast, truth, np.arange(at.precipitation.dry_fraction.size)] * at.precipitation.counted)


def seeps_errors(dry_fraction: Floats) -> Floats:
    """Compute the SEEPS error for each pair of categories, (forecast, truth, point), from (point,) dry shares."""
    none = np.zeros_like(dry_fraction)
    return 0.5 * np.array(
        [
            [none, 1 / (1 - dry_fraction), 4 / (1 - dry_fraction)],
            [1 / dry_fraction, none, 3 / (1 - dry_fraction)],
            [1 / dry_fraction + 3 / (2 + dry_fraction), 3 / (2 + dry_fraction), none],
        ]
    )


def _category(values: NDArray[np.float32], precipitation: PrecipitationClimatology) -> NDArray[np.int8]:
    """Return the category of each value: 0 dry, 1 light, 2 heavy."""
    wet = values >= precipitation.dry_below
    return np.asarray(wet.astype(np.int8) + (wet & (values >= precipitation.heavy_threshold)))


_OTHERS: Final[Mapping[str, Callable[[Points], Floats]]] = {
    SEEPS: seeps,
    CRPS: crps,
    CRPS_CLIMATOLOGY: crps_climatology,
    CRPS_GAUSSIAN: crps_gaussian,
    VARIANCE: variance,
}


def statistic(name: str) -> Callable[[Points], Floats]:
    """Return the function that computes a statistic, by its name; the result is (field, point)."""
    kind, _, event = name.partition(EVENT_MARK)
    if event:
        return lambda at: AT_EVENTS[kind](at, event)
    return {**STATISTICS, **_OTHERS}[kind]


def applies(name: str, at: Points) -> bool:
    """Whether a statistic is defined for the variable whose values are given."""
    return defined(
        name, seeps=at.precipitation is not None, gaussian=at.deviation is not None, thresholds=at.thresholds
    )


def defined(name: str, *, seeps: bool, gaussian: bool, thresholds: Sequence[float]) -> bool:
    """Whether a statistic is defined for a variable.

    Args:
        name: of the statistic.
        seeps: whether the climatology has what SEEPS needs.
        gaussian: whether the climatology has standard deviations that are used.
        thresholds: of the variable.
    """
    event = name.partition(EVENT_MARK)[2]
    if event.startswith(_ABOVE):
        return event in map(_event_above, thresholds)
    if event or name in (CRPS_CLIMATOLOGY, CRPS_GAUSSIAN):
        return gaussian
    return name != SEEPS or seeps
