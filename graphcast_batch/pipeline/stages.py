"""Follow the stages of the Cases of one worker, and find a Case that exceeds a time limit."""

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Final, Literal

from graphcast_batch.config.run_config import TimeLimitsConfig
from graphcast_batch.models.base import steps_in_call
from graphcast_batch.plan import Case

_STUCK_SECONDS: Final = 300.0
"""How long all Cases of a worker may wait, which takes milliseconds unless a thread has died or cannot start."""
_COMPILE_SECONDS: Final = 3600.0
"""What a worker may take longer for its first call of a program, which may have to be compiled."""

StageName = Literal["read", "compute", "write", "wait"]
"""What is done for a Case; it waits while the inputs or the device are in use by another Case."""

Reached = Callable[[StageName, int], None]
"""Records that a Case reached a stage, or made progress in it, and how many of its steps have been computed."""


@dataclass(frozen=True)
class CaseStage:
    """The stage of a Case in progress.

    Attributes:
        key: key of the Case.
        name: name of the stage.
        seconds: time since the Case reached the stage or last made progress there, such as the frames of a call or a
            block that was written.
        steps: number of steps of the forecast whose frames have come from the device.
    """

    key: str
    name: StageName
    seconds: float
    steps: int = field(default=0, compare=False)


class CaseStages:
    """The stages of all Cases in progress; any thread may use it."""

    def __init__(self, reading: threading.Lock, steps_per_call: int = 1, batch_size: int = 1) -> None:
        """Follow no Case yet.

        Args:
            reading: lock that is held while inputs or truth are read.
            steps_per_call: largest number of steps in one call of the model's program.
            batch_size: number of Cases that are computed in one call.
        """
        self._reading = reading
        self._steps_per_call, self._batch_size = steps_per_call, batch_size
        # By key of the Case, in a list of one: stage, monotonic time of the last progress, and steps.
        self._places: dict[str, list[tuple[StageName, float, int]]] = {}
        self._steps_in_call: dict[str, int] = {}
        self._compiled: set[int] = set()

    @contextmanager
    def followed(self, case: Case) -> Iterator[Reached]:
        """Follow a Case within the context, which gives the function that records its stages."""
        place: list[tuple[StageName, float, int]] = [("wait", monotonic(), 0)]
        together = self._steps_in_call[case.key] = steps_in_call(case.computed.steps, self._steps_per_call)
        self._places[case.key] = place

        def reached(name: StageName, steps: int) -> None:
            place[0] = (name, monotonic(), steps)  # which nobody sees once the Case is no longer in progress
            if steps:
                self._compiled.add(together)

        try:
            yield reached
        finally:
            del self._places[case.key]
            del self._steps_in_call[case.key]

    def under_way(self) -> list[CaseStage]:
        """Return the stage of each Case in progress."""
        now = monotonic()
        places = self._places.copy().items()
        return [CaseStage(key, name, max(0.0, now - since), steps) for key, [(name, since, steps)] in places]

    def late(self, limits: TimeLimitsConfig) -> CaseStage | None:
        """Return a Case that has made no progress for longer than its stage allows; None if there is none.

        A Case may wait for as long as any other one makes progress. If all wait, nobody does what they wait for, unless
        truth is read ahead for one that waits for others to share the device with.

        Only the end of the process ends a system call that hangs. A call that holds Python's global lock, as h5py does
        while it opens a file, delays this function too.
        """
        stages = self.under_way()
        if stages and all(stage.name == "wait" for stage in stages):
            newest = min(stages, key=lambda stage: stage.seconds)  # until it came there, something made progress
            if self._reading.locked():
                return replace(newest, name="read") if newest.seconds > limits.read else None
            return newest if newest.seconds > min(_STUCK_SECONDS, limits.compute) else None
        most = {"read": limits.read, "write": limits.write, "wait": math.inf}
        calls = self._steps_in_call.copy()

        def limit(stage: CaseStage) -> float:
            if stage.name != "compute":
                return most[stage.name]
            together = calls.get(stage.key, self._steps_per_call)  # else the Case has ended since
            compiling = 0.0 if together in self._compiled else _COMPILE_SECONDS
            return limits.compute * together * self._batch_size + compiling

        return next((stage for stage in stages if stage.seconds > limit(stage)), None)
