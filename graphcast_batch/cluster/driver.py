"""Make the Cases of a run on a connected Ray cluster.

Each Case goes to a worker that is free, fails alone, and is tried again. `run` lays out the store, and leaves the work
to a `DispatchLoop`.
"""

import time
from contextlib import suppress
from functools import partial

from graphcast_batch.cluster.connection import connected
from graphcast_batch.cluster.dispatch_loop import DispatchLoop
from graphcast_batch.cluster.drain import Drain
from graphcast_batch.cluster.nodes import device_of, most_on_a_node, places
from graphcast_batch.cluster.outcome import CompletedCases, RunOutcome, RunProgress
from graphcast_batch.cluster.remote_calls import each, on_each_node
from graphcast_batch.cluster.store_refusals import patiently
from graphcast_batch.cluster.usable_memory import usable_bytes
from graphcast_batch.cluster.worker import OpenScorer
from graphcast_batch.cluster.worker_start import RayWorkerStarter
from graphcast_batch.errors import StoreError
from graphcast_batch.setup.resources import check_memory, memory_uses, resolved_precision
from graphcast_batch.setup.run_setup import RunSetup
from graphcast_batch.setup.store_identity import lay_out
from graphcast_batch.stores.base import Store
from graphcast_batch.stores.case_records import CaseState

__all__ = ["RunOutcome", "RunProgress", "connected", "each", "on_each_node", "run"]


def run(
    run: RunSetup, progress: RunProgress, drain: Drain, *, traced: bool = False, open_scorer: OpenScorer | None = None
) -> RunOutcome:
    """Make all Cases of a run that are neither complete nor failed, on a connected cluster.

    Args:
        run: the run.
        progress: shows what happens.
        drain: once asked, no further Case is handed out, and the Cases in progress are finished, if the job lasts long
            enough.
        traced: whether the outcome holds when each Case was in which stage, which takes some kB for each Case.
        open_scorer: called by each worker, if the forecasts are scored online.

    Returns:
        how the run ended; failures of single Cases are in it, and do not raise.

    Raises:
        ClusterError: no worker can be started or kept, or the job ends before a single Case is complete.
        GraphcastBatchError: a part of the run does not fit another.
    """
    device = device_of(run.config.workers)
    precision = resolved_precision(run.config.model.precision, accelerated=device == "gpu")
    store = lay_out(run, precision, partial(each, drain=drain))
    with suppress(StoreError):  # a later run removes what is left there now
        store.sweep()
    states = patiently(lambda: store.ledger.states(run.plan.cases))
    todo = [case for case in run.plan.cases if states[case.key] in (CaseState.MISSING, CaseState.RUNNING)]
    start, completed = time.perf_counter(), CompletedCases(traced)
    if todo:
        count = min(len(todo), places(run.config.workers, device))
        uses = memory_uses(run, accelerated=device == "gpu", workers=count)
        starter = RayWorkerStarter(run, store, device, uses, count, open_scorer)
        check_memory(run, uses, most_on_a_node(count, device), usable_bytes())
        progress.started(count, device, len(run.plan.cases), len(run.plan.cases) - len(todo))
        DispatchLoop(starter, store, todo, run.config, progress, drain, completed).work_through()
    return _outcome(run, store, completed, time.perf_counter() - start)


def _outcome(run: RunSetup, store: Store, completed: CompletedCases, seconds: float) -> RunOutcome:
    """Return how a run ended, by what the ledger of its store records."""
    cases = run.plan.cases
    states = patiently(lambda: store.ledger.states(cases))
    found = [
        patiently(partial(store.ledger.failure, key)) for key, state in states.items() if state is CaseState.FAILED
    ]
    failures = tuple(failure for failure in found if failure)
    complete = tuple(case for case in cases if states[case.key] is CaseState.COMPLETE)
    left = len(cases) - len(complete) - len(failures)
    return RunOutcome(
        store,
        len(cases),
        complete,
        tuple(completed.cases),
        failures,
        left,
        seconds,
        completed.overlap.balance,
        tuple(completed.trace),
    )
