"""A Case becomes a whole forecast in the store: read, compute and write, each at its own pace.

The only home of threads and queues. A worker works on a few Cases at once, each in a thread of its caller's: one Case
reads while another has the device and a third writes.
"""

import math
import queue
import resource
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, Literal, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.config import STEP_HOURS, Task, TimeLimits
from graphcast_batch.errors import ForecastError
from graphcast_batch.grid import Grid
from graphcast_batch.inputs.chunks import ReadCost
from graphcast_batch.inputs.states import CaseInputs
from graphcast_batch.limits import Limits
from graphcast_batch.outputs.claims import Claim
from graphcast_batch.outputs.ledger import Record
from graphcast_batch.outputs.store import Attempt, Store
from graphcast_batch.plan import Case
from graphcast_batch.timing import Stopwatch
from graphcast_batch.variables import attributes

_WAITING_CALLS: Final = 1
"""Results that may wait while others are written: two calls are under computation by then, which is enough ahead."""
_FINITE: Final = (float(np.finfo(np.float32).min), float(np.finfo(np.float32).max))
"""Beyond it a frame is infinite."""

StageName = Literal["read", "compute", "write", "wait"]
LimitsOf = Callable[[str, int | None], Limits | None]
"""Lowest and highest value that a frame may hold, of a variable at a level in hPa; None for all that is finite."""


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
class Stage:
    """Where a Case is that is under way.

    Attributes:
        key: of the Case.
        name: what is done for it; ``wait`` while the inputs or the device are another's.
        seconds: since it came there, or got on there: with the frames of a call, or a block written.
    """

    key: str
    name: StageName
    seconds: float


@dataclass(frozen=True)
class Bench:
    """What one worker has at hand for any Case.

    Attributes:
        source: of states.
        check: raises InputError for inputs that must not reach the device.
        forecasts: on the worker's device.
        task: which variables go in.
        store: where frames go.
        limits: what the frames of a forecast may hold, by what it starts from.
        name: of the worker.
    """

    source: Source
    check: Callable[[CaseInputs], None]
    forecasts: Forecasts
    task: Task
    store: Store
    limits: Callable[[xr.Dataset], LimitsOf]
    name: str
    # By the key of a Case: its stage, and when by the monotonic clock it came there or got on.
    _stages: dict[str, tuple[StageName, float]] = field(default_factory=dict, init=False)
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
            ForecastError: a frame is not finite, or beyond its limits; nothing of the Case is kept.
            StoreError: the store cannot be written, or the claim was lost.
        """
        watch = Stopwatch()
        with self._followed(case) as reached:
            with self._reading, watch.stage("read"):
                reached("read")
                inputs = self.source.read(case, self.task)
                self.check(inputs)
                cost = self.source.cost(case, self.task)
            reached("write")
            with self.store.attempt(case) as attempt:
                reached("wait")
                check = _FrameCheck(case, self.store, self.limits(inputs.frames))
                blocks = _Blocks(attempt, case, self.store, watch, reached)

                def take(frames: Mapping[str, Any]) -> None:
                    computed = {name: np.asarray(values) for name, values in frames.items()}
                    reached("compute")
                    check(computed)
                    blocks.add(computed)

                with _beside(take, f"write {case.key}") as put, self._device, watch.stage("compute"):
                    reached("compute")
                    for frames in self.forecasts.forecast(inputs.frames, inputs.forcings, case.steps):
                        put(frames)
                reached("write")
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

    def under_way(self) -> list[Stage]:
        """Where each Case is that is under way; may be asked from any thread."""
        clock = monotonic()
        return [Stage(key, name, max(0.0, clock - since)) for key, (name, since) in self._stages.copy().items()]

    def late(self, limits: TimeLimits) -> Stage | None:
        """A Case that has been in a stage for longer than it may without getting on; None if there is none.

        Nothing but the end of the process ends a system call that hangs. One made under Python's global lock, as h5py
        opens files, holds up this answer too.
        """
        most = {"read": limits.read, "compute": limits.compute, "write": limits.write, "wait": math.inf}
        return next((stage for stage in self.under_way() if stage.seconds > most[stage.name]), None)

    @contextmanager
    def _followed(self, case: Case) -> Iterator[Callable[[StageName], None]]:
        """Gives what notes the stages that a Case reaches, or gets on in."""

        def reached(name: StageName) -> None:
            self._stages[case.key] = (name, monotonic())

        reached("wait")
        try:
            yield reached
        finally:
            del self._stages[case.key]


def peak_memory_bytes() -> int:
    """The most memory that this process has had at once."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def _beside(take: Callable[[Mapping[str, Any]], None], name: str) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A thread that takes what is put; leaving waits for it, and raises what it raised."""
    waiting: queue.Queue[Mapping[str, Any] | None] = queue.Queue(_WAITING_CALLS)
    failures: list[BaseException] = []

    def put(frames: Mapping[str, Any]) -> None:
        waiting.put(frames)
        if failures:  # looked at after the wait, so that not one call more is made than must be
            raise failures[0]

    def work() -> None:
        while (frames := waiting.get()) is not None:
            if failures:
                continue  # the rollout is told at its next put; until then nothing may block it
            try:
                take(frames)
            except BaseException as error:
                failures.append(error)

    thread = threading.Thread(target=work, name=name, daemon=True)
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

    def __init__(
        self,
        attempt: Attempt,
        case: Case,
        store: Store,
        watch: Stopwatch,
        reached: Callable[[StageName], None],
    ) -> None:
        self._attempt = attempt
        self._case = case
        self._store = store
        self._watch = watch
        self._reached = reached
        self._written = 0
        self._held = 0
        size = min(store.block_steps, case.steps)
        levels = {name: (len(store.levels),) if levelled else () for name, levelled in store.on_levels}
        self._block = {name: np.empty((size, *more, *store.grid.shape), np.float32) for name, more in levels.items()}

    def add(self, frames: Mapping[str, NDArray[np.float32]]) -> None:
        steps = next(iter(frames.values())).shape[0]
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
        self._reached("write")
        with self._watch.stage("write"):
            self._attempt.write(self._written, {name: block[: self._held] for name, block in self._block.items()})
        self._reached("compute")
        self._written += self._held
        self._held = 0


class _FrameCheck:
    """Refuses the first frame of a Case that is not finite, or that no atmosphere could be in."""

    def __init__(self, case: Case, store: Store, limits: LimitsOf) -> None:
        self._case = case
        self._store = store
        self._steps = 0
        self._fields = [
            (name, index, level, limits(name, level) or _FINITE)
            for name, levelled in store.on_levels
            for index, level in enumerate(store.levels if levelled else (None,))
        ]

    def __call__(self, frames: Mapping[str, NDArray[np.float32]]) -> None:
        for step in range(next(iter(frames.values())).shape[0]):
            self._steps += 1
            for name, index, level, (low, high) in self._fields:
                field = frames[name][step] if level is None else frames[name][step, index]
                # A NaN makes both extremes NaN, and no comparison with it holds.
                if not (low <= float(field.min()) and float(field.max()) <= high):
                    where = name if level is None else f"{name} at {level} hPa"
                    raise ForecastError(f"{self._case.key}: {where} {self._fault(name, field, low, high)}")

    def _fault(self, name: str, field: NDArray[np.float32], low: float, high: float) -> str:
        values = field.astype(np.float64)
        count = values.size - np.count_nonzero((low <= values) & (values <= high))
        row, column = np.unravel_index(np.argmax(np.maximum(low - values, values - high)), values.shape)
        worst, grid = values[row, column], self._store.grid
        if np.isfinite(worst):
            units = attributes(name).get("units", "")
            expected = f"within {low:g} and {high:g} {units}".rstrip()
            remedy = (
                f"widen these limits in the config (limits: {{{name}: [LOW, HIGH]}}) or switch them off (limits: off)"
            )
        else:
            expected, remedy = "finite", "see whether weights, statistics and inputs belong together"
        return (
            f"must stay {expected}, but is {worst:g} after {STEP_HOURS * self._steps} h at latitude "
            f"{grid.latitude[row]:g}, longitude {grid.longitude[column]:g}, one of {count} such values among "
            f"{values.size}; nothing of this forecast is kept; {remedy}"
        )
