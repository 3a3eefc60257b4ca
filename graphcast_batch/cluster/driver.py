"""The Cases of a run become work for Ray actors: each goes to whoever is free, fails alone, and is tried again.

What was found by trying, and why it is done so: an own loop over ``ray.wait`` (pools lose the item that fails); actors
that Ray never restarts by itself, so that a death is charged to the Case that was under way; small records as results.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import ray
from ray.exceptions import ActorUnavailableError, ActorUnschedulableError, RayActorError, RayError, RayTaskError

from graphcast_batch.assembly import Run, check_memory, lay_out, machine_bytes, resolved_precision
from graphcast_batch.cluster.crew import Crew, Member, device_of, is_gone, resources
from graphcast_batch.cluster.dispatch import Dispatch
from graphcast_batch.cluster.drain import WORK_LEFT, Drain
from graphcast_batch.config import RunConfig
from graphcast_batch.errors import ClusterError, StageTimeoutError, StoreError, StoreUnwritableError
from graphcast_batch.outputs.claims import Claim
from graphcast_batch.outputs.ledger import Failure, Record, State
from graphcast_batch.outputs.store import Store
from graphcast_batch.pipeline import Stage
from graphcast_batch.plan import Case

_LEASE_SECONDS: Final = 120.0
_BEAT_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 1.0
"""How long a signal may wait to be seen."""
_COUNT_SECONDS: Final = 2.0
"""How often places for workers are counted, and Cases of other drivers looked at."""
_REST_SECONDS: Final = 5.0
"""How long nobody is hired after a worker was stillborn: a node that has just died still gets some."""
_MOST_STILLBORN: Final = 3
_OBJECT_STORE_BYTES: Final = 2**29


class Progress(Protocol):
    """Who watches a run."""

    def started(self, workers: int, device: str, total: int, whole: int) -> None:
        """Workers are starting, on cpu or gpu; so many of the Cases were whole before."""

    def finished(self, record: Record) -> None:
        """A Case is whole."""

    def retried(self, case: Case, error: BaseException) -> None:
        """A Case failed and will be tried again."""

    def failed(self, failure: Failure) -> None:
        """A Case is set aside."""

    def note(self, event: str, text: str) -> None:
        """Something else happened that a person should know."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        store: what it wrote into.
        total: Cases planned.
        whole: those of them that are whole now.
        made: records of those that this run made.
        failed: Cases set aside, in this run or before.
        left: Cases neither whole nor failed: a drain, or another driver at work.
        seconds: from the start of the workers to the last result.
    """

    store: Store
    total: int
    whole: tuple[Case, ...]
    made: tuple[Record, ...]
    failed: tuple[Failure, ...]
    left: int
    seconds: float

    @property
    def steps_per_second(self) -> float:
        """6 h steps that this run made in a second, all workers together."""
        return sum(record.steps for record in self.made) / self.seconds if self.made else 0.0


@contextmanager
def connected(address: str | None, drain: Drain) -> Iterator[None]:
    """A Ray cluster: the one at an address, else one embedded on this machine for as long as the context lasts.

    Args:
        address: of the cluster.
        drain: gets the signals back that Ray takes.

    Raises:
        ClusterError: there is none at the address, or none can be started here.
    """
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        options |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    try:
        # Without the explicit "local", Ray joins or trips over whatever another run left behind.
        ray.init(address=address or "local", **options)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        where = f"a Ray cluster at {address}" if address else "Ray on this machine"
        raise ClusterError(f"{where} was to be used, but: {error}") from error
    except SystemExit as stop:  # how Ray itself answers a SIGTERM while it starts
        ray.shutdown()
        raise SystemExit(WORK_LEFT) from stop
    drain.listen()
    try:
        yield
    finally:
        ray.shutdown()


def run(run: Run, progress: Progress, drain: Drain) -> Outcome:
    """Makes all Cases that are neither whole nor set aside, on a connected cluster.

    Args:
        run: what to make.
        progress: who watches.
        drain: once asked, nothing more is handed out, and what is under way is finished.

    Returns:
        How it ended; failures of single Cases are in it, and do not raise.

    Raises:
        ClusterError: no worker can be started or kept.
        GraphcastBatchError: a part of the run does not fit another.
    """
    device = device_of(run.config.workers)
    precision = resolved_precision(run.config.model.precision, accelerated=device == "gpu")
    store = lay_out(run, precision, partial(each, drain=drain))
    store.sweep()
    states = store.ledger.states(run.plan.cases)
    todo = [case for case in run.plan.cases if states[case.key] in (State.MISSING, State.RUNNING)]
    start, made = time.perf_counter(), []
    if todo:
        crew = Crew(run, store, device, precision)
        count = min(len(todo), crew.places)
        if device == "cpu":
            check_memory(run, precision, run.config.workers.count or 1, machine_bytes())
        progress.started(count, device, len(run.plan.cases), len(run.plan.cases) - len(todo))
        made = _Shift(crew, store, todo, run.config, progress, drain).work_through()
    return _outcome(run, store, made, time.perf_counter() - start)


def each(function: Callable[..., Any], argument_lists: Sequence[tuple[Any, ...]], drain: Drain) -> Iterator[Any]:
    """Calls a function over a connected cluster, a call for each list of arguments, until it is asked to stop.

    Yields:
        Results in the order of the arguments; for a call that failed, its exception.
    """
    remote = ray.remote(num_cpus=1, max_retries=1)(function)
    left, under_way = deque(argument_lists), deque[Any]()
    most = 2 * max(1, int(resources().get("CPU", 1)))
    while left or under_way:
        while left and len(under_way) < most and not drain.asked:
            under_way.append(remote.remote(*left.popleft()))
        if not under_way:
            return
        try:
            yield ray.get(under_way.popleft())
        except RayTaskError as error:
            yield _unwrapped(error)
        except RayError as error:
            yield ClusterError(f"a call of {function.__name__} was lost: {error}")


class _Shift:
    """One pass through the Cases that are to be made."""

    def __init__(
        self, crew: Crew, store: Store, cases: Sequence[Case], config: RunConfig, progress: Progress, drain: Drain
    ) -> None:
        self._crew = crew
        self._store = store
        self._dispatch = Dispatch(cases, config.retries)
        self._limits = config.time_limits
        self._progress = progress
        self._drain = drain
        self._ready: list[Member] = []
        self._preparing: dict[Any, Member] = {}
        self._asked: dict[Any, tuple[Member, float]] = {}
        self._made: list[Record] = []
        self._stillborn = 0
        self._hire_from = self._beaten = self._counted = time.monotonic()

    def work_through(self) -> list[Record]:
        """Makes the Cases; returns the records of those that became whole here."""
        try:
            self._hire()
            while self._goes_on():
                self._wait()
                self._beat()
                self._count_heads()
                self._hand_out()
        finally:
            for member in [*self._ready, *self._preparing.values()]:
                ray.kill(member.actor)
            for member in self._ready:
                for _, claim in member.under_way.values():
                    with suppress(StoreError):  # on a disk that refuses all, it must not hide what ended the run
                        claim.release()
        return self._made

    def _goes_on(self) -> bool:
        return any(member.under_way for member in self._ready) or (self._dispatch.unfinished and not self._drain.asked)

    def _wait(self) -> None:
        """Takes in what happens within a second, or does not."""
        under_way = [reference for member in self._ready for reference in member.under_way]
        references = [*under_way, *self._preparing, *self._asked]
        if not references:
            time.sleep(_LOOK_SECONDS)
            return
        done, _ = ray.wait(references, timeout=_LOOK_SECONDS)
        for reference in done:
            if reference in self._preparing:
                self._welcome(reference, self._preparing.pop(reference))
            elif reference in self._asked:
                self._judge(reference, self._asked.pop(reference)[0])
            else:
                self._take_back(reference)

    def _hire(self) -> None:
        """Starts as many workers as there are places and work for."""
        members = [*self._ready, *self._preparing.values()]
        for _ in range(min(self._crew.places, self._dispatch.ours) - len(members)):
            member, reference = self._crew.start([*self._ready, *self._preparing.values()])
            self._preparing[reference] = member

    def _welcome(self, reference: Any, member: Member) -> None:  # noqa: ANN401 - Ray's references have no public type
        try:
            member.node = ray.get(reference)
        except RayTaskError as error:
            raise _unwrapped(error) from error
        except (RayActorError, ActorUnschedulableError) as error:
            ray.kill(member.actor)
            self._stillborn += 0 if is_gone(member.node) else 1
            if self._stillborn > _MOST_STILLBORN:
                raise ClusterError(
                    f"{self._stillborn} workers died one after another before their first Case, the last: {error}. "
                    "Look for a lack of memory: take fewer workers, or run where there is more"
                ) from error
            self._progress.note("worker lost", f"a worker died before its first Case: {_first_line(error)}")
            self._hire_from = time.monotonic() + _REST_SECONDS
            return
        self._stillborn = 0
        self._ready.append(member)
        self._dispatch.join(member.name)

    def _hand_out(self) -> None:
        members = {member.name: member for member in self._ready}
        while not self._drain.asked and (choice := self._dispatch.choose(time.monotonic())):
            member, case = members[choice[0]], choice[1]
            claim = self._store.ledger.claim(case, _LEASE_SECONDS)
            if claim is None:
                self._dispatch.leave(case)
                continue
            attempt = self._dispatch.hand(member.name, case)
            member.under_way[member.actor.run_case.remote(case, claim, attempt)] = case, claim

    def _take_back(self, reference: Any) -> None:  # noqa: ANN401 - Ray's references have no public type
        member = next((member for member in self._ready if reference in member.under_way), None)
        if member is None:
            return  # of a worker that has been buried since
        try:
            record: Record = ray.get(reference)
        except RayActorError as error:
            self._bury(member, error)
            return
        except RayTaskError as error:
            case, claim = member.under_way.pop(reference)
            try:
                self._fail(member, case, claim, _unwrapped(error))
            finally:
                claim.release()
            return
        case, claim = member.under_way.pop(reference)
        claim.release()
        self._dispatch.whole(member.name, case)
        self._made.append(record)
        self._progress.finished(record)
        self._retire_broken()  # this Case may have failed on another worker before

    def _fail(self, member: Member, case: Case, claim: Claim, error: BaseException) -> None:
        if isinstance(error, StoreUnwritableError):
            raise error
        if not claim.held():  # this driver was stopped for longer than its lease
            self._dispatch.forgo(member.name, case)
            return
        self._tell(case, error, self._dispatch.fail(member.name, case, error, time.monotonic()))
        self._retire_broken()

    def _tell(self, case: Case, error: BaseException, attempts: int) -> None:
        """A failed Case is back in line, or aside after so many attempts."""
        if not attempts:
            self._progress.retried(case, error)
            return
        failure = Failure.of(case, error, attempts)
        self._store.ledger.fail(failure)
        self._progress.failed(failure)

    def _retire_broken(self) -> None:
        while name := self._dispatch.broken():
            member = next(member for member in self._ready if member.name == name)
            self._dismiss(member)
            freed = self._dispatch.retire(name)
            self._store.ledger.free_failed(freed)
            self._progress.note("worker retired", f"{name} is retired, because different Cases failed on it alone")
            self._check_hope()

    def _bury(self, member: Member, error: RayActorError) -> None:
        """Puts a new worker in place of a dead one, and finds out whether a Case killed it."""
        self._dismiss(member)
        if member.verdict:
            key, reason = member.verdict
            charged = self._dispatch.die(member.name, time.monotonic(), key)
        elif isinstance(error, ActorUnavailableError) or is_gone(member.node):
            self._dispatch.lose(member.name)
            self._progress.note("node lost", f"{member.name} is lost with its node, and its Cases are made again")
            return
        else:
            charged = self._dispatch.die(member.name, time.monotonic())
            reason = ClusterError(f"the worker died while it made the Case: {_first_line(error)}")
        self._progress.note("worker lost", f"{member.name} died: {_first_line(error)}")
        if charged:
            self._tell(charged[0], reason, charged[1])
        self._check_hope()

    def _dismiss(self, member: Member) -> None:
        """Takes a worker off the list, and frees what it had claimed."""
        ray.kill(member.actor)
        self._ready.remove(member)
        for _, claim in member.under_way.values():
            claim.release()

    def _check_hope(self) -> None:
        reasons = self._dispatch.fruitless
        if reasons:
            raise ClusterError(
                f"{'; '.join(reasons)}, and no Case became whole between: the fault must be the machine's. Look for a "
                "lack of memory: take fewer workers or fewer steps_per_call"
            )

    def _beat(self) -> None:
        """Keeps the claims, and asks each worker whether a Case has been in one stage for too long."""
        if time.monotonic() - self._beaten < _BEAT_SECONDS:
            return
        self._beaten = time.monotonic()
        asked = {member.name: since for member, since in self._asked.values()}
        for member in self._ready:
            for _, claim in member.under_way.values():
                claim.beat()
            since = asked.get(member.name)
            if since is None and member.under_way:
                self._asked[member.actor.late.remote(self._limits)] = member, self._beaten
            elif since is not None and self._beaten - since > max(self._limits.model_dump().values()):
                # What hangs in a library may hold Python's lock, so that the worker cannot tell which Case it is.
                self._progress.note("worker lost", f"{member.name} has not answered for longer than any stage may take")
                ray.kill(member.actor)

    def _judge(self, reference: Any, member: Member) -> None:  # noqa: ANN401 - Ray's references have no public type
        try:
            late: Stage | None = ray.get(reference)
        except RayActorError:
            return  # its Cases will tell
        if late is None or member not in self._ready:
            return
        member.verdict = (
            late.key,
            StageTimeoutError(
                f"{late.key} must not be in the stage {late.name} for longer than time_limits.{late.name} without "
                f"progress, but is for {late.seconds:.0f} s; look at what it waits for, or raise the limit"
            ),
        )
        ray.kill(member.actor)

    def _count_heads(self) -> None:
        """Sees to it that there are as many workers as places, and that no Case of a dead driver is forgotten."""
        now = time.monotonic()
        if now - self._counted < _COUNT_SECONDS or self._drain.asked:
            return
        self._counted = now
        if self._dispatch.elsewhere:
            self._dispatch.look_again(self._store.ledger.states(self._dispatch.elsewhere))
        if now >= self._hire_from:
            self._hire()


def _outcome(run: Run, store: Store, made: list[Record], seconds: float) -> Outcome:
    cases = run.plan.cases
    states = store.ledger.states(cases)
    found = [store.ledger.failure(key) for key, state in states.items() if state is State.FAILED]
    failures = tuple(failure for failure in found if failure)
    whole = tuple(case for case in cases if states[case.key] is State.WHOLE)
    left = len(cases) - len(whole) - len(failures)
    return Outcome(store, len(cases), whole, tuple(made), failures, left, seconds)


def _unwrapped(error: RayTaskError) -> BaseException:
    """The error that a worker raised, as it raised it."""
    cause = error.cause
    if not isinstance(cause, BaseException):
        return ClusterError(str(error))
    cause.add_note(f"on the worker:\n{error}")
    return cause


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
