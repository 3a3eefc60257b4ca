"""Find out what is to be scored of a store and its baselines, and score one Case after another."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from graphcast_batch.config.inputs_section import ArchiveInputs
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.config.scores_section import ScoresConfig
from graphcast_batch.credentials import bare
from graphcast_batch.errors import ConfigError, EvaluationError, GridError, InputError
from graphcast_batch.evaluation.baselines import CLIMATOLOGY, PERSISTENCE, ClimatologyForecast, Persistence
from graphcast_batch.evaluation.case_scoring import score_case
from graphcast_batch.evaluation.climatology import Climatology
from graphcast_batch.evaluation.derived import DERIVATIONS, derivable, with_derived, with_derived_forecasts
from graphcast_batch.evaluation.ensemble import ENSEMBLE, EnsembleForecasts, check_members
from graphcast_batch.evaluation.group_scoring import GroupScoring, lay_out_groups, stored_groups
from graphcast_batch.evaluation.lagged import LAGGED, lagged_members
from graphcast_batch.evaluation.past_years import CLIMATOLOGY_YEARS, WeatherOfYear, check_years
from graphcast_batch.evaluation.score_choices import (
    levels_of,
    thresholds_of,
    variables_of,
    vectors_of,
    with_quantiles,
    with_spectra,
)
from graphcast_batch.evaluation.score_store import FORECAST, ScoreRecord
from graphcast_batch.evaluation.scoring_setup import ForecastReader, ScoringSetup, part_of
from graphcast_batch.evaluation.stored_forecasts import readers_of
from graphcast_batch.evaluation.stored_members import (
    PastYear,
    StoredMember,
    complete_steps,
    forecast_id,
    members_of,
    stores_of,
)
from graphcast_batch.inputs.case_inputs import Timeline
from graphcast_batch.inputs.sources.configured import open_source
from graphcast_batch.plan import Case, case_key, parse_key
from graphcast_batch.stores.base import Store
from graphcast_batch.stores.layout import OutputGrid
from graphcast_batch.stores.store_kinds import open_store
from graphcast_batch.timing import Stopwatch

_OF_INPUTS: Final = re.compile(rf"(?<!\S)inputs\.(?=(?:{'|'.join(ArchiveInputs.model_fields)})\b)")
"""Matches the keys of inputs in messages; the same text within a path does not match."""


@dataclass(frozen=True)
class Evaluation:
    """Which Cases of one store are to be scored, and which are not.

    Attributes:
        path: of the store.
        name: of the scores.
        scoring: what is scored against what.
        left: Cases that are to be scored.
        done: keys of Cases that were scored before.
        incomplete: keys of Cases without a complete forecast of each member, which are not scored.
        without_truth: keys of Cases without truth at any lead time, which are not scored.
        partly: keys of Cases with truth at some lead times only, or of some variables only.
        only_scores: whether the store keeps only online scores and no forecasts.
        removed: keys of Cases that were not scored before the values of their members were removed.
    """

    path: Path
    name: str
    scoring: ScoringSetup
    left: tuple[Case, ...]
    done: tuple[str, ...]
    incomplete: tuple[str, ...]
    without_truth: tuple[str, ...]
    partly: tuple[str, ...]
    only_scores: bool = False
    removed: tuple[str, ...] = ()


def evaluations(config: RunConfig, baselines: Sequence[str] = ()) -> list[Evaluation]:
    """Lay out the scores of a run's store: its forecasts, baselines at the same times, and its ensembles.

    Args:
        config: of the run.
        baselines: names of baselines: persistence or climatology; other names are ignored.

    Raises:
        GraphcastBatchError: the store cannot be scored against its truth.
    """
    store = open_store(config.store)
    truth = truth_of(config, store.kept)
    folder = config.scores.climatology
    climatology = Climatology(folder, store.kept) if folder else None
    forecasts = scoring_of(config.scores, store, truth, climatology)
    wanted = {FORECAST: forecasts}
    if PERSISTENCE in baselines:
        # Whether there is an ensemble to compare with or not: the next evaluation may have another answer.
        wanted[PERSISTENCE] = dressed(replace(forecasts, forecasts=Persistence(forecasts.truth, forecasts.part)))
    if CLIMATOLOGY in baselines:
        if climatology is None:
            raise EvaluationError(
                "the baseline climatology needs scores.climatology, but none is given; make one with graphcast-batch "
                "climatology, and give it with --climatology"
            )
        wanted[CLIMATOLOGY] = replace(forecasts, forecasts=ClimatologyForecast(climatology))
    stores = [store, *map(open_store, config.scores.members)]
    if len(stores) > 1 or len(store.members) > 1:
        wanted[ENSEMBLE] = ensemble_of(forecasts, stores)
    if config.scores.lagged:
        wanted[LAGGED] = ensemble_scoring(forecasts, lagged_members(store, config.scores.lagged))
    if config.scores.climatology_years:
        years = range(config.scores.climatology_years.first, config.scores.climatology_years.last + 1)
        check_years(forecasts, store.init_times, years)
        weather = tuple(WeatherOfYear(forecasts.truth, forecasts.part, year) for year in years)
        wanted[CLIMATOLOGY_YEARS] = _as_ensemble(forecasts, tuple(map(PastYear, years)), weather)
    identity = identity_of(config, climatology)
    return [lay_out(store, name, scoring, identity) for name, scoring in wanted.items()]


def truth_of(config: RunConfig, kept: OutputGrid) -> Timeline:
    """Open the truth that forecasts are scored against: that of the section scores, or else the run's own inputs.

    Args:
        config: of the run.
        kept: output grid of the store; a finer truth is regridded to its spacing if the section scores says how.

    Raises:
        InputError: the truth cannot be read.
        GridError: the points of the truth are not a global grid.
    """
    steps = np.diff(kept.latitude if kept.latitude.size > 1 else kept.longitude)
    resolution = float(np.round(steps.mean(), 6)) if steps.size else 0.0
    if config.scores.truth is None:
        return open_source(config.inputs, kept.levels, resolution)
    try:
        return open_source(config.scores.truth, kept.levels, resolution)
    except (InputError, GridError, ConfigError) as error:  # the messages name keys of section inputs
        raise type(error)(_OF_INPUTS.sub("scores.truth.", str(error))) from error


def scoring_of(
    wanted: ScoresConfig,
    store: Store,
    truth: Timeline,
    climatology: Climatology | None = None,
    forecasts: ForecastReader | None = None,
) -> ScoringSetup:
    """Set up a scoring: check that forecasts, truth and climatology have all that the section ``scores`` asks for.

    Args:
        wanted: section ``scores`` of the configuration.
        store: of the forecasts.
        truth: the verification.
        climatology: on the same points; None to score without anomalies.
        forecasts: a baseline to score in place of the store's forecasts; None for the store's own.

    Raises:
        EvaluationError: forecasts, truth or climatology lack a variable or level, or have other points; or spectra
            or quantiles cannot be computed.
    """
    common = {name: levelled for name, levelled in store.kept.on_levels if name in truth.dims}
    made = derivable(wanted.derived, common, f"what forecasts and {truth.origin} have in common")
    on_levels = (*variables_of(wanted, store.kept, truth), *made.items())
    levels = levels_of(wanted, store.kept, truth) if any(levelled for _, levelled in on_levels) else ()
    if climatology is not None:
        climatology.check([name for name, _ in on_levels], levels)
    scoring = ScoringSetup(
        forecasts=forecasts or with_derived_forecasts(readers_of(members_of(store)[:1])[0], tuple(made)),
        truth=with_derived(truth, tuple(made)),
        climatology=climatology,
        on_levels=on_levels,
        levels=levels,
        lead_hours=store.kept.lead_hours,
        part=part_of(
            f"truth {truth.origin}",
            (truth.grid.latitude, truth.grid.longitude),
            (store.kept.latitude, store.kept.longitude),
            "set regrid in scores.truth, or give a truth on that grid",
        ),
        regions=wanted.regions,
        boxes=wanted.boxes,
        block=store.block_steps,
        steps={name: DERIVATIONS[name].steps for name in made},
        seeps_variables=() if climatology is None else climatology.seeps_variables([name for name, _ in on_levels]),
    )
    regions = scoring.weighed()
    thresholds, vectors = thresholds_of(wanted, scoring), vectors_of(wanted, scoring)
    scoring = replace(scoring, thresholds=thresholds, vectors=vectors, reliability=wanted.reliability)
    if wanted.quantiles:
        scoring = with_quantiles(scoring, wanted.quantiles, climatology)
    return with_spectra(scoring, wanted.spectra, regions) if wanted.spectra else scoring


def ensemble_of(scoring: ScoringSetup, stores: Sequence[Store]) -> ScoringSetup:
    """Set up the scoring of an ensemble of all members of some stores, from that of its first member.

    Args:
        scoring: of the first store.
        stores: those that hold the members; the first is the one that the scores are written to.

    Raises:
        EvaluationError: the stores cannot be members of one ensemble.
    """
    check_members(stores)
    return ensemble_scoring(scoring, tuple(member for store in stores for member in members_of(store)))


def ensemble_scoring(scoring: ScoringSetup, members: tuple[StoredMember, ...]) -> ScoringSetup:
    """Set up the scoring of an ensemble of stored forecasts from that of a single one.

    Args:
        scoring: of a single forecast of the store that the scores are written to.
        members: of the ensemble.
    """
    derived = tuple(scoring.steps)
    held = tuple(with_derived_forecasts(reader, derived) for reader in readers_of(members))
    return _as_ensemble(scoring, members, held)


def _as_ensemble(
    scoring: ScoringSetup, members: tuple[StoredMember | PastYear, ...], held: tuple[ForecastReader, ...]
) -> ScoringSetup:
    """Return the scoring of several forecasts as one ensemble.

    SEEPS is defined for single forecasts, and left out; vectors are scored of ensembles alone.
    """
    climatology, levelled = scoring.climatology, dict(scoring.on_levels)
    vectors = tuple((name, levelled[parts[0]]) for name, parts in scoring.vectors.items())
    return replace(
        scoring,
        forecasts=EnsembleForecasts(held),
        members=members,
        on_levels=(*scoring.on_levels, *vectors),
        gaussian=scoring.gaussian or (climatology.deviating([*levelled]) if climatology else ()),
        seeps_variables=(),
    )


def dressed(scoring: ScoringSetup) -> ScoringSetup:
    """Add the score of a single forecast as a Gaussian distribution, to compare ensembles with.

    Its standard deviation is that of the climatology. Nothing is added for variables without one, and precipitation.

    Args:
        scoring: of a single forecast.
    """
    deviating = scoring.climatology.deviating([name for name, _ in scoring.on_levels]) if scoring.climatology else ()
    return replace(scoring, gaussian=scoring.gaussian or deviating, dressed=True)


def lay_out(store: Store, name: str, scoring: ScoringSetup, identity: Mapping[str, JsonValue]) -> Evaluation:
    """Lay out the arrays of scores, and find out which Cases are to be scored.

    For the arguments see `lay_out_groups`.

    Raises:
        StoreMismatchError: existing scores of that name are not comparable with these.
        StoreError: the store cannot be read or written.
    """
    groups = lay_out_groups(store, name, scoring, identity)
    records = [group.scores.records() for group in groups]
    times, members = scoring.times(), stores_of(store, scoring.members)
    complete = complete_steps(members)
    only_scores = store.only_scores and name == FORECAST
    dropped = {case_key(parse_key(key)[0]) for key in store.ledger.dropped_steps()} - complete.keys()
    # What was scored before the values were dropped stays scored.
    gone, removed = ({key for key in dropped if (key in records[0]) is each} for each in (True, False))
    if only_scores:
        complete = {key: steps for key, steps in complete.items() if key in records[0]}
    known = np.unique(np.concatenate([each.init_times for each, _ in members]))
    absent = [str(time) for time in known if str(time) not in complete and str(time) not in dropped]
    left, done, without, partly = list[Case](), [*gone], list[str](), list[str]()
    for key, steps in sorted(complete.items()):
        case = Case(parse_key(key)[0], steps, store.step_hours)
        held = scoring.held(case, times)
        fields, most = (sum(int(at.sum()) for at in each.values()) for each in (held, scoring.forecast(case)))
        made = forecast_id(members, case)
        pairs = [(group, found.get(key)) for group, found in zip(groups, records, strict=True)]
        if not fields:
            (without if most or not any(scoring.lags) else absent).append(key)
        elif only_scores or all(_is_scored(record, group, held, made) for group, record in pairs):
            done.append(key)
        else:
            left.append(case)
        if 0 < fields < most:
            partly.append(key)
    keys = (tuple(sorted(done)), tuple(sorted(absent)), tuple(without), tuple(partly))
    return Evaluation(store.path, name, scoring, tuple(left), *keys, only_scores, tuple(sorted(removed)))


def identity_of(config: RunConfig, climatology: Climatology | None) -> dict[str, JsonValue]:
    """Return what makes scores comparable beside variables, levels and regions: truth and climatology."""
    inputs = config.scores.truth or config.inputs
    truth = bare(inputs.model_dump(mode="json"))
    return {"truth": truth, "climatology": None if climatology is None else climatology.identity}


def score_stored(
    path: Path,
    name: str,
    scoring: ScoringSetup,
    case: Case,
    advanced: Callable[[], None] = lambda: None,
    reading: AbstractContextManager[object] | None = None,
) -> ScoreRecord | None:
    """Score one Case and write its scores; return None if another process is scoring it.

    Args:
        path: of the store.
        name: of the scores.
        scoring: what is scored against what.
        case: to score.
        advanced: called whenever something more was read.
        reading: context within which truth and climatology are read, where other threads read too; it is entered again
            and again.

    Raises:
        GraphcastBatchError: forecast or truth cannot be read or is not finite, or the scores cannot be written.
    """
    store, record = open_store(path), None
    for group in stored_groups(path, name, scoring):
        record = _score_group(store, group, case, advanced, reading)
        if record is None:
            break
    return record


def _score_group(
    store: Store,
    group: GroupScoring,
    case: Case,
    advanced: Callable[[], None],
    reading: AbstractContextManager[object] | None,
) -> ScoreRecord | None:
    """Score one Case in one group of the scores, unless it has been; return None if another process is scoring it."""
    lease = group.scores.lease(case)
    if lease is None:
        return None
    with group.scores.keeping(lease):
        forecast = forecast_id(stores_of(store, group.scoring.members), case)
        held = group.scoring.held(case, group.scoring.times())
        record, watch = ScoreRecord.read(group.scores.record_path(case.key)), Stopwatch()
        if record and _is_scored(record, group, held, forecast):
            return record
        sums = score_case(group.scoring, case, watch, advanced, reading)
        means = {name: found.means for name, found in sums.items()}
        return group.scores.write(
            _time_index(store, case), case, means, _count(group, held), forecast, watch.seconds, lease
        )


def _is_scored(
    record: ScoreRecord | None, group: GroupScoring, held: Mapping[str, NDArray[np.bool_]], forecast: str
) -> bool:
    """Whether a group has the scores of a Case's present forecast at all lead times that can be scored."""
    return record is not None and record.fields >= _count(group, held) and record.forecast == forecast


def _count(group: GroupScoring, held: Mapping[str, NDArray[np.bool_]]) -> int:
    """Count the pairs of variable and lead time that can be scored of a group."""
    return sum(int(held[name].sum()) for name, _ in group.scoring.on_levels)


def _time_index(store: Store, case: Case) -> int:
    return store.place_of(replace(case, member=members_of(store)[0].number))["time"]
