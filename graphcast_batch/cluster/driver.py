"""Make the Cases of a run on a connected Ray cluster.

Each Case goes to a worker that is free, fails alone, and is tried again. `run` lays out the store, and leaves the work
to a `DispatchLoop`.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from graphcast_batch.cluster.awaited_ensembles import AwaitedEnsembles
from graphcast_batch.cluster.connection import connected
from graphcast_batch.cluster.dispatch_loop import DispatchLoop
from graphcast_batch.cluster.drain import Drain
from graphcast_batch.cluster.nodes import device_of, most_on_a_node, places
from graphcast_batch.cluster.outcome import CompletedCases, RunOutcome, RunProgress
from graphcast_batch.cluster.remote_calls import each, on_each_node
from graphcast_batch.cluster.run_ledger import RunLedger
from graphcast_batch.cluster.store_refusals import patiently
from graphcast_batch.cluster.usable_memory import usable_bytes
from graphcast_batch.cluster.worker import OpenScorer
from graphcast_batch.cluster.worker_start import RayWorkerStarter
from graphcast_batch.errors import StoreError
from graphcast_batch.plan import Case, parse_key
from graphcast_batch.setup.ensemble_store import drop_members, lay_out_ensembles, make_again
from graphcast_batch.setup.resources import check_memory, memory_uses, resolved_precision
from graphcast_batch.setup.run_setup import RunSetup
from graphcast_batch.setup.store_identity import lay_out
from graphcast_batch.stores.base import Store
from graphcast_batch.stores.case_records import CaseFailure, CaseState

__all__ = ["RunOutcome", "RunProgress", "connected", "each", "on_each_node", "run"]

_TO_MAKE: Final = (CaseState.MISSING, CaseState.RUNNING)
"""States of Cases that a run makes, or waits for while another driver makes them."""


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
    ensembles = lay_out_ensembles(store, run.ensembles, run.plan.members, run.config) if run.ensembles else None
    for opened in filter(None, (store, ensembles)):
        with suppress(StoreError):  # a later run removes what is left there now
            opened.sweep()
    if ensembles:
        patiently(partial(_settle_dropped, run, store, ensembles))
    states = patiently(lambda: store.ledger.states(run.plan.cases))
    todo = [case for case in run.plan.cases if states[case.key] in _TO_MAKE]
    awaited = _awaited(run, ensembles, states)
    ready = awaited.take_ready()
    start, completed = time.perf_counter(), CompletedCases(traced)
    if todo or ready:
        count = min(len(todo) + len(ready), places(run.config.workers, device))
        uses = memory_uses(run, accelerated=device == "gpu", workers=count)
        starter = RayWorkerStarter(run, store, device, uses, count, open_scorer)
        check_memory(run, uses, most_on_a_node(count, device), usable_bytes())
        progress.started(count, device, len(run.plan.cases), len(run.plan.cases) - len(todo))
        ledger = RunLedger(store.ledger, ensembles.ledger) if ensembles else store.ledger
        loop = DispatchLoop(
            starter, store, [*todo, *ready], run.config, progress, drain, completed, ledger=ledger, awaited=awaited
        )
        loop.work_through()
    return _outcome(run, store, ensembles, completed, time.perf_counter() - start)


def _settle_dropped(run: RunSetup, store: Store, ensembles: Store) -> None:
    """Let members whose values were dropped too early be made again, and drop those that an earlier run has left."""
    if run.ensembles is None or run.config.outputs.members == "all":
        return
    dropped = store.ledger.dropped_steps()  # before the states: a member is dropped once its ensemble is complete
    states = ensembles.ledger.states(run.ensembles.cases)
    steps_of = {case.init_time: states[case.key] for case in run.ensembles.cases}
    complete, other = (
        [case for case in run.plan.cases if (steps_of[case.init_time] is CaseState.COMPLETE) is each]
        for each in (True, False)
    )
    make_again(store, [case for case in other if case.key in dropped])
    drop_members(store, complete, run.config)


def _awaited(run: RunSetup, ensembles: Store | None, states: Mapping[str, CaseState]) -> AwaitedEnsembles:
    """Return the ensembles that are neither complete nor failed, with the members that each of them waits for."""
    if ensembles is None or run.ensembles is None:
        return AwaitedEnsembles()
    cases = run.ensembles.cases
    found = patiently(lambda: ensembles.ledger.states(cases))
    left = [case for case in cases if found[case.key] in _TO_MAKE]
    return AwaitedEnsembles(left, [case for case in run.plan.cases if states[case.key] is not CaseState.COMPLETE])


def _outcome(
    run: RunSetup, store: Store, ensembles: Store | None, completed: CompletedCases, seconds: float
) -> RunOutcome:
    """Return how a run ended, by what the ledgers of its stores record."""
    complete, failures = _ended(store, run.plan.cases)
    combined, uncombined = _ended(ensembles, run.ensembles.cases) if ensembles and run.ensembles else ((), ())
    left = len(run.plan.cases) - len(complete) - len(failures)
    broken = {parse_key(failure.key)[0] for failure in (*failures, *uncombined)}  # whose ensembles nobody can combine
    awaited = 0
    if run.ensembles:
        awaited = sum(case.init_time not in broken for case in set(run.ensembles.cases) - set(combined))
    return RunOutcome(
        store,
        len(run.plan.cases),
        complete,
        tuple(completed.cases),
        (*failures, *uncombined),
        left,
        seconds,
        completed.overlap.balance,
        tuple(completed.trace),
        len(run.ensembles.cases) if run.ensembles else 0,
        combined,
        awaited,
    )


def _ended(store: Store, cases: Sequence[Case]) -> tuple[tuple[Case, ...], tuple[CaseFailure, ...]]:
    """Return the Cases of a store that are complete, and the failures of those that failed."""
    states = patiently(lambda: store.ledger.states(cases))
    found = [
        patiently(partial(store.ledger.failure, key)) for key, state in states.items() if state is CaseState.FAILED
    ]
    complete = tuple(case for case in cases if states[case.key] is CaseState.COMPLETE)
    return complete, tuple(failure for failure in found if failure)
