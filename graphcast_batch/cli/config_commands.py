"""Define the commands that help with a config: write a first one, and print its schema."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from graphcast_batch.cli.application import FORECASTS, app, console, examples, print_line, progress


@app.command(
    rich_help_panel=FORECASTS,
    epilog=examples(
        "graphcast-batch init first.yaml --inputs synthetic",
        "graphcast-batch init hindcast.yaml --inputs /data/era5_1deg.zarr --weights params/GraphCast_small.npz "
        "--statistics stats --steps 40",
    ),
)
def init(
    file: Annotated[Path, typer.Argument(help="YAML file to write; it must not exist yet.", metavar="[FILE]")] = Path(
        "hindcast.yaml"
    ),
    inputs: Annotated[
        str | None,
        typer.Option(
            help="Archive to start from (file, store, glob pattern, folder or address), or synthetic. "
            "Default: synthetic."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Checkpoint with trained weights (.npz), or random to try things out. Default: random."),
    ] = None,
    statistics: Annotated[
        str | None,
        typer.Option(
            help="Folder of the normalization statistics that the checkpoint was trained with. Default with random "
            "weights: computed from the inputs."
        ),
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="Zarr store that the run writes. Default: runs/ and the name of FILE.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of model steps of each forecast, 6 h each with GraphCast. Default: 40, with random weights 8.",
        ),
    ] = None,
    first: Annotated[
        str | None,
        typer.Option(
            help="First initial time, such as 2020-01-01T00, UTC. Default: the first that the archive allows."
        ),
    ] = None,
    last: Annotated[
        str | None, typer.Option(help="Last initial time, UTC. Default: the last that the archive allows.")
    ] = None,
    every_hours: Annotated[
        int | None,
        typer.Option(min=1, help="Hours between initial times. Default: 12, or the spacing of the archive if wider."),
    ] = None,
) -> None:
    """Write the config of a first run, with a comment on each part.

    The archive is read to find what can be forecast from it. On a terminal the command asks for each value that is not
    given; elsewhere it takes the values that it would propose. An existing file is not replaced.
    """
    from graphcast_batch.app import first_config

    written = first_config.init_config(
        file,
        inputs=inputs,
        weights=weights,
        statistics=statistics,
        store=store,
        steps=steps,
        first=first,
        last=last,
        every_hours=every_hours,
        ask=_ask if sys.stdin.isatty() and console.is_terminal else None,
        progress=progress(),
    )
    for name in written.secrets:
        print_line(f"{file} holds no secrets: set the environment variable {name} to the secret of the address")
    print_line(f"{file}: {written.summary}\nnext: graphcast-batch plan {file}")


@app.command(
    rich_help_panel=FORECASTS,
    epilog=examples(
        "graphcast-batch schema > run.schema.json",
        "graphcast-batch schema recipe > recipe.schema.json",
        "# yaml-language-server: $schema=run.schema.json",
    ),
)
def schema(
    kind: Annotated[
        Literal["run", "recipe"], typer.Argument(help="What to describe: the config of a run, or a training recipe.")
    ] = "run",
) -> None:
    """Print the JSON schema of a config, with which editors explain, complete and check it.

    Many editors read the place of the schema from a first line like that of the last example.
    """
    from graphcast_batch.app.config_schemas import config_schema

    print(json.dumps(config_schema(kind), indent=2, ensure_ascii=False))


def _ask(question: str, proposed: Any) -> Any:  # noqa: ANN401 - text or a number, as proposed
    """Ask whoever sits at the terminal."""
    return typer.prompt(question, default=proposed)
