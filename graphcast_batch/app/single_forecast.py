"""One dataset file becomes one forecast in memory: what the one-file inference script did."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import xarray as xr

from graphcast_batch.config.documents import read_mapping
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.model_section import CheckpointWeights, Implementation, RandomWeights
from graphcast_batch.errors import ConfigError, FigureError, InputError, InputNotFoundError, StatisticsError, StoreError
from graphcast_batch.inputs.quality.checks import check_inputs, check_statistics
from graphcast_batch.inputs.sources.dataset_files import DatasetFiles
from graphcast_batch.inputs.statistics import Statistics, read_statistics
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.graphcast.forecaster import Forecaster, backend
from graphcast_batch.models.graphcast.weights import ConfiguredWeights
from graphcast_batch.plan import Case
from graphcast_batch.setup.resources import resolved_precision
from graphcast_batch.setup.run_statistics import computed_statistics
from graphcast_batch.spec import TASKS, Architecture
from graphcast_batch.variables import attributes

if TYPE_CHECKING:
    from graphcast_batch.models.deepmind import DeepmindForecaster

Mode = Literal["Random", "Checkpoint"]

_SKETCH: Final = Architecture(mesh_size=4, latent_size=32, gnn_msg_steps=4)
"""The network of the random mode, unless a file says otherwise: small enough for any machine."""


@dataclass(frozen=True, eq=False)
class Inference:
    """A forecast and what belongs to it.

    Attributes:
        predictions: (prediction_timedelta, [level], latitude, longitude) targets; time is the initial time.
        truth: the same of what came true, at those lead times that the file holds; None without any.
        statistics_from: where the normalisation came from.
        loss: the training loss over the lead times of the truth, with its parts and gradient norms, if asked for.
    """

    predictions: xr.Dataset
    truth: xr.Dataset | None
    statistics_from: str
    loss: dict[str, object] | None


def infer(
    dataset: Path,
    mode: Mode,
    pretrained: Path | None,
    *,
    steps: int | None,
    statistics: Path | None,
    precision: Literal["auto", "float32", "bfloat16"],
    with_loss: bool,
    variable: str,
    level: int,
    save: Path | None,
    implementation: Implementation = "native",
) -> Inference:
    """Makes the forecast that a dataset file starts, once all that is wanted of it is known to be possible.

    Args:
        dataset: a GraphCast dataset file.
        mode: whether weights are drawn at random or read.
        pretrained: the checkpoint; in random mode a YAML file with architecture, task and seed, or nothing.
        steps: number of 6 h steps; without it as many as the file has targets for, at least one.
        statistics: folder of the normalisation files.
        precision: of the network.
        with_loss: whether to compute the loss, which needs targets.
        variable: that will be taken from the forecast.
        level: at which it will be taken, hPa, if it is on levels.
        save: file that the predictions will be written to.
        implementation: of the network; only the native one gives the loss.

    Raises:
        FigureError: the variable or level is not predicted.
        StoreError: the predictions cannot be saved there.
        GraphcastBatchError: something is missing, or does not fit.
    """
    _check_place(save)
    if with_loss and implementation != "native":
        raise ConfigError(
            f"the loss is computed by the native implementation only, not {implementation}; leave one out"
        )
    source = _opened(dataset)
    weights = ConfiguredWeights(_weights(mode, pretrained, source))
    task, channels = weights.task, weights.channels(source.dims)
    _check_wanted(channels, variable, level)
    held = max(1, source.times.size - task.input_frames)
    (case,), _ = source.cases(steps or held, task)
    inputs = source.read(case, task)
    check_inputs(inputs, task, source.grid, weights.architecture.resolution)
    truth = source.truth(case, task.target_variables, task.pressure_levels)
    known = _complete(truth, task.target_variables) if with_loss else None
    constants, statistics_from = _statistics(mode, statistics, pretrained, dataset, source, weights)
    check_statistics(constants.by_kind, statistics_from, task, lambda: inputs.frames)
    computed_in = resolved_precision(precision, accelerated=backend() != "cpu")
    checkpoint = weights.checkpoint(channels)
    forecaster = _forecaster(implementation)(
        checkpoint, constants.by_kind, source.grid, channels, computed_in, steps_per_call=1
    )
    calls = [
        {name: np.asarray(values) for name, values in frames.items()}
        for frames in forecaster.forecast(inputs.frames, inputs.forcings, case.steps)
    ]
    loss = None
    if known is not None:
        assert isinstance(forecaster, Forecaster)
        loss = forecaster.loss(checkpoint.parameters, inputs.frames, inputs.forcings, known)
    return Inference(_named(calls, case, inputs.frames), truth, statistics_from, loss)


def one_field(result: Inference, name: str, level: int) -> tuple[xr.DataArray, xr.DataArray | None, int | None]:
    """One variable of a forecast, at one level if it is on levels; those that `infer` was told.

    Returns:
        (prediction_timedelta, latitude, longitude) of the forecast, the same of the truth, and the level.
    """
    field = result.predictions[name]
    truth = result.truth[name] if result.truth is not None and name in result.truth else None
    if "level" not in field.dims:
        return field, truth, None
    return field.sel(level=level), None if truth is None else truth.sel(level=level), level


def _check_place(save: Path | None) -> None:
    if save is None:
        return
    if not save.parent.is_dir():
        raise StoreError(f"{save} must lie in a folder, but {save.parent} is none; make the folder first")
    if save.is_dir():
        raise StoreError(f"{save} must be the path of a file, but is a folder; name a file in it")


def _opened(dataset: Path) -> DatasetFiles:
    path = os.path.expanduser(dataset)
    if not os.path.isfile(path):
        raise InputNotFoundError(f"the dataset {dataset} is not a file; give the path of a GraphCast dataset file")
    return DatasetFiles(path)


def _check_wanted(channels: Channels, name: str, level: int) -> None:
    if name not in channels.targets:
        raise FigureError(f"the variable {name} is not predicted; take one of {', '.join(sorted(channels.targets))}")
    if name in channels.on_levels and level not in channels.levels:
        raise FigureError(f"{name} is not predicted at {level} hPa; take one of {list(channels.levels)}")


def _weights(mode: Mode, pretrained: Path | None, source: DatasetFiles) -> RandomWeights | CheckpointWeights:
    if mode == "Checkpoint":
        if pretrained is None:
            raise InputError("mode Checkpoint needs the path of a checkpoint; give it with --pretrained")
        return CheckpointWeights(kind="checkpoint", path=pretrained)
    if pretrained is not None:
        return parse_config({"kind": "random"} | read_mapping(pretrained), RandomWeights, origin=str(pretrained))
    known = next((task for task in TASKS.values() if task.pressure_levels == source.levels), TASKS["GraphCast_small"])
    task = known.model_copy(update={"pressure_levels": source.levels})
    return RandomWeights(kind="random", architecture=_SKETCH, task=task)


def _statistics(
    mode: Mode,
    given: Path | None,
    pretrained: Path | None,
    dataset: Path,
    source: DatasetFiles,
    weights: ConfiguredWeights,
) -> tuple[Statistics, str]:
    """Those given, else those beside the checkpoint or the dataset; for random weights also those of the data."""
    if given is not None:
        return read_statistics(given), str(given)
    beside = [path.parent for path in (pretrained, dataset) if path is not None]
    places = [place for folder in beside for place in (folder, folder / "stats", folder.parent / "stats")]
    for place in places:
        if any(place.glob("*mean_by_level.nc")):
            return read_statistics(place), str(place)
    if mode == "Random":
        return computed_statistics(source, weights.task), f"computed from {dataset}"
    raise StatisticsError(
        f"no normalisation statistics were found in {', '.join(map(str, dict.fromkeys(places)))}; give their folder "
        "with --stats"
    )


def _forecaster(implementation: Implementation) -> "type[Forecaster] | type[DeepmindForecaster]":
    if implementation == "native":
        return Forecaster
    from graphcast_batch.models.deepmind import DeepmindForecaster

    return DeepmindForecaster


def _complete(truth: xr.Dataset | None, names: tuple[str, ...]) -> xr.Dataset:
    lacking = sorted(set(names) - set(truth or ()))
    if truth is None or lacking:
        what = ", ".join(lacking) if truth is not None else "any target frame"
        raise InputError(f"the loss needs the truth, but the dataset lacks {what}; leave --loss out")
    return truth


def _named(calls: list[dict[str, np.ndarray]], case: Case, frames: xr.Dataset) -> xr.Dataset:
    """Frames of all calls as one dataset."""
    fields = {name: np.concatenate([call[name] for call in calls]) for name in sorted(calls[0])}
    place = ("latitude", "longitude")
    return xr.Dataset(
        {
            name: (
                ("prediction_timedelta", *(("level",) if values.ndim == 4 else ()), *place),
                values,
                attributes(name),
            )
            for name, values in fields.items()
        },
        coords={
            "time": case.init_time.astype("datetime64[ns]"),
            "prediction_timedelta": case.lead_times.astype("timedelta64[ns]"),
            **{name: frames[name] for name in ("level", *place) if name in frames.coords},
        },
    )
