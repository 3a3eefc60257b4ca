"""Read stored means of statistics, and compute metrics of each initial time or averaged over initial times."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation.metrics import VECTORS, metric_of, metrics_of, with_vectors
from graphcast_batch.evaluation.score_groups import ScoreGroup, open_groups, scored_variables
from graphcast_batch.evaluation.score_store import ScoreStore, places

Over = Literal["all", "each", "hour", "month", "season"]
"""How initial times are averaged: all together, each by itself, or by hour of the day, month or season."""
_CASES_AT_ONCE: Final = 64
_STATISTICS: Final = ""
"""Key of the statistics in a tally, beside the names of metrics."""


@dataclass(frozen=True, eq=False)
class Results:
    """Metrics, with the number of initial times they are averaged over.

    Attributes:
        values: variables over (metric, [time, hour, month or season], prediction_timedelta, [level], region); NaN
            where nothing was scored, or a metric is undefined.
        counts: number of initial times that entered each value, same dimensions; where the metric of each initial time
            is averaged, those at which it is undefined do not count.
        held: number of initial times at which the statistics of the metric were scored, same dimensions.
        over: how initial times were averaged.
    """

    values: xr.Dataset
    counts: xr.Dataset
    held: xr.Dataset
    over: Over


def scored(store: Path, name: str = "forecast") -> bool:
    """Whether a store has scores of a name for at least one Case."""
    scores = ScoreStore.at(store, name)
    return scores.exists and bool(scores.records())


def read(
    store: Path,
    name: str = "forecast",
    variables: Sequence[str] | None = None,
    levels: Sequence[int] | None = None,
    regions: Sequence[str] | None = None,
) -> xr.Dataset:
    """Read means of statistics of the initial times that were scored.

    Args:
        store: its path.
        name: of the scores: ``forecast``, or a baseline.
        variables: to read; None for all.
        levels: hPa; None for all.
        regions: names; None for all.

    Returns:
        float64 variables (statistic, time, prediction_timedelta, [level], region), times ascending, with wind vectors
        among them; NaN where there was no truth.

    Raises:
        StoreError: there are no scores, or they cannot be read.
        EvaluationError: the scores lack a variable, level or region, or no Case was scored.
    """
    parts = list(pieces(store, name, variables, levels, regions))
    return xr.concat(parts, "time", data_vars="minimal") if len(parts) > 1 else parts[0]


def pieces(
    store: Path,
    name: str = "forecast",
    variables: Sequence[str] | None = None,
    levels: Sequence[int] | None = None,
    regions: Sequence[str] | None = None,
) -> Iterator[xr.Dataset]:
    """Read means of statistics like `read`, some initial times after others, so that not all are in memory at once."""
    groups = open_groups(store, name)
    done = groups[0].times
    if not done.size:
        raise EvaluationError(
            f"{groups[0].scores.folder} must hold the scores of a Case, but holds none; evaluate the store first"
        )
    needed = _needed(
        list(dict.fromkeys(name for group in groups for name in scored_variables(group.opened))), variables
    )
    having = [group for group in groups if not set(needed).isdisjoint(scored_variables(group.opened))]
    chosen = [_chosen(group, needed, levels, regions) for group in having]
    for start in range(0, done.size, _CASES_AT_ONCE):
        some = done[start : start + _CASES_AT_ONCE]
        found = [group.sel(time=np.intersect1d(some, group["time"].values)).load() for group in chosen]
        means = with_vectors(found[0] if len(groups) == 1 else _merged(found, some))
        yield means if variables is None else means[list(variables)]


def _chosen(
    group: ScoreGroup, needed: Sequence[str], levels: Sequence[int] | None, regions: Sequence[str] | None
) -> xr.Dataset:
    """Select variables, levels, regions and scored initial times of a group, without reading."""
    # Plain text in place of zarr's own text type, which few functions of NumPy accept yet.
    texts = [dim for dim in ("statistic", "region") if dim in group.opened.coords]
    opened = group.opened.assign_coords({dim: np.array(group.opened[dim].values.tolist()) for dim in texts})
    chosen = opened.drop_vars("area")[[name for name in needed if name in scored_variables(opened)]]
    if levels is not None and "level" in chosen.coords:
        chosen = chosen.isel(level=places(opened, "level", levels, group.scores.folder))
    if regions is not None:
        chosen = chosen.isel(region=places(opened, "region", regions, group.scores.folder))
    return chosen.sel(time=group.times)


def _merged(found: Sequence[xr.Dataset], times: NDArray[np.datetime64]) -> xr.Dataset:
    """Join the statistics and variables of several groups; NaN where a group lacks one."""
    statistics = list(dict.fromkeys(name for each in found for name in each["statistic"].values.tolist()))
    complete = [each.reindex(time=times) for each in found]
    names = dict.fromkeys(str(name) for each in found for name in each.data_vars)
    arrays = {name: [each[name] for each in complete if name in each] for name in names}
    joined = {name: xr.concat(parts, "statistic") if len(parts) > 1 else parts[0] for name, parts in arrays.items()}
    return xr.Dataset({name: array.reindex(statistic=statistics) for name, array in joined.items()})


def average(means: xr.Dataset, over: Over = "all") -> Results:
    """Compute metrics from means of statistics.

    Args:
        means: from `read`.
        over: how to average initial times.
    """
    return average_pieces([means], over)


def average_pieces(parts: Iterable[xr.Dataset], over: Over = "all") -> Results:
    """Compute metrics like `average`, from some initial times after others.

    Args:
        parts: from `pieces`, at least one.
        over: how to average initial times.
    """
    tally = reduce(_both, (_tally(means, over) for means in parts))
    mean, found = _mean(tally, _STATISTICS), list[tuple[xr.Dataset, xr.Dataset, xr.Dataset]]()
    metrics = metrics_of(mean["statistic"].values.tolist())
    for metric in metrics:
        held = tally["held", metric.name]
        if metric.averaged == "means":
            found.append((metric_of(mean, metric), held, held))
        else:
            found.append((_mean(tally, metric.name), tally["count", metric.name], held))
    names = xr.DataArray([metric.name for metric in metrics], dims="metric", name="metric")
    values, counts, held = (xr.concat(each, names) for each in zip(*found, strict=True))
    return Results(values, counts, held, over)


_Tally = dict[tuple[str, str], xr.Dataset]
"""Numbers that add up over initial times, by kind and name. Of the statistics, and of each metric whose values are
averaged: the ``sum`` of all values that exist and their ``count``. Of each metric: at how many initial times its
statistics were scored, ``held``."""


def _tally(means: xr.Dataset, over: Over) -> _Tally:
    metrics = metrics_of(means["statistic"].values.tolist())
    summed = {_STATISTICS: means}
    summed |= {metric.name: metric_of(means, metric) for metric in metrics if metric.averaged == "values"}
    held = {metric.name: means.sel(statistic=list(metric.statistics)).notnull().all("statistic") for metric in metrics}
    return {
        **{("sum", name): _sum(values.fillna(0.0), over) for name, values in summed.items()},
        **{("count", name): _sum(values.notnull().astype(np.int64), over) for name, values in summed.items()},
        **{("held", name): _sum(there.astype(np.int64), over) for name, there in held.items()},
    }


def _both(first: _Tally, second: _Tally) -> _Tally:
    """Add the tallies of different initial times, whose groups need not be the same."""
    pairs = {key: xr.align(first[key], second[key], join="outer", fill_value=0) for key in first}
    return {key: ours + theirs for key, (ours, theirs) in pairs.items()}


def _mean(tally: _Tally, name: str) -> xr.Dataset:
    """Divide sum by count; NaN where nothing was counted."""
    count = tally["count", name]
    return tally["sum", name] / count.where(count > 0)


def _sum(values: xr.Dataset, over: Over) -> xr.Dataset:
    match over:
        case "each":
            return values
        case "all":
            return values.sum("time")
    return values.groupby(f"time.{over}").sum("time")


def _needed(known: Sequence[str], variables: Sequence[str] | None) -> list[str]:
    """Return the stored variables that some variables need; a wind vector needs its components."""
    wanted = known if variables is None else list(variables)
    needed = list(dict.fromkeys(part for name in wanted for part in VECTORS.get(name, (name,))))
    absent = [name for name in needed if name not in known]
    if absent:
        raise EvaluationError(
            f"the scores must hold {', '.join(absent)}, but hold {', '.join(known)}; choose some of those"
        )
    return needed
