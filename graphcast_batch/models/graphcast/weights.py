"""Read or draw the weights that a config chooses."""

import hashlib
from collections.abc import Collection, Mapping

from graphcast_batch.config.model_section import CheckpointWeights, RandomWeights
from graphcast_batch.models.base import Checkpoint
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.graphcast.checkpoint import load_checkpoint
from graphcast_batch.models.graphcast.parameters import check_parameters, random_parameters
from graphcast_batch.spec import Architecture, Task


class ConfiguredWeights:
    """The weights of a run: architecture and task are known at once, the weights themselves once the inputs are.

    Attributes:
        architecture: sizes of the network.
        task: step length, input frames, variables in and out, and levels.

    Raises:
        CheckpointError: the file cannot be read.
    """

    architecture: Architecture
    task: Task

    def __init__(self, weights: RandomWeights | CheckpointWeights) -> None:
        self._weights = weights
        self._loaded = load_checkpoint(weights.path) if isinstance(weights, CheckpointWeights) else None
        origin = self._loaded or weights
        assert not isinstance(origin, CheckpointWeights)
        self.architecture, self.task = origin.architecture, origin.task

    def channels(self, dims: Mapping[str, Collection[str]]) -> Channels:
        """Return the places of the variables, for inputs of these dimensions; see `Weights.channels`.

        Raises:
            TaskError: the task does not fit the inputs.
        """
        return Channels.of(self.task, dims)

    def checkpoint(self, channels: Channels) -> Checkpoint:
        """Return the weights themselves; see `Weights.checkpoint`.

        Raises:
            CheckpointError: a parameter is missing, or its shape does not fit the channels.
        """
        found = self._loaded or self._drawn(channels)
        where = self._weights.path if isinstance(self._weights, CheckpointWeights) else "drawn"
        check_parameters(
            found.parameters, found.architecture, channels.inputs, channels.outputs, f"the checkpoint {where}"
        )
        return found

    def _drawn(self, channels: Channels) -> Checkpoint:
        weights = self._weights
        assert isinstance(weights, RandomWeights)
        return Checkpoint(
            parameters=random_parameters(weights.architecture, channels.inputs, channels.outputs, weights.seed),
            architecture=weights.architecture,
            task=weights.task,
            description=f"random weights, seed {weights.seed}",
            license="none",
            sha256=hashlib.sha256(weights.model_dump_json().encode()).hexdigest(),
        )
