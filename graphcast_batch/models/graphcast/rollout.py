"""Compute a forecast step by step, each from the state that the one before has left."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeVar

import jax
from jax import Array

from graphcast_batch.grid import Grid
from graphcast_batch.models.graphcast.predictor import Constants, ModelState, Predictor
from graphcast_batch.models.state_arrays import named_fields

Frames = TypeVar("Frames")


def rollout(
    advance: Callable[[Constants, ModelState, ModelState, Array], tuple[ModelState, Frames]],
    constants: Constants,
    state: ModelState,
    forcings: Iterable[Array],
) -> Iterator[Frames]:
    """Advance a state for as long as there are forcings.

    Args:
        advance: the compiled program, see `several_steps`, which may overwrite the oldest frames.
        constants: weights, graphs, means and standard deviations.
        state: state at the initial time.
        forcings: for each call of the program, (..., steps, point, forced) forcings at the next times.

    Yields:
        The result of each call of the program, which may still be under computation.
    """
    for forcing in forcings:
        oldest, others = state.parted(forcing.shape[-3])
        made, frames = advance(constants, oldest, others, forcing)
        state = others.followed_by(made)
        yield frames


def several_steps(
    predictor: Predictor,
    grid: Grid,
    constants: Constants,
    oldest: ModelState,
    others: ModelState,
    forcings: Array,
) -> tuple[ModelState, dict[str, Array]]:
    """Compute as many steps as there are forcings, in one program.

    Frames that stay in the state are no result, so that they are not copied, and those made can take the memory of the
    oldest.

    Args:
        predictor: computes one step.
        grid: the points.
        constants: weights, graphs, means and standard deviations.
        oldest: of the state at the current time as many frames as there are steps, or all there are.
        others: the other frames of the state.
        forcings: (steps, point, forced) forcings at the next times.

    Returns:
        The frames that follow ``others`` in the last state, and those of all steps: for each target (step, [level],
        latitude, longitude) float32.
    """
    channels = predictor.channels

    def step(state: ModelState, forcing: Array) -> tuple[ModelState, dict[str, Array]]:
        state, frame = predictor.step(constants, state, forcing)
        # Each frame is parted here: of all frames of a call together there would be two copies.
        return state, named_fields(channels, channels.targets, frame.T, grid)

    state, frames = jax.lax.scan(step, oldest.followed_by(others), forcings)
    return state.parted(len(others.frames))[1], frames


def compiled_steps(predictor: Predictor, grid: Grid, *, accelerated: bool, batched: bool = False) -> Any:  # noqa: ANN401 - JAX gives it no public type
    """Return `several_steps` to be compiled, whose memory for the oldest frames may be overwritten.

    Args:
        predictor: computes one step.
        grid: the points.
        accelerated: whether the device is an accelerator.
        batched: whether several Cases are computed together; their states, static fields and forcings have an axis more
            in front.
    """
    steps: Callable[..., Any] = partial(several_steps, predictor, grid)
    if batched:
        of_each = Constants(network=None, normalization=None, static=0)  # type: ignore[arg-type] # what vmap maps
        steps = jax.vmap(steps, in_axes=(of_each, 0, 0, 0))
    return jax.jit(steps, donate_argnums=1, compiler_options=_compiler_options(accelerated=accelerated))


def _compiler_options(*, accelerated: bool) -> dict[str, str | bool] | None:
    """Return the options to compile `several_steps` with; None for XLA's own.

    On a CPU, XLA by default begins early all that depends on nothing, so that arrays are there long before they are
    needed: 1.6 GB of 10.5 at 0.25° with 37 levels. The order that needs least memory is as fast, since each product is
    computed on all cores.
    """
    if accelerated:
        return None
    if jax.__version_info__ < (0, 10):  # does not know the other, which replaced it
        return {"xla_cpu_enable_concurrency_optimized_scheduler": False}
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
