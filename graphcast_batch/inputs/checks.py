"""The inputs of a Case are held against the task, the grid and the checkpoint before any device time is spent."""

from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr

from graphcast_batch.config import STEP_HOURS, Task
from graphcast_batch.errors import InputError, TaskError
from graphcast_batch.grid import Grid
from graphcast_batch.inputs.gridded import level_hint
from graphcast_batch.inputs.states import COMPUTABLE, STEP, CaseInputs
from graphcast_batch.variables import DIMS, VARIABLES

_PLACE_TOLERANCE = 1e-3  # degrees
_LARGEST = 1e36
"""No field comes near this; netCDF's filler for values never written is 9.97e36."""


def check_inputs(inputs: CaseInputs, task: Task, grid: Grid, resolution: float) -> None:
    """Raises unless a forecast can start from these inputs.

    Args:
        inputs: of one Case.
        task: of the checkpoint.
        grid: of the run.
        resolution: that the checkpoint was trained for, degrees; 0 for any.

    Raises:
        TaskError: an input changes with time, but is neither predicted nor prescribed.
        InputError: anything else; the message names every finding.
    """
    unfit = _unfollowed(inputs.frames, task)
    if unfit:
        raise TaskError(
            f"every input that changes with time must be a target or a forcing, but {', '.join(unfit)} is neither, so "
            "that later steps would have no value for it; leave it out of the task, or give it without time if it is "
            "constant"
        )
    found = find_faults(inputs, task, grid, resolution)
    if found:
        lines = "\n".join(f"  {line}" for line in found)
        raise InputError(f"the inputs {_when(inputs.frames)}cannot start a forecast:\n{lines}")


def find_faults(inputs: CaseInputs, task: Task, grid: Grid, resolution: float) -> list[str]:
    """Every reason why a forecast cannot start from these inputs: the thing, expected, found, remedy."""
    frames, forcings = inputs.frames, inputs.forcings
    return [
        *_absent(frames, task.input_variables, "input variables"),
        *_absent(forcings, task.forcing_variables, "forcing variables"),
        *_wrong_dims(frames, task),
        *_wrong_dims(forcings, task),
        *_wrong_levels(frames, task),
        *_wrong_input_times(frames, task),
        *_wrong_points(frames, grid),
        *_wrong_resolution(grid, resolution),
        *(gap for fields in (frames, forcings) for array in fields.data_vars.values() if (gap := find_gap(array))),
    ]


def find_gap(array: xr.DataArray) -> str:
    """Says where a variable has values that are not finite, or were never written; empty where it has none.

    Args:
        array: any dimensions; coordinates are named where there are any.
    """
    bad = ~(np.abs(array.values) < _LARGEST)
    count = int(np.count_nonzero(bad))
    if not count:
        return ""
    first = np.unravel_index(int(np.argmax(bad)), bad.shape)
    place = [_coordinate(array, str(dim), int(index)) for dim, index in zip(array.dims, first, strict=True)]
    elsewhere = "".join(_reach(array, bad, dim) for dim in ("level", "time") if dim in array.dims)
    return (
        f"{array.name} must be finite, but {count} of {bad.size} values are missing or infinite, the first at "
        f"{', '.join(place) or 'its only place'}{elsewhere}; fill them, or use other data"
    )


def _unfollowed(frames: xr.Dataset, task: Task) -> list[str]:
    followed = {*task.target_variables, *task.forcing_variables}
    return [
        name
        for name in sorted(task.input_variables)
        if name in frames.data_vars and "time" in frames[name].dims and name not in followed
    ]


def _when(frames: xr.Dataset) -> str:
    times = frames.coords.get("time")
    return "" if times is None or not times.size else f"at {_stamp(times.values[-1])} "


def _absent(fields: xr.Dataset, names: Sequence[str], what: str) -> Iterator[str]:
    absent = [name for name in sorted(names) if name not in fields.data_vars and name not in COMPUTABLE]
    if absent:
        held = ", ".join(sorted(map(str, fields.data_vars))) or "none"
        yield (
            f"the {what} {', '.join(absent)} must be there, but are missing from {held}; "
            "add them, or use a checkpoint whose task goes without"
        )


def _wrong_dims(fields: xr.Dataset, task: Task) -> Iterator[str]:
    for name, array in sorted(fields.data_vars.items(), key=lambda item: str(item[0])):
        expected = _expected_dims(str(name), array, task)
        if array.dims != expected:
            yield (
                f"{name} must have the dimensions {', '.join(expected)}, but has "
                f"{', '.join(map(str, array.dims)) or 'none'}; transpose it, or select one place along the others"
            )


def _expected_dims(name: str, array: xr.DataArray, task: Task) -> tuple[str, ...]:
    """All of a target; of what is never predicted, any of ours, in our order."""
    known = VARIABLES.get(name)
    wanted = {dim for dim in DIMS if dim in array.dims}
    if name in task.target_variables:
        wanted |= {"time", "latitude", "longitude"}
    if name in task.forcing_variables:
        wanted.add("time")
    if known and known.kind == "level":
        wanted.add("level")
    elif known:
        wanted.discard("level")
    return tuple(dim for dim in DIMS if dim in wanted)


def _wrong_levels(frames: xr.Dataset, task: Task) -> Iterator[str]:
    levelled = [str(name) for name, array in frames.data_vars.items() if "level" in array.dims]
    if not levelled:
        return
    found = [] if "level" not in frames.coords else [float(level) for level in frames["level"].values]
    if found != [float(level) for level in task.pressure_levels]:
        yield (
            f"{', '.join(sorted(levelled))} must be on the levels {list(task.pressure_levels)} hPa, but are on "
            f"{[f'{level:g}' for level in found]}; {level_hint([int(level) for level in found])}"
        )


def _wrong_input_times(frames: xr.Dataset, task: Task) -> Iterator[str]:
    if not any("time" in array.dims for array in frames.data_vars.values()):
        return
    times = frames["time"].values if "time" in frames.coords else np.zeros(0, "datetime64[ns]")
    if times.size != task.input_frames or np.any(np.diff(times) != STEP):
        yield (
            f"time must hold {task.input_frames} times {STEP_HOURS} h apart, but holds "
            f"{', '.join(map(_stamp, times)) or 'none'}; select frames {STEP_HOURS} h apart"
        )


def _wrong_points(frames: xr.Dataset, grid: Grid) -> Iterator[str]:
    for name, expected in (("latitude", grid.latitude), ("longitude", grid.longitude)):
        if name not in frames.coords:
            yield f"the coordinate {name} must be there, but is missing; give the points of the fields"
            continue
        found = frames[name].values
        if found.shape != expected.shape or not np.allclose(found, expected, rtol=0, atol=_PLACE_TOLERANCE):
            yield (
                f"{name} must be the grid's, {expected[0]:g} to {expected[-1]:g}° in {expected.size} steps, but is "
                f"{found[0]:g} to {found[-1]:g}° in {found.size}; use one grid for all Cases of a run"
            )


def _wrong_resolution(grid: Grid, resolution: float) -> Iterator[str]:
    if not grid.fits(resolution):
        yield (
            f"the resolution must be {resolution:g}°, which the checkpoint was trained for, but the grid is {grid}; "
            "regrid the data or use another checkpoint"
        )


def _coordinate(array: xr.DataArray, dim: str, index: int) -> str:
    if dim not in array.coords:
        return f"{dim} number {index}"
    value = array[dim].values[index]
    return f"{dim} {_stamp(value) if dim == 'time' else f'{value:g}'}"


def _reach(array: xr.DataArray, bad: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], dim: str) -> str:
    """In how many levels or times values are bad, where that says more than the first place."""
    axes = tuple(axis for axis, name in enumerate(array.dims) if name != dim)
    affected = int(np.count_nonzero(bad.any(axis=axes)))
    return f", in {affected} of {array.sizes[dim]} {dim}s" if array.sizes[dim] > 1 else ""


def _stamp(time: np.datetime64) -> str:
    return str(time.astype("datetime64[m]"))
