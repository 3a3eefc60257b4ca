"""Draw the figures of all members of an initial time together: maps of mean and spread, contour lines, and plumes."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from graphcast_batch.config.figures_section import FiguresConfig
from graphcast_batch.errors import FigureError
from graphcast_batch.figures.case_figures import figure_stem
from graphcast_batch.figures.ensemble_maps import EnsembleFields, control_of, draw_mean_and_spread, draw_spaghetti
from graphcast_batch.figures.map_points import nearest, place_of
from graphcast_batch.figures.plumes import draw_plume
from graphcast_batch.figures.projections import projection_called
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

    One lead time of one variable of all members is in memory at once, at the levels that are drawn.

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
    opened = store.forecasts().isel(time=place, number=numbers)
    of_members = _Members(opened, case, source, control_of(opened["perturbation"].values.tolist(), UNPERTURBED))
    text = counted(len(numbers), "member")
    text = text if len(numbers) == len(store.members) else f"{len(numbers)} of {counted(len(store.members), 'member')}"
    projection = projection_called(wanted.projection, wanted.center)
    for name in dict.fromkeys([*(each.name for each in maps), *(each.name for each in plumes)]):
        here, levels = [each for each in maps if each.name == name], wanted.levels if on_levels[name] else (None,)
        there = [each for each in plumes if each.name == name]
        series: dict[_Plume, list[tuple[xr.DataArray, float]]] = {each: [] for each in there}
        for hours in lead_hours if there else sorted({each.hours for each in here}):
            frames = of_members.at(name, tuple(level for level in levels if level is not None), hours)
            for each in there:
                series[each].append(frames.at_point(each.level, each.place))
            for drawn in here:
                if drawn.hours == hours:
                    fields = frames.fields(drawn.level, text)
                    if drawn.value is None:
                        draw_mean_and_spread(folder / drawn.file_name, fields, projection)
                    else:
                        draw_spaghetti(folder / drawn.file_name, fields, drawn.value, projection)
        for each, values in series.items():
            along = xr.concat(
                [member for member, _ in values], "prediction_timedelta", coords="minimal", compat="override"
            )
            target = np.array([truth for _, truth in values])
            ordered = along.transpose("number", "prediction_timedelta")
            draw_plume(folder / each.file_name, place_of(each.place), ordered, target, of_members.control, text)
    return len(maps) + len(plumes)


@dataclass(frozen=True, eq=False)
class _Members:
    """Reader of the forecasts of all members of an initial time, and of their truth."""

    opened: xr.Dataset
    case: Case
    source: Truth
    control: int | None

    def at(self, name: str, levels: tuple[int, ...], hours: int) -> "_Frames":
        """Read a variable at one lead time, at some levels."""
        lead = np.timedelta64(hours, "h").astype("timedelta64[ns]")
        members = self.opened[name].sel(prediction_timedelta=lead)
        members = (members.sel(level=list(levels)) if levels else members).load()
        return _Frames(members, truth_at(self.source, self.case, name, levels, hours), self.control, hours)


@dataclass(frozen=True, eq=False)
class _Frames:
    """One lead time of a variable: (number, [level], latitude, longitude), and its truth if there is any."""

    members: xr.DataArray
    truth: xr.DataArray | None
    control: int | None
    hours: int

    def fields(self, level: int | None, text: str) -> EnsembleFields:
        """Return the fields at a level."""
        members, truth = self._at(level)
        valid = members["time"] + members["prediction_timedelta"]
        times = f"Initial time {_time_text(members['time'])}    Valid time {_time_text(valid)}"
        when = f"{times}    Lead time +{self.hours} h"
        latitude, longitude = (members[name].values.astype(np.float32) for name in ("latitude", "longitude"))
        of, grid = quantity(members), Grid(latitude, longitude)
        values = None if truth is None else truth.values
        return EnsembleFields(of, grid, members.values, values, self.control, when, text)

    def at_point(self, level: int | None, place: str) -> tuple[xr.DataArray, float]:
        """Return the values of all members, (number,), and the truth, at the grid point nearest to a place."""
        members, truth = self._at(level)
        point = nearest(place_of(place), members["latitude"].values, members["longitude"].values)
        at = {"latitude": point.row, "longitude": point.column}
        return members.isel(at), np.nan if truth is None else float(truth.isel(at))

    def _at(self, level: int | None) -> tuple[xr.DataArray, xr.DataArray | None]:
        truth = self.truth
        if level is None:
            return self.members, truth
        held = truth is not None and level in truth["level"].values
        return self.members.sel(level=level), truth.sel(level=level) if truth is not None and held else None


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
