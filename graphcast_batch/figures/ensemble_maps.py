"""Draw maps of an ensemble: its mean, error and spread, and one contour line of every member."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from graphcast_batch.ensemble_statistics import RunningMoments
from graphcast_batch.figures.conventions import DIFFERENCES
from graphcast_batch.figures.panel import MapBackground, Panel
from graphcast_batch.figures.projections import Projection
from graphcast_batch.figures.saving import package_style, save
from graphcast_batch.figures.scales import Scale, difference_scale, field_scale
from graphcast_batch.figures.scene import Layer, Quantity
from graphcast_batch.figures.titled_maps import TitledMap, draw_titled_maps
from graphcast_batch.grid import Grid, mean_over_globe
from graphcast_batch.text import counted

Field = NDArray[np.float32]
_PIXELS: Final = 1440
_WIDE: Final = 1.5
"""Width over height from which maps take the full width of their column."""
_SPREAD: Final = "cividis"
_MEMBER, _CONTROL, _TRUTH = "#0072b2", "#d55e00", "#1a1a1a"


@dataclass(frozen=True, eq=False)
class EnsembleScene:
    """What maps of all members at one lead time have in common.

    Attributes:
        of: name, level and unit of the fields.
        grid: the points.
        truth: (lat, lon) in stored units, with latitude ascending; None where there is none.
        control: index of the member that starts from the state as it is; None if there is none.
        when: initial time, valid time and lead time, as texts.
        counted: number of members as text, such as ``8 of 9 members``.
        projection: of the maps.
    """

    of: Quantity
    grid: Grid
    truth: Field | None
    control: int | None
    when: tuple[str, ...]
    counted: str
    projection: Projection

    @property
    def ground(self) -> MapBackground:
        """Projection and grid of the maps."""
        return MapBackground(self.projection, self.grid, _PIXELS, np.empty(0), None)

    @property
    def is_wide(self) -> bool:
        """Whether the maps are much wider than high."""
        return self.projection.aspect >= _WIDE


class EnsembleMap(Protocol):
    """A map of all members, which takes one member after another, so that only one of them is in memory."""

    def add(self, index: int, member: Field) -> None:
        """Take a member.

        Args:
            index: of the member, from 0.
            member: (lat, lon) in stored units, with latitude ascending.
        """

    def draw(self, path: Path) -> None:
        """Write the map of the members that were added as PNG, SVG or PDF by the suffix of the path."""


class MeanAndSpreadMap:
    """Maps of the mean of the members and of their standard deviation, with the truth and the error of the mean.

    Truth and error are left out where there is no truth.
    """

    def __init__(self, scene: EnsembleScene) -> None:
        """Begin without a member."""
        self._scene, self._moments = scene, RunningMoments()

    def add(self, index: int, member: Field) -> None:
        """Take a member, (lat, lon); two at least are needed."""
        self._moments.add(member)

    def draw(self, path: Path) -> None:
        """Write the maps."""
        scene, maps = self._scene, self._maps()
        columns, rows = 2, len(maps) // 2
        with package_style():
            width = 6.3 if scene.is_wide else 4.8
            size = 0.5 + width * columns, 0.9 + rows * (width / scene.projection.aspect + 1.1)
            figure = Figure(figsize=size, layout="compressed")
            axes = figure.subplots(rows, columns, sharex=True, sharey=True)
            draw_titled_maps(figure, axes.ravel(), scene.ground, maps)
            heading = f"{scene.of.title}, mean and standard deviation of {scene.counted}"
            when = "    ".join(scene.when)
            figure.suptitle(f"{heading}\n{when}")
            notes = "; ".join(f"{each.name}: {each.note}" for each in maps if each.note)
            save(figure, path, f"{heading}. {when}. {notes}.")

    def _maps(self) -> list[TitledMap]:
        scene, of, unit = self._scene, self._scene.of, self._scene.of.unit
        mean = unit.convert(self._moments.mean).astype(np.float32)
        spread = unit.of_differences.convert(self._moments.standard_deviation).astype(np.float32)
        truth = None if scene.truth is None else unit.convert(scene.truth).astype(np.float32)
        shown = [each for each in (truth, mean) if each is not None]
        common = (difference_scale if of.convention.is_signed else field_scale)(shown, unit.text)
        apart = field_scale([spread], unit.of_differences.text)
        of_mean = TitledMap("Ensemble mean", mean, common, of.convention.colors, "")
        of_spread = TitledMap("Spread", spread, apart, _SPREAD, f"RMS {_over_globe(scene.grid, spread, apart)}")
        if truth is None:
            return [of_mean, of_spread]
        of_truth = TitledMap("Target", truth, common, of.convention.colors, "")
        error = mean - truth
        wide = difference_scale([error], unit.of_differences.text)
        of_error = TitledMap("Mean − target", error, wide, DIFFERENCES, f"RMSE {_over_globe(scene.grid, error, wide)}")
        return [of_truth, of_mean, of_error, of_spread]


class SpaghettiMap:
    """A map of the contour line of one value for every member, the control and the truth."""

    def __init__(self, scene: EnsembleScene, value: float) -> None:
        """Begin without a member.

        Args:
            scene: of the map.
            value: of the contour lines, in the displayed unit.
        """
        self._scene, self._value, self._missing = scene, value, 0
        lines = 2 if scene.is_wide else 1 + len(scene.when)  # the times of a narrow map are below each other
        width, around = (8.0, 0.9) if scene.is_wide else (6.0, 0.5)
        with package_style():
            size = width, around + 0.2 * lines + width / scene.projection.aspect
            self._figure = Figure(figsize=size, layout="compressed")
            self._panel = Panel(self._figure.subplots(), scene.ground, Scale(0.0, 1.0, ""), "Greys", over=False)
            self._panel.show(Layer(np.zeros(scene.grid.shape, np.float32)), "")
            if scene.truth is not None:
                self._panel.contour_line(scene.of.unit.convert(scene.truth), value, _TRUTH, 1.5, order=2.2)

    def add(self, index: int, member: Field) -> None:
        """Draw the contour line of a member, (lat, lon)."""
        values = self._scene.of.unit.convert(member)
        is_control = index == self._scene.control
        color, width, order = (_CONTROL, 1.5, 2.1) if is_control else (_MEMBER, 0.7, 2.0)
        with package_style():
            self._missing += not self._panel.contour_line(values, self._value, color, width, order=order)

    def draw(self, path: Path) -> None:
        """Write the map."""
        scene, figure, of = self._scene, self._figure, self._scene.of
        lines = [("members", _MEMBER, 0.7)]
        lines += [] if scene.control is None else [("control", _CONTROL, 1.5)]
        lines += [] if scene.truth is None else [("target", _TRUTH, 1.5)]
        with package_style():
            handles = [Line2D([], [], color=color, linewidth=width, label=name) for name, color, width in lines]
            figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
            unit = f" {of.unit.text}" if of.unit.text else ""
            heading = f"{of.name}, {self._value:g}{unit} in {scene.counted}"
            count = counted(self._missing, "member")
            missing = f"{count} {'does' if self._missing == 1 else 'do'} not reach it" if self._missing else ""
            when = ("    " if scene.is_wide else "\n").join(scene.when)
            figure.suptitle("\n".join(part for part in (heading, when, missing) if part))
            alt = [f"Contour lines of {heading}", "    ".join(scene.when), *([missing] if missing else [])]
            save(figure, path, ". ".join(alt))


def control_of(perturbations: Sequence[str], unperturbed: str) -> int | None:
    """Return the index of the only member that starts from the state as it is; None if there is no such one."""
    found = [index for index, each in enumerate(perturbations) if each == unperturbed]
    return found[0] if len(found) == 1 else None


def _over_globe(grid: Grid, values: Field, scale: Scale) -> str:
    """Write the root mean square over the area of the globe, which a map may show a part of."""
    square = mean_over_globe(grid, values.astype(np.float64) ** 2)
    return f"over the globe {scale.number(square**0.5)}{scale.suffix}"
