"""Draw one map on axes, whose field, contours and wind can be replaced, for animations."""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Polygon
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from graphcast_batch.coastlines import coastlines
from graphcast_batch.figures.projections import Numbers, PlateCarree, Projection, cells, lines
from graphcast_batch.figures.scales import Scale
from graphcast_batch.figures.scene import Field, Layer, WindLook
from graphcast_batch.grid import Grid

_MISSING: Final = "#d9d9d9"
_INK: Final = "#1a1a1a"
_HALO: Final = withStroke(linewidth=1.4, foreground="#ffffffb0")
_KNOTS: Final = 3600 / 1852
"""Knots in one meter per second; wind barbs are in knots (WMO-No. 485)."""
_BARBS: Final = 280
"""Number of wind barbs on a rectangular map."""
_STREAM: Final = 120
"""Points across a map from which streamlines are computed."""


@dataclass(frozen=True)
class MapBackground:
    """The projection, grid, coastlines and contour values that all maps of a figure share.

    Attributes:
        projection: of the maps.
        grid: of the fields.
        pixels: across the image of a map.
        levels: values of the contours.
        wind: how wind is drawn; None without wind.
    """

    projection: Projection
    grid: Grid
    pixels: int
    levels: NDArray[np.float64]
    wind: WindLook | None

    @cached_property
    def cells(self) -> NDArray[np.intp]:
        """Index of the cell that each pixel shows, (rows, pixels)."""
        return cells(self.projection, self.grid, self.pixels)

    @cached_property
    def coasts(self) -> list[Numbers]:
        """Coastlines on the map."""
        return lines(self.projection, coastlines())

    @cached_property
    def graticule(self) -> list[Numbers]:
        """Meridians and parallels on the map, 30 degrees apart."""
        along, across = np.linspace(-90, 90, 181), np.linspace(-180, 180, 361)
        meridians = [np.stack([np.full(181, float(east)), along], axis=-1) for east in range(-180, 180, 30)]
        parallels = [np.stack([across, np.full(361, float(north))], axis=-1) for north in range(-60, 61, 30)]
        return lines(self.projection, (*meridians, *parallels))

    @cached_property
    def order(self) -> NDArray[np.intp]:
        """Columns of a field from the date line to the date line, with one more at each side to close the globe."""
        order = np.argsort(_wrapped(self.grid.longitude))
        return np.concatenate([order[-1:], order, order[:1]])

    @cached_property
    def points(self) -> tuple[Numbers, Numbers]:
        """Where the points of a field are on the map once its columns are in `order`, (lat, lon + 2) x and y."""
        longitude = _wrapped(self.grid.longitude)[self.order]
        longitude[0] -= 360
        longitude[-1] += 360
        return self.projection.forward(*np.meshgrid(longitude, self.grid.latitude.astype(np.float64)))

    def wind_at(self, x: Numbers, y: Numbers, wind: tuple[Field, Field]) -> tuple[Numbers, Numbers]:
        """Return the wind of the nearest point at positions on the map, along x and y; NaN off the map.

        The speed is that of the wind, whatever the scale of the map.
        """
        longitude, latitude = self.projection.inverse(x, y)
        inside = np.nan_to_num(longitude), np.clip(np.nan_to_num(latitude), -89.9, 89.9)
        row = np.rint((inside[1] - float(self.grid.latitude[0])) / self.grid.latitude_step).astype(int)
        column = np.rint((inside[0] - float(self.grid.longitude[0])) / self.grid.resolution).astype(int)
        at = np.clip(row, 0, self.grid.latitude.size - 1), column % self.grid.longitude.size
        eastward, northward = (component[at].astype(np.float64) for component in wind)
        off = np.where(np.isnan(longitude), np.nan, 0)
        along = self.projection.directions(*inside, eastward + off, northward + off)
        return along[0], along[1]


class Panel:
    """One map on axes, which can be redrawn with other layers."""

    def __init__(self, axes: Axes, ground: MapBackground, scale: Scale, colors: str, *, over: bool) -> None:
        """Draw the parts that do not change: edge, coasts, meridians and parallels.

        Args:
            axes: to draw on.
            ground: shared by the maps of the figure.
            scale: of the field.
            colors: name of a color map.
            over: whether contours or wind will be drawn over the field.
        """
        self._axes, self._ground = axes, ground
        self._over: list[Artist] = []
        left, right, bottom, top = ground.projection.extent
        axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
        edge = Polygon(ground.projection.outline, fill=False, edgecolor="#404040", linewidth=0.6, clip_on=False)
        self._edge = axes.add_patch(edge)
        self.image = axes.imshow(
            np.full(ground.cells.shape, np.nan, np.float32),
            cmap=colormaps[colors].with_extremes(bad=_MISSING),
            vmin=scale.low,
            vmax=scale.high,
            origin="lower",
            extent=(left, right, bottom, top),
        )
        self.image.set_clip_path(edge)
        _draw_degrees(axes) if isinstance(ground.projection, PlateCarree) else self._draw_graticule()
        # Each line has a rim that keeps it visible on similar colors; coasts are pale under dark contours and wind.
        coasts = (("#00000080", 1.2), ("white", 0.6)) if over else (("#ffffff59", 1.2), (_INK, 0.5))
        self._coasts = [self._lines(ground.coasts, color, width) for color, width in coasts]
        middle = ((left + right) / 2, (bottom + top) / 2)
        self._empty = axes.text(*middle, "no data", ha="center", va="center", fontsize="x-large", color="#404040")

    def show(self, layer: Layer, note: str) -> None:
        """Replace the layer that is drawn.

        Args:
            layer: to draw.
            note: text above the map's right corner.
        """
        is_empty = bool(np.isnan(layer.field).all())
        self.image.set_data(np.ma.masked_invalid(layer.field.ravel()[self._ground.cells]))
        self._empty.set_visible(is_empty)
        for coast in self._coasts:
            coast.set_visible(not is_empty)
        self._axes.set_title("" if is_empty else note, loc="right", fontsize="small")
        for artist in self._over:
            artist.remove()
        self._over = [
            *([] if layer.contours is None else self._contours(layer.contours)),
            *([] if layer.wind is None else self._wind(layer.wind)),
        ]

    def contour_line(self, field: Numbers, value: float, color: str, width: float, order: float = 2.0) -> bool:
        """Draw the contour line of one value, which stays; return whether the field has this value.

        Args:
            field: (lat, lon), in displayed units.
            value: of the line.
            color: of the line.
            width: of the line, points.
            order: lines of a higher order are drawn over those of a lower one.
        """
        x, y = self._ground.points
        values = np.ma.masked_invalid(np.where(np.isnan(x), np.nan, field[:, self._ground.order]))
        if not values.count() or not values.min() < value < values.max():
            return False
        at = np.nan_to_num(x), np.nan_to_num(y)
        drawn = self._axes.contour(*at, values, [value], colors=color, linewidths=width, zorder=order)
        drawn.set_clip_path(self._edge)
        return True

    def _lines(self, on_map: list[Numbers], color: str, width: float) -> LineCollection:
        drawn = LineCollection(on_map, colors=color, linewidths=width)
        self._axes.add_collection(drawn, autolim=False)
        drawn.set_clip_path(self._edge)
        return drawn

    def _draw_graticule(self) -> None:
        self._axes.set(xticks=[], yticks=[], frame_on=False)
        self._lines(self._ground.graticule, "#00000040", 0.4)

    def _contours(self, field: Field) -> list[Artist]:
        x, y = self._ground.points
        values = np.ma.masked_invalid(np.where(np.isnan(x), np.nan, field[:, self._ground.order]))
        least, most = (float(extreme) if values.count() else np.nan for extreme in (values.min(), values.max()))
        levels = [level for level in self._ground.levels.tolist() if least < level < most]
        if not levels:
            return []
        drawn = self._axes.contour(np.nan_to_num(x), np.nan_to_num(y), values, levels, colors="black", linewidths=0.6)
        drawn.set_clip_path(self._edge)
        every_other = set(self._ground.levels[::2].tolist())
        labeled = [level for level in levels if level in every_other]
        labels = drawn.clabel(labeled, fmt=_level_text, fontsize=6, inline_spacing=2)
        for label in labels:
            label.set_clip_path(self._edge)
        return [drawn]

    def _wind(self, wind: tuple[Field, Field]) -> list[Artist]:
        projection, is_feathered = self._ground.projection, self._ground.wind == "barbs"
        columns = round(np.sqrt(_BARBS * projection.aspect)) if is_feathered else _STREAM
        at = np.meshgrid(*projection.places(columns))
        along = self._ground.wind_at(*at, wind)
        return self._barbs(*at, *along) if is_feathered else self._streamlines(*at, *along)

    def _barbs(self, x: Numbers, y: Numbers, along_x: Numbers, along_y: Numbers) -> list[Artist]:
        seen = np.isfinite(along_x)
        _, latitude = self._ground.projection.inverse(x[seen], y[seen])
        drawn = self._axes.barbs(
            x[seen],
            y[seen],
            along_x[seen] * _KNOTS,
            along_y[seen] * _KNOTS,
            length=4.5,
            linewidth=0.5,
            color=_INK,
            path_effects=[_HALO],
            flip_barb=latitude < 0,  # feathers point to the lower pressure (WMO-No. 485)
            sizes={"emptybarb": 0.1},
        )
        return [drawn]

    def _streamlines(self, x: Numbers, y: Numbers, along_x: Numbers, along_y: Numbers) -> list[Artist]:
        before = set(self._axes.patches)
        drawn = self._axes.streamplot(
            x[0], y[:, 0], along_x, along_y, density=1.1, color=_INK, linewidth=0.5, arrowsize=0.5
        )
        over = [drawn.lines, *(patch for patch in self._axes.patches if patch not in before)]
        for artist in over:
            artist.set(clip_path=self._edge, path_effects=[_HALO])
        return over


def _draw_degrees(axes: Axes) -> None:
    axes.set(xticks=range(-120, 121, 60), yticks=range(-60, 61, 30))
    axes.xaxis.set_major_formatter(lambda degrees, _: _degrees_text(degrees, "WE"))
    axes.yaxis.set_major_formatter(lambda degrees, _: _degrees_text(degrees, "SN"))


def _degrees_text(degrees: float, sides: str) -> str:
    return f"{abs(degrees):g}°{sides[int(degrees > 0)] if degrees else ''}"


def _level_text(level: float) -> str:
    return f"{level:g}".replace("-", "−")


def _wrapped(longitude: NDArray[np.float32]) -> Numbers:
    return (longitude.astype(np.float64) + 180) % 360 - 180
