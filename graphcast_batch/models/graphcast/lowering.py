"""Lower GraphCast's programs from the shapes of their arguments, without weights, inputs or the device that runs them.

These are the programs that `Forecaster` and `Trainer` run.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jax.stages import Lowered

from graphcast_batch.models.base import CallSize, MemoryMode
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.graphcast.device_blocks import in_blocks
from graphcast_batch.models.graphcast.forecaster import used
from graphcast_batch.models.graphcast.parameters import parameter_shapes
from graphcast_batch.models.graphcast.predictor import Constants, ModelState, Predictor
from graphcast_batch.models.graphcast.rollout import compiled_steps
from graphcast_batch.models.graphcast.training_program import SHARED, SPLIT, Samples, Training, TrainingProgram
from graphcast_batch.models.graphs import Graphs
from graphcast_batch.models.normalization import Normalization


def lowered_call(
    call: CallSize,
    memory: MemoryMode,
    graphs: Graphs,
    device: Any = None,  # noqa: ANN401 - JAX gives its devices no public type
) -> Lowered:
    """Lower a call of a forecast.

    Args:
        call: sizes of the call.
        memory: how the network uses the memory.
        graphs: graphs of the architecture on the grid.
        device: to compile for, which may be absent; None for the one of this process.
    """
    channels, points = call.channels, call.grid.size
    lean, accelerated = memory == "lean", call.accelerated
    predictor = Predictor(call.architecture, channels, call.precision, lean=lean, bits=not accelerated)
    edges = in_blocks(graphs, call.architecture.latent_size, accelerated=accelerated)
    network = jax.eval_shape(predictor.folded, _parameters(call), edges)
    carried, forced, known, static = _widths(channels)
    batched = call.cases > 1
    of_each = (call.cases,) if batched else ()
    constants = Constants(network, _scales(channels), _array((*of_each, points, static)))
    frame, forcings = _array((*of_each, points, carried)), _array((*of_each, points, known))
    state = ModelState((frame,) * channels.frames, (forcings,) * channels.frames)
    arguments = (constants, *state.parted(call.steps), _array((*of_each, call.steps, points, forced)))
    program = compiled_steps(predictor, call.grid, accelerated=accelerated, batched=batched)
    lowered: Lowered = program.lower(*_with(arguments, None if device is None else SingleDeviceSharding(device)))
    return lowered


def lowered_update(call: CallSize, graphs: Graphs, device: Any) -> Lowered:  # noqa: ANN401 - JAX gives it no public type
    """Lower an update of the weights by one sample for each Case of a call, whose steps are those of a rollout.

    Args:
        call: sizes of the update.
        graphs: graphs of the architecture on the grid.
        device: to compile for, which may be absent.
    """
    channels, points, samples = call.channels, call.grid.size, call.cases
    predictor = Predictor(call.architecture, channels, call.precision)
    mesh = Mesh(np.array([device]), ("samples",))
    program = TrainingProgram(predictor, call.grid, mesh, weight_decay=0.1, clip=32.0, average=None, together=samples)
    parameters = _parameters(call)
    training = Training(parameters, jax.eval_shape(program.optimizer.init, parameters), None)
    edges = in_blocks(graphs, call.architecture.latent_size, accelerated=call.accelerated)
    carried, forced, known, static = _widths(channels)
    still: dict[str, Any] = {}
    constants = (still, edges, _scales(channels), _array((points, static)))
    rollouts = Samples(
        frames=_array((samples, channels.frames, points, carried)),
        forcings=_array((samples, channels.frames, points, known)),
        known=_array((samples, call.steps, points, forced)),
        targets=_array((samples, call.steps, points, channels.outputs)),
    )
    shared, split = (NamedSharding(mesh, spec) for spec in (SHARED, SPLIT))
    arguments = (
        *(_with(tree, shared) for tree in (training, constants)),
        _with(rollouts, split),
        _with(_array(()), shared),
    )
    return jax.jit(program.updated, donate_argnums=0, out_shardings=shared).lower(*arguments)


def _parameters(call: CallSize) -> Any:  # noqa: ANN401 - a pytree
    listed = parameter_shapes(call.architecture, call.channels.inputs, call.channels.outputs)
    return used({module: {name: _array(shape) for name, shape in named.items()} for module, named in listed.items()})


def _array(shape: Sequence[int]) -> Any:  # noqa: ANN401 - stands for an array
    return jax.ShapeDtypeStruct(tuple(shape), np.float32)  # type: ignore[no-untyped-call] # JAX leaves it without types


def _with(arguments: Any, sharding: Any) -> Any:  # noqa: ANN401 - pytrees
    """Return the shapes of arguments, placed by a sharding, or on the device of this process if it is None."""
    shape: Any = jax.ShapeDtypeStruct
    return jax.tree.map(lambda a: shape(a.shape, a.dtype, sharding=sharding), arguments)


def _widths(channels: Channels) -> tuple[int, int, int, int]:
    groups = (channels.carried, channels.forced, channels.forced_inputs, channels.static)
    carried, forced, known, static = (channels.width(names) for names in groups)
    return carried, forced, known, static


def _scales(channels: Channels) -> Normalization:
    carried, forced, _, static = _widths(channels)
    return Normalization(
        carried=_array((2, carried)),
        forced=_array((2, forced)),
        static=_array((2, static)),
        change=_array((carried,)),
        diagnosed=_array((2, channels.width(channels.diagnosed))),
    )
