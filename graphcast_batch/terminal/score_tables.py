"""Print scores as tables by lead time."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from graphcast_batch.evaluation.comparison import Change
from graphcast_batch.evaluation.energy_score import ENERGY
from graphcast_batch.evaluation.metrics import CRPSS
from graphcast_batch.evaluation.pointwise_statistics import CRPS, CRPS_GAUSSIAN
from graphcast_batch.evaluation.score_headlines import (
    all_lines,
    headlines,
    shown_hours,
    skill_of,
    values_of,
    vector_lines,
)
from graphcast_batch.evaluation.score_results import Results
from graphcast_batch.evaluation.spectra import Loss
from graphcast_batch.evaluation.store_scoring import Evaluation
from graphcast_batch.terminal.run_tables import MOST_SHOWN
from graphcast_batch.variables import HOUR

_NONE: Final[Mapping[str, Results]] = {}
_MOST_HOURS: Final = 8
"""Lead times that have room in a table beside each other."""
_NO_UNITS: Final[Mapping[str, str]] = {}


def show_evaluation(console: Console, evaluation: Evaluation) -> None:
    """Print how many Cases are to be scored, and which are left out."""
    counts = f"{len(evaluation.left)} to score, {len(evaluation.done)} scored before"
    console.print(Text(f"{evaluation.name}: {counts}; truth: {evaluation.scoring.truth.origin}"), soft_wrap=True)
    if evaluation.only_scores:
        console.print("only the scores of these forecasts are stored, computed during their run", highlight=False)
    left_out = {
        f"left out because {_incomplete(evaluation)}": evaluation.incomplete,
        "left out because the values of their members were removed (outputs.members)": evaluation.removed,
        "left out because there is no truth for them": evaluation.without_truth,
        "with truth for some lead times or variables only": evaluation.partly,
    }
    for what, keys in left_out.items():
        if keys:
            shown = " ".join(keys[:MOST_SHOWN]) + (f" and {len(keys) - MOST_SHOWN} more" if keys[MOST_SHOWN:] else "")
            console.print(Text(f"{len(keys)} {what}: {shown}", "yellow"), soft_wrap=True)


def _incomplete(evaluation: Evaluation) -> str:
    """Return in words why Cases are incomplete."""
    if any(evaluation.scoring.lags):
        return "they or the forecasts from before them are missing, not complete or too short"
    return f"they are not complete{' in all members' if evaluation.scoring.members else ''}"


def show_scores(console: Console, results: Mapping[str, Results], region: str) -> None:
    """Print the root mean square errors of the headline variables by lead time, and the skill over each baseline.

    Args:
        console: to print on.
        results: averaged over all initial times, by name; the skill of the first over each of the others is shown.
        region: name of the region that the scores are for.
    """
    name, first = next(iter(results.items()))
    hours = shown_hours(first)
    table = _by_lead_time(f"RMSE of {name}, {region}", hours)
    for line in headlines(first, hours):
        if all(map(math.isnan, line.values)):
            continue
        table.add_row(Text(line.label), line.unit, *_numbers(line.values, ".4g"), line.cases)
        for other, against in list(results.items())[1:]:
            skill = skill_of(line, against, hours)
            table.add_row(Text(f"  skill over {other}", "dim"), "", *_numbers(skill, "+.2f"), "")
    console.print(table)


def show_ensemble(
    console: Console,
    name: str,
    results: Results,
    region: str,
    baselines: Mapping[str, Results] = _NONE,
    vectors: Mapping[str, str] = _NO_UNITS,
) -> None:
    """Print the continuous ranked probability scores of an ensemble by lead time, and its spread-skill ratios.

    The energy scores of vectors follow, which are to a vector what the former are to a number.

    Args:
        console: to print on.
        name: of the ensemble.
        results: averaged over all initial times.
        region: name of the region that the scores are for.
        baselines: results of other ensembles, or of single forecasts with the spread of the climatology, by name; the
            skill over each is shown.
        vectors: units of the vectors that have an energy score, by name.
    """
    hours = shown_hours(results)
    table = _by_lead_time(f"CRPS of the {name}, {region}", hours)
    for line in headlines(results, hours, "crps"):
        if not all(map(math.isnan, line.values)):  # wind vectors have no CRPS
            table.add_row(Text(line.label), line.unit, *_numbers(line.values, ".4g"), line.cases)
            ratios = values_of(line, results, "spread_skill_ratio", hours)
            table.add_row(Text("  spread / skill", "dim"), "", *_numbers(ratios, ".2f"), "")
            if CRPSS in results.values["metric"].values:
                skills = values_of(line, results, CRPSS, hours)
                table.add_row(Text("  skill over climatology", "dim"), "", *_numbers(skills, "+.2f"), "")
            for other, against in baselines.items():
                metric = CRPS if CRPS in against.values["metric"].values else CRPS_GAUSSIAN
                skill = skill_of(line, against, hours, metric)
                if not all(map(math.isnan, skill)):  # of a single forecast precipitation has no CRPS
                    table.add_row(Text(f"  skill over {other}", "dim"), "", *_numbers(skill, "+.2f"), "")
    for line in vector_lines(results, hours, vectors):
        table.add_row(Text(f"{line.label}, energy score"), line.unit, *_numbers(line.values, ".4g"), line.cases)
        for other, against in baselines.items():
            if ENERGY not in against.values["metric"].values:
                continue
            skill = skill_of(line, against, hours, ENERGY)
            table.add_row(Text(f"  skill over {other}", "dim"), "", *_numbers(skill, "+.2f"), "")
    console.print(table)


def show_potential(console: Console, results: Results, region: str) -> None:
    """Print the potential CRPS of deterministic forecasts by lead time, and its skill over a constant forecast.

    Args:
        console: to print on.
        results: of one region.
        region: name of the region.
    """
    hours = (results.values["prediction_timedelta"].values // HOUR).astype(int).tolist()
    hours = hours if len(hours) <= _MOST_HOURS else shown_hours(results)
    table = _by_lead_time(f"potential CRPS, {region}", hours)
    for line in all_lines(results, hours, "potential_crps"):
        table.add_row(Text(line.label), line.unit, *_numbers(line.values, ".4g"), line.cases)
        skills = values_of(line, results, "potential_crpss", hours)
        table.add_row(Text("  skill over climatology", "dim"), "", *_numbers(skills, "+.2f"), "")
    console.print(table)


def _by_lead_time(title: str, hours: Sequence[int]) -> Table:
    """Return a table of headline scores without rows."""
    table = Table(title=Text(title), title_justify="left")
    leads = (f"{hour // 24} d" if hour % 24 == 0 else f"{hour} h" for hour in hours)
    for column in ("variable", "unit", *leads, "Cases"):
        table.add_column(column, justify="left" if column in ("variable", "unit") else "right")
    return table


def _numbers(values: Sequence[float], form: str) -> list[str]:
    """Format numbers; NaN as an empty text."""
    return ["" if math.isnan(value) else format(value, form) for value in values]


def show_losses(console: Console, losses: Sequence[Loss], band: str) -> None:
    """Print the wavenumber from which on a forecast has less than half the power of the truth."""
    for loss in losses:
        lost = f"half the power is lost from wavenumber {loss.wavenumber:.0f} on"
        found = "half the power or more is left at all wavenumbers" if math.isnan(loss.wavenumber) else lost
        text = f"{loss.label}, {band}: {found}, at {loss.hours} h ({loss.cases} Cases)"
        console.print(Text(text), soft_wrap=True)


def show_comparison(console: Console, names: tuple[str, str], changes: Sequence[Change], region: str) -> None:
    """Print how much better the second of two forecasts is than the first, and how significant that is."""
    table = Table(title=Text(f"RMSE of {names[1]} against {names[0]}, {region}"), title_justify="left")
    for title in ("variable", "lead", "first", "second", "change", "95 % by blocks", "p, paired", "Cases"):
        table.add_column(title, justify="left" if title == "variable" else "right")
    for change in changes:
        span = "" if math.isnan(change.low) else f"{change.low:+.1%} to {change.high:+.1%}"
        p = "" if math.isnan(change.paired.p) else f"{change.paired.p:.2g}{' *' if change.paired.significant else ''}"
        sizes = (f"{change.first:.4g}", f"{change.second:.4g}", f"{change.relative:+.1%}")
        table.add_row(Text(change.label), f"{change.hours} h", *sizes, span, p, str(change.paired.cases))
    console.print(table)
    if any(math.isnan(change.paired.p) for change in changes):
        console.print(
            "too few initial times for a significance test; a confidence interval needs more than 10 days of them"
        )
    console.print(Text("* significant at 95 %, allowing for the autocorrelation of initial times", "dim"))
