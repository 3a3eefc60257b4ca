"""Make forecasts with DeepMind's own package on one device, put together as its published demonstration does it.

Forecasts and speed of our own network are compared with those of this one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array
from numpy.typing import NDArray

from graphcast_batch.errors import ConfigError
from graphcast_batch.grid import Grid
from graphcast_batch.models.base import Checkpoint, Parameters, Precision, Start, steps_in_call
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.deepmind.package import PackageModules, check_libraries, imported, installed_package
from graphcast_batch.models.devices import device_kind
from graphcast_batch.models.graphcast.parameters import check_parameters
from graphcast_batch.models.normalization import normalization
from graphcast_batch.models.state_arrays import forcing_blocks, initial_arrays, named_fields
from graphcast_batch.spec import Task


class DeepmindForecaster:
    """GraphCast as DeepMind's package implements it, loaded onto one device; see `Model`.

    Attributes:
        task: step length, input frames, variables in and out, and levels.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        statistics: Mapping[str, xr.Dataset],
        grid: Grid,
        channels: Channels,
        precision: Precision,
        steps_per_call: int = 1,
    ) -> None:
        """Import the package and put the weights on the device; the package builds its graphs in the first forecast.

        Args:
            checkpoint: the weights, their architecture and task.
            statistics: normalization statistics by kind: ``mean``, ``stddev`` and ``diffs_stddev``.
            grid: the points of the inputs and of the forecast.
            channels: the places of the variables of the checkpoint's task.
            precision: precision of the network.
            steps_per_call: largest number of steps in one call of the compiled program.

        Raises:
            PackageError: the package is absent, or cannot work with what else is installed.
            CheckpointError: the weights do not fit the channels.
            StatisticsError: a statistic is missing.
        """
        self._architecture = checkpoint.architecture
        check_parameters(checkpoint.parameters, self._architecture, channels.inputs, channels.outputs, "the checkpoint")
        normalization(channels, statistics)  # for its checks: the package itself only warns of a gap
        package = installed_package()
        check_libraries(package, precision)
        self.task: Task = checkpoint.task
        self.grid = grid
        self._channels = channels
        self._steps_per_call = steps_per_call
        self._modules = imported(package)
        wrapped = _Wrapped(self._modules, checkpoint, _at_levels(statistics, channels), precision)
        self._parameters = _on_device(checkpoint.parameters)
        self._apply = jax.jit(hk.transform_with_state(wrapped).apply)

    @property
    def device(self) -> str:
        """Kind of the device, as JAX names it."""
        return device_kind()

    def replace_weights(self, parameters: Parameters) -> None:
        """Take other weights; see `Model.replace_weights`."""
        channels = self._channels
        check_parameters(parameters, self._architecture, channels.inputs, channels.outputs, "the other weights")
        self._parameters = {}  # else the device would have both for a moment
        self._parameters = _on_device(parameters)

    def forecast(self, inputs: xr.Dataset, forcings: xr.Dataset, steps: int) -> Iterator[dict[str, Array]]:
        """Yield the frames of one forecast; see `Model.forecast`. They are on their way to the host."""
        init_time = inputs["time"].values[-1]
        (known,) = forcing_blocks(self._channels, forcings, init_time, steps, steps, self.grid)
        calls = self._modules.rollout.chunked_prediction_generator(
            self._predict,
            rng=jax.random.PRNGKey(0),  # the package asks for it, though GraphCast draws nothing
            inputs=self._start(inputs),
            targets_template=self._template(steps),
            forcings=self._over_time(self._leads(steps), {self._channels.forced: known}),
            num_steps_per_chunk=steps_in_call(steps, self._steps_per_call),
        )
        for predictions in calls:
            frames = {name: self._array(predictions[name]) for name in sorted(self._channels.targets)}
            for field in frames.values():
                field.copy_to_host_async()
            yield frames

    def forecast_many(self, starts: Sequence[Start], steps: int) -> Iterator[list[dict[str, Array]]]:
        """Refuse to compute several forecasts together; see `Model.forecast_many`."""
        raise ConfigError(
            f"DeepMind's package makes one forecast at a time, but {len(starts)} forecasts of {steps} steps were "
            "asked for together; set model.batch_size: 1"
        )

    def loss(
        self, parameters: Parameters, inputs: xr.Dataset, forcings: xr.Dataset, truth: xr.Dataset
    ) -> dict[str, object]:
        """Refuse to compute the training loss; see `Model.loss`."""
        raise ConfigError(
            "the loss is computed by model.implementation: native only, not by DeepMind's package; leave it out"
        )

    def _predict(
        self, rng: Array, inputs: xr.Dataset, targets_template: xr.Dataset, forcings: xr.Dataset
    ) -> xr.Dataset:
        predictions: xr.Dataset = self._apply(self._parameters, {}, rng, inputs, targets_template, forcings)[0]
        return predictions

    def _start(self, inputs: xr.Dataset) -> xr.Dataset:
        frames, forced, static = initial_arrays(self._channels, inputs, self.grid)
        ages = self._leads(frames.shape[0]) - np.timedelta64(self._channels.step_hours * frames.shape[0], "h")
        changing = self._over_time(ages, {self._channels.carried: frames, self._channels.forced_inputs: forced})
        fields = named_fields(self._channels, self._channels.static, static.T, self.grid)
        return changing.assign({name: (self._dims(name), values) for name, values in fields.items()})

    def _template(self, steps: int) -> xr.Dataset:
        """Return the names and shapes of what to predict, in a dataset whose values take no memory."""
        shape = (steps, self.grid.size, self._channels.outputs)
        return self._over_time(self._leads(steps), {self._channels.targets: np.broadcast_to(np.float32(np.nan), shape)})

    def _over_time(
        self, leads: NDArray[np.timedelta64], parts: Mapping[tuple[str, ...], NDArray[np.float32]]
    ) -> xr.Dataset:
        """Return (time, point, channel) values as (batch, time, [level], lat, lon) variables."""
        fields = {
            name: (self._dims(name, "batch", "time"), values[np.newaxis])
            for names, points in parts.items()
            for name, values in named_fields(self._channels, names, np.swapaxes(points, -1, -2), self.grid).items()
        }
        place = {"level": list(self._channels.levels), "lat": self.grid.latitude, "lon": self.grid.longitude}
        return xr.Dataset(fields, coords={"time": leads, **place})

    def _leads(self, steps: int) -> NDArray[np.timedelta64]:
        """Return the (step,) timedelta64[ns] lead times."""
        step = np.timedelta64(self._channels.step_hours, "h")
        return (np.arange(1, steps + 1) * step).astype("timedelta64[ns]")

    def _dims(self, name: str, *leading: str) -> tuple[str, ...]:
        return (*leading, *(("level",) if name in self._channels.on_levels else ()), "lat", "lon")

    def _array(self, field: xr.DataArray) -> Array:
        ordered = field.isel(batch=0).transpose("time", ..., "lat", "lon")
        return jnp.asarray(self._modules.xarray_jax.unwrap_data(ordered))


@dataclass(frozen=True)
class _Wrapped:
    """The package's network in its wrappers, as a function that Haiku transforms."""

    modules: PackageModules
    checkpoint: Checkpoint
    statistics: Mapping[str, xr.Dataset]
    precision: Precision

    def __call__(self, inputs: xr.Dataset, targets_template: xr.Dataset, forcings: xr.Dataset) -> xr.Dataset:
        graphcast = self.modules.graphcast
        step = graphcast.GraphCast(
            graphcast.ModelConfig(**self.checkpoint.architecture.model_dump()),
            graphcast.TaskConfig(**self.checkpoint.task.model_dump()),
        )
        step = self.modules.casting.Bfloat16Cast(step, enabled=self.precision == "bfloat16")
        scales = {f"{kind}_by_level": constants for kind, constants in self.statistics.items()}
        step = self.modules.normalization.InputsAndResiduals(step, **scales)
        predictions: xr.Dataset = self.modules.autoregressive.Predictor(step)(
            inputs, targets_template=targets_template, forcings=forcings
        )
        return predictions


def _on_device(parameters: Parameters) -> dict[str, dict[str, Array]]:
    return {module: {name: jnp.asarray(values) for name, values in held.items()} for module, held in parameters.items()}


def _at_levels(statistics: Mapping[str, xr.Dataset], channels: Channels) -> dict[str, xr.Dataset]:
    levels = list(channels.levels)
    return {kind: data.sel(level=levels) if "level" in data.dims else data for kind, data in statistics.items()}
