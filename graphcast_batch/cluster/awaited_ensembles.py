"""Know which ensembles wait for which of their members, and which of them can be combined."""

from collections.abc import Iterable

import numpy as np

from graphcast_batch.plan import Case


class AwaitedEnsembles:
    """The ensembles that are still to be combined, each until all of its members are complete.

    Args:
        ensembles: Cases without a member, one for each initial time.
        incomplete: Cases of members that are not complete, whether or not somebody makes them.
    """

    def __init__(self, ensembles: Iterable[Case] = (), incomplete: Iterable[Case] = ()) -> None:
        self._waiting = {case.init_time: case for case in ensembles}
        self._missing: dict[np.datetime64, set[str]] = {time: set() for time in self._waiting}
        for case in incomplete:
            if case.init_time in self._missing:
                self._missing[case.init_time].add(case.key)

    def __len__(self) -> int:
        """Return how many ensembles still wait for members."""
        return len(self._waiting)

    def take_ready(self) -> list[Case]:
        """Return the ensembles that wait for no member, which are no longer awaited then."""
        return [self._waiting.pop(time) for time, keys in self._missing.items() if not keys and time in self._waiting]

    def complete(self, case: Case) -> Case | None:
        """Record that a member is complete; return its ensemble if that was the last one."""
        keys = self._missing.get(case.init_time)
        if keys is None or case.key not in keys:
            return None
        keys.discard(case.key)
        return None if keys else self._waiting.pop(case.init_time, None)
