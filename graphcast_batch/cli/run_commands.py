"""Commands about a run: what it would do, doing it, how far it is, whether it is sound."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphcast_batch.cli.application import (
    FORECASTS,
    Address,
    ConfigPath,
    Exit,
    StorePath,
    app,
    console,
    examples,
    manner,
    say,
    tell,
    tracked,
    waiting,
)
from graphcast_batch.cli.figure_commands import draw
from graphcast_batch.cluster.drain import WORK_LEFT, Drain
from graphcast_batch.cluster.slurm.allocation import allocation
from graphcast_batch.errors import GraphcastBatchError, GridError, InputError, StatisticsError, StoreError, TaskError

if TYPE_CHECKING:
    from graphcast_batch.app.planning import PlannedRun
    from graphcast_batch.cluster.driver import RunOutcome


@app.command(
    rich_help_panel=FORECASTS,
    epilog=examples(
        "graphcast-batch run hindcast.yaml",
        "graphcast-batch run hindcast.yaml --address HOST:PORT --trace trace.json",
    ),
)
def run(
    config: ConfigPath,
    address: Address = None,
    drain_file: Annotated[Path | None, typer.Option(help="Stops handing out work once this file is there.")] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Writes which Case was in which stage when, for Perfetto.", metavar="FILE")
    ] = None,
) -> None:
    """Makes the forecasts and figures of CONFIG that are not there yet.

    Run it again after an interruption: only what is missing is made. Exit codes: 0 all whole, 1 could not run,
    2 wrong usage or config, 3 some Cases failed or were set aside, 75 stopped with work left.
    """
    here = allocation(os.environ)
    with Drain(drain_file, here.start, here.end) as drain, ExitStack() as stack:
        # The rest takes a second to import, during which a signal must not be lost.
        from graphcast_batch.app.planning import PlannedRun
        from graphcast_batch.app.running import forecast
        from graphcast_batch.cluster import driver
        from graphcast_batch.figures.store_figures import undrawn
        from graphcast_batch.terminal import Watcher, show_skipped, show_warnings

        planned = PlannedRun(config)
        assembled, names = planned.assembled, planned.figures
        show_skipped(console, assembled.plan)
        show_warnings(console, planned.warnings)
        with waiting("Ray is starting"):
            stack.enter_context(driver.connected(address, drain))
        with Watcher(
            console, assembled.config.store, assembled.config.steps, assembled.plan.layout.step_hours, manner.level
        ) as watcher:
            outcome = forecast(planned, watcher, drain, traced=trace is not None)
        undrawable = draw(assembled, undrawn(outcome.store, outcome.complete, names), drain)
    _summarise(planned, outcome)
    if trace:
        _write_trace(trace, outcome)
    if outcome.left or (drain.asked and undrawn(outcome.store, outcome.complete, names)):
        raise typer.Exit(WORK_LEFT)
    if outcome.failed or planned.skipped or undrawable:
        raise typer.Exit(Exit.SOME_FAILED)


@app.command(rich_help_panel=FORECASTS, epilog=examples("graphcast-batch plan hindcast.yaml"))
def plan(config: ConfigPath) -> None:
    """Shows what a run of CONFIG would do; starts nothing."""
    from graphcast_batch.app.planning import PlannedRun
    from graphcast_batch.terminal import show_warnings

    planned = PlannedRun(config)
    planned.show(console)
    planned.check_memory()
    show_warnings(console, planned.warnings)


@app.command(rich_help_panel=FORECASTS, epilog=examples("graphcast-batch check hindcast.yaml"))
def check(config: ConfigPath, address: Address = None) -> None:
    """Checks all that a run of CONFIG would read, without a device. Exit codes: 0 all fit, 3 something does not.

    Where no statistics are given, it also computes those that the run would compute, and keeps nothing of them.
    """
    from graphcast_batch.app.planning import fitting
    from graphcast_batch.cluster import driver
    from graphcast_batch.config.loading import load_config
    from graphcast_batch.setup.input_faults import input_faults
    from graphcast_batch.setup.run_setup import assemble
    from graphcast_batch.setup.run_warnings import run_warnings
    from graphcast_batch.setup.store_identity import settled_statistics
    from graphcast_batch.terminal import show_faults, show_skipped, show_warnings

    try:
        assembled = assemble(load_config(config), able=False)
    except (GridError, InputError, StatisticsError, TaskError) as error:
        tell(error)
        raise typer.Exit(Exit.SOME_FAILED) from error
    fitting(assembled)
    show_warnings(console, run_warnings(assembled))
    plan, checkpoint = assembled.plan, assembled.checkpoint
    show_skipped(console, plan)
    arguments = [(assembled.source, case, checkpoint.task, checkpoint.architecture.resolution) for case in plan.cases]
    unfit: GraphcastBatchError | None = None
    with Drain() as drain, driver.connected(address, drain):

        def executor(function: Callable[..., Any], pieces: Sequence[tuple[Any, ...]]) -> Iterable[Any]:
            return tracked(driver.each(function, pieces, drain), "computing statistics", len(pieces))

        results = tracked(driver.each(input_faults, arguments, drain), "checking", len(arguments))
        found = dict(zip(plan.cases, results, strict=False))
        show_faults(console, found)
        if not all(found.values()):
            try:
                settled_statistics(assembled, executor)
            except GraphcastBatchError as error:
                unfit = error
    if len(found) < len(plan.cases) or (unfit and drain.asked):
        raise typer.Exit(WORK_LEFT)
    if unfit:
        tell(unfit)
    if plan.skipped or unfit or any(found.values()):
        raise typer.Exit(Exit.SOME_FAILED)


@app.command(rich_help_panel=FORECASTS, epilog=examples("graphcast-batch status runs/hindcast"))
def status(store: StorePath) -> None:
    """Shows which Cases of STORE are whole, running, failed or missing, and what Slurm says of its jobs."""
    from graphcast_batch.cluster.slurm.submit import JOBS, jobs
    from graphcast_batch.config.loading import load_config
    from graphcast_batch.plan import Case
    from graphcast_batch.stores.store_kinds import open_store, store_exists
    from graphcast_batch.terminal import show_jobs, show_states

    show_jobs(console, jobs(store))
    if not store_exists(store) and (store / JOBS).is_dir():
        say("the store is not laid out yet")
        return
    opened = open_store(store)
    steps = load_config(opened.config_path).steps
    states = opened.ledger.states(Case(time, steps, opened.step_hours) for time in opened.init_times)
    if opened.only_scores:
        say("of each forecast only the scores are kept (outputs: none)")
    failures = [opened.ledger.failure(key) for key, state in states.items() if state == "failed"]
    show_states(console, states, [failure for failure in failures if failure])


@app.command(
    "retry-failed",
    rich_help_panel=FORECASTS,
    epilog=examples(
        "graphcast-batch retry-failed runs/hindcast",
        "graphcast-batch retry-failed runs/hindcast 2020-01-01T00",
    ),
)
def retry_failed(
    store: StorePath, keys: Annotated[list[str] | None, typer.Argument(help="Cases; without any, all.")] = None
) -> None:
    """Frees failed Cases of STORE, so that the next run tries them again."""
    from graphcast_batch.stores.store_kinds import open_store

    freed = open_store(store).ledger.free_failed(keys or None)
    unknown = sorted(set(keys or ()) - set(freed))
    if unknown:
        raise StoreError(f"{store} has no failed Case {', '.join(unknown)}; see graphcast-batch status {store}")
    say(f"{len(freed)} Cases freed" + (f": {' '.join(freed)}" if freed else ""))


@app.command(
    rich_help_panel=FORECASTS,
    epilog=examples(
        "graphcast-batch verify runs/hindcast",
        "graphcast-batch verify runs/hindcast --deep --repair",
    ),
)
def verify(
    store: StorePath,
    deep: Annotated[bool, typer.Option("--deep", help="Read every file and compare its checksum.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Let the next run make damaged Cases again.")] = False,
    address: Address = None,
) -> None:
    """Compares STORE with its ledger: files that are missing, cut off, changed or foreign.

    Exit codes: 0 all as recorded or repaired, 3 damaged, 75 stopped with work left.
    """
    from itertools import starmap

    from graphcast_batch.cluster import driver
    from graphcast_batch.integrity import repair as repairing
    from graphcast_batch.integrity import verify as verifying
    from graphcast_batch.stores.base import CaseExecutor
    from graphcast_batch.terminal import show_repair, show_verification

    with ExitStack() as stack:
        executor: CaseExecutor = starmap
        if deep:
            drain = stack.enter_context(Drain())
            stack.enter_context(driver.connected(address, drain))

            def executor(function: Callable[..., Any], cases: Sequence[tuple[Any, ...]]) -> Iterable[Any]:
                return tracked(driver.each(function, cases, drain), "reading", len(cases))

        found = verifying.verify(store, deep=deep, executor=executor)
    show_verification(console, found)
    if found.left:
        raise typer.Exit(WORK_LEFT)
    if repair and found.flaws:
        done = repairing.repair(store, found.flaws)
        show_repair(console, done)
        raise typer.Exit(Exit.SOME_FAILED if done.busy else 0)
    if found.damaged:
        raise typer.Exit(Exit.SOME_FAILED)


def _summarise(planned: "PlannedRun", outcome: "RunOutcome") -> None:
    from graphcast_batch.app import running
    from graphcast_batch.terminal import show_balance

    running.RunResult.of(planned, outcome, {}).show(console)
    if outcome.balance and manner.level != "quiet":
        show_balance(console, outcome.balance)


def _write_trace(path: Path, outcome: "RunOutcome") -> None:
    """Writes it, if it can be: the forecasts are whole without it."""
    from graphcast_batch.stores.trace import write_trace

    try:
        write_trace(path, [(made.record, made.spans) for made in outcome.trace])
    except StoreError as error:
        tell(error)
        return
    say(f"trace: {path}")
