"""Prepare the scores of a store for the report: scorecards against other forecasts, and curves over lead time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.errors import EvaluationError, GraphcastBatchError
from graphcast_batch.evaluation.ensemble import ENSEMBLE
from graphcast_batch.evaluation.ensemble_curves import crps_curves, spread_curves
from graphcast_batch.evaluation.lagged import LAGGED
from graphcast_batch.evaluation.past_years import CLIMATOLOGY_YEARS
from graphcast_batch.evaluation.pointwise_statistics import CRPS
from graphcast_batch.evaluation.score_curves import ScoreCurve, curves
from graphcast_batch.evaluation.score_differences import ScoreDifferences, score_differences
from graphcast_batch.evaluation.score_results import scored
from graphcast_batch.evaluation.score_store import FORECAST, ScoreStore
from graphcast_batch.figures.display_units import named, unit_of
from graphcast_batch.report.choice import HEADLINES, evenly
from graphcast_batch.report.summary import Opened

Where = tuple[Path, str]
"""Path of a store, and the name of scores in it."""
_MOST_COLUMNS: Final = 16
_GLOBAL: Final = "global"
_FULL: Final = 0.5
"""Relative difference that is shown in full color."""


@dataclass(frozen=True)
class Cell:
    """One relative difference of root mean square errors.

    Attributes:
        text: the difference, such as ``−12 %``; empty if there is none.
        kind: ``better``, ``worse`` or empty.
        share: strength of the color in percent.
        is_significant: whether the difference is statistically significant.
    """

    text: str
    kind: str
    share: int
    is_significant: bool


Row = tuple[str, tuple[Cell, ...]]


@dataclass(frozen=True)
class Card:
    """The scorecard against one other forecast.

    Attributes:
        name: name of the other forecast.
        columns: lead times, as text.
        headlines: label and cells of each headline variable.
        rest: label and cells of each other variable and level.
        cases: largest number of initial times in a cell.
        is_tested: whether there are enough initial times for a test of significance.
    """

    name: str
    columns: tuple[str, ...]
    headlines: tuple[Row, ...]
    rest: tuple[Row, ...]
    cases: int
    is_tested: bool


@dataclass(frozen=True)
class SkillHeadline:
    """A row of the table of errors.

    Attributes:
        label: variable and level.
        units: unit of the errors.
        values: pairs of lead time and error, as text.
    """

    label: str
    units: str
    values: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Skill:
    """The scores of a store, as the report shows them.

    Attributes:
        region: region of the scores.
        cards: scorecards against each baseline, and against another store.
        headlines: RMSE of headline variables by lead time.
        ensembles: tables of scores that only ensembles have, each with its caption.
        charts: curves, to be written as JSON.
        notes: texts on comparisons that are not possible.
    """

    region: str
    cards: tuple[Card, ...]
    headlines: tuple[SkillHeadline, ...]
    ensembles: tuple[tuple[str, tuple[SkillHeadline, ...]], ...]
    charts: list[dict[str, Any]]
    notes: tuple[str, ...]


def skill(opened: Opened, other: Opened | None, region: str | None) -> Skill | None:
    """Return the scores of a store; None if no forecast was scored.

    Args:
        opened: the store.
        other: another store, to compare with.
        region: name of the region; None for the globe, or the first region if the globe was not scored.

    Raises:
        StoreError: the scores cannot be read.
        EvaluationError: there are no scores of the region.
    """
    path = opened.store.path
    if not scored(path, FORECAST):
        return None
    ours, where = (path, FORECAST), region or _first_region(path)
    others, notes = _others(opened, other)
    cards = list[Card]()
    for name, theirs in others.items():
        try:
            cards.append(_card(name, score_differences(ours, theirs, where)))
        except GraphcastBatchError as error:
            notes.append(f"Not compared with {name}: {error}")
    compared = {card.name: others[card.name] for card in cards}
    try:
        found = curves({opened.name: ours, **compared}, where)
    except EvaluationError as error:
        notes.append(f"Curves of this store alone: {error}")
        found = curves({opened.name: ours}, where)
    of_ensembles = {name: (path, name) for name in (ENSEMBLE, LAGGED, CLIMATOLOGY_YEARS) if scored(path, name)}
    tables, more = _of_ensembles({opened.name: ours}, of_ensembles, where, notes)
    rows = _headlines(found, opened.name)
    return Skill(where, tuple(cards), rows, tables, _charts([*found, *more]), tuple(notes))


def lead_text(hours: int) -> str:
    """Return a lead time as text, in days if it is a number of full days."""
    return f"{hours // 24} d" if hours % 24 == 0 else f"{hours} h"


def cell(relative: float, significant: bool) -> Cell:
    """Return the cell of a relative difference."""
    if not math.isfinite(relative):
        return Cell("", "", 0, False)
    text = f"{100 * relative:+.0f} %".replace("-", "−")
    kind = "better" if relative < 0 else "worse" if relative > 0 else ""
    return Cell(text, kind, round(100 * min(1.0, abs(relative) / _FULL)), significant)


def _first_region(path: Path) -> str:
    regions = [str(name) for name in ScoreStore.at(path, FORECAST).dataset()["region"].values.tolist()]
    return _GLOBAL if _GLOBAL in regions else regions[0]


def _others(opened: Opened, other: Opened | None) -> tuple[dict[str, Where], list[str]]:
    """Return the scores that a store can be compared with, by name, and notes on those that it cannot."""
    path = opened.store.path
    names = [
        found.name for found in ScoreStore.all_of(path) if not found.added_to and found.name not in (FORECAST, ENSEMBLE)
    ]
    found = {name: (path, name) for name in names if scored(path, name)}
    if other is None:
        return found, []
    if not scored(other.store.path, FORECAST):
        return found, [f"Not compared with {other.name}: it was not scored."]
    return {**found, other.name: (other.store.path, FORECAST)}, []


def _card(name: str, found: ScoreDifferences) -> Card:
    columns = evenly(range(len(found.hours)), _MOST_COLUMNS)
    rows = {
        row: (named(*row), tuple(cell(float(found.relative[n, m]), bool(found.significant[n, m])) for m in columns))
        for n, row in enumerate(found.rows)
    }
    headlines = tuple(rows[row] for row in HEADLINES if row in rows)
    rest = tuple(cells for row, cells in rows.items() if row not in HEADLINES)
    leads = tuple(lead_text(found.hours[m]) for m in columns)
    return Card(name, leads, headlines, rest, found.cases, bool(found.tested.any()))


def _of_ensembles(
    ours: Mapping[str, Where], others: Mapping[str, Where], region: str, notes: list[str]
) -> tuple[tuple[tuple[str, tuple[SkillHeadline, ...]], ...], list[ScoreCurve]]:
    """Return tables and curves of the scores of ensembles; add a note where there can be none."""
    if not others:
        return (), []
    try:
        crps = crps_curves({**ours, **others}, region)
        spread = {name: spread_curves(*where, region) for name, where in others.items()}
    except GraphcastBatchError as error:
        notes.append(f"Scores of ensembles: {error}")
        return (), []
    tables = list[tuple[str, tuple[SkillHeadline, ...]]]()
    for name, found in spread.items():
        tables.append((f"CRPS of {name}", _headlines(crps, name, CRPS)))
        tables.append((f"Spread over error of the mean, {name}: 1 if reliable", _ratios(found)))
    return tuple(tables), [*crps, *(curve for found in spread.values() for curve in found)]


def _ratios(found: Sequence[ScoreCurve]) -> tuple[SkillHeadline, ...]:
    """Return the ratio of spread and error by lead time, from the curves of both."""
    pairs: dict[tuple[str, int | None], list[ScoreCurve]] = {}
    for curve in found:
        pairs.setdefault((curve.variable, curve.level), []).append(curve)
    lines = []
    for field, (error, spread) in pairs.items():
        ratios = np.divide(spread.values, error.values, out=np.full(error.values.shape, np.nan), where=error.values > 0)
        shown = evenly(list(zip(error.hours.tolist(), ratios.tolist(), strict=True)), _MOST_COLUMNS)
        values = tuple((lead_text(hours), f"{ratio:.2f}" if math.isfinite(ratio) else "") for hours, ratio in shown)
        lines.append(SkillHeadline(named(*field), "", values))
    return tuple(lines)


def _headlines(found: Sequence[ScoreCurve], name: str, metric: str = "rmse") -> tuple[SkillHeadline, ...]:
    lines = []
    for curve in found:
        if (curve.name, curve.metric) == (name, metric):
            unit = unit_of(curve.variable, curve.units).of_differences
            pairs = evenly(
                list(zip(curve.hours.tolist(), unit.convert(curve.values).tolist(), strict=True)), _MOST_COLUMNS
            )
            values = tuple((lead_text(hours), f"{value:.3g}" if math.isfinite(value) else "") for hours, value in pairs)
            lines.append(SkillHeadline(named(curve.variable, curve.level), unit.text, values))
    return tuple(lines)


def _charts(found: Sequence[ScoreCurve]) -> list[dict[str, Any]]:
    """Return a chart for each metric, variable and level, with a line for each forecast."""
    charts: dict[tuple[str, str, int | None], dict[str, Any]] = {}
    for curve in found:
        unit = unit_of(curve.variable, curve.units).of_differences
        plain = curve.metric == "acc"
        chart = charts.setdefault(
            (curve.metric, curve.variable, curve.level),
            {
                "metric": curve.metric,
                "label": named(curve.variable, curve.level),
                "units": "" if plain else unit.text,
                "hours": curve.hours.tolist(),
                "lines": [],
            },
        )
        factor = 1.0 if plain else unit.factor
        parts: Mapping[str, NDArray[np.float64]] = {"values": curve.values, "low": curve.low, "high": curve.high}
        line = {key: [_number(factor * value) for value in values] for key, values in parts.items()}
        chart["lines"].append({"name": curve.name, "cases": curve.cases, **line})
    return list(charts.values())


def _number(value: float) -> float | None:
    """Round a number to 5 digits; return None for NaN and infinity, which JSON does not have."""
    return float(f"{value:.5g}") if math.isfinite(value) else None
