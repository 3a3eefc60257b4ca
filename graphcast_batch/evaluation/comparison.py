"""Compare the headline scores of two forecasts at their common initial times, with confidence intervals."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import xarray as xr
from pydantic import JsonValue

from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation.score_headlines import headlines, read_headlines, shown_hours
from graphcast_batch.evaluation.score_layout import BOXES
from graphcast_batch.evaluation.score_results import average
from graphcast_batch.evaluation.score_store import ScoreStore
from graphcast_batch.evaluation.significance import CONFIDENCE, PairedDifference, block_bootstrap, paired_difference

_ALIKE: Final = ("truth", "climatology")
_ENDS: Final = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)


@dataclass(frozen=True)
class Change:
    """One headline score of two forecasts at one lead time.

    Attributes:
        label: such as ``geopotential 500``.
        hours: lead time.
        first: RMSE of the first forecast.
        second: RMSE of the second forecast.
        low: lower end of the confidence interval of second over first minus 1, by block bootstrap; NaN if unknown.
        high: upper end of that interval.
        paired: difference of the RMSE of each initial time, second minus first, by Student's t-test.
    """

    label: str
    hours: int
    first: float
    second: float
    low: float
    high: float
    paired: PairedDifference

    @property
    def relative(self) -> float:
        """Second RMSE over first, minus 1: below 0 where the second is better; NaN where the first has no error."""
        return self.second / self.first - 1 if self.first else np.nan


def compare(one: tuple[Path, str], other: tuple[Path, str], region: str) -> list[Change]:
    """Compare the headline scores of two forecasts.

    Args:
        one: path of a store, and the name of scores in it.
        other: path and name of the scores to compare with.
        region: name of the region.

    Raises:
        EvaluationError: the forecasts were scored against different truth or climatology, or have no initial time in
            common.
        StoreError: there are no scores.
    """
    check_alike(one, other, region)
    first, second = (read_headlines(*where, region) for where in (one, other))
    common = np.intersect1d(first["time"].values, second["time"].values)
    if not common.size:
        raise EvaluationError(
            f"{one[0]} and {other[0]} must have initial times in common, but have none; evaluate the same times of both"
        )
    first, second = xr.align(first.sel(time=common), second.sel(time=common), join="inner")
    results = average(first)
    hours = shown_hours(results)
    changes = [
        _change(line.label, hour, *(_squares(each, line.variable, line.level, hour) for each in (first, second)))
        for line in headlines(results, hours)
        if line.variable in second
        for hour in hours
    ]
    return [change for change in changes if change.paired.cases]


def check_alike(one: tuple[Path, str], other: tuple[Path, str], region: str | None = None) -> None:
    """Check that two forecasts were scored against the same truth and climatology, in the same region.

    Args:
        one: path of a store, and the name of scores in it.
        other: path and name of the scores to compare with.
        region: name of the region that is compared; None for all regions that both have.

    Raises:
        EvaluationError: truth, climatology or the edges of a region differ.
    """
    ours, theirs = (ScoreStore.at(*where).identity for where in (one, other))
    for key in _ALIKE:
        if ours.get(key) != theirs.get(key):
            raise EvaluationError(
                f"forecasts must be scored against the same {key} to be compared, but {one[0]} has {ours.get(key)} and "
                f"{other[0]} has {theirs.get(key)}; evaluate one of them again"
            )
    here, there = _boxes(ours), _boxes(theirs)
    for name in sorted(here.keys() & there.keys()) if region is None else [region]:
        if here.get(name) != there.get(name):
            raise EvaluationError(
                f"forecasts must be scored in the same region to be compared, but {name} of {one[0]} has the edges "
                f"{here.get(name)} and that of {other[0]} {there.get(name)}; evaluate one of them again"
            )


def _boxes(identity: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """Return the edges of the regions that a config defined, by name."""
    boxes = identity.get(BOXES)
    return boxes if isinstance(boxes, Mapping) else {}


def _squares(means: xr.Dataset, name: str, level: int | None, hours: int) -> xr.DataArray:
    """Return the mean squared errors of one variable in the only region, (time,)."""
    array = means[name].sel(statistic="squared_error", prediction_timedelta=np.timedelta64(hours, "h")).isel(region=0)
    return array if level is None else array.sel(level=level)


def _change(label: str, hours: int, first: xr.DataArray, second: xr.DataArray) -> Change:
    both = (first.notnull() & second.notnull()).values
    times, squares = first["time"].values[both], np.stack([first.values[both], second.values[both]], axis=1)
    differences = np.diff(np.sqrt(squares), axis=1)[:, 0]
    low = high = np.nan
    if times.size:
        drawn = np.sqrt(block_bootstrap(squares, times))
        with np.errstate(divide="ignore", invalid="ignore"):
            low, high = np.quantile(drawn[:, 1] / drawn[:, 0] - 1, _ENDS)
    means = np.sqrt(squares.mean(axis=0)) if times.size else (np.nan, np.nan)
    paired = paired_difference(differences, times)
    return Change(label, hours, float(means[0]), float(means[1]), float(low), float(high), paired)
