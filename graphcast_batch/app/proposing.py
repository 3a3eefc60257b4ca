"""Find which variables, levels and initial times of an archive a first run can use, such that `check` accepts them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.errors import ConfigError, InputError
from graphcast_batch.inputs.case_inputs import COMPUTABLE, fewest_times
from graphcast_batch.inputs.findings import Finding
from graphcast_batch.inputs.sources.dataset_files import DatasetFiles
from graphcast_batch.inputs.sources.planet_archive import SyntheticArchive
from graphcast_batch.inputs.statistics import held_task
from graphcast_batch.plan import Case
from graphcast_batch.setup.input_faults import input_faults
from graphcast_batch.setup.run_source import AnySource
from graphcast_batch.spec import TASKS, Task
from graphcast_batch.variables import DIMS, HOUR, LEVELS_13, VARIABLES

Times = NDArray[np.datetime64]
_PUBLISHED: Final = ("GraphCast_small", "GraphCast_operational")
_EVERY_HOURS: Final = 12
_STEP, _STEP_HOURS = TASKS[_PUBLISHED[0]].step, TASKS[_PUBLISHED[0]].step_hours
"""Length of a step of the published tasks; a proposed task has the same."""
_SYNOPTIC_HOURS: Final = 6
"""Analyses are made at 00, 06, 12 and 18 UTC, and the weights were trained on these hours."""
_MOST_BYTES: Final = 2**30
"""Largest inputs of one Case that are read to look for gaps; larger ones, perhaps on a server, are not read."""


@dataclass(frozen=True, eq=False)
class Proposal:
    """What can be forecast from a source.

    Attributes:
        task: a published task if the source has all its variables and levels, else a task of all that the source has.
        name: of the published task; None for another task.
        left_out: variables and levels of the source that no forecast can start from, each with the reason.
    """

    task: Task
    name: str | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)


def propose_task(source: AnySource, steps: int) -> Proposal:
    """Return the largest task of forecasts from a source, after reading the inputs of one Case unless too large.

    Raises:
        GraphcastBatchError: no forecast can start from the source.
    """
    if isinstance(source, SyntheticArchive):
        return Proposal(TASKS[_PUBLISHED[0]], _PUBLISHED[0])
    held, left_out = held_task(source), dict[str, str]()
    found = _with_levels(held, LEVELS_13) if {*LEVELS_13} <= {*held.pressure_levels} else held
    found = _of_known_shape(source, found, left_out)
    found = _at_common_times(source, found, left_out)
    found = _accepted(source, _as_run(found), steps, left_out)
    name = _published(found)
    return Proposal(TASKS[name] if name else found, name, left_out)


def propose_times(
    source: AnySource, names: Sequence[str], steps: int, every_hours: int | None
) -> tuple[str, str, int] | None:
    """Return the first initial time, the last, and the hours between them, for all of which the source has the inputs.

    If the source has the complete truth for some initial times, only these are proposed.

    Args:
        source: of inputs and truth.
        names: of the input variables; variables that the source lacks, or that do not change in time, are ignored.
        steps: number of model steps of each forecast.
        every_hours: hours between initial times; without it 12, or the next multiple of the spacing of the source.

    Returns:
        The two times as text and the hours; None for a source that holds every time.

    Raises:
        ConfigError: the source has the inputs for no initial time.
    """
    moving = [name for name in names if "time" in source.dims.get(name, ())]
    held = source.times_of(moving) if moving else source.times
    if held is None:
        return None
    able = _startable(held)
    if not able.size:
        raise ConfigError(
            f"{source.origin} must hold times {_STEP_HOURS} h apart, two for each initial time, with all of "
            f"{', '.join(moving)}, but holds no such pair: {fewest_times(source, moving)}; give an archive that does, "
            "or weights that do not need these variables"
        )
    with_truth = able[np.isin(able + steps * _STEP, held)]
    able = _synoptic(with_truth if with_truth.size else able)
    spacing = int(np.diff(able).min() // HOUR) if able.size > 1 else _STEP_HOURS
    every = every_hours or spacing * -(-_EVERY_HOURS // spacing)
    first, last = _longest_series(able, np.timedelta64(every, "h"))
    return str(first.astype("datetime64[h]")), str(last.astype("datetime64[h]")), every


def _of_known_shape(source: AnySource, task: Task, left_out: dict[str, str]) -> Task:
    """Leave out variables with other dimensions than the known variable of that name."""
    for name in {*task.target_variables, *task.input_variables} - COMPUTABLE:
        absent = {"level": (), "static": ("time", "level")}.get(VARIABLES[name].kind, ("level",))
        expected = [dim for dim in DIMS if dim not in absent]
        if VARIABLES[name].kind == "level" and not source.levels:
            left_out[name] = "no level is held for all variables at all times"
        found = [
            dim for dim in source.dims[name] if dim != "time" or dim in expected
        ]  # static variables may have a time axis
        if {*found} != {*expected}:
            has = ", ".join(source.dims[name]) or "none"
            left_out[name] = f"it must have the dimensions {', '.join(expected)}, but has {has}"
    return _without(task, left_out, source)


def _at_common_times(source: AnySource, task: Task, left_out: dict[str, str]) -> Task:
    """Leave out variables held at so few times that with them fewer than half of the starts would remain."""
    names = [*task.target_variables, *(name for name in task.input_variables if "time" in source.dims.get(name, ()))]
    held = dict[str, Times]()
    for name in names:
        try:
            held[name] = np.asarray(source.times_of([name]))
        except InputError as error:  # the accumulation period of precipitation is not known
            left_out[name] = str(error)
    together: Times | None = None
    scarce: list[str] = []
    for name in sorted(held, key=lambda name: -_starts(held[name])):
        both = held[name] if together is None else np.intersect1d(together, held[name])
        least = 1 if together is None else max(1, _starts(together) / 2)
        if _starts(both) < least:
            scarce.append(name)
        else:
            together = both
    if together is None:
        raise ConfigError(
            f"{source.origin} must hold times {_STEP_HOURS} h apart, two for each initial time, but holds no such "
            f"pair: {fewest_times(source, list(held))}; give an archive that does"
        )
    case = Case(_startable(together)[0].astype("datetime64[h]"), 1, task.step_hours)
    others = [name for name in held if name not in scarce]
    for name in scarce:
        wanted = task.model_copy(update={"input_variables": (*others, name), "forcing_variables": ()})
        why = (
            _joined(source.findings(case, wanted)) or "it is held at less than half of the times of the other variables"
        )
        left_out[name] = why.removeprefix(f"{name} ")
    return _without(task, left_out, source)


def _accepted(source: AnySource, task: Task, steps: int, left_out: dict[str, str]) -> Task:
    """Leave out levels and variables in which the first Case has missing or impossible values."""
    case = _first_case(source, task, steps)
    cost = source.cost(case, task)
    if cost and cost.touched_bytes > _MOST_BYTES:
        return task
    task = _on_complete_levels(source, task, case, left_out)
    while found := input_faults(source, case, task, 0.0):
        bad = {
            name: str(fault).removeprefix(f"{name} ")
            for fault in found
            for name in fault.variable.split(", ")
            if _is_in(task, name)
        }
        if not bad:
            raise InputError(f"{source.origin} cannot start the forecast from {case.key}: {_joined(found)}")
        left_out |= bad
        task = _without(task, left_out, source)
    return task


def _on_complete_levels(source: AnySource, task: Task, case: Case, left_out: dict[str, str]) -> Task:
    """Leave out levels that some variables lack, or variables that lack more than half of the levels."""
    frames = source.held(case, task)
    complete = {
        str(name): {
            level
            for level in task.pressure_levels
            if level in array["level"] and np.isfinite(array.sel(level=level).values).all()
        }
        for name, array in frames.data_vars.items()
        if "level" in array.dims
    }
    few = {name for name, levels in complete.items() if 2 * len(levels) < len(task.pressure_levels)}
    if few != complete.keys():
        left_out |= {name: f"it is complete on {len(complete[name])} levels only" for name in few}
    common = set(task.pressure_levels).intersection(
        *(levels for name, levels in complete.items() if name not in left_out)
    )
    for level in sorted({*task.pressure_levels} - common):
        lacking = sorted(name for name, levels in complete.items() if level not in levels and name not in left_out)
        left_out[f"{level} hPa"] = f"{', '.join(lacking)} has gaps there"
    return _without(_with_levels(task, sorted(common)), left_out, source)


def _first_case(source: AnySource, task: Task, steps: int) -> Case:
    if isinstance(source, DatasetFiles):
        cases, _ = source.cases(steps, task)
        return cases[0]
    times = propose_times(source, [*task.input_variables, *task.target_variables], steps, None)
    assert times is not None
    return Case(np.datetime64(times[0], "h"), steps, task.step_hours)


def _published(task: Task) -> str | None:
    held = {*task.input_variables, *task.target_variables, *task.forcing_variables}
    for name in _PUBLISHED:
        known = TASKS[name]
        names = {*known.input_variables, *known.target_variables}
        if names <= held and {*known.pressure_levels} <= {*task.pressure_levels}:
            return name
    return None


def _as_run(task: Task) -> Task:
    """Return a task for statistics as a task for a run, whose inputs include the targets."""
    return task.model_copy(update={"input_variables": (*task.target_variables, *task.input_variables)})


def _without(task: Task, names: Mapping[str, str], source: AnySource) -> Task:
    """Return a task without some variables, also as forcings.

    Raises:
        InputError: no variable is left to forecast.
    """
    fields = ("input_variables", "target_variables", "forcing_variables")
    left = {field: tuple(name for name in getattr(task, field) if name not in names) for field in fields}
    levelled = any("level" in source.dims.get(name, ()) for name in left["target_variables"])
    if not left["target_variables"] or (levelled and not task.pressure_levels):
        raise InputError(
            f"{source.origin} must hold a variable that forecasts can start from, but holds none: "
            + "; ".join(f"{name}: {reason}" for name, reason in names.items())
        )
    return task.model_copy(update={**left, "pressure_levels": task.pressure_levels if levelled else ()})


def _with_levels(task: Task, levels: Sequence[int]) -> Task:
    return task.model_copy(update={"pressure_levels": tuple(levels)})


def _is_in(task: Task, name: str) -> bool:
    return name in (*task.input_variables, *task.target_variables, *task.forcing_variables)


def _joined(found: Sequence[Finding]) -> str:
    return "; ".join(map(str, found))


def _startable(held: Times) -> Times:
    """Return the times on the hour that also have the frame one step before."""
    return np.asarray(held[np.isin(held - _STEP, held) & (held == held.astype("datetime64[h]"))])


def _starts(held: Times) -> int:
    return int(_synoptic(_startable(held)).size)


def _synoptic(times: Times) -> Times:
    """Return the times at 00, 06, 12 and 18 UTC; if there are none, all times."""
    hours = (times - times.astype("datetime64[D]")) // HOUR
    chosen = times[hours % _SYNOPTIC_HOURS == 0]
    return chosen if chosen.size else times


def _longest_series(times: Times, every: np.timedelta64) -> tuple[np.datetime64, np.datetime64]:
    """Return the first and last time of the longest series with a constant interval; of equally long ones the first."""
    lengths: dict[np.datetime64, int] = {}
    for time in times:
        lengths[time] = lengths.get(time - every, 0) + 1
    last = max(lengths, key=lambda time: lengths[time])
    return last - (lengths[last] - 1) * every, last
