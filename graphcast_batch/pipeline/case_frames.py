"""Pass the frames of one Case from the thread of the device to the thread of the Case."""

import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.pipeline.stages import Reached, StageName
from graphcast_batch.plan import Case
from graphcast_batch.timing import Stopwatch

MOST_WAITING_BYTES: Final = 2**28
"""Largest frames of a call that wait while those of another call are checked and written. For larger ones the device
waits instead, which costs no time: by then the next frames have been computed."""

HostFrames = Mapping[str, NDArray[np.float32]]
"""Consecutive steps of a forecast on the host: by variable, float32 (step, [level], latitude, longitude)."""


class CaseFrames:
    """The frames of one Case: the device gives them, and the thread of the Case takes them by iterating.

    Attributes:
        case: the Case.
        steps: number of steps that are computed.
        watch: takes the seconds spent on the Case.
        given: number of steps that the device has given.
        refused: whether no more frames are wanted.
    """

    def __init__(self, case: Case, watch: Stopwatch, reached: Reached) -> None:
        self.case = case
        self.steps = case.computed.steps
        self.watch = watch
        self.given = self._taken = 0
        self.refused = False
        self._reached = reached
        self._waiting: HostFrames | BaseException | None = None
        self._changed = threading.Condition()

    def reached(self, name: StageName) -> None:
        """Record the stage that the Case is in, or has made progress in."""
        self._reached(name, self._taken)

    def give(self, frames: HostFrames) -> None:
        """Pass on the frames of one call; wait while those of an earlier call, or large ones, have not been taken."""
        self.given += steps_of(frames)
        self._put(frames)
        if sum(values.nbytes for values in frames.values()) > MOST_WAITING_BYTES:
            with self._changed:
                self._wait_for_room()

    def fail(self, error: BaseException) -> None:
        """Raise an error in the thread of the Case, in place of more frames."""
        self._put(error)

    def refuse(self) -> None:
        """Want no more frames; from then on nothing waits for this Case."""
        with self._changed:
            self.refused = True
            self._waiting = None
            self._changed.notify_all()

    def __iter__(self) -> Iterator[HostFrames]:
        while self._taken < self.steps:
            yield self._take()  # and keep no reference: whoever has taken frames decides how long they last

    def _take(self) -> HostFrames:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None)
            item, self._waiting = self._waiting, None
            self._changed.notify_all()
        assert item is not None
        if isinstance(item, BaseException):
            raise item
        self._taken += steps_of(item)
        return item

    def _put(self, item: HostFrames | BaseException) -> None:
        with self._changed:
            self._wait_for_room()
            if not self.refused:
                self._waiting = item
                self._changed.notify_all()

    def _wait_for_room(self) -> None:
        self._changed.wait_for(lambda: self.refused or self._waiting is None)


def steps_of(frames: Mapping[str, Any]) -> int:
    """Return the number of steps of some frames."""
    return int(next(iter(frames.values())).shape[0])
