"""The command that draws the figures of a run anew, and the drawing that a run does when its forecasts are whole."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from graphcast_batch.cli.application import SCORES, Address, Exit, app, errors, examples, remark, tracked
from graphcast_batch.cluster.drain import WORK_LEFT, Drain
from graphcast_batch.errors import ConfigError, FigureError

if TYPE_CHECKING:
    from graphcast_batch.config.run_config import RunConfig
    from graphcast_batch.plan import Case
    from graphcast_batch.setup.run_setup import RunSetup

_CHANGED = "Instead of what the config says"


@app.command(
    rich_help_panel=SCORES,
    epilog=examples(
        "graphcast-batch figures runs/hindcast",
        "graphcast-batch figures runs/hindcast --variable temperature --level 850 --projection robinson --wind barbs",
        "graphcast-batch figures runs/hindcast --variable geopotential --level 500 --strip --animation gif",
    ),
)
def figures(
    place: Annotated[Path, typer.Argument(help="Store of a run, or its config.", metavar="CONFIG|STORE")],
    variable: Annotated[
        list[str] | None, typer.Option(help="To draw; may be given again.", rich_help_panel=_CHANGED)
    ] = None,
    level: Annotated[list[int] | None, typer.Option(help="hPa; may be given again.", rich_help_panel=_CHANGED)] = None,
    lead_hours: Annotated[
        list[int] | None, typer.Option(help="To draw; may be given again.", rich_help_panel=_CHANGED)
    ] = None,
    projection: Annotated[
        str | None,
        typer.Option(
            help="plate_carree, robinson, orthographic, north_polar or south_polar.", rich_help_panel=_CHANGED
        ),
    ] = None,
    center: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Of an orthographic map, degrees.", metavar="LATITUDE LONGITUDE", rich_help_panel=_CHANGED),
    ] = None,
    contours: Annotated[
        str | None,
        typer.Option(
            help="Variable in lines over the colours, with its level in hPa like geopotential@500.",
            metavar="NAME[@LEVEL]",
            rich_help_panel=_CHANGED,
        ),
    ] = None,
    wind: Annotated[str | None, typer.Option(help="barbs, streamlines or none.", rich_help_panel=_CHANGED)] = None,
    format: Annotated[str | None, typer.Option(help="png, svg or pdf.", rich_help_panel=_CHANGED)] = None,
    strip: Annotated[
        bool | None,
        typer.Option("--strip/--no-strip", help="All lead times in one picture.", rich_help_panel=_CHANGED),
    ] = None,
    animation: Annotated[str | None, typer.Option(help="gif, mp4 or none.", rich_help_panel=_CHANGED)] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            help="City, or LATITUDE,LONGITUDE, of a time series; may be given again.",
            metavar="PLACE",
            rich_help_panel=_CHANGED,
        ),
    ] = None,
    hovmoller: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Band of Hovmöller diagrams, degrees.", metavar="SOUTH NORTH", rich_help_panel=_CHANGED),
    ] = None,
    sections: Annotated[
        bool | None, typer.Option("--sections/--no-sections", help="Zonal means.", rich_help_panel=_CHANGED)
    ] = None,
    mean_error: Annotated[
        bool | None,
        typer.Option(
            "--mean-error/--no-mean-error", help="Bias and RMSE over all Cases, as maps.", rich_help_panel=_CHANGED
        ),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Another store whose scores are drawn beside; may be given again.", metavar="STORE"),
    ] = None,
    region: Annotated[str, typer.Option(help="Region of the scores that are drawn.")] = "global",
    address: Address = None,
) -> None:
    """Draws the figures of every whole Case anew, and of the scores that the store has."""
    from graphcast_batch.cluster import driver
    from graphcast_batch.config.loading import load_config
    from graphcast_batch.figures.store_figures import check_figures
    from graphcast_batch.setup.run_setup import assemble
    from graphcast_batch.stores.store_kinds import open_store

    in_store = place.is_dir()
    config = load_config(place / "run.yaml" if in_store else place)
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
        "places": at,
        "hovmoller": hovmoller,
        "sections": sections,
        "mean_error": mean_error,
    }
    config = _changed(config, {key: value for key, value in given.items() if value is not None}, place)
    config = config.model_copy(update={"store": place.resolve()}) if in_store else config
    has_scores = _draw_scores(config, against or [], region, format)
    if config.figures is None:
        if has_scores:
            return
        raise FigureError(f"{place} says nothing of figures; name a --variable, or add a section figures to the config")
    if not config.outputs.forecasts:
        raise FigureError(f"{place} keeps only scores (outputs: none), so that there are no forecasts to draw")
    assembled = assemble(config)
    check_figures(config.figures, assembled.plan.layout)
    complete = open_store(config.store).ledger.complete(assembled.plan.cases)
    with Drain() as drain, driver.connected(address, drain):
        undrawable = draw(assembled, complete, drain)
        if config.figures.mean_error:
            undrawable += _draw_mean_errors(assembled, complete, drain)
    if drain.asked:
        raise typer.Exit(WORK_LEFT)
    if undrawable:
        raise typer.Exit(Exit.SOME_FAILED)


def draw(assembled: "RunSetup", cases: "Sequence[Case]", drain: Drain) -> int:
    """Draws figures over the cluster; returns of how many Cases it could not, which are told, while others go on."""
    from graphcast_batch.app.running import drawn

    if not cases or drain.asked:
        return 0
    remark(f"drawing the figures of {len(cases)} Cases")
    count = undrawable = 0
    for case, result in tracked(drawn(assembled, cases, drain), "drawing", len(cases)):
        if isinstance(result, BaseException):
            undrawable += 1
            errors.print(Text(f"the figures of {case.key} were not drawn: {result}", "red"), soft_wrap=True)
        else:
            count += result
    remark(f"{count} figures in {assembled.config.store / 'figures'}")
    return undrawable


def _draw_scores(config: "RunConfig", against: Sequence[Path], region: str, kind: str | None) -> bool:
    """Draws what there is of scores; returns whether there are any."""
    from graphcast_batch.cli.score_figures import draw_scores
    from graphcast_batch.evaluation.score_results import scored

    if not against and not scored(config.store):
        return False
    kind = kind or (config.figures.format if config.figures else "png")
    drawn = draw_scores(config.store, against, region, kind)
    remark(f"{len(drawn)} figures of scores in {config.store / 'figures' / 'scores'}")
    return True


def _draw_mean_errors(assembled: "RunSetup", cases: "Sequence[Case]", drain: Drain) -> int:
    """Draws what all Cases together were off by; returns of how many it could not be read, which are told."""
    from graphcast_batch.cluster import driver
    from graphcast_batch.figures.mean_error import ErrorSums, draw_mean_errors, errors_of, wanted_errors

    wanted, store, kept = assembled.config.figures, assembled.config.store, assembled.plan.layout.kept
    assert wanted is not None
    drawn, unread = 0, set[str]()
    for which in wanted_errors(wanted, kept):
        sums = ErrorSums.none((len(which.hours), kept.latitude.size, kept.longitude.size))
        results = driver.each(errors_of, [(store, case, which, assembled.source) for case in cases], drain)
        for case, result in zip(cases, tracked(results, f"errors of {which.name}", len(cases)), strict=False):
            if isinstance(result, BaseException):
                unread.add(case.key)
                errors.print(Text(f"{case.key} is left out of mean errors: {result}", "red"), soft_wrap=True)
            else:
                sums.add(result)
        if drain.asked:
            break
        drawn += len(draw_mean_errors(store, which, sums, wanted.format))
    remark(f"{drawn} maps of mean errors in {store / 'figures'}")
    return len(unread)


def _changed(config: "RunConfig", given: dict[str, Any], place: Path) -> "RunConfig":
    """The config with what the options say of figures."""
    from graphcast_batch.config.figures_section import FiguresConfig
    from graphcast_batch.config.messages import parse_config

    if not given:
        return config
    said = config.figures.model_dump(exclude_none=True) if config.figures else {}
    if given.get("projection", "orthographic") != "orthographic":
        said.pop("center", None)
    wanted = parse_config(said | given, FiguresConfig, origin=f"{place}, with the options given,")
    return config.model_copy(update={"figures": wanted})


def _contours(text: str) -> dict[str, str | int]:
    name, _, level = text.partition("@")
    if not level:
        return {"variable": name}
    if not level.isdecimal():
        raise ConfigError(f"--contours must be a variable, with its level in hPa like geopotential@500, but is {text}")
    return {"variable": name, "level": int(level)}
