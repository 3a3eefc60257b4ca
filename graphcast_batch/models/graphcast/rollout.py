"""Compute a forecast step by step, each from the state that the one before has left."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import jax
from jax import Array

from graphcast_batch.grid import Grid
from graphcast_batch.models.graphcast.predictor import Constants, ModelState, Predictor
from graphcast_batch.models.state_arrays import named_fields

Frames = TypeVar("Frames")


def rollout(
    advance: Callable[[Constants, ModelState, Array], tuple[ModelState, Frames]],
    constants: Constants,
    state: ModelState,
    forcings: Iterable[Array],
) -> Iterator[Frames]:
    """Advance a state for as long as there are forcings.

    Args:
        advance: the compiled program, which may overwrite the state that it is given.
        constants: weights, graphs, means and standard deviations.
        state: state at the initial time.
        forcings: for each call of the program, (steps, point, forced) forcings at the next times.

    Yields:
        The result of each call of the program, which may still be under computation.
    """
    for forcing in forcings:
        state, frames = advance(constants, state, forcing)
        yield frames


def several_steps(
    predictor: Predictor, grid: Grid, constants: Constants, state: ModelState, forcings: Array
) -> tuple[ModelState, dict[str, Array]]:
    """Compute as many steps as there are forcings, in one program.

    Args:
        predictor: computes one step.
        grid: the points.
        constants: weights, graphs, means and standard deviations.
        state: state at the current time.
        forcings: (steps, point, forced) forcings at the next times.

    Returns:
        The last state, and the frames: for each target (step, [level], latitude, longitude) float32.
    """
    channels = predictor.channels

    def step(state: ModelState, forcing: Array) -> tuple[ModelState, dict[str, Array]]:
        state, frame = predictor.step(constants, state, forcing)
        # Each frame is parted here: of all frames of a call together there would be two copies.
        return state, named_fields(channels, channels.targets, frame.T, grid)

    return jax.lax.scan(step, state, forcings)
