"""Define the commands that score forecasts: against the truth, a climatology, or each other."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from graphcast_batch.cli.application import (
    SCORES,
    Address,
    Exit,
    StorePath,
    app,
    console,
    examples,
    print_line,
    progress,
)
from graphcast_batch.cli.data_commands import ArchivePlace, EveryHours, FirstTime, LastTime, given_levels
from graphcast_batch.cluster.drain import WORK_LEFT, Drain
from graphcast_batch.cluster.slurm.allocation import allocation
from graphcast_batch.errors import ConfigError

if TYPE_CHECKING:
    from graphcast_batch.app.evaluating import ScoringResult

Over = Literal["all", "each", "hour", "month", "season"]


@app.command(
    rich_help_panel=SCORES,
    epilog=examples(
        "graphcast-batch evaluate runs/hindcast --truth /data/era5_1deg.zarr --baseline persistence",
        "graphcast-batch evaluate runs/hindcast --climatology clim.zarr --out scores.csv --over month",
        "graphcast-batch evaluate runs/hindcast --lagged 6,12,18",
    ),
)
def evaluate(
    place: Annotated[
        Path, typer.Argument(help="Folder of a store, or path of a run's config.", metavar="CONFIG|STORE")
    ],
    truth: Annotated[
        str | None,
        typer.Option(
            help="Archive to score against, or a config whose inputs are the truth. Default: the truth that the run's "
            "config names, else its inputs."
        ),
    ] = None,
    climatology: Annotated[
        Path | None,
        typer.Option(
            help="Zarr store that graphcast-batch climatology has written, for anomaly correlations. Default: the one "
            "that the config names."
        ),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help="Forecast to compare with: persistence, climatology, or the folder of another scored store; may be "
            "repeated. Default: none."
        ),
    ] = None,
    member: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of a store with other forecasts from the same initial times, all of which are scored as an "
            "ensemble; may be repeated. Default: none."
        ),
    ] = None,
    lagged: Annotated[
        str | None,
        typer.Option(
            help="Hours, separated by commas (6,12,18), by which earlier forecasts of the store form a lagged ensemble "
            "with each forecast, at the same valid times. Default: those that the config names.",
            metavar="HOURS",
        ),
    ] = None,
    climatology_years: Annotated[
        str | None,
        typer.Option(
            help="First and last of the years (1990-2019) of which the truth at the same times of the year forms an "
            "ensemble to compare with. Default: those that the config names.",
            metavar="YEARS",
        ),
    ] = None,
    region: Annotated[
        str, typer.Option(help="Name of the region whose scores are printed; all regions are scored.")
    ] = "global",
    out: Annotated[
        Path | None,
        typer.Option(
            help="File for a table of all scores, .csv or .parquet; with an ensemble of its scores and of those of "
            "its first member. Default: none.",
            metavar="FILE",
        ),
    ] = None,
    over: Annotated[
        Over | None,
        typer.Option(
            help="Initial times that each score in --out is averaged over: all, each by itself, or those of an hour of "
            "the day, a month or a season. Default: all."
        ),
    ] = None,
    spectra_out: Annotated[
        Path | None,
        typer.Option(
            help="CSV file for the power of the variables in scores.spectra by wavenumber. Default: none.",
            metavar="FILE",
        ),
    ] = None,
    address: Address = None,
) -> None:
    """Score every complete Case that is not scored yet against the truth, and print the scores.

    Exit codes: 0 all scored, 3 some could not be scored, 75 stopped with work left.
    """
    here = allocation(os.environ)
    with Drain(None, here.start, here.end) as drain:
        # The imports take a second, during which a signal must not be lost.
        from graphcast_batch.app import evaluating
        from graphcast_batch.terminal import show_evaluation

        if over and not out:
            raise typer.BadParameter("--over says how the table of --out is averaged, so give --out too")
        planned = evaluating.plan_evaluation(
            place,
            truth,
            climatology,
            baseline or (),
            members=member or (),
            lagged=_given_hours(lagged, "--lagged") if lagged is not None else (),
            climatology_years=None if climatology_years is None else _given_years(climatology_years),
            out=out,
            spectra_out=spectra_out,
        )
        for part in planned.parts:
            show_evaluation(console, part)
        result = evaluating.score(planned, address=address, progress=progress(), drain=drain)
    if planned.left and (result.done or result.failed or result.busy):
        print_line(f"{result.done} scored now, {len(result.failed)} failed, {result.left} left")
    _show_scores(result, region)
    if out and (count := result.write_table(out, over or "all")):
        print_line(f"{count} scores in {out}")
    _show_spectra(result, region, spectra_out)
    if result.left:
        raise typer.Exit(WORK_LEFT)
    if result.failed or any(part.without_truth for part in planned.parts):
        raise typer.Exit(Exit.SOME_FAILED)


@app.command(
    rich_help_panel=SCORES,
    epilog=examples(
        "graphcast-batch compare runs/a runs/b",
        "graphcast-batch compare runs/a persistence --region europe",
    ),
)
def compare(
    first: StorePath,
    second: Annotated[
        str,
        typer.Argument(
            help="Folder of another scored store, or the name of scores in the first: persistence, climatology, "
            "ensemble, lagged or climatology_years.",
            metavar="STORE|NAME",
        ),
    ],
    region: Annotated[str, typer.Option(help="Name of the region whose scores are compared.")] = "global",
    scorecard: Annotated[
        Path | None,
        typer.Option(
            help="Picture to draw of every variable, level and lead time, .png, .svg or .pdf. Default: none.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Compare the scores of two stores, or of a store and a baseline, and test which differences are significant."""
    from graphcast_batch.app import comparing

    comparing.compare(first, second, region, scorecard=scorecard).show(console)
    if scorecard:
        print_line(f"scorecard: {scorecard}")


@app.command(
    rich_help_panel=SCORES,
    epilog=examples(
        "graphcast-batch climatology /data/era5_1deg.zarr --to clim.zarr",
        "graphcast-batch climatology /data/era5.zarr --to clim.zarr --variable geopotential --levels 500,850",
    ),
)
def climatology(
    place: ArchivePlace,
    out: Annotated[Path, typer.Option("--to", help="Zarr store to write, such as climatology.zarr.")],
    first: FirstTime = None,
    last: LastTime = None,
    every_hours: EveryHours = None,
    variable: Annotated[
        list[str] | None,
        typer.Option(help="Variable to take; may be repeated. Default: all of the archive that are known."),
    ] = None,
    levels: Annotated[
        str | None,
        typer.Option(
            help="Pressure levels to take: 13 or 37 for those of GraphCast, or hPa separated by commas (500,850). "
            "Default: all of the archive; 13 of the synthetic planet."
        ),
    ] = None,
    derived: Annotated[
        list[str] | None,
        typer.Option(
            help="Derived variable to compute too, as in scores.derived of a config, such as wind_speed; may be "
            "repeated. Default: none."
        ),
    ] = None,
    address: Address = None,
) -> None:
    """Compute the mean and standard deviation of each variable at each hour of the day and day of the year.

    For precipitation the command also computes what the score SEEPS needs. Its size is printed before it begins. If it
    was stopped, run it again to go on.
    """
    from graphcast_batch.app import averaging

    averaging.climatology(
        place,
        out,
        first=first,
        last=last,
        every_hours=every_hours,
        variables=variable,
        levels=given_levels(levels) if levels else None,
        derived=derived or (),
        address=address,
        progress=progress(),
    )
    print_line(f"climatology in {out}")


@app.command(
    rich_help_panel=SCORES,
    epilog=examples(
        "graphcast-batch potential-crps runs/hindcast --variable 2m_temperature --lead-hours 24,72,120",
        "graphcast-batch potential-crps runs/hindcast --variable geopotential --levels 500 --out potential.csv",
    ),
)
def potential_crps(
    place: Annotated[
        Path, typer.Argument(help="Folder of a store, or path of a run's config.", metavar="CONFIG|STORE")
    ],
    truth: Annotated[
        str | None,
        typer.Option(
            help="Archive to score against, or a config whose inputs are the truth. Default: the truth that the run's "
            "config names, else its inputs."
        ),
    ] = None,
    variable: Annotated[
        list[str] | None,
        typer.Option(help="Variable to score; may be repeated. Default: all that the config scores."),
    ] = None,
    levels: Annotated[
        str | None,
        typer.Option(help="Levels to score, hPa, separated by commas (500,850). Default: all that the config scores."),
    ] = None,
    lead_hours: Annotated[
        str | None,
        typer.Option(
            help="Lead times to score, hours separated by commas (24,72,120). Default: all that the store keeps.",
            metavar="HOURS",
        ),
    ] = None,
    region: Annotated[
        str, typer.Option(help="Name of the region whose scores are printed; all regions are scored.")
    ] = "global",
    out: Annotated[
        Path | None,
        typer.Option(help="File for a table of all scores, .csv or .parquet. Default: none.", metavar="FILE"),
    ] = None,
    address: Address = None,
) -> None:
    """Compute the CRPS that deterministic forecasts could have after the best calibration, from all initial times.

    Nothing is stored: each call computes the scores anew. The time it takes grows with the square of the number of
    initial times. Exit codes: 0 all scored, 3 some could not be scored, 75 stopped with work left.
    """
    here = allocation(os.environ)
    with Drain(None, here.start, here.end) as drain:
        # The imports take a second, during which a signal must not be lost.
        from graphcast_batch.app import potential
        from graphcast_batch.terminal import show_potential

        planned = potential.plan_potential(
            place,
            truth,
            variables=variable,
            levels=given_levels(levels) if levels else None,
            lead_hours=_given_hours(lead_hours, "--lead-hours") if lead_hours is not None else None,
            out=out,
        )
        planned.check_region(region)
        for (name, hours), count in planned.few.items():
            print_line(f"{name} at {hours} h is left out: {count} initial times with forecast and truth are too few")
        result = potential.compute_potential(planned, address=address, progress=progress(), drain=drain)
    show_potential(console, result.of_region(region), region)
    if out:
        print_line(f"{result.write_table(out)} scores in {out}")
    if result.left:
        raise typer.Exit(WORK_LEFT)
    if result.failed:
        raise typer.Exit(Exit.SOME_FAILED)


def _given_hours(text: str, option: str) -> tuple[int, ...]:
    """Return the hours that an option such as ``--lagged`` names.

    Raises:
        ConfigError: the text is not a list of whole numbers.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.removeprefix("-").isdecimal() for part in parts):
        raise ConfigError(f"{option} must be whole hours, separated by commas, such as 6,12,18, but is {text!r}")
    return tuple(map(int, parts))


def _given_years(text: str) -> tuple[int, int]:
    """Return the first and last year that an option such as ``1990-2019`` names.

    Raises:
        ConfigError: the text is not two years.
    """
    found = re.fullmatch(r"(\d{4})-(\d{4})", text.strip(), re.ASCII)
    if not found:
        raise ConfigError(f"--climatology-years must be two years, such as 1990-2019, but is {text!r}")
    return int(found[1]), int(found[2])


def _show_scores(result: "ScoringResult", region: str) -> None:
    """Print the headline scores of forecasts, baselines and ensembles."""
    from graphcast_batch.evaluation.pointwise_statistics import CRPS_GAUSSIAN
    from graphcast_batch.terminal import show_ensemble, show_scores

    averages = result.averages(region)
    ensemble, lagged, years = (averages.pop(name, None) for name in ("ensemble", "lagged", "climatology_years"))
    dressed = {
        name: found for name, found in averages.items() if CRPS_GAUSSIAN in found.values["metric"].values.tolist()
    }
    if averages:
        show_scores(console, averages, region)
    if ensemble:
        baselines = {name: found for name, found in (("lagged", lagged), ("climatology_years", years)) if found}
        show_ensemble(console, "ensemble", ensemble, region, baselines | dressed, result.vector_units)
    if lagged:
        baselines = {"climatology_years": years} if years else {}
        show_ensemble(console, "lagged ensemble", lagged, region, baselines | dressed, result.vector_units)
    if years:
        show_ensemble(console, "ensemble of other years", years, region, dressed, result.vector_units)


def _show_spectra(result: "ScoringResult", region: str, out: Path | None) -> None:
    """Print from which wavenumber on forecasts have lost half their power, and write their spectra as CSV."""
    from graphcast_batch.terminal import show_losses

    show_losses(console, result.power_losses(region), region)
    if out and (count := result.write_spectra(out)):
        print_line(f"{count} wavenumbers of spectra in {out}")
