"""DeepMind's own package becomes a forecaster with our port: the yardstick of our numbers and of our speed.

Nothing of that package is part of this one: it is taken as it is installed, and put together as its published
demonstration does it.
"""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array
from numpy.typing import NDArray

from graphcast_batch.errors import PackageError
from graphcast_batch.grid import Grid
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.graphcast.checkpoint import Checkpoint
from graphcast_batch.models.graphcast.device_memory import steps_in_call
from graphcast_batch.models.graphcast.forecaster import Precision
from graphcast_batch.models.graphcast.parameters import check_parameters
from graphcast_batch.models.normalization import normalization
from graphcast_batch.models.state_arrays import forcing_blocks, initial_arrays, named_fields

_INSTALL: Final = 'pip install "git+https://github.com/google-deepmind/graphcast@v0.3.0"'


@dataclass(frozen=True)
class Package:
    """Where one of the package's versions keeps what is needed.

    Attributes:
        name: as it is installed and imported.
        network: module of GraphCast itself.
        wrappers: package of what is put around it.
        arrays: module that lets xarray hold arrays of JAX.
        copies: whether it copies a dataset by ``Dataset(dataset)``, which xarray allowed up to 2026.2.0.
    """

    name: str
    network: str
    wrappers: str
    arrays: str
    copies: bool

    @property
    def version(self) -> str:
        """As it was installed; empty for a folder on the search path."""
        try:
            return metadata.version(self.name)
        except metadata.PackageNotFoundError:
            return ""

    def __str__(self) -> str:
        return f"DeepMind's {self.name} {self.version}".rstrip()


_PACKAGES: Final = (
    Package("weathernext", "weathernext.weathernext1_graph.graphcast", "weathernext.utils", "xarray_jax", copies=False),
    Package("graphcast", "graphcast.graphcast", "graphcast", "graphcast.xarray_jax", copies=True),
)
"""From 0.3 on, and up to 0.2."""


class DeepmindForecaster:
    """GraphCast as DeepMind wrote it, on one device."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        statistics: Mapping[str, xr.Dataset],
        grid: Grid,
        channels: Channels,
        precision: Precision,
        steps_per_call: int = 1,
    ) -> None:
        """Imports the package and puts the weights on the device; graphs are built when the first forecast is made.

        Args:
            checkpoint: weights with their task and architecture.
            statistics: datasets named mean, stddev and diffs_stddev.
            grid: the points.
            channels: of the checkpoint's task.
            precision: of the network; frames are float32 always.
            steps_per_call: at most so many steps in one call of the compiled program.

        Raises:
            PackageError: the package is absent, or cannot work with what else is installed.
            CheckpointError: the weights do not fit the channels.
            StatisticsError: a constant is missing.
        """
        check_parameters(
            checkpoint.parameters, checkpoint.architecture, channels.inputs, channels.outputs, "the checkpoint"
        )
        normalization(channels, statistics)  # only for its checks: the package warns of a gap and goes on
        package = installed_package()
        _check_libraries(package, precision)
        self.grid = grid
        self._channels = channels
        self._steps_per_call = steps_per_call
        self._parts = _imported(package)
        wrapped = _Wrapped(self._parts, checkpoint, _at_levels(statistics, channels), precision)
        self._parameters = jax.tree.map(jnp.asarray, {name: dict(held) for name, held in checkpoint.parameters.items()})
        self._apply = jax.jit(hk.transform_with_state(wrapped).apply)

    @property
    def device(self) -> str:
        """Kind of the device, as JAX names it."""
        return str(jax.devices()[0].device_kind)

    def forecast(self, inputs: xr.Dataset, forcings: xr.Dataset, steps: int) -> Iterator[dict[str, Array]]:
        """Frames of one forecast, as they are made.

        Args:
            inputs: (time, [level], latitude, longitude) input variables, the last time is the initial time.
            forcings: forcings at later times that the inputs hold, by ``time``; the rest is computed.
            steps: number of 6 h steps.

        Yields:
            For each call of the program, each target as (step, [level], latitude, longitude) float32 arrays on the
            device, on their way to the host; they may still be under computation.
        """
        init_time = inputs["time"].values[-1]
        (known,) = forcing_blocks(self._channels, forcings, init_time, steps, steps, self.grid)
        calls = self._parts.rollout.chunked_prediction_generator(
            self._predict,
            rng=jax.random.PRNGKey(0),  # asked for, though GraphCast draws nothing
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
        """What to predict: no values, and no memory, whatever the number of steps."""
        shape = (steps, self.grid.size, self._channels.outputs)
        return self._over_time(self._leads(steps), {self._channels.targets: np.broadcast_to(np.float32(np.nan), shape)})

    def _over_time(
        self, leads: NDArray[np.timedelta64], parts: Mapping[tuple[str, ...], NDArray[np.float32]]
    ) -> xr.Dataset:
        """(batch, time, [level], lat, lon) variables of (time, point, channel) values."""
        fields = {
            name: (self._dims(name, "batch", "time"), values[np.newaxis])
            for names, points in parts.items()
            for name, values in named_fields(self._channels, names, np.swapaxes(points, -1, -2), self.grid).items()
        }
        place = {"level": list(self._channels.levels), "lat": self.grid.latitude, "lon": self.grid.longitude}
        return xr.Dataset(fields, coords={"time": leads, **place})

    def _leads(self, steps: int) -> NDArray[np.timedelta64]:
        """(step,) timedelta64[ns] lead times."""
        step = np.timedelta64(self._channels.step_hours, "h")
        return (np.arange(1, steps + 1) * step).astype("timedelta64[ns]")

    def _dims(self, name: str, *leading: str) -> tuple[str, ...]:
        return (*leading, *(("level",) if name in self._channels.on_levels else ()), "lat", "lon")

    def _array(self, field: xr.DataArray) -> Array:
        ordered = field.isel(batch=0).transpose("time", ..., "lat", "lon")
        return jnp.asarray(self._parts.xarray_jax.unwrap_data(ordered))


def installed_package() -> Package:
    """The newest of DeepMind's packages that is installed; runs none of it.

    Raises:
        PackageError: there is none, or only another package of its name.
    """
    places = {package: _folders(package.name) for package in _PACKAGES}
    for package, folders in places.items():
        _, *inner = package.network.split(".")
        if any(Path(folder, *inner).with_suffix(".py").is_file() for folder in folders or ()):
            return package
    for package, folders in places.items():
        if folders is not None:
            where = ", ".join(folders) or "a single file"
            raise PackageError(
                f"model.implementation: deepmind needs DeepMind's package, but {package.name} ({where}) is another one "
                f"of that name: it lacks {package.network}. On PyPI graphcast is a tool for graph databases; remove "
                f"it, then {_INSTALL}"
            )
    raise PackageError(
        "model.implementation: deepmind needs DeepMind's package, weathernext or graphcast, but neither is installed "
        f"here; it is not on PyPI: {_INSTALL}"
    )


class _Parts(NamedTuple):
    """The package's modules that are used."""

    graphcast: ModuleType
    autoregressive: ModuleType
    casting: ModuleType
    normalization: ModuleType
    rollout: ModuleType
    xarray_jax: ModuleType


@dataclass(frozen=True)
class _Wrapped:
    """Their network in their wrappers, as a function to be transformed by Haiku."""

    parts: _Parts
    checkpoint: Checkpoint
    statistics: Mapping[str, xr.Dataset]
    precision: Precision

    def __call__(self, inputs: xr.Dataset, targets_template: xr.Dataset, forcings: xr.Dataset) -> xr.Dataset:
        graphcast = self.parts.graphcast
        step = graphcast.GraphCast(
            graphcast.ModelConfig(**self.checkpoint.architecture.model_dump()),
            graphcast.TaskConfig(**self.checkpoint.task.model_dump()),
        )
        step = self.parts.casting.Bfloat16Cast(step, enabled=self.precision == "bfloat16")
        scales = {f"{kind}_by_level": constants for kind, constants in self.statistics.items()}
        step = self.parts.normalization.InputsAndResiduals(step, **scales)
        predictions: xr.Dataset = self.parts.autoregressive.Predictor(step)(
            inputs, targets_template=targets_template, forcings=forcings
        )
        return predictions


def _folders(name: str) -> list[str] | None:
    found = find_spec(name)
    return None if found is None else list(found.submodule_search_locations or ())


def _check_libraries(package: Package, precision: Precision) -> None:
    """Refuses libraries that the package is known to fail with, since it would do so only in a forecast."""
    if package.version.startswith("0.1") and precision == "bfloat16" and not hasattr(jax, "tree_map"):
        raise PackageError(
            f"{package} needs jax.tree_map for bfloat16, but jax {jax.__version__} has it no more; set "
            f"model.precision to float32, or take the newer {_INSTALL}"
        )
    if package.copies:
        try:
            xr.Dataset(xr.Dataset())
        except TypeError as error:
            raise PackageError(
                f"{package} needs xarray 2026.2.0 or older, but xarray {xr.__version__} is installed; "
                f"pip install xarray==2026.2.0, or take the newer {_INSTALL}"
            ) from error


def _imported(package: Package) -> _Parts:
    # These are meant for the package's authors, and would come with every forecast.
    warnings.filterwarnings("ignore", category=FutureWarning, module=rf"{package.name}\.")
    wrappers = (f"{package.wrappers}.{name}" for name in _Parts._fields[1:-1])
    return _Parts(*(_module(package, name) for name in (package.network, *wrappers, package.arrays)))


def _module(package: Package, name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise PackageError(
            f"{package} must be whole and have what it needs, but importing {name} finds no module {error.name}; "
            f"install that, or all of it anew: {_INSTALL}"
        ) from error
    except Exception as error:  # it runs while it is imported, and may trip over any other library
        raise PackageError(
            f"{package} must work with what else is installed, but with jax {jax.__version__} and xarray "
            f"{xr.__version__} {name} raises {type(error).__name__}: {error}; install versions that it was made for, "
            f"or {_INSTALL}"
        ) from error


def _at_levels(statistics: Mapping[str, xr.Dataset], channels: Channels) -> dict[str, xr.Dataset]:
    levels = list(channels.levels)
    return {kind: data.sel(level=levels) if "level" in data.dims else data for kind, data in statistics.items()}
