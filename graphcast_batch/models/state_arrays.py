"""Convert named fields to the plain arrays of a state, and the frames of a forecast to named fields."""

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import InputError
from graphcast_batch.grid import Grid
from graphcast_batch.models.channels import Channels, unfed
from graphcast_batch.models.forcings import FORCINGS, forcing

AnyArray = TypeVar("AnyArray")


def initial_arrays(
    channels: Channels, fields: xr.Dataset, grid: Grid
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return the arrays that a rollout starts from.

    Args:
        channels: the places of the variables.
        fields: (time, [level], latitude, longitude) inputs, the last at the initial time; fields that never change have
            no time. Forcings that are missing are computed.
        grid: the points.

    Returns:
        (frame, point, carried) and (frame, point, forced_inputs) of the state, and (point, static).

    Raises:
        InputError: a variable or a frame is missing.
        TaskError: an input changes in time, but nothing supplies it after the first step.
    """
    stray = [name for name in channels.static if name in fields and "time" in fields[name].dims]
    if stray:
        raise unfed(stray[0])
    times = fields["time"].values
    _check_frames(channels, times)
    forced = partial(_forcing, channels, fields, times=times, grid=grid)
    return (
        field_points(channels, fields, channels.carried, times.size, grid),
        _side_by_side(channels, channels.forced_inputs, times.size, grid, forced),
        field_points(channels, fields, channels.static, 1, grid)[0],
    )


def _check_frames(channels: Channels, times: NDArray[np.datetime64]) -> None:
    """Refuse inputs whose times are not those of the input frames."""
    before = np.arange(1 - channels.frames, 1) * np.timedelta64(channels.step_hours, "h")
    if times.size != channels.frames or not np.array_equal(times, times[-1] + before):
        raise InputError(
            f"the inputs must hold {channels.frames} frames, {channels.step_hours} h apart, but hold {times.size}: "
            f"{', '.join(str(time.astype('datetime64[h]')) for time in times)}"
        )


def forcing_blocks(
    channels: Channels, known: xr.Dataset, init_time: np.datetime64, steps: int, steps_per_block: int, grid: Grid
) -> Iterator[NDArray[np.float32]]:
    """Yield the forcings at the times of the steps, in blocks, each made when it is asked for.

    Args:
        channels: the places of the variables.
        known: forcings that the inputs hold, by ``time``; the others are computed.
        init_time: initial time.
        steps: number of steps.
        steps_per_block: steps in a block; it divides ``steps``.
        grid: the points.

    Yields:
        (steps_per_block, point, forced) float32.
    """
    step = np.timedelta64(channels.step_hours, "h")
    for start in range(0, steps, steps_per_block):
        times = init_time + np.arange(start + 1, start + steps_per_block + 1) * step
        yield forcing_points(channels, known, times, grid)


def forcing_points(
    channels: Channels, known: xr.Dataset, times: NDArray[np.datetime64], grid: Grid
) -> NDArray[np.float32]:
    """Return (time, point, forced) forcings at some times, in the order of the channels; see `forcing_blocks`."""
    of_each = partial(_forcing, channels, known, times=times, grid=grid)
    return _side_by_side(channels, channels.forced, times.size, grid, of_each)


def named_fields(channels: Channels, names: Iterable[str], planes: AnyArray, grid: Grid) -> dict[str, AnyArray]:
    """Split channels into the fields of their variables.

    Args:
        channels: the number of levels of each variable.
        names: the variables, in order.
        planes: (..., channel, point) array of NumPy or JAX.
        grid: the points.

    Returns:
        For each name (..., [level], latitude, longitude).
    """
    found = {}
    for name, place in channels.slices(names).items():
        shape = planes.shape[:-2]  # type: ignore[attr-defined] # arrays of NumPy and of JAX have no common base
        levels = (len(channels.levels),) if name in channels.on_levels else ()
        found[name] = planes[..., place, :].reshape(*shape, *levels, *grid.shape)  # type: ignore[index]
    return found


def target_points(channels: Channels, truth: xr.Dataset, grid: Grid) -> NDArray[np.float32]:
    """Return (prediction_timedelta, [level], latitude, longitude) targets as (step, point, outputs), in our order."""
    fields = truth.drop_vars("time", errors="ignore").rename(prediction_timedelta="time")
    return field_points(channels, fields, channels.targets, fields["time"].size, grid)


def field_points(
    channels: Channels, fields: xr.Dataset, names: Iterable[str], times: int, grid: Grid
) -> NDArray[np.float32]:
    """Return variables of (time, [level], latitude, longitude) or fewer as (time, point, values), side by side."""
    of_each = partial(_points, fields, times=times, channels=channels, grid=grid)
    return _side_by_side(channels, names, times, grid, of_each)


def _side_by_side(
    channels: Channels, names: Iterable[str], times: int, grid: Grid, of_each: Callable[[str], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Return (time, point, values) of several variables, of which only one at a time is in memory twice.

    Args:
        channels: the number of values of each variable.
        names: the variables, in order.
        times: number of times.
        grid: the points.
        of_each: returns the (time, point, values) of one variable.
    """
    places = channels.slices(names)
    found = np.empty((times, grid.size, channels.width(places)), np.float32)
    for name, place in places.items():
        found[..., place] = of_each(name)
    return found


def _forcing(
    channels: Channels, known: xr.Dataset, name: str, *, times: NDArray[np.datetime64], grid: Grid
) -> NDArray[np.float32]:
    """Return (time, point, values) of one forcing: that of the inputs where they hold it, and computed elsewhere."""
    held: Collection[np.datetime64] = set(known["time"].values) if name in known else ()
    lacking = np.array([time not in held for time in times.astype("datetime64[ns]")])
    if not lacking.any():
        return _points(known.sel(time=times), name, times=times.size, channels=channels, grid=grid)
    if name not in FORCINGS:
        raise InputError(f"the forcing {name} is needed at {times[lacking][0]}, but the inputs lack it there")
    values = _computed(name, times, grid)
    if not lacking.all():
        at = times[~lacking]
        values[~lacking] = _points(known.sel(time=at), name, times=at.size, channels=channels, grid=grid)
    return values


def _computed(name: str, times: NDArray[np.datetime64], grid: Grid) -> NDArray[np.float32]:
    values = forcing(name, times, grid.latitude, grid.longitude)
    # (time,), (time, longitude) or (time, latitude, longitude): missing axes stand between time and the rest.
    values = values.reshape(values.shape[0], *(1,) * (3 - values.ndim), *values.shape[1:])
    return np.array(np.broadcast_to(values, (times.size, *grid.shape))).reshape(times.size, grid.size, 1)


def _points(fields: xr.Dataset, name: str, *, times: int, channels: Channels, grid: Grid) -> NDArray[np.float32]:
    """Return (time, point, values) of one variable, repeated along the dimensions that it lacks."""
    if name not in fields:
        raise InputError(f"the variable {name} is missing from the inputs")
    field = fields[name]
    if name in channels.on_levels:
        field = field.sel(level=list(channels.levels))
    sizes = {
        "time": times,
        "latitude": grid.shape[0],
        "longitude": grid.shape[1],
        "level": channels.width([name]),
    }
    missing = [dim for dim in sizes if dim not in field.dims]
    values = field.expand_dims(missing).transpose(*sizes).values.astype(np.float32, copy=False)
    return np.broadcast_to(values, tuple(sizes.values())).reshape(times, grid.size, -1)
