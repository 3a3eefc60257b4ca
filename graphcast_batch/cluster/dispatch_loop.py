"""Hand the Cases of a run to its workers, take back what became of them, and go on until all are complete or failed.

What was found by trying, and why it is done so: a loop of our own over ``ray.wait`` (Ray's pools lose the item that
fails); actors that Ray never restarts by itself, so that a death can be attributed to the Case that was in progress;
small records as results.
"""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import ray
from ray.exceptions import RayError, RayTaskError

from graphcast_batch.cluster.awaited_ensembles import AwaitedEnsembles
from graphcast_batch.cluster.dispatch_rules import Dispatch
from graphcast_batch.cluster.drain import Drain, whatever_is_begun
from graphcast_batch.cluster.finishing import finishing
from graphcast_batch.cluster.held_leases import HeldLeases
from graphcast_batch.cluster.nodes import is_gone
from graphcast_batch.cluster.outcome import CompletedCases, RunProgress
from graphcast_batch.cluster.ray_errors import LESS_MEMORY, explained, is_of_the_node, unwrapped
from graphcast_batch.cluster.ray_metrics import RunMetrics
from graphcast_batch.cluster.run_ledger import DispatchLedger
from graphcast_batch.cluster.store_refusals import RateLimitedNotes, RefusalTolerance, kind_of
from graphcast_batch.cluster.walltime import Walltime
from graphcast_batch.cluster.worker_pool import WorkerPool
from graphcast_batch.cluster.worker_start import WorkerHandle, WorkerStarter
from graphcast_batch.cluster.worker_watch import WorkerWatch
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.errors import ClusterError, StoreError, StoreUnwritableError
from graphcast_batch.pipeline.worker_context import CompletedCase
from graphcast_batch.plan import Case
from graphcast_batch.stores.base import Lease, Store
from graphcast_batch.stores.case_records import CaseFailure

_WAIT_SECONDS: Final = 1.0
"""How long the loop waits for a result before it looks at signals and clocks again."""
_REVIEW_SECONDS: Final = 2.0
"""How often places for workers are counted, and Cases of other drivers looked at."""
_REVIEW_SHARE: Final = 20.0
"""A look at the Cases of other drivers is followed by a pause of this many times its duration: in a large ledger on a
slow disk it takes a while."""
_Result = CompletedCase | RayError


class DispatchLoop:
    """One pass through the Cases of a run that are neither complete nor failed.

    Args:
        starter: starts the workers.
        store: the store to write into.
        cases: the Cases to make.
        config: configuration of the run.
        progress: shows what happens.
        drain: once asked, no further Case is handed out.
        completed: collects the Cases that were completed.
        ledger: has the states of all Cases; that of the store unless there are ensembles too.
        awaited: the ensembles that are combined once their members are complete.
    """

    def __init__(
        self,
        starter: WorkerStarter,
        store: Store,
        cases: Sequence[Case],
        config: RunConfig,
        progress: RunProgress,
        drain: Drain,
        completed: CompletedCases,
        *,
        ledger: DispatchLedger | None = None,
        awaited: AwaitedEnsembles | None = None,
    ) -> None:
        self._ledger = ledger or store.ledger
        self._dispatch = Dispatch(cases, config.retries, starter.in_flight, awaited)
        self._progress = progress
        self._metrics = RunMetrics(store.path, partial(progress.note, "metrics"))
        self._drain = drain
        self._walltime = Walltime(time.time(), drain.start, drain.end)
        self._completed = completed
        self._notes = RateLimitedNotes(progress.note)
        self._tolerance = RefusalTolerance(self._notes)
        self._leases = HeldLeases(self._ledger, self._tolerance)
        self._pool = WorkerPool(starter, progress.note)
        self._watch = WorkerWatch(self._pool, config.time_limits, progress)
        self._in_progress: dict[Any, WorkerHandle] = {}
        self._reviewed = self._look_from = time.monotonic()
        self._has_noted_stop = False

    def work_through(self) -> None:
        """Make the Cases.

        Raises:
            ClusterError: no worker can be started or kept, or the job ends before a single Case is complete.
            StoreError: the store refuses every operation for too long.
        """
        self._drain.finishing = self._finishing
        try:
            self._pool.fill(self._dispatch.ours, time.monotonic())
            while self._goes_on():
                self._wait()
                self._note_stop()
                self._leases.renew()
                self._watch.ask()
                self._review()
                self._hand_out()
                self._metrics.set_counts(self._dispatch.ours, len(self._in_progress), len(self._pool.ready))
            self._check_time()
        finally:
            self._drain.finishing = whatever_is_begun
            self._pool.end()
            self._leases.release_all()
            self._notes.close()
            self._metrics.set_counts(self._dispatch.ours, 0, 0)

    def _goes_on(self) -> bool:
        if self._in_progress and self._walltime.over(time.time()):
            self._progress.note(
                "walltime", f"the job ends; Cases in progress that are dropped: {len(self._in_progress)}"
            )
            return False
        return bool(self._in_progress) or (self._dispatch.unfinished and not self._drain.asked)

    def _note_stop(self) -> None:
        """Note once that the run was asked to stop; for a signal its acknowledgment has said the rest."""
        if self._drain.asked and not self._has_noted_stop:
            self._has_noted_stop = True
            reason = self._drain.reason
            self._progress.note("stopping", reason if self._drain.signalled else f"{reason}; {self._finishing()}")

    def _finishing(self) -> str:
        workers = [(worker.pace, tuple(worker.in_progress.values())) for worker in self._pool.ready.values()]
        now = time.time()
        return finishing(workers, now, self._walltime.left_for_cases(now))

    def _wait(self) -> None:
        """Handle all that has happened, or else what happens first within a second."""
        references = [*self._in_progress, *self._pool.starting, *self._watch.asked]
        if not references:
            time.sleep(_WAIT_SECONDS)
            return
        # Each call looks at all references: with many workers it must not be made for every single one that is done.
        done, _ = ray.wait(references, num_returns=len(references), timeout=0)
        if not done:
            done, _ = ray.wait(references, timeout=_WAIT_SECONDS)
        results = [(reference, _result(reference)) for reference in done if reference in self._in_progress]
        # Completed Cases are taken in before a death is handled, which gives back all Cases of the dead worker.
        for reference, result in sorted(results, key=lambda each: _is_lost(each[1])):
            self._take_result(reference, result)
            self._hand_out()  # at once, so that its worker need not wait until all of them are taken in
        for reference in done:
            if reference in self._pool.starting:
                worker = self._pool.finish_start(reference)
                if worker is not None:
                    self._dispatch.add_worker(worker.name)
            elif reference in self._watch.asked:
                self._watch.take_answer(reference)

    def _hand_out(self) -> None:
        """Hand out Cases as long as a worker has room for one, and neither a drain nor the store forbids it."""
        while not self._drain.asked and not self._tolerance.is_pausing(time.monotonic()):
            choice = self._dispatch.choose(time.monotonic(), expected=len(self._pool.starting))
            if not choice:
                return
            worker, case = self._pool.ready[choice[0]], choice[1]
            if not self._walltime.fits(case, time.time()):
                self._dispatch.put_back(case)
                self._stop_early(case)
                return
            lease = self._lease(case)
            if lease and self._drain.asked:  # meanwhile: it is not among those that the acknowledgment has named
                self._leases.release(case)
                self._dispatch.put_back(case)
            elif lease:
                self._walltime.begin(case, time.time())
                attempt = self._dispatch.assign(worker.name, case)
                reference = worker.actor.run_case.remote(case, lease, attempt)
                worker.in_progress[reference] = case
                worker.pace.since = worker.pace.since or time.time()
                self._in_progress[reference] = worker

    def _stop_early(self, case: Case) -> None:
        now = time.time()
        self._progress.note(
            "walltime",
            f"no further Case is handed out: a Case takes up to {self._walltime.expected(case):.0f} s, and the job "
            f"ends in {self._walltime.left(now):.0f} s",
        )
        self._drain.ask("the job ends")

    def _lease(self, case: Case) -> Lease | None:
        """Take the lease of the chosen Case; return None if the Case is not to be handed out now."""
        try:
            lease = self._leases.take(case)
        except StoreError as error:
            self._tolerance.refused(error)
            attempts = self._dispatch.refuse_lease(case, time.monotonic())
            # Of many refusals at once one is printed.
            if attempts or self._notes.is_first("lease refused", kind_of(error)):
                self._report_failure(case, error, attempts)
            return None
        if lease is None:
            self._dispatch.leave_to_others(case)
        return lease

    def _take_result(self, reference: Any, result: _Result) -> None:  # noqa: ANN401 - Ray's references have no public type
        worker = self._in_progress.get(reference)
        if worker is None:
            return  # its worker's death has been handled since
        if isinstance(result, RayError) and not isinstance(result, RayTaskError):
            self._handle_death(worker, result)
            return
        made = isinstance(result, CompletedCase) and not result.of_ensemble
        case = self._end_call(worker, reference, complete=made)
        if isinstance(result, RayError):
            try:
                self._fail(worker, case, unwrapped(result))
            finally:
                self._leases.release(case)
            return
        self._leases.release(case)
        self._dispatch.complete(worker.name, case)
        self._completed.add(case, result)
        if result.of_ensemble:
            self._progress.combined(result.record)
        else:
            self._progress.finished(result.record)
            self._metrics.complete(result)
        if result.unscored:
            what = "its members are" if result.of_ensemble else "the forecast is"
            self._progress.note("not scored", f"{result.unscored}; {what} complete: evaluate the store later")
        self._retire_broken()  # this Case may have failed on another worker before

    def _end_call(self, worker: WorkerHandle, reference: Any, *, complete: bool = False) -> Case:  # noqa: ANN401 - as above
        """Return the Case of a call to a worker, which is no longer in progress."""
        case = worker.in_progress.pop(reference)
        del self._in_progress[reference]
        self._walltime.end(case, time.time(), complete=complete)
        worker.pace.made += case.computed.steps if complete else 0
        return case

    def _fail(self, worker: WorkerHandle, case: Case, error: BaseException) -> None:
        if isinstance(error, StoreUnwritableError):
            raise error
        if not self._leases.is_held(case):  # this driver was stopped for longer than its lease
            self._dispatch.lose_lease(worker.name, case)
            return
        self._report_failure(case, error, self._dispatch.fail(worker.name, case, error, time.monotonic()))
        self._retire_broken()

    def _report_failure(self, case: Case, error: BaseException, attempts: int) -> None:
        """Report that an attempt failed: record a failure after so many attempts; with 0 the Case is tried again."""
        if not attempts:
            self._progress.retried(case, error)
            self._metrics.retried(type(error).__name__)
            return
        failure = CaseFailure.of(case, error, attempts)
        with self._tolerance.tolerating():  # without a record the next run tries the Case again
            self._ledger.fail(failure)
        self._progress.failed(failure)
        self._metrics.failed(failure.error)

    def _retire_broken(self) -> None:
        """End the workers that are broken, and try again what failed because of them."""
        while name := self._dispatch.broken():
            self._remove(self._pool.ready[name])
            freed = self._dispatch.retire(name)
            with self._tolerance.tolerating():  # failures that stay recorded do not count once their Cases are complete
                self._ledger.free_failed(freed)
            self._progress.note("worker retired", f"{name} is retired, because different Cases failed on it alone")
            self._check_losses()

    def _handle_death(self, worker: WorkerHandle, error: RayError) -> None:
        """Remove a dead worker, and attribute its death to a Case, to its node or to neither."""
        self._remove(worker)
        if worker.killed_for:
            key, reason = worker.killed_for
            cause = self._dispatch.die(worker.name, time.monotonic(), key)
        elif is_of_the_node(error) or is_gone(worker.node):
            self._dispatch.lose_node(worker.name)
            self._progress.note("node lost", f"{worker.name} is lost with its node, and its Cases are made again")
            return
        else:
            cause = self._dispatch.die(worker.name, time.monotonic())
            reason = ClusterError(f"the worker died while it made the Case: {explained(error)}")
        self._progress.note("worker lost", f"{worker.name} died: {explained(error)}")
        if cause:
            self._report_failure(cause[0], reason, cause[1])
        self._check_losses()

    def _remove(self, worker: WorkerHandle) -> None:
        """Remove a worker from the pool, and release the leases of its Cases."""
        self._pool.remove(worker)
        for reference in list(worker.in_progress):
            self._leases.release(self._end_call(worker, reference))

    def _check_losses(self) -> None:
        reasons = self._dispatch.losses
        if reasons:
            raise ClusterError(
                f"{'; '.join(reasons)}, and no Case was completed in between: the fault must be the machine's. Look "
                f"for a lack of memory: {LESS_MEMORY}"
            )

    def _check_time(self) -> None:
        if self._dispatch.ours and (reason := self._walltime.too_short(time.time())):
            raise ClusterError(reason)

    def _review(self) -> None:
        """Start workers for places that are free, and look at the Cases of drivers that may have died."""
        now = time.monotonic()
        if now - self._reviewed < _REVIEW_SECONDS or self._drain.asked:
            return
        self._reviewed = now
        self._pool.check_head()
        if self._dispatch.elsewhere and now >= self._look_from and not self._tolerance.is_pausing(now):
            with self._tolerance.tolerating():
                self._dispatch.update_elsewhere(self._ledger.states(self._dispatch.elsewhere))
            self._look_from = now + _REVIEW_SHARE * (time.monotonic() - now)
        self._pool.fill(self._dispatch.ours, now)


def _result(reference: Any) -> _Result:  # noqa: ANN401 - Ray's references have no public type
    """Return the result of a call, or the error that it ended with."""
    try:
        made: CompletedCase = ray.get(reference)
    except RayError as error:
        return error
    return made


def _is_lost(result: _Result) -> bool:
    """Return whether a call ended without its worker, for whatever reason."""
    return isinstance(result, RayError) and not isinstance(result, RayTaskError)
