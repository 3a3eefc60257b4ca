"""Compute the statistics of a climatology's window over neighboring days: means, standard deviations and quantiles."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.evaluation import climatology_store as written
from graphcast_batch.evaluation.pointwise_statistics import DRY_BELOW
from graphcast_batch.variables import HOUR

Floats = NDArray[np.float64]
REACH: Final = 30
"""Days before and after that the window reaches: 61 days in all."""
_HEAVY_ABOVE: Final = 2 / 3
"""Quantile of the wet values above which precipitation is heavy: light precipitation is twice as frequent as heavy
(Rodwell et al. 2010, doi 10.1002/qj.656)."""
_POINTS: Final = 2**15
"""Points that a window is applied to at once: 50 MB of float64."""
_SORTED: Final = 2**23
"""Values that are sorted at once."""


def triangle(days: slice) -> Floats:
    """Return the weight of each day of the year in the window around some days: a triangle, continued over new year.

    Args:
        days: of the year at the middle of the windows, counted from 0.

    Returns:
        (day, day of the year) 0..1.
    """
    apart = np.abs(np.subtract.outer(np.arange(written.DAYS)[days], np.arange(written.DAYS)))
    return np.asarray(np.maximum(0.0, 1 - np.minimum(apart, written.DAYS - apart) / REACH))


def weighted_quantile(values: NDArray[np.floating], weights: Floats, share: float) -> Floats:
    """Compute quantiles of weighted values, interpolated linearly; with equal weights the same as NumPy's.

    Uses Kish's effective sample size for the number of values (Akinshin 2023, "Weighted quantile estimators",
    https://arxiv.org/abs/2304.07265, type 7), like xarray.

    Args:
        values: (point, value), ascending at each point.
        weights: (point, value), 0 or more.
        share: 0..1, the quantile.

    Returns:
        (point,); NaN where all weights are 0.
    """
    total = weights.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        size = total**2 / np.vecdot(weights, weights)[:, np.newaxis]
        first = (size - 1) * share / size
        below = np.clip(np.cumsum(weights, axis=-1) / total, first, first + 1 / size)
        return np.asarray(np.vecdot(values, np.diff(below, axis=-1, prepend=first)) * size[:, 0])


def smoothed_mean_and_deviation(
    weights: Floats, kept: Sequence[NDArray[np.float32]], levels: slice
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute mean and standard deviation over the days of each window.

    Args:
        weights: (window, day).
        kept: of each day mean and variance, ([2, level,] latitude, longitude).
        levels: indices of the levels.

    Returns:
        mean and standard deviation, (window, point) each, level after level.
    """
    flat = [each.reshape(2, -1, *each.shape[-2:])[:, levels].reshape(2, -1) for each in kept]
    points = flat[0].shape[1]
    shares = weights / weights.sum(axis=1, keepdims=True)
    mean, deviation = np.empty((2, len(weights), points), np.float32)
    for run in (slice(first, first + _POINTS) for first in range(0, points, _POINTS)):
        means, variances = np.stack([each[:, run] for each in flat], axis=1).astype(np.float64)
        # Relative to a value near the means, so that their squares lose no digits.
        origin = means[len(means) // 2].copy()
        means -= origin
        middle = shares @ means
        mean[:, run] = origin + middle
        deviation[:, run] = np.sqrt(np.maximum(shares @ (variances + means**2) - middle**2, 0))
    return mean, deviation


def precipitation_categories(
    weights: Floats, kept: Sequence[NDArray[np.float32]], dry_below: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute the share of dry values and the least value that counts as heavy, over the days of each window.

    In the share of dry values, too, nearer days count more. In WeatherBench 2 they do not; over a whole year, which is
    all that SEEPS uses, the share is the same.

    Args:
        weights: (window, day).
        kept: of each day all values, (value, latitude, longitude) m.
        dry_below: m; less precipitation counts as dry.

    Returns:
        share of dry values, (window, point) 0..1, and least heavy value, (window, point) m, NaN where nothing is wet.
    """
    flat = [each.reshape(len(each), -1) for each in kept]
    of_value = np.repeat(weights, [len(each) for each in flat], axis=1)
    points, some = flat[0].shape[1], max(1, _SORTED // of_value.shape[1])
    dry_fraction, heavy_threshold = np.empty((2, len(weights), points), np.float32)
    for run in (slice(first, first + some) for first in range(0, points, some)):
        values = np.concatenate([each[:, run] for each in flat]).T
        order = np.argsort(values, axis=-1)
        values = np.take_along_axis(values, order, axis=-1)
        wet = values >= dry_below
        for n, of_window in enumerate(of_value):
            each = of_window[order]
            dry_fraction[n, run] = np.where(wet, 0.0, each).sum(axis=-1) / of_window.sum()
            heavy_threshold[n, run] = weighted_quantile(values, np.where(wet, each, 0.0), _HEAVY_ABOVE)
    return dry_fraction, heavy_threshold


def is_precipitation(name: str) -> bool:
    """Whether a variable is a precipitation that SEEPS is defined for."""
    return name in DRY_BELOW


def times_per_day(times: NDArray[np.datetime64]) -> Floats:
    """Count the times of each day of the year, (day of the year,)."""
    days = np.concatenate(days_of_year_twice(times))
    return np.bincount(days[days >= 0], minlength=written.DAYS).astype(np.float64)


def days_of_year_twice(times: NDArray[np.datetime64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the days of the year that each time counts for, from 0: its own, and a second one or -1.

    The second is 365 for the last day of a year of 365 days, which stands for day 366 too.
    """
    days = days_of_year(times)
    years = times.astype("datetime64[Y]")
    common = ((years + 1).astype("datetime64[D]") - years.astype("datetime64[D]")).astype(np.int64) == written.DAYS - 1
    return days, np.where(common & (days == written.DAYS - 2), written.DAYS - 1, -1)


def hours_of_day(times: NDArray[np.datetime64]) -> NDArray[np.int64]:
    """Return the hour of the day of each time, 0..23."""
    return np.asarray((times - times.astype("datetime64[D]")) // HOUR, np.int64)


def days_of_year(times: NDArray[np.datetime64]) -> NDArray[np.int64]:
    """Return the day of the year of each time, counted from 0."""
    return np.asarray((times.astype("datetime64[D]") - times.astype("datetime64[Y]")).astype(np.int64))
