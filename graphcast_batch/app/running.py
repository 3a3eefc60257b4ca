"""Run a config: make the forecasts that are missing, score them if asked, draw their figures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import xarray as xr
from rich.console import Console

from graphcast_batch.app.any_path import AnyPath
from graphcast_batch.app.displays import as_html, as_text
from graphcast_batch.app.drawing import draw_cases, whole_ensembles
from graphcast_batch.app.executing import on_cluster
from graphcast_batch.app.forecasts import open_forecasts
from graphcast_batch.app.planning import Config, PlannedRun, plan
from graphcast_batch.app.progress import JournaledRun, Progress, ProgressChoice, chosen_progress
from graphcast_batch.cluster import driver
from graphcast_batch.cluster.drain import Drain
from graphcast_batch.errors import StoreError
from graphcast_batch.evaluation.online_scores import run_scorer
from graphcast_batch.figures.store_figures import undrawn
from graphcast_batch.plan import Case
from graphcast_batch.stores.case_records import CaseFailure
from graphcast_batch.stores.trace import write_trace
from graphcast_batch.terminal import show_balance, show_failures, show_skipped
from graphcast_batch.timing import Balance


@dataclass(frozen=True, eq=False, repr=False)
class RunResult:
    """How a run ended; `run` returns it, and a notebook shows it.

    Attributes:
        plan: of the run.
        store: folder of the store.
        complete: Cases that are complete now.
        made: Cases that this run has completed.
        failed: Cases that failed, in this run or before, with their errors.
        left: number of Cases that are neither complete nor failed, because the run was stopped or another run is making
            them.
        undrawn: by key of a Case, why some of its figures are missing.
        seconds: from the start of the workers to the last forecast.
        balance: how well reading, computing and writing overlapped; None if nothing was made.
        combined: initial times, as Cases without a member, of which all that is kept of their members together is
            complete.
        uncombined: number of initial times whose members are still to be combined; not those with a failed member.
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
    combined: tuple[Case, ...] = ()
    uncombined: int = 0

    @classmethod
    def of(cls, plan: PlannedRun, made: driver.RunOutcome, undrawn: dict[str, str]) -> Self:
        """Combine what the driver returned with the figures that are missing."""
        of_ensembles = made.combined, made.awaited
        ended = made.complete, made.made, made.failed, made.left, undrawn, made.seconds, made.balance
        return cls(plan, made.store.path, *ended, *of_ensembles)

    @property
    def succeeded(self) -> bool:
        """Whether every Case of the config is complete and has its figures."""
        return not (self.failed or self.left or self.uncombined or self.undrawn or self.plan.skipped)

    @property
    def steps_per_second(self) -> float:
        """Number of model steps that all workers together made in a second."""
        return sum(case.computed.steps for case in self.made) / self.seconds if self.made else 0.0

    def forecasts(self) -> xr.Dataset:
        """Open the complete forecasts; see `open_forecasts`."""
        return open_forecasts(self.store)

    def show(self, console: Console) -> None:
        """Print failures, counts and the path of the store."""
        show_failures(console, self.failed)
        console.print(
            f"{len(self.complete)} of {len(self.plan.cases)} Cases complete, {len(self.made)} of them made now, "
            f"{len(self.failed)} failed, {self.left} left; "
            f"{self.seconds:.0f} s, {self.steps_per_second:.1f} steps/s\n{self._ensembles}"
            f"store: {self.store}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    @property
    def _ensembles(self) -> str:
        """The line on ensembles; empty where nothing is computed of all members together."""
        planned = self.plan.assembled.ensembles
        if planned is None:
            return ""
        failed = len(planned.cases) - len(self.combined) - self.uncombined
        return (
            f"{len(self.combined)} of {len(planned.cases)} ensembles complete, {failed} with a failure, "
            f"{self.uncombined} left\n"
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


def run(
    config: Config | PlannedRun,
    *,
    address: str | None = None,
    trace: AnyPath | None = None,
    progress: ProgressChoice = None,
    drain: Drain | None = None,
) -> RunResult:
    """Make the forecasts, online scores and figures of a config that do not exist yet.

    >>> result = gb.run("run.yaml", progress="notebook")
    >>> result.succeeded or [(failure.key, failure.message) for failure in result.failed]

    Interrupted once (Ctrl-C, the stop button of a notebook, SIGTERM), the run finishes the Cases in progress and
    returns. Run the same config again to make what is missing.

    Args:
        config: of the run, or the plan that `plan` returned.
        address: of a Ray cluster, such as ``10.0.0.1:6379``. Without it the environment variable ``RAY_ADDRESS``, else
            the cluster that this process is connected to, else Ray is started on this machine while the run lasts.
        trace: JSON file to write, which tells when each Case was in which stage, for https://ui.perfetto.dev.
        progress: None prints nothing, "notebook" prints lines, and an object is called as `Progress` says.
        drain: listens for what asks the run to stop; without it signals and the end of a Slurm job do.

    Returns:
        How the run ended. Failures of single Cases are in it, and raise nothing.

    Raises:
        GraphcastBatchError: something is missing or does not fit, or no worker can be started or kept.
    """
    shown = chosen_progress(progress)
    if isinstance(config, PlannedRun):
        planned = config
    else:
        planned = plan(config)
        for text in planned.warnings:
            shown.report(text, "warning")
    with on_cluster(address, drain, shown) as stopping:
        made = _forecast(planned, shown, stopping, traced=trace is not None)
        missing = _undrawn(made, planned)
        failures = draw_cases(planned.assembled, missing, stopping, shown)[1]
    if trace:
        _write_trace(Path(trace), made, shown)
    return RunResult.of(planned, made, _still_undrawn(made, planned, failures))


def _forecast(plan: PlannedRun, progress: Progress, drain: Drain, *, traced: bool) -> driver.RunOutcome:
    """Make the forecasts of a plan, and score them if the config asks for it, on the connected cluster."""
    scorer = run_scorer if plan.config.scores.online else None
    store = plan.config.store
    with progress.run(store, plan.config.steps, plan.assembled.plan.layout.step_hours) as watcher:
        return driver.run(plan.assembled, JournaledRun(store, watcher), drain, traced=traced, open_scorer=scorer)


def _still_undrawn(made: driver.RunOutcome, plan: PlannedRun, failures: dict[str, str]) -> dict[str, str]:
    """Return why figures are missing, by key of the Case."""
    missing = _undrawn(made, plan)
    return {case.key: failures.get(case.key, "the run was stopped before they were drawn") for case in missing}


def _undrawn(made: driver.RunOutcome, plan: PlannedRun) -> list[Case]:
    """Return the Cases, and initial times of ensembles, that lack a figure; not those whose values are not kept."""
    drawable = made.store.ledger.complete(made.complete)
    whole = whole_ensembles(plan.assembled, drawable) if plan.ensemble_figures else []
    return undrawn(made.store, drawable, plan.figures) + undrawn(made.store, whole, plan.ensemble_figures)


def _write_trace(path: Path, made: driver.RunOutcome, progress: Progress) -> None:
    """Write the trace; if that fails, only report it, because the forecasts are complete without it."""
    try:
        write_trace(path, [(case.record, case.spans) for case in made.trace])
    except StoreError as error:
        progress.report(f"{type(error).__name__}: {error}", "error")
        return
    progress.report(f"trace: {path}")
