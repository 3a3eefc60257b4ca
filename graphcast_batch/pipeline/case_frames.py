"""Pass the frames of one Case from the thread of the device to the thread of the Case."""

import queue
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.pipeline.stages import Reached, StageName
from graphcast_batch.plan import Case
from graphcast_batch.timing import Stopwatch

_WAITING_CALLS: Final = 1
"""Number of calls of a Case whose frames may wait while others are checked: by then more are on the way to the host."""

HostFrames = Mapping[str, NDArray[np.float32]]
"""Consecutive steps of a forecast on the host: by variable, float32 (step, [level], latitude, longitude)."""


class CaseFrames:
    """The frames of one Case: the device gives them, and the thread of the Case takes them by iterating.

    Attributes:
        steps: number of steps of the forecast.
        watch: takes the seconds spent on the Case.
        given: number of steps that the device has given.
        refused: whether no more frames are wanted.
    """

    def __init__(self, case: Case, watch: Stopwatch, reached: Reached) -> None:
        self.steps = case.steps
        self.watch = watch
        self.given = self._taken = 0
        self.refused = False
        self._reached = reached
        self._waiting: queue.Queue[HostFrames | BaseException] = queue.Queue(_WAITING_CALLS)

    def reached(self, name: StageName) -> None:
        """Record the stage that the Case is in, or has made progress in."""
        self._reached(name, self._taken)

    def give(self, frames: HostFrames) -> None:
        """Pass on the frames of one call; wait while those of an earlier call have not been taken."""
        self.given += steps_of(frames)
        self._put(frames)

    def fail(self, error: BaseException) -> None:
        """Raise an error in the thread of the Case, in place of more frames."""
        self._put(error)

    def refuse(self) -> None:
        """Want no more frames; from then on nothing waits for this Case."""
        self.refused = True
        with suppress(queue.Empty):
            self._waiting.get_nowait()

    def __iter__(self) -> Iterator[HostFrames]:
        while self._taken < self.steps:
            frames = self._waiting.get()
            if isinstance(frames, BaseException):
                raise frames
            self._taken += steps_of(frames)
            yield frames

    def _put(self, item: HostFrames | BaseException) -> None:
        if not self.refused:  # if it is refused from here on, there is room for this item
            self._waiting.put(item)


def steps_of(frames: Mapping[str, Any]) -> int:
    """Return the number of steps of some frames."""
    return int(next(iter(frames.values())).shape[0])
