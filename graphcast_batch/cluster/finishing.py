"""Describe what a run that was asked to stop still does: which Cases it finishes, and how long that takes at most."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from graphcast_batch.plan import Case

_MOST_NAMED: Final = 4
"""Cases in progress that are named."""


@dataclass
class WorkerPace:
    """The steps that a worker has made, and since when it makes some.

    Attributes:
        since: when the worker got its first Case, in seconds; None before.
        made: number of steps of the Cases that it has completed.
        steps: number of steps that it has made of each Case in progress, by key.
    """

    since: float | None = None
    made: int = 0
    steps: dict[str, int] = field(default_factory=dict)

    def seconds_left(self, cases: Sequence[Case], now: float) -> float:
        """Return how long the worker takes for the steps that are left of its Cases; infinite before the first step.

        Reading, compiling and idling count as if they were to come again, so that it is rather less.

        Args:
            cases: the Cases that the worker has.
            now: time in seconds, of the same clock as `since`.
        """
        made = self.made + sum(self.steps.get(case.key, 0) for case in cases)
        left = sum(case.computed.steps - self.steps.get(case.key, 0) for case in cases)
        return left * (now - self.since) / made if made and self.since is not None else math.inf


def finishing(workers: Sequence[tuple[WorkerPace, Sequence[Case]]], now: float, most_seconds: float) -> str:
    """Describe what is still done after a request to stop.

    Args:
        workers: pace and Cases of each worker.
        now: time in seconds, of the clock of the paces.
        most_seconds: when Cases in progress are dropped, because the job ends; infinite if it does not.
    """
    steps = {case.key: (pace.steps.get(case.key, 0), case.computed.steps) for pace, cases in workers for case in cases}
    if not steps:
        return "no Case is in progress, and none is begun"
    seconds = max(pace.seconds_left(cases, now) for pace, cases in workers if cases)
    if min(seconds, most_seconds) < math.inf:
        takes = f"which takes {timedelta(seconds=math.ceil(min(seconds, most_seconds)))} at most"
    else:
        takes = "for how long is not known before their first steps are made"
    named = sorted(steps, key=lambda key: (-steps[key][0], key))
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    cases = ", ".join(f"{key} ({steps[key][0]} of {steps[key][1]} steps)" for key in named[:_MOST_NAMED])
    return f"no other Case is begun, and {len(named)} in progress are finished, {takes}: {cases}{more}"
