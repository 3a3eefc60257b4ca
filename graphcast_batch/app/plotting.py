"""A field of a forecast becomes a map that a notebook shows."""

import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import xarray as xr

from graphcast_batch.app.forecasts import open_forecasts
from graphcast_batch.errors import FigureError
from graphcast_batch.figures.maps import draw_maps, draw_strip
from graphcast_batch.variables import HOUR


@dataclass(frozen=True)
class Picture:
    """A map, shown by a notebook as it is.

    Attributes:
        content: of a PNG file.
    """

    content: bytes

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it to a file."""
        Path(path).write_bytes(self.content)

    def _repr_png_(self) -> bytes:
        return self.content

    def __repr__(self) -> str:
        return f"Picture of {len(self.content)} bytes; a notebook shows it, and save(path) writes it"


def plot(
    forecasts: xr.Dataset | xr.DataArray | str | os.PathLike[str],
    variable: str | None = None,
    level: int | None = None,
    *,
    init_time: str | np.datetime64 | None = None,
    lead_hours: int | None = None,
    truth: xr.Dataset | xr.DataArray | None = None,
) -> Picture:
    """Draws a variable of one forecast: a map of a lead time, or a strip of several.

    >>> plot("runs/demo", "geopotential", 500, init_time="2020-01-01T12", lead_hours=48)
    >>> plot(open_forecasts("runs/demo")["2m_temperature"]).save("strip.png")

    Args:
        forecasts: a store, what `open_forecasts` gives, or a variable of that.
        variable: to draw; not needed of a single one.
        level: at which to draw it, hPa; not needed where there is one, or none.
        init_time: of the forecast, UTC; without it the first.
        lead_hours: of the map; without it a strip of maps, from the first lead time to the last.
        truth: what came true of the same forecast, likewise, to be drawn beside it with the difference.

    Raises:
        FigureError: the forecasts lack what is wanted, or it is no map of the whole globe.
        StoreError: there is no such store.
        GridError: the points are not a regular global grid.
    """
    held = open_forecasts(forecasts) if isinstance(forecasts, str | os.PathLike) else forecasts
    field = _field(held, variable, level, init_time, lead_hours)
    came = None if truth is None else _field(truth, str(field.name), level, init_time, lead_hours)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "map.png"
        (draw_strip if "prediction_timedelta" in field.dims else draw_maps)(path, field, came)
        return Picture(path.read_bytes())


def _field(
    held: xr.Dataset | xr.DataArray,
    variable: str | None,
    level: int | None,
    init_time: str | np.datetime64 | None,
    lead_hours: int | None,
) -> xr.DataArray:
    """(prediction_timedelta, latitude, longitude), or without lead times if one is wanted."""
    field = held if isinstance(held, xr.DataArray) else _variable(held, variable)
    field = _at(field, "level", level, f"the level of {field.name}, hPa")
    hours = None if lead_hours is None else np.timedelta64(lead_hours, "h")
    if hours is not None:
        field = _at(field, "prediction_timedelta", hours, "lead_hours")
    when = field["time"].values[0] if init_time is None and "time" in field.dims else init_time
    return _at(field, "time", when, "init_time")


def _variable(held: xr.Dataset, name: str | None) -> xr.DataArray:
    names = sorted(map(str, held.data_vars))
    if name is None and len(names) == 1:
        name = names[0]
    if name not in names:
        raise FigureError(f"variable must be one of {', '.join(names)}, but is {name}; name one of those")
    return held[name]


def _at(field: xr.DataArray, dim: str, place: object, what: str) -> xr.DataArray:
    """The field at one place along a dimension that it has; the only one, if none is given."""
    if dim not in field.dims:
        return field
    held = field[dim].values
    if place is None and held.size == 1:
        return field.isel({dim: 0})
    wanted = np.datetime64(str(place), "ns") if dim == "time" and place is not None else place
    if wanted is None or wanted not in held:
        shown = [str(each) for each in (held / HOUR if held.dtype.kind == "m" else held)]
        raise FigureError(f"{what} must be one of {', '.join(shown)}, but is {place}; give one of those")
    return field.sel({dim: wanted})
