"""Read the input frames, the forcings and the truth of one Case."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import InputError
from graphcast_batch.grid import Grid
from graphcast_batch.inputs.findings import Finding, Stated, listed, near_pair
from graphcast_batch.inputs.layouts.contents import level_hint
from graphcast_batch.inputs.layouts.dialects import spellings
from graphcast_batch.plan import Case
from graphcast_batch.spec import Task
from graphcast_batch.sun import solar_radiation
from graphcast_batch.variables import VARIABLES

COMPUTABLE: Final = frozenset(name for name, variable in VARIABLES.items() if variable.kind == "forcing")
"""Forcings that are computed from time and position, so that the inputs need not hold them."""
_MOST_LISTED: Final = 4
"""Largest number of variables whose times are in a message."""

_SUN: Final = "toa_incident_solar_radiation"


@dataclass(frozen=True, eq=False)
class CaseInputs:
    """The fields from which the model makes one forecast.

    Attributes:
        frames: input variables of the task, float32. Variables that change have the dimension ``time``, the input
            times of the task: one step apart, the last one the initial time. ``level`` has the levels of the task.
            Forcings are there as far as the source holds them.
        forcings: forcing variables of the task that the source holds, float32, at those valid times that it holds;
            there may be no variables and no times.
        stated: by variable, the units that the data were converted from, for messages.
    """

    frames: xr.Dataset
    forcings: xr.Dataset
    stated: Mapping[str, Stated] = field(default_factory=dict)


class Timeline(Protocol):
    """A source of fields on one grid at absolute times."""

    @property
    def origin(self) -> str:
        """Path, address or description of the source, for messages."""

    @property
    def grid(self) -> Grid:
        """Grid of the fields."""

    @property
    def times(self) -> NDArray[np.datetime64] | None:
        """Times that the source holds, (time,) datetime64[ns]; None for a source that holds every time."""

    @property
    def levels(self) -> tuple[int, ...]:
        """Pressure levels that the source holds, hPa, ascending."""

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Dimensions, named as in `graphcast_batch.variables.DIMS`, of every variable that the source holds."""

    def times_of(self, names: Sequence[str]) -> NDArray[np.datetime64] | None:
        """Return the times at which the source holds all of some variables.

        Args:
            names: one or more variables that have the dimension time.

        Returns:
            (time,) datetime64[ns]; None for every time.
        """

    def fields(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> xr.Dataset:
        """Read fields in float32, with dimensions in the order of `graphcast_batch.variables.DIMS`.

        Args:
            names: variables that the source holds.
            times: (time,) datetime64[ns] times that it holds.
            levels: levels in hPa that it holds.

        Raises:
            InputError: the source cannot be read.
        """


def input_times(init_time: np.datetime64, task: Task) -> NDArray[np.datetime64]:
    """Return the times of the input frames of a forecast, ascending: (input frames,) datetime64[ns]."""
    return np.asarray(init_time.astype("datetime64[ns]") - task.step * np.arange(task.input_frames)[::-1])


def times_of_inputs(held: Timeline, task: Task) -> NDArray[np.datetime64] | None:
    """Return the times at which a source holds all input variables of a task, as far as it holds them at any time.

    Returns:
        (time,) datetime64[ns]; None for every time.
    """
    return _times_of(held, _inputs_held(held, task))


def fewest_times(held: Timeline, names: Sequence[str]) -> str:
    """Return the numbers of times at which a source holds variables as text for messages, the smallest first."""
    found = {name: times for name in names if (times := held.times_of([name])) is not None}
    scarce = sorted(found, key=lambda name: (found[name].size, name))
    listed = [f"{name} at {_spanned(found[name])}" for name in scarce[:_MOST_LISTED]]
    return "; ".join(listed + (["the others at more"] if len(scarce) > _MOST_LISTED else []))


def valid_times(case: Case) -> NDArray[np.datetime64]:
    """Return the times that a Case forecasts, (steps,) datetime64[ns]."""
    return np.asarray(case.init_time.astype("datetime64[ns]") + case.lead_times)


def findings(held: Timeline, case: Case, task: Task) -> list[Finding]:
    """Return the reasons why a source cannot start a Case, found in its coordinates alone; empty if it can."""
    needed = sorted({*task.input_variables, *task.forcing_variables})
    found = [name for name in needed if name in held.dims]
    problems = [
        _absent_variables([name for name in needed if name not in held.dims and name not in COMPUTABLE], held),
        _absent_levels([name for name in found if "level" in held.dims[name]], held, task),
        _absent_times("time", input_times(case.init_time, task), "input times", held, _inputs_held(held, task)),
    ]
    prescribed = [name for name in task.forcing_variables if name in held.dims and name not in COMPUTABLE]
    if prescribed:
        named = ", ".join(prescribed)
        problems.append(_absent_times(named, valid_times(case), f"valid times of {named}", held, prescribed))
    return [problem for problem in problems if problem]


def read_inputs(held: Timeline, case: Case, task: Task) -> CaseInputs:
    """Read the input frames and forcings of one Case.

    Raises:
        InputError: the source lacks a variable, level or time, or cannot be read.
    """
    problems = findings(held, case, task)
    if problems:
        raise InputError(f"{held.origin} cannot start the forecast from {case.key}: {'; '.join(map(str, problems))}")
    forcings = [name for name in sorted(task.forcing_variables) if name in held.dims]
    prescribed = _held_times(held, valid_times(case), forcings) if forcings else valid_times(case)[:0]
    return CaseInputs(
        frames=_with_forcings(_read_frames(held, case, task)),
        forcings=_with_forcings(held.fields(forcings, prescribed, task.pressure_levels)),
    )


def read_held(held: Timeline, case: Case, task: Task) -> xr.Dataset:
    """Read those variables, levels and times of the input frames of a Case that an incomplete source holds.

    Raises:
        InputError: the source cannot be read.
    """
    levels = [level for level in task.pressure_levels if level in held.levels]
    names = [name for name in _inputs_held(held, task) if levels or "level" not in held.dims[name]]
    return held.fields(names, _held_times(held, input_times(case.init_time, task), names), levels)


def read_truth(
    held: Timeline, case: Case, names: Sequence[str], levels: Sequence[int] | None = None
) -> xr.Dataset | None:
    """Read the verifying analysis of a Case, at those valid times that a source holds.

    Args:
        held: the source.
        case: Case whose valid times are read.
        names: variables; those that the source does not hold are left out.
        levels: levels in hPa; those that the source does not hold are left out. None for all that it holds.

    Returns:
        Variables with dimensions (prediction_timedelta, [level], latitude, longitude) and the scalar coordinate time,
        the initial time; None if the source holds none of the variables or none of the times.
    """
    found = [name for name in names if name in held.dims]
    times = _held_times(held, valid_times(case), found)
    if not found or not times.size:
        return None
    kept = held.levels if levels is None else [level for level in sorted(levels) if level in held.levels]
    init_time = case.init_time.astype("datetime64[ns]")
    fields = held.fields(found, times, kept).rename(time="prediction_timedelta")
    lead_times = (times - init_time).astype("timedelta64[ns]")
    return fields.assign_coords(prediction_timedelta=lead_times, time=init_time)


def _inputs_held(held: Timeline, task: Task) -> list[str]:
    return [name for name in sorted(task.input_variables) if name in held.dims]


def _read_frames(held: Timeline, case: Case, task: Task) -> xr.Dataset:
    """Read the input variables; drop the time of those that are neither target nor forcing and do not change."""
    names = _inputs_held(held, task)
    followed = {*task.target_variables, *task.forcing_variables}
    doubtful = [name for name in names if name not in followed and "time" in held.dims[name]]
    times = input_times(case.init_time, task)
    frames = held.fields([name for name in names if name not in doubtful], times, task.pressure_levels)
    if not doubtful:
        return frames
    # A slow variable, such as sea ice, may be equal in all input frames: compare with both ends of the archive too.
    every = held.times_of(doubtful)
    ends = times if every is None else np.asarray([every.min(), *times, every.max()])
    wide = held.fields(doubtful, np.unique(ends), task.pressure_levels)
    return frames.assign({name: _without_time(array, times) for name, array in wide.data_vars.items()})


def _with_forcings(fields: xr.Dataset) -> xr.Dataset:
    """Compute solar radiation at times at which all its values are missing, as in files prepared for future times.

    Other forcings that can be computed are dropped if values are missing, so that they are computed at all times.
    """
    gaps = {name: ~np.isfinite(fields[name].values) for name in map(str, fields.data_vars) if name in COMPUTABLE}
    empty = [name for name, gap in gaps.items() if name != _SUN and gap.any()]
    fields = fields.drop_vars(empty)
    if _SUN not in gaps or fields[_SUN].dims != ("time", "latitude", "longitude"):
        return fields
    missing = gaps[_SUN].all(axis=(1, 2))
    if not missing.any():
        return fields
    values = fields[_SUN].values.copy()
    places = (fields[name].values for name in ("latitude", "longitude"))
    values[missing] = solar_radiation(fields["time"].values[missing], *places)
    return fields.assign({_SUN: fields[_SUN].copy(data=values)})


def _without_time(array: xr.DataArray, times: NDArray[np.datetime64]) -> xr.DataArray:
    """Return the first frame, without time, of an array whose frames are all equal; else the frames at some times."""
    first = array.values[0]
    if all(np.array_equal(first, frame, equal_nan=True) for frame in array.values):
        return array.isel(time=0, drop=True)
    return array.sel(time=times)


def _times_of(held: Timeline, names: Sequence[str]) -> NDArray[np.datetime64] | None:
    moving = [name for name in names if "time" in held.dims[name]]
    return held.times_of(moving) if moving else None


def _held_times(held: Timeline, wanted: NDArray[np.datetime64], names: Sequence[str]) -> NDArray[np.datetime64]:
    times = _times_of(held, names)
    return wanted if times is None else wanted[np.isin(wanted, times)]


def _absent_variables(absent: Sequence[str], held: Timeline) -> Finding | None:
    if not absent:
        return None
    names = ", ".join(absent)
    alike = near_pair(held.dims, absent)
    example = f", such as inputs.names {{{alike[0]}: {alike[1]}}}" if alike else ""
    return Finding(
        names,
        "be there",
        f"it lacks the variables {names} and has {listed(held.dims, spellings(absent))}",
        f"add them, map its own names to these in inputs.names{example}, or use a checkpoint whose task does not need "
        "them",
    )


def _absent_levels(levelled: Sequence[str], held: Timeline, task: Task) -> Finding | None:
    absent = [level for level in task.pressure_levels if level not in held.levels]
    if not levelled or not absent:
        return None
    return Finding(
        ", ".join(levelled),
        f"be on the levels {list(task.pressure_levels)} hPa",
        f"{absent} are missing from {list(held.levels)}",
        level_hint(held.levels),
        level=absent[0],
    )


def _absent_times(
    variable: str, wanted: NDArray[np.datetime64], what: str, held: Timeline, names: Sequence[str]
) -> Finding | None:
    absent = wanted[~np.isin(wanted, _held_times(held, wanted, names))]
    if not absent.size:
        return None
    lacking = [name for name in names if not np.isin(absent, _held_times(held, absent, [name])).all()]
    moving = [name for name in names if "time" in held.dims[name]]
    times = held.times_of(lacking)
    assert times is not None
    stamps = ", ".join(_minute(time) for time in absent)
    return Finding(
        variable if len(lacking) == len(moving) else ", ".join(lacking),
        "hold every time that the forecast needs",
        f"the {what} {stamps} are missing from its {_spanned(times)}",
        "add them, or start from other times",
        time=absent[0],
    )


def _spanned(times: NDArray[np.datetime64]) -> str:
    return f"{times.size} times" + (f", {_minute(times.min())} to {_minute(times.max())}" if times.size else "")


def _minute(time: np.datetime64) -> str:
    return str(time.astype("datetime64[m]"))
