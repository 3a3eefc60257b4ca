"""Make forecasts with GraphCast on one device."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array
from numpy.typing import NDArray

from graphcast_batch.grid import Grid
from graphcast_batch.models.base import Checkpoint, MemoryMode, Parameters, Precision, Start, steps_in_call
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.devices import backend, device_kind
from graphcast_batch.models.edge_blocks import BlockedGraphs
from graphcast_batch.models.graphcast.device_blocks import in_blocks
from graphcast_batch.models.graphcast.loss import gradient_norms, rollout_loss
from graphcast_batch.models.graphcast.network import Folded
from graphcast_batch.models.graphcast.parameters import check_parameters
from graphcast_batch.models.graphcast.predictor import Constants, ModelState, Predictor
from graphcast_batch.models.graphcast.rollout import compiled_steps, rollout
from graphcast_batch.models.graphs import Graphs, build_graphs
from graphcast_batch.models.normalization import normalization
from graphcast_batch.models.state_arrays import forcing_blocks, initial_arrays, target_points
from graphcast_batch.spec import Task


class Forecaster:
    """GraphCast, loaded onto one device; see `Model`.

    Attributes:
        task: step length, input frames, variables in and out, and levels.
    """

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
        """Build the graphs and put everything that never changes on the device.

        Args:
            checkpoint: the weights, their architecture and task.
            statistics: normalization statistics by kind: ``mean``, ``stddev`` and ``diffs_stddev``.
            grid: the points of the inputs and of the forecast.
            channels: the places of the variables of the checkpoint's task.
            precision: precision of the network.
            steps_per_call: largest number of steps in one call of the compiled program.
            graphs: graphs of the architecture on the grid; None to build them.
            memory: ``fast`` keeps large arrays that never change on the device, ``lean`` computes them again in every
                step.

        Raises:
            CheckpointError: the weights do not fit the channels.
            StatisticsError: a statistic is missing.
        """
        self._architecture = checkpoint.architecture
        check_parameters(checkpoint.parameters, self._architecture, channels.inputs, channels.outputs, "the checkpoint")
        self.task: Task = checkpoint.task
        self.grid = grid
        self._channels = channels
        self._steps_per_call = steps_per_call
        lean, accelerated = memory == "lean", backend() != "cpu"
        self._predictor = Predictor(checkpoint.architecture, channels, precision, lean=lean, bits=not accelerated)
        graphs = graphs or build_graphs(checkpoint.architecture, grid)
        self._graphs = in_blocks(graphs, checkpoint.architecture.latent_size, accelerated=accelerated)
        self._fold = jax.jit(self._predictor.folded)
        self._network: Folded | None = self._fold(used(checkpoint.parameters), self._graphs)
        self._normalization = jax.tree.map(jnp.asarray, normalization(channels, statistics))
        self._advance, self._advance_many = (
            compiled_steps(self._predictor, grid, accelerated=accelerated, batched=batched) for batched in (False, True)
        )

    @property
    def device(self) -> str:
        """Kind of the device, as JAX names it."""
        return device_kind()

    def replace_weights(self, parameters: Parameters) -> None:
        """Take other weights; see `Model.replace_weights`."""
        channels = self._channels
        check_parameters(parameters, self._architecture, channels.inputs, channels.outputs, "the other weights")
        self._network = None  # else the device would have both for a moment
        self._network = self._fold(used(parameters), self._graphs)

    def forecast(self, inputs: xr.Dataset, forcings: xr.Dataset, steps: int) -> Iterator[dict[str, Array]]:
        """Yield the frames of one forecast; see `Model.forecast`. They are on their way to the host."""
        constants, state = self._start(inputs)
        blocks = map(jnp.asarray, self._blocks(inputs, forcings, steps))
        del inputs  # which are large, and are on the device now
        for frames in rollout(self._advance, constants, state, blocks):
            for field in frames.values():
                field.copy_to_host_async()
            yield frames

    def forecast_many(self, starts: Sequence[Start], steps: int) -> Iterator[list[dict[str, Array]]]:
        """Yield the frames of several forecasts; see `Model.forecast_many`. They are on their way to the host."""
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
        """Return the training loss, its parts and the norms of its gradient; see `Model.loss`."""
        steps = truth["prediction_timedelta"].size
        constants, state = self._start(inputs)
        (known,) = forcing_blocks(self._channels, forcings, inputs["time"].values[-1], steps, steps, self.grid)
        targets = target_points(self._channels, truth, self.grid)
        predictor = replace(self._predictor, bits=False)
        loss = rollout_loss(predictor, self.grid)

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
                network = predictor.folded(parameters, graphs)
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
        assert self._network is not None, "weights that could not be replaced were not replaced again"
        constants = Constants(self._network, self._normalization, static)
        return constants, ModelState(tuple(frames), tuple(forcings))

    def _blocks(self, inputs: xr.Dataset, forcings: xr.Dataset, steps: int) -> Iterator[NDArray[np.float32]]:
        per_call = steps_in_call(steps, self._steps_per_call)
        return forcing_blocks(self._channels, forcings, inputs["time"].values[-1], steps, per_call, self.grid)


def used(parameters: Parameters) -> dict[str, dict[str, np.ndarray]]:
    """Return the weights as plain dicts, without those whose output nothing uses."""
    unused = "mesh2grid_gnn/~_networks_builder/processor_nodes_0_mesh_nodes"
    return {module: dict(named) for module, named in parameters.items() if not module.startswith(unused)}
