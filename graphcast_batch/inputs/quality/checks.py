"""Check the inputs of a Case against the task, the grid and the checkpoint before any device time is spent."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import xarray as xr

from graphcast_batch.errors import InputError, StatisticsError, TaskError
from graphcast_batch.grid import SAME_PLACE_DEGREES, Grid
from graphcast_batch.inputs.case_inputs import COMPUTABLE, CaseInputs
from graphcast_batch.inputs.findings import SILENT, Finding, Stated
from graphcast_batch.inputs.layouts.contents import level_hint
from graphcast_batch.inputs.quality.constants import find_implausible
from graphcast_batch.inputs.quality.geography import find_misplaced
from graphcast_batch.inputs.quality.locations import stamp
from graphcast_batch.inputs.quality.values import find_fault, find_gap, find_repeats, is_noise
from graphcast_batch.spec import Task
from graphcast_batch.variables import DIMS, VARIABLES

Units = Mapping[str, Stated]
NONE: Final[Units] = {}


def check_inputs(inputs: CaseInputs, task: Task, grid: Grid, resolution: float) -> None:
    """Check that a forecast can start from the inputs of a Case.

    Args:
        inputs: inputs of one Case.
        task: task of the checkpoint.
        grid: grid of the run.
        resolution: spacing of the grid that the checkpoint was trained for, in degrees; 0 for any.

    Raises:
        TaskError: an input changes with time, but is neither predicted nor prescribed.
        InputError: there is any other fault; the message names all faults.
    """
    for unfit in _unfollowed(inputs.frames, task):
        raise TaskError(str(unfit))
    found = find_faults(inputs, task, grid, resolution)
    if found:
        lines = "\n".join(f"  {line}" for line in found)
        raise InputError(f"the inputs {_when(inputs.frames)}cannot start a forecast:\n{lines}")


def find_faults(inputs: CaseInputs, task: Task, grid: Grid, resolution: float) -> list[Finding]:
    """Return all reasons why a forecast cannot start from the inputs; random numbers only need to be finite."""
    frames, forcings = inputs.frames, inputs.forcings
    return [
        *_unfollowed(frames, task),
        *_absent(frames, task.input_variables, "input variables"),
        *_absent(forcings, task.forcing_variables, "forcing variables"),
        *_wrong_dims(frames, task),
        *_wrong_dims(forcings, task),
        *_wrong_levels(frames, task),
        *_wrong_input_times(frames, task),
        *_wrong_points(frames, grid),
        *_wrong_resolution(grid, resolution),
        *faults_of_values(frames, forcings, inputs.stated),
    ]


def faults_of_values(frames: xr.Dataset, forcings: xr.Dataset | None = None, stated: Units = NONE) -> list[Finding]:
    """Return the variables whose values cannot be weather; if they are random numbers, those that are not finite.

    Args:
        frames: variables with coordinates.
        forcings: forcings at later times, whose values may repeat.
        stated: units that the data were converted from, by variable.
    """
    forcings = xr.Dataset() if forcings is None else forcings
    arrays = [array for fields in (frames, forcings) for array in fields.data_vars.values()]
    faults = [fault for array in arrays if (fault := find_fault(array, stated.get(str(array.name), SILENT)))]
    faults += find_repeats(frames)
    noise = bool(faults) and is_noise(frames)
    misplaced = [] if noise else find_misplaced(frames, forcings)
    if noise or (misplaced and is_noise(frames)):
        return [gap for array in arrays if (gap := find_gap(array))]
    explained = {fault.variable for fault in misplaced}
    return [fault for fault in faults if fault.variable not in explained] + misplaced


def check_statistics(
    statistics: Mapping[str, xr.Dataset], origin: str, task: Task, frames: Callable[[], xr.Dataset]
) -> None:
    """Check that normalization statistics are those of weather, unless the inputs are random numbers.

    Args:
        statistics: the datasets mean, stddev and diffs_stddev, with variables that are scalar or by ``level``.
        origin: folder of the statistics, for messages.
        task: task of the checkpoint.
        frames: reads some of the inputs; called only if a value is implausible.

    Raises:
        StatisticsError: a value is implausible; the message names the first one.
    """
    names = sorted({*task.input_variables, *task.target_variables, *task.forcing_variables})
    wrong = find_implausible(statistics, names, task.pressure_levels)
    if wrong and not is_noise(frames()):
        raise StatisticsError(
            f"the statistics {origin} cannot be those of weather: {wrong}; give the published ones, or compute them "
            "from the inputs with graphcast-batch stats"
        )


def _unfollowed(frames: xr.Dataset, task: Task) -> Iterator[Finding]:
    followed = {*task.target_variables, *task.forcing_variables}
    unfit = [
        name
        for name in sorted(task.input_variables)
        if name in frames.data_vars and "time" in frames[name].dims and name not in followed
    ]
    if unfit:
        yield Finding(
            ", ".join(unfit),
            "be a target or a forcing, as every input that changes with time",
            "is neither, so that later steps would have no value for it",
            "leave it out of the task, or give it without time if it is constant",
        )


def _when(frames: xr.Dataset) -> str:
    times = frames.coords.get("time")
    return "" if times is None or not times.size else f"at {stamp(times.values[-1])} "


def _absent(fields: xr.Dataset, names: Sequence[str], what: str) -> Iterator[Finding]:
    absent = [name for name in sorted(names) if name not in fields.data_vars and name not in COMPUTABLE]
    if absent:
        held = ", ".join(sorted(map(str, fields.data_vars))) or "none"
        yield Finding(
            f"the {what} {', '.join(absent)}",
            "be there",
            f"are missing from {held}",
            "add them, or use a checkpoint whose task does not need them",
        )


def _wrong_dims(fields: xr.Dataset, task: Task) -> Iterator[Finding]:
    for name, array in sorted(fields.data_vars.items(), key=lambda item: str(item[0])):
        expected = _expected_dims(str(name), array, task)
        if array.dims != expected:
            yield Finding(
                str(name),
                f"have the dimensions {', '.join(expected)}",
                f"has {', '.join(map(str, array.dims)) or 'none'}",
                "transpose it, or select one place along the others",
            )


def _expected_dims(name: str, array: xr.DataArray, task: Task) -> tuple[str, ...]:
    """Return the dimensions that a variable must have, in the order of `DIMS`."""
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


def _wrong_levels(frames: xr.Dataset, task: Task) -> Iterator[Finding]:
    levelled = [str(name) for name, array in frames.data_vars.items() if "level" in array.dims]
    if not levelled:
        return
    found = [] if "level" not in frames.coords else [float(level) for level in frames["level"].values]
    if found != [float(level) for level in task.pressure_levels]:
        yield Finding(
            ", ".join(sorted(levelled)),
            f"be on the levels {list(task.pressure_levels)} hPa",
            f"are on {[f'{level:g}' for level in found]}",
            level_hint([int(level) for level in found]),
        )


def _wrong_input_times(frames: xr.Dataset, task: Task) -> Iterator[Finding]:
    if not any("time" in array.dims for array in frames.data_vars.values()):
        return
    times = frames["time"].values if "time" in frames.coords else np.zeros(0, "datetime64[ns]")
    if times.size != task.input_frames or np.any(np.diff(times) != task.step):
        yield Finding(
            "time",
            f"hold {task.input_frames} times {task.step_hours} h apart",
            f"holds {', '.join(map(stamp, times)) or 'none'}",
            f"select frames {task.step_hours} h apart",
        )


def _wrong_points(frames: xr.Dataset, grid: Grid) -> Iterator[Finding]:
    for name, expected in (("latitude", grid.latitude), ("longitude", grid.longitude)):
        if name not in frames.coords:
            yield Finding(f"the coordinate {name}", "be there", "is missing", "give the points of the fields")
            continue
        found = frames[name].values
        if found.shape != expected.shape or not np.allclose(found, expected, rtol=0, atol=SAME_PLACE_DEGREES):
            yield Finding(
                name,
                f"be the grid's, {expected[0]:g} to {expected[-1]:g}° in {expected.size} steps",
                f"is {found[0]:g} to {found[-1]:g}° in {found.size}",
                "use one grid for all Cases of a run",
            )


def _wrong_resolution(grid: Grid, resolution: float) -> Iterator[Finding]:
    if not grid.fits(resolution):
        yield Finding(
            "the resolution",
            f"be {resolution:g}°, which the checkpoint was trained for",
            f"the grid is {grid}",
            "regrid the data or use another checkpoint",
        )
