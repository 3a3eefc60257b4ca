"""Draw maps of an ensemble: its mean and spread, and one contour line of every member."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from graphcast_batch.figures.panel import MapBackground, Panel
from graphcast_batch.figures.projections import Projection
from graphcast_batch.figures.saving import package_style, save
from graphcast_batch.figures.scales import Scale, difference_scale, field_scale
from graphcast_batch.figures.scene import Layer, Quantity
from graphcast_batch.grid import Grid, cell_area
from graphcast_batch.text import counted

Fields = NDArray[np.float32]
_PIXELS: Final = 1440
_WIDE: Final = 1.5
"""Width over height from which maps take the full width of their column."""
_SPREAD: Final = "cividis"
_MEMBER, _CONTROL, _TRUTH = "#0072b2", "#d55e00", "#1a1a1a"


@dataclass(frozen=True, eq=False)
class EnsembleFields:
    """The fields of all members at one lead time, in stored units, with latitude ascending.

    Attributes:
        of: name, level and unit of the fields.
        grid: the points.
        members: (member, lat, lon).
        truth: (lat, lon); None where there is none.
        control: index of the member that starts from the state as it is; None if there is none.
        when: initial time, valid time and lead time, as text.
        counted: number of members as text, such as ``8 of 9 members``.
    """

    of: Quantity
    grid: Grid
    members: Fields
    truth: Fields | None
    control: int | None
    when: str
    counted: str


def draw_mean_and_spread(path: Path, fields: EnsembleFields, projection: Projection) -> None:
    """Draw the truth where it is available, the mean of the members, and their standard deviation.

    Args:
        path: of the picture, PNG, SVG or PDF by its suffix.
        fields: of all members, two at least.
        projection: of the maps.
    """
    of, unit = fields.of, fields.of.unit
    members = fields.members.astype(np.float64)
    mean = unit.convert(members.mean(axis=0)).astype(np.float32)
    spread = unit.of_differences.convert(members.std(axis=0, ddof=1)).astype(np.float32)
    truth = None if fields.truth is None else unit.convert(fields.truth).astype(np.float32)
    shown = [each for each in (truth, mean) if each is not None]
    common = (difference_scale if of.convention.is_signed else field_scale)(shown, unit.text)
    apart = field_scale([spread], unit.of_differences.text)
    error = "" if truth is None else f"RMSE {_over_globe(fields.grid, mean - truth, apart)}"
    columns = [
        *([] if truth is None else [("Target", truth, common, of.convention.colors, "")]),
        ("Ensemble mean", mean, common, of.convention.colors, error),
        ("Spread", spread, apart, _SPREAD, f"over the globe {_over_globe(fields.grid, spread, apart)}"),
    ]
    with package_style():
        width = (4.83 if len(columns) == 3 else 6.3) * (1 if projection.aspect >= _WIDE else 0.75)
        size = 0.5 + width * len(columns), 2.0 + width / projection.aspect
        figure = Figure(figsize=size, layout="compressed")
        ground = MapBackground(projection, fields.grid, _PIXELS, np.empty(0), None)
        for axes, (name, values, scale, colors, note) in zip(figure.subplots(1, len(columns)), columns, strict=True):
            panel = Panel(axes, ground, scale, colors, over=False)
            panel.show(Layer(values), note)
            axes.set_title(name, loc="left", fontweight="bold")
            bar = figure.colorbar(panel.image, ax=axes, location="bottom", extend=scale.extend, shrink=0.8, aspect=30)
            positions, labels = scale.ticks()
            bar.set_ticks(positions, labels=labels)
            bar.set_label(scale.label)
        heading = f"{of.title}, mean and standard deviation of {fields.counted}"
        figure.suptitle(f"{heading}\n{fields.when}")
        notes = "; ".join(f"{name}: {note}" for name, *_, note in columns if note)
        save(figure, path, f"{heading}. {fields.when}. {notes}.")


def draw_spaghetti(path: Path, fields: EnsembleFields, value: float, projection: Projection) -> None:
    """Draw the contour line of one value for every member, the control and the truth.

    Args:
        path: of the picture, PNG, SVG or PDF by its suffix.
        fields: of all members.
        value: of the contour line, in the displayed unit.
        projection: of the map.
    """
    of = fields.of
    with package_style():
        width = 8.0 if projection.aspect >= _WIDE else 6.0
        figure = Figure(figsize=(width, 1.3 + width / projection.aspect), layout="compressed")
        ground = MapBackground(projection, fields.grid, _PIXELS, np.empty(0), None)
        panel = Panel(figure.subplots(), ground, Scale(0.0, 1.0, ""), "Greys", over=False)
        panel.show(Layer(np.zeros(fields.members.shape[1:], np.float32)), "")
        drawn = 0
        for number, member in enumerate(fields.members):
            if number != fields.control:
                drawn += panel.contour_line(of.unit.convert(member), value, _MEMBER, 0.7)
        lines = [("members", _MEMBER, 0.7)]
        if fields.control is not None:
            drawn += panel.contour_line(of.unit.convert(fields.members[fields.control]), value, _CONTROL, 1.5)
            lines.append(("control", _CONTROL, 1.5))
        if fields.truth is not None:
            panel.contour_line(of.unit.convert(fields.truth), value, _TRUTH, 1.5)
            lines.append(("target", _TRUTH, 1.5))
        handles = [Line2D([], [], color=color, linewidth=width, label=name) for name, color, width in lines]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
        unit = f" {of.unit.text}" if of.unit.text else ""
        heading = f"{of.name}, {value:g}{unit} in {fields.counted}"
        beyond = len(fields.members) - drawn
        missing = f"\n{counted(beyond, 'member')} {'does' if beyond == 1 else 'do'} not reach it" if beyond else ""
        figure.suptitle(f"{heading}\n{fields.when}{missing}")
        save(figure, path, f"Contour lines of {heading}. {fields.when}.{missing}")


def control_of(perturbations: Sequence[str], unperturbed: str) -> int | None:
    """Return the index of the only member that starts from the state as it is; None if there is no such one."""
    found = [index for index, each in enumerate(perturbations) if each == unperturbed]
    return found[0] if len(found) == 1 else None


def _over_globe(grid: Grid, values: Fields, scale: Scale) -> str:
    """Write the root mean square over the area of the globe."""
    weights = np.broadcast_to(cell_area(grid.latitude)[:, np.newaxis], values.shape)
    square = np.ma.average(np.ma.masked_invalid(values.astype(np.float64)) ** 2, weights=weights)
    return f"{scale.number(float(np.sqrt(square)))}{scale.suffix}"
