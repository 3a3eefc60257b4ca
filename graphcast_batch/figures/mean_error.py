"""Sum up the errors of many forecasts, Case by Case, and draw maps of their bias and root mean square error."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from graphcast_batch.config.figures_section import FiguresConfig
from graphcast_batch.errors import FigureError
from graphcast_batch.figures.case_figures import figure_stem
from graphcast_batch.figures.conventions import DIFFERENCES
from graphcast_batch.figures.headings import initial_times_text, lead_time_text
from graphcast_batch.figures.panel import MapBackground
from graphcast_batch.figures.projections import PlateCarree
from graphcast_batch.figures.reduced import Truth, truth_at
from graphcast_batch.figures.saving import package_style, save
from graphcast_batch.figures.scales import difference_scale, field_scale
from graphcast_batch.figures.scene import quantity
from graphcast_batch.figures.titled_maps import TitledMap, draw_titled_maps
from graphcast_batch.grid import Grid, mean_over_globe
from graphcast_batch.plan import Case
from graphcast_batch.stores.layout import OutputGrid
from graphcast_batch.stores.store_kinds import open_store

FOLDER: Final = "mean_error"
"""Folder of these maps among the figures of a store."""
_LEADS_AT_ONCE: Final = 8
"""Lead times in memory at once: as many as a shard has; 200 MB of sums at 0.25°."""
_PIXELS: Final = 1440


@dataclass(frozen=True)
class MeanErrors:
    """A variable, level and lead times whose error sums over all Cases fit into memory together.

    Attributes:
        name: of the variable.
        level: hPa; None at the surface.
        hours: lead times.
    """

    name: str
    level: int | None
    hours: tuple[int, ...]


@dataclass
class ErrorSums:
    """Sums of errors over Cases, each (lead, lat, lon).

    Attributes:
        errors: sum of prediction minus target.
        squares: sum of the squared errors.
        counts: number of Cases in the sums.
    """

    errors: NDArray[np.float64]
    squares: NDArray[np.float64]
    counts: NDArray[np.int64]

    @classmethod
    def none(cls, shape: tuple[int, ...]) -> "ErrorSums":
        """Return the sums of no Case."""
        return cls(np.zeros(shape), np.zeros(shape), np.zeros(shape, np.int64))

    def add(self, errors: NDArray[np.float32]) -> None:
        """Add the errors of one Case, (lead, lat, lon); NaN where there is no error."""
        known = np.isfinite(errors)
        some = np.where(known, errors, 0.0).astype(np.float64)
        self.errors += some
        self.squares += some**2
        self.counts += known


def wanted_errors(wanted: FiguresConfig, kept: OutputGrid) -> Iterator[MeanErrors]:
    """Yield the mean errors to draw, a few lead times at a time.

    Args:
        wanted: section ``figures``; the store keeps its variables, levels and lead times.
        kept: output grid of the store.
    """
    hours = sorted(set(kept.lead_hours if wanted.lead_hours is None else wanted.lead_hours))
    for name in dict.fromkeys(wanted.variables):
        for level in dict.fromkeys(wanted.levels) if dict(kept.on_levels)[name] else (None,):
            for start in range(0, len(hours), _LEADS_AT_ONCE):
                yield MeanErrors(name, level, tuple(hours[start : start + _LEADS_AT_ONCE]))


def errors_of(path: Path, case: Case, which: MeanErrors, source: Truth) -> NDArray[np.float32]:
    """Compute prediction minus target of one complete Case, (lead, lat, lon); NaN where either is missing.

    Args:
        path: of the store.
        case: whose forecast.
        which: variable, level and lead times.
        source: of the truth.

    Raises:
        InputError: the truth cannot be read.
        StoreError: the forecast cannot be read.
    """
    store = open_store(path)
    forecast = store.forecasts()[which.name].isel(store.place_of(case))
    forecast = forecast if which.level is None else forecast.sel(level=which.level)
    found = np.full((len(which.hours), store.kept.latitude.size, store.kept.longitude.size), np.nan, np.float32)
    for n, hours in enumerate(which.hours):
        levels = () if which.level is None else (which.level,)
        truth = truth_at(source, case, which.name, levels, hours)
        if truth is not None and (which.level is None or truth["level"].size):
            values = truth.values if which.level is None else truth.values[0]
            found[n] = forecast.sel(prediction_timedelta=np.timedelta64(hours, "h")).values - values
    return found


def draw_mean_errors(path: Path, which: MeanErrors, sums: ErrorSums, kind: str) -> list[Path]:
    """Draw bias and root mean square error for each lead time that has any.

    Args:
        path: of the store; the files are written among its figures.
        which: variable, level and lead times.
        sums: over all Cases.
        kind: suffix of the files: png, svg or pdf.

    Raises:
        FigureError: there is no truth at any lead time.
    """
    if not sums.counts.any():
        raise FigureError(
            f"figures.mean_error: {which.name} needs truth at one of the lead times, but there is none at "
            f"{', '.join(map(str, which.hours))} h; choose others in figures.lead_hours"
        )
    kept = open_store(path).kept
    drawn = []
    for n, hours in enumerate(which.hours):
        if sums.counts[n].any():
            file = path / "figures" / FOLDER / f"{figure_stem(which.name, which.level)}_{hours:03d}h.{kind}"
            _draw(file, which, hours, ErrorSums(sums.errors[n], sums.squares[n], sums.counts[n]), kept)
            drawn.append(file)
    return drawn


def _draw(path: Path, which: MeanErrors, hours: int, sums: ErrorSums, kept: OutputGrid) -> None:
    of = quantity(xr.DataArray(name=which.name, coords={} if which.level is None else {"level": which.level}))
    unit = of.unit.of_differences
    count = np.where(sums.counts > 0, sums.counts, np.nan)
    bias, error = (
        unit.convert(each).astype(np.float32) for each in (sums.errors / count, np.sqrt(sums.squares / count))
    )
    scales = difference_scale([bias], unit.text), field_scale([error], unit.text)
    grid = Grid(kept.latitude, kept.longitude)
    over_globe = mean_over_globe(grid, bias), mean_over_globe(grid, error.astype(np.float64) ** 2) ** 0.5
    notes = [
        f"over the globe {scale.number(value)}{scale.suffix}" for value, scale in zip(over_globe, scales, strict=True)
    ]
    maps = (
        TitledMap("Bias", bias, scales[0], DIFFERENCES, notes[0]),
        TitledMap("RMSE", error, scales[1], "viridis", notes[1]),
    )
    with package_style():
        figure = Figure(figsize=(13.0, 4.6), layout="compressed")
        ground = MapBackground(PlateCarree(), grid, _PIXELS, np.empty(0), None)
        draw_titled_maps(figure, figure.subplots(1, 2, sharey=True), ground, maps)
        heading = f"Errors of {of.name[:1].lower()}{of.name[1:]}"
        when = f"{lead_time_text(hours)} ahead, {initial_times_text(int(sums.counts.max()))}"
        figure.suptitle(f"{heading}\n{when}")
        save(figure, path, f"{heading}, {when}. {'; '.join(map(_text, maps))}.")


def _text(drawn: TitledMap) -> str:
    least, most = (drawn.scale.number(float(each)) for each in (np.nanmin(drawn.values), np.nanmax(drawn.values)))
    return f"{drawn.name}: {drawn.note}, min {least}, max {most}"
