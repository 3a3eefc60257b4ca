"""Define the command that runs the demo, which needs nothing but the installed package."""

from pathlib import Path
from typing import Annotated

import typer

from graphcast_batch.cli.application import FORECASTS, Address, app, examples, print_line, progress
from graphcast_batch.cli.run_commands import run_and_print


@app.command(
    rich_help_panel=FORECASTS,
    epilog=examples(
        "graphcast-batch demo",
        "graphcast-batch demo examples --files-only",
    ),
)
def demo(
    folder: Annotated[
        Path, typer.Argument(help="Folder to write to; it is created if it does not exist.", metavar="[FOLDER]")
    ] = Path("graphcast-batch-demo"),
    files_only: Annotated[
        bool,
        typer.Option("--files-only", help="Write the example files and run nothing. Default: run configs/demo.yaml."),
    ] = False,
    address: Address = None,
) -> None:
    """Make four forecasts and their maps on a synthetic planet, without any data: a first look at a run.

    The command first writes example files into FOLDER: configs/ with demo.yaml, which it then runs, and configs for
    other uses; stats/ with the weights and statistics that they need; slurm/ with batch scripts for sbatch. The store
    is FOLDER/runs/demo. Run the same command again after an interruption: only what is missing is made. Exit codes: as
    for run.
    """
    from graphcast_batch.app.demo import demo_config, write_examples

    if files_only:
        written = write_examples(folder)
        print_line(f"{len(written)} example files in {folder.absolute()}")
        return
    config = demo_config(folder)
    progress().report(f"config: {folder.absolute() / 'configs' / 'demo.yaml'}")
    run_and_print(config, address)
