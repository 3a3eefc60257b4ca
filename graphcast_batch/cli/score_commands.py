"""Commands that score: forecasts against what came true, against what is usual, against each other."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.text import Text

from graphcast_batch.cli.application import (
    SCORES,
    Address,
    Exit,
    StorePath,
    app,
    console,
    errors,
    examples,
    say,
    tracked,
)
from graphcast_batch.cluster.drain import WORK_LEFT, Drain
from graphcast_batch.cluster.slurm.allocation import allocation
from graphcast_batch.errors import ConfigError
from graphcast_batch.variables import LEVELS_13

if TYPE_CHECKING:
    from graphcast_batch.config.run_config import RunConfig
    from graphcast_batch.evaluation.store_scoring import Evaluation

Over = Literal["all", "each", "hour", "month", "season"]


@app.command(
    rich_help_panel=SCORES,
    epilog=examples(
        "graphcast-batch evaluate runs/hindcast --truth /data/era5_1deg.zarr --baseline persistence",
        "graphcast-batch evaluate runs/hindcast --climatology clim.zarr --out scores.csv --over month",
    ),
)
def evaluate(
    place: Annotated[Path, typer.Argument(help="Store of a run, or its config.", metavar="CONFIG|STORE")],
    truth: Annotated[
        str | None, typer.Option(help="Archive, or config whose inputs are the truth; without it the run's own.")
    ] = None,
    climatology: Annotated[
        Path | None, typer.Option(help="From graphcast-batch climatology, for anomaly correlations.")
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(help="persistence, climatology, or another store that was evaluated; may be repeated."),
    ] = None,
    member: Annotated[
        list[Path] | None,
        typer.Option(
            help="Store of other forecasts from the same times, for the scores of an ensemble of all; may be repeated."
        ),
    ] = None,
    region: Annotated[str, typer.Option(help="Region that is shown; all are scored.")] = "global",
    out: Annotated[
        Path | None,
        typer.Option(help="File for all scores, .csv or .parquet; with members for those of all.", metavar="FILE"),
    ] = None,
    over: Annotated[
        Over | None, typer.Option(help="Initial times that each score of --out is of; without it all.")
    ] = None,
    spectra_out: Annotated[
        Path | None, typer.Option(help="CSV file for the power of scores.spectra by wavenumber.", metavar="FILE")
    ] = None,
    address: Address = None,
) -> None:
    """Scores every whole Case that is not scored yet against what came true, and shows the scores.

    Exit codes: 0 all scored, 3 some could not be, 75 stopped with work left.
    """
    here = allocation(os.environ)
    with Drain(None, here.start, here.end) as drain:
        from graphcast_batch.app.evaluating import MADE_BASELINES, evaluated_config
        from graphcast_batch.cluster import driver
        from graphcast_batch.evaluation.score_export import check_table
        from graphcast_batch.evaluation.store_scoring import evaluations
        from graphcast_batch.terminal import show_evaluation

        if over and not out:
            raise typer.BadParameter("--over says how the table of --out is made, so give --out too")
        if out:
            check_table(out)
        baselines = baseline or []
        others = [one for one in baselines if one not in MADE_BASELINES]
        config = evaluated_config(place, truth, climatology, member or [])
        if spectra_out:
            _check_spectra_out(spectra_out, config)
        to_score = evaluations(config, baselines)
        for one in to_score:
            show_evaluation(console, one)
        failed, left = 0, sum(len(one.left) for one in to_score)
        if left and not drain.asked:
            with driver.connected(address, drain):
                failed, left = _score(to_score, drain)
    names = {one.name: (one.path, one.name) for one in to_score}
    _show_scores(names | {other: (Path(other), "forecast") for other in others}, region, out, over or "all")
    if to_score[0].scoring.spectra:
        _show_spectra(to_score[0], region, spectra_out)
    if left:
        raise typer.Exit(WORK_LEFT)
    if failed or any(one.without_truth for one in to_score):
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
        str, typer.Argument(help="Another store, or a baseline scored in the first.", metavar="STORE|NAME")
    ],
    region: Annotated[str, typer.Option(help="Region.")] = "global",
    scorecard: Annotated[
        Path | None,
        typer.Option(
            help="Picture of every variable, level and lead time, .png, .svg or .pdf.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Holds the scores of two stores, or of a store and a baseline, side by side, with what chance would explain."""
    from graphcast_batch.cli.score_figures import draw_comparison
    from graphcast_batch.evaluation.baselines import CLIMATOLOGY, PERSISTENCE
    from graphcast_batch.evaluation.comparison import compare
    from graphcast_batch.evaluation.ensemble import ENSEMBLE
    from graphcast_batch.terminal import show_comparison

    other = (first, second) if second in (PERSISTENCE, CLIMATOLOGY, ENSEMBLE) else (Path(second), "forecast")
    changes = compare((first, "forecast"), other, region)
    show_comparison(console, (str(first), second), changes, region)
    if scorecard:
        draw_comparison(scorecard, other, (first, "forecast"), (Path(second).name, first.resolve().name), region)
        say(f"scorecard: {scorecard}")


@app.command(rich_help_panel=SCORES, epilog=examples("graphcast-batch climatology /data/era5_1deg.zarr --to clim.zarr"))
def climatology(
    place: Annotated[str, typer.Argument(help="Archive (file, store, glob or folder), or a run's config.")],
    out: Annotated[Path, typer.Option("--to", help="Zarr store to make, such as climatology.zarr.")],
    first: Annotated[str | None, typer.Option(help="First time to take; without it all that there is.")] = None,
    last: Annotated[str | None, typer.Option(help="Last time to take.")] = None,
    every_hours: Annotated[int | None, typer.Option(help="Hours between the times to take.")] = None,
    derived: Annotated[
        list[str] | None, typer.Option(help="As in scores.derived, such as wind_speed; may be repeated.")
    ] = None,
    address: Address = None,
) -> None:
    """Computes what is usual at each hour of the day and day of the year: mean and standard deviation.

    Of precipitation also what SEEPS needs. If it was stopped, run it again to go on.
    """
    import numpy as np

    from graphcast_batch.app.evaluating import truth_inputs
    from graphcast_batch.cluster import driver
    from graphcast_batch.config.messages import parse_config
    from graphcast_batch.config.times_section import TimesConfig
    from graphcast_batch.evaluation.climatology_building import make_climatology
    from graphcast_batch.evaluation.derived import derivable, with_derived
    from graphcast_batch.inputs.sources.configured import open_source
    from graphcast_batch.plan import plan_times

    opened = open_source(truth_inputs(place), LEVELS_13)
    on_levels = {name: "level" in dims for name, dims in opened.dims.items()}
    made = tuple(derivable(derived or (), on_levels, opened.origin))
    source = with_derived(opened, made)
    span = {"first": first, "last": last, "every_hours": every_hours}
    given = any(part is not None for part in span.values())
    if not given and source.times is None:
        raise ConfigError(f"{source.origin} has every time; say with --first, --last and --every-hours which to take")
    # A sum over several steps is not there at the first times.
    times = source.times_of(made) if made else source.times
    if given:
        times = np.array(plan_times(parse_config(span, TimesConfig, origin="of --first, --last and --every-hours")))
    with Drain() as drain, driver.connected(address, drain):

        def executor(function: Callable[..., Any], pieces: Sequence[tuple[Any, ...]]) -> Iterable[Any]:
            return tracked(driver.each(function, pieces, drain), "averaging", len(pieces))

        make_climatology(source, out.absolute(), np.asarray(times, "datetime64[ns]"), executor)
    say(f"climatology in {out}")


def _check_spectra_out(path: Path, config: "RunConfig") -> None:
    """Looks whether there will be spectra and where to write them, before hours are spent on them."""
    if not config.scores.spectra:
        raise ConfigError(
            "--spectra-out needs spectra, but scores.spectra of the config names no variables; add some, or leave the "
            "option out"
        )
    if path.suffix != ".csv" or not path.absolute().parent.is_dir():
        raise ConfigError(
            f"--spectra-out must be a .csv file in a folder that is there, but is {path}; give another path"
        )


def _score(to_score: "Sequence[Evaluation]", drain: "Drain") -> tuple[int, int]:
    """Scores Cases over the cluster; returns how many could not be, which are told, and how many are left."""
    from graphcast_batch.app.evaluating import score

    total = sum(len(one.left) for one in to_score)
    failed = done = 0
    for name, case, result in tracked(score(to_score, drain), "scoring", total):
        if isinstance(result, BaseException):
            failed += 1
            errors.print(Text(f"{name} {case.key} was not scored: {result}", "red"), soft_wrap=True)
        elif result is not None:
            done += 1
    left = total - failed - done
    say(f"{done} scored now, {failed} failed, {left} left")
    return failed, left


def _show_scores(names: dict[str, tuple[Path, str]], region: str, out: Path | None, over: Over) -> None:
    """Prints the headline scores of forecasts, baselines and ensemble, and writes all of the last, or of forecasts."""
    from graphcast_batch.evaluation.score_export import write_table
    from graphcast_batch.evaluation.score_headlines import read_headlines
    from graphcast_batch.evaluation.score_results import average, scored
    from graphcast_batch.terminal import show_ensemble, show_scores

    there = {name: where for name, where in names.items() if scored(*where)}
    if "forecast" not in there:
        return
    results = {name: average(read_headlines(*where, region)) for name, where in there.items()}
    ensemble = results.pop("ensemble", None)
    show_scores(console, results, region)
    if ensemble:
        show_ensemble(console, ensemble, region)
    written = "ensemble" if "ensemble" in names else "forecast"
    if out and written in there:
        count = write_table(there[written][0], out, written, over)
        say(f"{count} scores in {out}")


def _show_spectra(evaluation: "Evaluation", region: str, out: Path | None) -> None:
    """Prints from where on forecasts have lost half their power, and writes their spectra as CSV."""
    from graphcast_batch.evaluation.score_results import scored
    from graphcast_batch.evaluation.spectra import losses, write_spectra
    from graphcast_batch.terminal import show_losses

    where = evaluation.path, evaluation.name
    if not scored(*where):
        return
    if region in evaluation.scoring.bands:
        show_losses(console, losses(*where, region), region)
    if out:
        count = write_spectra(evaluation.path, out, evaluation.name)
        say(f"{count} wavenumbers of spectra in {out}")
