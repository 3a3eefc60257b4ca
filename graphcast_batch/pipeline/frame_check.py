"""Refuse frames of a forecast that are not finite, or beyond what the atmosphere can hold."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.errors import ForecastError
from graphcast_batch.grid import Grid
from graphcast_batch.pipeline.case_frames import HostFrames
from graphcast_batch.pipeline.ports import LimitsOf
from graphcast_batch.plan import Case
from graphcast_batch.spec import Task
from graphcast_batch.variables import attributes

_FINITE: Final = (float(np.finfo(np.float32).min), float(np.finfo(np.float32).max))
"""The limits of what is finite."""


class FrameCheck:
    """Checks the frames of one Case, in their order."""

    def __init__(self, case: Case, grid: Grid, task: Task, limits: LimitsOf) -> None:
        """Begin with the first frame.

        Args:
            case: the Case that the frames belong to.
            grid: the points of a frame.
            task: what the model predicts.
            limits: the lowest and highest value that a frame may hold.
        """
        self._case = case
        self._grid = grid
        self._levels = task.pressure_levels
        self._limits = limits
        self._steps = 0

    def __call__(self, frames: HostFrames) -> None:
        """Check the next frames.

        Raises:
            ForecastError: a value is not finite, or beyond its limits; the message names the first such field.
        """
        fields = [
            (name, index, level, self._limits(name, level) or _FINITE)
            for name, values in sorted(frames.items())
            for index, level in enumerate(self._levels if values.ndim > 3 else (None,))
        ]
        for step in range(next(iter(frames.values())).shape[0]):
            self._steps += 1
            for name, index, level, (low, high) in fields:
                field = frames[name][step] if level is None else frames[name][step, index]
                # A NaN makes both extremes NaN, and no comparison with it holds.
                if not (low <= float(field.min()) and float(field.max()) <= high):
                    where = name if level is None else f"{name} at {level} hPa"
                    raise ForecastError(f"{self._case.key}: {where} {self._fault(name, field, low, high)}")

    def _fault(self, name: str, field: NDArray[np.float32], low: float, high: float) -> str:
        values = field.astype(np.float64)
        count = values.size - np.count_nonzero((low <= values) & (values <= high))
        row, column = np.unravel_index(np.argmax(np.maximum(low - values, values - high)), values.shape)
        worst, grid = values[row, column], self._grid
        if np.isfinite(worst):
            units = attributes(name).get("units", "")
            expected = f"within {low:g} and {high:g} {units}".rstrip()
            remedy = (
                f"widen these limits in the config (limits: {{{name}: [LOW, HIGH]}}) or switch them off (limits: off)"
            )
        else:
            expected, remedy = "finite", "see whether weights, statistics and inputs belong together"
        return (
            f"must stay {expected}, but is {worst:g} after {self._case.step_hours * self._steps} h at latitude "
            f"{grid.latitude[row]:g}, longitude {grid.longitude[column]:g}, one of {count} such values among "
            f"{values.size}; nothing of this forecast is kept; {remedy}"
        )
