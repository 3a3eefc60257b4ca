"""What forecasts hold, what of it a store keeps, and how much the Cases of a run will write."""

import difflib
import math
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.config.outputs_section import OutputsConfig, RegionConfig
from graphcast_batch.config.times_section import MOST_HOURS
from graphcast_batch.errors import ConfigError, GridError
from graphcast_batch.grid import SAME_PLACE_DEGREES, Grid
from graphcast_batch.members import Member
from graphcast_batch.plan import Case
from graphcast_batch.spec import Task
from graphcast_batch.variables import is_on_levels

_BLOCK_STEPS = 8
_ALL = OutputsConfig()


@dataclass(frozen=True, eq=False)
class OutputGrid:
    """The variables, levels, lead times and points of forecasts that a store keeps.

    Attributes:
        on_levels: names of the variables in ASCII order, each with True if the variable is on levels.
        levels: pressure in hPa, ascending; empty if no variable is on levels.
        lead_hours: lead times in hours, ascending.
        latitude: (lat,) float32 degrees, uniformly spaced, ascending.
        longitude: (lon,) float32 degrees, uniformly spaced, ascending from west to east, once around the globe at
            most; those west of 0° may be negative.

    Raises:
        GridError: latitudes or longitudes are out of range or not uniformly spaced.
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
        """Number of values at one point and one lead time."""
        return sum(len(self.levels) if levelled else 1 for _, levelled in self.on_levels)

    @property
    def frame_bytes(self) -> int:
        """Size of one lead time in float32, in bytes."""
        return 4 * self.fields * self.latitude.size * self.longitude.size

    def frame_shape(self, levelled: bool) -> tuple[int, ...]:
        """Return the shape of a variable at one lead time: ([level], latitude, longitude)."""
        return (*((len(self.levels),) if levelled else ()), self.latitude.size, self.longitude.size)

    def leads(self, hours: int) -> int:
        """Return how many of the lead times are within a forecast of ``hours`` hours."""
        return bisect_right(self.lead_hours, hours)


@dataclass(frozen=True)
class Layout:
    """The axes of forecasts, and the parts of them that a store keeps.

    Attributes:
        grid: grid of the forecasts.
        levels: pressure levels of the forecasts in hPa, ascending; empty if no variable is on levels.
        on_levels: names of the target variables in ASCII order, each with True if the variable is on levels.
        steps: number of the model's steps of a forecast.
        step_hours: hours that the model advances in one step.
        outputs: the section ``outputs`` of the configuration, which selects what is kept.
        attributes: CF attributes of variables that are not what their names say by themselves.
        kept: the variables, levels, lead times and points that are kept.
        block_steps: number of lead times of a variable in one shard, which is one file.

    Raises:
        ConfigError: ``outputs`` selects something that the forecasts do not have.
    """

    grid: Grid
    levels: tuple[int, ...]
    on_levels: tuple[tuple[str, bool], ...]
    steps: int
    step_hours: int
    outputs: OutputsConfig = _ALL
    attributes: Mapping[str, Mapping[str, str]] = field(default_factory=dict, compare=False)
    kept: OutputGrid = field(init=False, compare=False)
    block_steps: int = field(init=False)

    def __post_init__(self) -> None:
        kept = _kept(self)
        object.__setattr__(self, "kept", kept)
        object.__setattr__(self, "block_steps", _block_steps(kept, self.outputs.max_files))

    @property
    def channels(self) -> int:
        """Number of values at one point of one frame of a forecast, kept or not."""
        return sum(len(self.levels) if levelled else 1 for _, levelled in self.on_levels)

    @property
    def frame_bytes(self) -> int:
        """Size of one frame of a forecast in float32, kept or not, in bytes."""
        return 4 * self.channels * self.grid.size

    @property
    def case_bytes(self) -> int:
        """Size of the forecast that one Case writes, before compression, in bytes."""
        return self.kept.frame_bytes * len(self.kept.lead_hours) if self.outputs.forecasts else 0

    @property
    def case_files(self) -> int:
        """Number of files of the forecast that one Case writes into the store."""
        blocks = math.ceil(len(self.kept.lead_hours) / self.block_steps) if self.outputs.forecasts else 0
        return blocks * len(self.kept.on_levels)


@dataclass(frozen=True)
class Plan:
    """The Cases of a run, and the layout of the forecasts that they write.

    Raises:
        ValueError: a Case is of a member that the plan does not have, or of none although the plan has members.
    """

    cases: tuple[Case, ...]
    layout: Layout
    skipped: tuple[tuple[str, str], ...] = ()
    """Keys of the Cases that cannot be run, each with the reason."""
    members: tuple[Member, ...] = ()
    """The members of each initial time, by number; empty for a run without an ensemble."""

    def __post_init__(self) -> None:
        numbers: set[int | None] = {member.number for member in self.members}
        numbers = numbers or {None}
        stray = next((case for case in self.cases if case.member not in numbers), None)
        if stray is not None:
            raise ValueError(f"{stray.key} must be of one of the {len(self.members)} members of the plan, but is not")

    @property
    def store_bytes(self) -> int:
        """Size of the forecasts of all Cases before compression, in bytes."""
        return len(self.cases) * self.layout.case_bytes


def plan_layout(
    task: Task, grid: Grid, steps: int, dims: Mapping[str, Collection[str]], outputs: OutputsConfig = _ALL
) -> Layout:
    """Return the layout of the forecasts of a task on a grid.

    Args:
        task: task of the model, with its target variables and levels.
        grid: grid of the forecasts.
        steps: number of the model's steps of a forecast.
        dims: dimensions of the variables that the inputs hold.
        outputs: the section ``outputs`` of the configuration, which selects what is kept.

    Raises:
        ConfigError: ``outputs`` selects something that the forecasts do not have.
        TaskError: the dimensions of a target variable are unknown, or not those that this program reads.
    """
    on_levels = tuple((name, is_on_levels(name, dims)) for name in sorted(task.target_variables))
    levels = task.pressure_levels if any(levelled for _, levelled in on_levels) else ()
    return Layout(grid, levels, on_levels, steps, task.step_hours, outputs)


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
    # The record of a Case has its number of steps alone, from which the lead times in the store must follow, also after
    # the store was extended to more lead times.
    if not kept or kept[-1] != last:
        steps = (kept[-1] if kept else every) // step
        raise ConfigError(
            f"the last of {layout.steps} steps, {last} h, must be among the lead times that outputs keeps, but is not; "
            f"set steps to {steps}, or keep {last} h too"
        )
    return tuple(kept)


def _kept_points(region: RegionConfig, grid: Grid) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the latitudes and longitudes of a region, the longitudes ascending from its western edge."""
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
