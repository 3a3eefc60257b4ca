"""Define the port between a run and the model of its forecasts: what every model promises its callers.

A `ModelKind` is one row of the table of models: it tells what can be known of a model without a device, reads its
weights, predicts its memory and loads it. A `Model` is a loaded one, which makes forecasts on one device. `model_kinds`
has the table. tests/models/test_model_contract.py tries the promises on each of its rows.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.config.model_section import CheckpointWeights, RandomWeights
from graphcast_batch.grid import Grid
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.disk_cache import Cache
from graphcast_batch.spec import Architecture, Task

Precision = Literal["float32", "bfloat16"]
"""Floating-point precision of the network; the frames of a forecast are float32 with either."""

MemoryMode = Literal["fast", "lean"]
"""Whether large arrays that never change are kept on the device, or computed again in every step."""

Parameters = Mapping[str, Mapping[str, NDArray[np.float32]]]
"""Arrays of weights by Haiku module, then by name: w, b, scale or offset."""

Start = tuple[xr.Dataset, xr.Dataset]
"""What a forecast starts from: the inputs and the forcings, as `Model.forecast` takes them."""

Frames = Mapping[str, Any]
"""Consecutive steps of a forecast: by target variable, float32 (step, [level], latitude, longitude) on the device."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The weights of a network, with what they were trained for.

    Attributes:
        parameters: float32 arrays by Haiku module, then by name.
        architecture: sizes of the network.
        task: variables, levels and step length.
        description: free text.
        license: free text: the license of the weights.
        sha256: checksum of the file; for random weights one of what they are drawn from, or empty.
    """

    parameters: Parameters
    architecture: Architecture
    task: Task
    description: str = ""
    license: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class CallSize:
    """The sizes of one call of a model's compiled program, from which its memory follows.

    Attributes:
        architecture: sizes of the network.
        grid: the points.
        channels: the places of the task's variables.
        precision: precision of the network.
        accelerated: whether the device is an accelerator.
        steps: number of steps that the call computes.
        cases: number of forecasts that the call computes together.
        lanes: the last axis of an array takes memory as if it were a multiple of so many numbers; see `LANES`.
    """

    architecture: Architecture
    grid: Grid
    channels: Channels
    precision: Precision
    accelerated: bool
    steps: int = 1
    cases: int = 1
    lanes: int = 1


def steps_in_call(steps: int, most: int) -> int:
    """Return how many steps each call computes, so that all calls of a forecast run the same program.

    Args:
        steps: number of steps of the forecast.
        most: largest number of steps in one call.

    Returns:
        The largest divisor of ``steps`` that is at most ``most``.
    """
    return max(n for n in range(1, min(steps, most) + 1) if steps % n == 0)


class Weights(Protocol):
    """The weights that a config chooses, whose numbers are read or drawn when they are asked for."""

    @property
    def architecture(self) -> Architecture:
        """Sizes of the network."""

    @property
    def task(self) -> Task:
        """What the weights were trained for: step length, input frames, variables in and out, and levels."""

    def channels(self, dims: Mapping[str, Collection[str]]) -> Channels:
        """Return the places of the task's variables in the vectors of the network.

        Args:
            dims: dimensions of each variable that the inputs hold.

        Raises:
            TaskError: the task does not fit the inputs.
        """

    def checkpoint(self, channels: Channels) -> Checkpoint:
        """Return the weights themselves.

        Raises:
            CheckpointError: a parameter is missing, or its shape does not fit the channels.
        """


class Model(Protocol):
    """A model that was loaded onto one device, where it turns an initial state into the frames of a forecast.

    One thread at a time may use it. The same start gives the same frames, bit for bit, whenever it is asked for in one
    process, unless the model takes noise.
    """

    @property
    def device(self) -> str:
        """Kind of the device, as JAX names it."""

    @property
    def task(self) -> Task:
        """What the model takes and predicts: step length, input frames, variables in and out, and levels."""

    def replace_weights(self, parameters: Parameters) -> None:
        """Take other weights in place of those that the model has; nothing is compiled again.

        The device need have no room for both, once the results of earlier forecasts are on the host.

        Args:
            parameters: the weights, of the architecture and the task that the model was loaded with.

        Raises:
            CheckpointError: the shape of a parameter does not fit; the message names it.
        """

    def forecast(self, inputs: xr.Dataset, forcings: xr.Dataset, steps: int) -> Iterator[Frames]:
        """Yield the frames of one forecast while they are made.

        Args:
            inputs: (time, [level], latitude, longitude) input variables of the task at its input frames, one step
                apart; the last time is the initial time.
            forcings: forcings at later times that are known, by ``time``; the others are computed.
            steps: number of steps of the forecast, each as long as the task says.

        Yields:
            For each call of the compiled program the next steps of every target. All calls have the same number of
            steps, and together they have ``steps``. The arrays may still be under computation.

        Raises:
            InputError: the inputs lack a variable or a frame; the message names it.
        """

    def forecast_many(self, starts: Sequence[Start], steps: int) -> Iterator[Sequence[Frames]]:
        """Yield the frames of several forecasts, computed together in each call of one program.

        Args:
            starts: inputs and forcings of each forecast, as for `forecast`; for another number of them another program
                is compiled.
            steps: number of steps of each forecast.

        Yields:
            For each call and each forecast what `forecast` yields: the same numbers but for the order of summation.

        Raises:
            ConfigError: the model makes one forecast at a time; see `ModelKind.batches`.
            InputError: as of `forecast`.
        """

    def loss(
        self, parameters: Parameters, inputs: xr.Dataset, forcings: xr.Dataset, truth: xr.Dataset
    ) -> dict[str, object]:
        """Return the training loss over all lead times of the truth, with its parts and the norms of its gradient.

        Args:
            parameters: the weights, of the checkpoint's architecture and task.
            inputs: as for `forecast`.
            forcings: as for `forecast`.
            truth: (prediction_timedelta, [level], latitude, longitude) targets, at every step from the first.

        Raises:
            ConfigError: the model computes no loss; see `ModelKind.gives_loss`.
        """


class ModelKind(Protocol):
    """One model that forecasts can be made with: what it can do, how much memory it needs, and how it is loaded."""

    @property
    def takes_noise(self) -> bool:
        """Whether a forecast depends on a noise seed too, so that one start has many forecasts."""

    @property
    def batches(self) -> bool:
        """Whether several forecasts can be computed together; see `Model.forecast_many`."""

    @property
    def gives_loss(self) -> bool:
        """Whether the training loss can be computed; see `Model.loss`."""

    @property
    def predicts_memory(self) -> bool:
        """Whether `predicted_bytes` are the model's own, and not a lower bound from another implementation."""

    @property
    def memory_modes(self) -> Sequence[MemoryMode]:
        """How the model can use the memory of a device: the fastest way first; the leanest is last."""

    def description(self) -> str:
        """Return the name of the implementation, and its version if it is another package's.

        Raises:
            PackageError: the package that implements the model is not installed.
        """

    def packages(self) -> Mapping[str, str]:
        """Return the version of each package that implements the model, beside those that this one requires.

        Raises:
            PackageError: such a package is not installed.
        """

    def weights(self, chosen: RandomWeights | CheckpointWeights) -> Weights:
        """Return the weights that a config chooses.

        Raises:
            CheckpointError: the file cannot be read, or holds no weights of this model.
        """

    def predicted_bytes(self, call: CallSize, memory: MemoryMode) -> int:
        """Return the number of bytes that a device must have at least for a call of the model; touches no device."""

    def worthwhile_batch(self, call: CallSize) -> int:
        """Return the largest batch size that still makes a Case of a call faster; 1 if the model takes no more."""

    def load(
        self,
        checkpoint: Checkpoint,
        statistics: Mapping[str, xr.Dataset],
        grid: Grid,
        channels: Channels,
        precision: Precision,
        *,
        steps_per_call: int = 1,
        memory: MemoryMode = "fast",
        cache: Cache | None = None,
    ) -> Model:
        """Load the model onto the device of this process.

        Args:
            checkpoint: the weights, their architecture and task.
            statistics: normalization statistics by kind: ``mean``, ``stddev`` and ``diffs_stddev``.
            grid: the points of the inputs and of the forecast.
            channels: the places of the variables of the checkpoint's task.
            precision: precision of the network.
            steps_per_call: largest number of steps in one call of the compiled program.
            memory: one of `memory_modes`.
            cache: where graphs and compiled programs are kept; None to make them anew.

        Raises:
            PackageError: the package that implements the model is absent, or cannot work with what is installed.
            CheckpointError: the weights do not fit the channels.
            StatisticsError: a statistic is missing.
        """
