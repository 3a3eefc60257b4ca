"""Train GraphCast's weights by one batch of samples after another, on one device or on several at once.

Lam et al. 2023, supplement 4.3 to 4.5: AdamW on the mean loss of rollouts, gradients clipped by their norm. The steps
of a rollout are computed again for the gradient, so that only the frames of a long rollout are kept.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from graphcast_batch.errors import TrainingError
from graphcast_batch.grid import Grid
from graphcast_batch.models.base import Checkpoint, Parameters, Precision
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.devices import backend
from graphcast_batch.models.graphcast.device_blocks import in_blocks
from graphcast_batch.models.graphcast.forecaster import used
from graphcast_batch.models.graphcast.loss import LossAndParts, rollout_loss
from graphcast_batch.models.graphcast.network import Folded
from graphcast_batch.models.graphcast.parameters import check_parameters
from graphcast_batch.models.graphcast.predictor import Constants, ModelState, Predictor
from graphcast_batch.models.graphs import Graphs
from graphcast_batch.models.normalization import normalization

_placed: Any = jax.make_array_from_process_local_data
_BETAS = 0.9, 0.95
"""Decay rates of the means of AdamW, as published."""
_SHARED: Any = PartitionSpec()  # type: ignore[no-untyped-call] # JAX leaves it without types
_SPLIT: Any = PartitionSpec("samples")  # type: ignore[no-untyped-call]


class Samples(NamedTuple):
    """Rollouts with their truth, in physical units, float32.

    Attributes:
        frames: (sample, frame, point, carried) variables that are fed back, oldest first.
        forcings: (sample, frame, point, forced_inputs) forcings at the same times.
        known: (sample, step, point, forced) forcings at later times.
        targets: (sample, step, point, outputs) truth.
    """

    frames: NDArray[np.float32]
    forcings: NDArray[np.float32]
    known: NDArray[np.float32]
    targets: NDArray[np.float32]


class Training(NamedTuple):
    """The state of a training: all that the next update depends on.

    Attributes:
        parameters: weights that are trained, by Haiku module and name.
        optimizer: state of optax's optimizer.
        average: running mean of the weights; None if there is none.
    """

    parameters: Any
    optimizer: Any
    average: Any


class Update(NamedTuple):
    """The loss and the gradient of one update.

    Attributes:
        loss: mean over the samples, before the update.
        parts: parts of the loss by target, before the weights of the sum.
        gradient_norm: norm of the gradient before clipping.
    """

    loss: Array
    parts: dict[str, Array]
    gradient_norm: Array


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
        self._average, self._together = average, together
        predictor = Predictor(checkpoint.architecture, channels, precision)
        self._loss = rollout_loss(predictor, grid, rematerialized=True)
        self._folded = predictor.folded
        edges = in_blocks(graphs, checkpoint.architecture.latent_size, accelerated=backend() != "cpu")
        self._mesh = Mesh(np.array(jax.devices()), ("samples",))
        self._constants = self._shared((still, edges, normalization(channels, statistics), static.astype(np.float32)))
        self._optimizer = optax.chain(
            optax.clip_by_global_norm(clip),
            optax.scale_by_adam(*_BETAS),
            optax.add_decayed_weights(weight_decay, mask=_matrices),
        )
        across = partial(jax.shard_map, mesh=self._mesh, check_vma=False)
        self._gradient = across(self._local_gradient, in_specs=(_SHARED, _SHARED, _SPLIT), out_specs=(_SHARED, _SHARED))
        self._updates = jax.jit(self._updated, donate_argnums=0, out_shardings=NamedSharding(self._mesh, _SHARED))
        self._compiled: dict[tuple[int, ...], Any] = {}
        self._losses = jax.jit(across(self._local_losses, in_specs=(_SHARED, _SHARED, _SPLIT), out_specs=_SPLIT))

    def begin(self) -> Training:
        """Return a training before its first update."""
        parameters = self._shared(self._began_with)
        average = self._shared(self._began_with) if self._average else None
        return Training(parameters, self._shared(self._optimizer.init(parameters)), average)

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

    def _updated(
        self,
        training: Training,
        constants: Any,  # noqa: ANN401 - a pytree
        samples: Samples,
        rate: Array,
    ) -> tuple[Training, Update]:
        gradient, (loss, parts) = self._gradient(training.parameters, constants, samples)
        norm = optax.tree.norm(gradient)
        directions, optimizer = self._optimizer.update(gradient, training.optimizer, training.parameters)
        parameters = jax.tree.map(lambda old, along: old - rate * along, training.parameters, directions)
        average = training.average
        if average is not None:
            average = optax.incremental_update(parameters, average, 1 - (self._average or 0.0))
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        after = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old), Training(parameters, optimizer, average), training
        )
        return after, Update(loss, parts, norm)

    def _local_gradient(self, parameters: Any, constants: Any, samples: Samples) -> Any:  # noqa: ANN401 - pytrees
        """Return the mean gradient, loss and parts over the samples of all devices; each device takes a few at a time.

        What follows from the weights alone is computed once for all samples, forwards and backwards.
        """
        still, graphs, scales, static = constants
        folded, unfolded = jax.vjp(lambda moving: self._folded({**still, **moving}, graphs), parameters)
        floats, joined = _parted(folded)

        def of_piece(floats: list[Array], piece: Samples) -> LossAndParts:
            of_each = self._of_each(Constants(joined(floats, jax.tree.leaves(folded)), scales, static))
            found: LossAndParts = jax.tree.map(lambda a: a.sum(axis=0), jax.vmap(of_each)(piece))
            return found

        def add(sums: Any, piece: Samples) -> tuple[Any, None]:  # noqa: ANN401 - a pytree
            found = jax.value_and_grad(of_piece, has_aux=True)(floats, piece)
            return jax.tree.map(lambda a, b: a + b.astype(a.dtype), sums, found), None

        pieces = jax.tree.map(lambda a: a.reshape(-1, self._together, *a.shape[1:]), samples)
        none = _zeros(partial(jax.value_and_grad(of_piece, has_aux=True), floats), jax.tree.map(lambda a: a[0], pieces))
        (said, gradients), _ = jax.lax.scan(add, none, pieces)
        changes = [gradient.astype(leaf.dtype) for gradient, leaf in zip(gradients, floats, strict=True)]
        none_of = [np.zeros(leaf.shape, jax.dtypes.float0) for leaf in jax.tree.leaves(folded)]
        (gradient,) = unfolded(joined(changes, none_of))
        count = samples.frames.shape[0]
        sums, parts_of = ravel_pytree((gradient, said))  # one message: hundreds of small ones took most of an update
        return parts_of(jax.lax.pmean(sums / count, "samples"))  # type: ignore[no-untyped-call] # JAX leaves it without types

    def _local_losses(self, parameters: Any, constants: Any, samples: Samples) -> Any:  # noqa: ANN401 - pytrees
        still, graphs, scales, static = constants
        of_each = self._of_each(Constants(self._folded({**still, **parameters}, graphs), scales, static))
        return jax.lax.map(lambda sample: of_each(sample)[0], samples)

    def _of_each(self, constants: Constants) -> Callable[[Samples], LossAndParts]:
        def of_each(sample: Samples) -> LossAndParts:
            frames, forcings, known, targets = map(jnp.asarray, sample)
            return self._loss(constants, ModelState(tuple(frames), tuple(forcings)), known, targets)

        return of_each

    def _shared(self, tree: Any) -> Any:  # noqa: ANN401 - a pytree
        """Return the same arrays on every device of every process."""
        sharding = NamedSharding(self._mesh, _SHARED)
        return jax.tree.map(lambda a: _placed(sharding, np.asarray(a), np.shape(a)), tree)

    def _split(self, samples: Samples) -> Samples:
        """Return the samples of each process on its devices."""
        sharding = NamedSharding(self._mesh, _SPLIT)
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


def _parted(folded: Folded) -> tuple[list[Array], Callable[[Sequence[Array], Sequence[Any]], Folded]]:
    """Return the leaves that have a gradient, and a function that puts other leaves in their places."""
    leaves, structure = jax.tree.flatten(folded)
    moving = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]

    def joined(floats: Sequence[Array], rest: Sequence[Any]) -> Folded:
        left = iter(floats)
        chosen = [next(left) if moves else other for moves, other in zip(moving, rest, strict=True)]
        found: Folded = jax.tree.unflatten(structure, chosen)
        return found

    return [leaf for leaf, moves in zip(leaves, moving, strict=True) if moves], joined


def _zeros(function: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401 - pytrees
    """Return zeros in the shapes of what a function returns, in float32 or finer, to add to."""
    shapes = jax.eval_shape(function, *arguments)
    return jax.tree.map(lambda a: jnp.zeros(a.shape, jnp.promote_types(a.dtype, jnp.float32)), shapes)


def _chosen(training: Training) -> Any:  # noqa: ANN401 - a pytree
    return training.parameters if training.average is None else training.average


def _matrices(parameters: Any) -> Any:  # noqa: ANN401 - pytrees
    """Return which arrays are weight matrices, which decay; biases and norms do not."""
    return jax.tree.map(lambda a: a.ndim > 1, parameters)
