"""Train GraphCast's weights by one batch of samples after another, on one device or on several at once.

Lam et al. 2023, supplement 4.3 to 4.5: AdamW on the mean loss of rollouts, gradients clipped by their norm. The steps
of a rollout are computed again for the gradient, so that only the frames of a long rollout are kept.
"""

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax
import numpy as np
import xarray as xr
from jax.sharding import Mesh, NamedSharding
from numpy.typing import NDArray

from graphcast_batch.errors import TrainingError
from graphcast_batch.grid import Grid
from graphcast_batch.models.base import Checkpoint, Parameters, Precision
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.devices import backend
from graphcast_batch.models.graphcast.device_blocks import in_blocks
from graphcast_batch.models.graphcast.forecaster import used
from graphcast_batch.models.graphcast.parameters import check_parameters
from graphcast_batch.models.graphcast.predictor import Predictor
from graphcast_batch.models.graphcast.training_program import SHARED, SPLIT, Samples, Training, TrainingProgram, Update
from graphcast_batch.models.graphs import Graphs
from graphcast_batch.models.normalization import normalization

_placed: Any = jax.make_array_from_process_local_data


class Trainer:
    """Trains GraphCast on the devices of all processes that take part."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        statistics: Mapping[str, xr.Dataset],
        grid: Grid,
        channels: Channels,
        static: NDArray[np.float32],
        graphs: Graphs,
        precision: Precision,
        *,
        weight_decay: float,
        clip: float,
        average: float | None,
        frozen: Collection[str],
        together: int,
    ) -> None:
        """Put everything constant on the devices.

        Args:
            checkpoint: weights to begin with, their task and architecture.
            statistics: normalization statistics by kind: ``mean``, ``stddev`` and ``diffs_stddev``.
            grid: the points.
            channels: the places of the variables of the checkpoint's task.
            static: (point, static) fields that never change, in physical units.
            graphs: graphs of the architecture on the grid.
            precision: precision of the network; weights are always float32.
            weight_decay: decay rate of weight matrices.
            clip: norm above which a gradient is scaled down.
            average: share of the running mean of weights that stays in an update; None for no mean.
            frozen: names of modules that are not trained.
            together: number of samples that a device computes together.

        Raises:
            CheckpointError: the weights do not fit the channels.
            StatisticsError: a constant is missing.
        """
        check_parameters(
            checkpoint.parameters, checkpoint.architecture, channels.inputs, channels.outputs, "the checkpoint"
        )
        moving = used(checkpoint.parameters)
        still = {module: moving.pop(module) for module in frozen}
        self._began_with, self._known = moving, checkpoint.parameters
        predictor = Predictor(checkpoint.architecture, channels, precision)
        self._mesh = Mesh(np.array(jax.devices()), ("samples",))
        self._program = TrainingProgram(predictor, grid, self._mesh, weight_decay, clip, average, together)
        edges = in_blocks(graphs, checkpoint.architecture.latent_size, accelerated=backend() != "cpu")
        self._constants = self._shared((still, edges, normalization(channels, statistics), static.astype(np.float32)))
        shared = NamedSharding(self._mesh, SHARED)
        self._updates = jax.jit(self._program.updated, donate_argnums=0, out_shardings=shared)
        self._losses = jax.jit(self._program.losses)
        self._compiled: dict[tuple[int, ...], Any] = {}

    def begin(self) -> Training:
        """Return a training before its first update."""
        parameters = self._shared(self._began_with)
        average = self._shared(self._began_with) if self._program.average else None
        return Training(parameters, self._shared(self._program.optimizer.init(parameters)), average)

    def compile(self, training: Training, samples: Samples) -> None:
        """Compile the program for updates with this number of samples and steps, if it is not compiled yet."""
        size = samples.targets.shape[:2]
        if size not in self._compiled:
            arguments = (training, self._constants, self._split(samples), self._shared(np.float32(0)))
            self._compiled[size] = self._updates.lower(*arguments).compile()

    def update(self, training: Training, samples: Samples, rate: float) -> tuple[Training, Update]:
        """Make one update; the training before it cannot be used any more.

        Args:
            training: training before the update.
            samples: samples of this process's own devices, the same number on each.
            rate: learning rate.

        Returns:
            The training after the update, unchanged if loss or gradient are not finite; and the loss and gradient.
        """
        self.compile(training, samples)
        program = self._compiled[samples.targets.shape[:2]]
        found: tuple[Training, Update] = program(
            training, self._constants, self._split(samples), self._shared(np.float32(rate))
        )
        return found

    def losses(self, training: Training, samples: Samples) -> NDArray[np.float32]:
        """Return the (sample,) loss of each sample of this process, by the present weights of the training."""
        losses = self._losses(_chosen(training), self._constants, self._split(samples))
        return np.concatenate([np.asarray(part.data) for part in losses.addressable_shards])

    def result(self, training: Training) -> Parameters:
        """Return the present weights of the training: their running mean, if there is one."""
        found: dict[str, dict[str, NDArray[np.float32]]] = jax.tree.map(np.asarray, _chosen(training))
        return {**self._known, **found}

    def restored(self, like: Training, arrays: Mapping[str, NDArray[Any]]) -> Training:
        """Return a training from the arrays that `arrays_of` returned.

        Raises:
            TrainingError: the arrays are those of another training.
        """
        known, structure = jax.tree.flatten(like)
        names = list(arrays_of(like))
        kinds = {name: (leaf.shape, leaf.dtype) for name, leaf in zip(names, known, strict=True)}
        if kinds != {name: (array.shape, array.dtype) for name, array in arrays.items()}:
            raise TrainingError(
                "the state of the training must be that of this recipe and these weights, but has other arrays; take "
                "another folder, or the recipe that it was begun with"
            )
        found: Training = self._shared(jax.tree.unflatten(structure, [arrays[name] for name in names]))
        return found

    def _shared(self, tree: Any) -> Any:  # noqa: ANN401 - a pytree
        """Return the same arrays on every device of every process."""
        sharding = NamedSharding(self._mesh, SHARED)
        return jax.tree.map(lambda a: _placed(sharding, np.asarray(a), np.shape(a)), tree)

    def _split(self, samples: Samples) -> Samples:
        """Return the samples of each process on its devices."""
        sharding = NamedSharding(self._mesh, SPLIT)
        return Samples(*(_placed(sharding, part) for part in samples))


def arrays_of(training: Training) -> dict[str, NDArray[Any]]:
    """Return all arrays of a training, by the names of their places."""
    return {
        jax.tree_util.keystr(place, simple=True, separator=":"): np.asarray(leaf)
        for place, leaf in jax.tree_util.tree_leaves_with_path(training)
    }


def frozen_modules(patterns: Sequence[str], parameters: Parameters) -> frozenset[str]:
    """Return the names of the modules that match a pattern.

    Raises:
        TrainingError: a pattern matches no module, or nothing is left to train.
    """
    modules = frozenset(used(parameters))
    for pattern in patterns:
        if not any(fnmatchcase(module, pattern) for module in modules):
            raise TrainingError(
                f"model.freeze: {pattern} must match the name of a module, but matches none of "
                f"{', '.join(sorted(modules))}; correct it"
            )
    found = frozenset(module for module in modules if any(fnmatchcase(module, pattern) for pattern in patterns))
    if found == modules:
        raise TrainingError("model.freeze must leave a module to train, but matches all; take narrower patterns")
    return found


def _chosen(training: Training) -> Any:  # noqa: ANN401 - a pytree
    return training.parameters if training.average is None else training.average
