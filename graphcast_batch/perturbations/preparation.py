"""Define what a perturbation may ask for before the forecast of a Case."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.inputs.case_inputs import CaseInputs
from graphcast_batch.plan import Case

Start = tuple[Case, CaseInputs]
"""A forecast to make, and what it starts from."""


class Preparation(Protocol):
    """What a worker can do for a Case before its forecast."""

    def reading(self) -> AbstractContextManager[object]:
        """Return a context within which inputs may be read."""

    def read(self, case: Case) -> CaseInputs:
        """Read and check what a forecast starts from; not within `reading`.

        Raises:
            InputError: the inputs lack it, or hold values that a forecast cannot start from.
        """

    def forecast(self, starts: Sequence[Start], last: int) -> list[Mapping[str, NDArray[np.float32]]]:
        """Make forecasts on the device of the worker, and return their last frames; not within `reading`.

        Args:
            starts: the forecasts, with the same member, so that they have its weights.
            last: number of frames that are wanted.

        Returns:
            For each forecast by variable float32 (frame, [level], latitude, longitude); all frames of a shorter one.
        """
