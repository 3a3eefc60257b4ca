"""How long Cases took becomes whether another one would be whole before the scheduler ends the job.

No clocks in here: whoever asks says what time it is, in seconds since 1970, UTC.
"""

from collections import deque
from typing import Final

from graphcast_batch.cluster.drain import RESERVE_SECONDS
from graphcast_batch.plan import Case

_LAST_SECONDS: Final = 30.0
"""How long before the end what is under way is dropped: time to end Ray and to give claims back."""
_LOOKED_AT: Final = 32
"""Cases that were last made, of which the slowest counts."""


class Walltime:
    """What is left of a job's time, in Cases.

    Args:
        now: when the run begins.
        start: of the job; None if it is not known.
        end: of the job; None if there is none.
    """

    def __init__(self, now: float, start: float | None, end: float | None) -> None:
        self._begun = now
        self._start = now if start is None else start
        self._end = end
        self._since: dict[str, float] = {}
        self._step_seconds: deque[float] = deque(maxlen=_LOOKED_AT)

    def hand(self, case: Case, now: float) -> None:
        """A Case is handed out."""
        self._since[case.key] = now

    def back(self, case: Case, now: float, *, complete: bool) -> None:
        """A Case is no longer under way."""
        seconds = now - self._since.pop(case.key)
        if complete:
            self._step_seconds.append(seconds / case.steps)

    def left(self, now: float) -> float:
        """Seconds until the job ends; infinite if it does not."""
        return float("inf") if self._end is None else self._end - now

    def expected(self, case: Case) -> float:
        """Seconds that a Case takes from hand-out to record; 0 as long as none was made.

        Those before it on its worker are part of them, as they were for the Cases that this is known from.
        """
        return max(self._step_seconds, default=0.0) * case.steps

    def fits(self, case: Case, now: float) -> bool:
        """Whether a Case that is handed out now would be whole in time."""
        return self.left(now) - RESERVE_SECONDS > self.expected(case)

    def over(self, now: float) -> bool:
        """Whether what is under way must be dropped."""
        return self.left(now) <= _LAST_SECONDS

    def in_vain(self, now: float) -> str:
        """Why another job like this one would make nothing either; empty if it could.

        That is so if most of a job's time went by without a single Case.
        """
        if self._end is None or self._step_seconds or self.left(now) > RESERVE_SECONDS:
            return ""
        had, complete = now - self._begun, self._end - self._start
        if had < complete / 2:
            return ""
        longest = now - min(self._since.values(), default=now)
        return (
            f"a job must last for at least one Case, but in {had:.0f} s of its {complete:.0f} s none became whole, and "
            f"the first still under way has been so for {longest:.0f} s; ask for more time (--time), make fewer steps, "
            "or take a faster device"
        )
