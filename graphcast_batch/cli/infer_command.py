"""Define the command that makes one forecast from one dataset file."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from graphcast_batch.cli.application import FORECASTS, app, examples

Precision = Literal["auto", "float32", "bfloat16"]


@app.command(
    rich_help_panel=FORECASTS,
    epilog=examples(
        "graphcast-batch infer --mode Random --dataset source-era5_date-2022-01-01_res-1.0_levels-13_steps-04.nc",
        "graphcast-batch infer --mode Checkpoint --pretrained GraphCast_small.npz --stats stats --dataset D.nc",
    ),
)
def infer(
    dataset: Annotated[Path, typer.Option(help="Path of a GraphCast dataset file (netCDF).")],
    mode: Annotated[
        Literal["Random", "Checkpoint"],
        typer.Option(help="Whether the weights are drawn at random or read from a checkpoint."),
    ],
    pretrained: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint (.npz) with the weights; in mode Random a YAML file with architecture, task and seed. "
            "Default in mode Random: a small network."
        ),
    ] = None,
    var: Annotated[str, typer.Option(help="Name of the variable to draw.")] = "2m_temperature",
    level: Annotated[
        int, typer.Option(help="Pressure level in hPa at which the variable is drawn, if it is on levels.")
    ] = 500,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of model steps, 6 h each with GraphCast. Default: all that have truth in the file.",
        ),
    ] = None,
    stats: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the normalization statistics. Default: they are looked for beside the checkpoint and the "
            "dataset, and for random weights computed from the dataset."
        ),
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option(help="Precision of the network; auto is bfloat16 on an accelerator and float32 on a CPU."),
    ] = "auto",
    implementation: Annotated[
        Literal["native", "deepmind"],
        typer.Option(help="Implementation of the network: that of graphcast-batch, or DeepMind's package."),
    ] = "native",
    save: Annotated[
        Path | None, typer.Option(help="netCDF file to write all predictions to. Default: they are not kept.")
    ] = None,
    loss: Annotated[
        bool, typer.Option("--loss", help="Also print the training loss and the norms of its gradient.")
    ] = False,
) -> None:
    """Make one forecast from one dataset file, draw one variable and print the predictions."""
    from graphcast_batch.app import single_forecast
    from graphcast_batch.stores.netcdf_file import in_graphcast_dims

    result = single_forecast.infer(
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
    picture = single_forecast.draw_field(result, var, level)
    print(in_graphcast_dims(result.predictions))
    print(f"statistics: {result.statistics_from}; figure: {picture}" + (f"; predictions: {save}" if save else ""))
    if result.loss:
        print(json.dumps(result.loss, indent=2))
