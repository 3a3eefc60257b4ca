"""Make an ensemble of the truth itself: the weather at the same times of other years.

It is the probabilistic climatology of WeatherBench 2 (Rasp et al. 2024, https://doi.org/10.1029/2023MS004019): an
ensemble that knows the season and the hour, and nothing of the initial state.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation.scoring_setup import Fields, ScoredSubset, ScoringSetup, valid_times
from graphcast_batch.inputs.case_inputs import Timeline
from graphcast_batch.plan import Case

CLIMATOLOGY_YEARS: Final = "climatology_years"
"""Name of the scores of that ensemble, in the store of the forecasts."""


@dataclass(frozen=True, eq=False)
class WeatherOfYear:
    """Reader of the truth of one year as a forecast.

    Attributes:
        truth: the verification.
        part: where the forecasts' points lie on the truth's grid.
        year: whose weather is read.
    """

    truth: Timeline
    part: ScoredSubset
    year: int

    def fields(self, case: Case, names: Sequence[str], lead_hours: Sequence[int], levels: Sequence[int]) -> Fields:
        """Read the truth at the valid times, moved to the year.

        Raises:
            InputError: the truth lacks a time, or cannot be read.
        """
        # Two valid times may be one time of a year without a 29 February.
        times, places = np.unique(in_year(valid_times(case, np.array(lead_hours)), self.year), return_inverse=True)
        found = self.truth.fields(list(names), times, levels)
        return {name: self.part.of(found[name].values[places]) for name in names}


def in_year(times: NDArray[np.datetime64], year: int) -> NDArray[np.datetime64]:
    """Move times to the same day and hour of another year; 29 February to the 28th where there is none."""
    months = times.astype("datetime64[M]")
    moved = months + (12 * (year - _years(times))).astype("timedelta64[M]")
    there = moved.astype(times.dtype) + (times - months.astype(times.dtype))
    leap_day = there.astype("datetime64[M]") != moved
    return np.asarray(np.where(leap_day, there - np.timedelta64(1, "D"), there))


def check_years(scoring: ScoringSetup, init_times: NDArray[np.datetime64], years: Sequence[int]) -> None:
    """Check that the truth holds the weather of some years, and that none of them is a year of the forecasts.

    Args:
        scoring: of the forecasts.
        init_times: of the forecasts, (time,).
        years: to be the members.

    Raises:
        EvaluationError: it does not, or one is.
    """
    hours = np.array(scoring.lead_hours) * np.timedelta64(1, "h")
    valid = np.unique(np.add.outer(init_times.astype("datetime64[ns]"), hours))
    here = np.unique(_years(valid))
    if np.isin(here, years).any():
        raise EvaluationError(
            f"the years of a climatology must be others than those of the forecasts, {_span(here)}, but are "
            f"{_span(years)}; take other years, or score other forecasts"
        )
    _check_held(scoring.truth, scoring.parts_of([name for name, _ in scoring.on_levels]), valid, years)


def _check_held(truth: Timeline, names: list[str], valid: NDArray[np.datetime64], years: Sequence[int]) -> None:
    times = truth.times_of(names)
    if times is None:
        return
    valid = valid[np.isin(valid, times)]  # nothing is scored at the others
    wanted = np.unique(np.concatenate([in_year(valid, year) for year in years]))
    absent = wanted[~np.isin(wanted, times)]
    if absent.size:
        raise EvaluationError(
            f"the truth {truth.origin} must hold the times of the forecasts in each of the years {_span(years)}, but "
            f"lacks {absent.size} of {wanted.size}, the first {absent[0].astype('datetime64[m]')}; take years that it "
            "holds, or give a longer archive as truth"
        )


def _years(times: NDArray[np.datetime64]) -> NDArray[np.int64]:
    return times.astype("datetime64[Y]").astype(np.int64) + 1970


def _span(years: Sequence[int] | NDArray[np.integer]) -> str:
    first, last = int(years[0]), int(years[-1])
    return str(first) if first == last else f"{first}-{last}"
