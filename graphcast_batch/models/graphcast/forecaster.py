"""Weights, statistics and a grid become a Forecaster: it turns an initial state into a stream of named frames."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array
from numpy.typing import NDArray

from graphcast_batch.grid import Grid
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.edge_blocks import BlockedGraphs, blocked
from graphcast_batch.models.graphcast.checkpoint import Checkpoint
from graphcast_batch.models.graphcast.device_memory import MemoryMode, edges_at_once, steps_in_call
from graphcast_batch.models.graphcast.loss import gradient_norms, rollout_loss
from graphcast_batch.models.graphcast.parameters import Parameters, check_parameters
from graphcast_batch.models.graphcast.predictor import Constants, ModelState, Predictor
from graphcast_batch.models.graphcast.rollout import rollout, several_steps
from graphcast_batch.models.graphs import Graphs, build_graphs
from graphcast_batch.models.normalization import normalization
from graphcast_batch.models.state_arrays import forcing_blocks, initial_arrays, named_fields, target_points

Precision = Literal["float32", "bfloat16"]


class Forecaster:
    """GraphCast on one device."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        statistics: Mapping[str, xr.Dataset],
        grid: Grid,
        channels: Channels,
        precision: Precision,
        steps_per_call: int = 1,
        graphs: Graphs | None = None,
        memory: MemoryMode = "fast",
    ) -> None:
        """Builds the graphs and puts everything constant on the device.

        Args:
            checkpoint: weights with their task and architecture.
            statistics: datasets named mean, stddev and diffs_stddev.
            grid: the points.
            channels: of the checkpoint's task.
            precision: of the network; frames are float32 always.
            steps_per_call: at most so many steps in one call of the compiled program.
            graphs: of the architecture on the grid; without them they are built.
            memory: ``lean`` computes again in every step what is large and never changes.

        Raises:
            CheckpointError: the weights do not fit the channels.
            StatisticsError: a constant is missing.
        """
        check_parameters(
            checkpoint.parameters, checkpoint.architecture, channels.inputs, channels.outputs, "the checkpoint"
        )
        self.grid = grid
        self._channels = channels
        self._steps_per_call = steps_per_call
        self._predictor = Predictor(checkpoint.architecture, channels, precision, lean=memory == "lean")
        graphs = graphs or build_graphs(checkpoint.architecture, grid)
        at_once = edges_at_once(checkpoint.architecture.latent_size, accelerated=backend() != "cpu")
        self._graphs = blocked(graphs, at_once)
        self._network = jax.jit(self._predictor.folded)(used(checkpoint.parameters), self._graphs)
        self._normalization = jax.tree.map(jnp.asarray, normalization(channels, statistics))
        self._advance = jax.jit(self._several_frames, donate_argnums=1)
        of_each = Constants(network=None, normalization=None, static=0)  # type: ignore[arg-type] # what vmap maps
        self._advance_many = jax.jit(jax.vmap(self._several_frames, in_axes=(of_each, 0, 0)), donate_argnums=1)

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
        constants, state = self._start(inputs)
        blocks = map(jnp.asarray, self._blocks(inputs, forcings, steps))
        for frames in rollout(self._advance, constants, state, blocks):
            for field in frames.values():
                field.copy_to_host_async()
            yield frames

    def forecast_many(
        self, starts: Sequence[tuple[xr.Dataset, xr.Dataset]], steps: int
    ) -> Iterator[list[dict[str, Array]]]:
        """Frames of several forecasts, computed together.

        Args:
            starts: inputs and forcings of each, as for `forecast`; for another number of them another program is
                compiled.
            steps: number of 6 h steps of each.

        Yields:
            For each call of the program and each forecast what `forecast` yields.
        """
        begun = [self._start(inputs) for inputs, _ in starts]
        constants = begun[0][0]._replace(static=jnp.stack([constants.static for constants, _ in begun]))
        state: ModelState = jax.tree.map(lambda *parts: jnp.stack(parts), *(state for _, state in begun))
        each = (self._blocks(inputs, forcings, steps) for inputs, forcings in starts)
        blocks = (jnp.stack(of_all) for of_all in zip(*each, strict=True))
        for frames in rollout(self._advance_many, constants, state, blocks):
            for field in frames.values():
                field.copy_to_host_async()
            yield [{name: field[k] for name, field in frames.items()} for k in range(len(starts))]

    def loss(
        self, parameters: Parameters, inputs: xr.Dataset, forcings: xr.Dataset, truth: xr.Dataset
    ) -> dict[str, object]:
        """The training loss over all lead times of the truth, with its parts and the norms of its gradient.

        Args:
            parameters: weights by Haiku module and name, of the checkpoint's architecture and task.
            inputs: as for `forecast`.
            forcings: as for `forecast`.
            truth: (prediction_timedelta, [level], latitude, longitude) targets, every 6 h from the first step.
        """
        steps = truth["prediction_timedelta"].size
        constants, state = self._start(inputs)
        (known,) = forcing_blocks(self._channels, forcings, inputs["time"].values[-1], steps, steps, self.grid)
        targets = target_points(self._channels, truth, self.grid)
        loss = rollout_loss(self._predictor, self.grid)

        @jax.jit
        def value_and_gradient(
            parameters: object,
            graphs: BlockedGraphs,
            constants: Constants,
            state: ModelState,
            known: Array,
            targets: Array,
        ) -> Any:  # noqa: ANN401 - nested tuples of a pytree
            def of_parameters(parameters: Mapping[str, Mapping[str, Array]]) -> tuple[Array, dict[str, Array]]:
                network = self._predictor.folded(parameters, graphs)
                return loss(constants._replace(network=network), state, known, targets)

            return jax.value_and_grad(of_parameters, has_aux=True)(parameters)

        (total, parts), gradient = value_and_gradient(used(parameters), self._graphs, constants, state, known, targets)
        norms = dict.fromkeys(parameters, 0.0) | gradient_norms(gradient)
        return {
            "loss": float(total),
            "diagnostics": {name: float(part) for name, part in sorted(parts.items())},
            "gradient_norm": float(np.sqrt(sum(norm**2 for norm in norms.values()))),
            "gradient_norm_by_module": norms,
        }

    def _start(self, inputs: xr.Dataset) -> tuple[Constants, ModelState]:
        frames, forcings, static = map(jnp.asarray, initial_arrays(self._channels, inputs, self.grid))
        constants = Constants(self._network, self._normalization, static)
        return constants, ModelState(frames=frames, forcings=forcings)

    def _blocks(self, inputs: xr.Dataset, forcings: xr.Dataset, steps: int) -> Iterator[NDArray[np.float32]]:
        per_call = steps_in_call(steps, self._steps_per_call)
        return forcing_blocks(self._channels, forcings, inputs["time"].values[-1], steps, per_call, self.grid)

    def _several_frames(
        self, constants: Constants, state: ModelState, forcings: Array
    ) -> tuple[ModelState, dict[str, Array]]:
        state, frames = several_steps(self._predictor, constants, state, forcings)
        planes = jnp.swapaxes(frames, -1, -2)
        return state, named_fields(self._channels, self._channels.targets, planes, self.grid)


def backend() -> str:
    """Where JAX computes: cpu, gpu or tpu."""
    return jax.default_backend()


def device_bytes() -> int:
    """Memory of the device; 0 where it does not tell."""
    found = jax.local_devices()[0].memory_stats() or {}
    return int(found.get("bytes_limit", 0))


def used(parameters: Parameters) -> dict[str, dict[str, np.ndarray]]:
    """The weights as plain dicts, without those whose output nothing uses."""
    unused = "mesh2grid_gnn/~_networks_builder/processor_nodes_0_mesh_nodes"
    return {module: dict(named) for module, named in parameters.items() if not module.startswith(unused)}
