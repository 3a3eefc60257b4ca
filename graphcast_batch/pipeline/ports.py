"""Define what the pipeline asks of others: a source of states, and what scores forecasts."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.grid import Grid
from graphcast_batch.inputs.case_inputs import CaseInputs
from graphcast_batch.inputs.formats.chunks import ReadCost
from graphcast_batch.inputs.quality.limits import Limits
from graphcast_batch.perturbations.preparation import Preparation
from graphcast_batch.plan import Case
from graphcast_batch.spec import Task
from graphcast_batch.timing import Stopwatch

LimitsOf = Callable[[str, int | None], Limits | None]
"""Lowest and highest value that a frame may hold, of a variable at a level in hPa; None for every finite value."""


class Perturb(Protocol):
    """Gives the members of an ensemble the states that they start from; used by one thread at a time."""

    def __call__(self, case: Case, frames: xr.Dataset, preparation: Preparation) -> xr.Dataset:
        """Return the input frames of a member.

        Args:
            case: Case of the member.
            frames: input frames of the time at which it starts, which stay as they are.
            preparation: reads other inputs, and makes short forecasts.

        Raises:
            InputError: there is no such state, or it holds values that a forecast cannot start from.
            ForecastError: a short forecast is of no use.
        """

    def read_bytes(self, case: Case) -> int:
        """Return how many bytes are read for the input frames of a member, beside those given to it."""


class Source(Protocol):
    """Where initial states come from, and the truth that forecasts are scored against."""

    @property
    def grid(self) -> Grid:
        """The points of all fields."""

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Dimensions of every variable that the source holds, by name."""

    def read(self, case: Case, task: Task) -> CaseInputs:
        """Return what a Case starts from.

        Raises:
            InputError: a variable or a time is missing.
        """

    def truth(self, case: Case, names: list[str], levels: list[int] | None = None) -> xr.Dataset | None:
        """Return the truth at those lead times of a Case that the source holds; None if it holds none.

        Args:
            case: the Case.
            names: names of the variables.
            levels: pressure levels in hPa; None for all.
        """

    def cost(self, case: Case, task: Task) -> ReadCost | None:
        """Return what reading the inputs of a Case fetches; None where nothing is read."""


class CaseScorer(Protocol):
    """Scores the forecast of one Case against the truth; used by one thread at a time."""

    def add(self, first: int, values: Mapping[str, NDArray[np.float32]]) -> None:
        """Score the next lead times that the store keeps.

        Args:
            first: the first of the lead times, as for `Attempt.write`.
            values: the frames, as for `Attempt.write`; they must not be changed afterwards.

        Raises:
            GraphcastBatchError: the frames cannot be scored.
        """

    def write(self, forecast: str) -> None:
        """Write the scores of all frames that were added.

        Args:
            forecast: text that tells this forecast from another one of the same Case.

        Raises:
            GraphcastBatchError: the scores cannot be written.
        """

    def close(self) -> None:
        """Stop what is still being read ahead."""


class Scorer(Protocol):
    """Scores forecasts while they are made."""

    def begin(self, case: Case, watch: Stopwatch, reading: AbstractContextManager[object]) -> CaseScorer | None:
        """Start scoring a Case, and read ahead the truth of its first frames; None if it is not scored by itself.

        Args:
            case: the Case.
            watch: takes the seconds spent.
            reading: context within which inputs may be read.

        Raises:
            GraphcastBatchError: there is no truth for the Case.
        """

    def score_ensemble(self, case: Case, advanced: Callable[[], None], reading: AbstractContextManager[object]) -> None:
        """Score all members of an initial time together, which are complete in the store, and write the scores.

        Args:
            case: Case without a member.
            advanced: called whenever something more was read.
            reading: context within which inputs may be read; it is entered again and again.

        Raises:
            GraphcastBatchError: the members cannot be scored.
        """
