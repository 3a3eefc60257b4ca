"""Check all inputs that a run would read, without a device."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rich.console import Console

from graphcast_batch.app.displays import as_html, as_text
from graphcast_batch.app.executing import executor, on_cluster
from graphcast_batch.app.planning import Config, checked, fitting
from graphcast_batch.app.progress import Progress, ProgressChoice, chosen_progress
from graphcast_batch.cluster.drain import Drain
from graphcast_batch.errors import GraphcastBatchError, GridError, InputError, StatisticsError, TaskError
from graphcast_batch.inputs.findings import Finding
from graphcast_batch.plan import Case
from graphcast_batch.setup.input_faults import input_faults
from graphcast_batch.setup.run_setup import RunSetup, assemble
from graphcast_batch.setup.run_warnings import run_warnings
from graphcast_batch.setup.store_identity import settled_statistics
from graphcast_batch.stores.layout import Plan
from graphcast_batch.terminal import show_faults, show_skipped, show_warnings
from graphcast_batch.variables import HOUR

Faults = Sequence[Finding] | BaseException


@dataclass(frozen=True, eq=False, repr=False)
class InputCheck:
    """What a check of the inputs found; `check` returns it, and a notebook shows it.

    Attributes:
        plan: the Cases of the run; None if the inputs do not fit the weights at all.
        warnings: what a user should know, although it does not stop a run.
        faults: for each Case that was checked, what keeps it from being run. In a run of ensembles a Case stands for an
            initial state that members start from, or are bred from.
        error: why no Case can be run, or why no statistics can be computed from the inputs; None if neither is so.
        stopped: whether the check was asked to stop before all was checked.
    """

    plan: Plan | None
    warnings: tuple[str, ...] = ()
    faults: dict[Case, Faults] = field(default_factory=dict)
    error: GraphcastBatchError | None = None
    stopped: bool = False

    @property
    def passed(self) -> bool:
        """Whether every Case of the config can be run."""
        return not (self.stopped or self.error or any(self.faults.values()) or (self.plan and self.plan.skipped))

    def show(self, console: Console) -> None:
        """Print warnings, skipped Cases and faults."""
        show_warnings(console, self.warnings)
        if self.plan:
            show_skipped(console, self.plan)
            show_faults(console, self.faults, of_states=bool(self.plan.members))

    def __repr__(self) -> str:
        return as_text(self._show_all)

    def _repr_html_(self) -> str:
        return as_html(self._show_all)

    def _show_all(self, console: Console) -> None:
        self.show(console)
        if self.error:
            console.print(f"{type(self.error).__name__}: {self.error}", soft_wrap=True)


def check(
    config: Config, *, address: str | None = None, progress: ProgressChoice = None, drain: Drain | None = None
) -> InputCheck:
    """Read all inputs of a run and check that every Case can be started from them.

    Where no statistics are given, it also computes those that the run would compute, and keeps nothing of them.

    >>> found = gb.check("hindcast.yaml")
    >>> found.passed or found.faults

    Args:
        config: of the run; as for `plan`.
        address: of a Ray cluster; as for `run`.
        progress: as for `run`.
        drain: as for `run`.

    Raises:
        GraphcastBatchError: the config cannot be used whatever the inputs hold.
    """
    given = checked(config, {})
    try:
        assembled = assemble(given, able=False)
    except (GridError, InputError, StatisticsError, TaskError) as error:
        return InputCheck(None, error=error)
    fitting(assembled)
    warnings, shown = tuple(run_warnings(assembled)), chosen_progress(progress)
    with on_cluster(address, drain, shown) as stopping:
        faults = _faults(assembled, stopping, shown)
        unfit = None if all(faults.values()) else _statistics_error(assembled, stopping, shown)
        stopped = len(faults) < len(_starts(assembled)) or bool(unfit and stopping.asked)
    return InputCheck(assembled.plan, warnings, faults, None if stopped else unfit, stopped)


def _starts(assembled: RunSetup) -> list[Case]:
    """Return one Case of each initial state; without its member where it starts from the inputs."""
    found: dict[tuple[Case, int | None], Case] = {}
    for case in assembled.plan.cases:
        place = _place_of(assembled, case)
        # A member of an analysis ensemble is read at the time at which its forecast starts, the inputs at all times.
        before = assembled.config.start_hours if place is None else (case.lag_steps * case.step_hours,)
        for start in (replace(case, init_time=case.init_time - hours * HOUR, lag_steps=0) for hours in before):
            of_any = replace(start, member=None)
            found.setdefault((of_any, place), of_any if place is None else start)
    return list(found.values())


def _faults(assembled: RunSetup, drain: Drain, progress: Progress) -> dict[Case, Faults]:
    """Check the Cases on the connected cluster."""
    cases, checkpoint = _starts(assembled), assembled.checkpoint
    given = checkpoint.task, checkpoint.architecture.resolution
    places = [_place_of(assembled, case) for case in cases]
    states = [assembled.members.only(place) if assembled.members and place is not None else None for place in places]
    work = [(assembled.source, case, *given, state) for case, state in zip(cases, states, strict=True)]
    return dict(zip(cases, executor(drain, progress, "checking")(input_faults, work), strict=False))


def _place_of(assembled: RunSetup, case: Case) -> int | None:
    """Return the place of the member of an analysis ensemble that a Case starts from; None if it starts from none."""
    ensemble = assembled.config.ensemble
    if assembled.members is None or ensemble is None or case.member is None:
        return None
    return ensemble.parts_of(case.member).perturbation


def _statistics_error(assembled: RunSetup, drain: Drain, progress: Progress) -> GraphcastBatchError | None:
    """Return why the statistics of the run cannot be computed; None if they can or are given."""
    try:
        settled_statistics(assembled, executor(drain, progress, "computing statistics"))
    except GraphcastBatchError as error:
        return error
    return None
