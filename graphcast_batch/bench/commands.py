"""The commands ``graphcast-batch bench ...``: each measures, prints a table and keeps the result."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from graphcast_batch.bench.records import BenchmarkResult

bench = typer.Typer(help="Benchmarks; see benchmarks-results/ for what was measured.", no_args_is_help=True)

Out = Annotated[Path, typer.Option(help="Folder for the result.")]
Rounds = Annotated[int, typer.Option(min=1, help="How often each contestant is measured.")]
Folder = Annotated[Path, typer.Option(help="Folder on the disk to be measured; nothing is left in it.")]
_RESULTS = Path("benchmarks-results")


@bench.command()
def model(
    size: Annotated[Literal["tiny", "small", "operational"], typer.Option(help="Of network and grid.")] = "tiny",
    precision: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Of the network.")] = "float32",
    steps: Annotated[int, typer.Option(min=1, help="6 h steps of each rollout.")] = 4,
    rounds: Rounds = 5,
    against: Annotated[Literal["deepmind", "none"], typer.Option(help="The other contestant.")] = "deepmind",
    python: Annotated[
        Path | None, typer.Option(help="Interpreter that has DeepMind's package; without it this one.")
    ] = None,
    out: Out = _RESULTS,
) -> None:
    """Times the network beside DeepMind's package and the machine's matrix product."""
    from graphcast_batch.bench.step_speed import measure

    _keep(measure(size, precision, steps, rounds, python, against), out)


@bench.command()
def io(folder: Folder = Path(), rounds: Rounds = 5, out: Out = _RESULTS) -> None:
    """Times the storing of a forecast beside xarray and the bare disk."""
    from graphcast_batch.bench.write_speed import measure

    _keep(measure(folder, rounds), out)


@bench.command()
def run(folder: Folder = Path(), rounds: Rounds = 5, out: Out = _RESULTS) -> None:
    """Times whole runs beside their slowest stage, and two workers beside one."""
    from graphcast_batch.bench.stage_overlap import measure

    _keep(measure(folder, rounds=rounds), out)


@bench.command()
def driver(folder: Folder = Path(), out: Out = _RESULTS) -> None:
    """Times the driver alone, with many workers that only sleep."""
    from graphcast_batch.bench.dispatch_rate import measure

    _keep(measure(folder), out)


@bench.command()
def forcings(rounds: Rounds = 5, out: Out = _RESULTS) -> None:
    """Times the forcings of a forecast at 0.25°."""
    from graphcast_batch.bench.forcing_speed import measure

    _keep(measure(rounds=rounds), out)


@bench.command()
def evaluation(folder: Folder = Path(), rounds: Rounds = 5, out: Out = _RESULTS) -> None:
    """Times the scoring of forecasts beside reading them, and beside a library."""
    from graphcast_batch.bench.scoring_speed import measure

    _keep(measure(folder, rounds), out)


@bench.command()
def training(rounds: Rounds = 3, out: Out = _RESULTS) -> None:
    """Times updates of a training, and looks at their memory, by the length of rollouts and by workers."""
    from graphcast_batch.bench.training_speed import measure

    _keep(measure(rounds), out)


@bench.command()
def table(
    results: Annotated[Path, typer.Option(help="Folder of results.")] = _RESULTS,
    into: Annotated[Path | None, typer.Option(help="Markdown file whose table of benchmarks is made anew.")] = None,
) -> None:
    """Prints all kept results as Markdown, or puts those with a goal into a file between its marks."""
    from graphcast_batch.bench import records as kept

    found = [kept.read_result(path) for path in sorted(results.glob("bench-*.json"))]
    if into is None:
        typer.echo(kept.table(found))
    else:
        into.write_text(kept.replaced(into.read_text(), kept.table(found, whole=False)))


def _keep(result: "BenchmarkResult", out: Path) -> None:
    from graphcast_batch.bench.records import table as as_table

    typer.echo(as_table([result]))
    typer.echo(f"kept as {result.write(out)}")
