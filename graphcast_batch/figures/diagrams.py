"""Draw Hovmöller diagrams, zonal mean sections and time series of a forecast, compared with the truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from numpy.typing import NDArray

from graphcast_batch.figures.conventions import DIFFERENCES
from graphcast_batch.figures.headings import label_valid_times, lead_ticks, time_unit
from graphcast_batch.figures.map_points import NamedPoint, nearest
from graphcast_batch.figures.saving import package_style, save
from graphcast_batch.figures.scales import Scale, difference_scale, field_scale
from graphcast_batch.figures.scene import Quantity, quantity
from graphcast_batch.variables import HOUR

Floats = NDArray[np.float64]
_COLUMNS: Final = ("Target", "Prediction", "Prediction − target")
_BLUE, _BLACK = "#0072b2", "#1a1a1a"
_PRESSURES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 300, 500, 700, 850, 1000)
_COLORS_A_SECTION: Final = 16


def draw_hovmoller(path: Path, prediction: xr.DataArray, target: xr.DataArray, band: tuple[float, float]) -> None:
    """Draw longitude by time: target, prediction and difference, or the prediction alone where there is no truth.

    Args:
        path: of the picture, PNG, SVG or PDF by its suffix.
        prediction: (prediction_timedelta, longitude) mean over a band of latitudes, in stored units.
        target: the truth, same dimensions; NaN where it is not available.
        band: southern and northern edge of the band, degrees.
    """
    of = quantity(prediction)
    wrapped = (prediction["longitude"].values.astype(np.float64) + 180) % 360 - 180
    order = np.argsort(wrapped)
    order = np.concatenate([order[-1:], order, order[:1]])  # cells that the date line cuts are drawn on both sides
    across = wrapped[order] + np.array([-360, *[0] * wrapped.size, 360])
    hours = prediction["prediction_timedelta"].values / HOUR
    name, hours_a_unit = time_unit(float(hours[-1]))
    down = _edges(hours / hours_a_unit)
    with package_style():
        sheet = _Sheet(of, prediction.values[:, order], target.values[:, order], panel=(4.2, 4.0))
        for axes, values, norm, colors in sheet.panels:
            axes.pcolormesh(_edges(across), down, values, norm=norm, cmap=colors)
            axes.set(xlim=(-180, 180), ylim=(down[-1], down[0]), xlabel="Longitude", xticks=range(-120, 121, 60))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda degrees, _: _degrees(degrees, "WE")))
            axes.yaxis.set_major_locator(lead_ticks(float(hours[-1]), hours_a_unit))
        sheet.panels[0].axes.set_ylabel(name)
        what = f"mean of {_degrees(band[0], 'SN')} to {_degrees(band[1], 'SN')}"
        sheet.finish(path, f"Hovmöller diagram, {what}", f"Initial time {_start(prediction)}")


def draw_section(path: Path, prediction: xr.DataArray, target: xr.DataArray) -> None:
    """Draw latitude by pressure: target, prediction and difference of zonal means, or the prediction alone.

    Args:
        path: of the picture, PNG, SVG or PDF by its suffix.
        prediction: (level, latitude) zonal mean, in stored units, with the scalar coordinates ``time`` and
            ``prediction_timedelta``; levels in hPa, both ascending.
        target: the truth, same dimensions; NaN where it is not available.
    """
    of = quantity(prediction)
    levels, latitude = (prediction[name].values.astype(np.float64) for name in ("level", "latitude"))
    lead = prediction["prediction_timedelta"].values
    with package_style():
        sheet = _Sheet(of, prediction.values, target.values, panel=(4.2, 3.4))
        for axes, values, norm, colors in sheet.panels:
            steps = np.linspace(norm.vmin or 0.0, norm.vmax or 0.0, _COLORS_A_SECTION + 1)
            axes.contourf(latitude, levels, np.ma.masked_invalid(values), steps, norm=norm, cmap=colors, extend="both")
            axes.set(yscale="log", ylim=(levels[-1], levels[0]), xlabel="Latitude", xticks=range(-60, 61, 30))
            axes.set_yticks([level for level in _PRESSURES if levels[0] <= level <= levels[-1]])
            axes.yaxis.set_major_formatter(FuncFormatter(lambda level, _: f"{level:g}"))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda degrees, _: _degrees(degrees, "SN")))
        sheet.panels[0].axes.set_ylabel("Pressure (hPa)")
        when = f"Initial time {_start(prediction)}    Lead time +{lead / HOUR:g} h"
        sheet.finish(path, "zonal mean", when)


def draw_series(path: Path, place: NamedPoint, prediction: xr.DataArray, target: xr.DataArray) -> None:
    """Draw a variable at a grid point over time.

    Args:
        path: of the picture, PNG, SVG or PDF by its suffix.
        place: the named point that the grid point is nearest to.
        prediction: (prediction_timedelta,) in stored units, with the scalar coordinates ``time`` (initial time),
            ``latitude`` and ``longitude`` of the grid point and, on levels, ``level``.
        target: the truth, same dimensions; NaN where it is not available.
    """
    of = quantity(prediction)
    ours, theirs = of.unit.convert(prediction.values), of.unit.convert(target.values)
    point = nearest(place, np.atleast_1d(prediction["latitude"]), np.atleast_1d(prediction["longitude"]))
    times = prediction["time"].values + prediction["prediction_timedelta"].values
    with package_style():
        figure = Figure(figsize=(7.0, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.set_facecolor("white")
        if np.isfinite(theirs).any():
            axes.plot(times, theirs, "o-", color=_BLACK, linewidth=0.8, markersize=3, label="target")
        axes.plot(times, ours, "s--", color=_BLUE, linewidth=1.2, markersize=3, label="prediction")
        label_valid_times(axes)
        figure.legend(loc="outside lower center", ncols=2)
        figure.suptitle(f"{of.title}, {place.name}\nInitial time {_start(prediction)}    {point.description}")
        span = f"from {ours[0]:.4g} to {ours[-1]:.4g}, between {np.nanmin(ours):.4g} and {np.nanmax(ours):.4g}"
        save(figure, path, f"{of.title}, {place.name} ({point.description}): prediction {span}.")


class _Panel(NamedTuple):
    """One panel of a figure: values in displayed units, with color map and limits."""

    axes: Axes
    values: Floats
    norm: Normalize
    colors: str


class _Sheet:
    """A figure of target, prediction and difference side by side, or the prediction alone, with color bars below."""

    def __init__(self, of: Quantity, prediction: Floats, target: Floats, panel: tuple[float, float]) -> None:
        """Lay out the panels.

        Args:
            of: name, unit and convention of the values.
            prediction: values in stored units.
            target: the truth, same dimensions; NaN where it is not available.
            panel: width and height, inches.
        """
        self._of = of
        ours, theirs = (of.unit.convert(values) for values in (prediction, target))
        self._shown = [ours] if np.isnan(theirs).all() else [theirs, ours, ours - theirs]
        of_fields = difference_scale if of.convention.is_signed else field_scale
        scale = of_fields([values.astype(np.float32) for values in self._shown[:2]], of.unit.text)
        apart = [values.astype(np.float32) for values in self._shown[2:]]
        self._scales = (scale, difference_scale(apart, of.unit.of_differences.text))
        count = len(self._shown)
        self.figure = Figure(figsize=(0.6 + panel[0] * count, panel[1] + 1.2), layout="constrained")
        axes = self.figure.subplots(1, count, squeeze=False, sharey=True)[0]
        looks = [(Normalize(each.low, each.high), of.convention.colors) for each in (scale, scale)]
        looks.append((Normalize(self._scales[1].low, self._scales[1].high), DIFFERENCES))
        self.panels = [_Panel(at, values, *look) for at, values, look in zip(axes, self._shown, looks, strict=False)]
        for at, name in zip(axes, self._names, strict=True):
            at.set_title(name, loc="left", fontweight="bold")

    @property
    def _names(self) -> Sequence[str]:
        return _COLUMNS if len(self._shown) == 3 else _COLUMNS[1:2]

    def finish(self, path: Path, kind: str, when: str) -> None:
        """Add color bars and heading, and write the file."""
        axes = [panel.axes for panel in self.panels]
        _color_bar(self.figure, axes[:2], self.panels[0], self._scales[0], self._of.name)
        if len(axes) == 3:
            _color_bar(self.figure, axes[2:], self.panels[2], self._scales[1], "Difference")
        self.figure.suptitle(f"{self._of.title}, {kind}\n{when}")
        scales = (self._scales[0], self._scales[0], self._scales[1])
        ranges = ", ".join(
            f"{name}: min {scale.number(np.nanmin(values))}, max {scale.number(np.nanmax(values))}{scale.suffix}"
            for name, values, scale in zip(self._names, self._shown, scales, strict=False)
        )
        save(self.figure, path, f"{self._of.title}, {kind}. {when}. {ranges}.")


def _color_bar(figure: Figure, axes: Sequence[Axes], panel: _Panel, scale: Scale, name: str) -> None:
    bar = figure.colorbar(
        ScalarMappable(panel.norm, colormaps[panel.colors]),
        ax=list(axes),
        location="bottom",
        extend=scale.extend,
        extendfrac=0.03,
        shrink=0.8,
        aspect=25 * len(axes),
    )
    positions, labels = scale.ticks()
    bar.set_ticks(positions, labels=labels)
    bar.set_label(f"{name} ({scale.label})" if scale.label else name)


def _start(field: xr.DataArray) -> str:
    return f"{str(field['time'].values.astype('datetime64[m]')).replace('T', ' ')} UTC"


def _degrees(degrees: float, sides: str) -> str:
    return f"{abs(degrees):g}°{sides[int(degrees > 0)] if degrees else ''}"


def _edges(centers: Floats) -> Floats:
    """Return cell edges: half-way between centers, and as far beyond the first and the last."""
    if centers.size == 1:
        return np.array([centers[0] - 0.125, centers[0] + 0.125])
    middle = (centers[1:] + centers[:-1]) / 2
    return np.concatenate([[2 * centers[0] - middle[0]], middle, [2 * centers[-1] - middle[-1]]])
