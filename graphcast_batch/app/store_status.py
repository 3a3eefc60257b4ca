"""Report which Cases of a store are complete, running, failed or missing, and the state of its Slurm jobs."""

from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from graphcast_batch.app.any_path import AnyPath
from graphcast_batch.app.displays import as_html, as_text
from graphcast_batch.cluster.slurm.submit import JOBS, JobState, jobs
from graphcast_batch.config.loading import load_config
from graphcast_batch.setup.ensemble_store import ensembles_of
from graphcast_batch.stores.base import Store
from graphcast_batch.stores.case_records import CaseFailure, CaseState
from graphcast_batch.stores.store_kinds import open_store, store_exists
from graphcast_batch.terminal import show_jobs, show_states


@dataclass(frozen=True, repr=False)
class StoreStatus:
    """The state of a store; `status` returns it, and a notebook shows it.

    Attributes:
        jobs: Slurm jobs that were submitted for the store.
        is_laid_out: whether the store exists; if not, its jobs have not begun to run.
        only_scores: whether only the scores of the forecasts are kept.
        states: state of each Case, by key.
        failures: of the failed Cases.
        ensembles: state of what is computed of all members of an initial time together, by its key.
    """

    jobs: tuple[JobState, ...]
    is_laid_out: bool = True
    only_scores: bool = False
    states: dict[str, CaseState] = field(default_factory=dict)
    failures: tuple[CaseFailure, ...] = ()
    ensembles: dict[str, CaseState] = field(default_factory=dict)

    def show(self, console: Console) -> None:
        """Print jobs, counts of Cases and failures."""
        show_jobs(console, self.jobs)
        if not self.is_laid_out:
            console.print("the store is not laid out yet")
            return
        if self.only_scores:
            console.print("only the scores of the forecasts are kept (outputs: none)")
        show_states(console, self.states, list(self.failures), self.ensembles)

    def __repr__(self) -> str:
        return as_text(self.show)

    def _repr_html_(self) -> str:
        return as_html(self.show)


def status(store: AnyPath) -> StoreStatus:
    """Read the state of a store; it may be called while runs write to the store.

    >>> [key for key, state in gb.status("runs/demo").states.items() if state == "failed"]

    Args:
        store: folder of the store.

    Raises:
        StoreError: there is no store, and no job was submitted for one.
    """
    path = Path(store)
    submitted = tuple(jobs(path))
    if not store_exists(path) and (path / JOBS).is_dir():
        return StoreStatus(submitted, is_laid_out=False)
    opened = open_store(path)
    steps = load_config(opened.config_path).steps
    states, failures = _states(opened, steps)
    together = ensembles_of(opened)
    of_ensembles, failed = _states(together, steps) if together else ({}, ())
    return StoreStatus(submitted, True, opened.only_scores, states, (*failures, *failed), of_ensembles)


def _states(store: Store, steps: int) -> tuple[dict[str, CaseState], tuple[CaseFailure, ...]]:
    """Return the states of all Cases of a store, and the failures among them."""
    states = store.ledger.states(store.cases(steps))
    failures = (store.ledger.failure(key) for key, state in states.items() if state == "failed")
    return states, tuple(failure for failure in failures if failure)
