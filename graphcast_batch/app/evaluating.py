"""Score the forecasts of a store against the truth, beside baselines and as ensembles."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.app.any_path import AnyPath
from graphcast_batch.app.evaluated_config import evaluated_config
from graphcast_batch.app.evaluation_checks import COMPUTED_BASELINES, check_baseline, check_spectra_out
from graphcast_batch.app.executing import executor, on_cluster
from graphcast_batch.app.progress import Progress, ProgressChoice, chosen_progress
from graphcast_batch.cluster.drain import Drain
from graphcast_batch.evaluation.comparison import check_alike
from graphcast_batch.evaluation.ensemble import ENSEMBLE
from graphcast_batch.evaluation.score_export import check_table, write_tables
from graphcast_batch.evaluation.score_groups import open_groups
from graphcast_batch.evaluation.score_headlines import read_headlines, unit_of
from graphcast_batch.evaluation.score_results import (
    Over,
    Results,
    average,
    average_pieces,
    pieces,
    scored,
)
from graphcast_batch.evaluation.score_store import FORECAST, ScoreRecord
from graphcast_batch.evaluation.spectra import Loss, losses, write_spectra
from graphcast_batch.evaluation.store_scoring import Evaluation, evaluations, score_stored


@dataclass(frozen=True, eq=False)
class PlannedEvaluation:
    """An evaluation that is planned and checked, but not begun; `plan_evaluation` returns it.

    Attributes:
        parts: what is to be scored: the forecasts first, then the baselines and the ensembles.
        baselines: folders of other stores that were scored before.
    """

    parts: tuple[Evaluation, ...]
    baselines: tuple[str, ...]

    @property
    def left(self) -> int:
        """Number of scores, one for each Case and part, that are still to be computed."""
        return sum(len(part.left) for part in self.parts)

    @property
    def places(self) -> dict[str, tuple[Path, str]]:
        """By name of a forecast: the folder of the store that holds its scores, and their name in it."""
        own = {part.name: (part.path, part.name) for part in self.parts}
        return own | {other: (Path(other), FORECAST) for other in self.baselines}


@dataclass(frozen=True, eq=False)
class ScoringResult:
    """How a scoring ended.

    Attributes:
        planned: what was to be scored.
        done: number of scores that were computed.
        failed: by name of the scores and key of the Case, why it could not be scored.
        left: number of scores that are still to be computed, because the scoring was stopped or another process is
            computing them.
        busy: names and keys of those that another process is computing.
    """

    planned: PlannedEvaluation
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    left: int = 0
    busy: tuple[str, ...] = ()

    @property
    def vector_units(self) -> dict[str, str]:
        """Units of the vectors that ensembles are scored with, by name."""
        return {name: unit_of(parts[0]) for name, parts in self.planned.parts[0].scoring.vectors.items()}

    def averages(self, region: str) -> dict[str, Results]:
        """Average the headline scores of each forecast over the initial times that all have; empty if none are scored.

        Args:
            region: name of the region.
        """
        there = {name: place for name, place in self.planned.places.items() if scored(*place)}
        if FORECAST not in there:
            return {}
        alike, common = common_times(there)
        return {name: average(read_headlines(*there[name], region).sel(time=common)) for name in alike}

    def dataset(self, over: Over = "all") -> xr.Dataset:
        """Read all scores as a dataset; see `evaluate`."""
        first = self.planned.parts[0]
        there = {name: place for name, place in self.planned.places.items() if name == FORECAST or scored(*place)}
        alike, common = common_times(there)
        found = {
            name: average_pieces(pieces(*place) if over == "each" else _of_times(pieces(*place), common), over)
            for name, place in there.items()
            if name in alike
        }
        reasons = [f"{which}: {why}" for which, why in self.failed.items()]
        reasons += [f"{name}: no initial time in common with the forecasts" for name in there if name not in alike]
        reasons += [f"{which}: another process is doing that" for which in self.busy]
        return _side_by_side(found, self.vector_units).assign_attrs(
            truth=first.scoring.truth.origin,
            incomplete=" ".join(first.incomplete),
            without_truth=" ".join(first.without_truth),
            not_scored="; ".join(reasons),
        )

    def write_table(self, path: AnyPath, over: Over = "all") -> int:
        """Write all scores of the forecasts as a table; with an ensemble, its scores first.

        The column ``scores`` then says which are which; those of the ensemble are named so, and those of its first
        member ``forecast``. A lagged ensemble is a baseline, and its scores are not in the table.

        Args:
            path: file to write, .csv or .parquet.
            over: initial times that each score is averaged over; as for `evaluate`.

        Returns:
            The number of scores; 0 if there are none, and then no file is written.
        """
        return write_tables(self._tabulated, Path(path), over)

    def power_losses(self, region: str) -> list[Loss]:
        """Return from which wavenumber on the forecasts have lost half their power; empty without spectra."""
        first = self.planned.parts[0]
        if not first.scoring.spectra or region not in first.scoring.bands or not scored(first.path, first.name):
            return []
        return losses(first.path, first.name, region)

    def write_spectra(self, path: AnyPath) -> int:
        """Write the spectra of the forecasts as CSV; with an ensemble, those of the ensemble first, as in the table.

        Args:
            path: file to write.

        Returns:
            The number of wavenumbers; 0 if nothing is scored, and then no file is written.
        """
        return write_spectra(self._tabulated, Path(path))

    @property
    def _tabulated(self) -> dict[str, tuple[Path, str]]:
        """Where the scores are that a table has."""
        places = self.planned.places
        return {name: places[name] for name in (ENSEMBLE, FORECAST) if name in places and scored(*places[name])}


def evaluate(
    store: AnyPath,
    truth: AnyPath | Mapping[str, Any] | None = None,
    climatology: AnyPath | None = None,
    baselines: Sequence[AnyPath] = (),
    *,
    members: Sequence[AnyPath] = (),
    lagged: Sequence[int] = (),
    climatology_years: tuple[int, int] | None = None,
    over: Over = "all",
    out: AnyPath | None = None,
    spectra_out: AnyPath | None = None,
    address: str | None = None,
    progress: ProgressChoice = None,
) -> xr.Dataset:
    """Score the Cases of a store that are not scored yet, and return all scores.

    >>> scores = gb.evaluate("runs/demo", baselines=["persistence"])
    >>> scores["geopotential"].sel(metric="rmse", level=500, region="global", forecast="forecast")

    Args:
        store: folder of the store, or the path of a run's config.
        truth: what the forecasts are scored against: the path or address of an archive, the path of a config whose
            inputs are the truth, or a section ``inputs``; without it the truth that the config names.
        climatology: folder of a climatology, for anomaly correlations; without it the one that the config names.
        baselines: "persistence", "climatology", or folders of other stores that were scored.
        members: folders of stores with other forecasts from the same initial times; all together are scored as an
            ensemble.
        lagged: hours by which earlier forecasts of the store, valid at the same times, form a lagged ensemble with each
            forecast; without them the ones that the config names.
        climatology_years: the first and last of the years of which the truth at the same times of the year forms an
            ensemble; without them those that the config names.
        over: initial times that each score is averaged over: ``all``, ``each`` by itself, or those of an ``hour`` of
            the day, a ``month`` or a ``season``.
        out: file for a table of all scores, .csv or .parquet.
        spectra_out: CSV file for the power of the variables in ``scores.spectra`` by wavenumber.
        address: of a Ray cluster, as for `run`; not needed if nothing is to be scored.
        progress: as for `run`.

    Returns:
        float64 variables over (forecast, metric, [time, hour, month or season], prediction_timedelta, [level], region),
        of which ``forecast`` is "forecast", a baseline, "ensemble", "lagged" or "climatology_years"; NaN where nothing
        was scored or a metric is undefined. The attributes ``incomplete``, ``without_truth`` and ``not_scored`` name
        the Cases that were left out, the last with reasons. The attribute ``cases`` of a variable is the largest number
        of initial times behind a score of the forecast, and ``variable_units`` is the unit of the variable; a metric is
        in that unit, in its square, or has none.

    Raises:
        EvaluationError: forecasts, truth, climatology or baselines do not fit each other, or nothing could be scored.
        GraphcastBatchError: something is missing or cannot be read.
    """
    planned = plan_evaluation(
        store,
        truth,
        climatology,
        baselines,
        members=members,
        lagged=lagged,
        climatology_years=climatology_years,
        out=out,
        spectra_out=spectra_out,
    )
    result = score(planned, address=address, progress=progress)
    if out:
        result.write_table(out, over)
    if spectra_out:
        result.write_spectra(spectra_out)
    return result.dataset(over)


def plan_evaluation(
    store: AnyPath,
    truth: AnyPath | Mapping[str, Any] | None = None,
    climatology: AnyPath | None = None,
    baselines: Sequence[AnyPath] = (),
    *,
    members: Sequence[AnyPath] = (),
    lagged: Sequence[int] = (),
    climatology_years: tuple[int, int] | None = None,
    out: AnyPath | None = None,
    spectra_out: AnyPath | None = None,
) -> PlannedEvaluation:
    """Find which scores are to be computed, and check that they can be written; computes none.

    Args:
        store: as for `evaluate`, like all other arguments.
        truth: what the forecasts are scored against.
        climatology: folder of a climatology.
        baselines: names or folders of stores.
        members: folders of stores.
        lagged: hours.
        climatology_years: first and last.
        out: file for a table of all scores.
        spectra_out: CSV file for spectra.

    Raises:
        GraphcastBatchError: the store cannot be scored like this, or a file cannot be written.
    """
    if out:
        check_table(Path(out))
    config = evaluated_config(Path(store), truth, climatology, members, lagged, climatology_years)
    if spectra_out:
        check_spectra_out(Path(spectra_out), config)
    named = [os.fspath(one) for one in baselines]
    others = tuple(one for one in named if one not in COMPUTED_BASELINES)
    for other in others:
        check_baseline(other)
    planned = PlannedEvaluation(tuple(evaluations(config, named)), others)
    for other in others:
        check_alike((config.store, FORECAST), (Path(other), FORECAST))
    return planned


def _of_times(parts: Iterator[xr.Dataset], wanted: NDArray[np.datetime64]) -> Iterator[xr.Dataset]:
    for part in parts:
        times = np.intersect1d(part["time"].values, wanted)
        if times.size:
            yield part.sel(time=times)


def common_times(places: Mapping[str, tuple[Path, str]]) -> tuple[list[str], NDArray[np.datetime64]]:
    """Return the initial times that are scored of all forecasts, so that their averages are of the same weather.

    Args:
        places: of the forecasts and of others; an other is left out if it has no initial time in common with the
            forecasts and those before it.

    Returns:
        The names that are not left out, first that of the forecasts; and (time,) initial times.
    """
    alike, common = [FORECAST], open_groups(*places[FORECAST])[0].times
    for name in [name for name in places if name != FORECAST]:
        both = np.intersect1d(common, open_groups(*places[name])[0].times)
        if both.size:
            alike, common = [*alike, name], both
    return alike, common


def score(
    planned: PlannedEvaluation,
    *,
    address: str | None = None,
    progress: ProgressChoice = None,
    drain: Drain | None = None,
) -> ScoringResult:
    """Compute the scores that are left, on a Ray cluster, until asked to stop.

    Args:
        planned: what to score.
        address: of a Ray cluster; as for `run`.
        progress: as for `run`.
        drain: as for `run`.
    """
    if not planned.left or (drain and drain.asked):
        return ScoringResult(planned, left=planned.left)
    shown = chosen_progress(progress)
    with on_cluster(address, drain, shown) as stopping:
        return _counted(planned, _scored(planned, stopping, shown), shown)


def _scored(
    planned: PlannedEvaluation, drain: Drain, progress: Progress
) -> Iterator[tuple[str, ScoreRecord | BaseException | None]]:
    """Score Cases on the connected cluster.

    Yields:
        Name of the scores and key of the Case, with the record of its scores; with an exception if it cannot be scored;
        with None if another process is scoring it.
    """
    work = [(part.path, part.name, part.scoring, case) for part in planned.parts for case in part.left]
    results = executor(drain, progress, "scoring")(score_stored, work)
    for (_, name, _, case), result in zip(work, results, strict=False):
        yield f"{name} {case.key}", result


def _counted(
    planned: PlannedEvaluation, results: Iterator[tuple[str, ScoreRecord | BaseException | None]], progress: Progress
) -> ScoringResult:
    done, failed, busy = 0, dict[str, str](), list[str]()
    for which, result in results:
        if isinstance(result, BaseException):
            failed[which] = str(result)
            progress.report(f"{which} was not scored: {result}", "error")
        elif result is None:
            busy.append(which)
        else:
            done += 1
    return ScoringResult(planned, done, failed, planned.left - done - len(failed), tuple(busy))


def _side_by_side(results: Mapping[str, Results], vector_units: Mapping[str, str]) -> xr.Dataset:
    names = xr.DataArray(list(results), dims="forecast", name="forecast")
    joined = xr.concat([one.values for one in results.values()], names, join="outer", data_vars="all")
    for name, array in joined.data_vars.items():
        counts = next(one.counts[name].values for one in results.values() if name in one.counts)
        units = vector_units.get(str(name)) or unit_of(str(name))
        array.attrs = {"cases": int(np.max(counts)), **({"variable_units": units} if units else {})}
    return joined
