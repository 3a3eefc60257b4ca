"""Define the commands ``graphcast-batch bench ...``, which run a benchmark, print a table and keep the result."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from graphcast_batch.models.accelerators import AcceleratorName

if TYPE_CHECKING:
    from graphcast_batch.bench.records import BenchmarkResult

bench = typer.Typer(help="Benchmarks; see benchmarks-results/ for what was measured.", no_args_is_help=True)

Out = Annotated[Path, typer.Option(help="Folder for the result.")]
Size = Annotated[
    Literal["tiny", "coarse", "small", "narrow", "operational", "full"], typer.Option(help="Of network and grid.")
]
Rounds = Annotated[int, typer.Option(min=1, help="How often each contestant is measured.")]
Folder = Annotated[Path, typer.Option(help="Folder on the disk to be measured; nothing is left in it.")]
_RESULTS = Path("benchmarks-results")
_REFERENCE = Path(__file__).parents[2] / "tests" / "reference"
"""There in a checkout, not where the package is installed."""


@bench.command()
def model(
    size: Size = "tiny",
    precision: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Of the network.")] = "float32",
    memory: Annotated[Literal["fast", "lean"], typer.Option(help="How it uses the memory of the device.")] = "fast",
    steps: Annotated[int, typer.Option(min=1, help="Number of model steps of each rollout.")] = 4,
    rounds: Rounds = 5,
    against: Annotated[Literal["deepmind", "none"], typer.Option(help="The other contestant.")] = "deepmind",
    python: Annotated[
        Path | None, typer.Option(help="Interpreter that has DeepMind's package; without it this one.")
    ] = None,
    out: Out = _RESULTS,
) -> None:
    """Measure the network, DeepMind's package and a matrix product on this machine."""
    from graphcast_batch.bench.step_speed import measure

    if python and against == "none":
        raise typer.BadParameter("it runs DeepMind's package; leave it or --against none out", param_hint="--python")
    _keep(measure(size, precision, steps, rounds, python, against, memory), out)


@bench.command("compile")
def compile_(
    target: Annotated[AcceleratorName, typer.Option("--for", help="Accelerator, which need not be here.")],
    size: Size = "operational",
    precision: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Of the network.")] = "bfloat16",
    memory: Annotated[
        Literal["fast", "lean"] | None,
        typer.Option(help="How the network uses the memory: by default lean, and always fast in training."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of a call, or of the rollout of an update.")] = 1,
    training: Annotated[
        bool, typer.Option("--training", help="Compile an update of the weights by one rollout.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Cases of a call, or rollouts of an update.")] = 1,
    out: Out = _RESULTS,
) -> None:
    """Compile the model step for an absent accelerator; tell its memory, its kernels and a bound on its speed."""
    from graphcast_batch.bench.compile_ahead import measure
    from graphcast_batch.bench.compile_process import Request

    if training and memory == "lean":
        raise typer.BadParameter(
            "training always uses the memory as fast does; leave --memory out", param_hint="--memory"
        )
    mode = "fast" if training else memory or "lean"
    _keep(measure(Request(target, size, precision, mode, steps, training, batch_size)), out)


@bench.command()
def gpu(
    size: Annotated[
        Literal["published", "tiny"], typer.Option(help="Of networks; tiny shows on any machine that this works.")
    ] = "published",
    minutes: Annotated[float, typer.Option(min=0.1, help="In which it ends; parts that do not fit are left out.")] = 8,
    reference: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Folder of forecasts by DeepMind's package to compare with; by default that of a checkout's tests.",
        ),
    ] = None,
    out: Out = _RESULTS,
) -> None:
    """Measure a GPU or TPU in one run: steps, memory, precision, batches, a run, first frames; keep a profile."""
    from graphcast_batch.bench.accelerator_suite import measure
    from graphcast_batch.errors import BenchError

    if reference is None and _REFERENCE.is_dir():
        reference = _REFERENCE
    for result in measure(size, minutes, reference, out):
        result.write(out)  # after each part, as a machine that is lent may be lost
        name, words = list(result.settings["parts"].items())[-1]
        typer.echo(f"{name}: {words}")
    _keep(result, out)
    if not result.figures:
        raise BenchError("no part could be measured, for the reasons above; mend what they name")


@bench.command()
def io(folder: Folder = Path(), rounds: Rounds = 5, out: Out = _RESULTS) -> None:
    """Measure how fast a forecast is written, compared with xarray and with the disk alone."""
    from graphcast_batch.bench.write_speed import measure

    _keep(measure(folder, rounds), out)


@bench.command()
def run(folder: Folder = Path(), rounds: Rounds = 5, out: Out = _RESULTS) -> None:
    """Measure runs compared with their slowest stage, and two workers compared with one."""
    from graphcast_batch.bench.stage_overlap import measure

    _keep(measure(folder, rounds=rounds), out)


@bench.command()
def chain(
    size: Size = "tiny",
    precision: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Of the network.")] = "float32",
    cases: Annotated[int, typer.Option(min=1, help="Number of forecasts.")] = 2,
    steps: Annotated[int, typer.Option(min=1, help="Number of model steps of each forecast.")] = 4,
    folder: Folder = Path(),
    out: Out = _RESULTS,
) -> None:
    """Measure time and memory of every command, from an archive to scores."""
    from graphcast_batch.bench.command_chain import measure

    _keep(measure(folder, size, precision, cases, steps), out)


@bench.command()
def driver(folder: Folder = Path(), out: Out = _RESULTS) -> None:
    """Measure how fast the driver hands out Cases, with many workers that only sleep."""
    from graphcast_batch.bench.dispatch_rate import measure

    _keep(measure(folder), out)


@bench.command()
def forcings(rounds: Rounds = 5, out: Out = _RESULTS) -> None:
    """Measure how fast the forcings of a forecast at 0.25° are computed."""
    from graphcast_batch.bench.forcing_speed import measure

    _keep(measure(rounds=rounds), out)


@bench.command()
def evaluation(folder: Folder = Path(), rounds: Rounds = 5, out: Out = _RESULTS) -> None:
    """Measure how fast forecasts are scored, compared with reading them and with a library."""
    from graphcast_batch.bench.scoring_speed import measure

    _keep(measure(folder, rounds), out)


@bench.command()
def training(rounds: Rounds = 3, out: Out = _RESULTS) -> None:
    """Measure time and memory of training updates, by the length of rollouts and by the number of workers."""
    from graphcast_batch.bench.training_speed import measure

    _keep(measure(rounds), out)


@bench.command()
def table(
    results: Annotated[Path, typer.Option(help="Folder of results.")] = _RESULTS,
    into: Annotated[Path | None, typer.Option(help="Markdown file whose table of benchmarks is made anew.")] = None,
) -> None:
    """Print all kept results as Markdown, or write those with a goal into a file between its marks."""
    from graphcast_batch.bench import records as kept

    found = [kept.read_result(path) for path in sorted(results.glob("bench-*.json"))]
    if into is None:
        typer.echo(kept.table(found))
    else:
        into.write_text(kept.replaced(into.read_text(), kept.table(found, all_figures=False)))


def _keep(result: "BenchmarkResult", out: Path) -> None:
    from graphcast_batch.bench.records import table as as_table

    typer.echo(as_table([result]))
    typer.echo(f"kept as {result.write(out)}")
