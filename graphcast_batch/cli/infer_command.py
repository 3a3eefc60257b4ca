"""The command that makes one forecast from one dataset file."""

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
    from graphcast_batch.app import single_forecast
    from graphcast_batch.figures.case_figures import figure_stem
    from graphcast_batch.figures.maps import draw_strip
    from graphcast_batch.stores.netcdf_file import in_graphcast_dims, save_predictions

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
    field, truth, shown = single_forecast.one_field(result, var, level)
    picture = Path(f"{figure_stem(var, shown)}.png")
    if save:
        save_predictions(result.predictions, save)
    draw_strip(picture, field, truth)
    print(in_graphcast_dims(result.predictions))
    print(f"statistics: {result.statistics_from}; figure: {picture}" + (f"; predictions: {save}" if save else ""))
    if result.loss:
        print(json.dumps(result.loss, indent=2))
