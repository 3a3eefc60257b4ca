"""Compute one step of GraphCast: the next state and frame, from a state, the forcings of the next time and constants.

Only plain arrays are used. Everything large is an argument of the compiled program, and nothing a constant in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import haiku as hk
import jax.numpy as jnp
from jax import Array

from graphcast_batch.models.channels import Channels
from graphcast_batch.models.edge_blocks import BlockedGraphs
from graphcast_batch.models.graphcast.layers import network_weights
from graphcast_batch.models.graphcast.network import Folded, fold, graphcast
from graphcast_batch.models.normalization import Normalization
from graphcast_batch.spec import Architecture


class ModelState(NamedTuple):
    """The state that a step starts from, in physical units, float32 or finer.

    Attributes:
        frames: (point, carried) variables that are fed back, for each input frame, oldest first.
        forcings: (point, forced_inputs) forcings at the same times.
    """

    frames: tuple[Array, ...]
    forcings: tuple[Array, ...]

    def parted(self, count: int) -> tuple["ModelState", "ModelState"]:
        """Return the oldest frames, so many or all there are, and the others."""
        return (
            ModelState(self.frames[:count], self.forcings[:count]),
            ModelState(self.frames[count:], self.forcings[count:]),
        )

    def followed_by(self, later: "ModelState") -> "ModelState":
        """Return the frames of both."""
        return ModelState(self.frames + later.frames, self.forcings + later.forcings)


class Constants(NamedTuple):
    """The arguments that are the same in every step.

    Attributes:
        network: weights and graphs, with what follows from them alone.
        normalization: means and standard deviations.
        static: (point, static) fields that never change, in physical units.
    """

    network: Folded
    normalization: Normalization
    static: Array


@dataclass(frozen=True)
class Predictor:
    """GraphCast's step as pure functions.

    Attributes:
        architecture: sizes of the network.
        channels: the places of the variables in the vectors of the network.
        precision: precision of the network, bfloat16 as published; normalization and frames are always float32 or
            finer. In float64 gradients can be compared with differences.
        lean: whether memory is saved by more arithmetic; see `fold`.
        bits: whether bfloat16 arrays in blocks are kept as bits, for a CPU and without a gradient; see `fold`.
    """

    architecture: Architecture
    channels: Channels
    precision: Literal["bfloat16", "float32", "float64"] = "float32"
    lean: bool = False
    bits: bool = False

    def folded(self, parameters: Mapping[str, Mapping[str, Array]], graphs: BlockedGraphs) -> Folded:
        """Prepare weights, by Haiku module and name, and graphs for the step; differentiable in the weights."""
        channels = self.channels
        collect: Any = hk.transform(
            lambda: network_weights(
                self.architecture, channels.inputs, channels.outputs, channels.input_rows, channels.output_columns
            )
        )
        weights = hk.without_apply_rng(collect).apply(parameters)
        return fold(weights, graphs, jnp.dtype(self.precision), lean=self.lean, bits=self.bits)

    def step(self, constants: Constants, state: ModelState, forcing: Array) -> tuple[ModelState, Array]:
        """Compute one step.

        Args:
            constants: weights, graphs, means and standard deviations.
            state: state at the current time.
            forcing: (point, forced) forcings at the next time.

        Returns:
            The state at the next time, and its frame: (point, outputs) in the order of ``channels.targets``.
        """
        frame = self.frame(constants, state, self.normalized(constants, state, forcing))
        return self.next_state(state, frame, forcing), frame

    def normalized(self, constants: Constants, state: ModelState, forcing: Array) -> Array:
        """Return the normalized (point, outputs) of the network for the next time, float32 or finer, in our order."""
        fields = (state, constants.static, forcing)
        return graphcast(constants.network, fields, partial(self._features, constants.normalization))

    def frame(self, constants: Constants, state: ModelState, normalized: Array) -> Array:
        """Return the frame, (point, outputs) in physical units: the state plus its change, and the other outputs."""
        scales, carried = constants.normalization, state.frames[-1].shape[-1]
        mean, deviation = scales.diagnosed
        return jnp.concatenate(
            [
                state.frames[-1] + normalized[:, :carried] * scales.change,
                normalized[:, carried:] * deviation + mean,
            ],
            axis=-1,
        )

    def next_state(self, state: ModelState, frame: Array, forcing: Array) -> ModelState:
        """Return the state one step later."""
        places = self.channels.slices(self.channels.forced)
        known = [forcing[:, places[name]] for name in self.channels.forced_inputs]
        known_next = jnp.concatenate([state.forcings[0][:, :0], *known], axis=-1)
        carried = state.frames[-1].shape[-1]
        return ModelState((*state.frames[1:], frame[:, :carried]), (*state.forcings[1:], known_next))

    def _features(self, scales: Normalization, fields: tuple[ModelState, Array, Array]) -> Array:
        state, static, forcing = fields
        places = self.channels.slices(self.channels.forced)
        forced_inputs = jnp.concatenate(
            [scales.forced[:, :0], *(scales.forced[:, places[name]] for name in self.channels.forced_inputs)], axis=-1
        )
        return jnp.concatenate(
            [
                *(_scaled(frame, scales.carried) for frame in state.frames),
                *(_scaled(known, forced_inputs) for known in state.forcings),
                _scaled(static, scales.static),
                _scaled(forcing, scales.forced),
            ],
            axis=-1,
        )


def _scaled(values: Array, scales: Any) -> Array:  # noqa: ANN401 - an array, of NumPy or of JAX
    mean, deviation = scales
    return jnp.asarray((values - mean) / deviation)
