"""The Cases of a run become work for Ray actors: each goes to whoever is free, fails alone, and is tried again.

What was found by trying, and why it is done so: an own loop over ``ray.wait`` (pools lose the item that fails); actors
that Ray never restarts by itself, so that a death is charged to the Case that was under way; small records as results.
"""

import os
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, Protocol

import ray
from ray.exceptions import RayError, RayTaskError

from graphcast_batch.cluster.connection import connected
from graphcast_batch.cluster.dispatch_rules import Dispatch, in_flight
from graphcast_batch.cluster.drain import Drain
from graphcast_batch.cluster.outcome import CompletedCases, Progress, RunOutcome
from graphcast_batch.cluster.ray_errors import LESS_MEMORY, explained, is_of_the_node, unwrapped
from graphcast_batch.cluster.ray_metrics import RunMetrics
from graphcast_batch.cluster.remote_calls import each, on_each_node
from graphcast_batch.cluster.slurm.allocation import allocation
from graphcast_batch.cluster.store_refusals import (
    PATIENCE_SECONDS,
    REFUSAL_SECONDS,
    RateLimitedNotes,
    kind_of,
    patiently,
)
from graphcast_batch.cluster.walltime import Walltime
from graphcast_batch.cluster.worker import OpenScorer, WorkerState
from graphcast_batch.cluster.worker_pool import (
    WorkerHandle,
    WorkerPool,
    alive_nodes,
    device_of,
    end_all,
    is_gone,
    most_on_a_node,
)
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.errors import ClusterError, StageTimeoutError, StoreError, StoreUnwritableError
from graphcast_batch.pipeline import CaseStage, CompletedCase
from graphcast_batch.plan import Case
from graphcast_batch.setup.resources import check_memory, machine_bytes, resolved_precision
from graphcast_batch.setup.run_setup import RunSetup
from graphcast_batch.setup.store_identity import lay_out
from graphcast_batch.stores.base import Lease, Store
from graphcast_batch.stores.case_records import CaseFailure, CaseState

__all__ = [
    "CompletedCases",
    "DispatchLoop",
    "Progress",
    "RunOutcome",
    "WorkerStarter",
    "connected",
    "each",
    "on_each_node",
    "run",
]

_LEASE_SECONDS: Final = 120.0
_BEAT_SECONDS: Final = 10.0
_ASK_SECONDS: Final = 2.0
"""How often a worker is asked what it is at, which a person may be watching."""
_ASKED_A_SECOND: Final = 50
"""Workers at most: hundreds are asked less often."""
_LOOK_SECONDS: Final = 1.0
"""How long a signal may wait to be seen."""
_COUNT_SECONDS: Final = 2.0
"""How often places for workers are counted, and Cases of other drivers looked at."""
_LOOK_SHARE: Final = 20.0
"""How many times as long as such a look took nobody looks again: in a large ledger on a slow disk it takes a while."""
_REST_SECONDS: Final = 5.0
"""How long nobody is hired after a worker was stillborn: a node that has just died still gets some."""
_MOST_STILLBORN: Final = 3
_Result = CompletedCase | RayError


class WorkerStarter(Protocol):
    """Who starts workers; a `WorkerPool` in a run."""

    @property
    def places(self) -> int:
        """How many workers there is room for now."""

    def start(self, others: Sequence[WorkerHandle]) -> tuple[WorkerHandle, Any]:
        """A new worker, and the reference that resolves to Ray's id of its node when it is ready."""

    def fault(self, member: WorkerHandle) -> str:
        """Why no worker can start where one has died, and what to do; empty if that cannot be told."""


def run(
    run: RunSetup, progress: Progress, drain: Drain, *, traced: bool = False, open_scorer: OpenScorer | None = None
) -> RunOutcome:
    """Makes all Cases that are neither whole nor set aside, on a connected cluster.

    Args:
        run: what to make.
        progress: who watches.
        drain: once asked, nothing more is handed out, and what is under way is finished, if the job lasts so long.
        traced: whether the outcome tells when each Case was in which stage, which takes some kB for each.
        open_scorer: called by each worker, if the forecasts are to be scored as they are made.

    Returns:
        How it ended; failures of single Cases are in it, and do not raise.

    Raises:
        ClusterError: no worker can be started or kept, or the job ends before a single Case is whole.
        GraphcastBatchError: a part of the run does not fit another.
    """
    device = device_of(run.config.workers)
    precision = resolved_precision(run.config.model.precision, accelerated=device == "gpu")
    store = lay_out(run, precision, partial(each, drain=drain))
    with suppress(StoreError):  # what is left there now is swept up by a later run
        store.sweep()
    states = patiently(lambda: store.ledger.states(run.plan.cases))
    todo = [case for case in run.plan.cases if states[case.key] in (CaseState.MISSING, CaseState.RUNNING)]
    start, made = time.perf_counter(), CompletedCases(traced)
    if todo:
        pool = WorkerPool(run, store, device, precision, open_scorer)
        count = min(len(todo), pool.places)
        if device == "cpu":
            given = allocation(os.environ).memory_bytes or machine_bytes()
            check_memory(run, precision, most_on_a_node(run.config.workers), min(given, machine_bytes()))
        progress.started(count, device, len(run.plan.cases), len(run.plan.cases) - len(todo))
        DispatchLoop(pool, store, todo, run.config, progress, drain, made).work_through()
    return _outcome(run, store, made, time.perf_counter() - start)


class DispatchLoop:
    """One pass through the Cases that are to be made."""

    def __init__(
        self,
        pool: WorkerStarter,
        store: Store,
        cases: Sequence[Case],
        config: RunConfig,
        progress: Progress,
        drain: Drain,
        made: CompletedCases,
    ) -> None:
        self._pool = pool
        self._store = store
        self._dispatch = Dispatch(cases, config.retries, in_flight(config.model.cases_per_call))
        self._limits = config.time_limits
        self._progress = progress
        self._metrics = RunMetrics(store.path, partial(progress.note, "metrics"))
        self._drain = drain
        self._walltime = Walltime(time.time(), drain.start, drain.end)
        self._made = made
        self._ready: dict[str, WorkerHandle] = {}
        self._preparing: dict[Any, WorkerHandle] = {}
        self._under_way: dict[Any, WorkerHandle] = {}
        self._asked: dict[Any, tuple[WorkerHandle, float]] = {}
        # By the key of a Case, the one first that has been without a heartbeat for longest.
        self._leases: OrderedDict[str, tuple[float, Lease]] = OrderedDict()
        self._stillborn = 0
        self._hire_from = self._questioned = self._counted = self._look_from = self._ask_from = time.monotonic()
        self._refused_since: float | None = None
        self._seldom = RateLimitedNotes(progress.note)

    def work_through(self) -> None:
        """Makes the Cases."""
        try:
            self._hire()
            while self._goes_on():
                self._wait()
                self._renew_leases()
                self._question()
                self._count_heads()
                self._hand_out()
                self._metrics.stands(self._dispatch.ours, len(self._under_way), len(self._ready))
            self._check_time()
        finally:
            end_all([*self._ready.values(), *self._preparing.values()])
            for _, lease in self._leases.values():
                with suppress(StoreError):  # on a disk that refuses all, it must not hide what ended the run
                    lease.release()
            self._seldom.close()
            self._metrics.stands(self._dispatch.ours, 0, 0)

    def _goes_on(self) -> bool:
        if self._under_way and self._walltime.over(time.time()):
            self._progress.note("walltime", f"the job ends; Cases under way that are dropped: {len(self._under_way)}")
            return False
        return bool(self._under_way) or (self._dispatch.unfinished and not self._drain.asked)

    def _wait(self) -> None:
        """Takes in what has happened, or else what happens first within a second."""
        references = [*self._under_way, *self._preparing, *self._asked]
        if not references:
            time.sleep(_LOOK_SECONDS)
            return
        # Each call looks at all references: with many workers it must not be made for every single one that is done.
        done, _ = ray.wait(references, num_returns=len(references), timeout=0)
        if not done:
            done, _ = ray.wait(references, timeout=_LOOK_SECONDS)
        results = [(reference, _result(reference)) for reference in done if reference in self._under_way]
        # What is whole is taken in before a death is judged, which gives back all that its worker had.
        for reference, result in sorted(results, key=lambda each: _is_lost(each[1])):
            self._take_back(reference, result)
            self._hand_out()  # at once, so that its worker need not wait until all of them are taken in
        for reference in done:
            if reference in self._preparing:
                self._welcome(reference, self._preparing.pop(reference))
            elif reference in self._asked:
                self._judge(reference, self._asked.pop(reference)[0])

    def _hire(self) -> None:
        """Starts as many workers as there are places and work for."""
        members = [*self._ready.values(), *self._preparing.values()]
        for _ in range(min(self._pool.places, self._dispatch.ours) - len(members)):
            member, reference = self._pool.start(members)
            self._preparing[reference] = member
            members.append(member)

    def _welcome(self, reference: Any, member: WorkerHandle) -> None:  # noqa: ANN401 - Ray's references have no public type
        try:
            member.node = ray.get(reference)
        except RayTaskError as error:
            raise unwrapped(error) from error
        except RayError as error:
            self._mourn(member, error)
            return
        self._stillborn = 0
        self._ready[member.name] = member
        self._dispatch.join(member.name)

    def _mourn(self, member: WorkerHandle, error: RayError) -> None:
        """Another worker is started later in place of one that did not start, if that may help."""
        ray.kill(member.actor)
        if not is_gone(member.node):
            self._stillborn += 1
            # Where others are at work, the fault is that of one node.
            if self._stillborn == 1 and not self._ready and (fault := self._pool.fault(member)):
                raise ClusterError(f"a worker died before its first Case: {fault}") from error
        if self._stillborn > _MOST_STILLBORN:
            raise ClusterError(
                f"{self._stillborn} workers died one after another before their first Case, the last: "
                f"{explained(error)}. Where nothing else is named, look for a lack of memory: {LESS_MEMORY}, or run "
                "where there is more"
            ) from error
        self._progress.note("worker lost", f"a worker died before its first Case: {explained(error)}")
        self._hire_from = time.monotonic() + _REST_SECONDS

    def _hand_out(self) -> None:
        while not self._drain.asked and time.monotonic() >= self._ask_from:
            choice = self._dispatch.choose(time.monotonic(), expected=len(self._preparing))
            if not choice:
                return
            member, case = self._ready[choice[0]], choice[1]
            if not self._walltime.fits(case, time.time()):
                self._dispatch.put_back(case)
                self._stop_early(case)
                return
            lease = self._lease(case)
            if lease:
                self._leases[case.key] = time.monotonic(), lease
                self._walltime.hand(case, time.time())
                attempt = self._dispatch.hand(member.name, case)
                reference = member.actor.run_case.remote(case, lease, attempt)
                member.under_way[reference] = case, lease
                self._under_way[reference] = member

    def _stop_early(self, case: Case) -> None:
        now = time.time()
        self._progress.note(
            "walltime",
            f"nothing more is handed out: a Case takes up to {self._walltime.expected(case):.0f} s, and the job's end "
            f"is in {self._walltime.left(now):.0f} s",
        )
        self._drain.ask()

    def _lease(self, case: Case) -> Lease | None:
        """Claims the chosen Case; None if it is not to be handed out now."""
        try:
            lease = self._store.ledger.lease(case, _LEASE_SECONDS)
        except StoreError as error:
            self._bear(error)
            attempts = self._dispatch.refuse(case, time.monotonic())
            # Of many refusals at once one is printed.
            if attempts or self._seldom.is_first("claim refused", kind_of(error)):
                self._tell(case, error, attempts)
            return None
        self._refused_since = None
        if lease is None:
            self._dispatch.leave(case)
        return lease

    def _release(self, lease: Lease) -> None:
        """Gives a claim back; one that cannot be lapses, since it is no longer kept."""
        with self._bearing():
            lease.release()

    @contextmanager
    def _bearing(self) -> Iterator[None]:
        """Lets the run go on if the store refuses what is done within; see `_bear`."""
        try:
            yield
        except StoreError as error:
            self._bear(error)
        else:
            self._refused_since = None

    def _bear(self, error: StoreError) -> None:
        """Leaves the store alone for a while that has refused something; ends the run if it refuses all for long."""
        now = time.monotonic()
        self._refused_since = now if self._refused_since is None else self._refused_since
        if isinstance(error, StoreUnwritableError) or now - self._refused_since > PATIENCE_SECONDS:
            raise error
        self._ask_from = now + REFUSAL_SECONDS
        self._seldom.note("store refused", kind_of(error), str(error))

    def _take_back(self, reference: Any, result: _Result) -> None:  # noqa: ANN401 - as above
        member = self._under_way.get(reference)
        if member is None:
            return  # of a worker that has been buried since
        if isinstance(result, RayError) and not isinstance(result, RayTaskError):
            self._bury(member, result)
            return
        case, lease = self._taken_from(member, reference, complete=isinstance(result, CompletedCase))
        if isinstance(result, RayError):
            try:
                self._fail(member, case, lease, unwrapped(result))
            finally:
                self._release(lease)
            return
        self._release(lease)
        self._dispatch.complete(member.name, case)
        self._made.add(case, result)
        self._progress.finished(result.record)
        self._metrics.complete(result)
        if result.unscored:
            self._progress.note("not scored", f"{result.unscored}; the forecast is whole: evaluate the store later")
        self._retire_broken()  # this Case may have failed on another worker before

    def _taken_from(
        self,
        member: WorkerHandle,
        reference: Any,  # noqa: ANN401 - as above
        *,
        complete: bool = False,
    ) -> tuple[Case, Lease]:
        """What a worker no longer has under way."""
        case, lease = member.under_way.pop(reference)
        del self._under_way[reference], self._leases[case.key]
        self._walltime.back(case, time.time(), complete=complete)
        return case, lease

    def _fail(self, member: WorkerHandle, case: Case, lease: Lease, error: BaseException) -> None:
        if isinstance(error, StoreUnwritableError):
            raise error
        held = True
        with self._bearing():
            held = lease.held()
        if not held:  # this driver was stopped for longer than its lease
            self._dispatch.forgo(member.name, case)
            return
        self._tell(case, error, self._dispatch.fail(member.name, case, error, time.monotonic()))
        self._retire_broken()

    def _tell(self, case: Case, error: BaseException, attempts: int) -> None:
        """A failed Case is back in line, or aside after so many attempts."""
        if not attempts:
            self._progress.retried(case, error)
            self._metrics.retried(type(error).__name__)
            return
        failure = CaseFailure.of(case, error, attempts)
        with self._bearing():  # one that is not kept is tried again by the next run
            self._store.ledger.fail(failure)
        self._progress.failed(failure)
        self._metrics.failed(failure.error)

    def _retire_broken(self) -> None:
        while name := self._dispatch.broken():
            self._dismiss(self._ready[name])
            freed = self._dispatch.retire(name)
            with self._bearing():  # those that stay are as if they were not, once their Cases are whole
                self._store.ledger.free_failed(freed)
            self._progress.note("worker retired", f"{name} is retired, because different Cases failed on it alone")
            self._check_hope()

    def _bury(self, member: WorkerHandle, error: RayError) -> None:
        """Puts a new worker in place of a dead one, and finds out whether a Case killed it."""
        self._dismiss(member)
        if member.verdict:
            key, reason = member.verdict
            charged = self._dispatch.die(member.name, time.monotonic(), key)
        elif is_of_the_node(error) or is_gone(member.node):
            self._dispatch.lose(member.name)
            self._progress.note("node lost", f"{member.name} is lost with its node, and its Cases are made again")
            return
        else:
            charged = self._dispatch.die(member.name, time.monotonic())
            reason = ClusterError(f"the worker died while it made the Case: {explained(error)}")
        self._progress.note("worker lost", f"{member.name} died: {explained(error)}")
        if charged:
            self._tell(charged[0], reason, charged[1])
        self._check_hope()

    def _dismiss(self, member: WorkerHandle) -> None:
        """Takes a worker off the list, and frees what it had claimed."""
        ray.kill(member.actor)
        del self._ready[member.name]
        for reference in list(member.under_way):
            self._release(self._taken_from(member, reference)[1])

    def _check_hope(self) -> None:
        reasons = self._dispatch.fruitless
        if reasons:
            raise ClusterError(
                f"{'; '.join(reasons)}, and no Case became whole between: the fault must be the machine's. Look for a "
                f"lack of memory: {LESS_MEMORY}"
            )

    def _check_time(self) -> None:
        if self._dispatch.ours and (reason := self._walltime.in_vain(time.time())):
            raise ClusterError(reason)

    def _renew_leases(self) -> None:
        """Keeps the claims."""
        now = time.monotonic()
        while self._leases and now >= self._ask_from:
            key, (since, lease) = next(iter(self._leases.items()))
            if now - since < _BEAT_SECONDS:
                return
            self._leases[key] = now, lease
            self._leases.move_to_end(key)
            with self._bearing():
                lease.renew()

    def _question(self) -> None:
        """Asks each worker where its Cases are, and whether one has been in one stage for too long."""
        pause = min(_BEAT_SECONDS, max(_ASK_SECONDS, len(self._ready) / _ASKED_A_SECOND))
        if time.monotonic() - self._questioned < pause:
            return
        self._questioned = time.monotonic()
        asked = {member.name: since for member, since in self._asked.values()}
        for member in self._ready.values():
            since = asked.get(member.name)
            if since is None and member.under_way:
                self._asked[member.actor.report.remote(self._limits)] = member, self._questioned
            elif since is not None and self._questioned - since > max(self._limits.model_dump().values()):
                # What hangs in a library may hold Python's lock, so that the worker cannot tell which Case it is.
                self._progress.note("worker lost", f"{member.name} has not answered for longer than any stage may take")
                ray.kill(member.actor)

    def _judge(self, reference: Any, member: WorkerHandle) -> None:  # noqa: ANN401 - Ray's references have no public type
        try:
            report: WorkerState = ray.get(reference)
        except RayError:
            return  # its Cases will tell
        self._progress.under_way(report.worker, report.stages)
        late = report.late
        if late is None or member.name not in self._ready:
            return
        member.verdict = (
            late.key,
            _timed_out(late),
        )
        ray.kill(member.actor)

    def _count_heads(self) -> None:
        """Sees to it that there are as many workers as places, and that no Case of a dead driver is forgotten."""
        now = time.monotonic()
        if now - self._counted < _COUNT_SECONDS or self._drain.asked:
            return
        self._counted = now
        if self._preparing:
            alive_nodes()  # raises if Ray's head no longer answers, without which no worker comes
        if self._dispatch.elsewhere and now >= max(self._look_from, self._ask_from):
            with self._bearing():
                self._dispatch.look_again(self._store.ledger.states(self._dispatch.elsewhere))
            self._look_from = now + _LOOK_SHARE * (time.monotonic() - now)
        if now >= self._hire_from:
            self._hire()


def _outcome(run: RunSetup, store: Store, made: CompletedCases, seconds: float) -> RunOutcome:
    cases = run.plan.cases
    states = patiently(lambda: store.ledger.states(cases))
    found = [
        patiently(partial(store.ledger.failure, key)) for key, state in states.items() if state is CaseState.FAILED
    ]
    failures = tuple(failure for failure in found if failure)
    complete = tuple(case for case in cases if states[case.key] is CaseState.COMPLETE)
    left = len(cases) - len(complete) - len(failures)
    return RunOutcome(
        store, len(cases), complete, tuple(made.cases), failures, left, seconds, made.overlap.balance, tuple(made.trace)
    )


def _result(reference: Any) -> _Result:  # noqa: ANN401 - Ray's references have no public type
    """What came of a call, as a value also where it is an error."""
    try:
        made: CompletedCase = ray.get(reference)
    except RayError as error:
        return error
    return made


def _timed_out(late: CaseStage) -> StageTimeoutError:
    if late.name == "wait":
        return StageTimeoutError(
            f"{late.key} must not wait while its worker reads, computes and writes nothing, but does so for "
            f"{late.seconds:.0f} s: a thread of the worker has died or could not start; look at the limits of its "
            "memory and threads (ulimit -v and -u)"
        )
    return StageTimeoutError(
        f"{late.key} must not be in the stage {late.name} for longer than time_limits.{late.name} without progress, "
        f"but is for {late.seconds:.0f} s; look at what it waits for, or raise the limit"
    )


def _is_lost(result: _Result) -> bool:
    """Whether a call ended without its worker, for whatever reason."""
    return isinstance(result, RayError) and not isinstance(result, RayTaskError)
