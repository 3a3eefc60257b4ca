"""Make one forecast from one GraphCast dataset file, in memory."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import xarray as xr

from graphcast_batch.app.any_path import AnyPath, path_or_none
from graphcast_batch.cluster.usable_memory import usable_bytes
from graphcast_batch.config.documents import read_mapping
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.model_section import CheckpointWeights, Implementation, RandomWeights
from graphcast_batch.errors import ConfigError, FigureError, InputError, InputNotFoundError, StatisticsError, StoreError
from graphcast_batch.figures.case_figures import figure_stem
from graphcast_batch.figures.maps import draw_strip
from graphcast_batch.inputs.quality.checks import check_inputs, check_statistics
from graphcast_batch.inputs.sources.dataset_files import DatasetFiles
from graphcast_batch.inputs.statistics import Statistics, read_statistics
from graphcast_batch.models.accelerators import LANES
from graphcast_batch.models.base import CallSize, Weights
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.devices import backend, device_bytes
from graphcast_batch.models.model_kinds import MODELS
from graphcast_batch.plan import Case
from graphcast_batch.setup.resources import fitting_mode, resolved_precision
from graphcast_batch.setup.run_statistics import computed_statistics
from graphcast_batch.spec import TASKS, Architecture
from graphcast_batch.stores.netcdf_file import save_predictions
from graphcast_batch.variables import attributes

Mode = Literal["Random", "Checkpoint"]

_SMALL_NETWORK: Final = Architecture(mesh_size=4, latent_size=32, gnn_msg_steps=4)
"""Architecture of random weights unless a file names another: small enough for any machine."""


@dataclass(frozen=True, eq=False)
class Inference:
    """One forecast with its truth; `infer` returns it.

    Attributes:
        predictions: (prediction_timedelta, [level], latitude, longitude) predicted variables; time is the initial time.
        truth: the same variables of the truth, at the lead times that the file holds; None without any.
        statistics_from: where the normalization statistics came from.
        loss: the training loss over the lead times of the truth, with its parts and gradient norms; None unless asked
            for.
    """

    predictions: xr.Dataset
    truth: xr.Dataset | None
    statistics_from: str
    loss: dict[str, object] | None


def infer(
    dataset: AnyPath,
    mode: Mode,
    pretrained: AnyPath | None = None,
    *,
    steps: int | None = None,
    statistics: AnyPath | None = None,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    with_loss: bool = False,
    variable: str = "2m_temperature",
    level: int = 500,
    save: AnyPath | None = None,
    implementation: Implementation = "native",
) -> Inference:
    """Make one forecast from a GraphCast dataset file, after checking that everything asked for is possible.

    >>> forecast = gb.infer("source.nc", "Random", steps=4)
    >>> forecast.predictions["2m_temperature"].isel(prediction_timedelta=-1).max()

    Args:
        dataset: path of the dataset file.
        mode: "Random" draws weights at random, "Checkpoint" reads them.
        pretrained: the checkpoint; in mode "Random" a YAML file with architecture, task and seed, or None.
        steps: number of model steps; without it as many as the file has targets for, at least one.
        statistics: folder of the normalization statistics; without it they are looked for beside the checkpoint and the
            dataset, and for random weights computed from the dataset.
        precision: of the network; "auto" is bfloat16 on an accelerator and float32 on a CPU.
        with_loss: whether to compute the loss, which needs targets in the file.
        variable: name of a variable that must be predicted.
        level: pressure level, hPa, at which that variable must be predicted, if it is on levels.
        save: netCDF file to write the predictions to.
        implementation: of the network: "native", or "deepmind" for DeepMind's package, which gives no loss.

    Raises:
        FigureError: the variable or level is not predicted.
        StoreError: the predictions cannot be saved to the file.
        ConfigError: the machine or device has too little memory.
        GraphcastBatchError: something is missing, or one part does not fit another.
    """
    dataset, pretrained = Path(dataset), path_or_none(pretrained)
    statistics, save = path_or_none(statistics), path_or_none(save)
    _check_save_path(save)
    kind = MODELS[implementation]
    if with_loss and not kind.gives_loss:
        able = ", ".join(name for name, other in MODELS.items() if other.gives_loss)
        raise ConfigError(f"the loss is computed by implementation: {able} only, not {implementation}; leave one out")
    source = _dataset(dataset)
    weights = kind.weights(_weights(mode, pretrained, source))
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
    accelerated = backend() != "cpu"
    computed_in = resolved_precision(precision, accelerated=accelerated)
    checkpoint = weights.checkpoint(channels)
    lanes = LANES if backend() == "tpu" else 1
    call = CallSize(checkpoint.architecture, source.grid, channels, computed_in, accelerated, lanes=lanes)
    memory = fitting_mode(kind, call, device_bytes() if accelerated else usable_bytes())
    model = kind.load(checkpoint, constants.by_kind, source.grid, channels, computed_in, memory=memory)
    calls = [
        {name: np.asarray(values) for name, values in frames.items()}
        for frames in model.forecast(inputs.frames, inputs.forcings, case.steps)
    ]
    loss = None if known is None else model.loss(checkpoint.parameters, inputs.frames, inputs.forcings, known)
    predictions = _named(calls, case, inputs.frames)
    if save:
        save_predictions(predictions, save)
    return Inference(predictions, truth, statistics_from, loss)


def draw_field(result: Inference, name: str, level: int, folder: AnyPath = ".") -> Path:
    """Draw one variable of a forecast as a strip of maps, with truth and difference where there is truth.

    Args:
        result: of `infer`.
        name: of the variable.
        level: pressure level, hPa, if the variable is on levels.
        folder: for the picture.

    Returns:
        The picture, named after the variable and level.
    """
    field, truth, shown = one_field(result, name, level)
    picture = Path(folder) / f"{figure_stem(name, shown)}.png"
    draw_strip(picture, field, truth)
    return picture


def one_field(result: Inference, name: str, level: int) -> tuple[xr.DataArray, xr.DataArray | None, int | None]:
    """Return one variable of a forecast, at one level if it is on levels.

    Returns:
        (prediction_timedelta, latitude, longitude) of the forecast, the same of the truth, and the level.
    """
    field = result.predictions[name]
    truth = result.truth[name] if result.truth is not None and name in result.truth else None
    if "level" not in field.dims:
        return field, truth, None
    return field.sel(level=level), None if truth is None else truth.sel(level=level), level


def _check_save_path(save: Path | None) -> None:
    if save is None:
        return
    if not save.parent.is_dir():
        raise StoreError(f"{save} must be in an existing folder, but {save.parent} is not a folder; make it first")
    if save.is_dir():
        raise StoreError(f"{save} must be the path of a file, but is a folder; give a file in it")


def _dataset(dataset: Path) -> DatasetFiles:
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
    return RandomWeights(kind="random", architecture=_SMALL_NETWORK, task=task)


def _statistics(
    mode: Mode,
    given: Path | None,
    pretrained: Path | None,
    dataset: Path,
    source: DatasetFiles,
    weights: Weights,
) -> tuple[Statistics, str]:
    """Return the given statistics, or those beside the checkpoint or dataset, or computed ones for random weights."""
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
        f"no normalization statistics were found in {', '.join(map(str, dict.fromkeys(places)))}; give their folder "
        "with --stats"
    )


def _complete(truth: xr.Dataset | None, names: tuple[str, ...]) -> xr.Dataset:
    lacking = sorted(set(names) - set(truth or ()))
    if truth is None or lacking:
        what = ", ".join(lacking) if truth is not None else "any target frame"
        raise InputError(f"the loss needs the truth, but the dataset lacks {what}; leave --loss out")
    return truth


def _named(calls: list[dict[str, np.ndarray]], case: Case, frames: xr.Dataset) -> xr.Dataset:
    """Join the frames of all calls into one dataset."""
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
