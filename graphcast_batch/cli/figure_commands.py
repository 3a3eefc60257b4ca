"""Define the command that draws the figures of a store again."""

from pathlib import Path
from typing import Annotated, Any

import typer

from graphcast_batch.cli.application import SCORES, Address, Exit, app, examples, progress
from graphcast_batch.cluster.drain import WORK_LEFT
from graphcast_batch.errors import ConfigError

_CHANGED = "Instead of the section figures of the config"
_FROM_CONFIG = "Default: as in the config."


@app.command(
    rich_help_panel=SCORES,
    epilog=examples(
        "graphcast-batch figures runs/hindcast",
        "graphcast-batch figures runs/hindcast --variable temperature --level 850 --projection robinson --wind barbs",
        "graphcast-batch figures runs/hindcast --variable geopotential --level 500 --strip --animation gif",
        "graphcast-batch figures runs/ensemble --variable geopotential --level 500 --spaghetti geopotential=552",
    ),
)
def figures(
    place: Annotated[
        Path, typer.Argument(help="Folder of a store, or path of a run's config.", metavar="CONFIG|STORE")
    ],
    variable: Annotated[
        list[str] | None,
        typer.Option(help=f"Variable to draw; may be repeated. {_FROM_CONFIG}", rich_help_panel=_CHANGED),
    ] = None,
    level: Annotated[
        list[int] | None,
        typer.Option(
            help=f"Pressure level in hPa of variables on levels; may be repeated. {_FROM_CONFIG}",
            rich_help_panel=_CHANGED,
        ),
    ] = None,
    lead_hours: Annotated[
        list[int] | None,
        typer.Option(help=f"Lead time in hours to draw; may be repeated. {_FROM_CONFIG}", rich_help_panel=_CHANGED),
    ] = None,
    projection: Annotated[
        str | None,
        typer.Option(
            help=f"Map projection: plate_carree, robinson, orthographic, north_polar or south_polar. {_FROM_CONFIG}",
            rich_help_panel=_CHANGED,
        ),
    ] = None,
    center: Annotated[
        tuple[float, float] | None,
        typer.Option(
            help=f"Center of an orthographic map, degrees north and east. {_FROM_CONFIG}",
            metavar="LATITUDE LONGITUDE",
            rich_help_panel=_CHANGED,
        ),
    ] = None,
    contours: Annotated[
        str | None,
        typer.Option(
            help="Variable to draw as contour lines on every map, with its level in hPa, such as geopotential@500. "
            f"{_FROM_CONFIG}",
            metavar="NAME[@LEVEL]",
            rich_help_panel=_CHANGED,
        ),
    ] = None,
    wind: Annotated[
        str | None,
        typer.Option(help=f"Wind on every map: barbs, streamlines or none. {_FROM_CONFIG}", rich_help_panel=_CHANGED),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(help=f"Format of the pictures: png, svg or pdf. {_FROM_CONFIG}", rich_help_panel=_CHANGED),
    ] = None,
    strip: Annotated[
        bool | None,
        typer.Option(
            "--strip/--no-strip",
            help=f"Draw all lead times of a variable in one picture. {_FROM_CONFIG}",
            rich_help_panel=_CHANGED,
        ),
    ] = None,
    animation: Annotated[
        str | None,
        typer.Option(help=f"Animation over all lead times: gif, mp4 or none. {_FROM_CONFIG}", rich_help_panel=_CHANGED),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            help="Point whose time series is drawn: a city, or LATITUDE,LONGITUDE in degrees; may be repeated. "
            f"{_FROM_CONFIG}",
            metavar="POINT",
            rich_help_panel=_CHANGED,
        ),
    ] = None,
    hovmoller: Annotated[
        tuple[float, float] | None,
        typer.Option(
            help=f"Latitude band in degrees north of Hovmöller diagrams. {_FROM_CONFIG}",
            metavar="SOUTH NORTH",
            rich_help_panel=_CHANGED,
        ),
    ] = None,
    sections: Annotated[
        bool | None,
        typer.Option(
            "--sections/--no-sections",
            help=f"Draw zonal means of variables on levels by latitude and level. {_FROM_CONFIG}",
            rich_help_panel=_CHANGED,
        ),
    ] = None,
    ensemble: Annotated[
        bool | None,
        typer.Option(
            "--ensemble/--no-ensemble",
            help="Draw the members of each initial time together: maps of mean and spread, and quantiles at points. "
            f"{_FROM_CONFIG}",
            rich_help_panel=_CHANGED,
        ),
    ] = None,
    spaghetti: Annotated[
        list[str] | None,
        typer.Option(
            help="Value whose contour lines of all members are drawn on one map, in the unit that figures show, such "
            f"as geopotential=552 (dam); may be repeated for other variables. {_FROM_CONFIG}",
            metavar="NAME=VALUE",
            rich_help_panel=_CHANGED,
        ),
    ] = None,
    mean_error: Annotated[
        bool | None,
        typer.Option(
            "--mean-error/--no-mean-error",
            help=f"Draw maps of the bias and root mean square error over all Cases. {_FROM_CONFIG}",
            rich_help_panel=_CHANGED,
        ),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of another scored store, whose scores are drawn beside; may be repeated. Default: none.",
            metavar="STORE",
        ),
    ] = None,
    region: Annotated[str, typer.Option(help="Name of the region whose scores are drawn.")] = "global",
    address: Address = None,
) -> None:
    """Draw the figures of every complete Case again, and the figures of the scores that the store has.

    Exit codes: 0 all drawn, 3 some could not be drawn, 75 stopped with work left.
    """
    from graphcast_batch.app import drawing

    given = {
        "variables": variable,
        "levels": level,
        "lead_hours": lead_hours,
        "projection": projection,
        "center": center,
        "contours": None if contours is None else _contours(contours),
        "wind": wind,
        "format": format,
        "strip": strip,
        "animation": animation,
        "points": at,
        "hovmoller": hovmoller,
        "sections": sections,
        "ensemble": ensemble,
        "spaghetti": None if spaghetti is None else dict(map(_contour_value, spaghetti)),
        "mean_error": mean_error,
    }
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    result = drawing.figures(
        place, against=against or (), region=region, address=address, progress=progress(), **changes
    )
    if result.stopped:
        raise typer.Exit(WORK_LEFT)
    if result.undrawn:
        raise typer.Exit(Exit.SOME_FAILED)


def _contours(text: str) -> dict[str, str | int]:
    name, _, level = text.partition("@")
    if not level:
        return {"variable": name}
    if not level.isdecimal():
        raise ConfigError(f"--contours must be a variable, with its level in hPa like geopotential@500, but is {text}")
    return {"variable": name, "level": int(level)}


def _contour_value(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise ConfigError(
            f"--spaghetti must be a variable and the value of its contour lines like geopotential=552, but is {text}"
        ) from None
