"""Find the place of each variable of a task in the vectors that go into the network and come out of it.

The published vectors hold variables in ASCII order of their names. Here a vector is ordered by how its parts are used
(frames that are fed back, forcings, fields that never change), so that a step only slices and concatenates. In return,
the rows and columns of the network's outer weights are reordered.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.errors import TaskError
from graphcast_batch.spec import Task
from graphcast_batch.variables import VARIABLES, is_on_levels


@dataclass(frozen=True)
class Channels:
    """How each variable of a task is used, and how many values it has at a grid point.

    Attributes:
        step_hours: hours from one frame to the next.
        frames: number of input frames.
        levels: pressure levels in hPa.
        carried: targets that are inputs too, and so are fed back; ASCII order.
        diagnosed: targets that are not inputs; ASCII order.
        forced: all forcing variables; ASCII order.
        forced_inputs: those of them that are inputs too.
        static: inputs that never change; ASCII order.
        on_levels: variables that have a value on each level.
    """

    step_hours: int
    frames: int
    levels: tuple[int, ...]
    carried: tuple[str, ...]
    diagnosed: tuple[str, ...]
    forced: tuple[str, ...]
    forced_inputs: tuple[str, ...]
    static: tuple[str, ...]
    on_levels: frozenset[str]

    @classmethod
    def of(cls, task: Task, dims: Mapping[str, Collection[str]]) -> "Channels":
        """Return the channels of a task, for inputs of these dimensions.

        Args:
            task: the task, which names the variables.
            dims: dimensions of the variables that the inputs hold; variables that are missing have their usual ones.

        Raises:
            TaskError: the dimensions of a variable are unknown or unusable, or it is on levels and the task has none.
        """
        inputs, targets, forced = (
            set(task.input_variables),
            set(task.target_variables),
            set(task.forcing_variables),
        )
        static = inputs - targets - forced
        stray = sorted(name for name in static if name in VARIABLES and VARIABLES[name].kind in ("surface", "level"))
        if stray:
            raise unfed(stray[0])
        on_levels = frozenset(name for name in inputs | targets | forced if is_on_levels(name, dims))
        if on_levels and not task.pressure_levels:
            raise TaskError(
                f"the task must name the pressure_levels of {', '.join(sorted(on_levels))}, but names none; add them"
            )
        return cls(
            step_hours=task.step_hours,
            frames=task.input_frames,
            levels=task.pressure_levels,
            carried=tuple(sorted(targets & inputs)),
            diagnosed=tuple(sorted(targets - inputs)),
            forced=tuple(sorted(forced)),
            forced_inputs=tuple(sorted(forced & inputs)),
            static=tuple(sorted(static)),
            on_levels=on_levels,
        )

    @property
    def targets(self) -> tuple[str, ...]:
        """All targets, in the order of the output vector: carried, then diagnosed."""
        return self.carried + self.diagnosed

    def width(self, names: Iterable[str]) -> int:
        """Return the number of values that these variables have at a grid point at one time."""
        return sum(self._count(name) for name in names)

    @cached_property
    def inputs(self) -> int:
        """Number of values at a grid point that go into the network, without the structural features."""
        return self.frames * self.width(self.carried + self.forced_inputs) + self.width(self.static + self.forced)

    @cached_property
    def outputs(self) -> int:
        """Number of values at a grid point that come out of the network."""
        return self.width(self.targets)

    def slices(self, names: Iterable[str]) -> dict[str, slice]:
        """Return the place of each variable in a vector of these variables."""
        found, start = {}, 0
        for name in names:
            found[name] = slice(start, start + self._count(name))
            start += self._count(name)
        return found

    @cached_property
    def input_rows(self) -> NDArray[np.int32]:
        """For each value of our input vector, its index in the published one."""
        times = range(self.frames)
        ours = [
            *((t, name) for t in times for name in self.carried),
            *((t, name) for t in times for name in self.forced_inputs),
            *((0, name) for name in self.static),
            *((self.frames, name) for name in self.forced),
        ]
        changing = self.carried + self.forced_inputs
        published = [
            (t, name) for name in sorted(changing + self.static) for t in (times if name in changing else range(1))
        ]
        return self._places(ours, published + [(self.frames, name) for name in self.forced])

    @cached_property
    def output_columns(self) -> NDArray[np.int32]:
        """For each value of our output vector, its index in the published one."""
        return self._places([(0, name) for name in self.targets], [(0, name) for name in sorted(self.targets)])

    def _places(self, ours: list[tuple[int, str]], published: list[tuple[int, str]]) -> NDArray[np.int32]:
        starts, start = {}, 0
        for part in published:
            starts[part] = start
            start += self._count(part[1])
        return np.concatenate([starts[part] + np.arange(self._count(part[1])) for part in ours]).astype(np.int32)

    def _count(self, name: str) -> int:
        return len(self.levels) if name in self.on_levels else 1


def unfed(name: str) -> TaskError:
    """Return the error for an input that changes in time, but that nothing supplies after the first step."""
    return TaskError(
        f"the input {name} changes in time, so it must be a target (fed back) or a forcing (known ahead), but is "
        "neither; add it to target_variables or forcing_variables"
    )
