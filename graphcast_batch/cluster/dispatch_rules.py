"""Decide which worker takes which Case next, and which Case or worker a failure is attributed to.

There are no processes, clocks or files in here: the dispatch loop reports what happened and when, and does what is
decided. The cost of a decision does not grow with the number of workers or Cases.
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from typing import Final

from graphcast_batch.cluster.awaited_ensembles import AwaitedEnsembles
from graphcast_batch.cluster.waiting_cases import WaitingCases
from graphcast_batch.errors import CheckpointError, ForecastError, InputError, TaskError
from graphcast_batch.plan import Case
from graphcast_batch.stores.case_records import CaseState

IN_FLIGHT: Final = 4
"""Cases that a worker has at once: one is read, one is computed, one is written, and one takes the place of the first
that is done."""
_PERMANENT: Final = (CheckpointError, InputError, TaskError)
"""Errors of a Case that would occur again in every further attempt, on whatever worker."""
_FIRST_PAUSE_SECONDS: Final = 1.0
"""Between the first failure of a Case and its next attempt; each further pause is four times as long."""
_LONGEST_PAUSE_SECONDS: Final = 60.0
_MOST_LOSSES: Final = 3
"""Workers that may die or be retired before another Case is completed; beyond that the machine must be at fault."""
_MOST_COMPLETED_ELSEWHERE: Final = 2
"""A worker is broken once this many Cases have failed on it and were then completed by other workers."""
_MOST_MACHINE_ERRORS: Final = 3
"""A worker is broken once this many of its Cases in a row have failed with errors that its machine may have caused."""
_LOOKED_AT: Final = 32
"""Workers that are looked at for a Case when the least busy one may not take it."""


def in_flight(batch_size: int) -> int:
    """Return how many Cases a worker has at once.

    Args:
        batch_size: Cases that the worker computes in one call; each of its three stages may hold as many.
    """
    return IN_FLIGHT + 3 * (batch_size - 1)


@dataclass
class _WorkerEntry:
    """What is known of a worker.

    Attributes:
        cases: the Cases that it has, by key.
        queue: the queue for more in which it waits, with the workers that have as many Cases; None if it may take none.
        failed: for each Case that failed here since the worker last completed one, whether the machine may have caused
            the error.
        completed_elsewhere: keys of Cases that failed here and were completed by another worker.
    """

    cases: dict[str, Case] = field(default_factory=dict)
    queue: dict[str, None] | None = None
    failed: dict[str, bool] = field(default_factory=dict)
    completed_elsewhere: set[str] = field(default_factory=set)


class Dispatch:
    """The Cases that are neither complete nor failed, and the workers that make them.

    Args:
        cases: the Cases to make.
        retries: how often an attempt that failed is repeated.
        in_flight: how many Cases a worker has at once.
        awaited: ensembles, which are Cases too once all of their members are complete.
    """

    def __init__(
        self,
        cases: Iterable[Case],
        retries: int,
        in_flight: int = IN_FLIGHT,
        awaited: AwaitedEnsembles | None = None,
    ) -> None:
        self._awaited = awaited or AwaitedEnsembles()
        self._retries = retries
        self._in_flight = in_flight
        self._waiting = WaitingCases(cases)
        self._pausing: list[tuple[float, Case]] = []
        self._elsewhere: dict[str, Case] = {}
        self._workers: dict[str, _WorkerEntry] = {}
        self._queues: list[dict[str, None]] = [{} for _ in range(in_flight)]
        self._broken: dict[str, None] = {}
        self._in_progress = 0
        self._attempts: Counter[str] = Counter()
        self._failed_on: dict[str, set[str]] = {}
        self._failed: dict[str, Case] = {}
        self._suspects: set[str] = set()
        self._losses: dict[str, str] = {}

    @property
    def unfinished(self) -> bool:
        """Whether a Case may still be completed, by this driver or by another."""
        return bool(self.ours or self._elsewhere)

    @property
    def ours(self) -> int:
        """How many Cases this driver has to make: those that are waiting, pausing before a retry, or in progress."""
        return len(self._waiting) + len(self._pausing) + self._in_progress

    @property
    def elsewhere(self) -> tuple[Case, ...]:
        """Cases that other drivers hold the leases of."""
        return tuple(self._elsewhere.values())

    @property
    def losses(self) -> tuple[str, ...]:
        """Why workers were lost since a Case was last completed, if so many that the machine must be broken."""
        return tuple(self._losses.values()) if len(self._losses) > _MOST_LOSSES else ()

    def add_worker(self, worker: str) -> None:
        """Add a worker that is ready."""
        self._workers[worker] = _WorkerEntry()
        self._enqueue(worker)

    def choose(self, now: float, expected: int = 0) -> tuple[str, Case] | None:
        """Return the worker and the Case that it is to take next; None while no Case can be handed out.

        No worker takes more than an even share of the Cases that are left, so that all workers end together.

        Args:
            now: seconds, of a clock that only rises.
            expected: how many workers are starting.
        """
        share = math.ceil(self.ours / max(1, len(self._workers) + expected))
        while self._pausing and self._pausing[0][0] <= now:
            self._waiting.append(heapq.heappop(self._pausing)[1])
        if len(self._waiting):
            for worker in islice(chain(*self._queues[:share]), _LOOKED_AT):
                case = self._waiting.take(worker, partial(self._may_take, worker))
                if case is not None:
                    return worker, case
        return None

    def assign(self, worker: str, case: Case) -> int:
        """Record that the chosen worker has got the chosen Case; return the number of this attempt, from 1."""
        key = case.key
        self._workers[worker].cases[key] = case
        self._in_progress += 1
        self._enqueue(worker)
        self._attempts[key] += 1
        return self._attempts[key]

    def put_back(self, case: Case) -> None:
        """Return the chosen Case, which is not handed out after all, to the head of the queue."""
        self._waiting.appendleft(case)

    def leave_to_others(self, case: Case) -> None:
        """Record that another driver has the lease of the chosen Case, or has completed it or failed to by now."""
        self._elsewhere[case.key] = case

    def refuse_lease(self, case: Case, now: float) -> int:
        """Record that the store refused the lease of the chosen Case: an attempt that is attributed to no worker.

        Args:
            case: the Case.
            now: seconds, of a clock that only rises.

        Returns:
            after how many attempts the Case has failed; 0 if it will be tried again.
        """
        self._attempts[case.key] += 1
        return self._retry(case, now)

    def lose_lease(self, worker: str, case: Case) -> None:
        """Record that another driver has taken over a Case of a worker: the attempt made here does not count."""
        self._take_away(worker, case.key)
        self._attempts[case.key] -= 1
        self.leave_to_others(case)

    def update_elsewhere(self, states: Mapping[str, CaseState]) -> None:
        """Take over the Cases that other drivers have released without completing them.

        Args:
            states: states in the ledger of the Cases in `elsewhere`, by key.
        """
        for key, state in states.items():
            if state is CaseState.MISSING:
                self._waiting.append(self._elsewhere[key])
            if state is not CaseState.RUNNING:
                case = self._elsewhere.pop(key)
                if state is CaseState.COMPLETE:
                    self._let_wait(self._awaited.complete(case))

    def complete(self, worker: str, case: Case) -> None:
        """Record that a worker has completed a Case."""
        key = case.key
        self._suspects.discard(key)
        self._take_away(worker, key)
        self._workers[worker].failed.clear()
        self._check_broken(worker)
        self._losses.clear()
        del self._attempts[key]
        self._let_wait(self._awaited.complete(case))
        for other in self._failed_on.pop(key, set()) - {worker}:
            if other in self._workers:
                self._workers[other].completed_elsewhere.add(key)
                self._check_broken(other)

    def fail(self, worker: str, case: Case, error: BaseException, now: float) -> int:
        """Record that an attempt of a worker at a Case has failed.

        Args:
            worker: name of the worker.
            case: the Case.
            error: what the attempt raised.
            now: seconds, of a clock that only rises.

        Returns:
            after how many attempts the Case has failed; 0 if it will be tried again.
        """
        self._take_away(worker, case.key)
        if isinstance(error, _PERMANENT):
            return self._give_up(case, final=True)
        self._workers[worker].failed[case.key] = not isinstance(error, ForecastError)
        self._check_broken(worker)
        self._failed_on.setdefault(case.key, set()).add(worker)
        return self._retry(case, now)

    def die(self, worker: str, now: float, cause: str = "") -> tuple[Case, int] | None:
        """Record that a worker has died, and attribute its death to a Case if there is only one that can be the cause.

        If the worker had several Cases, its death is attributed to none, and each of them is made alone from then on.

        Args:
            worker: name of the worker that died.
            now: seconds, of a clock that only rises.
            cause: key of the Case that is known to be the cause; empty if none is known.

        Returns:
            the Case that the death is attributed to, and after how many attempts it has failed, 0 if it will be tried
            again; None if the death is attributed to no Case.
        """
        others = self._remove(worker).cases
        culprit = others.pop(cause) if cause else None
        if culprit is None and len(others) == 1:
            culprit = others.popitem()[1]
        if not cause:
            self._suspects |= others.keys()
        self._requeue(others)
        if culprit is None:
            if not others:
                self._losses[worker] = "a worker died while it had no Case"
            return None
        self._losses[culprit.key] = f"a worker died while it made {culprit.key}"
        self._failed_on.setdefault(culprit.key, set()).add(worker)
        return culprit, self._retry(culprit, now)

    def lose_node(self, worker: str) -> None:
        """Record that a worker died with its node, which is attributed to no Case."""
        self._requeue(self._remove(worker).cases)

    def broken(self) -> str | None:
        """Return a worker on which different Cases failed while other workers succeed; None if there is none."""
        return next(iter(self._broken), None)

    def retire(self, worker: str) -> list[str]:
        """Remove a broken worker: what failed on it is not attributed to the Cases.

        Returns:
            keys of the Cases that had failed because of the worker, and will be tried again.
        """
        entry = self._remove(worker)
        self._requeue(entry.cases)
        freed = [key for key in entry.failed if key in self._failed]
        for key in entry.failed:
            self._attempts[key] -= 1
        self._waiting.extend(self._failed.pop(key) for key in freed)
        self._losses[worker] = f"a worker failed {', '.join(entry.failed)} one after another"
        return freed

    def _let_wait(self, ensemble: Case | None) -> None:
        """Let an ensemble that can be combined wait in front: what was just written is still in the host's memory."""
        if ensemble:
            self._waiting.put_first(ensemble)

    def _may_take(self, worker: str, case: Case) -> bool:
        """Return whether a worker may take a Case: one that it has not failed on, if there is any other worker.

        A Case that may have killed a worker is given to a worker that has no other.
        """
        key = case.key
        if key in self._suspects and self._workers[worker].cases:
            return False
        tried = self._failed_on.get(key, set()) & self._workers.keys()
        return worker not in tried or len(tried) == len(self._workers)

    def _enqueue(self, worker: str) -> None:
        """Put a worker at the end of the queue of those with as many Cases, if it may take more."""
        entry = self._workers[worker]
        if entry.queue is not None:
            del entry.queue[worker]
        count = len(entry.cases)
        full = count >= self._in_flight or not self._suspects.isdisjoint(entry.cases)
        entry.queue = None if full else self._queues[count]
        if entry.queue is not None:
            entry.queue[worker] = None

    def _take_away(self, worker: str, key: str) -> None:
        """Remove a Case from those that a worker has."""
        del self._workers[worker].cases[key]
        self._in_progress -= 1
        self._enqueue(worker)

    def _check_broken(self, worker: str) -> None:
        """Record whether a worker is broken."""
        entry = self._workers[worker]
        self._broken.pop(worker, None)
        if (
            len(entry.completed_elsewhere) >= _MOST_COMPLETED_ELSEWHERE
            or sum(entry.failed.values()) >= _MOST_MACHINE_ERRORS
        ):
            self._broken[worker] = None

    def _remove(self, worker: str) -> _WorkerEntry:
        """Remove a worker, and return what was known of it."""
        entry = self._workers.pop(worker)
        self._waiting.forget(worker)
        self._broken.pop(worker, None)
        self._in_progress -= len(entry.cases)
        if entry.queue is not None:
            del entry.queue[worker]
        return entry

    def _retry(self, case: Case, now: float) -> int:
        """Try a Case again after a pause, unless it has failed too often; see `fail` for what is returned."""
        attempts = self._attempts[case.key]
        if attempts > self._retries:
            return self._give_up(case, final=False)
        pause = min(_FIRST_PAUSE_SECONDS * 4 ** (attempts - 1), _LONGEST_PAUSE_SECONDS)
        heapq.heappush(self._pausing, (now + pause, case))
        return 0

    def _give_up(self, case: Case, *, final: bool) -> int:
        """Return after how many attempts a Case has failed; `retire` may free it if the failure is not final."""
        if not final:
            self._failed[case.key] = case
        return self._attempts[case.key]

    def _requeue(self, cases: Mapping[str, Case]) -> None:
        """Put Cases back into the queue, as if they had not been handed out."""
        for key, case in cases.items():
            self._attempts[key] -= 1
            self._waiting.append(case)
