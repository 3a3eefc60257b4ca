"""The Cases of a run become work for Ray actors: each goes to whoever is free, fails alone, and is tried again.

What was found by trying, and why it is done so: an own loop over ``ray.wait`` (pools lose the item that fails); actors
that Ray never restarts by itself, so that a death is charged to the Case that was under way; small records as results.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal, Protocol

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from graphcast_batch.assembly import Run, lay_out, resolved_precision
from graphcast_batch.cluster.drain import WORK_LEFT, Drain
from graphcast_batch.cluster.worker import Worker
from graphcast_batch.config import Workers
from graphcast_batch.errors import ClusterError, InputError, TaskError
from graphcast_batch.outputs.claims import Claim
from graphcast_batch.outputs.ledger import Failure, Record, State
from graphcast_batch.outputs.store import Store
from graphcast_batch.plan import Case

_IN_FLIGHT: Final = 2
"""Cases that a worker has at once: one reads or writes while the other has the device."""
_LEASE_SECONDS: Final = 120.0
_BEAT_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 1.0
"""How long a signal may wait to be seen."""
_OBJECT_STORE_BYTES: Final = 2**29
_NEVER_RETRIED: Final = (InputError, TaskError)
"""Errors that another try, on whatever worker, would meet again."""
_MOST_DEADLY: Final = 3
"""Cases that may each kill a worker before any Case is whole; beyond that the fault is not a Case's."""


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
    device = _device(run.config.workers)
    precision = resolved_precision(run.config.model.precision, accelerated=device == "gpu")
    store = lay_out(run, precision, partial(each, drain=drain))
    store.sweep()
    states = store.ledger.states(run.plan.cases)
    todo = [case for case in run.plan.cases if states[case.key] in (State.MISSING, State.RUNNING)]
    start, made = time.perf_counter(), []
    if todo:
        crew = _Crew(run, store, device, precision)
        count = min(len(todo), _places(run.config.workers, device))
        progress.started(count, device, len(run.plan.cases), len(run.plan.cases) - len(todo))
        made = _Shift(crew, store, run.config.retries, progress, drain).work_through(todo, count)
    return _outcome(run, store, made, time.perf_counter() - start)


def each(function: Callable[..., Any], argument_lists: Sequence[tuple[Any, ...]], drain: Drain) -> Iterator[Any]:
    """Calls a function over a connected cluster, a call for each list of arguments, until it is asked to stop.

    Yields:
        Results in the order of the arguments; for a call that failed, its exception.
    """
    remote = ray.remote(num_cpus=1, max_retries=1)(function)
    left, under_way = deque(argument_lists), deque[Any]()
    most = 2 * max(1, int(_resources().get("CPU", 1)))
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


@dataclass
class _Member:
    """A worker, and what it has at hand."""

    actor: Any
    handed: set[Any] = field(default_factory=set)


class _Crew:
    """Starts workers, all alike."""

    def __init__(self, run: Run, store: Store, device: Literal["cpu", "gpu"], precision: str) -> None:
        # Sent once, not with every worker: a source may know a hundred thousand times.
        self._arguments = ray.put((run.config.model_copy(update={"store": store.path}), run.source, precision, device))
        self._options = _actor_options(run.config.workers, device)

    def start(self) -> tuple[_Member, Any]:
        """A new worker, and the reference that resolves when it is ready."""
        member = _Member(ray.remote(Worker).options(**self._options).remote())
        return member, member.actor.prepare.remote(self._arguments)


class _Shift:
    """One pass through the Cases that are to be made."""

    def __init__(self, crew: _Crew, store: Store, retries: int, progress: Progress, drain: Drain) -> None:
        self._crew = crew
        self._store = store
        self._retries = retries
        self._progress = progress
        self._drain = drain
        self._ready: list[_Member] = []
        self._preparing: dict[Any, _Member] = {}
        self._waiting: deque[Case] = deque()
        self._attempts: dict[str, int] = {}
        self._under_way: dict[Any, tuple[_Member, Case, Claim]] = {}
        self._made: list[Record] = []
        self._suspects: set[str] = set()
        self._deadly: set[str] = set()
        self._beaten = time.monotonic()

    def work_through(self, cases: Sequence[Case], workers: int) -> list[Record]:
        """Makes the Cases with so many workers; returns the records of those that became whole."""
        self._waiting.extend(cases)
        try:
            for _ in range(workers):
                self._hire()
            while self._under_way or (self._waiting and self._preparing and not self._drain.asked):
                done, _ = ray.wait([*self._under_way, *self._preparing], timeout=_LOOK_SECONDS)
                for reference in done:
                    self._take_back(reference)
                self._beat()
                self._hand_out()
        finally:
            for _, _, claim in self._under_way.values():
                claim.release()
            for member in [*self._ready, *self._preparing.values()]:
                ray.kill(member.actor)
        return self._made

    def _hire(self) -> None:
        member, reference = self._crew.start()
        self._preparing[reference] = member

    def _hand_out(self) -> None:
        while self._waiting and not self._drain.asked:
            member = self._free_member(self._waiting[0])
            if member is None:
                return
            case = self._waiting.popleft()
            claim = self._store.ledger.claim(case, _LEASE_SECONDS)
            if claim is None:
                continue  # whole by now, or another driver's
            attempt = self._attempts[case.key] = self._attempts.get(case.key, 0) + 1
            reference = member.actor.run_case.remote(case, claim, attempt)
            member.handed.add(reference)
            self._under_way[reference] = (member, case, claim)

    def _free_member(self, case: Case) -> _Member | None:
        """The least busy worker that may take a Case; one that is suspected of killing workers is worked on alone."""
        if not self._ready:
            return None
        member = min(self._ready, key=lambda member: len(member.handed))
        at_hand = {self._under_way[reference][1].key for reference in member.handed}
        alone = case.key in self._suspects or bool(at_hand & self._suspects)
        return None if len(at_hand) >= (1 if alone else _IN_FLIGHT) else member

    def _take_back(self, reference: Any) -> None:  # noqa: ANN401 - Ray's references have no public type
        if reference in self._preparing:
            self._ready.append(self._preparing.pop(reference))
            _check_prepared(reference)
            return
        if reference not in self._under_way:
            return
        member, case, claim = self._under_way.pop(reference)
        member.handed.discard(reference)
        try:
            record: Record = ray.get(reference)
        except RayActorError as error:
            self._bury(member, case, claim, error)
        except RayTaskError as error:
            self._give_up(case, claim, _unwrapped(error))
        else:
            claim.release()
            self._deadly.clear()
            self._made.append(record)
            self._progress.finished(record)

    def _bury(self, member: _Member, case: Case, claim: Claim, error: RayActorError) -> None:
        """Puts a new worker in place of a dead one, and finds out which Case killed it.

        Of several Cases it cannot be told: none is charged, and each is worked on alone from then on.
        """
        others = [self._under_way.pop(reference) for reference in member.handed]
        if others:
            for _, suspect, lost in [(member, case, claim), *others]:
                self._suspects.add(suspect.key)
                self._attempts[suspect.key] -= 1
                self._waiting.append(suspect)
                lost.release()
        else:
            self._deadly.add(case.key)
            self._give_up(case, claim, ClusterError(f"the worker died while it made {case.key}: {error}"))
        if len(self._deadly) > _MOST_DEADLY:
            raise ClusterError(
                f"workers died of {', '.join(sorted(self._deadly))} one after another, and no Case became whole: the "
                "fault must be the machine's. Look for a lack of memory: take fewer workers or fewer steps_per_call"
            )
        self._ready.remove(member)
        self._hire()

    def _give_up(self, case: Case, claim: Claim, error: BaseException) -> None:
        """Puts a failed Case back in line, or aside when its attempts are used up."""
        attempts = self._attempts[case.key]
        if attempts <= self._retries and not isinstance(error, _NEVER_RETRIED):
            self._waiting.append(case)
            self._progress.retried(case, error)
        else:
            failure = Failure.of(case, error, attempts)
            self._store.ledger.fail(failure)
            self._progress.failed(failure)
        claim.release()

    def _beat(self) -> None:
        if time.monotonic() - self._beaten < _BEAT_SECONDS:
            return
        self._beaten = time.monotonic()
        for _, _, claim in self._under_way.values():
            claim.beat()


def _outcome(run: Run, store: Store, made: list[Record], seconds: float) -> Outcome:
    cases = run.plan.cases
    states = store.ledger.states(cases)
    found = [store.ledger.failure(key) for key, state in states.items() if state is State.FAILED]
    failures = tuple(failure for failure in found if failure)
    whole = tuple(case for case in cases if states[case.key] is State.WHOLE)
    left = len(cases) - len(whole) - len(failures)
    return Outcome(store, len(cases), whole, tuple(made), failures, left, seconds)


def _device(workers: Workers) -> Literal["cpu", "gpu"]:
    gpus = int(_resources().get("GPU", 0))
    if workers.device == "gpu" and not gpus:
        raise ClusterError(
            "workers.device is gpu, but Ray sees no GPU; run where there is one, or set workers.device: cpu"
        )
    return "gpu" if gpus and workers.device != "cpu" else "cpu"


def _resources() -> dict[str, float]:
    return dict(ray.cluster_resources())  # type: ignore[no-untyped-call] # Ray leaves it without types


def _places(workers: Workers, device: str) -> int:
    """How many workers to start."""
    if device == "cpu":
        return workers.count or max(1, int(_resources().get("CPU", 1)) // workers.threads)
    gpus = int(_resources()["GPU"])
    if workers.count and workers.count > gpus:
        raise ClusterError(f"workers.count must be at most the number of GPUs, {gpus}, but is {workers.count}")
    return workers.count or gpus


def _actor_options(workers: Workers, device: str) -> dict[str, Any]:
    options: dict[str, Any] = {"max_restarts": 0, "max_task_retries": 0, "max_concurrency": _IN_FLIGHT}
    # Frames come and go by the megabyte: glibc keeps what is freed of them unless it is told a fixed threshold.
    environment = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
    if device == "gpu":
        return options | {"num_gpus": 1, "runtime_env": {"env_vars": environment}}
    threads = str(workers.threads)
    # XLA sizes its thread pool by NPROC. The count of workers is the config's own: Ray is not to hold it back.
    environment |= {"JAX_PLATFORMS": "cpu", "NPROC": threads, "OMP_NUM_THREADS": threads}
    return options | {"num_cpus": 0, "scheduling_strategy": "SPREAD", "runtime_env": {"env_vars": environment}}


def _check_prepared(reference: Any) -> None:  # noqa: ANN401 - Ray's references have no public type
    try:
        ray.get(reference)
    except RayTaskError as error:
        raise _unwrapped(error) from error
    except RayActorError as error:
        raise ClusterError(f"a worker died before its first Case: {error}") from error


def _unwrapped(error: RayTaskError) -> BaseException:
    """The error that a worker raised, as it raised it."""
    cause = error.cause
    if not isinstance(cause, BaseException):
        return ClusterError(str(error))
    cause.add_note(f"on the worker:\n{error}")
    return cause
