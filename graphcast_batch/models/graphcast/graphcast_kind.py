"""Load GraphCast, and predict the memory that it needs: the row ``native`` of the table of models."""

from collections.abc import Mapping
from typing import Final

import xarray as xr

from graphcast_batch.config.model_section import CheckpointWeights, RandomWeights
from graphcast_batch.grid import Grid
from graphcast_batch.models.base import CallSize, Checkpoint, MemoryMode, Model, Precision
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.disk_cache import Cache
from graphcast_batch.models.graphcast import batches, device_memory
from graphcast_batch.models.graphcast.weights import ConfiguredWeights


class GraphcastKind:
    """GraphCast as this package implements it; see `ModelKind`."""

    takes_noise: Final = False
    batches: Final = True
    gives_loss: Final = True
    predicts_memory: Final = True
    memory_modes: tuple[MemoryMode, ...] = ("fast", "lean")

    def description(self) -> str:
        """Return the name of the implementation."""
        return "the network of graphcast-batch"

    def packages(self) -> dict[str, str]:
        """Return nothing: no package is needed beside those that this one requires."""
        return {}

    def weights(self, chosen: RandomWeights | CheckpointWeights) -> ConfiguredWeights:
        """Return the weights that a config chooses; see `ModelKind.weights`."""
        return ConfiguredWeights(chosen)

    def predicted_bytes(self, call: CallSize, memory: MemoryMode) -> int:
        """Return the number of bytes that a device must have at least for a call."""
        return device_memory.predicted_bytes(call, memory)

    def worthwhile_batch(self, call: CallSize) -> int:
        """Return the largest batch size that still makes a Case of a call faster; see `ModelKind.worthwhile_batch`."""
        return batches.worthwhile_batch(call)

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
        """Load the model onto the device of this process; see `ModelKind.load`."""
        # Imported only here: planning must wait neither for JAX nor for a device.
        from graphcast_batch.models.graphcast.forecaster import Forecaster
        from graphcast_batch.models.graphs import cached_graphs
        from graphcast_batch.models.programs import CompiledOnce, compiled_once

        program = (checkpoint.architecture, checkpoint.task, grid.shape, precision, steps_per_call, memory)
        with compiled_once(cache, "setup", *program):
            graphs = cached_graphs(checkpoint.architecture, grid, cache)
            forecaster = Forecaster(checkpoint, statistics, grid, channels, precision, steps_per_call, graphs, memory)
        return CompiledOnce(forecaster, cache, *program)
