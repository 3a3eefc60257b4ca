"""Breed perturbations: what a model makes of small differences in the days before the initial time.

Toth and Kalnay 1997, https://doi.org/10.1175/1520-0493(1997)125<3297:EFANAT>2.0.CO;2. Each cycle begins with the inputs
of its time, to which the bred vector is added, and from which it is subtracted. Half the difference of the two
forecasts, scaled down, is the bred vector of the next cycle.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import ForecastError
from graphcast_batch.grid import Grid, cell_area
from graphcast_batch.inputs.quality.locations import stamp
from graphcast_batch.perturbations.additive import RandomField, place_of, with_added
from graphcast_batch.perturbations.draws import Draw
from graphcast_batch.perturbations.preparation import Preparation
from graphcast_batch.perturbations.scales import Scale
from graphcast_batch.plan import Case
from graphcast_batch.spec import Task

Vector = Mapping[Scale, Sequence[NDArray[np.float32]]]
"""A perturbation of the input frames: for each variable a field at each of its levels, ([time], lat, lon)."""


@dataclass(frozen=True, eq=False)
class BredVectors:
    """Adds and subtracts bred vectors, of which the last is kept for the other state of its pair.

    Attributes:
        scales: variables and levels that are perturbed, with what counts as a difference of 1 at each of them. The
            root mean square of a bred vector over the sphere, and over all variables and levels in these units, is 1.
        noise: draws the field that the first cycle begins with.
        task: variables, levels and input frames of the model.
        grid: points of the frames.
        cycles: number of cycles before the time at which a Case starts.
        steps: steps of the model in a cycle.
        seed: seed of the noise.
    """

    scales: tuple[Scale, ...]
    noise: RandomField
    task: Task
    grid: Grid
    cycles: int
    steps: int
    seed: int
    _last: dict[tuple[np.datetime64, int, int], Vector] = field(default_factory=dict, init=False)

    def __call__(
        self, case: Case, frames: xr.Dataset, number: int, weights: int, preparation: Preparation
    ) -> xr.Dataset:
        """Return perturbed input frames, which depend on weights, number and initial time alone.

        Args:
            case: the forecast, which is computed from its initial time on.
            frames: input frames of the Case; they stay as they are.
            number: number of the perturbed state, from 0: 2 k has the bred vector k added, 2 k + 1 has it subtracted.
            weights: number of the checkpoint that makes the forecasts.
            preparation: reads inputs and makes forecasts.

        Raises:
            InputError: earlier inputs cannot be read, or a value was moved beyond the limits of its variable.
            ForecastError: the forecasts are not finite, or do not differ.
        """
        pair, sign = number // 2, 1 - 2 * (number % 2)
        key = case.init_time, weights, pair
        if key not in self._last:
            self._last.clear()
            self._last[key] = self._bred(case, pair, preparation)
        origin = f"the perturbed state number {number} of {stamp(case.init_time)}"
        return with_added(frames, _signed(self._last[key], sign), origin)

    def _bred(self, case: Case, pair: int, preparation: Preparation) -> Vector:
        vector = self._noise(Draw(self.seed, pair, case.init_time))
        for cycle in reversed(range(self.cycles)):
            begin = case.init_time - (cycle + 1) * self.steps * self.task.step
            start = replace(case, init_time=begin, steps=self.steps)
            vector = self._grown(start, vector, f"the bred vector {pair} of {stamp(case.init_time)}", preparation)
        return vector

    def _noise(self, draw: Draw) -> Vector:
        return {
            scale: [
                (stddev * noise).astype(np.float32)
                for stddev, noise in zip(scale.stddev, self.noise(scale.name, scale.levels, draw), strict=True)
            ]
            for scale in self.scales
        }

    def _grown(self, start: Case, vector: Vector, origin: str, preparation: Preparation) -> Vector:
        """Return the bred vector at the end of a cycle."""
        inputs = preparation.read(start)
        both = [
            with_added(inputs.frames, _signed(vector, sign), f"{origin} at {stamp(start.init_time)}")
            for sign in (1, -1)
        ]
        made = preparation.forecast(
            [(start, replace(inputs, frames=frames)) for frames in both], self.task.input_frames
        )
        plus, minus = (_window(frames, after, self.task.input_frames) for frames, after in zip(both, made, strict=True))
        differences = {
            scale: [(plus(scale.name, level) - minus(scale.name, level)) / 2 for level in scale.levels]
            for scale in self.scales
        }
        norm = self._norm(differences)
        if not 0 < norm < np.inf:
            raise ForecastError(
                f"{origin} must have grown from {stamp(start.init_time)} on, but the root mean square of the "
                f"difference of two forecasts is {norm:g}; see whether weights, statistics and inputs belong together"
            )
        return {scale: [(each / norm).astype(np.float32) for each in fields] for scale, fields in differences.items()}

    def _norm(self, differences: Mapping[Scale, Sequence[NDArray[np.float64]]]) -> float:
        """Return the root mean square of the differences in the last frame, in units of the scales."""
        area = cell_area(self.grid.latitude)
        squares = [
            float(np.mean(np.mean((each[-1] / stddev) ** 2, axis=-1) * area))
            for scale, fields in differences.items()
            for stddev, each in zip(scale.stddev, fields, strict=True)
        ]
        return float(np.sqrt(np.mean(squares)))


def _signed(vector: Vector, sign: int) -> dict[Scale, Iterator[NDArray[np.float32]]]:
    return {scale: (sign * each for each in fields) for scale, fields in vector.items()}


def _window(
    frames: xr.Dataset, after: Mapping[str, NDArray[np.float32]], count: int
) -> Callable[[str, int | None], NDArray[np.float64]]:
    """Return a function that gives a variable at a level, (time, lat, lon), at the end of a forecast.

    Args:
        frames: input frames of the forecast.
        after: its last frames; of a short one all.
        count: number of frames that are wanted.
    """

    def at(name: str, level: int | None) -> NDArray[np.float64]:
        place = place_of(frames[name], level)
        series = np.concatenate([frames[name].values[place], after[name][place]])
        return series[-count:].astype(np.float64)

    return at
