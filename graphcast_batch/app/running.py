"""A config becomes forecasts and figures in its store, and how that ended."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import xarray as xr
from rich.console import Console

from graphcast_batch.app.displays import as_html, as_text
from graphcast_batch.app.forecasts import open_forecasts
from graphcast_batch.app.planning import Config, PlannedRun
from graphcast_batch.cluster import driver
from graphcast_batch.cluster.drain import Drain
from graphcast_batch.cluster.slurm.allocation import allocation
from graphcast_batch.evaluation.online_scores import run_scorer
from graphcast_batch.figures.store_figures import draw_stored, undrawn
from graphcast_batch.plan import Case
from graphcast_batch.screen import Screen
from graphcast_batch.setup.run_setup import RunSetup
from graphcast_batch.stores.case_records import CaseFailure
from graphcast_batch.terminal import Watcher, show_balance, show_failures, show_skipped
from graphcast_batch.timing import Balance


@dataclass(frozen=True, eq=False, repr=False)
class RunResult:
    """How a run ended.

    Attributes:
        plan: what was to be made.
        store: the folder that holds it.
        complete: Cases that are whole now.
        made: those of them that this run made.
        failed: Cases that were set aside, in this run or before, with their errors.
        left: how many Cases are neither whole nor failed: it was interrupted, or another run is at work.
        undrawn: by key, why Cases have not all of their figures.
        seconds: from the start of the workers to the last forecast.
        balance: how well reading, computing and writing overlapped; None if nothing was made.
    """

    plan: PlannedRun
    store: Path
    complete: tuple[Case, ...]
    made: tuple[Case, ...]
    failed: tuple[CaseFailure, ...]
    left: int
    undrawn: dict[str, str]
    seconds: float
    balance: Balance | None

    @classmethod
    def of(cls, plan: PlannedRun, made: driver.RunOutcome, undrawn: dict[str, str]) -> Self:
        """What the driver says, and what came of the figures."""
        return cls(
            plan, made.store.path, made.complete, made.made, made.failed, made.left, undrawn, made.seconds, made.balance
        )

    @property
    def succeeded(self) -> bool:
        """Whether all that was asked for is there."""
        return not (self.failed or self.left or self.undrawn or self.plan.skipped)

    @property
    def steps_per_second(self) -> float:
        """6 h steps that this run made in a second, all workers together."""
        return sum(case.steps for case in self.made) / self.seconds if self.made else 0.0

    def forecasts(self) -> xr.Dataset:
        """The whole forecasts; see `open_forecasts`."""
        return open_forecasts(self.store)

    def show(self, console: Console) -> None:
        """Prints failures, counts and the store."""
        show_failures(console, self.failed)
        console.print(
            f"{len(self.complete)} of {len(self.plan.cases)} Cases whole, {len(self.made)} of them now, "
            f"{len(self.failed)} failed, {self.left} left; "
            f"{self.seconds:.0f} s, {self.steps_per_second:.1f} steps/s\n"
            f"store: {self.store}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    def __repr__(self) -> str:
        return as_text(self._show_all)

    def _repr_html_(self) -> str:
        return as_html(self._show_all)

    def _show_all(self, console: Console) -> None:
        show_skipped(console, self.plan.assembled.plan)
        self.show(console)
        if self.balance:
            show_balance(console, self.balance)
        for key, why in self.undrawn.items():
            console.print(f"the figures of {key} were not drawn: {why}", highlight=False, markup=False, soft_wrap=True)


def run(config: Config | PlannedRun, *, address: str | None = None) -> RunResult:
    """Makes the forecasts and figures that are not there yet, as ``graphcast-batch run`` does, and says how it goes.

    >>> outcome = run("run.yaml")
    >>> outcome.succeeded or [(failure.key, failure.message) for failure in outcome.failed]

    Interrupted once (the kernel's stop, Ctrl-C), it finishes what is under way and returns; run again, it makes only
    what is missing.

    Args:
        config: of the run, or a plan of it.
        address: of a Ray cluster; without it that of ``RAY_ADDRESS``, else the one that this process is connected to,
            else Ray is started on this machine for as long as the run lasts.

    Returns:
        How it ended; failures of single Cases are in it, and do not raise.

    Raises:
        GraphcastBatchError: something is missing, does not fit, or no worker can be started or kept.
    """
    plan = config if isinstance(config, PlannedRun) else PlannedRun(config)
    here = allocation(os.environ)
    with Drain(None, here.start, here.end) as drain, driver.connected(cluster_address(address), drain):
        with Watcher(Screen(), plan.config.store, plan.config.steps, plan.assembled.plan.layout.step_hours) as watcher:
            made = forecast(plan, watcher, drain)
        missing = undrawn(made.store, made.complete, plan.figures)
        results = list(drawn(plan.assembled, missing, drain))
    told = {case.key: str(result) for case, result in results if isinstance(result, BaseException)}
    told |= {case.key: "interrupted" for case in missing[len(results) :]}
    return RunResult.of(plan, made, told)


def cluster_address(given: str | None) -> str | None:
    """Of the cluster to use; None for none that is known."""
    return given or os.environ.get("RAY_ADDRESS")


def forecast(plan: PlannedRun, watcher: driver.Progress, drain: Drain, *, traced: bool = False) -> driver.RunOutcome:
    """Makes the forecasts of a plan, and scores them if it says so, on a connected cluster; see `driver.run`."""
    scorer = run_scorer if plan.config.scores.online else None
    return driver.run(plan.assembled, watcher, drain, traced=traced, open_scorer=scorer)


def drawn(assembled: RunSetup, cases: Sequence[Case], drain: Drain) -> Iterator[tuple[Case, int | BaseException]]:
    """Draws the figures of whole Cases over a connected cluster, until it is asked to stop.

    Yields:
        Each Case with the number of its figures, or why they were not drawn.
    """
    work = [(assembled.config.store, case, assembled.config.figures, assembled.source) for case in cases]
    yield from zip(cases, driver.each(draw_stored, work, drain), strict=False)
