"""Choose the variables, levels, events and spectra that are scored, of those that forecasts and truth have."""

import difflib
from collections.abc import Sequence
from dataclasses import replace

from graphcast_batch.config.scores_section import ScoresConfig
from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation.climatology import Climatology
from graphcast_batch.evaluation.metrics import VECTORS
from graphcast_batch.evaluation.regions import Regions
from graphcast_batch.evaluation.score_headlines import unit_of
from graphcast_batch.evaluation.scoring_setup import ScoringSetup
from graphcast_batch.evaluation.spectra import bands_of
from graphcast_batch.inputs.case_inputs import Timeline
from graphcast_batch.stores.layout import OutputGrid


def variables_of(wanted: ScoresConfig, kept: OutputGrid, truth: Timeline) -> tuple[tuple[str, bool], ...]:
    """Return the variables to score: those configured, or all that forecasts and truth have in common.

    Raises:
        EvaluationError: a variable is not in both, is on levels in one alone, or there is none.
    """
    common = tuple((name, levelled) for name, levelled in kept.on_levels if name in truth.dims)
    for name in wanted.variables or ():
        if name not in dict(common):
            which = "forecasts" if name not in kept.variables else "truth"
            near = difflib.get_close_matches(name, dict(common), n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose some of {', '.join(dict(common))}"
            raise EvaluationError(
                f"scores.variables: {name} must be in the forecasts and in the truth, but the {which} lack it; {hint}"
            )
    chosen = tuple(pair for pair in common if wanted.variables is None or pair[0] in wanted.variables)
    if not chosen:
        raise EvaluationError(
            f"forecasts and truth must have variables in common, but forecasts have {', '.join(kept.variables)} and "
            f"{truth.origin} has {', '.join(sorted(truth.dims))}; set names in scores.truth"
        )
    for name, levelled in chosen:
        if ("level" in truth.dims[name]) != levelled:
            has, lacks = ("the forecasts", "the truth") if levelled else ("the truth", "the forecasts")
            raise EvaluationError(
                f"{name} must be on levels in forecasts and truth or in neither, but is on levels in {has} and not in "
                f"{lacks}; give a truth of the same variables"
            )
    return chosen


def thresholds_of(wanted: ScoresConfig, scoring: ScoringSetup) -> dict[str, tuple[float, ...]]:
    """Return the thresholds of variables, which must all be scored.

    Raises:
        EvaluationError: a variable is not scored.
    """
    names = [name for name, _ in scoring.on_levels]
    for absent in [name for name in wanted.thresholds if name not in names]:
        near = difflib.get_close_matches(absent, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose some of {', '.join(names)}"
        raise EvaluationError(f"scores.thresholds must name variables that are scored, but {absent} is not; {hint}")
    return dict(wanted.thresholds)


def vectors_of(wanted: ScoresConfig, scoring: ScoringSetup) -> dict[str, tuple[str, ...]]:
    """Return the components of vectors, by the name of the vector.

    Raises:
        EvaluationError: a component is not scored, or the components are not all on levels or have several units.
    """
    levelled = dict(scoring.on_levels)
    for vector, parts in wanted.vectors.items():
        key = f"scores.vectors.{vector}"
        if vector in levelled or vector in VECTORS:
            raise EvaluationError(f"{key} must not have the name of a variable that is scored; give it another one")
        for absent in [part for part in parts if part not in levelled]:
            near = difflib.get_close_matches(absent, levelled, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose some of {', '.join(levelled)}"
            raise EvaluationError(f"{key} must name variables that are scored, but {absent} is not; {hint}")
        units = {part: unit_of(part) or "an unknown unit" for part in parts}
        unknown = not all(map(unit_of, parts))  # which may be different ones
        if len({levelled[part] for part in parts}) > 1 or len(set(units.values())) > 1 or unknown:
            found = ", ".join(
                f"{part} is in {unit}{' on levels' if levelled[part] else ''}" for part, unit in units.items()
            )
            raise EvaluationError(
                f"the components of {key} must have one unit that is known, and be all on levels or none, since a "
                f"distance adds their squares, but {found}; make a vector of those that are alike"
            )
    return dict(wanted.vectors)


def with_quantiles(scoring: ScoringSetup, wanted: tuple[float, ...], climatology: Climatology | None) -> ScoringSetup:
    """Add the scoring of extremes, beyond quantiles of the climatology.

    Raises:
        EvaluationError: there is no climatology, or it lacks standard deviations.
    """
    if climatology is None:
        raise EvaluationError(
            "scores.quantiles needs scores.climatology, but none is given; make one with graphcast-batch climatology, "
            "and give it with --climatology"
        )
    names = [name for name, _ in scoring.on_levels]
    return replace(scoring, quantiles=wanted, gaussian=climatology.gaussian(names, scoring.levels))


def with_spectra(scoring: ScoringSetup, wanted: Sequence[str], regions: Regions) -> ScoringSetup:
    """Add the spectra of some variables.

    Raises:
        EvaluationError: a variable is not scored, or the points are no complete latitude circles.
    """
    names = [name for name, _ in scoring.on_levels]
    absent = [name for name in wanted if name not in names]
    if absent:
        near = difflib.get_close_matches(absent[0], names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose some of {', '.join(names)}"
        raise EvaluationError(
            f"scores.spectra must name variables that are scored, but {absent[0]} is not one of them; {hint}"
        )
    held, circle = scoring.part.columns.size, scoring.truth.grid.longitude.size
    if held < circle:
        raise EvaluationError(
            f"scores.spectra needs all {circle} longitudes of a latitude circle, but the store keeps {held} of them; "
            "leave scores.spectra out, or outputs.region"
        )
    bands = bands_of(regions)
    if not bands:
        raise EvaluationError(
            "scores.spectra needs a region of complete latitude circles, such as global or tropics, but there are "
            f"{', '.join(regions.names)}; add one to scores.regions"
        )
    return replace(scoring, spectra=tuple(name for name in names if name in wanted), bands=bands)


def levels_of(wanted: ScoresConfig, kept: OutputGrid, truth: Timeline) -> tuple[int, ...]:
    """Return the levels to score, hPa: those configured, or all of the forecasts.

    Raises:
        EvaluationError: forecasts or truth lack a level.
    """
    levels = kept.levels if wanted.levels is None else tuple(sorted(set(wanted.levels)))
    for where, there in (("forecasts", kept.levels), (f"truth {truth.origin}", truth.levels)):
        absent = [level for level in levels if level not in there]
        if absent:
            common = [level for level in kept.levels if level in truth.levels]
            raise EvaluationError(
                f"the {where} must have the levels to be scored, but lack {absent} hPa and have {list(there)}; set "
                f"scores.levels to some of {common}"
            )
    return levels
