"""Compute the potential CRPS: that of the best distributions which calibration can make of deterministic forecasts.

Gneiting et al. 2025, https://arxiv.org/abs/2506.03744: at each point, the isotonic distributional regression (IDR,
Henzi et al. 2021, https://doi.org/10.1111/rssb.12450) of the truth on the forecast, over all initial times together,
gives a distribution for each forecast; the score is their mean CRPS. It compares forecasts that are blurred to
different degrees, since whatever can be done by postprocessing is done for each of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation.case_scoring import check_filled
from graphcast_batch.evaluation.scoring_setup import ScoringSetup, valid_times
from graphcast_batch.plan import Case

Floats = NDArray[np.float64]
FEWEST_TIMES: Final = 10
"""Fewer initial times are refused: IDR then fits what is chance, and the score is close to 0 for any forecast."""
_READ_BYTES: Final = 2**28
"""The most bytes of forecasts and truth that are in memory at once; more only for a single latitude."""
_SORTED: Final = 2**18
"""Values that are sorted at once."""
_REGRESSED: Final = 2**15
"""Values of one isotonic regression, which stay in the cache of a core; with more, each takes longer."""


def potential_crps(forecast: NDArray[np.floating], truth: NDArray[np.floating]) -> Floats:
    """Compute the mean CRPS of isotonic distributional regression of the truth on the forecast, at each point.

    The CRPS is the integral over thresholds of the Brier score, and at each threshold IDR is the isotonic least-squares
    regression of "the truth is not above it" on the forecast, which falls as the forecast rises. Between two
    neighboring values of the truth it is constant. The effort grows with the square of the number of initial times.

    Args:
        forecast: (time, point) finite.
        truth: (time, point) finite, in the unit of the variable.

    Returns:
        (point,) in the unit of the variable, from 0 where the truth rises with the forecast and depends on it alone, to
        `climatological_crps` at most.
    """
    count, points = truth.shape
    found, some = np.zeros(points), max(1, _SORTED // count)
    for first in range(0, points, some):
        run = slice(first, first + some)
        found[run] = _potential(np.asarray(forecast[:, run], np.float64), np.asarray(truth[:, run], np.float64))
    return found


def climatological_crps(truth: NDArray[np.floating]) -> Floats:
    """Compute the mean CRPS of the distribution of all truth as the forecast of each initial time, at each point.

    It is the potential CRPS of a constant forecast, and half the mean distance of two initial times, each of which may
    be either.

    Args:
        truth: (time, point).

    Returns:
        (point,) in the unit of the variable.
    """
    count = len(truth)
    share = np.arange(1, count) / count
    return np.asarray((share * (1 - share)) @ np.diff(np.sort(truth.astype(np.float64), axis=0), axis=0))


def _potential(forecast: Floats, truth: Floats) -> Floats:
    count, points = truth.shape
    # Descending, so that the regression ascends. Of equal forecasts the lower truth comes first: the indicators then
    # descend among them, so that the regression gives them one value, as it must.
    order = np.lexsort((truth, -forecast), axis=0)
    by_forecast, levels = np.take_along_axis(truth, order, axis=0).T, np.sort(truth, axis=0).T
    gaps = np.diff(levels, axis=1)
    point, threshold = np.nonzero(gaps)
    losses, some = np.empty(point.size), max(1, _REGRESSED // count)
    for first in range(0, point.size, some):
        run = slice(first, first + some)
        losses[run] = _losses(by_forecast[point[run]] <= levels[point[run], threshold[run], np.newaxis])
    return np.asarray(np.bincount(point, losses * gaps[point, threshold], points) / count)


def _losses(below: NDArray[np.bool_]) -> Floats:
    """Return the squared distances of sequences from their isotonic regressions, (sequence,).

    Args:
        below: (sequence, time).
    """
    sequences, count = below.shape
    # All in one regression: each sequence is higher than the one before, so that values of two are never pooled.
    fit = isotonic_regression((below + 2.0 * np.arange(sequences)[:, np.newaxis]).ravel())
    starts = fit.blocks[:-1]
    sequence = starts // count
    share = fit.x[starts] - 2.0 * sequence
    # A block of m values with the mean p has p m ones, and the distance m p (1 - p).
    return np.asarray(np.bincount(sequence, fit.weights * share * (1 - share), sequences))


@dataclass(frozen=True, eq=False)
class PotentialMeans:
    """Means over regions of the potential CRPS of one variable at one level and lead time.

    Attributes:
        potential: (region,) in the unit of the variable.
        climatological: (region,) the same of a constant forecast.
        cases: number of initial times.
    """

    potential: Floats
    climatological: Floats
    cases: int


def mean_potentials(
    scoring: ScoringSetup, cases: Sequence[Case], name: str, level: int | None, hours: int
) -> PotentialMeans:
    """Compute the potential CRPS of one variable at one level and lead time, averaged over regions.

    The latitudes are read in bands whose fields of all initial times fit into memory.

    Args:
        scoring: what is scored against what.
        cases: with forecast and truth at the lead time.
        name: of the variable.
        level: hPa; None for a variable that is not on levels.
        hours: lead time.

    Raises:
        EvaluationError: there are fewer than `FEWEST_TIMES` Cases, or forecast or truth is not finite somewhere.
        GraphcastBatchError: forecast or truth cannot be read.
    """
    if len(cases) < FEWEST_TIMES:
        raise EvaluationError(
            f"a potential CRPS needs {FEWEST_TIMES} initial times, but {name} at {hours} h has {len(cases)} with "
            "forecast and truth; add some to the run, or leave the lead time out"
        )
    scoring = replace(scoring, levels=() if level is None else (level,))
    regions, rows, columns = scoring.weighed(), scoring.part.rows.size, scoring.part.columns.size
    band = max(1, _READ_BYTES // (8 * len(cases) * columns))
    sums = np.zeros((2, len(regions.names)))
    for first in range(0, rows, band):
        here = slice(first, first + band)
        weights = regions.weights[:, here].reshape(len(regions.names), -1)
        forecast, truth = _read(scoring, cases, name, hours, here)
        counted = weights.any(axis=0)
        for n, found in enumerate(
            (potential_crps(forecast[:, counted], truth[:, counted]), climatological_crps(truth[:, counted]))
        ):
            sums[n] += weights[:, counted] @ found
    potential, climatological = sums / regions.totals
    return PotentialMeans(potential, climatological, len(cases))


def _read(
    scoring: ScoringSetup, cases: Sequence[Case], name: str, hours: int, rows: slice
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Read a band of latitudes of forecasts and truth, (time, point) each."""
    points = scoring.part.rows[rows].size * scoring.part.columns.size
    fields = np.empty((2, len(cases), points), np.float32)
    for n, case in enumerate(cases):
        forecast = scoring.forecasts.fields(case, [name], [hours], scoring.levels)[name]
        truth = scoring.truth.fields([name], valid_times(case, np.array([hours])), scoring.levels)
        check_filled(scoring, case, truth)
        for field, values in zip(fields[:, n], (forecast, scoring.part.of(truth[name].values)), strict=True):
            field[:] = values[..., rows, :].ravel()
        for kind, field in zip(("forecast", "truth"), fields[:, n], strict=True):
            if not np.isfinite(field).all():
                remedy = "verify the store with --deep" if kind == "forecast" else f"repair {scoring.truth.origin}"
                raise EvaluationError(
                    f"{case.key}: the {kind} must be finite everywhere, but {name} is not after {hours} h; {remedy}, "
                    "or leave the variable out"
                )
    return fields[0], fields[1]
