"""Draw one field of a forecast as a map that a notebook shows."""

import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import xarray as xr

from graphcast_batch.app.any_path import AnyPath
from graphcast_batch.app.forecasts import open_forecasts
from graphcast_batch.errors import FigureError
from graphcast_batch.figures.maps import draw_maps, draw_strip
from graphcast_batch.variables import HOUR


@dataclass(frozen=True)
class Picture:
    """A picture, which a notebook shows.

    Attributes:
        content: bytes of a PNG file.
    """

    content: bytes

    def save(self, path: AnyPath) -> None:
        """Write the picture to a PNG file."""
        Path(path).write_bytes(self.content)

    def _repr_png_(self) -> bytes:
        return self.content

    def __repr__(self) -> str:
        return f"Picture of {len(self.content)} bytes; a notebook shows it, and save(path) writes it to a file"


def plot(
    forecasts: xr.Dataset | xr.DataArray | AnyPath,
    variable: str | None = None,
    level: int | None = None,
    *,
    init_time: str | np.datetime64 | None = None,
    lead_hours: int | None = None,
    number: int = 0,
    truth: xr.Dataset | xr.DataArray | None = None,
) -> Picture:
    """Draw a variable of one forecast: one map of a lead time, or a strip of maps of all lead times.

    >>> gb.plot("runs/demo", "geopotential", 500, init_time="2020-01-01T12", lead_hours=48)
    >>> gb.plot(gb.open_forecasts("runs/demo")["2m_temperature"]).save("strip.png")

    Args:
        forecasts: folder of a store, the dataset that `open_forecasts` returns, or one variable of it.
        variable: name of the variable; not needed if there is only one.
        level: pressure level, hPa; not needed if there is only one, or none.
        init_time: initial time of the forecast, UTC; without it the first.
        lead_hours: lead time of the map, hours; without it a strip shows the first to the last lead time.
        number: number of the member, of an ensemble.
        truth: dataset or variable with the truth of the same forecast; it is drawn beside the forecast, with the
            difference.

    Raises:
        FigureError: the forecasts lack the variable, level or time, or do not cover the globe.
        StoreError: there is no store in the folder.
        GridError: the points are not a regular global grid.
    """
    held = open_forecasts(forecasts) if isinstance(forecasts, str | os.PathLike) else forecasts
    field = _field(held, variable, level, init_time, lead_hours, number)
    real = None if truth is None else _field(truth, str(field.name), level, init_time, lead_hours, number)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "map.png"
        (draw_strip if "prediction_timedelta" in field.dims else draw_maps)(path, field, real)
        return Picture(path.read_bytes())


def _field(
    held: xr.Dataset | xr.DataArray,
    variable: str | None,
    level: int | None,
    init_time: str | np.datetime64 | None,
    lead_hours: int | None,
    number: int,
) -> xr.DataArray:
    """Return one field: (prediction_timedelta, latitude, longitude), or (latitude, longitude) of one lead time."""
    field = held if isinstance(held, xr.DataArray) else _variable(held, variable)
    field = _at(field, "number", number, "number")
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
        raise FigureError(f"variable must be one of {', '.join(names)}, but is {name}; give one of those")
    return held[name]


def _at(field: xr.DataArray, dim: str, place: object, what: str) -> xr.DataArray:
    """Select one value along a dimension of a field, if it has the dimension; without a value given, the only one."""
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
