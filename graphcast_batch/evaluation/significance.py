"""Test whether score differences of two forecasts at the same initial times are significant; bootstrap over blocks."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
CONFIDENCE: Final = 0.95
_FEWEST: Final = 4
"""The fewest initial times from which two autocorrelations and a variance can be estimated."""
_DRAWS: Final = 2000
_BLOCK_DAYS: Final = 10
"""Length of a block: errors of consecutive forecasts are alike, and after this long the weather has changed."""


@dataclass(frozen=True)
class PairedDifference:
    """The mean of paired differences, with its confidence interval.

    Attributes:
        mean: of the differences.
        low: lower end of the confidence interval; NaN where there are too few initial times.
        high: upper end of the interval; NaN where there are too few initial times.
        p: probability of so large a mean if there were no difference; NaN where there are too few initial times.
        inflation: factor by which the interval is wider than for independent differences.
        cases: number of differences.
    """

    mean: float
    low: float
    high: float
    p: float
    inflation: float
    cases: int

    @property
    def significant(self) -> bool:
        """Whether the mean differs significantly from 0, at the confidence of the interval."""
        return self.p < 1 - CONFIDENCE


def paired_difference(differences: Floats, times: NDArray[np.datetime64]) -> PairedDifference:
    """Apply Student's t-test to paired differences, widened for their autocorrelation as by Geer 2016.

    Geer 2016, https://doi.org/10.3402/tellusa.v68.30229, models them as autoregressive of order 2: the standard error
    of their mean is that of independent ones times a factor which follows from the first two autocorrelations. A
    factor below 1 is replaced by 1.

    Args:
        differences: (case,) of a score; NaN where either is missing.
        times: (case,) initial times, ascending; where some are missing, only pairs at the usual distance are used.
    """
    there = np.isfinite(differences)
    values, at = differences[there], times[there]
    count = values.size
    mean = float(values.mean()) if count else np.nan
    if count < _FEWEST:
        return PairedDifference(mean, np.nan, np.nan, np.nan, np.nan, count)
    deviation = float(values.std(ddof=1))
    if deviation == 0:
        return PairedDifference(mean, mean, mean, float(mean == 0), 1.0, count)
    inflation = _inflation(*(_autocorrelation(values, at, lag) for lag in (1, 2)))
    error = deviation / np.sqrt(count) * inflation
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * error)
    p = float(2 * stats.t.sf(abs(mean) / error, count - 1))
    return PairedDifference(mean, mean - half, mean + half, p, inflation, count)


def block_bootstrap(means: Floats, times: NDArray[np.datetime64], seed: int = 0) -> Floats:
    """Compute means over initial times resampled in blocks of consecutive days.

    Args:
        means: (case, ...) means of statistics of each initial time, without gaps.
        times: (case,) initial times, ascending.
        seed: of the draws.

    Returns:
        (draw, ...) means over as many Cases, from which metrics and their quantiles follow; NaN where all initial times
        lie within one block, from which no interval can be estimated.
    """
    count = times.size
    spacing = np.diff(times).min() if count > 1 else np.timedelta64(_BLOCK_DAYS, "D")
    length = max(1, int(np.timedelta64(_BLOCK_DAYS, "D") // spacing))
    if length >= count:
        return np.full((_DRAWS, *means.shape[1:]), np.nan)
    random = np.random.default_rng(seed)
    starts = random.integers(count, size=(_DRAWS, -(-count // length)))
    # Blocks wrap around the end, so that each initial time is as likely to be drawn as any other.
    drawn = ((starts[..., np.newaxis] + np.arange(length)) % count).reshape(_DRAWS, -1)[:, :count]
    weights = np.zeros((_DRAWS, count))
    np.add.at(weights, (np.arange(_DRAWS)[:, np.newaxis], drawn), 1 / count)
    return np.asarray(np.tensordot(weights, means, 1))


def _autocorrelation(values: Floats, times: NDArray[np.datetime64], lag: int) -> float:
    """Estimate the autocorrelation of values that are ``lag`` median steps apart; 0 where there are none."""
    step = (
        np.median(np.diff(times).astype(np.int64)).astype("timedelta64[ns]").astype(times.dtype.str.replace("M", "m"))
    )
    place = np.searchsorted(times, times + lag * step).clip(max=times.size - 1)
    pairs = times[place] == times + lag * step
    if not pairs.any():
        return 0.0
    anomalies = values - values.mean()
    # The sum of products over that of squares, which keeps it within -1 and 1.
    return float(np.sum(anomalies[pairs] * anomalies[place[pairs]]) / np.sum(anomalies**2))


def _inflation(first: float, second: float) -> float:
    """Compute the factor by which autocorrelation widens the standard error of a mean, for an AR(2) process."""
    near = first * (1 - second) / (1 - first**2)
    far = (second - first**2) / (1 - first**2)
    if near + far >= 1:  # not stationary: the mean is undefined
        return np.inf
    return max(1.0, float(np.sqrt(1 - first * near - second * far) / (1 - near - far)))
