"""Select the headline scores of WeatherBench 2 from results, for the table of scores and for curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import xarray as xr

from graphcast_batch.evaluation.derived import DERIVATIONS
from graphcast_batch.evaluation.energy_score import ENERGY
from graphcast_batch.evaluation.metrics import VECTORS
from graphcast_batch.evaluation.score_groups import stored_levels, stored_variables, stored_vectors
from graphcast_batch.evaluation.score_results import Results, read
from graphcast_batch.variables import HOUR, VARIABLES

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
"""Variables and levels (hPa) of the headline scores of Rasp et al. 2024."""
_VECTOR_LEVEL: Final = 850
"""Level (hPa) of the wind vector there, at which energy scores are shown."""
_LEAD: Final = "prediction_timedelta"


@dataclass(frozen=True)
class ScoreHeadline:
    """A line of the table of headline scores.

    Attributes:
        label: such as ``geopotential 500``.
        unit: of the values.
        variable: name of the variable.
        level: hPa; None at the surface.
        values: of one metric by lead time.
        cases: number of initial times that the values average over, as text; fewest and most where they differ.
    """

    label: str
    unit: str
    variable: str
    level: int | None
    values: tuple[float, ...]
    cases: str


def read_headlines(store: Path, name: str, region: str) -> xr.Dataset:
    """Read only the means that `headlines` and `vector_lines` show, since there may be very many initial times.

    Args:
        store: its path.
        name: of the scores.
        region: name of the region.

    Raises:
        StoreError: there are no scores, or they cannot be read.
        EvaluationError: the scores lack the region, or no Case was scored.
    """
    stored = stored_variables(store, name)
    known = [vector for vector, parts in VECTORS.items() if all(part in stored for part in parts)] + stored
    held = stored_levels(store, name)
    variables = [variable for variable in dict(_HEADLINES) if variable in known]
    levels = {level for _, level in _HEADLINES if level is not None and level in held}
    chosen = [*variables, *stored_vectors(store, name)] if variables else known
    return read(store, name, chosen, sorted(levels) or held[:1], [region])


def shown_hours(results: Results) -> list[int]:
    """Return the lead times of the table, h: the days of WeatherBench 2's scorecard that were scored, and the last."""
    every = [array.any([dim for dim in array.dims if dim != _LEAD]) for array in results.held.data_vars.values()]
    scored = np.any([array.values for array in every], axis=0)
    hours = (results.values[_LEAD].values[scored] // HOUR).astype(int).tolist()
    return [hour for hour in hours if hour in _SHOWN_HOURS or hour == hours[-1]]


def headlines(results: Results, hours: Sequence[int], metric: str = "rmse") -> list[ScoreHeadline]:
    """Return one metric of WeatherBench 2's headline variables; of all variables if none of them was scored.

    Args:
        results: averaged over all initial times, of one region.
        hours: lead times, h.
        metric: name of the metric.
    """
    held = [(name, level) for name, level in _HEADLINES if _at(results.values, name, level, metric, hours) is not None]
    return _lines(results, hours, metric, held or _all(results, first_level=True))


def vector_lines(results: Results, hours: Sequence[int], units: Mapping[str, str]) -> list[ScoreHeadline]:
    """Return the energy score of each vector, at 850 hPa or the first level that was read.

    Args:
        results: averaged over all initial times, of one region.
        hours: lead times, h.
        units: of the vectors, by name.
    """
    shown = list[tuple[str, int | None]]()
    for name in [name for name in units if name in results.values]:
        array = results.values[name]
        levels = array["level"].values.tolist() if "level" in array.dims else [None]
        shown.append((name, _VECTOR_LEVEL if _VECTOR_LEVEL in levels else levels[0]))
    lines = _lines(results, hours, ENERGY, shown) if shown else []
    return [replace(line, unit=units[line.variable]) for line in lines]


def all_lines(results: Results, hours: Sequence[int], metric: str) -> list[ScoreHeadline]:
    """Return one metric of all variables at all levels; for the arguments see `headlines`."""
    return _lines(results, hours, metric, _all(results, first_level=False))


def _all(results: Results, *, first_level: bool) -> list[tuple[str, int | None]]:
    """Return each variable at each level, or at the first level only."""
    found = list[tuple[str, int | None]]()
    for name, array in results.values.data_vars.items():
        levels = array["level"].values.tolist() if "level" in array.dims else [None]
        found += [(str(name), level) for level in (levels[:1] if first_level else levels)]
    return found


def _lines(
    results: Results, hours: Sequence[int], metric: str, shown: Sequence[tuple[str, int | None]]
) -> list[ScoreHeadline]:
    """Return one metric of variables at levels."""
    lines = []
    for name, level in shown:
        values, counts = (_at(each, name, level, metric, hours) for each in (results.values, results.counts))
        assert values is not None
        assert counts is not None
        cases = sorted({int(count) for count in counts})
        label = name if level is None else f"{name} {level}"
        span = f"{cases[0]}" if len(cases) == 1 else f"{cases[0]}-{cases[-1]}"
        lines.append(ScoreHeadline(label, unit_of(name), name, level, tuple(values), span))
    return lines


def values_of(line: ScoreHeadline, results: Results, metric: str, hours: Sequence[int]) -> list[float]:
    """Return another metric of a line of the table, by lead time; NaN where it does not exist."""
    return _at(results.values, line.variable, line.level, metric, hours) or [np.nan] * len(hours)


def skill_of(line: ScoreHeadline, baseline: Results, hours: Sequence[int], metric: str = "rmse") -> list[float]:
    """Compute the skill 1 - RMSE / RMSE of a baseline, by lead time: 1 is perfect, 0 as good as the baseline.

    NaN where the baseline has no error.

    Args:
        line: the values of one metric.
        baseline: results to compare with.
        hours: lead times of the line, h.
        metric: the metric of the line, if it is not RMSE.
    """
    pairs = zip(line.values, values_of(line, baseline, metric, hours), strict=True)
    return [1 - mine / other if other > 0 else np.nan for mine, other in pairs]


def _at(values: xr.Dataset, name: str, level: int | None, metric: str, hours: Sequence[int]) -> list[float] | None:
    """Return one variable at a level by lead time, of the only region; None if it was not scored."""
    if name not in values or ("level" in values[name].dims and level not in values["level"].values):
        return None
    array = values[name].sel(metric=metric).isel(region=0)
    array = array if level is None else array.sel(level=level)
    return [float(value) for value in array.reindex(prediction_timedelta=np.array(hours) * HOUR).values]


def unit_of(name: str) -> str:
    """Return the unit of a variable, derived variable or wind vector; empty if it is not known."""
    known = VARIABLES.get(VECTORS.get(name, (name,))[0]) or DERIVATIONS.get(name)
    return known.units if known else ""
