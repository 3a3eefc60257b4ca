"""The inputs of a Case are held against the task, the grid and the checkpoint before any device time is spent."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.config import STEP_HOURS, Task
from graphcast_batch.errors import InputError, TaskError
from graphcast_batch.grid import Grid
from graphcast_batch.inputs.findings import Finding
from graphcast_batch.inputs.gridded import level_hint
from graphcast_batch.inputs.states import COMPUTABLE, STEP, CaseInputs
from graphcast_batch.inputs.units import conversion
from graphcast_batch.limits import Limits, least_peak, limits
from graphcast_batch.variables import DIMS, VARIABLES

Extremes = tuple[NDArray[np.floating], NDArray[np.floating]]
"""Lowest and highest value of every global field: an array's dimensions but for latitude and longitude."""

_PLACE_TOLERANCE = 1e-3  # degrees
_LARGEST = 1e36
"""No field comes near this; netCDF's filler for values never written is 9.97e36."""

_NONZERO_FROM: Final = {  # hPa from which down a field is nowhere exactly 0 but by chance; 0 where it has no level
    "2m_temperature": 0,
    "mean_sea_level_pressure": 0,
    "10m_u_component_of_wind": 0,
    "10m_v_component_of_wind": 0,
    "temperature": 0,
    "geopotential": 0,
    "u_component_of_wind": 0,
    "v_component_of_wind": 0,
    "vertical_velocity": 100,  # above, the steps of packed data are as large as it is
}
_VARIES_FROM: Final = {  # hPa from which down a field is never one value
    **_NONZERO_FROM,
    "vertical_velocity": 0,
    "specific_humidity": 300,  # above, archives may hold one value
}
_SMOOTH: Final = ("temperature", "2m_temperature", "geopotential")
"""Contrasts between equator and poles make most of their spread, so that neighbours in a row are alike."""
_MOST_ZEROS: Final = 0.1
"""Share of a field that may be exactly 0, as no packed data come near; chunks of zarr that were never written are."""
_FEW: Final = 0.01
"""Share of values up to which those beyond the limits are broken each by itself: another unit moves more of them."""
_CORRECT: Final = "correct the data, or use others"

_MIXED_UP: Final = {  # by our unit: those that the data are likely to be in instead
    "K": ("C",),
    "Pa": ("hPa",),
    "m": ("mm",),
    "m**2 s**-2": ("m", "dam"),
    "kg kg**-1": ("g kg-1",),
    "J m**-2": ("W m-2",),
    "1": ("%",),
}


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


def find_faults(inputs: CaseInputs, task: Task, grid: Grid, resolution: float) -> list[Finding]:
    """Every reason why a forecast cannot start from these inputs; random numbers need only be finite."""
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
        *faults_of_values(frames, forcings),
    ]


def faults_of_values(*parts: xr.Dataset) -> list[Finding]:
    """Every variable whose values cannot be weather; random numbers need only be finite.

    Args:
        parts: variables with coordinates; of the first also that no frame repeats another.
    """
    arrays = [array for fields in parts for array in fields.data_vars.values()]
    faults = [fault for array in arrays if (fault := _fault_of_values(array))] + list(_repeated(parts[0]))
    if faults and _is_noise(parts[0]):
        return [gap for array in arrays if (gap := find_gap(array))]
    return faults


def find_gap(array: xr.DataArray) -> Finding | None:
    """Where a variable has values that are not finite, or were never written; None where it has none.

    Args:
        array: any dimensions; coordinates are named where there are any.
    """
    return _gap(array, _extremes(array))


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


def _absent(fields: xr.Dataset, names: Sequence[str], what: str) -> Iterator[Finding]:
    absent = [name for name in sorted(names) if name not in fields.data_vars and name not in COMPUTABLE]
    if absent:
        held = ", ".join(sorted(map(str, fields.data_vars))) or "none"
        yield Finding(
            f"the {what} {', '.join(absent)}",
            "be there",
            f"are missing from {held}",
            "add them, or use a checkpoint whose task goes without",
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
    if times.size != task.input_frames or np.any(np.diff(times) != STEP):
        yield Finding(
            "time",
            f"hold {task.input_frames} times {STEP_HOURS} h apart",
            f"holds {', '.join(map(_stamp, times)) or 'none'}",
            f"select frames {STEP_HOURS} h apart",
        )


def _wrong_points(frames: xr.Dataset, grid: Grid) -> Iterator[Finding]:
    for name, expected in (("latitude", grid.latitude), ("longitude", grid.longitude)):
        if name not in frames.coords:
            yield Finding(f"the coordinate {name}", "be there", "is missing", "give the points of the fields")
            continue
        found = frames[name].values
        if found.shape != expected.shape or not np.allclose(found, expected, rtol=0, atol=_PLACE_TOLERANCE):
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


def _is_noise(frames: xr.Dataset) -> bool:
    """Whether neighbours differ as much as any two points: random numbers, as programs are tried with, and no weather.

    Medians, so that single broken values do not make noise of a field.
    """
    arrays = [frames[name] for name in _SMOOTH if name in frames and "longitude" in frames[name].dims]
    return bool(arrays) and all(find_gap(array) is None and _differs_as_much(array) for array in arrays)


def _differs_as_much(array: xr.DataArray) -> bool:
    values, axes = array.values, _across(array)
    steps = np.abs(values - np.roll(values, 1, axis=array.dims.index("longitude")))
    spread = np.abs(values - np.median(values, axis=axes, keepdims=True))
    # Of independent normal numbers the left is the square root of 2 times the right.
    return bool(np.all(np.median(steps, axis=axes) > np.median(spread, axis=axes)))


def _fault_of_values(array: xr.DataArray) -> Finding | None:
    """The first that is found: it explains those that would come after."""
    extremes = _extremes(array)
    return (
        _gap(array, extremes)
        or _zeros(array)
        or _constant(array, extremes)
        or _beyond_limits(array, extremes)
        or _low_peak(array, extremes)
    )


def _gap(array: xr.DataArray, extremes: Extremes) -> Finding | None:
    lowest, highest = extremes
    # A NaN makes both extremes of its field NaN, and no comparison with it holds.
    if np.all(lowest > -_LARGEST) and np.all(highest < _LARGEST):
        return None
    bad = ~(np.abs(array.values) < _LARGEST)
    return _finding(
        array, bad, "be finite", "values are missing or infinite", "fill them from another source, or use other data"
    )


def _zeros(array: xr.DataArray) -> Finding | None:
    if array.name not in _NONZERO_FROM:
        return None
    # Some archives have no wind at the poles, which are many of the points of a coarse grid.
    inner = array.isel(latitude=slice(1, -1)) if array.sizes.get("latitude", 0) > 2 else array
    share = np.asarray((inner.values == 0).mean(axis=_across(inner)))
    return _finding(
        _one_place(array),
        (share > _MOST_ZEROS) & _is_from(_NONZERO_FROM[str(array.name)], array),
        f"be exactly 0 in no more than {_MOST_ZEROS:.0%} of a field",
        f"fields are 0 in up to {share.max(initial=0):.0%}",
        "chunks that were never written read as 0: complete the data, or use other times",
    )


def _constant(array: xr.DataArray, extremes: Extremes) -> Finding | None:
    if array.name not in _VARIES_FROM:
        return None
    lowest, highest = extremes
    return _finding(
        _one_place(array),
        (lowest == highest) & _is_from(_VARIES_FROM[str(array.name)], array),
        "vary over the globe",
        "fields hold one value everywhere",
        "complete the data, or use other times",
    )


def _beyond_limits(array: xr.DataArray, extremes: Extremes) -> Finding | None:
    (lowest, highest), (low, high) = extremes, _bounds(array)
    if not np.any((lowest < low) | (highest > high)):
        return None
    low, high = (np.expand_dims(side, _across(array)) for side in (low, high))
    bad = (array.values < low) | (array.values > high)
    least, most = (np.broadcast_to(side, bad.shape)[_first(bad)] for side in (low, high))
    level, _ = _level_and_time(array, _first(bad))
    where = "" if level is None else f" at {level:g} hPa"
    return _finding(
        array,
        bad,
        f"lie within {least:g} and {most:g}{_units(array)}{where}",
        f"values lie beyond such limits, at {lowest.min():g} to {highest.max():g} in all",
        _unit_remedy(array, extremes) if bad.mean() > _FEW else _CORRECT,
    )


def _low_peak(array: xr.DataArray, extremes: Extremes) -> Finding | None:
    peak, (_, highest) = least_peak(str(array.name)), extremes
    if peak is None:
        return None
    return _finding(
        _one_place(array),
        highest < peak,
        f"reach {peak:g}{_units(array)} somewhere on the globe",
        f"fields do not, and the lowest reaches {highest.min(initial=np.inf):g}",
        _unit_remedy(array, extremes),
    )


def _repeated(frames: xr.Dataset) -> Iterator[Finding]:
    moving = {name: array for name, array in frames.data_vars.items() if "time" in array.dims and name in _VARIES_FROM}
    for later in range(1, frames.sizes.get("time", 0)):
        same = [
            name
            for name, array in moving.items()
            if np.array_equal(array.isel(time=later - 1).values, array.isel(time=later).values)
        ]
        if same:
            yield Finding(
                ", ".join(map(str, same)),
                f"change within {STEP_HOURS} h",
                f"the frames number {later} and {later + 1} are the same in every value",
                "look whether the data repeat a frame, and use other times",
                time=frames["time"].values[later] if "time" in frames.coords else None,
            )


def _units(array: xr.DataArray) -> str:
    units = VARIABLES[str(array.name)].units
    return "" if units == "1" else f" {units}"


def _unit_remedy(array: xr.DataArray, extremes: Extremes) -> str:
    """To state the unit, where taking the values as in a common other one brings all of them within the limits."""
    name, (low, high), peak = str(array.name), _bounds(array), least_peak(str(array.name)) or -np.inf
    for unit in _MIXED_UP.get(VARIABLES[name].units, ()):
        change = conversion(name, unit, "the inputs")
        lowest, highest = (change.factor * side + change.offset for side in extremes)
        if np.all((lowest >= low) & (highest <= high) & (highest >= peak)):
            return f"this looks like {unit}: give inputs.units {{{name}: {unit!r}}}, or convert it"
    return _CORRECT


def _bounds(array: xr.DataArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Limits of an array's global fields, infinite where none are known; to be broadcast against `_extremes`."""
    unlimited: Limits = (-np.inf, np.inf)
    known = [limits(str(array.name), level) or unlimited for level in _levels(array)]
    low, high = (_along_levels([pair[side] for pair in known], array) for side in (0, 1))
    return low, high


def _is_from(floor: float, array: xr.DataArray) -> NDArray[np.bool_]:
    """Which of an array's global fields lie at ``floor`` (hPa) or below it in the air, or on no level."""
    return _along_levels([level is None or level >= floor for level in _levels(array)], array) > 0


def _levels(array: xr.DataArray) -> list[float | None]:
    """hPa; None, once or for each level, where there is none."""
    if "level" in array.dims and "level" in array.coords:
        return [float(level) for level in array["level"].values]
    return [None] * array.sizes.get("level", 1)


def _along_levels(values: Sequence[float], array: xr.DataArray) -> NDArray[np.float64]:
    """One value for each level, to be broadcast against an array's global fields."""
    rest = [dim for dim in array.dims if dim not in ("latitude", "longitude")]
    return np.asarray(values, np.float64).reshape([len(values) if dim == "level" else 1 for dim in rest])


def _extremes(array: xr.DataArray) -> Extremes:
    axes = _across(array)
    return np.asarray(array.values.min(axis=axes)), np.asarray(array.values.max(axis=axes))


def _across(array: xr.DataArray) -> tuple[int, ...]:
    """Axes of a global field."""
    return tuple(axis for axis, dim in enumerate(array.dims) if dim in ("latitude", "longitude"))


def _one_place(array: xr.DataArray) -> xr.DataArray:
    """As many values as there are global fields."""
    return array.isel(latitude=0, longitude=0, missing_dims="ignore").drop_vars(
        ["latitude", "longitude"], errors="ignore"
    )


def _finding(array: xr.DataArray, bad: NDArray[np.bool_], expected: str, found: str, remedy: str) -> Finding | None:
    """Says how many values are bad, and where the first one is; None where none is."""
    count = int(np.count_nonzero(bad))
    if not count:
        return None
    first = _first(bad)
    place = [_coordinate(array, str(dim), index) for dim, index in zip(array.dims, first, strict=True)]
    elsewhere = "".join(_reach(array, bad, dim) for dim in ("level", "time") if dim in array.dims)
    where = f"the first at {', '.join(place) or 'its only place'}{elsewhere}"
    level, time = _level_and_time(array, first)
    return Finding(str(array.name), expected, f"{count} of {bad.size} {found}, {where}", remedy, level, time)


def _first(bad: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(index) for index in np.unravel_index(int(np.argmax(bad)), bad.shape))


def _level_and_time(array: xr.DataArray, place: tuple[int, ...]) -> tuple[float | None, np.datetime64 | None]:
    there = {
        dim: array[dim].values[index]
        for dim, index in zip(array.dims, place, strict=True)
        if dim in ("level", "time") and dim in array.coords
    }
    level, time = there.get("level"), there.get("time")
    return None if level is None else float(level), time


def _coordinate(array: xr.DataArray, dim: str, index: int) -> str:
    if dim not in array.coords:
        return f"{dim} number {index}"
    value = array[dim].values[index]
    return f"{dim} {_stamp(value) if dim == 'time' else f'{value:g}'}"


def _reach(array: xr.DataArray, bad: NDArray[np.bool_], dim: str) -> str:
    """In how many levels or times values are bad, where that says more than the first place."""
    axes = tuple(axis for axis, name in enumerate(array.dims) if name != dim)
    affected = int(np.count_nonzero(bad.any(axis=axes)))
    return f", in {affected} of {array.sizes[dim]} {dim}s" if array.sizes[dim] > 1 else ""


def _stamp(time: np.datetime64) -> str:
    return str(time.astype("datetime64[m]"))
