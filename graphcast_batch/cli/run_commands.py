"""Define the commands about a run: plan, check and run it, and look after its store."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    print_line,
    progress,
    report_error,
    verbosity,
)
from graphcast_batch.cluster.drain import WORK_LEFT, Drain
from graphcast_batch.cluster.slurm.allocation import allocation
from graphcast_batch.models.accelerators import AcceleratorName

if TYPE_CHECKING:
    from graphcast_batch.app.planning import Config


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
    drain_file: Annotated[
        Path | None,
        typer.Option(
            help="File whose appearance stops the run after the Cases in progress. Default: only signals and the end "
            "of a Slurm job stop it."
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="JSON file to write, which tells when each Case was in which stage, for https://ui.perfetto.dev. "
            "Default: none.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Make the forecasts and figures of CONFIG that do not exist yet.

    Run the same command again after an interruption: only what is missing is made. Exit codes: 0 all Cases complete, 1
    could not run, 2 wrong usage or config, 3 some Cases failed or were skipped, 75 stopped with work left.
    """
    run_and_print(config, address, drain_file, trace)


def run_and_print(
    config: "Config", address: str | None, drain_file: Path | None = None, trace: Path | None = None
) -> None:
    """Make what is missing of a run, print its progress and result, and exit with the code of how it ended.

    Args:
        config: of the run.
        address: of the Ray cluster to use; without it Ray is started on this machine.
        drain_file: file whose appearance stops the run.
        trace: JSON file to write, which tells when each Case was in which stage.
    """
    here = allocation(os.environ)
    with Drain(drain_file, here.start, here.end) as drain:
        # The imports take a second, during which a signal must not be lost.
        from graphcast_batch.app import planning, running
        from graphcast_batch.terminal import show_balance, show_skipped, show_warnings

        planned = planning.plan(config)
        show_skipped(console, planned.assembled.plan)
        show_warnings(console, planned.warnings)
        result = running.run(planned, address=address, trace=trace, progress=progress(), drain=drain)
        stopped = drain.asked
    result.show(console)
    if result.balance and verbosity.level != "quiet":
        show_balance(console, result.balance)
    if result.left or result.uncombined or (stopped and result.undrawn):
        raise typer.Exit(WORK_LEFT)
    if not result.succeeded:
        raise typer.Exit(Exit.SOME_FAILED)


@app.command(rich_help_panel=FORECASTS, epilog=examples("graphcast-batch plan hindcast.yaml --device h100"))
def plan(
    config: ConfigPath,
    device: Annotated[
        AcceleratorName | None,
        typer.Option(help="Accelerator, which need not be here, of which to show how a worker would use its memory."),
    ] = None,
) -> None:
    """Show what a run of CONFIG would do: Cases, bytes, files and memory. Starts nothing and writes nothing."""
    from graphcast_batch.app import planning
    from graphcast_batch.terminal import show_warnings

    planned = planning.plan(config)
    planned.show(console, device)
    planned.check_memory()
    show_warnings(console, planned.warnings)


@app.command(rich_help_panel=FORECASTS, epilog=examples("graphcast-batch check hindcast.yaml"))
def check(config: ConfigPath, address: Address = None) -> None:
    """Check all inputs that a run of CONFIG would read, without a device.

    Where no statistics are given, the command also computes those that the run would compute, and keeps nothing of
    them. Exit codes: 0 all Cases can be run, 3 some cannot, 75 stopped with work left.
    """
    from graphcast_batch.app import checking

    found = checking.check(config, address=address, progress=progress())
    found.show(console)
    if found.error:
        report_error(found.error)
    if found.stopped:
        raise typer.Exit(WORK_LEFT)
    if not found.passed:
        raise typer.Exit(Exit.SOME_FAILED)


@app.command(rich_help_panel=FORECASTS, epilog=examples("graphcast-batch status runs/hindcast"))
def status(store: StorePath) -> None:
    """Show which Cases of STORE are complete, running, failed or missing, and the state of its Slurm jobs."""
    from graphcast_batch.app import store_status

    store_status.status(store).show(console)


@app.command(
    "retry-failed",
    rich_help_panel=FORECASTS,
    epilog=examples(
        "graphcast-batch retry-failed runs/hindcast",
        "graphcast-batch retry-failed runs/hindcast 2020-01-01T00",
    ),
)
def retry_failed(
    store: StorePath,
    keys: Annotated[
        list[str] | None,
        typer.Argument(help="Keys of Cases, such as 2020-01-01T00. Default: all failed Cases.", metavar="[CASE]..."),
    ] = None,
) -> None:
    """Let the next run try failed Cases of STORE again."""
    from graphcast_batch.app import retrying

    freed = retrying.retry_failed(store, keys or ())
    print_line(f"{len(freed)} Cases will be tried again by the next run" + (f": {' '.join(freed)}" if freed else ""))


@app.command(
    "copy-forecasts",
    rich_help_panel=FORECASTS,
    epilog=examples("graphcast-batch copy-forecasts longer.yaml --from runs/hindcast.zarr"),
)
def copy_forecasts(
    config: ConfigPath,
    store: Annotated[Path, typer.Option("--from", help="Store with the forecasts; it is only read.", metavar="STORE")],
    address: Address = None,
) -> None:
    """Copy the complete forecasts of another store into the store of CONFIG, so that a run makes only the others.

    A store can be extended by later initial times alone; this makes one for a period that begins earlier, or has more
    initial times in between. Exit codes: 0 all copied, 3 some are damaged and were not copied, 75 stopped with work
    left.
    """
    from graphcast_batch.app import copying

    result = copying.copy_forecasts(config, store, address=address, progress=progress())
    result.show(console)
    if result.left:
        raise typer.Exit(WORK_LEFT)
    if result.damaged:
        raise typer.Exit(Exit.SOME_FAILED)


@app.command(
    rich_help_panel=FORECASTS,
    epilog=examples(
        "graphcast-batch verify runs/hindcast",
        "graphcast-batch verify runs/hindcast --deep --repair",
    ),
)
def verify(
    store: StorePath,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Read every file and compare its checksum. Default: compare names and sizes only."),
    ] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Let the next run make damaged Cases again, and the next evaluation damaged scores, and remove "
            "unexpected files.",
        ),
    ] = False,
    address: Address = None,
) -> None:
    """Compare STORE with its ledger: files that are missing, truncated, changed or unexpected.

    Exit codes: 0 all as recorded or repaired, 3 damaged, 75 stopped with work left.
    """
    from graphcast_batch.app import verifying

    result = verifying.verify(store, deep=deep, repair=repair, address=address, progress=progress())
    result.show(console)
    if result.found.left:
        raise typer.Exit(WORK_LEFT)
    if not result.is_sound:
        raise typer.Exit(Exit.SOME_FAILED)
