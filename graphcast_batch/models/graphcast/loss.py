"""Compute GraphCast's training loss of a rollout, its parts and its gradient.

Lam et al. 2023, supplement 4.3: squared errors of the normalized output, weighted by area and by pressure.
"""

from collections.abc import Callable, Mapping
from typing import Final

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from graphcast_batch.grid import Grid
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.graphcast.predictor import Constants, ModelState, Predictor
from graphcast_batch.models.normalization import Normalization

_WEIGHTS: Final = {
    "10m_u_component_of_wind": 0.1,
    "10m_v_component_of_wind": 0.1,
    "mean_sea_level_pressure": 0.1,
    "total_precipitation_6hr": 0.1,
}
"""Weight of a variable in the sum; 1 for every other."""

LossAndParts = tuple[Array, dict[str, Array]]


def latitude_weights(latitude: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the weight of each row in the published loss, with mean 1.

    Rows at the poles stand for caps of half a step. Without such rows, the weight is the cosine of the latitude.

    Args:
        latitude: (lat,) degrees, uniformly spaced.
    """
    degrees = latitude.astype(np.float64)
    step = np.deg2rad(abs(degrees[1] - degrees[0]))
    weights = np.cos(np.deg2rad(degrees))
    poles = np.isclose(np.abs(degrees), 90)
    if poles.any():
        weights = np.where(poles, np.sin(step / 4) ** 2, weights * np.sin(step / 2))
    return np.asarray(weights / weights.mean(), np.float32)


def level_weights(levels: tuple[int, ...]) -> NDArray[np.float32]:
    """Return (level,) weights proportional to pressure, with mean 1."""
    pressure = np.asarray(levels, np.float64)
    return np.asarray(pressure / pressure.mean(), np.float32)


def rollout_loss(
    predictor: Predictor, grid: Grid, *, rematerialized: bool = False
) -> Callable[[Constants, ModelState, Array, Array], LossAndParts]:
    """Return the loss of a rollout, as a function to compile or differentiate.

    Args:
        predictor: computes one step.
        grid: the points.
        rematerialized: whether the steps of a long rollout are computed again for the gradient, so that only their
            frames are kept.

    Returns:
        A function of constants, the initial state, (step, point, forced) forcings and (step, point, outputs) targets
        in physical units, which returns the loss and, for each target, its part before the weights of the sum; both are
        means over the steps. The true change of a step is counted from the model's own frame before it.
    """
    weights = _point_weights(predictor.channels, grid)
    names = predictor.channels.slices(predictor.channels.targets)

    def step(constants: Constants, state: ModelState, known: tuple[Array, Array]) -> tuple[ModelState, Array]:
        forcing, target = known
        normalized = predictor.normalized(constants, state, forcing)
        squares = jnp.square(normalized - _normalized_target(constants, state, target)) * weights
        parts = jnp.stack([squares[:, place].mean() for place in names.values()])
        frame = predictor.frame(constants, state, normalized)
        return predictor.next_state(state, frame, forcing), parts

    def loss(constants: Constants, state: ModelState, forcings: Array, targets: Array) -> LossAndParts:
        def body(state: ModelState, known: tuple[Array, Array]) -> tuple[ModelState, Array]:
            return step(constants, state, known)

        if rematerialized and forcings.shape[0] > 1:
            body = jax.checkpoint(body, prevent_cse=False)
        _, parts = jax.lax.scan(body, state, (forcings, targets))
        mean = parts.mean(axis=0)
        total = mean @ jnp.array([_WEIGHTS.get(name, 1.0) for name in names])
        return total, {name: mean[k] for k, name in enumerate(names)}

    return loss


def persistence_loss(
    channels: Channels, grid: Grid, scales: Normalization, state: NDArray[np.float32], targets: NDArray[np.float32]
) -> float:
    """Return the loss of a forecast that does not change; targets that are not fed back have their mean.

    Args:
        channels: the places of the variables.
        grid: the points.
        scales: means and standard deviations.
        state: (point, carried) at the initial time, in physical units.
        targets: (step, point, outputs) in physical units.
    """
    mean, deviation = scales.diagnosed
    carried = state.shape[-1]
    changes = (targets[..., :carried] - state) / scales.change
    errors = np.concatenate([changes, (targets[..., carried:] - mean) / deviation], axis=-1)
    squares = np.square(errors, dtype=np.float64) * _point_weights(channels, grid)
    parts = {name: squares[..., place].mean() for name, place in channels.slices(channels.targets).items()}
    return float(sum(_WEIGHTS.get(name, 1.0) * part for name, part in parts.items()))


def gradient_norms(gradient: Mapping[str, Mapping[str, Array]]) -> dict[str, float]:
    """Return the Euclidean norm of the gradient of each Haiku module."""
    squares = {module: sum(float(jnp.sum(jnp.square(g))) for g in named.values()) for module, named in gradient.items()}
    return {module: float(np.sqrt(square)) for module, square in squares.items()}


def _normalized_target(constants: Constants, state: ModelState, target: Array) -> Array:
    """Return the (point, outputs) that the network should give for the next time, from the (point, outputs) truth."""
    scales, carried = constants.normalization, state.frames[-1].shape[-1]
    mean, deviation = scales.diagnosed
    return jnp.concatenate(
        [(target[:, :carried] - state.frames[-1]) / scales.change, (target[:, carried:] - mean) / deviation], axis=-1
    )


def _point_weights(channels: Channels, grid: Grid) -> NDArray[np.float32]:
    """Return the (point, outputs) weights of the squared errors."""
    by_level = level_weights(channels.levels)
    columns = [by_level if name in channels.on_levels else np.ones(1, np.float32) for name in channels.targets]
    rows = np.repeat(latitude_weights(grid.latitude), grid.shape[1])
    return rows[:, None] * np.concatenate(columns)
