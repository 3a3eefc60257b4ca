"""Fields on the globe become maps: target, prediction and their difference side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from graphcast_batch.errors import FigureError
from graphcast_batch.figures.coastlines import coastlines
from graphcast_batch.figures.png import package_style, write_png
from graphcast_batch.figures.scales import Scale, difference_scale, field_scale, units_text
from graphcast_batch.grid import Grid, cell_area
from graphcast_batch.variables import attributes

Field = NDArray[np.float32]

MOST_ROWS: Final = 8
"""Lead times in one strip; more would be too small to read on a page."""
_MISSING: Final = "#d9d9d9"
_COLUMNS: Final = ("Target", "Prediction", "Prediction − target")


def draw_maps(path: Path, prediction: xr.DataArray, target: xr.DataArray | None = None) -> None:
    """Draws one forecast field: target, prediction and difference, or the prediction alone.

    What the field is (name, units, level, initial and lead time) is read from its name, attributes and scalar
    coordinates. A file that is there already is replaced.

    Args:
        path: of the PNG to write.
        prediction: (latitude, longitude) with latitude in either order and longitude in 0..360; with the scalar
            coordinates ``time`` (initial time), ``prediction_timedelta`` and ``level`` (hPa) where they apply.
        target: what came true, (latitude, longitude) on the same points, in the same units.

    Raises:
        FigureError: other dimensions than these, or a target on other points.
        GridError: the points are not a regular global grid.
    """
    prediction = _upright(prediction, "the prediction")
    target = None if target is None else _upright(target, "the target")
    _draw(path, prediction, [_row(prediction, target)])


def draw_strip(path: Path, prediction: xr.DataArray, target: xr.DataArray | None = None) -> None:
    """Draws a forecast of one field as a row of maps for each lead time, all in the same colours.

    Of many lead times at most `MOST_ROWS` are drawn, evenly chosen, with the first and the last.

    Args:
        path: of the PNG to write.
        prediction: (prediction_timedelta, latitude, longitude), otherwise as for `draw_maps`.
        target: the same for the lead times that have come true, in any number; the others show "no data".

    Raises:
        FigureError: other dimensions than these, no lead time, or a target on other points.
        GridError: the points are not a regular global grid.
    """
    prediction = _upright(prediction, "the prediction", "prediction_timedelta")
    target = None if target is None else _upright(target, "the target", "prediction_timedelta")
    leads = prediction["prediction_timedelta"].values
    if not leads.size:
        raise FigureError(f"a strip of {prediction.name} needs at least one lead time, but the prediction has none")
    drawn = leads[np.unique(np.linspace(0, leads.size - 1, MOST_ROWS).round().astype(int))]
    rows = [_row(prediction.sel(prediction_timedelta=lead), _at_lead(target, lead)) for lead in drawn]
    _draw(path, prediction, rows)


@dataclass(frozen=True)
class _Row:
    """What one row of maps shows.

    Attributes:
        lead: lead time; None where the data do not say.
        prediction: (lat, lon) values, latitude ascending.
        target: the same of what came true; None where nothing is known of it.
    """

    lead: np.timedelta64 | None
    prediction: Field
    target: Field | None

    def fields(self, columns: int) -> tuple[Field, ...]:
        """What stands in the row's columns: three with targets, else one."""
        if columns == 1:
            return (self.prediction,)
        target = np.full_like(self.prediction, np.nan) if self.target is None else self.target
        return target, self.prediction, self.prediction - target


@dataclass(frozen=True)
class _Subject:
    """What all maps of a figure are about.

    Attributes:
        what: variable and level.
        units: as CF attributes spell them; empty without.
        init_time: initial time; None where the data do not say.
    """

    what: str
    units: str
    init_time: np.datetime64 | None

    @property
    def title(self) -> str:
        """Variable, level and units."""
        units = units_text(self.units)
        return f"{self.what} ({units})" if units else self.what

    def when(self, leads: Sequence[np.timedelta64 | None]) -> list[str]:
        """Initial time, and for a single lead time also valid time and lead time."""
        known = [] if self.init_time is None else [f"Initial time {_time_text(self.init_time)}"]
        if len(leads) == 1 and leads[0] is not None:
            if self.init_time is not None:
                known.append(f"Valid time {_time_text(self.init_time + leads[0])}")
            known.append(f"Lead time {_lead_text(leads[0])}")
        return known

    def row_label(self, lead: np.timedelta64 | None) -> str:
        """Lead time over valid time."""
        if lead is None:
            return ""
        valid = "" if self.init_time is None else f"\n{_time_text(self.init_time + lead)}"
        return f"{_lead_text(lead)}{valid}"


def _upright(field: xr.DataArray, whose: str, *leading: str) -> xr.DataArray:
    """The field with its dimensions in order and latitude ascending, so that north comes up."""
    dims = (*leading, "latitude", "longitude")
    if set(field.dims) != set(dims):
        raise FigureError(
            f"{whose} of {field.name} must have the dimensions ({', '.join(dims)}) to be drawn, "
            f"but has ({', '.join(map(str, field.dims))}); select or rename the others"
        )
    return field.transpose(*dims).sortby("latitude")


def _row(prediction: xr.DataArray, target: xr.DataArray | None) -> _Row:
    lead = prediction.coords.get("prediction_timedelta")
    if target is not None:
        _check_points(prediction, target)
    return _Row(
        lead=None if lead is None else np.timedelta64(lead.values),
        prediction=_values(prediction),
        target=None if target is None else _values(target),
    )


def _check_points(prediction: xr.DataArray, target: xr.DataArray) -> None:
    for name in ("latitude", "longitude"):
        ours, theirs = prediction[name].values, target[name].values
        if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=0, atol=1e-3):
            raise FigureError(
                f"the target of {prediction.name} must be on the points of the prediction, whose {name} is "
                f"{_span(ours)}, but its {name} is {_span(theirs)}; regrid it or leave it out"
            )


def _span(degrees: NDArray[np.floating]) -> str:
    return f"{degrees[0]:g}..{degrees[-1]:g} in {degrees.size} values" if degrees.size else "empty"


def _at_lead(field: xr.DataArray | None, lead: np.timedelta64) -> xr.DataArray | None:
    if field is None or lead not in field["prediction_timedelta"].values:
        return None
    return field.sel(prediction_timedelta=lead)


def _values(field: xr.DataArray) -> Field:
    """The field's values, with what is infinite counted as missing."""
    values = np.asarray(field.values, np.float32)
    return np.where(np.isfinite(values), values, np.float32(np.nan))


def _draw(path: Path, prediction: xr.DataArray, rows: list[_Row]) -> None:
    subject = _subject(prediction)
    longitude, latitude = (np.asarray(prediction[name].values, np.float32) for name in ("longitude", "latitude"))
    with package_style():
        figure, scales = _figure(subject, Grid(latitude, longitude), rows)
        write_png(figure, path, title=subject.title, description=_description(subject, rows, scales))


def _subject(field: xr.DataArray) -> _Subject:
    known = {**attributes(str(field.name)), **field.attrs}
    level, init_time = field.coords.get("level"), field.coords.get("time")
    at_level = "" if level is None or level.ndim else f" at {level.item():g} hPa"
    return _Subject(
        what=f"{known['long_name']}{at_level}",
        units=str(known.get("units", "")),
        init_time=None if init_time is None or init_time.ndim else np.datetime64(init_time.values),
    )


def _figure(subject: _Subject, grid: Grid, rows: list[_Row]) -> tuple[Figure, tuple[Scale, Scale]]:
    """Lays the maps out in rows and columns, and gives the scales of the fields and of their differences."""
    columns = 1 if all(row.target is None for row in rows) else 3
    table = [row.fields(columns) for row in rows]
    scales = (
        field_scale([field for fields in table for field in fields[:2]], subject.units),
        difference_scale([fields[2] for fields in table if columns == 3], subject.units),
    )
    figure = Figure(figsize=_inches(len(rows), columns), layout="compressed")
    axes = figure.subplots(len(rows), columns, sharex=True, sharey=True, squeeze=False)
    images = [
        [_panel(axes[i, j], grid, field, scales[j // 2], is_difference=j == 2) for j, field in enumerate(fields)]
        for i, fields in enumerate(table)
    ]
    leads = [row.lead for row in rows]
    _label_panels(axes, [subject.row_label(lead) for lead in leads])
    _colour_bar(figure, images[0][0], axes[:, :2], scales[0], subject.what)
    if columns == 3:
        _colour_bar(figure, images[0][2], axes[:, 2:], scales[1], "Difference")
    figure.suptitle("\n".join([subject.title, "    ".join(subject.when(leads))]).rstrip())
    return figure, scales


def _inches(rows: int, columns: int) -> tuple[float, float]:
    """Width and height that leave little room around maps twice as wide as high."""
    width = 15.0 if columns == 3 else 7.5
    panel = (width - 0.5) / columns / 2
    return width, 1.25 + rows * (panel + 0.2)


def _panel(axes: Axes, grid: Grid, field: Field, scale: Scale, *, is_difference: bool) -> AxesImage:
    """Draws one map, with a line of what its colours do not tell."""
    image = _image(axes, grid, field, scale, colours="RdBu_r" if is_difference else "viridis")
    axes.set(xlim=(-180, 180), ylim=(-90, 90), xticks=range(-120, 121, 60), yticks=range(-60, 61, 30))
    axes.xaxis.set_major_formatter(lambda degrees, _: _degrees_text(degrees, "WE"))
    axes.yaxis.set_major_formatter(lambda degrees, _: _degrees_text(degrees, "SN"))
    if np.isnan(field).all():
        axes.text(0, 0, "no data", ha="center", va="center", fontsize="x-large", color="#404040")
    else:
        _outline_land(axes)
        told = _difference_text(grid, field, scale) if is_difference else _range_text(field, scale)
        axes.set_title(told, loc="right", fontsize="small")
    return image


def _outline_land(axes: Axes) -> None:
    """Dark lines, on a paler rim that keeps them in sight where the colours are dark too."""
    for colour, width in (("#ffffff59", 1.2), ("#1a1a1a", 0.5)):
        axes.add_collection(LineCollection(coastlines(), colors=colour, linewidths=width), autolim=False)


def _image(axes: Axes, grid: Grid, field: Field, scale: Scale, *, colours: str) -> AxesImage:
    """Paints the cells where they are, Greenwich in the middle.

    One column is repeated at each side, so that the cells which the date line cuts show on both sides of it; what
    reaches beyond the date line or a pole is cut off by the axes.
    """
    wrapped = (grid.longitude.astype(np.float64) + 180) % 360 - 180
    order = np.argsort(wrapped)
    order = np.concatenate([order[-1:], order, order[:1]])
    column, row = grid.resolution, float(np.diff(grid.latitude).mean())
    west, south, north = float(wrapped.min()), float(grid.latitude[0]), float(grid.latitude[-1])
    return axes.imshow(
        np.ma.masked_invalid(field[:, order]),
        cmap=colormaps[colours].with_extremes(bad=_MISSING),
        vmin=scale.low,
        vmax=scale.high,
        origin="lower",
        extent=(west - 1.5 * column, west + 360 + 0.5 * column, south - row / 2, north + row / 2),
    )


def _label_panels(axes: NDArray[np.object_], row_labels: list[str]) -> None:
    columns = _COLUMNS if axes.shape[1] == 3 else _COLUMNS[1:2]
    for top, name in zip(axes[0], columns, strict=True):
        top.set_title(name, loc="left", fontweight="bold")
    if len(row_labels) > 1:
        for first, label in zip(axes[:, 0], row_labels, strict=True):
            first.set_ylabel(label)


def _colour_bar(figure: Figure, image: AxesImage, over: NDArray[np.object_], scale: Scale, name: str) -> None:
    """Draws a colour bar below the maps that it holds for."""
    rows, columns = over.shape
    bar = figure.colorbar(
        image,
        ax=over.ravel().tolist(),
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


def _description(subject: _Subject, rows: list[_Row], scales: tuple[Scale, Scale]) -> str:
    """The figure in words, for those who cannot see it."""
    columns = 1 if all(row.target is None for row in rows) else 3
    kind = "Maps" if columns == 3 or len(rows) > 1 else "Map"
    opening = ", ".join([f"{kind} of {subject.title}", *subject.when([row.lead for row in rows])])
    return f"{opening}. {' '.join(_row_description(row, columns, scales, several=len(rows) > 1) for row in rows)}"


def _row_description(row: _Row, columns: int, scales: tuple[Scale, Scale], *, several: bool) -> str:
    names = _COLUMNS if columns == 3 else _COLUMNS[1:2]
    told = []
    for j, (name, field) in enumerate(zip(names, row.fields(columns), strict=True)):
        values = "no data" if np.isnan(field).all() else _range_text(field, scales[j // 2])
        told.append(f"{name}: {values}")
    lead = f"{_lead_text(row.lead)}: " if several and row.lead is not None else ""
    return f"{lead}{', '.join(told)}."


def _range_text(field: Field, scale: Scale) -> str:
    return f"min {scale.number(float(np.nanmin(field)))}, max {scale.number(float(np.nanmax(field)))}{scale.suffix}"


def _difference_text(grid: Grid, field: Field, scale: Scale) -> str:
    """Mean and root mean square over the area of the globe that has values."""
    values = np.ma.masked_invalid(field.astype(np.float64))
    weights = np.broadcast_to(cell_area(grid.latitude)[:, None], field.shape)
    bias, square = (float(np.ma.average(some, weights=weights)) for some in (values, values**2))
    return f"bias {scale.number(bias)}, RMSE {scale.number(np.sqrt(square))}{scale.suffix}"


def _degrees_text(degrees: float, sides: str) -> str:
    return f"{abs(degrees):g}°{sides[int(degrees > 0)] if degrees else ''}"


def _lead_text(lead: np.timedelta64) -> str:
    return f"+{lead / np.timedelta64(1, 'h'):g} h"


def _time_text(time: np.datetime64) -> str:
    return f"{np.datetime_as_string(time, unit='m').replace('T', ' ')} UTC"
