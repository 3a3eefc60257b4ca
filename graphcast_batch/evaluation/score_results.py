"""Stored means of statistics become metrics: of each initial time, or averaged over them, and tables of these."""

import csv
import importlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain, islice
from pathlib import Path
from types import ModuleType
from typing import Final, Literal

import numpy as np
import xarray as xr

from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation.derived import DERIVATIONS
from graphcast_batch.evaluation.metrics import VECTORS, metric_of, metrics_of, with_vectors
from graphcast_batch.evaluation.score_store import ScoreStore, places
from graphcast_batch.plan import parse_key
from graphcast_batch.variables import HOUR, VARIABLES

Over = Literal["all", "each", "hour", "month", "season"]
"""Initial times that are averaged over: all, none, those of an hour of the day, of a month, of a season."""
_CASES_AT_ONCE: Final = 64
_ROWS_AT_ONCE: Final = 2**16
"""In memory; a row group of a Parquet file."""
_STATISTICS: Final = ""
"""Beside the names of metrics, what these are made of."""
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
_LEAD: Final = "prediction_timedelta"


@dataclass(frozen=True, eq=False)
class Results:
    """Metrics, with what is behind them.

    Attributes:
        values: variables over (metric, [time, hour, month or season], prediction_timedelta, [level], region); NaN
            where nothing was scored, or a metric is undefined.
        counts: the same, how many initial times went in: those where the metric of each is averaged and undefined do
            not.
        held: the same, at how many initial times the variable has what the metric follows from.
        over: what was averaged over.
    """

    values: xr.Dataset
    counts: xr.Dataset
    held: xr.Dataset
    over: Over


def scored(store: Path, name: str = "forecast") -> bool:
    """Whether a store holds the scores of any Case."""
    scores = ScoreStore.at(store, name)
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
    parts = list(pieces(store, name, variables, levels, regions))
    return xr.concat(parts, "time", data_vars="minimal") if len(parts) > 1 else parts[0]


def pieces(
    store: Path,
    name: str = "forecast",
    variables: Sequence[str] | None = None,
    levels: Sequence[int] | None = None,
    regions: Sequence[str] | None = None,
) -> Iterator[xr.Dataset]:
    """The same as `read`, some initial times after others: of very many not all need be in memory."""
    scores = ScoreStore.at(store, name)
    opened = scores.dataset()
    done = [key for key in scores.records() if parse_key(key)[0] in opened["time"].values]
    if not done:
        raise EvaluationError(
            f"{scores.folder} must hold the scores of a Case, but holds none; evaluate the store first"
        )
    # Plain text in place of zarr's own type of it, which little of NumPy takes yet.
    opened = opened.assign_coords({dim: np.array(opened[dim].values.tolist()) for dim in ("statistic", "region")})
    chosen = opened.drop_vars("area")[_needed(opened, variables)]
    if levels is not None and "level" in chosen.coords:
        chosen = chosen.isel(level=places(opened, "level", levels, scores.folder))
    if regions is not None:
        chosen = chosen.isel(region=places(opened, "region", regions, scores.folder))
    chosen = chosen.sel(time=np.unique([parse_key(key)[0].astype("datetime64[ns]") for key in done]))
    for start in range(0, len(done), _CASES_AT_ONCE):
        means = with_vectors(chosen.isel(time=slice(start, start + _CASES_AT_ONCE)).load())
        yield means if variables is None else means[list(variables)]


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
    opened = ScoreStore.at(store, name).dataset()
    known = [vector for vector, parts in VECTORS.items() if all(part in opened for part in parts)]
    known += _variables(opened)
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
    return average_pieces([means], over)


def average_pieces(parts: Iterable[xr.Dataset], over: Over = "all") -> Results:
    """The same as `average`, of some initial times after others.

    Args:
        parts: from `pieces`, one at least.
        over: initial times to average over.
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


def rows(results: Results) -> Iterator[dict[str, object]]:
    """Results in long form: a row for each value that is there, or that is undefined although Cases were scored."""
    group = {"all": None, "each": "time"}.get(results.over, results.over)
    for variable, values in results.values.data_vars.items():
        name, dims = str(variable), tuple(map(str, values.dims))
        axes = {dim: list(values[dim].values) for dim in dims}
        counts, held = (each[name].transpose(*dims).values for each in (results.counts, results.held))
        for at in np.argwhere(held > 0):
            labels = {dim: axes[dim][n] for dim, n in zip(dims, at, strict=True)}
            yield {
                "variable": name,
                "level": labels.get("level"),
                "region": labels["region"],
                "lead_hours": int(labels["prediction_timedelta"] // HOUR),
                **({} if group is None else {group: str(labels[group])[:13]}),
                "metric": labels["metric"],
                "value": float(values.values[tuple(at)]),
                "cases": int(counts[tuple(at)]),
            }


def write_table(store: Path, path: Path, name: str = "forecast", over: Over = "all") -> int:
    """Writes all metrics in long form, one variable after another; returns how many rows.

    Args:
        store: its path.
        path: of the file; one that is there is replaced. Parquet if it ends in .parquet, otherwise CSV.
        name: of the scores.
        over: initial times to average over.

    Raises:
        EvaluationError: the file cannot be written, or no Case was scored.
        StoreError: there are no scores, or they cannot be read.
    """
    listed = chain.from_iterable(rows(results) for results in _by_variable(store, name, over))
    batches = iter(lambda: list(islice(listed, _ROWS_AT_ONCE)), [])
    try:
        return _write_parquet(path, batches, over) if _is_parquet(path) else _write_csv(path, batches)
    except OSError as error:
        raise EvaluationError(f"the table {path} must be writable, but is not: {error}; give another path") from error


def check_table(path: Path) -> None:
    """Looks whether `write_table` could write there, before hours are spent on what it would write.

    Raises:
        EvaluationError: there is no such folder, or what writes Parquet is not installed.
    """
    if not path.absolute().parent.is_dir():
        raise EvaluationError(f"the table {path} must be in a folder that is there, but is not; give another path")
    if _is_parquet(path):
        _arrow(path)


@dataclass(frozen=True)
class ScoreHeadline:
    """A line of the table that is shown.

    Attributes:
        label: such as ``geopotential 500``.
        unit: of the values.
        variable: which.
        level: hPa; None at the surface.
        values: of a metric by lead time.
        cases: how many initial times are behind them, fewest and most.
    """

    label: str
    unit: str
    variable: str
    level: int | None
    values: tuple[float, ...]
    cases: str


def shown_hours(results: Results) -> list[int]:
    """Lead times of the table: the days of WeatherBench 2's scorecard at which anything was scored, and the last."""
    every = [array.any([dim for dim in array.dims if dim != _LEAD]) for array in results.held.data_vars.values()]
    scored = np.any([array.values for array in every], axis=0)
    hours = (results.values[_LEAD].values[scored] // HOUR).astype(int).tolist()
    return [hour for hour in hours if hour in _SHOWN_HOURS or hour == hours[-1]]


def headlines(results: Results, hours: Sequence[int], metric: str = "rmse") -> list[ScoreHeadline]:
    """One metric of WeatherBench 2's headline variables that were scored; of all variables, if none of these was.

    Args:
        results: averaged over all initial times, of one region.
        hours: lead times.
        metric: which.
    """
    held = [(name, level) for name, level in _HEADLINES if _at(results.values, name, level, metric, hours) is not None]
    if not held:
        held = [(str(name), _first_level(array)) for name, array in results.values.data_vars.items()]
    lines = []
    for name, level in held:
        values, counts = (_at(each, name, level, metric, hours) for each in (results.values, results.counts))
        assert values is not None
        assert counts is not None
        cases = sorted({int(count) for count in counts})
        label = name if level is None else f"{name} {level}"
        span = f"{cases[0]}" if len(cases) == 1 else f"{cases[0]}-{cases[-1]}"
        lines.append(ScoreHeadline(label, _unit(name), name, level, tuple(values), span))
    return lines


def values_of(line: ScoreHeadline, results: Results, metric: str, hours: Sequence[int]) -> list[float]:
    """Another metric of a line of the table, by lead time; NaN where there is none."""
    return _at(results.values, line.variable, line.level, metric, hours) or [np.nan] * len(hours)


def skill_of(line: ScoreHeadline, baseline: Results, hours: Sequence[int]) -> list[float]:
    """1 - RMSE / RMSE of a baseline, by lead time: 1 is perfect, 0 as good as the baseline; NaN where that has none."""
    pairs = zip(line.values, values_of(line, baseline, "rmse", hours), strict=True)
    return [1 - mine / other if other > 0 else np.nan for mine, other in pairs]


def _at(values: xr.Dataset, name: str, level: int | None, metric: str, hours: Sequence[int]) -> list[float] | None:
    """One variable at a level by lead time, of the only region; None if it is not there."""
    if name not in values or ("level" in values[name].dims and level not in values["level"].values):
        return None
    array = values[name].sel(metric=metric).isel(region=0)
    array = array if level is None else array.sel(level=level)
    return [float(value) for value in array.reindex(prediction_timedelta=np.array(hours) * HOUR).values]


def _first_level(array: xr.DataArray) -> int | None:
    return int(array["level"].values[0]) if "level" in array.dims else None


def _unit(name: str) -> str:
    known = VARIABLES.get(VECTORS.get(name, (name,))[0]) or DERIVATIONS.get(name)
    return known.units if known else ""


_Tally = dict[tuple[str, str], xr.Dataset]
"""What adds up over initial times: of the statistics, and of each metric that is averaged itself, the ``sum`` of those
values that are there and their ``count``; of each metric, how many have what it follows from, ``held``."""


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
    """Of the initial times of both, whose groups need not be the same."""
    pairs = {key: xr.align(first[key], second[key], join="outer", fill_value=0) for key in first}
    return {key: ours + theirs for key, (ours, theirs) in pairs.items()}


def _mean(tally: _Tally, name: str) -> xr.Dataset:
    """NaN where nothing was counted."""
    count = tally["count", name]
    return tally["sum", name] / count.where(count > 0)


def _sum(values: xr.Dataset, over: Over) -> xr.Dataset:
    match over:
        case "each":
            return values
        case "all":
            return values.sum("time")
    return values.groupby(f"time.{over}").sum("time")


def _by_variable(store: Path, name: str, over: Over) -> Iterator[Results]:
    """All metrics of one variable after another; those of each initial time some initial times after others."""
    variables = _variables(ScoreStore.at(store, name).dataset())
    variables += [vector for vector, parts in VECTORS.items() if all(part in variables for part in parts)]
    for variable in variables:
        means = pieces(store, name, [variable])
        if over == "each":
            yield from (average(some, over) for some in means)
        else:
            yield average_pieces(means, over)


def _write_csv(path: Path, batches: Iterable[list[dict[str, object]]]) -> int:
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        for batch in batches:
            writer = csv.DictWriter(file, list(batch[0]))
            if not count:
                writer.writeheader()
            writer.writerows(batch)
            count += len(batch)
    return count


def _write_parquet(path: Path, batches: Iterable[list[dict[str, object]]], over: Over) -> int:
    arrow, count = _arrow(path), 0
    group = {"all": [], "each": ["time"]}.get(over, [over])
    kinds = {"level": arrow.int32(), "lead_hours": arrow.int32(), "value": arrow.float64(), "cases": arrow.int64()}
    names = ("variable", "level", "region", "lead_hours", *group, "metric", "value", "cases")
    schema = arrow.schema([(column, kinds.get(column, arrow.string())) for column in names])
    with arrow.parquet.ParquetWriter(path, schema) as writer:
        for batch in batches:
            writer.write_table(arrow.Table.from_pylist(batch, schema))
            count += len(batch)
    return count


def _is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet"


def _arrow(path: Path) -> ModuleType:
    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise EvaluationError(
            f"the package pyarrow must be installed to write {path}, but cannot be imported: {error}; pip install "
            "'graphcast-batch[parquet]', or give a name that ends in .csv"
        ) from error


def _variables(opened: xr.Dataset) -> list[str]:
    """Those that statistics are held of; beside them are the areas of regions, and spectra."""
    return [str(name) for name, array in opened.data_vars.items() if "statistic" in array.dims]


def _needed(opened: xr.Dataset, variables: Sequence[str] | None) -> list[str]:
    """What must be read for some variables, of which vectors are made of others."""
    known = _variables(opened)
    wanted = known if variables is None else list(variables)
    needed = list(dict.fromkeys(part for name in wanted for part in VECTORS.get(name, (name,))))
    absent = [name for name in needed if name not in known]
    if absent:
        raise EvaluationError(
            f"the scores must hold {', '.join(absent)}, but hold {', '.join(known)}; name some of those"
        )
    return needed
