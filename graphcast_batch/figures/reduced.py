"""Reduce the frames of one Case, one after another, to the values of its diagrams: zonal bands, sections and points."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import xarray as xr

from graphcast_batch.config.figures_section import FiguresConfig
from graphcast_batch.errors import FigureError
from graphcast_batch.figures.case_figures import figure_stem
from graphcast_batch.figures.diagrams import draw_hovmoller, draw_section, draw_series
from graphcast_batch.figures.map_points import nearest, place_of
from graphcast_batch.grid import cell_area
from graphcast_batch.plan import Case
from graphcast_batch.variables import HOUR


class Truth(Protocol):
    """Reader of the truth of Cases."""

    def truth(self, case: Case, names: Sequence[str], levels: Sequence[int] | None = None) -> xr.Dataset | None:
        """Read the truth of a Case at the available lead times; None if there is none."""


def truth_at(source: Truth, case: Case, name: str, levels: Sequence[int], hours: int) -> xr.DataArray | None:
    """Read the truth at one lead time of a Case, ([level], latitude, longitude); None where it is not available.

    It is read as the truth of a forecast of a single step that ends at that time, so that no other frame is read.

    Args:
        source: of the truth.
        case: whose forecast.
        name: of the variable.
        levels: hPa; levels that are not available are left out.
        hours: the lead time.

    Raises:
        InputError: the truth cannot be read.
    """
    last = replace(case, init_time=case.init_time + np.timedelta64(hours - case.step_hours, "h"), steps=1)
    found = source.truth(last, [name], list(levels))
    return None if found is None or name not in found else found[name].isel(prediction_timedelta=0)


def expected_diagrams(
    wanted: FiguresConfig, on_levels: Mapping[str, bool], levels: Collection[int], lead_hours: Collection[int]
) -> list[str]:
    """Return the names of the files that `draw_diagrams` writes for one forecast, without drawing them.

    Args:
        wanted: section ``figures``; its variables, levels and lead times are in the forecast.
        on_levels: for each variable of the forecast, whether it is on levels.
        levels: of the forecast, hPa.
        lead_hours: of the forecast, h.

    Raises:
        FigureError: a point is unknown, or no section can be drawn.
    """
    return [diagram.file_name for diagram in _diagrams(wanted, on_levels, levels, lead_hours)]


def draw_diagrams(forecast: xr.Dataset, case: Case, source: Truth, wanted: FiguresConfig, folder: Path) -> list[Path]:
    """Draw Hovmöller diagrams, sections and time series of one forecast, with one frame in memory at a time.

    Args:
        forecast: from one initial time: the scalar coordinate ``time`` (datetime64), and variables over
            (prediction_timedelta, [level], latitude, longitude), on the complete globe.
        case: whose forecast it is.
        source: of the truth.
        wanted: section ``figures`` of the configuration.
        folder: to write into.

    Returns:
        The files, in the order of `expected_diagrams`.

    Raises:
        FigureError: a point is unknown, or no section can be drawn.
        InputError: the truth cannot be read.
    """
    lead_hours = [int(lead // HOUR) for lead in forecast["prediction_timedelta"].values]
    levels = [int(level) for level in forecast["level"].values] if "level" in forecast.coords else []
    on_levels = {str(name): "level" in variable.dims for name, variable in forecast.data_vars.items()}
    diagrams = list(_diagrams(wanted, on_levels, levels, lead_hours))
    for name in dict.fromkeys(diagram.name for diagram in diagrams):
        _draw(forecast, case, source, [diagram for diagram in diagrams if diagram.name == name], folder)
    return [folder / diagram.file_name for diagram in diagrams]


@dataclass(frozen=True)
class _Diagram:
    """One diagram of a forecast.

    Attributes:
        kind: of diagram.
        name: of the variable.
        levels: that it needs, hPa; empty at the surface.
        hours: lead times that it needs.
        file_name: unique among the diagrams of a forecast.
        band: southern and northern edge of a Hovmöller diagram.
        place: city or coordinates of a time series.
    """

    kind: Literal["hovmoller", "section", "series"]
    name: str
    levels: tuple[int, ...]
    hours: tuple[int, ...]
    file_name: str
    band: tuple[float, float] = (-90.0, 90.0)
    place: str = ""

    def reduced(self, frame: xr.DataArray) -> xr.DataArray:
        """Reduce a frame ([level], latitude, longitude) to the values that the diagram shows."""
        with xr.set_options(keep_attrs=True):  # type: ignore[no-untyped-call]  # xarray has no types for it
            if self.kind == "section":
                return frame.mean("longitude", dtype=np.float64)
            field = frame.sel(level=self.levels[0]) if self.levels else frame
            if self.kind == "series":
                point = nearest(place_of(self.place), field["latitude"].values, field["longitude"].values)
                return field.isel(latitude=point.row, longitude=point.column)
            area = xr.DataArray(cell_area(field["latitude"].values), dims="latitude")
            inside = (field["latitude"] >= self.band[0]) & (field["latitude"] <= self.band[1])
            return field.weighted(area * inside.values).mean("latitude")

    def draw(self, path: Path, prediction: xr.DataArray, target: xr.DataArray) -> None:
        """Draw the reduced values of all frames, (prediction_timedelta, ...)."""
        if self.kind == "hovmoller":
            draw_hovmoller(path, prediction, target, self.band)
        elif self.kind == "section":
            draw_section(path, prediction.isel(prediction_timedelta=0), target.isel(prediction_timedelta=0))
        else:
            draw_series(path, place_of(self.place), prediction, target)


def _diagrams(
    wanted: FiguresConfig, on_levels: Mapping[str, bool], levels: Collection[int], lead_hours: Collection[int]
) -> Iterator[_Diagram]:
    every, suffix = tuple(sorted(lead_hours)), wanted.format
    places = {place_of(text).name: text for text in wanted.points}
    if wanted.sections and (len(levels) < 2 or not any(on_levels[name] for name in wanted.variables)):
        raise FigureError(
            "figures.sections: a section needs a variable with several levels, but there is none among "
            f"{', '.join(wanted.variables)} with {len(levels)} levels; add one to figures.variables, or leave out "
            "figures.sections"
        )
    for name in dict.fromkeys(wanted.variables):
        for level in dict.fromkeys(wanted.levels) if on_levels[name] else (None,):
            stem, at = figure_stem(name, level), () if level is None else (level,)
            if wanted.hovmoller is not None:
                south, north = wanted.hovmoller
                file = f"{stem}_hovmoller_{south:g}_{north:g}.{suffix}"
                yield _Diagram("hovmoller", name, at, every, file, band=(south, north))
            for place, text in places.items():
                file = f"{stem}_in_{place.replace(' ', '_').replace('°', '')}.{suffix}"
                yield _Diagram("series", name, at, every, file, place=text)
        if wanted.sections and on_levels[name]:
            for hours in every if wanted.lead_hours is None else sorted(set(wanted.lead_hours)):
                file = f"{name}_section_{hours:03d}h.{suffix}"
                yield _Diagram("section", name, tuple(levels), (hours,), file)


def _draw(forecast: xr.Dataset, case: Case, source: Truth, diagrams: Sequence[_Diagram], folder: Path) -> None:
    """Draw the diagrams of one variable; each frame is read once."""
    name = diagrams[0].name
    ours: dict[_Diagram, list[xr.DataArray]] = {diagram: [] for diagram in diagrams}
    theirs: dict[_Diagram, list[xr.DataArray]] = {diagram: [] for diagram in diagrams}
    for hours in sorted({hours for diagram in diagrams for hours in diagram.hours}):
        here = [diagram for diagram in diagrams if hours in diagram.hours]
        levels = sorted({level for diagram in here for level in diagram.levels})
        lead = np.timedelta64(hours, "h").astype("timedelta64[ns]")
        frame = forecast[name].sel(prediction_timedelta=lead)
        frame = (frame.sel(level=levels) if levels else frame).load()
        known = truth_at(source, case, name, levels, hours)
        for diagram in here:
            ours[diagram].append(diagram.reduced(frame))
            if known is not None and set(diagram.levels) <= _levels(known):
                theirs[diagram].append(diagram.reduced(known).assign_coords(prediction_timedelta=lead))
    for diagram in diagrams:
        prediction = _along(ours[diagram])
        target = _along(theirs[diagram]).reindex_like(prediction) if theirs[diagram] else prediction * np.nan
        diagram.draw(folder / diagram.file_name, prediction, target.transpose(*prediction.dims))


def _along(parts: Sequence[xr.DataArray]) -> xr.DataArray:
    return xr.concat(parts, "prediction_timedelta", coords="minimal", compat="override")


def _levels(field: xr.DataArray) -> set[int]:
    return set(field["level"].values.tolist()) if "level" in field.coords else set()
