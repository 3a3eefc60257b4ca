"""Compute how much better one forecast is than another, for every variable, level and lead time: the scorecard."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation.comparison import check_alike
from graphcast_batch.evaluation.score_groups import stored_variables
from graphcast_batch.evaluation.score_results import pieces
from graphcast_batch.evaluation.significance import PairedDifference, paired_difference
from graphcast_batch.variables import HOUR, VARIABLES

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ScoreDifferences:
    """The root mean square errors of one forecast relative to those of another.

    Attributes:
        rows: variable and level (hPa; None at the surface) of each row.
        hours: lead times of the columns.
        relative: (row, column) RMSE over that of the other minus 1: below 0 where the first is better; NaN where there
            is no score, or the other makes no error.
        significant: (row, column) whether the difference is significant, by Student's t-test of the paired
            differences, widened for their autocorrelation.
        tested: (row, column) whether there are enough initial times for that test.
        cases: the most initial times that a cell averages over.
    """

    rows: tuple[tuple[str, int | None], ...]
    hours: tuple[int, ...]
    relative: Floats
    significant: NDArray[np.bool_]
    tested: NDArray[np.bool_]
    cases: int


def score_differences(ours: tuple[Path, str], other: tuple[Path, str], region: str) -> ScoreDifferences:
    """Compare a forecast with another, at the initial times that both have.

    Args:
        ours: path of a store, and the name of scores in it.
        other: path and name of the scores to compare with.
        region: name of the region.

    Raises:
        EvaluationError: the forecasts were scored against different truth or climatology, or have no variable or no
            initial time in common.
        StoreError: there are no scores.
    """
    check_alike(other, ours)
    known = [stored_variables(*where) for where in (ours, other)]
    common = sorted(set(known[0]) & set(known[1]), key=_place)
    rows = {row: cells for name in common for row, cells in _rows(name, ours, other, region)}
    if not rows:
        raise EvaluationError(
            f"{ours[0]} and {other[0]} must have scores of the same variables at the same initial times, but have "
            "none; evaluate the same of both"
        )
    hours = sorted({hour for cells in rows.values() for hour in cells})
    none = (np.nan, PairedDifference(np.nan, np.nan, np.nan, np.nan, np.nan, 0))
    table = [[cells.get(hour, none) for hour in hours] for cells in rows.values()]
    return ScoreDifferences(
        rows=tuple(rows),
        hours=tuple(hours),
        relative=np.array([[relative for relative, _ in row] for row in table]),
        significant=np.array([[paired.significant for _, paired in row] for row in table]),
        tested=np.array([[np.isfinite(paired.p) for _, paired in row] for row in table]),
        cases=max(paired.cases for row in table for _, paired in row),
    )


def _place(name: str) -> tuple[int, str]:
    """Return a sort key: the order of the table of variables, then other variables by name."""
    known = list(VARIABLES)
    return (known.index(name) if name in known else len(known)), name


_Cells = dict[int, tuple[float, PairedDifference]]
"""Relative RMSE and paired difference of a row, by lead time in h."""


def _rows(
    name: str, ours: tuple[Path, str], other: tuple[Path, str], region: str
) -> Iterator[tuple[tuple[str, int | None], _Cells]]:
    """Compute the rows of one variable; only one variable is in memory, with all its initial times."""
    first, second = xr.align(_squares(name, ours, region), _squares(name, other, region), join="inner")
    if not first["time"].size:
        return
    if "level" not in first.dims:
        yield (name, None), _cells(first, second)
        return
    for level in first["level"].values.tolist():
        yield (name, int(level)), _cells(first.sel(level=level), second.sel(level=level))


def _squares(name: str, where: tuple[Path, str], region: str) -> xr.DataArray:
    """Read the mean squared errors of one variable, (time, prediction_timedelta, [level])."""
    parts = [means[name].sel(statistic="squared_error", drop=True) for means in pieces(*where, [name], None, [region])]
    return xr.concat(parts, "time").isel(region=0, drop=True)


def _cells(ours: xr.DataArray, other: xr.DataArray) -> _Cells:
    hours = (ours["prediction_timedelta"].values // HOUR).astype(int).tolist()
    times = ours["time"].values
    pairs = zip(hours, ours.values.T, other.values.T, strict=True)
    return {hour: _cell(mine, theirs, times) for hour, mine, theirs in pairs}


def _cell(ours: Floats, other: Floats, times: NDArray[np.datetime64]) -> tuple[float, PairedDifference]:
    both = np.isfinite(ours) & np.isfinite(other)
    paired = paired_difference(np.where(both, np.sqrt(ours) - np.sqrt(other), np.nan), times)
    theirs = float(other[both].mean()) if both.any() else 0.0
    return (float(np.sqrt(ours[both].mean() / theirs)) - 1 if theirs else np.nan), paired
