"""A RunConfig and what the inputs offer become a Plan: the Cases of a run and the layout of what they write."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from graphcast_batch.config import STEP_HOURS, Architecture, Task, Times
from graphcast_batch.errors import ConfigError, TaskError
from graphcast_batch.grid import Grid
from graphcast_batch.variables import DIMS, VARIABLES

_BLOCK_BYTES = 2**28
"""A worker holds a few blocks of frames at a time; a quarter GiB each keeps a 0.25° forecast off the memory limit."""
_BLOCK_STEPS = 8


@dataclass(frozen=True, order=True)
class Case:
    """One forecast to make: the unit of work, retry, resume, logging and blame.

    Attributes:
        init_time: initial time, UTC, a whole hour.
        steps: number of 6 h steps.
        source: the dataset file that holds the initial state; empty where one archive holds them all.
    """

    init_time: np.datetime64
    steps: int
    source: str = ""

    @property
    def key(self) -> str:
        """What names the Case in file names, logs and tables, like ``2020-01-01T06``."""
        return str(self.init_time.astype("datetime64[h]"))

    @property
    def lead_times(self) -> np.ndarray[tuple[int], np.dtype[np.timedelta64]]:
        """(steps,) timedelta64[h] lead times."""
        return np.arange(1, self.steps + 1) * np.timedelta64(STEP_HOURS, "h")


@dataclass(frozen=True)
class Layout:
    """What a store holds apart from its initial times.

    Attributes:
        grid: the points.
        levels: pressure levels in hPa, ascending; empty without any variable on levels.
        dims: for each target variable, in ASCII order, whether it is on levels.
        steps: number of lead times.
        block_steps: how many lead times are written at once, which is one shard.
    """

    grid: Grid
    levels: tuple[int, ...]
    on_levels: tuple[tuple[str, bool], ...]
    steps: int
    block_steps: int = field(init=False)

    def __post_init__(self) -> None:
        most = max(1, _BLOCK_BYTES // self.frame_bytes)
        object.__setattr__(self, "block_steps", min(self.steps, _BLOCK_STEPS, most))

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables, in ASCII order."""
        return tuple(name for name, _ in self.on_levels)

    @property
    def channels(self) -> int:
        """Values at a grid point in one frame."""
        return sum(len(self.levels) if levelled else 1 for _, levelled in self.on_levels)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one float32 frame."""
        return 4 * self.channels * self.grid.size

    @property
    def case_bytes(self) -> int:
        """Bytes of one Case before compression."""
        return self.frame_bytes * self.steps

    @property
    def case_files(self) -> int:
        """Files that one Case writes into the store."""
        return len(self.on_levels) * math.ceil(self.steps / self.block_steps)


@dataclass(frozen=True)
class Plan:
    """The Cases of a run, with the layout and size of what they will write."""

    cases: tuple[Case, ...]
    layout: Layout
    set_aside: tuple[tuple[str, str], ...] = ()
    """Cases that cannot be run, by key, each with the reason."""

    @property
    def store_bytes(self) -> int:
        """Bytes of all Cases before compression."""
        return len(self.cases) * self.layout.case_bytes


def plan_times(times: Times) -> list[np.datetime64]:
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
    init_times: Sequence[np.datetime64], steps: int, available: Collection[np.datetime64] | None, input_frames: int
) -> tuple[tuple[Case, ...], tuple[tuple[str, str], ...]]:
    """The Cases that an archive can start, and those it cannot, with the reason.

    Args:
        init_times: wanted initial times.
        steps: number of 6 h steps of each.
        available: times that the archive holds; None where it holds every time.
        input_frames: how many frames, 6 h apart, go in; the last is at the initial time.

    Raises:
        ConfigError: no initial time is left.
    """
    held = None if available is None else {time.astype("datetime64[s]") for time in available}
    cases, aside = [], []
    for init_time in init_times:
        case = Case(init_time, steps)
        needed = [init_time - n * np.timedelta64(STEP_HOURS, "h") for n in reversed(range(input_frames))]
        lacking = [time for time in needed if held is not None and time.astype("datetime64[s]") not in held]
        if lacking:
            aside.append((case.key, f"the archive lacks {', '.join(str(time) for time in lacking)}"))
        else:
            cases.append(case)
    if not cases:
        raise ConfigError(
            f"none of the {len(init_times)} initial times can be run; the first: {aside[0][0]}: {aside[0][1]}"
        )
    return tuple(cases), tuple(aside)


def plan_layout(task: Task, grid: Grid, steps: int, dims: Mapping[str, Collection[str]]) -> Layout:
    """The layout of a store for a task on a grid.

    Args:
        task: names the target variables and levels.
        grid: the points.
        steps: number of lead times.
        dims: dimensions of the variables that the inputs hold.

    Raises:
        TaskError: the dimensions of a target are unknown or not ours.
    """
    on_levels = tuple((name, is_on_levels(name, dims)) for name in sorted(task.target_variables))
    levels = task.pressure_levels if any(levelled for _, levelled in on_levels) else ()
    return Layout(grid=grid, levels=levels, on_levels=on_levels, steps=steps)


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


def _regular(times: Times) -> Iterator[datetime]:
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
    remedy = "rename it" if lacks_level else f"select one place along {', '.join(foreign)}, or rename it"
    raise TaskError(f"{name} must have {expected}, but has {', '.join(found)}; {remedy}")


def mesh_counts(size: int) -> tuple[int, int]:
    """Nodes and directed edges of the multi-mesh after so many refinements of the icosahedron."""
    return 10 * 4**size + 2, sum(60 * 4**level for level in range(size + 1))


def grid2mesh_edges(architecture: Architecture, grid: Grid) -> float:
    """About how many edges lead from grid points to mesh nodes, without building them.

    A grid point sees the mesh nodes in a cap of chord r, a share r²/4 of the sphere. The longest edge of the finest
    mesh is 1.08 to 1.10 times the edge of as many equal flat triangles, measured for mesh sizes 2 to 6.
    """
    nodes, _ = mesh_counts(architecture.mesh_size)
    edge = 1.1 * math.sqrt(4 * math.pi / (20 * 4**architecture.mesh_size) * 4 / math.sqrt(3))
    radius = architecture.radius_query_fraction_edge_length * edge
    return grid.size * nodes * min(1.0, radius**2 / 4)


def worker_bytes(architecture: Architecture, layout: Layout, inputs: int, precision_bytes: int) -> int:
    """What one worker's device needs at least, estimated: weights, graph, latents of the largest stage, frames.

    Args:
        architecture: sizes of the network.
        layout: of the frames.
        inputs: values at a grid point that go in.
        precision_bytes: 2 for bfloat16, 4 for float32.
    """
    _, mesh_edges = mesh_counts(architecture.mesh_size)
    mesh2grid_edges = 3 * layout.grid.size
    latent = architecture.latent_size * precision_bytes
    stages = (
        3 * grid2mesh_edges(architecture, layout.grid) + 3 * layout.grid.size,
        4 * mesh_edges + layout.grid.size,
        3 * mesh2grid_edges + 3 * layout.grid.size,
    )
    hidden = architecture.latent_size**2 * (architecture.hidden_layers + 3)
    weights = 4 * hidden * (2 * architecture.gnn_msg_steps + 12)
    frames = layout.grid.size * 4 * (2 * inputs + 3 * layout.channels)
    return int(max(stages) * latent + weights + frames)
