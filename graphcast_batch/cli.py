"""The command ``graphcast-batch``: parses, calls one function, prints."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import DownloadColumn, Progress, TaskID, track
from rich.text import Text

from graphcast_batch.bench.command import bench
from graphcast_batch.cluster.allocation import allocation
from graphcast_batch.cluster.drain import WORK_LEFT, Drain
from graphcast_batch.errors import (
    ConfigError,
    FigureError,
    GraphcastBatchError,
    GridError,
    InputError,
    StatisticsError,
    StoreError,
    TaskError,
)
from graphcast_batch.variables import LEVELS_13, LEVELS_37

if TYPE_CHECKING:
    from graphcast_batch.assembly import Run
    from graphcast_batch.cluster.driver import Outcome
    from graphcast_batch.cluster.worker import OpenScorer
    from graphcast_batch.config import ArchiveInputs, DatasetInputs, RunConfig, SyntheticInputs
    from graphcast_batch.evaluation.stored import Evaluation
    from graphcast_batch.plan import Case
    from graphcast_batch.training.files import Folder

app = typer.Typer(
    help="Many GraphCast forecasts from many initial times, into one zarr store.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
archive = typer.Typer(help="Archives to run from.", no_args_is_help=True)
app.add_typer(archive, name="archive")
app.add_typer(bench, name="bench")
_console = Console(width=None if sys.stdout.isatty() else 140)  # a log has room for tables
_errors = Console(stderr=True)

ConfigPath = Annotated[Path, typer.Argument(help="YAML file of the run.", metavar="CONFIG")]
StorePath = Annotated[Path, typer.Argument(help="Folder of a store.", metavar="STORE")]
Address = Annotated[
    str | None,
    typer.Option(envvar="RAY_ADDRESS", help="Ray cluster to use; without it Ray is started on this machine."),
]
Precision = Literal["auto", "float32", "bfloat16"]
Over = Literal["all", "each", "hour", "month", "season"]
MADE_BASELINES = ("persistence", "climatology")
"""Of evaluate; any other is a store."""


class Exit:
    """Exit codes."""

    COULD_NOT_RUN, USAGE, SOME_FAILED, INTERRUPTED = 1, 2, 3, 130


def main(arguments: list[str] | None = None) -> None:
    """Runs the command; errors of ours are told in a few lines, without a traceback."""
    try:
        app(arguments)
    except (ConfigError, FigureError, TaskError) as error:
        _tell(error)
        sys.exit(Exit.USAGE)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except GraphcastBatchError as error:
        _tell(error)
        sys.exit(Exit.COULD_NOT_RUN)


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
        show_set_aside(_console, plan)
        show_notices(_console, doubts(assembled))
        with driver.connected(address, drain):
            with Watcher(_console, Journal(assembled.config.store, _warn)) as watcher:
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
    show_plan(_console, assembled.plan, reading(assembled), states, mesh_size, device_needs(assembled))
    if workers.device == "cpu":
        precision = resolved_precision(model.precision, accelerated=False)
        check_memory(assembled, precision, workers.count or 1, machine_bytes())
    show_notices(_console, doubts(assembled))


@app.command()
def launch(
    command: Annotated[list[str], typer.Argument(help="What to run on the cluster.", metavar="COMMAND...")],
    folder: Annotated[Path, typer.Option(help="New folder on a shared disk, the same for all copies.")],
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for all nodes.")] = 300.0,
    without_missing: Annotated[
        bool, typer.Option("--without-missing", help="Go on without nodes that have not joined by then.")
    ] = False,
) -> None:
    """Makes one Ray cluster of the nodes of an allocation, with one copy of this on each, and runs COMMAND on it.

    Ends with the exit code of COMMAND, and 75 if a signal ended it.
    """
    from graphcast_batch.cluster.launch import launch

    here = allocation(os.environ)
    tell = partial(_console.print, highlight=False, soft_wrap=True)
    raise typer.Exit(launch(command, folder, here, tell, wait_seconds=wait, without_missing=without_missing))


@app.command()
def submit(
    config: ConfigPath,
    more: Annotated[
        list[str] | None, typer.Argument(help="Other flags of sbatch, after --.", metavar="[-- FLAGS]")
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes of the Ray cluster.")] = 1,
    gpus_per_node: Annotated[int, typer.Option(min=0, help="Workers on each node; 0 computes on CPUs.")] = 0,
    cpus_per_node: Annotated[int, typer.Option(min=1, help="Cores on each node.")] = 8,
    time: Annotated[str, typer.Option(help="Walltime; the job requeues itself while work is left.")] = "1:00:00",
    partition: Annotated[str | None, typer.Option(help="Partition.")] = None,
    account: Annotated[str | None, typer.Option(help="Account.")] = None,
    array: Annotated[
        str | None, typer.Option(help="Independent jobs of one node in place of a Ray cluster, such as 1-16%8.")
    ] = None,
    evaluate_after: Annotated[
        bool, typer.Option("--evaluate-after", help="Score the forecasts in a job that waits for this one.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the batch script, and submit nothing.")] = False,
) -> None:
    """Hands CONFIG to Slurm, as jobs that run and go on by themselves until all Cases are made.

    Their scripts and output are in STORE/slurm; graphcast-batch status STORE shows how far they are.
    """
    from graphcast_batch.assembly import assemble, kept_store
    from graphcast_batch.cluster import slurm
    from graphcast_batch.config import load_config
    from graphcast_batch.figures.stored import check_figures

    if array and nodes > 1:
        raise ConfigError(
            f"the jobs of an --array have one node each, but --nodes is {nodes}; leave one of the two out"
        )
    assembled = assemble(load_config(config))
    wanted = assembled.config.workers.device
    if wanted != "auto" and (wanted == "gpu") != bool(gpus_per_node):
        raise ConfigError(
            f"workers.device in {config} and --gpus-per-node must go together, but are {wanted} and {gpus_per_node}; "
            "set workers.device: auto, or change one of the two"
        )
    if assembled.config.figures:
        check_figures(assembled.config.figures, assembled.plan.layout)
    kept_store(assembled)
    asked = {"nodes": nodes, "gpus-per-node": gpus_per_node or None, "cpus-per-task": cpus_per_node, "time": time}
    asked |= {"partition": partition, "account": account, "array": array, "chdir": str(Path.cwd())}
    job = slurm.Job(
        "array" if array else "ray",
        config.resolve(),
        assembled.config.store.absolute() / slurm.JOBS,
        (sys.executable, "-m", "graphcast_batch"),
        tuple((name, str(value)) for name, value in asked.items() if value is not None),
        tuple(more or ()),
    )
    if dry_run:
        print(slurm.script(job), end="")
        return
    slurm.check_shared(assembled.config.store)
    name = slurm.submit(job)
    _console.print(f"job {name}: {job.folder}", highlight=False, soft_wrap=True)
    if evaluate_after:
        after = slurm.submit(job.evaluation(name))
        _console.print(f"job {after}: evaluates once {name} has ended", highlight=False, soft_wrap=True)
    _console.print(f"how far it is: graphcast-batch status {assembled.config.store}", highlight=False, soft_wrap=True)


@app.command()
def doctor(
    place: Annotated[
        Path | None, typer.Argument(help="Config of a run, or its store.", metavar="CONFIG|STORE", show_default=False)
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="Folder to look at in place of the store's.")] = None,
    address: Address = None,
) -> None:
    """Looks at what a run relies on, on every node of a Ray cluster if there is one, else on this machine.

    Exit codes: 0 all is well, 1 there is a problem.
    """
    from graphcast_batch.cluster import driver
    from graphcast_batch.cluster.crew import resources
    from graphcast_batch.cluster.doctor import diagnose
    from graphcast_batch.config import load_config
    from graphcast_batch.terminal import show_diagnosis

    config = load_config(place) if place and not place.is_dir() else None
    wanted = (folder or (config.store if config else place) or Path.cwd()).absolute()
    there = next(parent for parent in (wanted, *wanted.parents) if parent.is_dir())
    if address is None:
        findings = diagnose(there, config)
    else:
        with Drain() as drain, driver.connected(address, drain):
            findings = diagnose(there, config, resources(), driver.on_each_node)
    show_diagnosis(_console, findings)
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(Exit.COULD_NOT_RUN)


@app.command()
def status(store: StorePath) -> None:
    """Shows which Cases of STORE are whole, running, failed or missing, and what Slurm says of its jobs."""
    from graphcast_batch.cluster.slurm import JOBS, jobs
    from graphcast_batch.config import load_config
    from graphcast_batch.outputs.store import Store
    from graphcast_batch.plan import Case
    from graphcast_batch.terminal import show_jobs, show_states

    show_jobs(_console, jobs(store))
    if not Store.exists(store) and (store / JOBS).is_dir():
        _console.print("the store is not laid out yet", highlight=False)
        return
    opened = Store.open(store)
    steps = load_config(store / "run.yaml").steps
    states = opened.ledger.states(Case(time, steps) for time in opened.init_times)
    if opened.only_scores:
        _console.print("of each forecast only the scores are kept (outputs: none)", highlight=False)
    failures = [opened.ledger.failure(key) for key, state in states.items() if state == "failed"]
    show_states(_console, states, [failure for failure in failures if failure])


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
    _console.print(
        f"{len(freed)} Cases freed" + (f": {' '.join(freed)}" if freed else ""), highlight=False, soft_wrap=True
    )


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
                return _tracked(driver.each(function, cases, drain), "reading", len(cases))

        found = verifying.verify(store, deep=deep, spread=spread)
    show_verification(_console, found)
    if found.left:
        raise typer.Exit(WORK_LEFT)
    if repair and found.flaws:
        done = repairing.repair(store, found.flaws)
        show_repair(_console, done)
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


@app.command()
def evaluate(
    place: Annotated[Path, typer.Argument(help="Store of a run, or its config.", metavar="CONFIG|STORE")],
    truth: Annotated[
        str | None, typer.Option(help="Archive, or config whose inputs are the truth; without it the run's own.")
    ] = None,
    climatology: Annotated[
        Path | None, typer.Option(help="From graphcast-batch climatology, for anomaly correlations.")
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(help="persistence, climatology, or another store that was evaluated; may be repeated."),
    ] = None,
    member: Annotated[
        list[Path] | None,
        typer.Option(
            help="Store of other forecasts from the same times, for the scores of an ensemble of all; may be repeated."
        ),
    ] = None,
    region: Annotated[str, typer.Option(help="Region that is shown; all are scored.")] = "global",
    out: Annotated[
        Path | None,
        typer.Option(help="File for all scores, .csv or .parquet; with members for those of all.", metavar="FILE"),
    ] = None,
    over: Annotated[
        Over | None, typer.Option(help="Initial times that each score of --out is of; without it all.")
    ] = None,
    spectra_out: Annotated[
        Path | None, typer.Option(help="CSV file for the power of scores.spectra by wavenumber.", metavar="FILE")
    ] = None,
    address: Address = None,
) -> None:
    """Scores every whole Case that is not scored yet against what came true, and shows the scores.

    Exit codes: 0 all scored, 3 some could not be, 75 stopped with work left.
    """
    here = allocation(os.environ)
    with Drain(None, here.start, here.end) as drain:
        from graphcast_batch.cluster import driver
        from graphcast_batch.evaluation.results import check_table
        from graphcast_batch.evaluation.stored import evaluations
        from graphcast_batch.terminal import show_evaluation

        if over and not out:
            raise typer.BadParameter("--over says how the table of --out is made, so give --out too")
        if out:
            check_table(out)
        baselines = baseline or []
        others = [one for one in baselines if one not in MADE_BASELINES]
        config = _evaluated_config(place, truth, climatology, member or [])
        if spectra_out:
            _check_spectra_out(spectra_out, config)
        to_score = evaluations(config, baselines)
        for one in to_score:
            show_evaluation(_console, one)
        failed, left = 0, sum(len(one.left) for one in to_score)
        if left and not drain.asked:
            with driver.connected(address, drain):
                failed, left = _score(to_score, drain)
    names = {one.name: (one.path, one.name) for one in to_score}
    _show_scores(names | {other: (Path(other), "forecast") for other in others}, region, out, over or "all")
    if to_score[0].scoring.spectra:
        _show_spectra(to_score[0], region, spectra_out)
    if left:
        raise typer.Exit(WORK_LEFT)
    if failed or any(one.without_truth for one in to_score):
        raise typer.Exit(Exit.SOME_FAILED)


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
        _tell(error)
        raise typer.Exit(Exit.SOME_FAILED) from error
    show_notices(_console, doubts(assembled))
    plan, checkpoint = assembled.plan, assembled.checkpoint
    show_set_aside(_console, plan)
    arguments = [(assembled.source, case, checkpoint.task, checkpoint.architecture.resolution) for case in plan.cases]
    with Drain() as drain, driver.connected(address, drain):
        results = _tracked(driver.each(faults, arguments, drain), "checking", len(arguments))
        found = dict(zip(plan.cases, results, strict=False))
    show_faults(_console, found)
    if len(found) < len(plan.cases):
        raise typer.Exit(WORK_LEFT)
    if plan.set_aside or any(found.values()):
        raise typer.Exit(Exit.SOME_FAILED)


@app.command()
def stats(
    place: Annotated[str, typer.Argument(help="Archive (file, store, glob or folder), or a run's config.")],
    out: Annotated[Path, typer.Option("--to", help="Folder for the three files.")],
    first: Annotated[str | None, typer.Option(help="First time to take; without it all that there is.")] = None,
    last: Annotated[str | None, typer.Option(help="Last time to take.")] = None,
    every_hours: Annotated[int | None, typer.Option(help="Hours between the times to take.")] = None,
    address: Address = None,
) -> None:
    """Computes normalisation statistics: of all that an archive holds, or of what a run needs of its inputs."""
    from graphcast_batch.assembly import computed_statistics, statistics_of
    from graphcast_batch.cluster import driver
    from graphcast_batch.config import Times, load_config, parse_config
    from graphcast_batch.inputs.archive import Archive
    from graphcast_batch.inputs.statistics import write_statistics

    span = {"first": first, "last": last, "every_hours": every_hours}
    given = any(part is not None for part in span.values())
    times = parse_config(span, Times, origin="of --first, --last and --every-hours") if given else None
    is_config = place.endswith((".yaml", ".yml"))
    with Drain() as drain, driver.connected(address, drain):

        def spread(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> Iterable[Any]:
            return _tracked(driver.each(function, arguments, drain), "reading", len(arguments))

        if is_config:
            found = statistics_of(load_config(Path(place)), times, spread)
        else:
            found = computed_statistics(Archive(place), None, times, spread)
    write_statistics(found, out)
    _console.print(f"statistics in {out}", highlight=False)


@app.command()
def compare(
    first: StorePath,
    second: Annotated[
        str, typer.Argument(help="Another store, or a baseline scored in the first.", metavar="STORE|NAME")
    ],
    region: Annotated[str, typer.Option(help="Region.")] = "global",
) -> None:
    """Holds the scores of two stores, or of a store and a baseline, side by side, with what chance would explain."""
    from graphcast_batch.evaluation.comparison import compare
    from graphcast_batch.evaluation.ensemble import ENSEMBLE
    from graphcast_batch.terminal import show_comparison

    other = (first, second) if second in (*MADE_BASELINES, ENSEMBLE) else (Path(second), "forecast")
    changes = compare((first, "forecast"), other, region)
    show_comparison(_console, (str(first), second), changes, region)


@app.command()
def finetune(
    recipe: Annotated[Path, typer.Argument(help="YAML file of a training.", metavar="RECIPE")],
    address: Address = None,
    drain_file: Annotated[Path | None, typer.Option(help="Stops the training once this file is there.")] = None,
) -> None:
    """Trains weights, from random ones or from a checkpoint, on forecasts of an archive.

    Run it again after an interruption: it goes on from the last checkpoint. Exit codes: 0 at the end of the recipe, 1
    could not run or the loss went astray, 2 wrong usage or recipe, 75 stopped with work left.
    """
    here = allocation(os.environ)
    with Drain(drain_file, here.start, here.end) as drain:
        from graphcast_batch.cluster import driver
        from graphcast_batch.cluster.group import TrainingGroup
        from graphcast_batch.recipe import load_recipe
        from graphcast_batch.terminal import TrainingWatcher
        from graphcast_batch.training.course import course
        from graphcast_batch.training.files import Folder
        from graphcast_batch.training.loop import train

        wanted = load_recipe(recipe)
        begun, folder = course(wanted), Folder(wanted.folder)
        for line in begun.spoken:
            _console.print(line, highlight=False, soft_wrap=True)
        with driver.connected(address, drain):
            group = TrainingGroup(begun)
            try:
                with TrainingWatcher(_console, wanted.steps_after, wanted.updates, group.update) as watcher:
                    whole = train(wanted, group, watcher.tell, lambda: drain.asked)
            finally:
                group.stop()
                _draw_training(folder)
    _console.print(
        f"{group.update} of {wanted.updates} updates; {watcher.waited:.1%} of the time waited for samples\n"
        f"weights: {folder.weights}",
        highlight=False,
        soft_wrap=True,
    )
    if not whole:
        raise typer.Exit(WORK_LEFT)


@app.command()
def climatology(
    place: Annotated[str, typer.Argument(help="Archive (file, store, glob or folder), or a run's config.")],
    out: Annotated[Path, typer.Option("--to", help="Zarr store to make, such as climatology.zarr.")],
    first: Annotated[str | None, typer.Option(help="First time to take; without it all that there is.")] = None,
    last: Annotated[str | None, typer.Option(help="Last time to take.")] = None,
    every_hours: Annotated[int | None, typer.Option(help="Hours between the times to take.")] = None,
    derived: Annotated[
        list[str] | None, typer.Option(help="As in scores.derived, such as wind_speed; may be repeated.")
    ] = None,
    address: Address = None,
) -> None:
    """Computes what is usual at each hour of the day and day of the year: mean and standard deviation.

    Of precipitation also what SEEPS needs. If it was stopped, run it again to go on.
    """
    import numpy as np

    from graphcast_batch.cluster import driver
    from graphcast_batch.config import Times, parse_config
    from graphcast_batch.evaluation.climatology import make_climatology
    from graphcast_batch.evaluation.derived import derivable, with_derived
    from graphcast_batch.inputs.sources import open_source
    from graphcast_batch.plan import plan_times

    opened = open_source(_truth_inputs(place), LEVELS_13)
    on_levels = {name: "level" in dims for name, dims in opened.dims.items()}
    made = tuple(derivable(derived or (), on_levels, opened.origin))
    source = with_derived(opened, made)
    span = {"first": first, "last": last, "every_hours": every_hours}
    given = any(part is not None for part in span.values())
    if not given and source.times is None:
        raise ConfigError(f"{source.origin} has every time; say with --first, --last and --every-hours which to take")
    # A sum over several steps is not there at the first times.
    times = source.times_of(made) if made else source.times
    if given:
        times = np.array(plan_times(parse_config(span, Times, origin="of --first, --last and --every-hours")))
    with Drain() as drain, driver.connected(address, drain):

        def spread(function: Callable[..., Any], pieces: Sequence[tuple[Any, ...]]) -> Iterable[Any]:
            return _tracked(driver.each(function, pieces, drain), "averaging", len(pieces))

        make_climatology(source, out.absolute(), np.asarray(times, "datetime64[ns]"), spread)
    _console.print(f"climatology in {out}", highlight=False, soft_wrap=True)


@archive.command("synthetic")
def archive_synthetic(
    out: Annotated[Path, typer.Option(help="Zarr store to make, such as planet.zarr.")],
    first: Annotated[str, typer.Option(help="First time, such as 2020-01-01T00.")],
    last: Annotated[str, typer.Option(help="Last time.")],
    every_hours: Annotated[int, typer.Option(min=1, help="Hours between times.")] = 6,
    res: Annotated[float, typer.Option(help="Degrees between points, a divisor of 180.")] = 1.0,
    levels: Annotated[str, typer.Option(help="13, 37, or levels in hPa such as 500,850.")] = "13",
    seed: Annotated[int, typer.Option(min=0, help="Of the weather; the climate is the same.")] = 0,
    address: Address = None,
) -> None:
    """Writes weather of the synthetic planet, all of GraphCast's variables but the forcings."""
    import numpy as np

    from graphcast_batch.assembly import synthetic_archive
    from graphcast_batch.cluster import driver
    from graphcast_batch.config import Times, parse_config
    from graphcast_batch.plan import plan_times

    span = {"first": first, "last": last, "every_hours": every_hours}
    times = np.array(plan_times(parse_config(span, Times, origin="of --first, --last and --every-hours")))
    with Drain() as drain, driver.connected(address, drain):

        def spread(function: Callable[..., Any], pieces: Sequence[tuple[Any, ...]]) -> Iterable[Any]:
            return _tracked(driver.each(function, pieces, drain), "writing", len(pieces))

        synthetic_archive(out.absolute(), res, _levels(levels), times, seed, spread)
    _console.print(f"{times.size} times in {out}", highlight=False, soft_wrap=True)


@app.command()
def fetch(
    kind: Annotated[Literal["checkpoint", "stats", "sample", "list"], typer.Argument(help="What to fetch, or list.")],
    name: Annotated[str, typer.Argument(help="Its name, or parts of it; see fetch list.")] = "all",
    folder: Annotated[Path, typer.Option("--to", help="Folder for the files.")] = Path(),
    mirror: Annotated[str | None, typer.Option(help="Folder or address that has the bucket's files.")] = None,
) -> None:
    """Fetches files that DeepMind published with GraphCast: weights, statistics, sample datasets."""
    from graphcast_batch.inputs import published

    if kind == "list":
        for file in published.listing(mirror):
            size = f"{file.size_bytes / 1e6:.1f} MB" if file.size_bytes else ""
            _console.print(f"{file.kind:10} {size:>10}  {file.name}", highlight=False, soft_wrap=True)
        return
    for file in published.find(kind, name, mirror):
        with Progress(*Progress.get_default_columns(), DownloadColumn(), console=_console, transient=True) as bar:
            update = partial(_show_bytes, bar, bar.add_task(file.name, total=file.size_bytes))
            fetched = published.fetch(file, folder, update, mirror)
        _console.print(
            f"{folder / file.file}\n{fetched.bytes} bytes, sha256 {fetched.sha256}", highlight=False, soft_wrap=True
        )
    _console.print(published.licence(kind), highlight=False, soft_wrap=True)


@app.command()
def infer(
    dataset: Annotated[Path, typer.Option(help="GraphCast dataset file.")],
    mode: Annotated[Literal["Random", "Checkpoint"], typer.Option(help="Where the weights come from.")],
    pretrained: Annotated[
        Path | None, typer.Option(help="Checkpoint; in mode Random a YAML file of architecture, task and seed.")
    ] = None,
    var: Annotated[str, typer.Option(help="Variable to draw.")] = "2m_temperature",
    level: Annotated[int, typer.Option(help="Level to draw it at, hPa, if it is on levels.")] = 500,
    steps: Annotated[int | None, typer.Option(min=1, help="6 h steps; without it as many as there is truth.")] = None,
    stats: Annotated[Path | None, typer.Option(help="Folder of the normalisation statistics.")] = None,
    precision: Annotated[Precision, typer.Option(help="auto: bfloat16 on an accelerator.")] = "auto",
    implementation: Annotated[
        Literal["native", "deepmind"], typer.Option(help="Of the network: ours, or DeepMind's own package.")
    ] = "native",
    save: Annotated[Path | None, typer.Option(help="netCDF file for all predictions.")] = None,
    loss: Annotated[bool, typer.Option("--loss", help="Also print the loss and its gradient's norms.")] = False,
) -> None:
    """Makes one forecast from one dataset file, draws one variable and prints the predictions."""
    from graphcast_batch import inference
    from graphcast_batch.figures.case import figure_stem
    from graphcast_batch.figures.maps import draw_strip
    from graphcast_batch.outputs.dataset_file import in_graphcast_dims, save_predictions

    result = inference.infer(
        dataset,
        mode,
        pretrained,
        steps=steps,
        statistics=stats,
        precision=precision,
        with_loss=loss,
        variable=var,
        level=level,
        save=save,
        implementation=implementation,
    )
    field, truth, shown = inference.one_field(result, var, level)
    picture = Path(f"{figure_stem(var, shown)}.png")
    if save:
        save_predictions(result.predictions, save)
    draw_strip(picture, field, truth)
    print(in_graphcast_dims(result.predictions))
    print(f"statistics: {result.statistics_from}; figure: {picture}" + (f"; predictions: {save}" if save else ""))
    if result.loss:
        print(json.dumps(result.loss, indent=2))


def _levels(text: str) -> tuple[int, ...]:
    known = {"13": LEVELS_13, "37": LEVELS_37}
    if text in known:
        return known[text]
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise ConfigError(f"--levels must be 13, 37, or levels in hPa such as 500,850, but is {text!r}")
    return tuple(sorted({int(part) for part in parts}))


def _show_bytes(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def _tracked(results: Iterable[Any], what: str, total: int) -> Iterator[Any]:
    """The same results, with a bar on a terminal that shows how many have come."""
    shown = track(results, what, total=total, console=_console, disable=not _console.is_terminal, transient=True)
    yield from shown


def _draw(assembled: "Run", cases: "Sequence[Case]", drain: "Drain") -> int:
    """Draws figures over the cluster; returns of how many Cases it could not, which are told, while others go on."""
    from graphcast_batch.cluster import driver
    from graphcast_batch.figures.stored import draw_stored

    if not cases or drain.asked:
        return 0
    store, wanted, source = assembled.config.store, assembled.config.figures, assembled.source
    _console.print(f"drawing the figures of {len(cases)} Cases", highlight=False)
    drawn = undrawable = 0
    results = driver.each(draw_stored, [(store, case, wanted, source) for case in cases], drain)
    for case, result in zip(cases, results, strict=False):
        if isinstance(result, BaseException):
            undrawable += 1
            _errors.print(Text(f"the figures of {case.key} were not drawn: {result}", "red"), soft_wrap=True)
        else:
            drawn += result
    _console.print(f"{drawn} figures in {store / 'figures'}", highlight=False, soft_wrap=True)
    return undrawable


def _open_scorer(config: "RunConfig") -> "OpenScorer | None":
    """What workers open to score forecasts as they are made, if that is wanted."""
    from graphcast_batch.evaluation.during import run_scorer

    return run_scorer if config.scores.during else None


def _evaluated_config(place: Path, truth: str | None, climatology: Path | None, members: Sequence[Path]) -> "RunConfig":
    """The config of a run or store, with another truth or climatology, or other members of an ensemble, if given."""
    from graphcast_batch.config import load_config

    config = load_config(place / "run.yaml" if place.is_dir() else place)
    if place.is_dir():
        config = config.model_copy(update={"store": place.resolve()})
    given: dict[str, object] = {} if climatology is None else {"climatology": climatology.absolute()}
    if truth is not None:
        given["truth"] = _truth_inputs(truth)
    if members:
        given["members"] = tuple(member.absolute() for member in members)
    return config.model_copy(update={"scores": config.scores.model_copy(update=given)})


def _check_spectra_out(path: Path, config: "RunConfig") -> None:
    """Looks whether there will be spectra and where to write them, before hours are spent on them."""
    if not config.scores.spectra:
        raise ConfigError(
            "--spectra-out needs spectra, but scores.spectra of the config names no variables; add some, or leave the "
            "option out"
        )
    if path.suffix != ".csv" or not path.absolute().parent.is_dir():
        raise ConfigError(
            f"--spectra-out must be a .csv file in a folder that is there, but is {path}; give another path"
        )


def _truth_inputs(truth: str) -> "ArchiveInputs | DatasetInputs | SyntheticInputs":
    """The inputs of a config, or an archive."""
    from graphcast_batch.config import ArchiveInputs, load_config, parse_config

    if truth.endswith((".yaml", ".yml")):
        return load_config(Path(truth)).inputs
    return parse_config({"kind": "archive", "path": truth}, ArchiveInputs, origin="of --truth")


def _score(to_score: "Sequence[Evaluation]", drain: "Drain") -> tuple[int, int]:
    """Scores Cases over the cluster; returns how many could not be, which are told, and how many are left."""
    from graphcast_batch.cluster import driver
    from graphcast_batch.evaluation.stored import score_stored

    work = [(one.path, one.name, one.scoring, case) for one in to_score for case in one.left]
    failed = done = 0
    for (_, name, _, case), result in zip(
        work, _tracked(driver.each(score_stored, work, drain), "scoring", len(work)), strict=False
    ):
        if isinstance(result, BaseException):
            failed += 1
            _errors.print(Text(f"{name} {case.key} was not scored: {result}", "red"), soft_wrap=True)
        elif result is not None:
            done += 1
    left = len(work) - failed - done
    _console.print(f"{done} scored now, {failed} failed, {left} left", highlight=False)
    return failed, left


def _show_scores(names: dict[str, tuple[Path, str]], region: str, out: Path | None, over: Over) -> None:
    """Prints the headline scores of forecasts, baselines and ensemble, and writes all of the last, or of forecasts."""
    from graphcast_batch.evaluation.results import average, read_headlines, scored, write_table
    from graphcast_batch.terminal import show_ensemble, show_scores

    there = {name: where for name, where in names.items() if scored(*where)}
    if "forecast" not in there:
        return
    results = {name: average(read_headlines(*where, region)) for name, where in there.items()}
    ensemble = results.pop("ensemble", None)
    show_scores(_console, results, region)
    if ensemble:
        show_ensemble(_console, ensemble, region)
    written = "ensemble" if "ensemble" in names else "forecast"
    if out and written in there:
        count = write_table(there[written][0], out, written, over)
        _console.print(f"{count} scores in {out}", highlight=False, soft_wrap=True)


def _show_spectra(evaluation: "Evaluation", region: str, out: Path | None) -> None:
    """Prints from where on forecasts have lost half their power, and writes their spectra as CSV."""
    from graphcast_batch.evaluation.results import scored
    from graphcast_batch.evaluation.spectra import losses, write_spectra
    from graphcast_batch.terminal import show_losses

    where = evaluation.path, evaluation.name
    if not scored(*where):
        return
    if region in evaluation.scoring.bands:
        show_losses(_console, losses(*where, region), region)
    if out:
        count = write_spectra(evaluation.path, out, evaluation.name)
        _console.print(f"{count} wavenumbers of spectra in {out}", highlight=False, soft_wrap=True)


def _summarise(outcome: "Outcome") -> None:
    from graphcast_batch.terminal import show_balance, show_failures

    show_failures(_console, outcome.failed)
    _console.print(
        f"{len(outcome.whole)} of {outcome.total} Cases whole, {len(outcome.made)} of them now, "
        f"{len(outcome.failed)} failed, {outcome.left} left; "
        f"{outcome.seconds:.0f} s, {outcome.steps_per_second:.1f} steps/s\n"
        f"store: {outcome.store.path}",
        highlight=False,
        soft_wrap=True,
    )
    if outcome.balance:
        show_balance(_console, outcome.balance)


def _draw_training(folder: "Folder") -> None:
    """Draws the curves, if they can be: the weights are whole without them."""
    from graphcast_batch.figures.training import draw_training

    lines, picture = list(folder.lines()), folder.path / "curves.png"
    if not any("loss" in line for line in lines):
        return
    try:
        draw_training(lines, picture)
    except OSError as error:
        _tell(error)
        return
    _console.print(f"curves: {picture}", highlight=False, soft_wrap=True)


def _write_trace(path: Path, outcome: "Outcome") -> None:
    """Writes it, if it can be: the forecasts are whole without it."""
    from graphcast_batch.outputs.trace import write_trace

    try:
        write_trace(path, [(made.record, made.spans) for made in outcome.trace])
    except StoreError as error:
        _tell(error)
        return
    _console.print(f"trace: {path}", highlight=False, soft_wrap=True)


def _warn(text: str) -> None:
    _errors.print(Text(text, "yellow"), soft_wrap=True)


def _tell(error: BaseException) -> None:
    _errors.print(Text(f"{type(error).__name__}: {error}", "red"), soft_wrap=True)
