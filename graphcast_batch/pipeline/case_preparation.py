"""Read inputs and make short forecasts for a Case before its own, of which its start is made."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.inputs.case_inputs import CaseInputs
from graphcast_batch.perturbations.preparation import Start
from graphcast_batch.pipeline.case_frames import CaseFrames, HostFrames
from graphcast_batch.pipeline.case_starts import Reading
from graphcast_batch.pipeline.device_queue import DeviceQueue
from graphcast_batch.pipeline.ports import Source
from graphcast_batch.plan import Case
from graphcast_batch.spec import Task
from graphcast_batch.timing import Stopwatch


@dataclass(frozen=True, eq=False)
class CasePreparation:
    """What a worker does for one Case before its forecast; see `Preparation`.

    Attributes:
        source: source of initial states.
        task: what the model takes and predicts.
        check: raises InputError for inputs that must not reach the device.
        device: computes the forecasts.
        frames: those of the Case, which show how far it is.
        reading: returns a context within which inputs may be read.
    """

    source: Source
    task: Task
    check: Callable[[CaseInputs], None]
    device: DeviceQueue
    frames: CaseFrames
    reading: Reading

    def read(self, case: Case) -> CaseInputs:
        """Read and check what a forecast starts from."""
        with self.reading():
            inputs = self.source.read(case, self.task)
            self.check(inputs)
            return inputs

    def forecast(self, starts: Sequence[Start], last: int) -> list[Mapping[str, NDArray[np.float32]]]:
        """Make forecasts before those that wait for the device; the time counts as that of the preparation alone."""
        self.frames.reached("compute")
        queued = [CaseFrames(case, Stopwatch(), lambda name, _: self.frames.reached(name)) for case, _ in starts]
        try:
            for frames, (_, inputs) in reversed(list(zip(queued, starts, strict=True))):
                self.device.queue(frames, inputs, first=True)
            # At the same time, since those that share their calls wait for each other at every one.
            with ThreadPoolExecutor(len(queued), "prepare") as pool:
                return [*pool.map(self._last_of, queued, repeat(last))]
        finally:
            for frames in queued:
                with self.device.giving(frames):
                    pass  # those that were not taken, after a failure

    def _last_of(self, frames: CaseFrames, last: int) -> HostFrames:
        kept: deque[HostFrames] = deque(maxlen=last)
        with self.device.giving(frames):
            for computed in frames:
                self.frames.reached("compute")
                kept.append({name: values[-last:] for name, values in computed.items()})
        return {name: np.concatenate([each[name] for each in kept])[-last:] for name in kept[-1]}
