"""A RunConfig and what the inputs offer become a Plan: the Cases of a run and the layout of what they write."""

import difflib
import math
import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import total_ordering
from typing import Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.config.outputs_section import OutputsConfig, RegionConfig
from graphcast_batch.config.times_section import MOST_HOURS, TimesConfig
from graphcast_batch.errors import ConfigError, GridError, TaskError
from graphcast_batch.grid import SAME_PLACE_DEGREES, Grid
from graphcast_batch.spec import Task
from graphcast_batch.variables import DIMS, VARIABLES

_BLOCK_STEPS = 8
_ALL = OutputsConfig()


@total_ordering
@dataclass(frozen=True)
class Case:
    """One forecast to make: the unit of work, retry, resume, logging and fault attribution.

    Cases are ordered by initial time, number of steps, step length, source and member; a Case without a member comes
    before those with one.

    Attributes:
        init_time: initial time, UTC, a whole hour.
        steps: number of the model's steps.
        step_hours: hours that the model advances in one step.
        source: the dataset file that holds the initial state; empty where one archive holds them all.
        member: number of the ensemble member, from 0; None for a forecast that belongs to no ensemble.

    Raises:
        ValueError: ``member`` is negative.
    """

    init_time: np.datetime64
    steps: int
    step_hours: int
    source: str = ""
    member: int | None = None

    def __post_init__(self) -> None:
        if self.member is not None and self.member < 0:
            raise ValueError(f"the member of a Case must be 0 or more, but is {self.member}; count members from 0")

    def __lt__(self, other: object) -> bool:
        return self._order < other._order if isinstance(other, Case) else NotImplemented

    @property
    def key(self) -> str:
        """Name of the Case in file names, logs and tables: ``2020-01-01T06``, or ``2020-01-01T06-m007`` of a member."""
        hour = str(self.init_time.astype("datetime64[h]"))
        return hour if self.member is None else f"{hour}-m{self.member:03d}"

    @property
    def hours(self) -> int:
        """Lead time of the last frame."""
        return self.steps * self.step_hours

    @property
    def lead_times(self) -> np.ndarray[tuple[int], np.dtype[np.timedelta64]]:
        """(steps,) timedelta64[h] lead times."""
        return np.arange(1, self.steps + 1) * np.timedelta64(self.step_hours, "h")

    @property
    def _order(self) -> tuple[np.datetime64, int, int, str, int]:
        return self.init_time, self.steps, self.step_hours, self.source, -1 if self.member is None else self.member


CASE_KEY: Final = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2})(?:-m([0-9]{3,}))?")
"""A `Case.key`: the hour of the initial time, and the number of the member if there is one."""


def parse_key(key: str) -> tuple[np.datetime64, int | None]:
    """Return the initial time, datetime64[h], and the member that a `Case.key` names.

    Raises:
        ValueError: it is no such key.
    """
    match = CASE_KEY.fullmatch(key)
    if match is None:
        raise ValueError(f"the key of a Case must look like 2020-01-01T06 or 2020-01-01T06-m007, but is {key!r}")
    return np.datetime64(match[1], "h"), None if match[2] is None else int(match[2])


@dataclass(frozen=True, eq=False)
class OutputGrid:
    """What a store keeps of a forecast, along each axis but the initial time.

    Attributes:
        on_levels: for each variable, in ASCII order, whether it is on levels.
        levels: hPa, ascending; empty without any variable on levels.
        lead_hours: ascending.
        latitude: (lat,) float32 degrees, uniformly spaced, ascending.
        longitude: (lon,) float32 degrees, uniformly spaced, ascending from west to east, once around the globe at
            most; those west of 0° may be negative.

    Raises:
        GridError: latitudes or longitudes are not that.
    """

    on_levels: tuple[tuple[str, bool], ...]
    levels: tuple[int, ...]
    lead_hours: tuple[int, ...]
    latitude: NDArray[np.float32]
    longitude: NDArray[np.float32]

    def __post_init__(self) -> None:
        _check_axis("latitude", self.latitude, -90, 90)
        _check_axis("longitude", self.longitude, -360, 720)

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables, in ASCII order."""
        return tuple(name for name, _ in self.on_levels)

    @property
    def fields(self) -> int:
        """Values at a point at one lead time."""
        return sum(len(self.levels) if levelled else 1 for _, levelled in self.on_levels)

    @property
    def frame_bytes(self) -> int:
        """Bytes at one lead time in float32."""
        return 4 * self.fields * self.latitude.size * self.longitude.size

    def frame_shape(self, levelled: bool) -> tuple[int, ...]:
        """Shape of a variable at one lead time: ([level], latitude, longitude)."""
        return (*((len(self.levels),) if levelled else ()), self.latitude.size, self.longitude.size)

    def leads(self, hours: int) -> int:
        """How many of the lead times a forecast of so many hours reaches."""
        return bisect_right(self.lead_hours, hours)


@dataclass(frozen=True)
class Layout:
    """What forecasts hold, and what of it a store keeps.

    Attributes:
        grid: the points of a forecast.
        levels: of a forecast, pressure in hPa, ascending; empty without any variable on levels.
        on_levels: for each target variable, in ASCII order, whether it is on levels.
        steps: number of the model's steps of a forecast.
        step_hours: hours that the model advances in one step.
        outputs: what is to be kept of it.
        kept: that, along each axis.
        block_steps: how many lead times of a variable are one shard, which is one file.

    Raises:
        ConfigError: it cannot be kept so.
    """

    grid: Grid
    levels: tuple[int, ...]
    on_levels: tuple[tuple[str, bool], ...]
    steps: int
    step_hours: int
    outputs: OutputsConfig = _ALL
    kept: OutputGrid = field(init=False, compare=False)
    block_steps: int = field(init=False)

    def __post_init__(self) -> None:
        kept = _kept(self)
        object.__setattr__(self, "kept", kept)
        object.__setattr__(self, "block_steps", _block_steps(kept, self.outputs.max_files))

    @property
    def channels(self) -> int:
        """Values at a point of one frame of a forecast, kept or not."""
        return sum(len(self.levels) if levelled else 1 for _, levelled in self.on_levels)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame of a forecast in float32, kept or not."""
        return 4 * self.channels * self.grid.size

    @property
    def case_bytes(self) -> int:
        """Bytes of the forecast that one Case writes, before compression."""
        return self.kept.frame_bytes * len(self.kept.lead_hours) if self.outputs.forecasts else 0

    @property
    def case_files(self) -> int:
        """Files of the forecast that one Case writes into the store."""
        blocks = math.ceil(len(self.kept.lead_hours) / self.block_steps) if self.outputs.forecasts else 0
        return blocks * len(self.kept.on_levels)


@dataclass(frozen=True)
class Plan:
    """The Cases of a run, with the layout and size of what they will write."""

    cases: tuple[Case, ...]
    layout: Layout
    skipped: tuple[tuple[str, str], ...] = ()
    """Cases that cannot be run, by key, each with the reason."""

    @property
    def store_bytes(self) -> int:
        """Bytes of all Cases before compression."""
        return len(self.cases) * self.layout.case_bytes


def plan_times(times: TimesConfig) -> list[np.datetime64]:
    """The initial times that a configuration asks for, ascending.

    Returns:
        datetime64[h] values.

    Raises:
        ConfigError: none is left.
    """
    excluded = frozenset(times.exclude)
    wanted: list[np.datetime64] = sorted(
        np.datetime64(time, "h")
        for time in (_regular(times) if times.list is None else times.list)
        if time not in excluded and (not times.hours or time.hour in times.hours)
    )
    if not wanted:
        raise ConfigError("times must leave at least one initial time, but hours and exclude leave none; widen them")
    return wanted


def plan_cases(
    init_times: Sequence[np.datetime64], steps: int, available: Collection[np.datetime64] | None, task: Task
) -> tuple[tuple[Case, ...], tuple[tuple[str, str], ...]]:
    """The Cases that an archive can start, and those it cannot, with the reason.

    Args:
        init_times: wanted initial times.
        steps: number of the model's steps of each.
        available: times that the archive holds; None where it holds every time.
        task: says how many frames go in, how far apart; the last is at the initial time.

    Raises:
        ConfigError: no initial time is left.
    """
    held = None if available is None else {time.astype("datetime64[s]") for time in available}
    cases, skipped = [], []
    for init_time in init_times:
        case = Case(init_time, steps, task.step_hours)
        needed = [init_time - n * task.step for n in reversed(range(task.input_frames))]
        lacking = [time for time in needed if held is not None and time.astype("datetime64[s]") not in held]
        if lacking:
            skipped.append((case.key, f"the archive lacks {', '.join(str(time) for time in lacking)}"))
        else:
            cases.append(case)
    if not cases:
        raise ConfigError(
            f"none of the {len(init_times)} initial times can be run; the first: {skipped[0][0]}: {skipped[0][1]}"
        )
    return tuple(cases), tuple(skipped)


def plan_layout(
    task: Task, grid: Grid, steps: int, dims: Mapping[str, Collection[str]], outputs: OutputsConfig = _ALL
) -> Layout:
    """The layout of a store for a task on a grid.

    Args:
        task: names the target variables and levels.
        grid: the points.
        steps: number of the model's steps of a forecast.
        dims: dimensions of the variables that the inputs hold.
        outputs: what is to be kept of a forecast.

    Raises:
        ConfigError: that cannot be kept so.
        TaskError: the dimensions of a target are unknown or not ours.
    """
    on_levels = tuple((name, is_on_levels(name, dims)) for name in sorted(task.target_variables))
    levels = task.pressure_levels if any(levelled for _, levelled in on_levels) else ()
    return Layout(grid, levels, on_levels, steps, task.step_hours, outputs)


def is_on_levels(name: str, dims: Mapping[str, Collection[str]]) -> bool:
    """Whether a variable has a level dimension: as the data say, else as the table of variables says.

    Raises:
        TaskError: neither knows the variable, or the data have it along a dimension that is not ours.
    """
    if name in dims:
        _check_dims(name, dims[name])
        return "level" in dims[name]
    if name in VARIABLES:
        return VARIABLES[name].kind == "level"
    raise TaskError(
        f"the variable {name} is neither in the inputs nor among those this program knows, so whether it is on "
        "pressure levels is unknown; add it to the inputs"
    )


def _kept(layout: Layout) -> OutputGrid:
    outputs = layout.outputs
    on_levels = _kept_variables(layout)
    levels = _kept_levels(layout, any(levelled for _, levelled in on_levels))
    latitude, longitude = layout.grid.latitude, layout.grid.longitude
    if outputs.region is not None:
        latitude, longitude = _kept_points(outputs.region, layout.grid)
    return OutputGrid(on_levels, levels, _kept_hours(layout), latitude, longitude)


def _kept_variables(layout: Layout) -> tuple[tuple[str, bool], ...]:
    known, bits = dict(layout.on_levels), layout.outputs.keep_bits
    wanted = set(known if layout.outputs.variables is None else layout.outputs.variables)
    for name in sorted(wanted):
        _check_among(f"outputs.variables: {name}", name, known, "predicted")
    for name in sorted(bits) if isinstance(bits, dict) else ():
        _check_among(f"outputs.keep_bits: {name}", name, wanted, "kept")
    return tuple((name, levelled) for name, levelled in layout.on_levels if name in wanted)


def _check_among(where: str, name: str, known: Iterable[str], what: str) -> None:
    names = sorted(known)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"take some of {', '.join(names)}"
        raise ConfigError(f"{where} must be among the variables that are {what}, but is not; {hint}")


def _kept_levels(layout: Layout, needed: bool) -> tuple[int, ...]:
    if not needed and layout.outputs.levels:
        raise ConfigError("outputs.levels: leave them out, since no variable that is kept is on levels")
    if not needed:
        return ()
    wanted = sorted(set(layout.levels if layout.outputs.levels is None else layout.outputs.levels))
    for level in wanted:
        if level not in layout.levels:
            near = min(layout.levels, key=lambda known: abs(known - level))
            raise ConfigError(
                f"outputs.levels: {level} hPa must be among the levels of the forecast, which are "
                f"{', '.join(map(str, layout.levels))}, but is not; the nearest is {near}"
            )
    return tuple(wanted)


def _kept_hours(layout: Layout) -> tuple[int, ...]:
    step, outputs = layout.step_hours, layout.outputs
    last = step * layout.steps
    if last > MOST_HOURS:
        raise ConfigError(
            f"steps must be {MOST_HOURS // step} at most, as many of {step} h as there are in the longest time that "
            f"can be stored, but is {layout.steps}"
        )
    every, hours = outputs.every_hours or step, outputs.lead_hours
    if every % step:
        raise ConfigError(f"outputs.every_hours must be a multiple of {step}, the model's step, but is {every}")
    kept = sorted(set(range(every, last + 1, every) if hours is None else hours))
    for lead in kept:
        if lead % step or lead > last:
            near = min(max(step, step * round(lead / step)), last)
            raise ConfigError(
                f"outputs.lead_hours: {lead} h must be a lead time of the forecast, which has one every "
                f"{step} h up to {last} h, but is not; the nearest is {near} h"
            )
    # So that a record of so many steps tells which lead times are in the store, even once there are more.
    if not kept or kept[-1] != last:
        steps = (kept[-1] if kept else every) // step
        raise ConfigError(
            f"the last of {layout.steps} steps, {last} h, must be among the lead times that outputs keeps, but is not; "
            f"set steps to {steps}, or keep {last} h too"
        )
    return tuple(kept)


def _kept_points(region: RegionConfig, grid: Grid) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Latitudes and longitudes of a region, the latter ascending from its western edge."""
    south, north = region.latitude
    latitude = grid.latitude[
        (south - SAME_PLACE_DEGREES <= grid.latitude) & (grid.latitude <= north + SAME_PLACE_DEGREES)
    ]
    west, east = region.longitude
    if west > east:
        west, east = (west, east + 360) if east <= 0 else (west - 360, east)
    beyond = (grid.longitude.astype(np.float64) - west + SAME_PLACE_DEGREES) % 360 - SAME_PLACE_DEGREES
    longitude = np.sort(west + beyond[beyond <= east - west + SAME_PLACE_DEGREES]).astype(np.float32)
    if not latitude.size or not longitude.size:
        raise ConfigError(
            f"outputs.region must hold points of the grid, but between latitudes {south:g} and {north:g} and "
            f"longitudes {west:g} and {east:g} there are none of {grid}; widen it"
        )
    return latitude, longitude


def _block_steps(kept: OutputGrid, max_files: int | None) -> int:
    leads, variables = len(kept.lead_hours), len(kept.on_levels)
    if max_files is None:
        return min(leads, _BLOCK_STEPS)
    if max_files < variables:
        raise ConfigError(
            f"outputs.max_files must be {variables} at least, one for each variable, but is {max_files}; "
            "raise it or keep fewer variables"
        )
    return max(min(leads, _BLOCK_STEPS), math.ceil(leads / (max_files // variables)))


def _check_axis(name: str, values: NDArray[np.float32], low: float, high: float) -> None:
    steps = np.diff(values.astype(np.float64))
    even = not steps.size or (steps.min() > 0 and np.ptp(steps) <= SAME_PLACE_DEGREES)
    if (
        values.ndim != 1
        or not values.size
        or not np.all((low - SAME_PLACE_DEGREES <= values) & (values <= high))
        or not even
    ):
        raise GridError(
            f"the {name} of what is kept must ascend evenly within {low} and {high} degrees, but is {values}; "
            "restore it from a copy of the store"
        )


def _regular(times: TimesConfig) -> Iterator[datetime]:
    assert times.first is not None
    assert times.last is not None
    assert times.every_hours is not None
    every = timedelta(hours=times.every_hours)
    return (times.first + n * every for n in range((times.last - times.first) // every + 1))


def _check_dims(name: str, found: Collection[str]) -> None:
    foreign = [dim for dim in found if dim not in DIMS]
    if not foreign:
        return
    lacks_level = name in VARIABLES and VARIABLES[name].kind == "level" and "level" not in found
    expected = "the dimension level" if lacks_level else f"dimensions among {', '.join(DIMS)}"
    remedy = f"select one place along {', '.join(foreign)}"
    if lacks_level:
        remedy = f"say in inputs.names which it is, such as inputs.names {{{foreign[0]}: level}}"
    raise TaskError(f"{name} must have {expected}, but has {', '.join(found)}; {remedy}")
