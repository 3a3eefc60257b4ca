"""Draw the figures of all members of an initial time together: maps of mean and spread, contour lines, and plumes."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.config.figures_section import FiguresConfig
from graphcast_batch.errors import FigureError
from graphcast_batch.figures.case_figures import figure_stem
from graphcast_batch.figures.ensemble_maps import (
    EnsembleMap,
    EnsembleScene,
    MeanAndSpreadMap,
    SpaghettiMap,
    control_of,
)
from graphcast_batch.figures.map_points import nearest, place_of
from graphcast_batch.figures.plumes import draw_plume
from graphcast_batch.figures.projections import Projection, projection_called
from graphcast_batch.figures.reduced import Truth, truth_at
from graphcast_batch.figures.scene import quantity
from graphcast_batch.grid import Grid
from graphcast_batch.members import UNPERTURBED
from graphcast_batch.plan import Case, case_key
from graphcast_batch.stores.base import Store
from graphcast_batch.text import counted


@dataclass(frozen=True)
class _Map:
    """One map of all members: of their mean and spread, or of the contour lines of a value."""

    name: str
    level: int | None
    hours: int
    file_name: str
    value: float | None


@dataclass(frozen=True)
class _Plume:
    """One diagram of all members at a point over time."""

    name: str
    level: int | None
    place: str
    file_name: str


def expected_ensemble_figures(
    wanted: FiguresConfig, on_levels: Mapping[str, bool], lead_hours: Collection[int]
) -> list[str]:
    """Return the names of the files that `draw_ensemble` writes for one initial time, without drawing them.

    Args:
        wanted: section ``figures``; its variables, levels and lead times are in the forecasts.
        on_levels: for each variable of the forecasts, whether it is on levels.
        lead_hours: of the forecasts, h.

    Raises:
        FigureError: a contour line is asked for of a variable that is not drawn.
    """
    maps, plumes = _maps(wanted, on_levels, lead_hours), _plumes(wanted, on_levels)
    return [*(each.file_name for each in maps), *(each.file_name for each in plumes)]


def draw_ensemble(store: Store, case: Case, wanted: FiguresConfig, source: Truth, folder: Path) -> int:
    """Draw the figures of the members of an initial time that are complete.

    One lead time of one variable of one member is in memory at once, at the levels that are drawn.

    Args:
        store: of the members.
        case: of the initial time, without a member.
        wanted: section ``figures`` of the configuration.
        source: of the truth.
        folder: to write into.

    Returns:
        Number of files written.

    Raises:
        FigureError: fewer than two members are complete.
        InputError: the truth cannot be read.
    """
    numbers = _complete(store, case)
    if len(numbers) < 2:
        raise FigureError(f"{case.key}: two members at least must be complete to draw an ensemble; run it first")
    kept, place = store.kept, store.init_times.tolist().index(case.init_time.astype("datetime64[h]").item())
    lead_hours, on_levels = kept.lead_hours[: kept.leads(case.hours)], dict(kept.on_levels)
    maps, plumes = list(_maps(wanted, on_levels, lead_hours)), list(_plumes(wanted, on_levels))
    text = counted(len(numbers), "member")
    text = text if len(numbers) == len(store.members) else f"{len(numbers)} of {counted(len(store.members), 'member')}"
    opened = store.forecasts().isel(time=place, number=numbers)
    members = _Members(opened, text, projection_called(wanted.projection, wanted.center))
    for name in dict.fromkeys([*(each.name for each in maps), *(each.name for each in plumes)]):
        levels = tuple(level for level in _levels(wanted, on_levels, name) if level is not None)
        of_name = [each for each in maps if each.name == name]
        there = [each for each in plumes if each.name == name]
        at_points = _AtPoints(members.field(name, levels), there, lead_hours)
        for hours in lead_hours if there else sorted({each.hours for each in of_name}):
            truth = truth_at(source, case, name, levels, hours)
            here = {each: members.begun(each, truth) for each in of_name if each.hours == hours}
            at_points.add_truth(hours, truth)
            for number in range(len(numbers)):
                field = members.field(name, levels, hours, number)
                field = field.load() if here else field  # without a map, values at the points alone are read
                at_points.add(hours, number, field)
                for each, drawn in here.items():
                    drawn.add(number, _at_level(field, each.level).values)
            for each, drawn in here.items():
                drawn.draw(folder / each.file_name)
        for plume in there:
            along, target = at_points.of(plume)
            draw_plume(folder / plume.file_name, place_of(plume.place), along, target, members.control, text)
    return len(maps) + len(plumes)


@dataclass(frozen=True, eq=False)
class _Members:
    """Reader of the forecasts of all members of an initial time."""

    opened: xr.Dataset
    counted: str
    projection: Projection

    @property
    def control(self) -> int | None:
        """Index of the control among the members; None if there is none."""
        return control_of(self.opened["perturbation"].values.tolist(), UNPERTURBED)

    def field(
        self, name: str, levels: tuple[int, ...], hours: int | None = None, number: int | None = None
    ) -> xr.DataArray:
        """Open a variable at some levels, at one lead time or all, of one member or all; values are not read yet."""
        field = self.opened[name] if number is None else self.opened[name].isel(number=number)
        field = field.sel(level=list(levels)) if levels else field
        return field if hours is None else field.sel(prediction_timedelta=_lead(hours))

    def begun(self, wanted: _Map, truth: xr.DataArray | None) -> EnsembleMap:
        """Begin a map; its members are still to be added."""
        levels = () if wanted.level is None else (wanted.level,)
        field = _at_level(self.field(wanted.name, levels, wanted.hours, 0), wanted.level)
        valid = field["time"] + field["prediction_timedelta"]
        times = f"Initial time {_time_text(field['time'])}", f"Valid time {_time_text(valid)}"
        latitude, longitude = (field[name].values.astype(np.float32) for name in ("latitude", "longitude"))
        known = truth is not None and (wanted.level is None or wanted.level in truth["level"].values)
        scene = EnsembleScene(
            of=quantity(field),
            grid=Grid(latitude, longitude),
            truth=_at_level(truth, wanted.level).values if truth is not None and known else None,
            control=self.control,
            when=(*times, f"Lead time +{wanted.hours} h"),
            counted=self.counted,
            projection=self.projection,
        )
        return MeanAndSpreadMap(scene) if wanted.value is None else SpaghettiMap(scene, wanted.value)


class _AtPoints:
    """The values of a variable at points over time, of all members and of the truth."""

    def __init__(self, field: xr.DataArray, plumes: Sequence[_Plume], lead_hours: Sequence[int]) -> None:
        """Begin without values.

        Args:
            field: (number, prediction_timedelta, [level], latitude, longitude), whose values are not read.
            plumes: of the variable.
            lead_hours: that have values.
        """
        self._field, self._hours = field, list(lead_hours)
        self._levels = field["level"].values.tolist() if "level" in field.dims else []
        self._places = list(dict.fromkeys(each.place for each in plumes))
        latitude, longitude = field["latitude"].values, field["longitude"].values
        points = [nearest(place_of(place), latitude, longitude) for place in self._places]
        self._at = {
            "latitude": xr.DataArray([point.row for point in points], dims="point"),
            "longitude": xr.DataArray([point.column for point in points], dims="point"),
        }
        shape = (len(self._hours), max(1, len(self._levels)), len(points))
        self._truth = np.full(shape, np.nan)
        self._members = np.full((field.sizes["number"], *shape), np.nan, np.float32)

    def add(self, hours: int, number: int, field: xr.DataArray) -> None:
        """Add the values of a member at a lead time, ([level], latitude, longitude), which are read at the points."""
        self._members[number, self._hours.index(hours)] = self._of(field)

    def add_truth(self, hours: int, truth: xr.DataArray | None) -> None:
        """Add the truth at a lead time, ([level], latitude, longitude), as far as there is any."""
        if truth is not None:
            there = truth.reindex(level=self._levels) if self._levels else truth
            self._truth[self._hours.index(hours)] = self._of(there)

    def of(self, plume: _Plume) -> tuple[xr.DataArray, NDArray[np.float64]]:
        """Return the values of all members, (number, prediction_timedelta), and the truth, (prediction_timedelta,)."""
        point = self._places.index(plume.place)
        level = 0 if plume.level is None else self._levels.index(plume.level)
        at = {dim: int(index[point]) for dim, index in self._at.items()}
        field = _at_level(self._field.isel(at), plume.level)
        field = field.sel(prediction_timedelta=[_lead(hours) for hours in self._hours])
        return field.copy(data=self._members[..., level, point]), self._truth[:, level, point]

    def _of(self, field: xr.DataArray) -> NDArray[np.float32]:
        values = field.isel(self._at).values if self._places else np.empty(0, np.float32)
        return values.reshape(self._truth.shape[1:])


def _at_level(field: xr.DataArray, level: int | None) -> xr.DataArray:
    return field if level is None else field.sel(level=level)


def _lead(hours: int) -> np.timedelta64:
    return np.timedelta64(hours, "h")


def _maps(wanted: FiguresConfig, on_levels: Mapping[str, bool], lead_hours: Collection[int]) -> Iterator[_Map]:
    for name in wanted.spaghetti:
        if name not in wanted.variables:
            raise FigureError(
                f"figures.spaghetti: {name} must be among figures.variables, which are "
                f"{', '.join(wanted.variables)}; add it there"
            )
    for name in dict.fromkeys(wanted.variables):
        for level in _levels(wanted, on_levels, name):
            for hours in sorted(set(lead_hours if wanted.lead_hours is None else wanted.lead_hours)):
                stem, end = figure_stem(name, level), f"{hours:03d}h.{wanted.format}"
                if wanted.ensemble:
                    yield _Map(name, level, hours, f"{stem}_mean_and_spread_{end}", None)
                if name in wanted.spaghetti:
                    value = wanted.spaghetti[name]
                    yield _Map(name, level, hours, f"{stem}_contour_{value:g}_{end}", value)


def _plumes(wanted: FiguresConfig, on_levels: Mapping[str, bool]) -> Iterator[_Plume]:
    for name in dict.fromkeys(wanted.variables) if wanted.ensemble else ():
        for level in _levels(wanted, on_levels, name):
            for text in wanted.points:
                place = place_of(text).name.replace(" ", "_").replace("°", "")
                yield _Plume(name, level, text, f"{figure_stem(name, level)}_plume_in_{place}.{wanted.format}")


def _levels(wanted: FiguresConfig, on_levels: Mapping[str, bool], name: str) -> Sequence[int | None]:
    return list(dict.fromkeys(wanted.levels)) if on_levels[name] else [None]


def _complete(store: Store, case: Case) -> list[int]:
    """Return the places of the members that are complete to all steps of a Case."""
    steps_of = store.ledger.complete_steps()
    keys = [case_key(case.init_time, member.number) for member in store.members]
    return [place for place, key in enumerate(keys) if steps_of.get(key, 0) >= case.steps]


def _time_text(time: xr.DataArray) -> str:
    return f"{str(time.values.astype('datetime64[m]')).replace('T', ' ')} UTC"
