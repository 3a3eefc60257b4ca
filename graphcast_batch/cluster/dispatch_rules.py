"""Cases and workers become decisions: who takes which Case next, and who is to blame when one fails.

No processes, clocks or files in here: the driver says what happened and when, and does what is decided. What a
decision costs does not grow with the number of workers or Cases.
"""

import heapq
import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from graphcast_batch.errors import ForecastError, InputError, TaskError
from graphcast_batch.plan import Case
from graphcast_batch.stores.case_records import CaseState

IN_FLIGHT: Final = 4
"""Cases that a worker has at once: one is read, one is computed, one is written, and one takes the place of the first
that is done."""
_OWN: Final = (InputError, TaskError)
"""Errors that another try, on whatever worker, would meet again."""
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 60.0
_MOST_FRUITLESS: Final = 3
"""Workers that may die or be retired before any Case is whole again; beyond that the fault is the machine's."""
_MOST_BLAMED: Final = 2
"""Cases that may fail on a worker and then become whole on another."""
_MOST_BROKEN: Final = 3
"""Cases one after another that a worker may fail with errors that could be its machine's."""
_LOOKED_AT: Final = 32
"""Waiting Cases that are looked at when the first must wait for a certain worker."""


def in_flight(cases_per_call: int) -> int:
    """Cases that a worker has at once if it computes so many together: each of the three stages may hold as many."""
    return IN_FLIGHT + 3 * (cases_per_call - 1)


@dataclass
class _Post:
    """A worker as it stands.

    Attributes:
        at_hand: its Cases, by key.
        queue: where it stands in line for more: the workers with as many Cases; None if it may take none.
        failed: Cases that failed here since its last success; whether the machine could be the cause.
        blamed: Cases that failed here and became whole elsewhere.
    """

    at_hand: dict[str, Case] = field(default_factory=dict)
    queue: dict[str, None] | None = None
    failed: dict[str, bool] = field(default_factory=dict)
    blamed: set[str] = field(default_factory=set)


class Dispatch:
    """The Cases that are not yet whole or set aside, and the workers there are for them."""

    def __init__(self, cases: Iterable[Case], retries: int, in_flight: int = IN_FLIGHT) -> None:
        self._retries = retries
        self._in_flight = in_flight
        self._waiting: deque[Case] = deque(cases)
        self._resting: list[tuple[float, Case]] = []
        self._elsewhere: dict[str, Case] = {}
        self._posts: dict[str, _Post] = {}
        self._queues: list[dict[str, None]] = [{} for _ in range(in_flight)]
        self._broken: dict[str, None] = {}
        self._under_way = 0
        self._attempts: Counter[str] = Counter()
        self._failed_on: dict[str, set[str]] = {}
        self._aside: dict[str, Case] = {}
        self._suspects: set[str] = set()
        self._fruitless: dict[str, str] = {}

    @property
    def unfinished(self) -> bool:
        """Whether a Case may still become whole, here or with another driver."""
        return bool(self.ours or self._elsewhere)

    @property
    def ours(self) -> int:
        """How many Cases are this driver's to make: waiting, resting or under way."""
        return len(self._waiting) + len(self._resting) + self._under_way

    @property
    def elsewhere(self) -> tuple[Case, ...]:
        """Cases that other drivers have claimed."""
        return tuple(self._elsewhere.values())

    @property
    def fruitless(self) -> tuple[str, ...]:
        """Why workers were lost since the last Case became whole, if so many that the machine must be broken."""
        return tuple(self._fruitless.values()) if len(self._fruitless) > _MOST_FRUITLESS else ()

    def join(self, worker: str) -> None:
        """A worker is ready."""
        self._posts[worker] = _Post()
        self._line_up(worker)

    def choose(self, now: float, expected: int = 0) -> tuple[str, Case] | None:
        """The Case to hand out next and the worker to take it; None while none can.

        Nobody takes more than an even share of what is left, so that all end together.

        Args:
            now: seconds, of a clock that only rises.
            expected: workers that are not ready yet.
        """
        share = math.ceil(self.ours / max(1, len(self._posts) + expected))
        while self._resting and self._resting[0][0] <= now:
            self._waiting.append(heapq.heappop(self._resting)[1])
        if any(self._queues):
            for place in range(min(len(self._waiting), _LOOKED_AT)):
                worker = self._worker_for(self._waiting[place], share)
                if worker is not None:
                    case = self._waiting[place]
                    del self._waiting[place]
                    return worker, case
        return None

    def hand(self, worker: str, case: Case) -> int:
        """The chosen worker has got the chosen Case; returns which attempt this is."""
        key = case.key
        self._posts[worker].at_hand[key] = case
        self._under_way += 1
        self._line_up(worker)
        self._attempts[key] += 1
        return self._attempts[key]

    def put_back(self, case: Case) -> None:
        """The chosen Case is not handed out after all."""
        self._waiting.appendleft(case)

    def leave(self, case: Case) -> None:
        """The chosen Case is another driver's, or whole or set aside by now."""
        self._elsewhere[case.key] = case

    def refuse(self, case: Case, now: float) -> int:
        """The chosen Case could not be claimed; that counts as an attempt, and nobody is to blame.

        Returns:
            after how many attempts it is set aside; 0 if it will be tried again.
        """
        self._attempts[case.key] += 1
        return self._try_again(case, now)

    def forgo(self, worker: str, case: Case) -> None:
        """Another driver has taken over a Case from a worker: what became of it here counts for nothing."""
        self._take_from(worker, case.key)
        self._attempts[case.key] -= 1
        self.leave(case)

    def look_again(self, states: Mapping[str, CaseState]) -> None:
        """Takes up those Cases that other drivers have let go."""
        for key, state in states.items():
            if state is CaseState.MISSING:
                self._waiting.append(self._elsewhere[key])
            if state is not CaseState.RUNNING:
                del self._elsewhere[key]

    def complete(self, worker: str, case: Case) -> None:
        """A worker has made a Case."""
        key = case.key
        self._suspects.discard(key)
        self._take_from(worker, key)
        self._posts[worker].failed.clear()
        self._judge(worker)
        self._fruitless.clear()
        del self._attempts[key]
        for other in self._failed_on.pop(key, set()) - {worker}:
            if other in self._posts:
                self._posts[other].blamed.add(key)
                self._judge(other)

    def fail(self, worker: str, case: Case, error: BaseException, now: float) -> int:
        """A worker could not make a Case.

        Returns:
            after how many attempts it is set aside; 0 if it will be tried again.
        """
        self._take_from(worker, case.key)
        if isinstance(error, _OWN):
            return self._skipped(case, final=True)
        self._posts[worker].failed[case.key] = not isinstance(error, ForecastError)
        self._judge(worker)
        self._failed_on.setdefault(case.key, set()).add(worker)
        return self._try_again(case, now)

    def die(self, worker: str, now: float, culprit: str = "") -> tuple[Case, int] | None:
        """A worker is dead, and Cases it had at hand may be the cause.

        Of several it cannot be told: none is charged, and each is worked on alone from then on.

        Args:
            worker: that died.
            now: seconds, of a clock that only rises.
            culprit: key of the Case that is known to be the cause.

        Returns:
            the Case that is charged, and after how many attempts it is set aside, 0 if it will be tried again.
        """
        at_hand = self._dismiss(worker).at_hand
        charged = at_hand.pop(culprit) if culprit else None
        if charged is None and len(at_hand) == 1:
            charged = at_hand.popitem()[1]
        if not culprit:
            self._suspects |= at_hand.keys()
        self._give_back(at_hand)
        if charged is None:
            if not at_hand:
                self._fruitless[worker] = "a worker died while it made nothing"
            return None
        self._fruitless[charged.key] = f"a worker died while it made {charged.key}"
        self._failed_on.setdefault(charged.key, set()).add(worker)
        return charged, self._try_again(charged, now)

    def lose(self, worker: str) -> None:
        """A worker is gone with its node, through no Case's fault."""
        self._give_back(self._dismiss(worker).at_hand)

    def broken(self) -> str | None:
        """A worker on which several different Cases failed, and others did not; None if there is none."""
        return next(iter(self._broken), None)

    def retire(self, worker: str) -> list[str]:
        """Sends a broken worker away: what failed on it is not charged to the Cases.

        Returns:
            keys of Cases that had been set aside because of it, and are to be tried again.
        """
        post = self._dismiss(worker)
        self._give_back(post.at_hand)
        freed = [key for key in post.failed if key in self._aside]
        for key in post.failed:
            self._attempts[key] -= 1
        self._waiting.extend(self._aside.pop(key) for key in freed)
        self._fruitless[worker] = f"a worker failed {', '.join(post.failed)} one after another"
        return freed

    def _worker_for(self, case: Case, share: int) -> str | None:
        """The least busy worker that may take a Case: one that it has not failed on, if there is any such.

        A Case that is suspected of killing workers is worked on alone.
        """
        key = case.key
        tried = self._failed_on.get(key, set()) & self._posts.keys()
        shunned = tried if len(tried) < len(self._posts) else set()
        queues = self._queues[: 1 if key in self._suspects else share]
        return next((worker for queue in queues for worker in queue if worker not in shunned), None)

    def _line_up(self, worker: str) -> None:
        """Has a worker wait for more behind those with as many Cases, if it may take more."""
        post = self._posts[worker]
        if post.queue is not None:
            del post.queue[worker]
        count = len(post.at_hand)
        full = count >= self._in_flight or not self._suspects.isdisjoint(post.at_hand)
        post.queue = None if full else self._queues[count]
        if post.queue is not None:
            post.queue[worker] = None

    def _take_from(self, worker: str, key: str) -> None:
        """A worker no longer has a Case."""
        del self._posts[worker].at_hand[key]
        self._under_way -= 1
        self._line_up(worker)

    def _judge(self, worker: str) -> None:
        """Notes whether a worker is broken."""
        post = self._posts[worker]
        self._broken.pop(worker, None)
        if len(post.blamed) >= _MOST_BLAMED or sum(post.failed.values()) >= _MOST_BROKEN:
            self._broken[worker] = None

    def _dismiss(self, worker: str) -> _Post:
        """A worker is no more."""
        post = self._posts.pop(worker)
        self._broken.pop(worker, None)
        self._under_way -= len(post.at_hand)
        if post.queue is not None:
            del post.queue[worker]
        return post

    def _try_again(self, case: Case, now: float) -> int:
        attempts = self._attempts[case.key]
        if attempts > self._retries:
            return self._skipped(case, final=False)
        pause = min(_FIRST_PAUSE_SECONDS * 4 ** (attempts - 1), _LONGEST_PAUSE_SECONDS)
        heapq.heappush(self._resting, (now + pause, case))
        return 0

    def _skipped(self, case: Case, *, final: bool) -> int:
        if not final:
            self._aside[case.key] = case
        return self._attempts[case.key]

    def _give_back(self, cases: Mapping[str, Case]) -> None:
        """Back in line, as if they had not been handed out."""
        for key, case in cases.items():
            self._attempts[key] -= 1
            self._waiting.append(case)
