"""Draw scores of several forecasts as curves over lead time, with a panel for each variable and level."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final, Literal, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator
from numpy.typing import NDArray

from graphcast_batch.errors import FigureError
from graphcast_batch.figures.display_units import Unit, named, unit_of
from graphcast_batch.figures.headings import initial_times_text, lead_ticks, time_unit
from graphcast_batch.figures.saving import package_style, save

Floats = NDArray[np.float64]


class Curve(Protocol):
    """A metric of one variable of one forecast, by lead time."""

    @property
    def name(self) -> str:
        """Name of the forecast or baseline."""

    @property
    def metric(self) -> str:
        """Name of the metric."""

    @property
    def variable(self) -> str:
        """Name of the variable."""

    @property
    def units(self) -> str:
        """Units of the variable, in CF spelling."""

    @property
    def level(self) -> int | None:
        """Pressure, hPa; None at the surface."""

    @property
    def hours(self) -> NDArray[np.int64]:
        """Lead times, (lead,) h."""

    @property
    def values(self) -> Floats:
        """Values of the metric, (lead,), in the unit of the variable if the metric has one; NaN where unknown."""

    @property
    def low(self) -> Floats:
        """Lower end of the confidence interval, (lead,); NaN where unknown."""

    @property
    def high(self) -> Floats:
        """Upper end of the confidence interval, (lead,); NaN where unknown."""

    @property
    def cases(self) -> int:
        """The most initial times that a value averages over."""


_Line = Literal["-", "--", "-.", ":"] | tuple[float, tuple[float, ...]]
_Look = tuple[str, _Line, str]
"""Color, line style and marker."""
_LOOKS: Final[tuple[_Look, ...]] = (
    ("#0072b2", "-", "o"),
    ("#d55e00", "--", "s"),
    ("#009e73", "-.", "^"),
    ("#cc79a7", (0, (5, 1, 1, 1, 1, 1)), "D"),
    ("#e69f00", (0, (3, 1)), "v"),
)
"""Looks that can be distinguished with color blindness (Okabe and Ito 2008), and by line and marker without color."""
_BASELINES: Final[Mapping[str, _Look]] = {
    "persistence": ("#404040", ":", "x"),
    "climatology": ("#808080", (0, (8, 2)), "+"),
}
_METRIC_NAMES: Final = {
    "rmse": "RMSE",
    "acc": "Anomaly correlation",
    "bias": "Bias",
    "mae": "Mean absolute error",
    "crps": "CRPS (of a single forecast the mean absolute error)",
    "energy_score": "Energy score of vectors",
    "error and spread": "RMSE of the ensemble mean, and spread",
}
_WITHOUT_UNIT: Final = ("acc",)
_HEADING_INCHES: Final = 7.6
"""Width of a picture that has room for the heading."""
_MARKERS: Final = 12
"""The most markers on a curve."""


def draw_curves(path: Path, curves: Sequence[Curve], region: str) -> None:
    """Draw one metric, with a panel for each variable and level that has the curves of all forecasts.

    Args:
        path: of the picture, PNG, SVG or PDF by its suffix.
        curves: all of one metric; those of a variable and level follow each other.
        region: name of the region.

    Raises:
        FigureError: there is no curve, or the curves are of several metrics.
    """
    metrics = sorted({curve.metric for curve in curves})
    if len(metrics) != 1:
        raise FigureError(
            f"curves must be of one metric to be drawn, but are of {', '.join(metrics) or 'none'}; draw one at a time"
        )
    panels = [list(group) for _, group in groupby(curves, key=lambda curve: (curve.variable, curve.level))]
    looks = _looks(list(dict.fromkeys(curve.name for curve in curves)))
    with package_style():
        columns = min(len(panels), 4 if len(panels) > 6 else 3)
        rows = -(-len(panels) // columns)
        figure = Figure(figsize=(max(_HEADING_INCHES, 0.4 + 3.3 * columns), 1.25 + 2.35 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for at, panel in zip(axes, panels, strict=False):
            _draw_panel(at, panel, looks)
        for at in axes[len(panels) :]:
            at.set_axis_off()
        for at in axes[max(0, len(panels) - columns) : len(panels)]:
            at.set_xlabel(time_unit(_last(curves))[0])
        figure.suptitle(f"{_METRIC_NAMES.get(metrics[0], metrics[0])}, {region}\n{_confidence_text(curves)}")
        _legend(figure, looks)
        save(figure, path, _alt(panels, metrics[0], region))


def _looks(names: Sequence[str]) -> Mapping[str, _Look]:
    """Choose color, line style and marker for each forecast and baseline, by name."""
    others = iter(_LOOKS * (1 + len(names) // len(_LOOKS)))
    return {name: _BASELINES.get(name) or next(others) for name in names}


def _draw_panel(axes: Axes, curves: Sequence[Curve], looks: Mapping[str, _Look]) -> None:
    unit = _unit(curves[0])
    _, hours_a_unit = time_unit(_last(curves))
    axes.set_facecolor("white")
    for curve in curves:
        color, line, marker = looks[curve.name]
        x = curve.hours / hours_a_unit
        axes.fill_between(x, unit.convert(curve.low), unit.convert(curve.high), color=color, alpha=0.2, linewidth=0)
        axes.plot(
            x,
            unit.convert(curve.values),
            color=color,
            linestyle=line,
            linewidth=1.3,
            marker=marker,
            markersize=3.5,
            markevery=_marked(curve.hours.size),
        )
    if curves[0].metric == "bias":
        axes.axhline(0, color="#404040", linewidth=0.6)
    elif curves[0].metric != "acc":
        axes.set_ylim(bottom=0)
    _lead_axis(axes, _last(curves), hours_a_unit)
    axes.set_title(_heading(curves[0]), loc="left")


def _unit(curve: Curve) -> Unit:
    return Unit("") if curve.metric in _WITHOUT_UNIT else unit_of(curve.variable, curve.units).of_differences


def _heading(curve: Curve) -> str:
    return _unit(curve).heading(named(curve.variable, curve.level))


def _marked(leads: int) -> tuple[int, int]:
    """Return the index of the first lead time with a marker and the distance to the next."""
    every = -(-leads // _MARKERS)
    return every - 1, every


def _last(curves: Sequence[Curve]) -> float:
    return float(max(curve.hours[-1] for curve in curves))


def _lead_axis(axes: Axes, last: float, hours_a_unit: int) -> None:
    """Set the ticks of the lead time axis, with minor ticks at every step where there are few days."""
    axes.xaxis.set_major_locator(lead_ticks(last, hours_a_unit))
    if hours_a_unit > 1:
        axes.xaxis.set_minor_locator(MultipleLocator(0.25 if last <= 120 else 0.5 if last <= 240 else 1.0))
    axes.set_xlim(0, 1.02 * last / hours_a_unit)


def _confidence_text(curves: Sequence[Curve]) -> str:
    """Write the number of initial times, and what the bands mean."""
    cases = max(curve.cases for curve in curves)
    times = initial_times_text(cases)
    if all(np.isnan(curve.low).all() for curve in curves):
        return f"{times}, too few for confidence bands, which need more than 10 days of them"
    return f"{times}; bands: 95 % confidence by bootstrap over blocks of 10 days of initial times"


def _legend(figure: Figure, looks: Mapping[str, _Look]) -> None:
    """Draw one legend for all panels, below them."""
    handles = [
        Line2D([], [], color=color, linestyle=line, marker=marker, markersize=3.5, linewidth=1.3)
        for color, line, marker in looks.values()
    ]
    # matplotlib leaves out labels that begin with an underscore.
    labels = [f" {name}" if name.startswith("_") else name for name in looks]
    figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(looks)), handlelength=3.5)


def _alt(panels: Sequence[Sequence[Curve]], metric: str, region: str) -> str:
    texts = []
    for panel in panels:
        unit = _unit(panel[0])
        ends = ", ".join(f"{curve.name} {_number(unit.convert(curve.values)[-1])}" for curve in panel)
        texts.append(f"{_heading(panel[0])} at {panel[0].hours[-1]} h: {ends}")
    return f"Curves of {_METRIC_NAMES.get(metric, metric)} by lead time, {region}. {'; '.join(texts)}."


def _number(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.3g}"
