"""One forecast, with what came true of it, becomes the maps that a configuration asks for."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import xarray as xr

from graphcast_batch.config import Figures
from graphcast_batch.errors import FigureError
from graphcast_batch.figures.maps import draw_maps


def draw_case(forecast: xr.Dataset, truth: xr.Dataset | None, wanted: Figures, folder: Path) -> list[Path]:
    """Draws every wanted field of a forecast into a file of its own.

    Fields are read frame by frame, so that a long forecast need not fit into memory.

    Args:
        forecast: from one initial time: the scalar coordinate ``time`` (datetime64), and variables over
            (prediction_timedelta, [level], latitude, longitude), with lead times above 0 and levels in hPa.
        truth: what came true of it, laid out the same, for those variables, levels and lead times that it is known
            for; the others show the prediction alone.
        wanted: variables, levels and lead times to draw.
        folder: to write into; made where it is missing. Files of the same names are replaced.

    Returns:
        The files, in the order of `expected_figures`.

    Raises:
        FigureError: the forecast lacks what is wanted; nothing has been drawn then.
        GridError: the points are not a regular global grid.
    """
    lead_hours = [int(lead // np.timedelta64(1, "h")) for lead in forecast["prediction_timedelta"].values]
    levels = [int(level) for level in forecast["level"].values] if "level" in forecast.coords else []
    on_levels = {str(name): "level" in variable.dims for name, variable in forecast.data_vars.items()}
    pictures = list(_pictures(wanted, on_levels, levels, lead_hours))
    folder.mkdir(parents=True, exist_ok=True)
    for (name, hours), group in groupby(pictures, key=lambda picture: (picture.name, picture.hours)):
        _draw_frame(forecast, truth, name, hours, list(group), folder)
    return [folder / picture.file_name for picture in pictures]


def expected_figures(
    wanted: Figures, on_levels: Mapping[str, bool], levels: Collection[int], lead_hours: Collection[int]
) -> list[str]:
    """The names of the files that `draw_case` writes for one forecast, without drawing them.

    Args:
        wanted: variables, levels and lead times to draw.
        on_levels: for each variable that a forecast has, whether it is on levels.
        levels: those it has, hPa.
        lead_hours: those it has.

    Raises:
        FigureError: such a forecast lacks what is wanted.
    """
    return [picture.file_name for picture in _pictures(wanted, on_levels, levels, lead_hours)]


def figure_stem(name: str, level: int | None = None) -> str:
    """What a variable's files are called, like ``2m_temperature`` or ``temperature_at_500_hPa``."""
    return name if level is None else f"{name}_at_{level}_hPa"


@dataclass(frozen=True)
class _Picture:
    """One map of a forecast: a variable, its level in hPa if it has one, and a lead time."""

    name: str
    level: int | None
    hours: int

    @property
    def file_name(self) -> str:
        return f"{figure_stem(self.name, self.level)}_{self.hours:03d}h.png"


def _pictures(
    wanted: Figures, on_levels: Mapping[str, bool], levels: Collection[int], lead_hours: Collection[int]
) -> Iterator[_Picture]:
    """The wanted maps, those of one variable at one lead time in a row, so that they share one reading."""
    hours_wanted = _wanted_hours(wanted, lead_hours)
    for name in dict.fromkeys(wanted.variables):
        if name not in on_levels:
            raise FigureError(
                f"figures.variables: {name} is not in the forecast, which has {', '.join(sorted(on_levels))}; "
                "name one of those"
            )
        of_name = _wanted_levels(wanted, name, levels) if on_levels[name] else [None]
        for hours in hours_wanted:
            yield from (_Picture(name, level, hours) for level in of_name)


def _wanted_hours(wanted: Figures, lead_hours: Collection[int]) -> list[int]:
    hours_wanted = sorted(set(lead_hours if wanted.lead_hours is None else wanted.lead_hours))
    for hours in hours_wanted:
        if hours not in lead_hours:
            raise FigureError(
                f"figures.lead_hours: the forecast has no lead time of {hours} h, but {_listed(lead_hours)} h; "
                "choose among those or leave lead_hours out to draw all"
            )
    return hours_wanted


def _wanted_levels(wanted: Figures, name: str, levels: Collection[int]) -> list[int | None]:
    if not wanted.levels:
        raise FigureError(
            f"figures.levels: {name} is on levels, but no level is wanted; name some of {_listed(levels)} hPa"
        )
    for level in wanted.levels:
        if level not in levels:
            raise FigureError(
                f"figures.levels: {name} has no level {level} hPa, but {_listed(levels)} hPa; choose among those"
            )
    return list(dict.fromkeys(wanted.levels))


def _listed(numbers: Collection[int]) -> str:
    ordered = sorted(numbers)
    if len(ordered) <= 40:
        return ", ".join(map(str, ordered))
    return f"{', '.join(map(str, ordered[:3]))} ... {ordered[-1]} ({len(ordered)} values)"


def _draw_frame(
    forecast: xr.Dataset, truth: xr.Dataset | None, name: str, hours: int, pictures: list[_Picture], folder: Path
) -> None:
    """Reads one lead time of a variable once, and draws its maps."""
    levels = [picture.level for picture in pictures if picture.level is not None]
    frame = _read(forecast, name, hours, levels)
    known = _read(truth, name, hours, levels) if truth is not None and _holds(truth, name, hours) else None
    for picture in pictures:
        target = None if known is None else _at_level(known, picture.level)
        prediction = _at_level(frame, picture.level)
        assert prediction is not None, "the wanted levels have been checked"
        draw_maps(folder / picture.file_name, prediction, target)


def _holds(held: xr.Dataset, name: str, hours: int) -> bool:
    return name in held and np.timedelta64(hours, "h") in held["prediction_timedelta"].values


def _read(held: xr.Dataset, name: str, hours: int, levels: list[int]) -> xr.DataArray:
    """One lead time of a variable, in memory, at those of the levels that are held."""
    frame = held[name].sel(prediction_timedelta=np.timedelta64(hours, "h"))
    if levels:
        frame = frame.sel(level=[level for level in levels if level in frame["level"].values])
    return frame.load()


def _at_level(frame: xr.DataArray, level: int | None) -> xr.DataArray | None:
    if level is None:
        return frame
    return frame.sel(level=level) if level in frame["level"].values else None
