"""Forecasts of a store become scores: against what came true, what is usual, and each other."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr

from graphcast_batch.app.running import cluster_address
from graphcast_batch.cluster import driver
from graphcast_batch.cluster.drain import Drain
from graphcast_batch.cluster.slurm.allocation import allocation
from graphcast_batch.config.inputs_section import ArchiveInputs, DatasetInputs, SyntheticInputs
from graphcast_batch.config.loading import load_config
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.config.scores_section import ScoresConfig
from graphcast_batch.evaluation.baselines import CLIMATOLOGY, PERSISTENCE
from graphcast_batch.evaluation.score_results import Over, Results, average_pieces, pieces, scored
from graphcast_batch.evaluation.score_store import FORECAST, ScoreRecord
from graphcast_batch.evaluation.store_scoring import Evaluation, evaluations, score_stored
from graphcast_batch.plan import Case
from graphcast_batch.variables import VARIABLES

MADE_BASELINES: Final = (PERSISTENCE, CLIMATOLOGY)
"""Of `evaluate`; any other is a store."""
Inputs = ArchiveInputs | DatasetInputs | SyntheticInputs


def evaluate(
    store: str | os.PathLike[str],
    truth: str | Mapping[str, Any] | None = None,
    climatology: str | os.PathLike[str] | None = None,
    baselines: Sequence[str] = (),
    *,
    over: Over = "all",
    address: str | None = None,
) -> xr.Dataset:
    """Scores what is not scored yet, as ``graphcast-batch evaluate`` does, and reads all scores.

    >>> scores = evaluate("runs/demo", baselines=["persistence"])
    >>> scores["geopotential"].sel(metric="rmse", level=500, region="global", forecast="forecast")

    Args:
        store: of the forecasts, or the config of a run.
        truth: what came true: the path or address of an archive, or of a config whose inputs are it, or a section
            ``inputs``; without it what the config says.
        climatology: made by ``graphcast-batch climatology``, for anomalies; without it what the config says.
        baselines: ``persistence``, ``climatology``, or paths of other stores that were evaluated.
        over: initial times that each score is of: ``all``, or for a score of their own ``each``, or those of an
            ``hour`` of the day, a ``month`` or a ``season``.
        address: of a Ray cluster, as for `run`; not needed if nothing is to be scored.

    Returns:
        float64 variables over (forecast, metric, [time, hour, month or season], prediction_timedelta, [level], region),
        of which ``forecast`` is "forecast" or a baseline; NaN where nothing was scored or a metric is undefined. In the
        attributes ``incomplete``, ``without_truth`` and ``not_scored`` say what was left out, the last with reasons;
        ``cases`` of a variable is the most initial times behind a score of the forecast, and ``variable_units`` its
        unit, in which a metric is, or in its square, or in none.

    Raises:
        EvaluationError: forecasts, truth, climatology or baselines do not fit each other, or nothing could be scored.
        GraphcastBatchError: something is missing or cannot be read.
    """
    config = evaluated_config(Path(store), truth, climatology)
    to_score = evaluations(config, baselines)
    not_scored = _score(to_score, address)
    where = {one.name: (one.path, one.name) for one in to_score}
    where |= {other: (Path(other), FORECAST) for other in baselines if other not in MADE_BASELINES}
    first = to_score[0]
    return _side_by_side(
        {name: average_pieces(pieces(*at), over) for name, at in where.items() if name == FORECAST or scored(*at)}
    ).assign_attrs(
        truth=first.scoring.truth.origin,
        incomplete=" ".join(first.incomplete),
        without_truth=" ".join(first.without_truth),
        not_scored="; ".join(not_scored),
    )


def evaluated_config(
    place: Path,
    truth: str | Mapping[str, Any] | None = None,
    climatology: str | os.PathLike[str] | None = None,
    members: Sequence[Path] = (),
) -> RunConfig:
    """The config of a run or store, with another truth or climatology, or other members of an ensemble, if given.

    Raises:
        ConfigError: a config cannot be read, or does not fit.
    """
    config = load_config(place / "run.yaml" if place.is_dir() else place)
    if place.is_dir():
        config = config.model_copy(update={"store": place.resolve()})
    given: dict[str, object] = {} if climatology is None else {"climatology": Path(climatology).absolute()}
    if truth is not None:
        given["truth"] = truth_inputs(truth)
    if members:
        given["members"] = tuple(member.absolute() for member in members)
    return config.model_copy(update={"scores": config.scores.model_copy(update=given)})


def truth_inputs(truth: str | Mapping[str, Any]) -> Inputs:
    """The inputs of a config, or a section of one, or an archive.

    Raises:
        ConfigError: they do not fit.
    """
    if isinstance(truth, Mapping):
        found = parse_config({"truth": truth}, ScoresConfig, origin="given").truth
        assert found is not None
        return found
    if truth.endswith((".yaml", ".yml")):
        return load_config(Path(truth)).inputs
    return parse_config({"kind": "archive", "path": truth}, ArchiveInputs, origin="of --truth")


def score(
    to_score: Sequence[Evaluation], drain: Drain
) -> Iterator[tuple[str, Case, ScoreRecord | BaseException | None]]:
    """Scores Cases over a connected cluster, until it is asked to stop.

    Yields:
        The name of the scores, the Case and its record; an exception if it cannot be scored, None if another process
        is just doing that.
    """
    work = [(one.path, one.name, one.scoring, case) for one in to_score for case in one.left]
    for (_, name, _, case), result in zip(work, driver.each(score_stored, work, drain), strict=False):
        yield name, case, result


def _score(to_score: Sequence[Evaluation], address: str | None) -> list[str]:
    """Scores what is left; what could not be, with the reasons."""
    if not any(one.left for one in to_score):
        return []
    here = allocation(os.environ)
    with Drain(None, here.start, here.end) as drain, driver.connected(cluster_address(address), drain):
        return [
            f"{name} {case.key}: {result or 'another process is doing that'}"
            for name, case, result in score(to_score, drain)
            if not isinstance(result, ScoreRecord)
        ]


def _side_by_side(results: Mapping[str, Results]) -> xr.Dataset:
    names = xr.DataArray(list(results), dims="forecast", name="forecast")
    joined = xr.concat([one.values for one in results.values()], names, join="outer", data_vars="all")
    for name, array in joined.data_vars.items():
        known, counts = VARIABLES.get(str(name)), results[FORECAST].counts[name].values
        array.attrs = {"cases": int(np.max(counts)), **({"variable_units": known.units} if known else {})}
    return joined
