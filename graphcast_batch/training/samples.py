"""Read training samples: the input frames of a rollout, the forcings of its steps, and the truth."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import TrainingError
from graphcast_batch.inputs.case_inputs import COMPUTABLE, Timeline
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.graphcast.training_program import Samples
from graphcast_batch.models.state_arrays import field_points, forcing_points
from graphcast_batch.spec import Task

Times = NDArray[np.datetime64]
Points = NDArray[np.float32]
_FLOAT32: Final = 4


class SampleReader:
    """Reads samples, and keeps the fields of the latest times in memory, as many as fit into it."""

    def __init__(self, held: Timeline, channels: Channels, task: Task, keep_bytes: int) -> None:
        """Prepare to read; nothing is read yet.

        Args:
            held: fields at absolute times.
            channels: places of the task's variables.
            task: names the input, target and forcing variables.
            keep_bytes: bytes of fields that may be kept in memory for later samples.
        """
        self._held, self._channels, self._task = held, channels, task
        values = channels.outputs + channels.width(channels.forced)
        self._most = keep_bytes // (_FLOAT32 * held.grid.size * values)
        self._kept: OrderedDict[np.datetime64, tuple[Points, Points]] = OrderedDict()

    def startable(self, times: Times, rollout: int) -> Times:
        """Return those of some initial times for which all fields of a sample are there.

        Args:
            times: (time,) initial times.
            rollout: number of model steps of a sample.
        """
        names = [*self._channels.targets, *(name for name in self._prescribed if name not in COMPUTABLE)]
        held = self._held.times_of(names)
        return times if held is None else times[np.isin(needed_times(times, self._task, rollout), held).all(axis=1)]

    def read(self, times: Times, rollout: int) -> Samples:
        """Read the samples of some initial times.

        Args:
            times: (sample,) initial times.
            rollout: number of model steps of each sample.

        Raises:
            TrainingError: a field is not finite.
            InputError: a field cannot be read.
        """
        needed = needed_times(times, self._task, rollout)
        found = self._fields(np.unique(needed))
        fields, forced = (np.stack([np.stack([found[time][n] for time in each]) for each in needed]) for n in (0, 1))
        channels, frames = self._channels, self._task.input_frames
        places = channels.slices(channels.forced)
        columns = [n for name in channels.forced_inputs for n in range(places[name].start, places[name].stop)]
        return Samples(
            frames=fields[:, :frames, :, : channels.width(channels.carried)],
            forcings=forced[:, :frames][..., columns],
            known=forced[:, frames:],
            targets=fields[:, frames:],
        )

    def _fields(self, times: Times) -> dict[np.datetime64, tuple[Points, Points]]:
        """Return targets and forcings of each time, both (point, values)."""
        found = {time: self._kept[time] for time in times if time in self._kept}
        lacking = np.array([time for time in times if time not in found], "datetime64[ns]")
        if lacking.size:
            found |= dict(zip(lacking, self._read(lacking), strict=True))
        for time in times:
            self._kept[time] = found[time]
            self._kept.move_to_end(time)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return found

    def _read(self, times: Times) -> Iterable[tuple[Points, Points]]:
        """Read targets and forcings; forcings that the source lacks are computed, as for forecasts."""
        channels, grid, levels = self._channels, self._held.grid, self._task.pressure_levels
        fields = self._held.fields(channels.targets, times, levels)
        held = self._held.times_of(self._prescribed) if self._prescribed else None
        known = self._held.fields(self._prescribed, times if held is None else times[np.isin(times, held)], levels)
        targets = field_points(channels, fields, channels.targets, times.size, grid)
        forcings = forcing_points(channels, known, times, grid)
        for part in (fields, known):
            self._refuse_gaps(part)
        return zip(targets, forcings, strict=True)

    def _refuse_gaps(self, fields: xr.Dataset) -> None:
        for name, array in fields.data_vars.items():
            bad = np.argwhere(~np.isfinite(array.values))
            if bad.size:
                at = dict(zip(array.dims, bad[0].tolist(), strict=True))
                place = ", ".join(f"{dim} {array[dim].values[n]}" for dim, n in at.items())
                raise TrainingError(
                    f"a sample must be finite, but {name} of {self._held.origin} is not at {place} ({len(bad)} values "
                    "in all); leave its times out with times.exclude, or repair the data"
                )

    @property
    def _prescribed(self) -> list[str]:
        """Names of the forcings that the timeline holds, at some times at least."""
        return [name for name in self._channels.forced if "time" in self._held.dims.get(name, ())]


def needed_times(init_times: Times, task: Task, rollout: int) -> Times:
    """Return the times of all fields of samples.

    Args:
        init_times: (sample,) initial times.
        task: has the number of input frames.
        rollout: number of model steps of each sample.

    Returns:
        (sample, time) times of the input frames and of the steps, ascending.
    """
    offsets = task.step * np.arange(1 - task.input_frames, rollout + 1)
    return np.asarray(init_times.astype("datetime64[ns]")[:, None] + offsets)
