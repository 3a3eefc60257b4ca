"""Prepare fields with coordinates for a figure of maps: layers of plain values in displayed units."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import FigureError
from graphcast_batch.figures.conventions import Convention, convention
from graphcast_batch.figures.display_units import Unit, named, unit_of
from graphcast_batch.grid import Grid
from graphcast_batch.variables import VARIABLES, attributes

Field = NDArray[np.float32]
WindLook = Literal["barbs", "streamlines"]


@dataclass(frozen=True)
class Wind:
    """Wind to be drawn over a field, on the same points and at the same lead times.

    Attributes:
        eastward: component, m/s.
        northward: component, m/s.
        look: wind barbs in knots, or streamlines.
    """

    eastward: xr.DataArray
    northward: xr.DataArray
    look: WindLook


@dataclass(frozen=True)
class Shown:
    """A field to draw as a map, with contours and wind over it.

    Name, units, level, initial and lead time are taken from the field's name, attributes and scalar coordinates
    ``time`` (initial time), ``prediction_timedelta`` and ``level`` (hPa), where these exist.

    Attributes:
        field: drawn in colors; (latitude, longitude), with latitude in either order and longitude in 0..360.
        contours: field drawn as contour lines, on the same points.
        wind: drawn as barbs or streamlines, on the same points.
    """

    field: xr.DataArray
    contours: xr.DataArray | None = None
    wind: Wind | None = None


Showable = xr.DataArray | Shown
"""A field alone, or with contours and wind."""
_WIND_LEGENDS: Final = {"barbs": "Wind barbs: half 5 kn, full 10 kn, pennant 50 kn", "streamlines": "Streamlines: wind"}


@dataclass(frozen=True)
class Layer:
    """The values of one map, (lat, lon) with latitude ascending, in displayed units; NaN where missing.

    Attributes:
        field: drawn in colors.
        contours: drawn as contour lines.
        wind: eastward and northward, m/s.
    """

    field: Field
    contours: Field | None = None
    wind: tuple[Field, Field] | None = None


@dataclass(frozen=True)
class Row:
    """The maps of one lead time.

    Attributes:
        lead: lead time; None where the data have none.
        prediction: the forecast.
        target: the truth; None where it is not available.
    """

    lead: np.timedelta64 | None
    prediction: Layer
    target: Layer | None

    def layers(self, columns: int) -> tuple[Layer, ...]:
        """Return the layers of the row's columns: target, prediction and difference, or the prediction alone."""
        if columns == 1:
            return (self.prediction,)
        target = self.target or Layer(np.full_like(self.prediction.field, np.nan))
        return target, self.prediction, Layer(self.prediction.field - target.field)


@dataclass(frozen=True)
class Quantity:
    """Name, displayed unit and map convention of a field.

    Attributes:
        name: variable and level, like ``Temperature at 500 hPa``.
        unit: in which the field is displayed.
        convention: how maps show the field.
    """

    name: str
    unit: Unit
    convention: Convention

    @property
    def title(self) -> str:
        """Name and unit."""
        return f"{self.name} ({self.unit.text})" if self.unit.text else self.name


@dataclass(frozen=True)
class Scene:
    """Everything that a figure of maps shows.

    Attributes:
        rows: in order of lead time.
        grid: of all fields.
        field: quantity drawn in colors.
        contours: quantity drawn as contour lines; None without.
        wind: how wind is drawn; None without.
        init_time: initial time; None where the data have none.
        member: number of the member of an ensemble; None where the data have none.
    """

    rows: list[Row]
    grid: Grid
    field: Quantity
    contours: Quantity | None
    wind: WindLook | None
    init_time: np.datetime64 | None
    member: int | None = None

    @cached_property
    def columns(self) -> int:
        """Number of columns: three with a target, else one."""
        return 1 if all(row.target is None for row in self.rows) else 3

    @property
    def over(self) -> list[str]:
        """Legends of contours and wind; empty without them."""
        contours = [] if self.contours is None else [f"Contours: {self.contours.title}"]
        return [*contours, *([] if self.wind is None else [_WIND_LEGENDS[self.wind]])]

    def when(self, leads: Sequence[np.timedelta64 | None]) -> list[str]:
        """Return as text the initial time and, for a single lead time, valid time and lead time."""
        known = [] if self.init_time is None else [f"Initial time {_time_text(self.init_time)}"]
        known += [] if self.member is None else [f"Member {self.member}"]
        if len(leads) == 1 and leads[0] is not None:
            if self.init_time is not None:
                known.append(f"Valid time {_time_text(self.init_time + leads[0])}")
            known.append(f"Lead time {lead_text(leads[0])}")
        return known

    def row_label(self, lead: np.timedelta64 | None) -> str:
        """Return the label of a row: lead time above valid time."""
        if lead is None:
            return ""
        valid = "" if self.init_time is None else f"\n{_time_text(self.init_time + lead)}"
        return f"{lead_text(lead)}{valid}"


def scene(prediction: Showable, target: Showable | None, leads: Sequence[np.timedelta64] | None = None) -> Scene:
    """Prepare a forecast and its truth for a figure of maps.

    Args:
        prediction: at one lead time, or at several along ``prediction_timedelta`` where ``leads`` are given.
        target: the truth on the same points, in the same units, at any number of the lead times; None without truth.
        leads: lead times to show; None if the prediction has a single one.

    Raises:
        FigureError: the dimensions are others than these, or fields are on different points.
        GridError: the points are not a regular global grid.
    """
    leading = () if leads is None else ("prediction_timedelta",)
    ours = _upright(prediction, "the prediction", leading)
    theirs = None if target is None else _upright(target, "the target", leading)
    if theirs is not None:
        _check_points(ours.field, theirs.field, f"the target of {ours.field.name}")
    longitude, latitude = (np.asarray(ours.field[name].values, np.float32) for name in ("longitude", "latitude"))
    init_time, number = (ours.field.coords.get(name) for name in ("time", "number"))
    return Scene(
        rows=[_row(ours, theirs)] if leads is None else [_row(_at(ours, lead), _at(theirs, lead)) for lead in leads],
        grid=Grid(latitude, longitude),
        field=quantity(ours.field),
        contours=None if ours.contours is None else quantity(ours.contours),
        wind=None if ours.wind is None else ours.wind.look,
        init_time=None if init_time is None or init_time.ndim else np.datetime64(init_time.values),
        member=None if number is None or number.ndim else int(number),
    )


def quantity(field: xr.DataArray) -> Quantity:
    """Return name, displayed unit and convention of a field, by its name, attributes and level."""
    name, level = str(field.name), field.coords.get("level")
    called = named(name) if name in VARIABLES else str(field.attrs.get("long_name", named(name)))
    at_level = "" if level is None or level.ndim else f" at {level.item():g} hPa"
    units = str(field.attrs.get("units", attributes(name).get("units", "")))
    return Quantity(f"{called}{at_level}", unit_of(name, units), convention(name))


def lead_text(lead: np.timedelta64) -> str:
    """Write a lead time like ``+24 h``."""
    return f"+{lead / np.timedelta64(1, 'h'):g} h"


def _time_text(time: np.datetime64) -> str:
    return f"{np.datetime_as_string(time, unit='m').replace('T', ' ')} UTC"


def _upright(showable: Showable, whose: str, leading: tuple[str, ...]) -> Shown:
    """Return fields with dimensions in order and latitude ascending, so that north is up."""
    shown = showable if isinstance(showable, Shown) else Shown(showable)
    field = _ordered(shown.field, whose, leading)

    def of_same_points(over: xr.DataArray) -> xr.DataArray:
        ordered = _ordered(over, whose, leading)
        _check_points(field, ordered, f"{over.name}, drawn over {field.name},")
        return ordered

    wind = shown.wind
    return Shown(
        field,
        None if shown.contours is None else of_same_points(shown.contours),
        wind and Wind(of_same_points(wind.eastward), of_same_points(wind.northward), wind.look),
    )


def _ordered(field: xr.DataArray, whose: str, leading: tuple[str, ...]) -> xr.DataArray:
    dims = (*leading, "latitude", "longitude")
    if set(field.dims) != set(dims):
        raise FigureError(
            f"{whose} of {field.name} must have the dimensions ({', '.join(dims)}) to be drawn, "
            f"but has ({', '.join(map(str, field.dims))}); select or rename the others"
        )
    return field.transpose(*dims).sortby("latitude")


def _check_points(field: xr.DataArray, other: xr.DataArray, whose: str) -> None:
    for name in ("latitude", "longitude"):
        ours, theirs = field[name].values, other[name].values
        if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=0, atol=1e-3):
            raise FigureError(
                f"{whose} must be on the points of the prediction, whose {name} is "
                f"{_span(ours)}, but its {name} is {_span(theirs)}; regrid it or leave it out"
            )


def _span(degrees: NDArray[np.floating]) -> str:
    return f"{degrees[0]:g}..{degrees[-1]:g} in {degrees.size} values" if degrees.size else "empty"


def _at(shown: Shown | None, lead: np.timedelta64) -> Shown | None:
    if shown is None or lead not in shown.field["prediction_timedelta"].values:
        return None
    at_lead = {"prediction_timedelta": lead}
    wind = shown.wind
    return Shown(
        shown.field.sel(at_lead),
        None if shown.contours is None else shown.contours.sel(at_lead),
        wind and Wind(wind.eastward.sel(at_lead), wind.northward.sel(at_lead), wind.look),
    )


def _row(prediction: Shown | None, target: Shown | None) -> Row:
    assert prediction is not None, "lead times are taken from the prediction"
    lead = prediction.field.coords.get("prediction_timedelta")
    return Row(
        lead=None if lead is None else np.timedelta64(lead.values),
        prediction=_layer(prediction),
        target=None if target is None else _layer(target),
    )


def _layer(shown: Shown) -> Layer:
    wind = shown.wind
    return Layer(
        _values(shown.field),
        None if shown.contours is None else _values(shown.contours),
        None if wind is None else (_values(wind.eastward), _values(wind.northward)),
    )


def _values(field: xr.DataArray) -> Field:
    """Return a field's values in displayed units, with NaN for infinite ones."""
    unit = quantity(field).unit
    values = unit.convert(field.values).astype(np.float32)
    return np.where(np.isfinite(values), values, np.float32(np.nan))
