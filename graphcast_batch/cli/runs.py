"""Commands about a run: what it would do, doing it, how far it is, whether it is sound."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from graphcast_batch.cli.app import Address, ConfigPath, Exit, StorePath, app, console, errors, say, tell, tracked, warn
from graphcast_batch.cluster.allocation import allocation
from graphcast_batch.cluster.drain import WORK_LEFT, Drain
from graphcast_batch.errors import FigureError, GridError, InputError, StatisticsError, StoreError, TaskError

if TYPE_CHECKING:
    from graphcast_batch.assembly import Run
    from graphcast_batch.cluster.driver import Outcome
    from graphcast_batch.cluster.worker import OpenScorer
    from graphcast_batch.config import RunConfig
    from graphcast_batch.plan import Case


@app.command()
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
    with Drain(drain_file, here.start, here.end) as drain:
        # The rest takes a second to import, during which a signal must not be lost.
        from graphcast_batch.assembly import assemble, doubts, kept_store
        from graphcast_batch.cluster import driver
        from graphcast_batch.config import load_config
        from graphcast_batch.figures.stored import check_figures, undrawn
        from graphcast_batch.outputs.journal import Journal
        from graphcast_batch.terminal import Watcher, show_notices, show_set_aside

        assembled = assemble(load_config(config))
        wanted, plan = assembled.config.figures, assembled.plan
        names = check_figures(wanted, plan.layout) if wanted else []
        kept_store(assembled)
        show_set_aside(console, plan)
        show_notices(console, doubts(assembled))
        with driver.connected(address, drain):
            with Watcher(console, Journal(assembled.config.store, warn)) as watcher:
                outcome = driver.run(
                    assembled, watcher, drain, traced=trace is not None, open_scorer=_open_scorer(assembled.config)
                )
            undrawable = _draw(assembled, undrawn(outcome.store, outcome.whole, names), drain)
    _summarise(outcome)
    if trace:
        _write_trace(trace, outcome)
    if outcome.left or (drain.asked and undrawn(outcome.store, outcome.whole, names)):
        raise typer.Exit(WORK_LEFT)
    if outcome.failed or plan.set_aside or undrawable:
        raise typer.Exit(Exit.SOME_FAILED)


@app.command()
def plan(config: ConfigPath) -> None:
    """Shows what a run of CONFIG would do; starts nothing."""
    from graphcast_batch.assembly import (
        assemble,
        check_memory,
        device_needs,
        doubts,
        kept_store,
        machine_bytes,
        reading,
        resolved_precision,
    )
    from graphcast_batch.config import load_config
    from graphcast_batch.figures.stored import check_figures
    from graphcast_batch.terminal import show_notices, show_plan

    assembled = assemble(load_config(config))
    if assembled.config.figures:
        check_figures(assembled.config.figures, assembled.plan.layout)
    store = kept_store(assembled)
    states = store.ledger.states(assembled.plan.cases) if store else {}
    model, workers = assembled.config.model, assembled.config.workers
    mesh_size = assembled.checkpoint.architecture.mesh_size
    show_plan(console, assembled.plan, reading(assembled), states, mesh_size, device_needs(assembled))
    if workers.device == "cpu":
        precision = resolved_precision(model.precision, accelerated=False)
        check_memory(assembled, precision, workers.count or 1, machine_bytes())
    show_notices(console, doubts(assembled))


@app.command()
def check(config: ConfigPath, address: Address = None) -> None:
    """Checks all that a run of CONFIG would read, without a device. Exit codes: 0 all fit, 3 something does not."""
    from graphcast_batch.assembly import assemble, doubts, faults
    from graphcast_batch.cluster import driver
    from graphcast_batch.config import load_config
    from graphcast_batch.terminal import show_faults, show_notices, show_set_aside

    try:
        assembled = assemble(load_config(config), able=False)
    except (GridError, InputError, StatisticsError, TaskError) as error:
        tell(error)
        raise typer.Exit(Exit.SOME_FAILED) from error
    show_notices(console, doubts(assembled))
    plan, checkpoint = assembled.plan, assembled.checkpoint
    show_set_aside(console, plan)
    arguments = [(assembled.source, case, checkpoint.task, checkpoint.architecture.resolution) for case in plan.cases]
    with Drain() as drain, driver.connected(address, drain):
        results = tracked(driver.each(faults, arguments, drain), "checking", len(arguments))
        found = dict(zip(plan.cases, results, strict=False))
    show_faults(console, found)
    if len(found) < len(plan.cases):
        raise typer.Exit(WORK_LEFT)
    if plan.set_aside or any(found.values()):
        raise typer.Exit(Exit.SOME_FAILED)


@app.command()
def status(store: StorePath) -> None:
    """Shows which Cases of STORE are whole, running, failed or missing, and what Slurm says of its jobs."""
    from graphcast_batch.cluster.slurm import JOBS, jobs
    from graphcast_batch.config import load_config
    from graphcast_batch.outputs.store import Store
    from graphcast_batch.plan import Case
    from graphcast_batch.terminal import show_jobs, show_states

    show_jobs(console, jobs(store))
    if not Store.exists(store) and (store / JOBS).is_dir():
        say("the store is not laid out yet")
        return
    opened = Store.open(store)
    steps = load_config(store / "run.yaml").steps
    states = opened.ledger.states(Case(time, steps) for time in opened.init_times)
    if opened.only_scores:
        say("of each forecast only the scores are kept (outputs: none)")
    failures = [opened.ledger.failure(key) for key, state in states.items() if state == "failed"]
    show_states(console, states, [failure for failure in failures if failure])


@app.command("retry-failed")
def retry_failed(
    store: StorePath, keys: Annotated[list[str] | None, typer.Argument(help="Cases; without any, all.")] = None
) -> None:
    """Frees failed Cases of STORE, so that the next run tries them again."""
    from graphcast_batch.outputs.store import Store

    freed = Store.open(store).ledger.free_failed(keys or None)
    unknown = sorted(set(keys or ()) - set(freed))
    if unknown:
        raise StoreError(f"{store} has no failed Case {', '.join(unknown)}; see graphcast-batch status {store}")
    say(f"{len(freed)} Cases freed" + (f": {' '.join(freed)}" if freed else ""))


@app.command()
def verify(
    store: StorePath,
    deep: Annotated[bool, typer.Option("--deep", help="Read every file and compare its checksum.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Let the next run make damaged Cases again.")] = False,
    address: Address = None,
) -> None:
    """Compares STORE with its ledger: files that are missing, cut off, changed or foreign.

    Exit codes: 0 all as recorded or repaired, 3 damaged, 75 stopped with work left.
    """
    from contextlib import ExitStack
    from itertools import starmap

    from graphcast_batch.cluster import driver
    from graphcast_batch.outputs import repair as repairing
    from graphcast_batch.outputs import verify as verifying
    from graphcast_batch.terminal import show_repair, show_verification

    with ExitStack() as stack:
        spread: verifying.Spread = starmap
        if deep:
            drain = stack.enter_context(Drain())
            stack.enter_context(driver.connected(address, drain))

            def spread(function: Callable[..., Any], cases: Sequence[tuple[Any, ...]]) -> Iterable[Any]:
                return tracked(driver.each(function, cases, drain), "reading", len(cases))

        found = verifying.verify(store, deep=deep, spread=spread)
    show_verification(console, found)
    if found.left:
        raise typer.Exit(WORK_LEFT)
    if repair and found.flaws:
        done = repairing.repair(store, found.flaws)
        show_repair(console, done)
        raise typer.Exit(Exit.SOME_FAILED if done.busy else 0)
    if found.damaged:
        raise typer.Exit(Exit.SOME_FAILED)


@app.command()
def figures(
    place: Annotated[Path, typer.Argument(help="Store of a run, or its config.", metavar="CONFIG|STORE")],
    address: Address = None,
) -> None:
    """Draws the figures of every whole Case anew."""
    from graphcast_batch.assembly import assemble
    from graphcast_batch.cluster import driver
    from graphcast_batch.config import load_config
    from graphcast_batch.figures.stored import check_figures
    from graphcast_batch.outputs.store import Store

    in_store = place.is_dir()
    config = load_config(place / "run.yaml" if in_store else place)
    if not config.outputs.forecasts:
        raise FigureError(f"{place} keeps only scores (outputs: none), so that there are no forecasts to draw")
    assembled = assemble(config.model_copy(update={"store": place.resolve()}) if in_store else config)
    if assembled.config.figures is None:
        raise FigureError(f"{place} says nothing of figures; add a section figures to the config")
    check_figures(assembled.config.figures, assembled.plan.layout)
    whole = Store.open(assembled.config.store).ledger.whole(assembled.plan.cases)
    with Drain() as drain, driver.connected(address, drain):
        undrawable = _draw(assembled, whole, drain)
    if drain.asked:
        raise typer.Exit(WORK_LEFT)
    if undrawable:
        raise typer.Exit(Exit.SOME_FAILED)


def _draw(assembled: "Run", cases: "Sequence[Case]", drain: "Drain") -> int:
    """Draws figures over the cluster; returns of how many Cases it could not, which are told, while others go on."""
    from graphcast_batch.cluster import driver
    from graphcast_batch.figures.stored import draw_stored

    if not cases or drain.asked:
        return 0
    store, wanted, source = assembled.config.store, assembled.config.figures, assembled.source
    say(f"drawing the figures of {len(cases)} Cases")
    drawn = undrawable = 0
    results = driver.each(draw_stored, [(store, case, wanted, source) for case in cases], drain)
    for case, result in zip(cases, results, strict=False):
        if isinstance(result, BaseException):
            undrawable += 1
            errors.print(Text(f"the figures of {case.key} were not drawn: {result}", "red"), soft_wrap=True)
        else:
            drawn += result
    say(f"{drawn} figures in {store / 'figures'}")
    return undrawable


def _open_scorer(config: "RunConfig") -> "OpenScorer | None":
    """What workers open to score forecasts as they are made, if that is wanted."""
    from graphcast_batch.evaluation.during import run_scorer

    return run_scorer if config.scores.during else None


def _summarise(outcome: "Outcome") -> None:
    from graphcast_batch.terminal import show_balance, show_failures

    show_failures(console, outcome.failed)
    say(
        f"{len(outcome.whole)} of {outcome.total} Cases whole, {len(outcome.made)} of them now, "
        f"{len(outcome.failed)} failed, {outcome.left} left; "
        f"{outcome.seconds:.0f} s, {outcome.steps_per_second:.1f} steps/s\n"
        f"store: {outcome.store.path}"
    )
    if outcome.balance:
        show_balance(console, outcome.balance)


def _write_trace(path: Path, outcome: "Outcome") -> None:
    """Writes it, if it can be: the forecasts are whole without it."""
    from graphcast_batch.outputs.trace import write_trace

    try:
        write_trace(path, [(made.record, made.spans) for made in outcome.trace])
    except StoreError as error:
        tell(error)
        return
    say(f"trace: {path}")
