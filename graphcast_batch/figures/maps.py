"""Draw maps of fields on the globe: target, prediction and their difference side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from graphcast_batch.errors import FigureError
from graphcast_batch.figures.conventions import DIFFERENCES
from graphcast_batch.figures.panel import MapBackground, Panel
from graphcast_batch.figures.projections import PLATE_CARREE, PlateCarree, Projection
from graphcast_batch.figures.saving import package_style, save
from graphcast_batch.figures.scales import Scale, contour_levels, difference_scale, field_scale
from graphcast_batch.figures.scene import Field, Row, Scene, Showable, Shown, lead_text, scene
from graphcast_batch.grid import Grid, mean_over_globe

MOST_ROWS: Final = 8
"""The most lead times in one figure; more rows of maps would be too small to read on a page."""
_COLUMNS: Final = ("Target", "Prediction", "Prediction − target")
_WIDE: Final = 1.5
"""Width over height from which maps take the full width of their column."""
_PIXELS: Final = 1440
"""Pixels across the image of a map: one for each cell of a global 0.25° grid."""


def draw_maps(
    path: Path,
    prediction: Showable,
    target: Showable | None = None,
    *,
    projection: Projection = PLATE_CARREE,
    credit: str = "",
) -> None:
    """Draw one forecast field: target, prediction and difference, or the prediction alone.

    Contours and wind are drawn over target and prediction, not over the difference. An existing file is replaced.

    Args:
        path: of the file to write: PNG, SVG or PDF.
        prediction: a field (latitude, longitude), or a field with contours and wind.
        target: the truth, on the same points, in the same units; None to draw the prediction alone.
        projection: of the maps.
        credit: who made the forecast, for the foot of the figure.

    Raises:
        FigureError: the dimensions are others than these, fields are on different points, or the file is of another
            kind.
        GridError: the points are not a regular global grid.
    """
    _draw(path, scene(prediction, target), projection, credit)


def draw_strip(
    path: Path,
    prediction: Showable,
    target: Showable | None = None,
    *,
    projection: Projection = PLATE_CARREE,
    credit: str = "",
) -> None:
    """Draw a forecast of one field as a row of maps for each lead time, all with the same color limits.

    Of many lead times only those of `strip_rows` are drawn.

    Args:
        path: of the file to write: PNG, SVG or PDF.
        prediction: (prediction_timedelta, latitude, longitude), otherwise as for `draw_maps`.
        target: the truth, at any number of the lead times; at the others "no data" is shown. None to draw the
            prediction alone.
        projection: of the maps.
        credit: who made the forecast.

    Raises:
        FigureError: the dimensions are others than these, there is no lead time, fields are on different points, or
            the file is of another kind.
        GridError: the points are not a regular global grid.
    """
    leads = leads_of(prediction)
    leads = [leads[row] for row in strip_rows(len(leads))]
    _draw(path, scene(prediction, target, leads), projection, credit)


def strip_rows(leads: int) -> list[int]:
    """Return the indices of the lead times to draw: at most `MOST_ROWS`, evenly spaced, with the first and last."""
    return [int(row) for row in np.unique(np.linspace(0, leads - 1, MOST_ROWS).round())]


def leads_of(showable: Showable) -> list[np.timedelta64]:
    """Return the lead times of a field along ``prediction_timedelta``.

    Raises:
        FigureError: the field has none.
    """
    field = showable.field if isinstance(showable, Shown) else showable
    leads = field.coords.get("prediction_timedelta", xr.DataArray([]))
    if not leads.size or not leads.ndim:
        raise FigureError(f"{field.name} needs at least one lead time along prediction_timedelta, but has none")
    return list(leads.values)


class Sheet:
    """A figure of maps that can be redrawn with other rows of its scene, for animations."""

    def __init__(self, shown: Scene, projection: Projection, credit: str, *, rows: int, panel_pixels: int) -> None:
        """Lay out maps, titles and color bars, with scales for all rows of the scene; draw the first rows.

        Args:
            shown: what the figure shows.
            projection: of the maps.
            credit: who made the forecast.
            rows: number of rows of maps in the figure.
            panel_pixels: pixels across the image of a map.
        """
        self._shown = shown
        self.scales = _scales(shown)
        levels = _contour_levels(shown)
        ground = MapBackground(projection, shown.grid, panel_pixels, levels, shown.wind)
        # The times of a narrow figure would be cut off in one line.
        self._between = "\n" if shown.columns == 1 and projection.aspect < _WIDE else "    "
        lines = 2 + len(shown.over) + bool(credit) + 2 * (self._between == "\n")
        self.figure = Figure(figsize=_inches(rows, shown.columns, projection.aspect, lines), layout="compressed")
        self.axes = self.figure.subplots(rows, shown.columns, sharex=True, sharey=True, squeeze=False)
        self.colors = (shown.field.convention.colors, DIFFERENCES)[: 1 + shown.columns // 3]
        self.panels = [
            [
                Panel(axes, ground, self.scales[j // 2], self.colors[j // 2], over=bool(shown.over) and j < 2)
                for j, axes in enumerate(row)
            ]
            for row in self.axes
        ]
        self.heading = self.figure.suptitle("")
        self.show(shown.rows[:rows])
        self._label(credit)

    def show(self, rows: Sequence[Row]) -> None:
        """Replace the rows of maps by others."""
        for panels, row in zip(self.panels, rows, strict=True):
            for j, (panel, layer) in enumerate(zip(panels, row.layers(self._shown.columns), strict=True)):
                describe = _difference_text if j == 2 else _range_text
                is_empty = bool(np.isnan(layer.field).all())
                panel.show(layer, "" if is_empty else describe(self._shown.grid, layer.field, self.scales[j // 2]))
        leads = [row.lead for row in rows]
        if len(rows) > 1:
            for first, lead in zip(self.axes[:, 0], leads, strict=True):
                first.set_ylabel(self._shown.row_label(lead))
        heading = [self._shown.field.title, *self._shown.over, self._between.join(self._shown.when(leads))]
        self.heading.set_text("\n".join(heading).rstrip())

    def _label(self, credit: str) -> None:
        for top, name in zip(self.axes[0], _names(self._shown), strict=True):
            top.set_title(name, loc="left", fontweight="bold")
        _color_bar(self.figure, self.panels[0][0].image, self.axes[:, :2], self.scales[0], self._shown.field.name)
        if self._shown.columns == 3:
            _color_bar(self.figure, self.panels[0][2].image, self.axes[:, 2:], self.scales[1], "Difference")
        if credit:
            self.figure.supxlabel(credit, x=0.99, ha="right", fontsize="x-small", color="#606060")


def description(shown: Scene, scales: tuple[Scale, Scale], projection: Projection) -> str:
    """Return the alternative text of the figure, for people who cannot see it."""
    several = len(shown.rows) > 1
    kind = "Maps" if shown.columns == 3 or several else "Map"
    on = [] if isinstance(projection, PlateCarree) else [f"in {projection.title}"]
    opening = [f"{kind} of {shown.field.title}", *shown.over, *on, *shown.when([row.lead for row in shown.rows])]
    return f"{', '.join(opening)}. {' '.join(_row_description(shown, row, scales) for row in shown.rows)}"


def _draw(path: Path, shown: Scene, projection: Projection, credit: str) -> None:
    with package_style():
        sheet = Sheet(shown, projection, credit, rows=len(shown.rows), panel_pixels=_PIXELS)
        save(sheet.figure, path, description(shown, sheet.scales, projection))


def _scales(shown: Scene) -> tuple[Scale, Scale]:
    """Return the scale of the fields, and that of their differences."""
    table = [row.layers(shown.columns) for row in shown.rows]
    unit = shown.field.unit
    of_fields = difference_scale if shown.field.convention.is_signed else field_scale
    return (
        of_fields([layer.field for layers in table for layer in layers[:2]], unit.text),
        difference_scale([layers[2].field for layers in table if len(layers) == 3], unit.of_differences.text),
    )


def _contour_levels(shown: Scene) -> NDArray[np.float64]:
    layers = [layer for row in shown.rows for layer in (row.prediction, row.target) if layer]
    drawn = [layer.contours for layer in layers if layer.contours is not None]
    return contour_levels(drawn, shown.contours.convention.interval if shown.contours else None)


def _inches(rows: int, columns: int, aspect: float, lines: int) -> tuple[float, float]:
    """Return width and height of a figure with little room around maps and lines of text."""
    width = (4.83 if columns == 3 else 7.0) * (1 if aspect >= _WIDE else 0.75)
    return 0.5 + columns * width, 0.8 + 0.2 * lines + rows * (width / aspect + 0.2)


def _names(shown: Scene) -> tuple[str, ...]:
    return _COLUMNS if shown.columns == 3 else _COLUMNS[1:2]


def _color_bar(figure: Figure, image: AxesImage, over: NDArray[np.object_], scale: Scale, name: str) -> None:
    """Draw a color bar below the maps that it belongs to."""
    rows, columns = over.shape
    axes: list[Axes] = over.ravel().tolist()
    bar = figure.colorbar(
        image,
        ax=axes,
        location="bottom",
        extend=scale.extend,
        extendfrac=0.03,
        shrink=0.8,
        aspect=30 * columns,
        pad=0.02 / rows,
    )
    positions, labels = scale.ticks()
    bar.set_ticks(positions, labels=labels)
    bar.set_label(f"{name} ({scale.label})" if scale.label else name)


def _row_description(shown: Scene, row: Row, scales: tuple[Scale, Scale]) -> str:
    texts = []
    for j, (name, layer) in enumerate(zip(_names(shown), row.layers(shown.columns), strict=True)):
        empty = bool(np.isnan(layer.field).all())
        texts.append(f"{name}: {'no data' if empty else _range_text(shown.grid, layer.field, scales[j // 2])}")
    lead = f"{lead_text(row.lead)}: " if len(shown.rows) > 1 and row.lead is not None else ""
    return f"{lead}{', '.join(texts)}."


def _range_text(_: Grid, field: Field, scale: Scale) -> str:
    return f"min {scale.number(float(np.nanmin(field)))}, max {scale.number(float(np.nanmax(field)))}{scale.suffix}"


def _difference_text(grid: Grid, field: Field, scale: Scale) -> str:
    """Write mean and root mean square over the area of the globe that has values."""
    values = field.astype(np.float64)
    bias, square = mean_over_globe(grid, values), mean_over_globe(grid, values**2)
    return f"bias {scale.number(bias)}, RMSE {scale.number(np.sqrt(square))}{scale.suffix}"
