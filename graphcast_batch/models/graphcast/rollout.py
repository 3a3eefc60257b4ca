"""A state and the forcings to come become a stream of frames."""

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
    """Feeds a state back to itself for as long as there are forcings.

    Args:
        advance: the compiled program; it may overwrite the state it is given.
        constants: weights, graphs, scales.
        state: at the initial time.
        forcings: for each call of the program, (steps, point, forced) forcings at the next times.

    Yields:
        What the program makes of the frames of each call. They may still be under computation.
    """
    for forcing in forcings:
        state, frames = advance(constants, state, forcing)
        yield frames


def several_steps(
    predictor: Predictor, constants: Constants, state: ModelState, forcings: Array
) -> tuple[ModelState, Array]:
    """As many steps as there are forcings, in one program.

    Args:
        predictor: makes one step.
        constants: weights, graphs, scales.
        state: at the current time.
        forcings: (steps, point, forced).

    Returns:
        The last state, and (steps, point, outputs) frames.
    """

    def step(state: ModelState, forcing: Array) -> tuple[ModelState, Array]:
        return predictor.step(constants, state, forcing)

    return jax.lax.scan(step, state, forcings)
