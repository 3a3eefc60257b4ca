"""Let the Cases of a worker read one after another: those of the state that was read last, then in their order."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from graphcast_batch.plan import Case


class ReadingTurns:
    """Gives the turn to one thread at a time.

    A lock alone would give it to whichever thread comes first when it is free, and members of two initial times would
    read both states again and again.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[Case] = []
        self._is_taken = False
        self._last: tuple[np.datetime64, str] | None = None

    @contextmanager
    def turn(self, case: Case) -> Iterator[None]:
        """Wait for the turn of a Case, and keep it within the context."""
        case = case.computed
        with self._changed:
            self._waiting.append(case)
            self._changed.wait_for(lambda: not self._is_taken and self._next() is case)
            self._waiting = [each for each in self._waiting if each is not case]
            self._is_taken, self._last = True, (case.init_time, case.source)
        try:
            yield
        finally:
            with self._changed:
                self._is_taken = False
                self._changed.notify_all()

    def _next(self) -> Case:
        alike = (case for case in self._waiting if (case.init_time, case.source) == self._last)
        return next(alike, self._waiting[0])
