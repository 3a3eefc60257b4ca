"""Draw the maps and animations of one forecast that the section ``figures`` of a configuration asks for."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from graphcast_batch.config.figures_section import FiguresConfig
from graphcast_batch.errors import FigureError
from graphcast_batch.figures.animation import draw_animation
from graphcast_batch.figures.maps import draw_strip, strip_rows
from graphcast_batch.figures.projections import projection_called
from graphcast_batch.figures.scene import Shown, Wind
from graphcast_batch.variables import HOUR


def draw_case(
    forecast: xr.Dataset, truth: xr.Dataset | None, wanted: FiguresConfig, folder: Path, *, credit: str = ""
) -> list[Path]:
    """Draw every configured field of a forecast, each into files of its own.

    Fields are read when their figure is drawn, so that a long forecast need not fit into memory; an animation needs
    all lead times of its field at once.

    Args:
        forecast: from one initial time: the scalar coordinate ``time`` (datetime64), and variables over
            (prediction_timedelta, [level], latitude, longitude), with lead times above 0 and levels in hPa.
        truth: the verification in the same layout, for the available variables, levels and lead times; figures of
            others show the prediction alone.
        wanted: section ``figures`` of the configuration.
        folder: to write into; created if it is missing. Files of the same names are replaced.
        credit: who made the forecast, for the foot of the figures.

    Returns:
        The files, in the order of `expected_figures`.

    Raises:
        FigureError: the forecast lacks a variable, level or lead time; nothing has been drawn then.
        GridError: the points are not a regular global grid.
    """
    lead_hours = [int(lead // HOUR) for lead in forecast["prediction_timedelta"].values]
    levels = [int(level) for level in forecast["level"].values] if "level" in forecast.coords else []
    on_levels = {str(name): "level" in variable.dims for name, variable in forecast.data_vars.items()}
    pictures = list(_pictures(wanted, on_levels, levels, lead_hours))
    ours, theirs = _Fields(forecast), None if truth is None else _Fields(truth)
    for picture in pictures:
        _draw(picture, ours, theirs, wanted, folder, credit)
    return [folder / picture.file_name for picture in pictures]


def expected_figures(
    wanted: FiguresConfig, on_levels: Mapping[str, bool], levels: Collection[int], lead_hours: Collection[int]
) -> list[str]:
    """Return the names of the files that `draw_case` writes for one forecast, without drawing them.

    A name contains everything that the configuration says about a file, so that no two figures share a name.

    Args:
        wanted: section ``figures`` of the configuration.
        on_levels: for each variable of the forecast, whether it is on levels.
        levels: of the forecast, hPa.
        lead_hours: of the forecast, h.

    Raises:
        FigureError: such a forecast lacks a variable, level or lead time.
    """
    return [picture.file_name for picture in _pictures(wanted, on_levels, levels, lead_hours)]


def names_wanted(wanted: FiguresConfig, on_levels: Mapping[str, bool]) -> tuple[list[str], list[int]]:
    """Return the variables and levels that all figures need, for fields, contours and wind.

    Args:
        wanted: section ``figures`` of the configuration.
        on_levels: for each variable of the forecast, whether it is on levels.
    """
    names, levels = list(wanted.variables), list(wanted.levels)
    if wanted.wind != "none":
        names += [part for name in wanted.variables for part in _wind_names(levelled=on_levels[name])]
    if wanted.contours is not None:
        names.append(wanted.contours.variable)
        levels += [wanted.contours.level] if wanted.contours.level is not None else []
    return list(dict.fromkeys(names)), list(dict.fromkeys(levels))


def figure_stem(name: str, level: int | None = None) -> str:
    """Return the first part of a variable's file names, like ``2m_temperature`` or ``temperature_at_500_hPa``."""
    return name if level is None else f"{name}_at_{level}_hPa"


@dataclass(frozen=True)
class _Picture:
    """One map or animation of a forecast.

    Attributes:
        name: of the variable.
        level: hPa; None for a variable that is not on levels.
        hours: lead times that it shows.
        look: part of the file name for contours, wind and projection; empty for the defaults.
        kind: suffix of the file, like ``png``.
    """

    name: str
    level: int | None
    hours: tuple[int, ...]
    look: str
    kind: str

    @property
    def is_film(self) -> bool:
        return self.kind in ("gif", "mp4")

    @property
    def file_name(self) -> str:
        if self.is_film:
            when = f"{self.hours[0]:03d}h-{self.hours[-1]:03d}h_{len(self.hours)}_frames"
        else:
            when = "_".join(f"{hours:03d}h" for hours in self.hours)
        return f"{figure_stem(self.name, self.level)}{self.look}_{when}.{self.kind}"


def _pictures(
    wanted: FiguresConfig, on_levels: Mapping[str, bool], levels: Collection[int], lead_hours: Collection[int]
) -> Iterator[_Picture]:
    """Yield the figures to draw; check that the forecast has their variables, levels and lead times."""
    hours_wanted = _wanted_hours(wanted, lead_hours)
    _check_contours(wanted, on_levels, levels)
    rows = strip_rows(len(hours_wanted))
    groups = [tuple(hours_wanted[row] for row in rows)] if wanted.strip else [(hours,) for hours in hours_wanted]
    look = _look(wanted)
    for name in dict.fromkeys(wanted.variables):
        _check_held(name, on_levels, "figures.variables")
        of_name = _wanted_levels(wanted, name, levels) if on_levels[name] else [None]
        if wanted.wind != "none":
            _check_wind(_wind_names(levelled=on_levels[name]), on_levels)
        for group in groups:
            yield from (_Picture(name, level, group, look, wanted.format) for level in of_name)
        if wanted.animation != "none":
            yield from (_Picture(name, level, tuple(hours_wanted), look, wanted.animation) for level in of_name)


def _look(wanted: FiguresConfig) -> str:
    """Return the part of the file names for contours, wind and projection."""
    parts = []
    if wanted.contours is not None:
        parts.append(f"with_{figure_stem(wanted.contours.variable, wanted.contours.level)}")
    if wanted.wind != "none":
        parts.append(wanted.wind)
    if wanted.center is not None:
        parts.append("{}_{:g}_{:g}".format(wanted.projection, *wanted.center))
    elif wanted.projection != "plate_carree":
        parts.append(wanted.projection)
    return "".join(f"_{part}" for part in parts)


def _wind_names(*, levelled: bool) -> tuple[str, str]:
    """Return the names of eastward and northward wind, on levels or near the ground."""
    place = "" if levelled else "10m_"
    return f"{place}u_component_of_wind", f"{place}v_component_of_wind"


def _check_held(name: str, on_levels: Mapping[str, bool], key: str) -> None:
    if name not in on_levels:
        raise FigureError(
            f"{key}: {name} is not in the forecast, which has {', '.join(sorted(on_levels))}; choose one of those"
        )


def _check_contours(wanted: FiguresConfig, on_levels: Mapping[str, bool], levels: Collection[int]) -> None:
    if wanted.contours is None:
        return
    name, level = wanted.contours.variable, wanted.contours.level
    _check_held(name, on_levels, "figures.contours.variable")
    if not on_levels[name] and level is not None:
        raise FigureError(f"figures.contours.level: {name} is not on levels, but {level} hPa is given; leave it out")
    if on_levels[name] and level not in levels:
        found = "none is given" if level is None else f"{level} hPa is given"
        raise FigureError(f"figures.contours.level: {name} has the levels {_listed(levels)} hPa, but {found}; name one")


def _check_wind(names: Collection[str], on_levels: Mapping[str, bool]) -> None:
    missing = [name for name in names if name not in on_levels]
    if missing:
        raise FigureError(
            f"figures.wind: {' and '.join(missing)} must be in the forecast to draw wind, "
            f"but it has {', '.join(sorted(on_levels))}; keep them or leave wind out"
        )


def _wanted_hours(wanted: FiguresConfig, lead_hours: Collection[int]) -> list[int]:
    hours_wanted = sorted(set(lead_hours if wanted.lead_hours is None else wanted.lead_hours))
    for hours in hours_wanted:
        if hours not in lead_hours:
            raise FigureError(
                f"figures.lead_hours: the forecast has no lead time of {hours} h, but {_listed(lead_hours)} h; "
                "choose among those or leave lead_hours out to draw all"
            )
    return hours_wanted


def _wanted_levels(wanted: FiguresConfig, name: str, levels: Collection[int]) -> list[int | None]:
    if not wanted.levels:
        raise FigureError(
            f"figures.levels: {name} is on levels, but no level is given; choose some of {_listed(levels)} hPa"
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


class _Fields:
    """Reader of a forecast's fields that keeps the last field of each variable, as consecutive figures share it."""

    def __init__(self, held: xr.Dataset) -> None:
        self._held = held
        self._read: dict[str, tuple[object, xr.DataArray]] = {}

    def at(
        self, name: str, level: int | None, hours: tuple[int, ...], together: tuple[int, ...]
    ) -> xr.DataArray | None:
        """Read a field at those lead times that are available; None if the field or all lead times are missing.

        Args:
            name: of the variable.
            level: hPa; None for a variable that is not on levels.
            hours: lead times.
            together: levels to read at once.
        """
        held = self._held
        leads = [lead for lead in np.array(hours, "timedelta64[h]") if lead in held["prediction_timedelta"].values]
        if name not in held or not leads or (level is not None and level not in held["level"].values):
            return None
        if self._read.get(name, (None,))[0] != (hours, together):
            field = held[name].sel(prediction_timedelta=leads)
            if level is not None:
                field = field.sel(level=[one for one in together if one in held["level"].values])
            self._read[name] = (hours, together), field.load()
        field = self._read[name][1]
        return field if level is None else field.sel(level=level)


def _draw(
    picture: _Picture, forecast: _Fields, truth: _Fields | None, wanted: FiguresConfig, folder: Path, credit: str
) -> None:
    """Read the fields of a figure, and draw it."""
    path, projection = folder / picture.file_name, projection_called(wanted.projection, wanted.center)
    prediction = _shown(forecast, picture, wanted)
    assert prediction is not None, "variables, levels and lead times were checked"
    target = None if truth is None else _shown(truth, picture, wanted)
    draw = draw_animation if picture.is_film else draw_strip
    draw(path, prediction, target, projection=projection, credit=credit)


def _shown(fields: _Fields, picture: _Picture, wanted: FiguresConfig) -> Shown | None:
    """Read the field of a figure, with contours and wind where available; None if the field is missing."""
    # An animation of all levels at once would not fit into memory.
    together = wanted.levels if len(picture.hours) == 1 else tuple(level for level in [picture.level] if level)
    field = fields.at(picture.name, picture.level, picture.hours, together)
    if field is None:
        return None
    return Shown(field, _contours(fields, picture, wanted), _wind(fields, picture, wanted, together))


def _contours(fields: _Fields, picture: _Picture, wanted: FiguresConfig) -> xr.DataArray | None:
    over = wanted.contours
    if over is None:
        return None
    return fields.at(over.variable, over.level, picture.hours, tuple(level for level in [over.level] if level))


def _wind(fields: _Fields, picture: _Picture, wanted: FiguresConfig, together: tuple[int, ...]) -> Wind | None:
    if wanted.wind == "none":
        return None
    eastward, northward = (
        fields.at(name, picture.level, picture.hours, together)
        for name in _wind_names(levelled=picture.level is not None)
    )
    return None if eastward is None or northward is None else Wind(eastward, northward, wanted.wind)
