"""A Case becomes a whole forecast in the store: read, compute and write, each at its own pace.

The only home of threads and queues. A worker works on a few Cases at once, each in a thread of its caller's: one Case
reads while another has the device and a third writes.
"""

import queue
import resource
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.config import STEP_HOURS, Task
from graphcast_batch.errors import ForecastError
from graphcast_batch.grid import Grid
from graphcast_batch.inputs.chunks import ReadCost
from graphcast_batch.inputs.states import CaseInputs
from graphcast_batch.outputs.claims import Claim
from graphcast_batch.outputs.ledger import Record
from graphcast_batch.outputs.store import Attempt, Store
from graphcast_batch.plan import Case
from graphcast_batch.timing import Stopwatch

_WAITING_CALLS: Final = 1
"""Results that may wait while others are written: two calls are under computation by then, which is enough ahead."""


class Source(Protocol):
    """Where states come from, and the truth."""

    @property
    def grid(self) -> Grid:
        """The points."""

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Dimensions of every variable held."""

    def read(self, case: Case, task: Task) -> CaseInputs:
        """What a Case starts from; raises InputError if it is not all there."""

    def truth(self, case: Case, names: list[str], levels: list[int] | None = None) -> xr.Dataset | None:
        """What really came at those lead times that the source holds, or None."""

    def cost(self, case: Case, task: Task) -> ReadCost | None:
        """What reading the inputs of a Case fetches; None where nothing is read."""


class Forecasts(Protocol):
    """What turns a state into frames, on one device."""

    @property
    def device(self) -> str:
        """Kind of the device."""

    def forecast(self, inputs: xr.Dataset, forcings: xr.Dataset, steps: int) -> Iterator[Mapping[str, Any]]:
        """Every target as (step, [level], latitude, longitude), a few steps at a time; maybe not yet computed."""


@dataclass(frozen=True)
class Bench:
    """What one worker has at hand for any Case.

    Attributes:
        source: of states.
        check: raises InputError for inputs that must not reach the device.
        forecasts: on the worker's device.
        task: which variables go in.
        store: where frames go.
        name: of the worker.
    """

    source: Source
    check: Callable[[CaseInputs], None]
    forecasts: Forecasts
    task: Task
    store: Store
    name: str
    _device: threading.Lock = field(default_factory=threading.Lock, init=False)
    # HDF5 must not be read by two threads at once.
    _reading: threading.Lock = field(default_factory=threading.Lock, init=False)

    def run_case(self, case: Case, claim: Claim | None, attempts: int) -> Record:
        """Makes one forecast and commits it to the store.

        Args:
            case: to be made.
            claim: on it.
            attempts: how many this makes.

        Returns:
            Its record in the ledger.

        Raises:
            InputError: the inputs do not hold what the Case needs, or hold what it cannot start from.
            ForecastError: a frame is not finite; nothing of the Case is kept.
            StoreError: the store cannot be written, or the claim was lost.
        """
        watch = Stopwatch()
        with watch.stage("read"), self._reading:
            inputs = self.source.read(case, self.task)
            self.check(inputs)
        cost = self.source.cost(case, self.task)
        with self.store.attempt(case) as attempt:
            with _writing(attempt, case, self.store, watch) as put, self._device, watch.stage("compute"):
                for frames in self.forecasts.forecast(inputs.frames, inputs.forcings, case.steps):
                    put(frames)
            return attempt.commit(
                claim=claim,
                seconds=watch.seconds,
                device=self.forecasts.device,
                worker=self.name,
                attempts=attempts,
                details={
                    "peak_memory_bytes": peak_memory_bytes(),
                    "read_bytes": cost.touched_bytes if cost else 0,
                },
            )


def peak_memory_bytes() -> int:
    """The most memory that this process has had at once."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def _writing(
    attempt: Attempt, case: Case, store: Store, watch: Stopwatch
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A thread that writes what is put; leaving waits for it, and raises what it raised."""
    waiting: queue.Queue[Mapping[str, Any] | None] = queue.Queue(_WAITING_CALLS)
    failures: list[BaseException] = []

    def put(frames: Mapping[str, Any]) -> None:
        if failures:
            raise failures[0]
        waiting.put(frames)

    blocks = _Blocks(attempt, case, store, watch)

    def write() -> None:
        while (frames := waiting.get()) is not None:
            if failures:
                continue  # the rollout is told at its next put; until then nothing may block it
            try:
                blocks.add({name: np.asarray(values) for name, values in frames.items()})
            except BaseException as error:
                failures.append(error)

    thread = threading.Thread(target=write, name=f"write {case.key}", daemon=True)
    thread.start()
    try:
        yield put
    finally:
        waiting.put(None)
        thread.join()
    if failures:
        raise failures[0]


class _Blocks:
    """Gathers the frames of calls into the blocks that the store takes, in buffers that serve the whole Case."""

    def __init__(self, attempt: Attempt, case: Case, store: Store, watch: Stopwatch) -> None:
        self._attempt = attempt
        self._case = case
        self._store = store
        self._watch = watch
        self._written = 0
        self._held = 0
        size = min(store.block_steps, case.steps)
        levels = {name: (len(store.levels),) if levelled else () for name, levelled in store.on_levels}
        self._block = {name: np.empty((size, *more, *store.grid.shape), np.float32) for name, more in levels.items()}

    def add(self, frames: Mapping[str, NDArray[np.float32]]) -> None:
        steps = next(iter(frames.values())).shape[0]
        self._check_finite(frames)
        taken = 0
        while taken < steps:
            room = min(self._store.block_steps, self._case.steps - self._written) - self._held
            count = min(room, steps - taken)
            for name, block in self._block.items():
                block[self._held : self._held + count] = frames[name][taken : taken + count]
            self._held += count
            taken += count
            if count == room:
                self._write_block()

    def _write_block(self) -> None:
        with self._watch.stage("write"):
            self._attempt.write(self._written, {name: block[: self._held] for name, block in self._block.items()})
        self._written += self._held
        self._held = 0

    def _check_finite(self, frames: Mapping[str, NDArray[np.float32]]) -> None:
        before = self._written + self._held
        for name, values in frames.items():
            bad = ~np.isfinite(values)
            if not bad.any():
                continue
            place = np.argwhere(bad)[0]
            hours = STEP_HOURS * (before + int(place[0]) + 1)
            level = f" at {self._store.levels[place[1]]} hPa" if values.ndim == 4 else ""
            raise ForecastError(
                f"{self._case.key}: {name}{level} must stay finite, but is {values[tuple(place)]} after {hours} h "
                f"({np.count_nonzero(bad)} values in this call); nothing of this forecast is kept"
            )
