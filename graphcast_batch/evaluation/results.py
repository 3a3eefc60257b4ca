"""Stored means of statistics become metrics: of each initial time, or averaged over them, and tables of these."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import xarray as xr

from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation.derived import RECIPES
from graphcast_batch.evaluation.metrics import METRICS, SEEPS, VECTORS, metric_of, with_vectors
from graphcast_batch.outputs.scores import Scores
from graphcast_batch.variables import VARIABLES

Over = Literal["all", "each", "hour", "month", "season"]
"""Initial times that are averaged over: all, none, those of an hour of the day, of a month, of a season."""
_CASES_AT_ONCE: Final = 64
_SHOWN_HOURS: Final = tuple(24 * days for days in (1, 3, 5, 7, 10, 14))
_HEADLINES: Final = (
    ("geopotential", 500),
    ("temperature", 850),
    ("specific_humidity", 700),
    ("wind_vector", 850),
    ("2m_temperature", None),
    ("mean_sea_level_pressure", None),
    ("10m_wind_vector", None),
    ("total_precipitation_6hr", None),
)
"""After the headline scores of Rasp et al. 2024."""
_HOUR: Final = np.timedelta64(1, "h")


@dataclass(frozen=True, eq=False)
class Results:
    """Metrics, with what is behind them.

    Attributes:
        values: variables over (metric, [time, hour, month or season], prediction_timedelta, [level], region); NaN
            where nothing was scored, or a metric is undefined.
        counts: the same, how many initial times went in.
        over: what was averaged over.
    """

    values: xr.Dataset
    counts: xr.Dataset
    over: Over


def scored(store: Path, name: str = "forecast") -> bool:
    """Whether a store holds the scores of any Case."""
    scores = Scores.at(store, name)
    return scores.exists and bool(scores.records())


def read(
    store: Path,
    name: str = "forecast",
    variables: Sequence[str] | None = None,
    levels: Sequence[int] | None = None,
    regions: Sequence[str] | None = None,
) -> xr.Dataset:
    """Reads means of statistics, of those initial times that were scored.

    Args:
        store: its path.
        name: of the scores: ``forecast``, or a baseline.
        variables: to read; None for all.
        levels: hPa; None for all.
        regions: names; None for all.

    Returns:
        float64 variables (statistic, time, prediction_timedelta, [level], region), times ascending, winds as vectors
        among them; NaN where no truth was held.

    Raises:
        StoreError: there are no scores, or they cannot be read.
        EvaluationError: they lack a variable, level or region, or hold no Case.
    """
    scores = Scores.at(store, name)
    opened = scores.dataset()
    done = [key for key in scores.records() if np.datetime64(key, "ns") in opened["time"].values]
    if not done:
        raise EvaluationError(
            f"{scores.folder} must hold the scores of a Case, but holds none; evaluate the store first"
        )
    # Plain text in place of zarr's own type of it, which little of NumPy takes yet.
    opened = opened.assign_coords({dim: np.array(opened[dim].values.tolist()) for dim in ("statistic", "region")})
    chosen = opened.drop_vars("area")[_needed(opened, variables)]
    if levels is not None and "level" in chosen.coords:
        chosen = chosen.isel(level=_places(opened, "level", levels, scores.folder))
    if regions is not None:
        chosen = chosen.isel(region=_places(opened, "region", regions, scores.folder))
    chosen = chosen.sel(time=np.sort(np.array(done, "datetime64[ns]")))
    starts = range(0, len(done), _CASES_AT_ONCE)
    # Piece by piece, since a chunk has all levels and regions of a Case, whatever is wanted of them.
    parts = [chosen.isel(time=slice(start, start + _CASES_AT_ONCE)).load() for start in starts]
    means = with_vectors(xr.concat(parts, "time", data_vars="minimal") if len(parts) > 1 else parts[0])
    return means if variables is None else means[list(variables)]


def read_headlines(store: Path, name: str, region: str) -> xr.Dataset:
    """Reads what `headlines` shows, of which there may be very many initial times.

    Args:
        store: its path.
        name: of the scores.
        region: which.

    Raises:
        StoreError: there are no scores, or they cannot be read.
        EvaluationError: they lack the region, or hold no Case.
    """
    opened = Scores.at(store, name).dataset()
    known = [vector for vector, parts in VECTORS.items() if all(part in opened for part in parts)]
    known += [str(variable) for variable in opened.data_vars if variable != "area"]
    held = opened["level"].values.tolist() if "level" in opened else []
    variables = [variable for variable in dict(_HEADLINES) if variable in known]
    levels = {level for _, level in _HEADLINES if level is not None and level in held}
    return read(store, name, variables or known, sorted(levels) or held[:1], [region])


def average(means: xr.Dataset, over: Over = "all") -> Results:
    """Metrics of means of statistics.

    Args:
        means: from `read`.
        over: initial times to average over.
    """
    values, counts = dict[str, xr.Dataset](), dict[str, xr.Dataset]()
    held = set(means["statistic"].values.tolist())
    for name, metric in METRICS.items():
        if held.issuperset(metric.statistics):
            of_each = metric_of(means, metric)
            first = metric_of(_mean(means, over), metric) if metric.averaged == "means" else _mean(of_each, over)
            values[name], counts[name] = first, _count(of_each, over)
    names = xr.DataArray(list(values), dims="metric", name="metric")
    return Results(xr.concat(values.values(), names), xr.concat(counts.values(), names), over)


def rows(results: Results) -> Iterator[dict[str, object]]:
    """Results in long form: a row for each value that is there, or that is undefined although Cases were scored."""
    group = {"all": None, "each": "time"}.get(results.over, results.over)
    scored = results.counts.sel(metric="mse", drop=True)
    for variable, values in results.values.data_vars.items():
        name = str(variable)
        counts = results.counts[name]
        there = (scored[name] > 0).broadcast_like(values)
        there = there & (values.notnull() | (name not in VECTORS and values["metric"] != SEEPS))
        for at in np.argwhere(there.transpose(*values.dims).values):
            place = dict(zip(map(str, values.dims), at.tolist(), strict=True))
            labels = {dim: values[dim].values[n] for dim, n in place.items() if dim in values.coords}
            yield {
                "variable": name,
                "level": labels.get("level", ""),
                "region": labels["region"],
                "lead_hours": int(labels["prediction_timedelta"] // _HOUR),
                **({} if group is None else {group: str(labels[group])[:13]}),
                "metric": labels["metric"],
                "value": float(values.values[tuple(at)]),
                "cases": int(counts.transpose(*values.dims).values[tuple(at)]),
            }


def write_csv(store: Path, path: Path, name: str = "forecast", over: Over = "all") -> int:
    """Writes all metrics in long form, one variable after another; returns how many rows.

    Args:
        store: its path.
        path: of the file; one that is there is replaced.
        name: of the scores.
        over: initial times to average over.

    Raises:
        EvaluationError: the file cannot be written, or no Case was scored.
        StoreError: there are no scores, or they cannot be read.
    """
    opened = Scores.at(store, name).dataset()
    variables = [str(variable) for variable in opened.data_vars if variable != "area"]
    variables += [vector for vector, parts in VECTORS.items() if all(part in variables for part in parts)]
    count = 0
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer: csv.DictWriter[str] | None = None
            for variable in variables:
                for row in rows(average(read(store, name, [variable]), over)):
                    if writer is None:
                        writer = csv.DictWriter(file, list(row))
                        writer.writeheader()
                    writer.writerow(row)
                    count += 1
    except OSError as error:
        raise EvaluationError(f"the table {path} must be writable, but is not: {error}; give another path") from error
    return count


@dataclass(frozen=True)
class Headline:
    """A line of the table that is shown.

    Attributes:
        label: such as ``geopotential 500``.
        unit: of the values.
        variable: which.
        level: hPa; None at the surface.
        values: RMSE by lead time.
        cases: how many initial times are behind them, fewest and most.
    """

    label: str
    unit: str
    variable: str
    level: int | None
    values: tuple[float, ...]
    cases: str


def shown_hours(results: Results) -> list[int]:
    """Lead times of the table: the days of WeatherBench 2's scorecard as far as forecasts reach, and the last."""
    hours = (results.values["prediction_timedelta"].values // _HOUR).astype(int).tolist()
    return [hour for hour in hours if hour in _SHOWN_HOURS or hour == hours[-1]]


def headlines(results: Results, hours: Sequence[int]) -> list[Headline]:
    """The RMSE of WeatherBench 2's headline variables that were scored; of all variables, if none of these was.

    Args:
        results: averaged over all initial times, of one region.
        hours: lead times.
    """
    held = [(name, level) for name, level in _HEADLINES if _at(results.values, name, level, "rmse", hours) is not None]
    if not held:
        held = [(str(name), _first_level(array)) for name, array in results.values.data_vars.items()]
    lines = []
    for name, level in held:
        values, counts = (_at(each, name, level, "rmse", hours) for each in (results.values, results.counts))
        assert values is not None
        assert counts is not None
        cases = sorted({int(count) for count in counts})
        label = name if level is None else f"{name} {level}"
        span = f"{cases[0]}" if len(cases) == 1 else f"{cases[0]}-{cases[-1]}"
        lines.append(Headline(label, _unit(name), name, level, tuple(values), span))
    return lines


def skill_of(line: Headline, baseline: Results, hours: Sequence[int]) -> list[float]:
    """1 - RMSE / RMSE of a baseline, by lead time: 1 is perfect, 0 as good as the baseline; NaN where that has none."""
    theirs = _at(baseline.values, line.variable, line.level, "rmse", hours)
    pairs = zip(line.values, theirs or [np.nan] * len(hours), strict=True)
    return [1 - mine / other if other > 0 else np.nan for mine, other in pairs]


def _at(values: xr.Dataset, name: str, level: int | None, metric: str, hours: Sequence[int]) -> list[float] | None:
    """One variable at a level by lead time, of the only region; None if it is not there."""
    if name not in values or ("level" in values[name].dims and level not in values["level"].values):
        return None
    array = values[name].sel(metric=metric).isel(region=0)
    array = array if level is None else array.sel(level=level)
    return [float(value) for value in array.reindex(prediction_timedelta=np.array(hours) * _HOUR).values]


def _first_level(array: xr.DataArray) -> int | None:
    return int(array["level"].values[0]) if "level" in array.dims else None


def _unit(name: str) -> str:
    known = VARIABLES.get(VECTORS.get(name, (name,))[0]) or RECIPES.get(name)
    return known.units if known else ""


def _mean(means: xr.Dataset, over: Over) -> xr.Dataset:
    match over:
        case "each":
            return means
        case "all":
            return means.mean("time", skipna=True)
    return means.groupby(f"time.{over}").mean("time", skipna=True)


def _count(values: xr.Dataset, over: Over) -> xr.Dataset:
    there = values.notnull()
    match over:
        case "each":
            return there.astype(np.int64)
        case "all":
            return there.sum("time")
    return there.groupby(f"time.{over}").sum("time")


def _needed(opened: xr.Dataset, variables: Sequence[str] | None) -> list[str]:
    """What must be read for some variables, of which vectors are made of others."""
    known = [str(name) for name in opened.data_vars if name != "area"]
    wanted = known if variables is None else list(variables)
    needed = list(dict.fromkeys(part for name in wanted for part in VECTORS.get(name, (name,))))
    absent = [name for name in needed if name not in known]
    if absent:
        raise EvaluationError(
            f"the scores must hold {', '.join(absent)}, but hold {', '.join(known)}; name some of those"
        )
    return needed


def _places(opened: xr.Dataset, dim: str, wanted: Sequence[object], folder: Path) -> list[int]:
    known = opened[dim].values.tolist()
    absent = [str(one) for one in wanted if one not in known]
    if absent:
        raise EvaluationError(
            f"{folder} must have the {dim} {', '.join(absent)}, but has {', '.join(map(str, known))}; name some of "
            "those"
        )
    return [known.index(one) for one in wanted]
