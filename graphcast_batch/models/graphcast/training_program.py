"""Define the program of one update of GraphCast's weights, as a pure function of plain arrays on a mesh of devices."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, PartitionSpec
from numpy.typing import NDArray

from graphcast_batch.grid import Grid
from graphcast_batch.models.graphcast.loss import LossAndParts, rollout_loss
from graphcast_batch.models.graphcast.network import Folded
from graphcast_batch.models.graphcast.predictor import Constants, ModelState, Predictor

_BETAS = 0.9, 0.95
"""Decay rates of the means of AdamW, as published."""
SHARED: Any = PartitionSpec()  # type: ignore[no-untyped-call] # JAX leaves it without types
"""What every device holds whole."""
SPLIT: Any = PartitionSpec("samples")  # type: ignore[no-untyped-call]
"""What is split over the devices by samples."""


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


@dataclass(frozen=True, eq=False)
class TrainingProgram:
    """The functions that a training compiles.

    Attributes:
        predictor: computes one step.
        grid: the points.
        mesh: the devices, along one axis, ``samples``.
        weight_decay: decay rate of weight matrices.
        clip: norm above which a gradient is scaled down.
        average: share of the running mean of weights that stays in an update; None for no mean.
        together: number of samples that a device computes together.
    """

    predictor: Predictor
    grid: Grid
    mesh: Mesh
    weight_decay: float
    clip: float
    average: float | None
    together: int

    @cached_property
    def optimizer(self) -> optax.GradientTransformation:
        """AdamW without the learning rate, after the gradient is clipped."""
        return optax.chain(
            optax.clip_by_global_norm(self.clip),
            optax.scale_by_adam(*_BETAS),
            optax.add_decayed_weights(self.weight_decay, mask=_matrices),
        )

    @cached_property
    def _loss(self) -> Callable[[Constants, ModelState, Array, Array], LossAndParts]:
        return rollout_loss(self.predictor, self.grid, rematerialized=True)

    def updated(
        self,
        training: Training,
        constants: Any,  # noqa: ANN401 - a pytree
        samples: Samples,
        rate: Array,
    ) -> tuple[Training, Update]:
        """Make one update.

        Args:
            training: training before the update.
            constants: weights that are not trained, graphs in blocks, means and standard deviations, and (point,
                static) fields.
            samples: rollouts, split over the devices.
            rate: learning rate.

        Returns:
            The training after the update, unchanged if loss or gradient are not finite; and the loss and gradient.
        """
        gradient, (loss, parts) = self._across(self._local_gradient, (SHARED, SHARED))(
            training.parameters, constants, samples
        )
        norm = optax.tree.norm(gradient)
        directions, optimizer = self.optimizer.update(gradient, training.optimizer, training.parameters)
        parameters = jax.tree.map(lambda old, along: old - rate * along, training.parameters, directions)
        average = training.average
        if average is not None:
            average = optax.incremental_update(parameters, average, 1 - (self.average or 0.0))
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
        folded, unfolded = jax.vjp(lambda moving: self.predictor.folded({**still, **moving}, graphs), parameters)
        floats, joined = _parted(folded)

        def of_piece(floats: list[Array], piece: Samples) -> LossAndParts:
            of_each = self._of_each(Constants(joined(floats, jax.tree.leaves(folded)), scales, static))
            found: LossAndParts = jax.tree.map(lambda a: a.sum(axis=0), jax.vmap(of_each)(piece))
            return found

        def add(sums: Any, piece: Samples) -> tuple[Any, None]:  # noqa: ANN401 - a pytree
            found = jax.value_and_grad(of_piece, has_aux=True)(floats, piece)
            return jax.tree.map(lambda a, b: a + b.astype(a.dtype), sums, found), None

        pieces = jax.tree.map(lambda a: a.reshape(-1, self.together, *a.shape[1:]), samples)
        none = _zeros(partial(jax.value_and_grad(of_piece, has_aux=True), floats), jax.tree.map(lambda a: a[0], pieces))
        (said, gradients), _ = jax.lax.scan(add, none, pieces)
        changes = [gradient.astype(leaf.dtype) for gradient, leaf in zip(gradients, floats, strict=True)]
        none_of = [np.zeros(leaf.shape, jax.dtypes.float0) for leaf in jax.tree.leaves(folded)]
        (gradient,) = unfolded(joined(changes, none_of))
        count = samples.frames.shape[0]
        sums, parts_of = ravel_pytree((gradient, said))  # one message: hundreds of small ones took most of an update
        return parts_of(jax.lax.pmean(sums / count, "samples"))  # type: ignore[no-untyped-call] # JAX leaves it without types

    def losses(self, parameters: Any, constants: Any, samples: Samples) -> Array:  # noqa: ANN401 - pytrees
        """Return the (sample,) loss of each sample.

        Args:
            parameters: weights that are trained.
            constants: as for `updated`.
            samples: rollouts, split over the devices.
        """
        found: Array = self._across(self._local_losses, SPLIT)(parameters, constants, samples)
        return found

    def _across(self, function: Callable[..., Any], out_specs: Any) -> Callable[..., Any]:  # noqa: ANN401 - of JAX
        """Return a function of weights, constants and samples that every device computes for its own samples."""
        specs = (SHARED, SHARED, SPLIT)
        across: Callable[..., Any] = jax.shard_map(
            function, mesh=self.mesh, in_specs=specs, out_specs=out_specs, check_vma=False
        )
        return across

    def _local_losses(self, parameters: Any, constants: Any, samples: Samples) -> Any:  # noqa: ANN401 - pytrees
        still, graphs, scales, static = constants
        of_each = self._of_each(Constants(self.predictor.folded({**still, **parameters}, graphs), scales, static))
        return jax.lax.map(lambda sample: of_each(sample)[0], samples)

    def _of_each(self, constants: Constants) -> Callable[[Samples], LossAndParts]:
        def of_each(sample: Samples) -> LossAndParts:
            frames, forcings, known, targets = map(jnp.asarray, sample)
            return self._loss(constants, ModelState(tuple(frames), tuple(forcings)), known, targets)

        return of_each


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


def _matrices(parameters: Any) -> Any:  # noqa: ANN401 - pytrees
    """Return which arrays are weight matrices, which decay; biases and norms do not."""
    return jax.tree.map(lambda a: a.ndim > 1, parameters)
