"""Score deterministic forecasts by their potential CRPS, which needs all initial times of a store at once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from graphcast_batch.app.any_path import AnyPath
from graphcast_batch.app.evaluated_config import evaluated_config
from graphcast_batch.app.executing import executor, on_cluster
from graphcast_batch.app.progress import ProgressChoice, chosen_progress
from graphcast_batch.cluster.drain import Drain
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.scores_section import ScoresConfig
from graphcast_batch.errors import ConfigError, EvaluationError
from graphcast_batch.evaluation.derived import DERIVATIONS
from graphcast_batch.evaluation.potential_crps import FEWEST_TIMES, PotentialMeans, mean_potentials
from graphcast_batch.evaluation.score_export import check_table, write_results
from graphcast_batch.evaluation.score_headlines import unit_of
from graphcast_batch.evaluation.score_results import Results
from graphcast_batch.evaluation.scoring_setup import ScoringSetup
from graphcast_batch.evaluation.store_scoring import scoring_of, truth_of
from graphcast_batch.evaluation.stored_members import complete_steps, stores_of
from graphcast_batch.plan import Case, parse_key
from graphcast_batch.stores.store_kinds import open_store
from graphcast_batch.variables import HOUR

POTENTIAL = "potential_crps"
METRICS = (POTENTIAL, "potential_crps_climatology", "potential_crpss")
"""The score of the forecasts, that of a constant forecast, and the skill of the one over the other."""


@dataclass(frozen=True, eq=False)
class PlannedPotential:
    """Which potential CRPS are to be computed; `plan_potential` returns it.

    Attributes:
        scoring: what is scored against what.
        cases: the Cases with forecast and truth, by variable and lead time, h; only those that are enough.
        few: number of Cases, by variable and lead time, h, where they are not enough.
    """

    scoring: ScoringSetup
    cases: Mapping[tuple[str, int], tuple[Case, ...]]
    few: Mapping[tuple[str, int], int]

    def check_region(self, region: str) -> None:
        """Check that a region is scored.

        Raises:
            EvaluationError: it is not.
        """
        known = self.scoring.weighed().names
        if region not in known:
            raise EvaluationError(
                f"the region must be one of those that are scored, {', '.join(known)}, but is {region}; choose one of "
                "them, or add it to scores.regions"
            )

    @property
    def fields(self) -> list[tuple[str, int | None, int]]:
        """Variable, level (hPa; None where it is not on levels) and lead time (h) of each score."""
        levelled = dict(self.scoring.on_levels)
        return [
            (name, level, hours)
            for name, hours in self.cases
            for level in (self.scoring.levels if levelled[name] else (None,))
        ]


@dataclass(frozen=True, eq=False)
class PotentialScores:
    """The potential CRPS that were computed, and which were not.

    Attributes:
        results: variables over (metric, prediction_timedelta, [level], region), with the number of initial times.
        failed: why a score could not be computed, by its variable, level and lead time.
        left: number of scores that are still to be computed, because the work was stopped.
    """

    results: Results
    failed: Mapping[str, str] = field(default_factory=dict)
    left: int = 0

    def of_region(self, region: str) -> Results:
        """Return the results of one region, given by its name."""
        found = self.results
        values, counts, held = (each.sel(region=[region]) for each in (found.values, found.counts, found.held))
        return Results(values, counts, held, found.over)

    def write_table(self, path: AnyPath) -> int:
        """Write all scores as a table, .csv or .parquet; return their number."""
        return write_results(Path(path), [self.results])


def potential_crps(
    store: AnyPath,
    truth: AnyPath | Mapping[str, Any] | None = None,
    *,
    variables: Sequence[str] | None = None,
    levels: Sequence[int] | None = None,
    lead_hours: Sequence[int] | None = None,
    out: AnyPath | None = None,
    address: str | None = None,
    progress: ProgressChoice = None,
) -> xr.Dataset:
    """Compute the CRPS that the forecasts of a store could have after the best possible calibration.

    At each point, isotonic distributional regression over all initial times together turns each forecast into a
    distribution, whose mean CRPS is the score (Gneiting et al. 2025, https://arxiv.org/abs/2506.03744). It compares
    deterministic forecasts fairly, however much they are blurred. Compare stores only at equal initial times: the
    score falls with their number, for any forecast. Of an ensemble the first member is scored.

    >>> scores = gb.potential_crps("runs/demo", variables=["geopotential"], levels=[500], lead_hours=[72, 120])
    >>> scores["geopotential"].sel(metric="potential_crpss", level=500, region="global")

    Args:
        store: folder of the store, or the path of a run's config.
        truth: as for `evaluate`.
        variables: names; without it those that the config scores.
        levels: hPa; without it those that the config scores.
        lead_hours: lead times, h; without it all that the store keeps.
        out: file for a table of all scores, .csv or .parquet.
        address: of a Ray cluster, as for `run`.
        progress: as for `run`.

    Returns:
        float64 variables over (metric, prediction_timedelta, [level], region). The metrics are ``potential_crps`` in
        the unit of the variable, ``potential_crps_climatology``, which a constant forecast has, and
        ``potential_crpss``, 1 minus their ratio: 1 is perfect, 0 is no better than climatology. The attribute ``cases``
        of a variable is the largest number of initial times behind a score, and ``variable_units`` its unit; the
        attribute ``not_scored`` names what could not be computed, with reasons.

    Raises:
        EvaluationError: there are too few initial times, or nothing could be computed.
        GraphcastBatchError: something is missing or cannot be read.
    """
    planned = plan_potential(store, truth, variables=variables, levels=levels, lead_hours=lead_hours, out=out)
    found = compute_potential(planned, address=address, progress=progress)
    if found.failed and not any(counts.any() for counts in found.results.counts.values()):
        which, why = next(iter(found.failed.items()))
        raise EvaluationError(f"the potential CRPS of {which} could not be computed: {why}")
    if out:
        found.write_table(out)
    values = found.results.values
    for name, array in values.data_vars.items():
        counts = found.results.counts[name].values
        array.attrs = {"cases": int(counts.max()), "variable_units": unit_of(str(name))}
    return values.assign_attrs(not_scored="; ".join(f"{which}: {why}" for which, why in found.failed.items()))


def plan_potential(
    store: AnyPath,
    truth: AnyPath | Mapping[str, Any] | None = None,
    *,
    variables: Sequence[str] | None = None,
    levels: Sequence[int] | None = None,
    lead_hours: Sequence[int] | None = None,
    out: AnyPath | None = None,
) -> PlannedPotential:
    """Find which scores can be computed; computes none. For the arguments see `potential_crps`.

    Raises:
        EvaluationError: too few initial times have forecast and truth at any of the lead times.
        GraphcastBatchError: forecasts and truth do not fit each other, or the table cannot be written.
    """
    if out:
        check_table(Path(out))
    config = evaluated_config(store, truth)
    opened = open_store(config.store)
    if opened.only_scores:
        raise EvaluationError(
            f"a potential CRPS is computed from stored forecasts, but {opened.path} keeps only scores (outputs: none); "
            "run again into a store that keeps forecasts"
        )
    wanted = _wanted(config.scores, opened.kept.variables, variables, levels)
    scoring = scoring_of(wanted, opened, truth_of(config, opened.kept))
    if variables is not None:
        scoring = replace(scoring, on_levels=tuple(pair for pair in scoring.on_levels if pair[0] in variables))
    hours = _chosen_hours(lead_hours, opened.kept.lead_hours)
    cases = _cases(scoring, complete_steps(stores_of(opened, ())), opened.step_hours, hours)
    enough = {key: each for key, each in cases.items() if len(each) >= FEWEST_TIMES}
    if not enough:
        most = max(map(len, cases.values()), default=0)
        raise EvaluationError(
            f"a potential CRPS needs at least {FEWEST_TIMES} initial times with forecast and truth at a lead time, but "
            f"{opened.path} has {most}; add initial times to the run"
        )
    return PlannedPotential(scoring, enough, {key: len(each) for key, each in cases.items() if key not in enough})


def compute_potential(
    planned: PlannedPotential,
    *,
    address: str | None = None,
    progress: ProgressChoice = None,
    drain: Drain | None = None,
) -> PotentialScores:
    """Compute the scores that were planned, on a Ray cluster, until asked to stop.

    Args:
        planned: what to compute.
        address: of a Ray cluster; as for `run`.
        progress: as for `run`.
        drain: as for `run`.
    """
    shown, work = chosen_progress(progress), planned.fields
    arguments = [(planned.scoring, planned.cases[name, hours], name, level, hours) for name, level, hours in work]
    failed, found = dict[str, str](), dict[tuple[str, int | None, int], PotentialMeans]()
    with on_cluster(address, drain, shown) as stopping:
        for which, result in zip(work, executor(stopping, shown, "scoring")(mean_potentials, arguments), strict=False):
            if isinstance(result, BaseException):
                name, level, hours = which
                label = f"{name}{'' if level is None else f' {level}'} at {hours} h"
                failed[label] = str(result)
                shown.report(f"{label} was not scored: {result}", "error")
            else:
                found[which] = result
    return PotentialScores(_as_results(planned, found), failed, len(work) - len(found) - len(failed))


def _wanted(
    configured: ScoresConfig, kept: Sequence[str], variables: Sequence[str] | None, levels: Sequence[int] | None
) -> ScoresConfig:
    """Return which variables and levels are scored, without what other scores need."""
    derived = configured.derived if variables is None else [name for name in variables if name in DERIVATIONS]
    chosen: dict[str, Any] = {"derived": [name for name in derived if name not in kept]}
    plain = [name for name in variables or () if name not in chosen["derived"]]
    chosen |= {"variables": plain} if plain else {} if variables is None else {"variables": None}
    chosen |= {} if levels is None else {"levels": [*levels]}
    checked = parse_config(chosen, ScoresConfig, origin="given")
    regions = {"regions": configured.regions, "boxes": configured.boxes}
    defaults = {key: getattr(configured, key) for key in ("variables", "levels") if key not in chosen}
    return checked.model_copy(update=regions | defaults)


def _chosen_hours(wanted: Sequence[int] | None, kept: Sequence[int]) -> list[int]:
    absent = [hours for hours in wanted or () if hours not in kept]
    if absent:
        raise ConfigError(
            f"lead hours must be some that the store keeps, {', '.join(map(str, kept))}, but {absent[0]} is not; "
            "choose some of those"
        )
    return sorted(set(wanted)) if wanted else list(kept)


def _cases(
    scoring: ScoringSetup, complete: Mapping[str, int], step_hours: int, hours: Sequence[int]
) -> dict[tuple[str, int], tuple[Case, ...]]:
    """Return the Cases with forecast and truth, by variable and lead time."""
    times, found = scoring.times(), dict[tuple[str, int], list[Case]]()
    for key, steps in sorted(complete.items()):
        case = Case(parse_key(key)[0], steps, step_hours)
        leads = scoring.leads_of(case).tolist()
        for name, there in scoring.held(case, times).items():
            for hour in hours:
                held = found.setdefault((name, hour), [])
                if hour in leads and there[leads.index(hour)]:
                    held.append(case)
    return {key: tuple(each) for key, each in found.items()}


def _as_results(planned: PlannedPotential, found: Mapping[tuple[str, int | None, int], PotentialMeans]) -> Results:
    """Put scores into arrays, NaN where there is none."""
    regions, scoring = planned.scoring.weighed().names, planned.scoring
    hours = sorted({hours for _, hours in planned.cases})
    values, counts = xr.Dataset(), xr.Dataset()
    for name, levelled in scoring.on_levels:
        labels: dict[str, Any] = {"metric": list(METRICS), "prediction_timedelta": np.array(hours) * HOUR}
        labels |= {**({"level": list(scoring.levels)} if levelled else {}), "region": list(regions)}
        shape = tuple(map(len, labels.values()))
        values[name] = xr.DataArray(np.full(shape, np.nan), labels, tuple(labels))
        counts[name] = xr.DataArray(np.zeros(shape, np.int64), labels, tuple(labels))
        for level, hour, means in _of_variable(found, name):
            at: dict[str, Any] = {"prediction_timedelta": np.timedelta64(hour, "h")}
            at |= {} if level is None else {"level": level}
            potential, climatological = means.potential, means.climatological
            ratio = np.divide(potential, climatological, out=np.full(len(regions), np.nan), where=climatological > 0)
            values[name].loc[at] = np.stack([potential, climatological, 1 - ratio])
            counts[name].loc[at] = means.cases
    return Results(values, counts, counts, "all")


def _of_variable(
    found: Mapping[tuple[str, int | None, int], PotentialMeans], name: str
) -> Iterator[tuple[int | None, int, PotentialMeans]]:
    return ((level, hours, means) for (each, level, hours), means in found.items() if each == name)
