"""Keep the Cases that wait for a worker, so that the members of one initial time go to one worker where they can.

A worker that has read an initial state keeps it for the next member. So a worker goes on with the initial time of its
last Case; else it begins one that no other worker has begun; else it helps with one. Without an ensemble each initial
time has one Case, and the Cases are taken in their order.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Final

import numpy as np

from graphcast_batch.plan import Case

_LOOKED_AT: Final = 32
"""Waiting Cases, and initial times, that are looked at when the first must wait for a certain worker."""

_Start = tuple[np.datetime64, str]
"""What the members of an ensemble start from: the initial time, and the file that holds it if there is one."""


class WaitingCases:
    """The Cases that wait for a worker, by what they start from."""

    def __init__(self, cases: Iterable[Case]) -> None:
        """Let Cases wait, in their order."""
        self._untouched: OrderedDict[_Start, deque[Case]] = OrderedDict()
        self._begun: OrderedDict[_Start, deque[Case]] = OrderedDict()
        self._begun_by: dict[_Start, str] = {}
        self._last: dict[str, _Start] = {}
        self._first: deque[Case] = deque()
        self._count = 0
        self.extend(cases)

    def __len__(self) -> int:
        return self._count

    def append(self, case: Case) -> None:
        """Let a Case wait behind the others."""
        self._group(_start(case)).append(case)
        self._count += 1

    def appendleft(self, case: Case) -> None:
        """Let a Case wait in front of the others."""
        start = _start(case)
        self._group(start).appendleft(case)
        (self._begun if start in self._begun else self._untouched).move_to_end(start, last=False)
        self._count += 1

    def put_first(self, case: Case) -> None:
        """Let a Case wait in front of all others, also of those that go on with what a worker has begun."""
        self._first.append(case)
        self._count += 1

    def extend(self, cases: Iterable[Case]) -> None:
        """Let Cases wait behind the others, in their order."""
        for case in cases:
            self.append(case)

    def take(self, worker: str, may_take: Callable[[Case], bool]) -> Case | None:
        """Remove and return the Case that a worker is to take next; None if it may take none of those looked at.

        Args:
            worker: name of the worker.
            may_take: returns whether the worker may take a Case.
        """
        first = next((case for case in islice(self._first, _LOOKED_AT) if may_take(case)), None)
        if first is not None:
            self._first.remove(first)
            self._count -= 1
            return first
        for start, cases in self._groups_for(worker):
            found = next((case for case in islice(cases, _LOOKED_AT) if may_take(case)), None)
            if found is not None:
                self._remove(worker, start, cases, found)
                return found
        return None

    def forget(self, worker: str) -> None:
        """Leave what a worker has begun to others, since it is gone."""
        self._last.pop(worker, None)
        for start in [start for start, owner in self._begun_by.items() if owner == worker]:
            del self._begun_by[start]
            self._untouched[start] = self._begun.pop(start)
            self._untouched.move_to_end(start, last=False)

    def _groups_for(self, worker: str) -> Iterator[tuple[_Start, deque[Case]]]:
        """Yield initial times in the order in which a worker should look at them, with their Cases."""
        own = self._last.get(worker)
        if own is not None and (cases := self._begun.get(own) or self._untouched.get(own)):
            yield own, cases
        # Those begun last are the furthest from their end, where help is worth most.
        others = chain(islice(self._untouched.items(), _LOOKED_AT), islice(reversed(self._begun.items()), _LOOKED_AT))
        yield from [(start, cases) for start, cases in others if start != own]

    def _remove(self, worker: str, start: _Start, cases: deque[Case], case: Case) -> None:
        cases.remove(case)
        self._count -= 1
        self._last[worker] = start
        if start in self._untouched:
            self._begun[start] = self._untouched.pop(start)
            self._begun_by[start] = worker
        if not cases:
            del self._begun[start]
            del self._begun_by[start]

    def _group(self, start: _Start) -> deque[Case]:
        if start in self._begun:
            return self._begun[start]
        return self._untouched.setdefault(start, deque())


def _start(case: Case) -> _Start:
    return case.computed.init_time, case.source
