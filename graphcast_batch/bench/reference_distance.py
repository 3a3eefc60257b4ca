"""Measure how far the frames of the network are from those that DeepMind's package made of the same inputs."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jax
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.bench.records import BenchmarkFigure
from graphcast_batch.config.model_section import CheckpointWeights
from graphcast_batch.errors import BenchError
from graphcast_batch.grid import Grid
from graphcast_batch.models.base import Checkpoint, Precision
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.disk_cache import Cache
from graphcast_batch.models.model_kinds import MODELS
from graphcast_batch.spec import Task

_STATISTICS: Final = ("mean", "stddev", "diffs_stddev")
_FULL: Final = "float32, products in full precision"
_SETTINGS: Final[Mapping[str, Precision]] = {"bfloat16": "bfloat16", "float32": "float32", _FULL: "float32"}
"""Precision of the network by the name of what is measured: by default accelerators round the factors of products."""

_Fields = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class ReferenceForecast:
    """A forecast that DeepMind's package made, with all that it was made of.

    Attributes:
        checkpoint: the weights.
        fields: (time, [level], latitude, longitude) inputs, and the forcings of the forecast at its lead times.
        statistics: normalization statistics by kind.
        published: frames of the forecast by the precision of the network, (step, [level], latitude, longitude).
    """

    checkpoint: Checkpoint
    fields: xr.Dataset
    statistics: Mapping[str, xr.Dataset]
    published: Mapping[Precision, _Fields]

    @classmethod
    def read(cls, folder: Path) -> "ReferenceForecast":
        """Read a forecast from the files of its folder."""
        (path,) = folder.glob("source-*.nc")
        source = _read(path)
        times = source["datetime"].values[0]
        fields = source.drop_vars("datetime").isel(batch=0).assign_coords(time=times)
        fields = fields.rename(lat="latitude", lon="longitude")
        weights = MODELS["native"].weights(CheckpointWeights(kind="checkpoint", path=folder / "checkpoint.npz"))
        return cls(
            weights.checkpoint(_channels(weights.task, fields)),
            fields,
            {kind: _read(folder / f"stats_{kind}_by_level.nc") for kind in _STATISTICS},
            {"float32": _frames(folder, "float32"), "bfloat16": _frames(folder, "bfloat16")},
        )

    def forecast(self, precision: Precision, cache: Cache | None) -> _Fields:
        """Return the frames of the network of this package."""
        task, grid = self.checkpoint.task, Grid(self.fields["latitude"].values, self.fields["longitude"].values)
        channels, kind = _channels(task, self.fields), MODELS["native"]
        model = kind.load(self.checkpoint, self.statistics, grid, channels, precision, cache=cache)
        others = [name for name in self.fields if name not in task.input_variables]
        inputs = self.fields.drop_vars(others).isel(time=slice(0, task.input_frames))
        later = self.fields[["toa_incident_solar_radiation"]].isel(time=slice(task.input_frames, None))
        calls = [jax.device_get(dict(frames)) for frames in model.forecast(inputs, later, later.sizes["time"])]
        return {name: np.concatenate([call[name] for call in calls]) for name in calls[0]}

    def distance(self, frames: _Fields) -> float:
        """Return the largest distance from the published float32 frames, in standard deviations of differences."""

        def largest(name: str, apart: NDArray[np.float32]) -> float:
            deviation = self.statistics["diffs_stddev"][name].values
            return float((np.abs(apart) / (deviation[:, None, None] if deviation.ndim else deviation)).max())

        return max(largest(name, apart) for name, apart in self._apart(frames).items())

    def share(self, frames: _Fields) -> float:
        """Return by how much frames are farther from float32 ones than the published bfloat16 ones: the largest ratio.

        Distances are the root mean squares of each variable at each lead time.
        """
        ours, theirs = self._apart(frames), self._apart(self.published["bfloat16"])
        return max(float((_over_space(ours[name]) / _over_space(theirs[name])).max()) for name in ours)

    def _apart(self, frames: _Fields) -> _Fields:
        return {name: values - self.published["float32"][name] for name, values in frames.items()}


def distances(folder: Path, cache: Cache | None) -> Iterator[BenchmarkFigure]:
    """Yield the distances of frames from published ones, for each forecast in a folder and each precision.

    Args:
        folder: a folder of each forecast: its inputs, weights, normalization statistics and published frames.
        cache: where compiled programs are kept.

    Raises:
        BenchError: the folder holds no such forecast.
    """
    found = sorted(path.parent for path in folder.glob("*/stats_diffs_stddev_by_level.nc"))
    if not found:
        raise BenchError(
            f"{folder} must hold folders of forecasts by DeepMind's package, each with its inputs, weights, statistics "
            "and frames, but holds none; name another one with --reference"
        )
    read = {path.name: ReferenceForecast.read(path) for path in found}
    for setting in _SETTINGS:
        for name, reference in read.items():
            yield from _of_setting(f"{name}, {setting}", setting, reference, cache)


def _of_setting(
    title: str, setting: str, reference: ReferenceForecast, cache: Cache | None
) -> Iterator[BenchmarkFigure]:
    context: Any = jax.default_matmul_precision("highest") if setting == _FULL else nullcontext()
    with context:
        # The cache names programs without this setting of JAX.
        frames = reference.forecast(_SETTINGS[setting], None if setting == _FULL else cache)
    most = reference.distance(frames)
    if setting != "bfloat16":
        yield BenchmarkFigure(f"{title}: largest distance", "diffs_stddev", [most], goal="< 2e-4 on a CPU")
        return
    theirs = reference.distance(reference.published["bfloat16"])
    yield BenchmarkFigure(f"{title}: largest distance", "diffs_stddev", [most], limit=theirs)
    yield BenchmarkFigure(f"{title}: distance / DeepMind's", "times", [reference.share(frames)], goal="<= 1.25")


def _channels(task: Task, fields: xr.Dataset) -> Channels:
    return Channels.of(task, {str(name): tuple(map(str, field.dims)) for name, field in fields.items()})


def _over_space(apart: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the root mean square of each lead time."""
    squares: NDArray[np.float32] = np.sqrt(np.square(apart).mean(axis=tuple(range(1, apart.ndim))))
    return squares


def _frames(folder: Path, precision: Precision) -> _Fields:
    published = _read(folder / f"predictions_{precision}.nc").isel(batch=0).transpose("time", ..., "lat", "lon")
    return {str(name): field.values for name, field in published.items()}


def _read(path: Path) -> xr.Dataset:
    with xr.open_dataset(path, decode_timedelta=True) as dataset:
        return dataset.load()
