"""A Case becomes a whole forecast in the store: read, compute and write, each at its own pace.

The home of a worker's threads and queues. A worker works on a few Cases at once, each in a thread of its caller's:
there it is read, its frames are checked, gathered and maybe scored, and it is committed. Of all Cases one thread has
the device, and a few write blocks. So one Case reads while another has the device and a third writes, and the slowest
of them sets the pace.
"""

import math
import queue
import resource
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, Final, Literal, Protocol, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.config.run_config import TimeLimitsConfig
from graphcast_batch.errors import ClusterError, ForecastError, GraphcastBatchError, StoreError
from graphcast_batch.grid import Grid
from graphcast_batch.inputs.case_inputs import CaseInputs
from graphcast_batch.inputs.formats.chunks import ReadCost
from graphcast_batch.inputs.quality.limits import Limits
from graphcast_batch.plan import Case
from graphcast_batch.spec import Task
from graphcast_batch.stores.base import NONE, OUTPUTS, Attempt, Lease, Store
from graphcast_batch.stores.case_records import CaseRecord
from graphcast_batch.stores.frame_blocks import Block, Blocks
from graphcast_batch.timing import Span, Stopwatch, clock
from graphcast_batch.variables import attributes

_WAITING_CALLS: Final = 1
"""Results of a Case that may wait while others are checked: another is on its way to the host by then."""
_WRITERS: Final = 4
"""Variables of a Case that are encoded and written at once. On two busy cores 1, 2 and 4 were equally fast, as other
Cases write too; a worker with a GPU has more cores."""
_STUCK_SECONDS: Final = 300.0
"""How long all Cases of a worker may wait, which takes milliseconds unless a thread has died or cannot start."""
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


class Model(Protocol):
    """What turns a state into frames, on one device."""

    @property
    def device(self) -> str:
        """Kind of the device."""

    def forecast(self, inputs: xr.Dataset, forcings: xr.Dataset, steps: int) -> Iterator[Mapping[str, Any]]:
        """Every target as (step, [level], latitude, longitude), a few steps at a time; maybe not yet computed."""


class BatchModel(Model, Protocol):
    """What also turns several states into frames together."""

    def forecast_many(
        self, starts: Sequence[tuple[xr.Dataset, xr.Dataset]], steps: int
    ) -> Iterator[Sequence[Mapping[str, Any]]]:
        """As `forecast`, for inputs with their forcings: of each call, the targets of every start."""


class CaseScorer(Protocol):
    """What holds the forecast of one Case against what came true; for one thread at a time."""

    def add(self, first: int, values: Mapping[str, NDArray[np.float32]]) -> None:
        """Takes the next lead times that the store keeps, as `Attempt.write` does, which must stay as they are.

        Raises:
            GraphcastBatchError: they cannot be scored.
        """

    def write(self, forecast: str) -> None:
        """Writes the scores of all of them, with what tells this forecast from another.

        Raises:
            GraphcastBatchError: they cannot be written.
        """

    def close(self) -> None:
        """Ends what is still read ahead."""


class Scorer(Protocol):
    """Who holds forecasts against what came true, as they are made."""

    def begin(self, case: Case, watch: Stopwatch, reading: AbstractContextManager[object]) -> CaseScorer:
        """Begins with a Case, and reads ahead what its first frames are to be held against.

        Args:
            case: to be scored.
            watch: takes the seconds spent.
            reading: within which inputs may be read.

        Raises:
            GraphcastBatchError: there is nothing to hold it against.
        """


@dataclass(frozen=True)
class CompletedCase:
    """A Case that became whole.

    Attributes:
        record: of it in the ledger.
        spans: when it was in which stage, the commit included; too much to be kept for good.
        unscored: why it has no scores, if it should have; else empty.
    """

    record: CaseRecord
    spans: tuple[Span, ...]
    unscored: str = ""


@dataclass(frozen=True)
class CaseStage:
    """Where a Case is that is under way.

    Attributes:
        key: of the Case.
        name: what is done for it; ``wait`` while the inputs or the device are another's.
        seconds: since it came there, or got on there: with the frames of a call, or a block written.
        steps: of its forecast whose frames have come from the device.
    """

    key: str
    name: StageName
    seconds: float
    steps: int = field(default=0, compare=False)


@dataclass(frozen=True)
class WorkerContext:
    """What one worker has at hand for any Case.

    Attributes:
        source: of states.
        check: raises InputError for inputs that must not reach the device.
        forecasts: on the worker's device.
        task: which variables go in.
        store: where frames go.
        limits: what the frames of a forecast may hold, by what it starts from.
        name: of the worker.
        cases_per_call: so many Cases are computed together, where there are so many; more than one needs
            `BatchModel`.
        scorer: of the forecasts; None to leave them unscored.
    """

    source: Source
    check: Callable[[CaseInputs], None]
    forecasts: Model
    task: Task
    store: Store
    limits: Callable[[xr.Dataset], LimitsOf]
    name: str
    cases_per_call: int = 1
    scorer: Scorer | None = None
    # By the key of a Case: in a list of one, its stage, when by the monotonic clock it came there or got on, and steps.
    _stages: dict[str, list[tuple[StageName, float, int]]] = field(default_factory=dict, init=False)
    # Cases that wait for room at the device do so one after another, and let others read meanwhile.
    _turn: threading.Lock = field(default_factory=threading.Lock, init=False)
    # HDF5 must not be read by two threads at once.
    _reading: threading.Lock = field(default_factory=threading.Lock, init=False)
    _device: "_Device" = field(init=False)

    def __post_init__(self) -> None:
        if self.store.only_scores and self.scorer is None:
            raise StoreError(
                f"{self.store.path} keeps scores only, so that its forecasts must be scored as they are made, but "
                "nothing scores them; set scores.online: true, or keep forecasts in another store"
            )
        object.__setattr__(self, "_device", _Device(self.forecasts, self.cases_per_call))

    def run_case(self, case: Case, lease: Lease | None, attempts: int) -> CompletedCase:
        """Makes one forecast and commits it to the store.

        Args:
            case: to be made.
            lease: on it.
            attempts: how many this makes.

        Returns:
            Its record in the ledger, and what took how long.

        Raises:
            InputError: the inputs do not hold what the Case needs, or hold what it cannot start from.
            ForecastError: a frame is not finite, or beyond its limits; nothing of the Case is kept.
            StoreError: the store cannot be written, or the claim was lost.
        """
        watch = Stopwatch()
        with self._followed(case) as reached, closing(_Scores(needed=self.store.only_scores)) as scores:
            frames = _Frames(case, watch, reached)
            frames.reached("write")
            with self.store.attempt(case) as attempt:
                frames.reached("wait")
                with self._device.expecting():
                    limits, cost = self._read(case, frames, scores)
                with self._device.giving(frames):
                    self._write(case, attempt, _FrameCheck(case, self.source.grid, self.task, limits), frames, scores)
                frames.reached("write")
                if self.store.only_scores:
                    scores.write("")  # before the record, since nothing could be scored afterwards
                with watch.stage("commit"):
                    record = attempt.commit(
                        lease=lease,
                        seconds=watch.seconds,
                        device=self.forecasts.device,
                        worker=self.name,
                        attempts=attempts,
                        details={
                            "peak_memory_bytes": peak_memory_bytes(),
                            "read_bytes": cost.touched_bytes if cost else 0,
                            # Beside the device, what changes the last bits of a forecast.
                            "cases_per_call": self.cases_per_call,
                            **({OUTPUTS: NONE} if self.store.only_scores else {}),
                        },
                    )
            if not self.store.only_scores:
                scores.write(record.finished_at)
        return CompletedCase(record, watch.spans, scores.fault)

    def _read(self, case: Case, frames: "_Frames", scores: "_Scores") -> tuple[LimitsOf, ReadCost | None]:
        """Reads what a Case starts from, one at a time and not far ahead of the device, and queues it there."""
        with self._turn:
            self._device.wait_for_room()
            with self._reading:
                frames.reached("read")
                with frames.watch.stage("read"):
                    inputs = self.source.read(case, self.task)
                    self.check(inputs)
                    cost = self.source.cost(case, self.task)
                    limits = self.limits(inputs.frames)
            if self.scorer:
                scores.begin(self.scorer, case, frames.watch, self._reading)
            frames.reached("wait")
            self._device.queue(frames, inputs)
        return limits, cost

    def _write(self, case: Case, attempt: Attempt, check: "_FrameCheck", frames: "_Frames", scores: "_Scores") -> None:
        """Checks frames as they come, and has those of one call written and scored while the next are computed."""
        blocks = Blocks(case, self.store, self.source.grid, self.task.pressure_levels)
        writing: list[Future[None]] = []

        def write(name: str, block: Block) -> None:
            with frames.watch.stage("write"):
                attempt.write_variable(name, block.first, block.values[name])

        def await_writing() -> None:
            frames.reached("write")
            for variable in writing:
                variable.result()

        # Leaving the pool waits: nothing is written any more once the attempt is over.
        with ThreadPoolExecutor(_WRITERS, f"write {case.key}") as pool:
            for computed in frames:
                frames.reached("compute")
                with frames.watch.stage("check"):
                    check(computed)
                    full = blocks.add(computed)
                for block in full:
                    await_writing()
                    names = [] if self.store.only_scores else _largest_first(block.values)
                    writing = [pool.submit(write, name, block) for name in names]
                    frames.reached("read")
                    scores.add(block)
                    frames.reached("compute")
            await_writing()

    def under_way(self) -> list[CaseStage]:
        """Where each Case is that is under way; may be asked from any thread."""
        now = monotonic()
        places = self._stages.copy().items()
        return [CaseStage(key, name, max(0.0, now - since), steps) for key, [(name, since, steps)] in places]

    def late(self, limits: TimeLimitsConfig) -> CaseStage | None:
        """A Case that has been in a stage for longer than it may without getting on; None if there is none.

        Who waits may do so for as long as anything else moves. If all wait, nobody does what they wait for, unless the
        truth is read ahead of one that waits for company at the device.

        Nothing but the end of the process ends a system call that hangs. One made under Python's global lock, as h5py
        opens files, holds up this answer too.
        """
        stages = self.under_way()
        if stages and all(stage.name == "wait" for stage in stages):
            newest = min(stages, key=lambda stage: stage.seconds)  # until it came there, something moved
            if self._reading.locked():
                return replace(newest, name="read") if newest.seconds > limits.read else None
            return newest if newest.seconds > min(_STUCK_SECONDS, limits.compute) else None
        most = {"read": limits.read, "compute": limits.compute, "write": limits.write, "wait": math.inf}
        return next((stage for stage in stages if stage.seconds > most[stage.name]), None)

    @contextmanager
    def _followed(self, case: Case) -> Iterator[Callable[[StageName, int], None]]:
        """Gives what notes the stages that a Case reaches, or gets on in, and after how many steps."""
        place: list[tuple[StageName, float, int]] = [("wait", monotonic(), 0)]
        self._stages[case.key] = place

        def reached(name: StageName, steps: int) -> None:
            place[0] = (name, monotonic(), steps)  # which nobody sees once the Case is no longer under way

        try:
            yield reached
        finally:
            del self._stages[case.key]


def peak_memory_bytes() -> int:
    """The most memory that this process has had at once."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class _Scores:
    """The scores of one Case, if there are to be any.

    What goes wrong with them leaves the forecast as it is, unless they are needed, as all that is kept of it.
    """

    def __init__(self, *, needed: bool) -> None:
        self.fault = ""
        self._needed = needed
        self._scorer: CaseScorer | None = None

    def begin(self, scorer: Scorer, case: Case, watch: Stopwatch, reading: AbstractContextManager[object]) -> None:
        """From now on there are."""
        with self._borne():
            self._scorer = scorer.begin(case, watch, reading)

    def add(self, block: Block) -> None:
        """Scores what the store keeps of some frames; waits for the truth that they are held against."""
        with self._borne():
            if self._scorer:
                self._scorer.add(block.first, block.values)

    def write(self, forecast: str) -> None:
        """Writes the scores beside a forecast; see `CaseScorer`."""
        with self._borne():
            if self._scorer:
                self._scorer.write(forecast)

    def close(self) -> None:
        """Nothing more is to be scored."""
        if self._scorer:
            self._scorer.close()
            self._scorer = None

    @contextmanager
    def _borne(self) -> Iterator[None]:
        try:
            yield
        except GraphcastBatchError as error:
            if self._needed:
                raise
            self.fault = str(error)
            self.close()


class _Frames:
    """The frames of one Case on their way from the device to the thread of the Case."""

    def __init__(self, case: Case, watch: Stopwatch, reached: Callable[[StageName, int], None]) -> None:
        self.steps = case.steps
        self.watch = watch
        self._reached = reached
        self.given = self._taken = 0
        self.refused = False
        self._waiting: queue.Queue[Mapping[str, NDArray[np.float32]] | BaseException] = queue.Queue(_WAITING_CALLS)

    def reached(self, name: StageName) -> None:
        """Notes the stage that the Case is in, or has got on in."""
        self._reached(name, self._taken)

    def give(self, frames: Mapping[str, NDArray[np.float32]]) -> None:
        """Hands on what a call has made; waits while the Case is behind."""
        self.given += _steps_of(frames)
        self._put(frames)

    def fail(self, error: BaseException) -> None:
        """Nothing more will come."""
        self._put(error)

    def refuse(self) -> None:
        """Nothing more is wanted; from then on nothing waits for this Case."""
        self.refused = True
        with suppress(queue.Empty):
            self._waiting.get_nowait()

    def __iter__(self) -> Iterator[Mapping[str, NDArray[np.float32]]]:
        while self._taken < self.steps:
            frames = self._waiting.get()
            if isinstance(frames, BaseException):
                raise frames
            self._taken += _steps_of(frames)
            yield frames

    def _put(self, item: Mapping[str, NDArray[np.float32]] | BaseException) -> None:
        if not self.refused:  # if it is from here on, there is room for this one
            self._waiting.put(item)


_Starts = list[tuple[_Frames, CaseInputs]]


class _Device:
    """Computes the Cases that are read, a group after another, in a thread that lasts for as long as there are any.

    The results of a call are taken to the host only when the next call is under way, be it of the same Cases or of
    others, so that the device is never without work. At most two groups are between their first call and their last
    block, which bounds the memory for frames.
    """

    def __init__(self, forecasts: Model, size: int) -> None:
        self._forecasts = forecasts
        self._size = size
        self._changed = threading.Condition()
        self._expected = 0
        self._waiting: deque[tuple[_Frames, CaseInputs]] = deque()
        self._open: set[_Frames] = set()
        self._is_at_work = False
        self._under_way: tuple[list[_Frames], Sequence[Mapping[str, Any]]] | None = None

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Within, a Case is about to be queued: those that it could share its calls with wait for it."""
        with self._changed:
            self._expected += 1
        try:
            yield
        finally:
            with self._changed:
                self._expected -= 1
                self._changed.notify_all()

    def wait_for_room(self) -> None:
        """Returns when less than a whole group is waiting for the device."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < self._size)

    def queue(self, frames: _Frames, inputs: CaseInputs) -> None:
        """Has a Case computed when its turn comes.

        Raises:
            ClusterError: nothing can be computed, as the process can have no more threads.
        """
        with self._changed:
            self._waiting.append((frames, inputs))
            self._changed.notify_all()
            if not self._is_at_work:
                try:
                    threading.Thread(target=self._work, name="compute", daemon=True).start()
                except (RuntimeError, MemoryError) as error:
                    self._waiting.pop()
                    raise ClusterError(
                        f"a worker must be able to start a thread for its device, but cannot: {error}; raise the "
                        "limits of its processes (ulimit -v and -u), or take fewer workers"
                    ) from error
                self._is_at_work = True

    @contextmanager
    def giving(self, frames: _Frames) -> Iterator[None]:
        """Within, the frames of a Case are taken and written; after that it is no concern of the device's."""
        try:
            yield
        finally:
            frames.refuse()
            with self._changed:
                self._open.discard(frames)
                self._waiting = deque(start for start in self._waiting if start[0] is not frames)
                self._changed.notify_all()

    def _work(self) -> None:
        try:
            while self._has_work():
                group = self._next_group()
                if group:
                    self._compute(group)
                else:
                    self._hand_on()
        except BaseException as error:  # such as a lack of memory between two calls
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        """Fails all who wait for the device; the next who comes starts it anew."""
        with self._changed:
            self._is_at_work = False
            self._under_way = None
            members = {*self._open, *(frames for frames, _ in self._waiting)}
            self._waiting.clear()
            self._changed.notify_all()
        for frames in members:
            frames.fail(error)

    def _has_work(self) -> bool:
        """Waits for it, if what will come is known."""
        with self._changed:
            if not self._under_way:
                self._changed.wait_for(lambda: self._may_start() or not self._waiting)
            self._is_at_work = bool(self._under_way or self._waiting)
            return self._is_at_work

    def _may_start(self) -> bool:
        gathered = len(self._waiting) >= self._size or not self._expected
        return bool(self._waiting) and gathered and len(self._open) <= self._size

    def _next_group(self) -> _Starts:
        """Cases of equal steps that are computed together; none if there is no room for them yet."""
        with self._changed:
            if not self._may_start():
                return []
            alike = [start for start in self._waiting if start[0].steps == self._waiting[0][0].steps]
            group = alike[: self._size]
            for start in group:
                self._waiting.remove(start)
                self._open.add(start[0])
            self._changed.notify_all()
            return group

    def _compute(self, group: _Starts) -> None:
        members = [frames for frames, _ in group]
        for frames in members:
            frames.reached("compute")
        try:
            self._roll_out(group, members)
        except BaseException as error:
            self._hand_on()
            if len(group) == 1:
                members[0].fail(error)
                return
            # Whichever of them was the cause, the others must not suffer.
            for start in group:
                self._compute([start])

    def _roll_out(self, group: _Starts, members: list[_Frames]) -> None:
        made = 0
        with closing(self._calls(group)) as calls:
            while made < members[0].steps and not all(frames.refused for frames in members):
                with _timed(members):
                    computed = next(calls)
                made += _steps_of(computed[0])
                self._hand_on()
                if made > members[0].given:  # else it was given before the group broke up
                    self._under_way = members, computed

    def _calls(self, group: _Starts) -> Generator[Sequence[Mapping[str, Any]], None, None]:
        """The results of each call. The program has one size: a group that is smaller is filled up."""
        starts, steps = [(inputs.frames, inputs.forcings) for _, inputs in group], group[0][0].steps
        if self._size == 1:
            yield from ([frames] for frames in self._forecasts.forecast(*starts[0], steps))
        else:
            full = starts + starts[-1:] * (self._size - len(starts))
            yield from cast(BatchModel, self._forecasts).forecast_many(full, steps)

    def _hand_on(self) -> None:
        """Brings what is under way to the host, and gives it to its Cases."""
        if self._under_way is None:
            return
        (members, computed), self._under_way = self._under_way, None
        try:
            with _timed(members):
                found = [
                    {name: np.asarray(values) for name, values in frames.items()} for frames in computed[: len(members)]
                ]
        except BaseException as error:
            for frames in members:
                frames.fail(error)
            return
        for frames, values in zip(members, found, strict=True):
            frames.give(values)


@contextmanager
def _timed(members: Sequence[_Frames]) -> Iterator[None]:
    """Adds the time spent inside to the stage compute of each."""
    start = clock()
    try:
        yield
    finally:
        end = clock()
        for frames in members:
            frames.watch.add("compute", start, end)


def _largest_first(frames: Mapping[str, NDArray[np.float32]]) -> list[str]:
    """Names of variables; what takes longest begins first, so that all end together."""
    return sorted(frames, key=lambda name: -frames[name].nbytes)


def _steps_of(frames: Mapping[str, Any]) -> int:
    return int(next(iter(frames.values())).shape[0])


class _FrameCheck:
    """Refuses the first frame of a Case that is not finite, or that no atmosphere could be in."""

    def __init__(self, case: Case, grid: Grid, task: Task, limits: LimitsOf) -> None:
        self._case = case
        self._grid = grid
        self._levels = task.pressure_levels
        self._limits = limits
        self._steps = 0

    def __call__(self, frames: Mapping[str, NDArray[np.float32]]) -> None:
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
