"""The whole Cases of a store, or a baseline at the same times, become scores beside the forecasts."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import xarray as xr
from pydantic import JsonValue

from graphcast_batch.config.inputs_section import ArchiveInputs
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.config.scores_section import ScoresConfig as Wanted
from graphcast_batch.credentials import bare
from graphcast_batch.errors import ConfigError, EvaluationError, GridError, InputError
from graphcast_batch.evaluation.baselines import CLIMATOLOGY, PERSISTENCE, Climatological, Persistence
from graphcast_batch.evaluation.case_scoring import Fields, ForecastReader, ScoringSetup, part_of, score_case
from graphcast_batch.evaluation.climatology import Climatology
from graphcast_batch.evaluation.derived import DERIVATIONS, derivable, with_derived, with_derived_forecasts
from graphcast_batch.evaluation.ensemble import ENSEMBLE, Members, check_members
from graphcast_batch.evaluation.regions import Regions
from graphcast_batch.evaluation.score_layout import ScoreLayout
from graphcast_batch.evaluation.score_store import FORECAST, ScoreRecord, ScoreStore
from graphcast_batch.evaluation.spectra import bands_of
from graphcast_batch.inputs.case_inputs import Timeline
from graphcast_batch.inputs.sources.configured import open_source
from graphcast_batch.plan import Case, OutputGrid, parse_key
from graphcast_batch.stores.base import Store
from graphcast_batch.stores.store_kinds import open_store
from graphcast_batch.timing import Stopwatch

_OF_INPUTS: Final = re.compile(rf"(?<!\S)inputs\.(?=(?:{'|'.join(ArchiveInputs.model_fields)})\b)")
"""As messages name keys; paths are no words of their own."""


@dataclass(frozen=True)
class StoredForecasts:
    """The forecasts of a store.

    Attributes:
        path: of the store.
    """

    path: Path

    def fields(self, case: Case, names: Sequence[str], lead_hours: Sequence[int], levels: Sequence[int]) -> Fields:
        """Variables of one Case; NaN where nothing was written."""
        store, opened = self._opened
        kept = store.kept
        leads = _as_slice([kept.lead_hours.index(hours) for hours in lead_hours])
        here = opened[list(names)].isel(time=store.index_of(case), prediction_timedelta=leads)
        places = _as_slice([kept.levels.index(level) for level in levels])
        return {name: here[name].isel(level=places, missing_dims="ignore").values for name in names}

    @cached_property
    def _opened(self) -> tuple[Store, xr.Dataset]:
        store = open_store(self.path)
        return store, store.forecasts()


@dataclass(frozen=True)
class Evaluation:
    """What is to be scored of one store, and what need not be.

    Attributes:
        path: of the store.
        name: of the scores.
        scoring: what is scored against what.
        left: Cases that are to be scored.
        done: keys of those that were scored before.
        incomplete: keys of Cases of the store without a whole forecast, which are left out.
        without_truth: keys of those for which no truth is held at any lead time.
        partly: keys of those for which truth is held at some lead times, or of some variables.
        only_scores: whether the forecasts were scored as they were made, and nothing else is kept of them.
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


def evaluations(config: RunConfig, baselines: Sequence[str] = ()) -> list[Evaluation]:
    """What is to be scored of the store of a run: its forecasts, baselines at the same times, and an ensemble of them.

    Args:
        config: of the run.
        baselines: names; those that are not made here are left out.

    Raises:
        GraphcastBatchError: the store cannot be scored against its truth.
    """
    store = open_store(config.store)
    truth = truth_of(config, store.kept)
    folder = config.scores.climatology
    usual = Climatology(folder, store.kept) if folder else None
    forecasts = scoring_of(config.scores, store, truth, usual)
    wanted = {FORECAST: forecasts}
    if PERSISTENCE in baselines:
        wanted[PERSISTENCE] = replace(forecasts, forecasts=Persistence(forecasts.truth, forecasts.part))
    if CLIMATOLOGY in baselines:
        if usual is None:
            raise EvaluationError(
                "the baseline climatology needs scores.climatology, but none is given; make one with graphcast-batch "
                "climatology, and give it with --climatology"
            )
        wanted[CLIMATOLOGY] = replace(forecasts, forecasts=Climatological(usual))
    if config.scores.members:
        wanted[ENSEMBLE] = ensemble_of(forecasts, [store, *map(open_store, config.scores.members)])
    identity = identity_of(config)
    return [lay_out(store, name, scoring, identity) for name, scoring in wanted.items()]


def truth_of(config: RunConfig, kept: OutputGrid) -> Timeline:
    """Opens what forecasts are scored against: what the section scores names, or else the run's own inputs.

    Args:
        config: of the run.
        kept: what the store keeps of a forecast; a finer truth is regridded to its spacing if the section says how.

    Raises:
        InputError: it cannot be read.
        GridError: its points are not a global grid.
    """
    steps = np.diff(kept.latitude if kept.latitude.size > 1 else kept.longitude)
    resolution = float(np.round(steps.mean(), 6)) if steps.size else 0.0
    if config.scores.truth is None:
        return open_source(config.inputs, kept.levels, resolution)
    try:
        return open_source(config.scores.truth, kept.levels, resolution)
    except (InputError, GridError, ConfigError) as error:  # whose remedies name keys of a run's inputs
        raise type(error)(_OF_INPUTS.sub("scores.truth.", str(error))) from error


def scoring_of(
    wanted: Wanted,
    store: Store,
    truth: Timeline,
    usual: Climatology | None = None,
    forecasts: ForecastReader | None = None,
) -> ScoringSetup:
    """Holds what is to be scored against what there is.

    Args:
        wanted: section ``scores`` of the configuration.
        store: of the forecasts.
        truth: what came true.
        usual: climatology on the same points.
        forecasts: a baseline for those of the store; None for these themselves.

    Raises:
        EvaluationError: forecasts or truth lack a variable or level, or have other points; or there can be no spectra,
            or no quantiles.
    """
    common = {name: levelled for name, levelled in store.kept.on_levels if name in truth.dims}
    made = derivable(wanted.derived, common, f"what forecasts and {truth.origin} have in common")
    on_levels = (*_variables(wanted, store.kept, truth), *made.items())
    levels = _levels(wanted, store.kept, truth) if any(levelled for _, levelled in on_levels) else ()
    scoring = ScoringSetup(
        forecasts=forecasts or with_derived_forecasts(StoredForecasts(store.path), tuple(made)),
        truth=with_derived(truth, tuple(made)),
        usual=usual,
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
        rainy=() if usual is None else usual.rainy([name for name, _ in on_levels]),
    )
    regions = scoring.weighed()
    if usual is not None:
        usual.check([name for name, _ in on_levels], levels)
    if wanted.quantiles:
        scoring = _with_quantiles(scoring, wanted.quantiles, usual)
    return _with_spectra(scoring, wanted.spectra, regions) if wanted.spectra else scoring


def ensemble_of(scoring: ScoringSetup, stores: Sequence[Store]) -> ScoringSetup:
    """The same of the ensemble that several stores are, of which only the first is scored.

    SEEPS and spectra are of single forecasts, and left out.

    Args:
        scoring: of the first store.
        stores: of all members.

    Raises:
        EvaluationError: they cannot be one.
    """
    check_members(stores)
    derived = tuple(scoring.steps)
    held = tuple(with_derived_forecasts(StoredForecasts(store.path), derived) for store in stores)
    paths = tuple(store.path for store in stores)
    return replace(scoring, forecasts=Members(held), members=paths, rainy=(), spectra=(), bands=())


def lay_out(store: Store, name: str, scoring: ScoringSetup, identity: Mapping[str, JsonValue]) -> Evaluation:
    """Makes room for scores, and finds out which Cases are to be scored.

    Args:
        store: of the forecasts.
        name: of the scores.
        scoring: what is scored against what.
        identity: what makes scores comparable beside variables, levels and regions: truth and climatology.

    Raises:
        StoreMismatchError: there are scores of that name which cannot be compared.
        StoreError: the store cannot be read or written.
    """
    records = ScoreStore.lay_out(store.path, name, scored_by(scoring, scoring.weighed(), identity)).records()
    times, stores = scoring.times(), _stores(store, scoring)
    complete = _complete(stores)
    only_scores = store.only_scores and name == FORECAST
    if only_scores:
        complete = {key: steps for key, steps in complete.items() if key in records}
    known = np.unique(np.concatenate([each.init_times for each in stores]))
    absent = tuple(str(time) for time in known if str(time) not in complete)
    left, done, without, partly = list[Case](), list[str](), list[str](), list[str]()
    for key, steps in sorted(complete.items()):
        init_time, member = parse_key(key)
        case = Case(init_time, steps, store.step_hours, member=member)
        held = scoring.held(case, times)
        fields, most = (sum(int(at.sum()) for at in each.values()) for each in (held, scoring.forecast(case)))
        record = records.get(key)
        if not fields:
            without.append(key)
        elif only_scores or (record and record.fields >= fields and record.forecast == _forecast_id(stores, case)):
            done.append(key)
        else:
            left.append(case)
        if 0 < fields < most:
            partly.append(key)
    keys = (tuple(done), absent, tuple(without), tuple(partly))
    return Evaluation(store.path, name, scoring, tuple(left), *keys, only_scores)


def scored_by(scoring: ScoringSetup, regions: Regions, identity: Mapping[str, JsonValue]) -> ScoreLayout:
    """What the scores are by that a scoring gives; see `lay_out`."""
    others = sorted(str(path.resolve()) for path in scoring.members[1:])
    return ScoreLayout(
        statistics=scoring.statistics,
        on_levels=scoring.on_levels,
        levels=scoring.levels,
        regions=regions.names,
        areas=regions.totals,
        identity={**identity, **({"members": [*others]} if others else {})},
        spectra=scoring.spectra,
        bands=scoring.bands,
    )


def identity_of(config: RunConfig) -> dict[str, JsonValue]:
    """What makes scores comparable beside variables, levels and regions."""
    inputs = config.scores.truth or config.inputs
    climatology = config.scores.climatology
    truth = bare(inputs.model_dump(mode="json"))
    return {"truth": truth, "climatology": None if climatology is None else str(climatology)}


def score_stored(path: Path, name: str, scoring: ScoringSetup, case: Case) -> ScoreRecord | None:
    """Scores one Case and writes what came out; None if another process is just doing that.

    Args:
        path: of the store.
        name: of the scores.
        scoring: what is scored against what.
        case: which.

    Raises:
        GraphcastBatchError: forecast or truth cannot be read or are not finite, or scores not written.
    """
    scores, store, watch = ScoreStore.at(path, name), open_store(path), Stopwatch()
    lease = scores.lease(case)
    if lease is None:
        return None
    with scores.keeping(lease):
        forecast = _forecast_id(_stores(store, scoring), case)
        sums = score_case(scoring, case, watch)
        fields = sum(int(there.sum()) for there in scoring.held(case, scoring.times()).values())
        means = {name: found.means for name, found in sums.items()}
        return scores.write(store.index_of(case), case, means, fields, forecast, watch.seconds, lease)


def _stores(store: Store, scoring: ScoringSetup) -> list[Store]:
    """Those whose forecasts are scored: one, or all members of an ensemble."""
    return [store, *(open_store(path) for path in scoring.members[1:])]


def _complete(stores: Sequence[Store]) -> dict[str, int]:
    """How many steps of each Case are whole, by its key, of those that are equally long in all stores."""
    first, *others = (store.ledger.complete_steps() for store in stores)
    return {key: steps for key, steps in first.items() if all(other.get(key) == steps for other in others)}


def _forecast_id(stores: Sequence[Store], case: Case) -> str:
    """When the forecasts were made, which others that take their place have not in common with them."""
    records = (store.ledger.record_of(case.key, case.steps) for store in stores)
    return " ".join(record.finished_at if record else "" for record in records)


def _variables(wanted: Wanted, kept: OutputGrid, truth: Timeline) -> tuple[tuple[str, bool], ...]:
    """Those that are wanted, or else all that forecasts and truth have in common."""
    common = tuple((name, levelled) for name, levelled in kept.on_levels if name in truth.dims)
    for name in wanted.variables or ():
        if name not in dict(common):
            which = "forecasts" if name not in kept.variables else "truth"
            near = difflib.get_close_matches(name, dict(common), n=1)
            hint = f"did you mean {near[0]}?" if near else f"take some of {', '.join(dict(common))}"
            raise EvaluationError(
                f"scores.variables: {name} must be in the forecasts and in the truth, but the {which} lack it; {hint}"
            )
    chosen = tuple(pair for pair in common if wanted.variables is None or pair[0] in wanted.variables)
    if not chosen:
        raise EvaluationError(
            f"forecasts and truth must have variables in common, but the former have {', '.join(kept.variables)} and "
            f"{truth.origin} has {', '.join(sorted(truth.dims))}; set names in scores.truth"
        )
    for name, levelled in chosen:
        if ("level" in truth.dims[name]) != levelled:
            has, lacks = ("the forecasts", "the truth") if levelled else ("the truth", "the forecasts")
            raise EvaluationError(
                f"{name} must be on levels on both sides or on neither, but {has} have it on levels and {lacks} not; "
                "give a truth of the same variables"
            )
    return chosen


def _with_quantiles(scoring: ScoringSetup, wanted: tuple[float, ...], usual: Climatology | None) -> ScoringSetup:
    """The same with what is extreme."""
    if usual is None:
        raise EvaluationError(
            "scores.quantiles needs scores.climatology, but none is given; make one with graphcast-batch climatology, "
            "and give it with --climatology"
        )
    names = [name for name, _ in scoring.on_levels]
    return replace(scoring, quantiles=wanted, gaussian=usual.gaussian(names, scoring.levels))


def _with_spectra(scoring: ScoringSetup, wanted: Sequence[str], regions: Regions) -> ScoringSetup:
    """The same with spectra of some variables."""
    names = [name for name, _ in scoring.on_levels]
    absent = [name for name in wanted if name not in names]
    if absent:
        near = difflib.get_close_matches(absent[0], names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"take some of {', '.join(names)}"
        raise EvaluationError(
            f"scores.spectra must be of variables that are scored, but {absent[0]} is not one of them; {hint}"
        )
    held, circle = scoring.part.columns.size, scoring.truth.grid.longitude.size
    if held < circle:
        raise EvaluationError(
            f"scores.spectra needs whole latitude circles of {circle} longitudes, but the store keeps {held} of them; "
            "leave scores.spectra out, or outputs.region"
        )
    bands = bands_of(regions)
    if not bands:
        raise EvaluationError(
            "scores.spectra needs a region of whole latitude circles, such as global or tropics, but there are "
            f"{', '.join(regions.names)}; add one to scores.regions"
        )
    return replace(scoring, spectra=tuple(name for name in names if name in wanted), bands=bands)


def _levels(wanted: Wanted, kept: OutputGrid, truth: Timeline) -> tuple[int, ...]:
    """Those that are wanted, or else all of the forecasts."""
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


def _as_slice(places: Sequence[int]) -> slice | list[int]:
    """Consecutive places as a slice, which is read several times faster than a list of them."""
    consecutive = list(places) == list(range(places[0], places[0] + len(places))) if places else False
    return slice(places[0], places[-1] + 1) if consecutive else list(places)
