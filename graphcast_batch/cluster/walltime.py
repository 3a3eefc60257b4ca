"""Predict whether another Case would be complete before the scheduler ends the job, by how long earlier Cases took.

There are no clocks in here: the caller gives the time, in seconds since 1970, UTC.
"""

from collections import deque
from typing import Final

from graphcast_batch.cluster.drain import RESERVE_SECONDS
from graphcast_batch.plan import Case

_LAST_SECONDS: Final = 30.0
"""How long before the end of the job Cases in progress are dropped: time to end Ray and to release leases."""
_LOOKED_AT: Final = 32
"""Cases that were completed last, of which the slowest counts."""


class Walltime:
    """The time that is left of a job, compared with the time that a Case takes.

    Args:
        now: when the run begins.
        start: when the job began; None if it is not known.
        end: when the job will end; None if it has no end.
    """

    def __init__(self, now: float, start: float | None, end: float | None) -> None:
        self._begun = now
        self._start = now if start is None else start
        self._end = end
        self._since: dict[str, float] = {}
        self._step_seconds: deque[float] = deque(maxlen=_LOOKED_AT)

    def begin(self, case: Case, now: float) -> None:
        """Record that a Case is handed out."""
        self._since[case.key] = now

    def end(self, case: Case, now: float, *, complete: bool) -> None:
        """Record that a Case is no longer in progress, and whether it was completed."""
        seconds = now - self._since.pop(case.key)
        if complete:
            self._step_seconds.append(seconds / case.computed.steps)

    def left(self, now: float) -> float:
        """Return the seconds until the job ends; infinite if it has no end."""
        return float("inf") if self._end is None else self._end - now

    def expected(self, case: Case) -> float:
        """Return the seconds that a Case takes from hand-out to record; 0 as long as none was completed.

        The time that a Case waits for others on its worker is included, as it is in the times of the earlier Cases.
        """
        return max(self._step_seconds, default=0.0) * case.computed.steps

    def fits(self, case: Case, now: float) -> bool:
        """Return whether a Case that is handed out now would be complete in time."""
        return self.left(now) - RESERVE_SECONDS > self.expected(case)

    def left_for_cases(self, now: float) -> float:
        """Return the seconds until Cases in progress must be dropped; infinite if the job has no end."""
        return self.left(now) - _LAST_SECONDS

    def over(self, now: float) -> bool:
        """Return whether Cases in progress must be dropped."""
        return self.left_for_cases(now) <= 0

    def too_short(self, now: float) -> str:
        """Return why another job like this one would complete no Case either; empty if it could.

        That is so if most of a job's time went by without a single completed Case.
        """
        if self._end is None or self._step_seconds or self.left(now) > RESERVE_SECONDS:
            return ""
        had, length = now - self._begun, self._end - self._start
        if had < length / 2:
            return ""
        longest = now - min(self._since.values(), default=now)
        return (
            f"a job must last for at least one Case, but in {had:.0f} s of its {length:.0f} s none was completed, and "
            f"the first still in progress has been so for {longest:.0f} s; ask for more time (--time), make fewer "
            "steps, or take a faster device"
        )
