"""Load GraphCast as DeepMind's package implements it: the row ``deepmind`` of the table of models.

The network is the same as in `graphcast`, so that weights and statistics are the same too.
"""

from collections.abc import Mapping
from typing import Final

import xarray as xr

from graphcast_batch.config.model_section import CheckpointWeights, RandomWeights
from graphcast_batch.grid import Grid
from graphcast_batch.models.base import CallSize, Checkpoint, MemoryMode, Model, Precision
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.disk_cache import Cache
from graphcast_batch.models.graphcast.graphcast_kind import GraphcastKind
from graphcast_batch.models.graphcast.weights import ConfiguredWeights

_SAME_NETWORK: Final = GraphcastKind()


class DeepmindKind:
    """GraphCast as DeepMind's package implements it; see `ModelKind`."""

    takes_noise: Final = False
    batches: Final = False
    gives_loss: Final = False
    predicts_memory: Final = False
    memory_modes: tuple[MemoryMode, ...] = ("fast",)

    def description(self) -> str:
        """Return the name and version of DeepMind's package; see `ModelKind.description`."""
        from graphcast_batch.models.deepmind.package import installed_package

        return str(installed_package())

    def packages(self) -> dict[str, str]:
        """Return the version of DeepMind's package; see `ModelKind.packages`."""
        from graphcast_batch.models.deepmind.package import installed_package

        package = installed_package()
        return {package.name: package.version}

    def weights(self, chosen: RandomWeights | CheckpointWeights) -> ConfiguredWeights:
        """Return the weights that a config chooses; see `ModelKind.weights`."""
        return _SAME_NETWORK.weights(chosen)

    def predicted_bytes(self, call: CallSize, memory: MemoryMode) -> int:
        """Return the number of bytes that a device must have at least for a call.

        The bytes are those of `graphcast`. The package was measured to need more (docs/benchmarks.md), so that they are
        a lower bound.
        """
        return _SAME_NETWORK.predicted_bytes(call, memory)

    def worthwhile_batch(self, call: CallSize) -> int:
        """Return 1: DeepMind's package computes one forecast at a time."""
        return 1

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
        """Load the model onto the device of this process; see `ModelKind.load`. The package keeps no cache."""
        from graphcast_batch.models.deepmind.deepmind_forecaster import DeepmindForecaster

        return DeepmindForecaster(checkpoint, statistics, grid, channels, precision, steps_per_call)
