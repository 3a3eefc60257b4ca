"""Compute a forecast step by step, each from the state that the one before has left."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import jax
from jax import Array

from graphcast_batch.models.graphcast.predictor import Constants, ModelState, Predictor

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
    predictor: Predictor, constants: Constants, state: ModelState, forcings: Array
) -> tuple[ModelState, Array]:
    """Compute as many steps as there are forcings, in one program.

    Args:
        predictor: computes one step.
        constants: weights, graphs, means and standard deviations.
        state: state at the current time.
        forcings: (steps, point, forced) forcings at the next times.

    Returns:
        The last state, and (steps, point, outputs) frames.
    """

    def step(state: ModelState, forcing: Array) -> tuple[ModelState, Array]:
        return predictor.step(constants, state, forcing)

    return jax.lax.scan(step, state, forcings)
