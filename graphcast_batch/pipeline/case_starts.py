"""Give each Case of a worker what it starts from: read and checked once for all members of an initial time."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import xarray as xr

from graphcast_batch.inputs.case_inputs import CaseInputs
from graphcast_batch.perturbations.preparation import Preparation
from graphcast_batch.pipeline.ports import LimitsOf, Perturb, Source
from graphcast_batch.plan import Case
from graphcast_batch.spec import Task
from graphcast_batch.timing import Stopwatch

Reading = Callable[[], AbstractContextManager[object]]
"""Returns a context within which inputs may be read."""


@dataclass(frozen=True)
class CaseStart:
    """What a Case starts from.

    Attributes:
        inputs: input frames and forcings, checked.
        limits: limits of the frames of the forecast.
        read_bytes: bytes that were read for this Case, without those that another member of its initial time had read.
    """

    inputs: CaseInputs
    limits: LimitsOf
    read_bytes: int


class CaseStarts:
    """Reads what Cases start from, one after another; keeps the last state for further members that start from it."""

    def __init__(
        self,
        source: Source,
        task: Task,
        check: Callable[[CaseInputs], None],
        limits: Callable[[xr.Dataset], LimitsOf],
        perturb: Perturb | None = None,
    ) -> None:
        """Read nothing yet.

        Args:
            source: source of initial states.
            task: what the model takes and predicts.
            check: raises InputError for inputs that must not reach the device.
            limits: returns the limits of the frames of a forecast, given the inputs that it starts from.
            perturb: returns the input frames of a member; None to start each from the state as it is.
        """
        self._source = source
        self._task = task
        self._check = check
        self._limits = limits
        self._perturb = perturb
        self._last: tuple[Case, CaseStart] | None = None

    def start(self, case: Case, watch: Stopwatch, preparation: Preparation) -> CaseStart:
        """Return what a Case starts from; one thread at a time may call this.

        Args:
            case: the Case.
            watch: takes the seconds spent.
            preparation: what can be done for the Case before its forecast.

        Raises:
            InputError: a variable or a time is missing, or values are none that a forecast can start from.
        """
        if case.member is None:
            return self._read(case, watch, preparation.reading)
        of_any = replace(case.computed, member=None)
        if self._last is not None and self._last[0] == of_any:
            found = replace(self._last[1], read_bytes=0)
        else:
            self._last = None  # before the next state takes memory too
            found = self._read(of_any, watch, preparation.reading)
            self._last = of_any, found
        if self._perturb is None:
            return found
        with watch.stage("perturb"):
            frames = self._perturb(case, found.inputs.frames, preparation)
            read_bytes = found.read_bytes + self._perturb.read_bytes(case)
        return replace(found, inputs=replace(found.inputs, frames=frames), read_bytes=read_bytes)

    def _read(self, case: Case, watch: Stopwatch, reading: Reading) -> CaseStart:
        with reading(), watch.stage("read"):
            inputs = self._source.read(case, self._task)
            self._check(inputs)
            cost = self._source.cost(case, self._task)
            return CaseStart(inputs, self._limits(inputs.frames), cost.touched_bytes if cost else 0)
