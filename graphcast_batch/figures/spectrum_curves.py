"""Draw power spectra of forecast and truth by zonal wavenumber, and their ratio."""

from pathlib import Path
from typing import Final

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import ArrayLike, NDArray

from graphcast_batch.errors import FigureError
from graphcast_batch.figures.display_units import named, unit_of
from graphcast_batch.figures.headings import initial_times_text, lead_hours_of, lead_time_text
from graphcast_batch.figures.saving import package_style, save
from graphcast_batch.variables import attributes

_EQUATOR_KM: Final = 40_075.0
"""Length of the equator (WGS 84)."""
_MOST_CURVES: Final = 4
_LINES: Final = ("-", "--", "-.", ":")
_MEAN: Final = "#d55e00"


def draw_spectra(path: Path, power: xr.DataArray, band: str, cases: int) -> None:
    """Draw the spectra of one variable at some lead times, and below them the ratio of forecast to truth.

    Of many lead times four are drawn, evenly spaced, with the first and the last; if enough, multiples of 24 h.

    Args:
        path: of the picture, PNG, SVG or PDF by its suffix.
        power: (part, prediction_timedelta, wavenumber) of ``forecast`` and ``truth``, of an ensemble of its ``mean``
            too, in the square of the variable's unit; its name is the variable's, and a variable on levels has a
            scalar coordinate ``level`` (hPa). NaN at lead times that were not scored.
        band: name of the region.
        cases: the most initial times that are averaged.

    Raises:
        FigureError: there is no lead time with power.
    """
    power = power.sel(wavenumber=slice(1, None))
    power = power.isel(prediction_timedelta=power.notnull().all(["part", "wavenumber"]).values)
    if not power.size:
        raise FigureError(f"spectra of {power.name} need a lead time that was scored, but have none; evaluate first")
    drawn = power.isel(prediction_timedelta=_chosen(lead_hours_of(power["prediction_timedelta"].values)))
    with package_style():
        figure = Figure(figsize=(6.4, 6.2), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
        _draw_power(above, drawn)
        _draw_ratio(below, drawn)
        _wavelengths(above)
        figure.suptitle(f"Power by zonal wavenumber: {_subject(power)}, {band}\n{initial_times_text(cases)}")
        save(figure, path, _alt(drawn, band))


def _chosen(hours: list[int]) -> list[int]:
    """Return the indices of the lead times to draw: multiples of 24 h, if there are enough."""
    days = [n for n, each in enumerate(hours) if each % 24 == 0]
    among = days if len(days) >= _MOST_CURVES else list(range(len(hours)))
    return [among[n] for n in np.unique(np.linspace(0, len(among) - 1, _MOST_CURVES).round().astype(int))]


def _subject(power: xr.DataArray) -> str:
    return named(str(power.name), int(power["level"]) if "level" in power.coords else None)


def _draw_power(axes: Axes, power: xr.DataArray) -> None:
    """Draw forecasts in colors from dark to light, over the truth at the same times."""
    unit = unit_of(str(power.name), attributes(str(power.name)).get("units", "")).of_differences
    waves, shown = power["wavenumber"].values, power * unit.factor**2
    truth = shown.sel(part="truth").mean("prediction_timedelta")
    axes.plot(waves, truth, color="black", linewidth=2.2, alpha=0.55, label="truth")
    for color, line, hours, values in _curves(shown.sel(part="forecast")):
        axes.plot(
            waves, values, color=color, linestyle=line, linewidth=1.2, label=f"forecast at {lead_time_text(hours)}"
        )
    if "mean" in shown["part"]:
        last = lead_time_text(lead_hours_of(shown["prediction_timedelta"].values)[-1])
        mean = shown.sel(part="mean").isel(prediction_timedelta=-1)
        axes.plot(waves, mean, color=_MEAN, linewidth=1.2, label=f"mean of the members at {last}")
    axes.set(xscale="log", yscale="log", facecolor="white")
    square = f"{unit.text}²" if unit.text.isalpha() else f"({unit.text})²"
    axes.set_ylabel(f"Power ({square})" if unit.text else "Power")
    axes.legend(loc="lower left")


def _draw_ratio(axes: Axes, power: xr.DataArray) -> None:
    ratio = power.sel(part="forecast") / power.sel(part="truth").where(power.sel(part="truth") > 0)
    axes.axhline(1, color="black", linewidth=2.2, alpha=0.55)
    axes.axhline(0.5, color="#404040", linewidth=0.8, linestyle=(0, (1, 2)))
    for color, line, _, values in _curves(ratio):
        axes.plot(power["wavenumber"].values, values, color=color, linestyle=line, linewidth=1.2)
    axes.set(facecolor="white", xlabel="Zonal wavenumber", ylabel="Forecast / truth")
    axes.set_ylim(0, max(1.25, min(2.0, 1.05 * float(np.nanmax(ratio.values)))))
    axes.set_xlim(1, float(power["wavenumber"].values[-1]))
    _plain_numbers(axes.xaxis)


def _curves(values: xr.DataArray) -> list[tuple[object, str, int, xr.DataArray]]:
    """Return color, line style, lead time in hours and values of each lead time."""
    hours = lead_hours_of(values["prediction_timedelta"].values)
    shades = colormaps["viridis"](np.linspace(0.0, 0.8, len(hours)))
    return list(zip(shades, _LINES, hours, values, strict=False))


def _wavelengths(axes: Axes) -> None:
    """Add an axis on top with wavelengths at the equator; at other latitudes waves are shorter by the cosine."""
    above = axes.secondary_xaxis("top", functions=(_other, _other))
    above.set_xlabel("Wavelength at the equator (km)")
    _plain_numbers(above.xaxis)


def _other(value: ArrayLike) -> NDArray[np.float64]:
    """Convert a wavenumber to a wavelength at the equator in km, or the reverse."""
    return np.asarray(_EQUATOR_KM / np.maximum(np.asarray(value, np.float64), 1e-9))


def _plain_numbers(axis: Axis) -> None:
    axis.set_major_locator(LogLocator(10, (1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _alt(power: xr.DataArray, band: str) -> str:
    last = power.isel(prediction_timedelta=-1)
    ratio = (last.sel(part="forecast") / last.sel(part="truth")).values
    leads = ", ".join(lead_time_text(hours) for hours in lead_hours_of(power["prediction_timedelta"].values))
    return (
        f"Spectra of {_subject(power)}, {band}, of forecast and truth at {leads}. At the last, the forecast has "
        f"{ratio[0]:.2f} of the truth's power at wavenumber 1 and {ratio[-1]:.2f} at wavenumber "
        f"{int(power['wavenumber'][-1])}."
    )
