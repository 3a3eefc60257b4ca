"""Make Cases in one worker: read, compute, check, write, score and commit each of them."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import xarray as xr

from graphcast_batch.config.run_config import TimeLimitsConfig
from graphcast_batch.errors import StoreError
from graphcast_batch.inputs.case_inputs import CaseInputs
from graphcast_batch.models.base import Model
from graphcast_batch.pipeline.case_frames import CaseFrames, HostFrames
from graphcast_batch.pipeline.case_preparation import CasePreparation
from graphcast_batch.pipeline.case_scores import CaseScores
from graphcast_batch.pipeline.case_starts import CaseStarts
from graphcast_batch.pipeline.device_queue import DeviceQueue
from graphcast_batch.pipeline.ensemble_cases import EnsembleCases
from graphcast_batch.pipeline.frame_check import FrameCheck
from graphcast_batch.pipeline.member_weights import MemberWeights
from graphcast_batch.pipeline.peak_memory import peak_memory_bytes
from graphcast_batch.pipeline.ports import LimitsOf, Perturb, Scorer, Source
from graphcast_batch.pipeline.reading_turns import ReadingTurns
from graphcast_batch.pipeline.stages import CaseStage, CaseStages
from graphcast_batch.plan import Case
from graphcast_batch.spec import Task
from graphcast_batch.stores.base import NONE, OUTPUTS, Attempt, Lease, Store
from graphcast_batch.stores.case_records import CaseRecord
from graphcast_batch.stores.frame_blocks import Block, Blocks
from graphcast_batch.timing import Span, Stopwatch

_WRITERS: Final = 4
"""Number of variables of a Case that are encoded and written at once. On two busy cores 1, 2 and 4 were equally fast,
as other Cases write too; a worker with a GPU has more cores."""


@dataclass(frozen=True)
class CompletedCase:
    """A Case that is complete.

    Attributes:
        record: record of the Case in the ledger.
        spans: when the Case was in which stage, the commit included; too many to be stored.
        unscored: why the Case has no scores although it should have; empty otherwise.
        of_ensemble: whether the Case is what is computed of all members together, and not a forecast.
    """

    record: CaseRecord
    spans: tuple[Span, ...]
    unscored: str = ""
    of_ensemble: bool = False


@dataclass(frozen=True)
class WorkerContext:
    """What one worker needs for any Case, and the Cases that it makes.

    Attributes:
        source: source of initial states.
        check: raises InputError for inputs that must not reach the device.
        model: the model on the worker's device.
        store: store of the forecasts.
        limits: returns the limits of the frames of a forecast, given the inputs that it starts from.
        name: name of the worker.
        batch_size: number of Cases that are computed together, where there are so many.
        scorer: scores the forecasts online; None to leave them unscored.
        steps_per_call: largest number of steps in one call of the model's program.
        perturb: returns the input frames of a member; None to start each from the state as it is.
        weights: weights of the members; None if all Cases have those of the model.
        ensembles: computes what is kept of all members together; None if nothing is.
    """

    source: Source
    check: Callable[[CaseInputs], None]
    model: Model
    store: Store
    limits: Callable[[xr.Dataset], LimitsOf]
    name: str
    batch_size: int = 1
    scorer: Scorer | None = None
    steps_per_call: int = 1
    perturb: Perturb | None = None
    weights: MemberWeights | None = None
    ensembles: EnsembleCases | None = None
    # Cases wait for room at the device one after another, and let truth be read meanwhile.
    _turns: ReadingTurns = field(default_factory=ReadingTurns, init=False)
    # Two threads must not read HDF5 at once.
    _reading: threading.Lock = field(default_factory=threading.Lock, init=False)
    # Of several ensembles at once, all members of each would be in memory.
    _combining: threading.Lock = field(default_factory=threading.Lock, init=False)
    _starts: CaseStarts = field(init=False)
    _device: DeviceQueue = field(init=False)
    _stages: CaseStages = field(init=False)

    def __post_init__(self) -> None:
        if self.store.only_scores and self.scorer is None:
            raise StoreError(
                f"{self.store.path} keeps scores only, so that its forecasts must be scored as they are made, but "
                "nothing scores them; set scores.online: true, or keep forecasts in another store"
            )
        starts = CaseStarts(self.source, self.task, self.check, self.limits, self.perturb)
        object.__setattr__(self, "_starts", starts)
        object.__setattr__(self, "_device", DeviceQueue(self.model, self.batch_size, self.weights))
        object.__setattr__(self, "_stages", CaseStages(self._reading, self.steps_per_call, self.batch_size))

    @property
    def task(self) -> Task:
        """What the model takes and predicts."""
        return self.model.task

    def run_case(self, case: Case, lease: Lease | None, attempts: int) -> CompletedCase:
        """Make one forecast and commit it to the store, or combine the members of an ensemble that are complete.

        Args:
            case: the Case; in a run of ensembles one without a member stands for all members together.
            lease: the lease on the Case; None if nobody else works on the store.
            attempts: number of attempts at the Case, this one included.

        Returns:
            The record of the Case in the ledger, and the time that each stage took.

        Raises:
            InputError: the inputs lack what the Case needs, or hold values that it cannot start from.
            ForecastError: a frame is not finite, or beyond its limits; nothing of the Case is kept.
            StoreError: the store cannot be written, or the lease was lost.
        """
        watch = Stopwatch()
        if self.ensembles and case.member is None:
            with self._stages.followed(case) as reached, self._combining:
                done = self.ensembles.complete(
                    case, lease, attempts, watch, lambda name: reached(name, 0), self._reading
                )
            return CompletedCase(done[0], watch.spans, done[1], of_ensemble=True)
        with self._stages.followed(case) as reached, closing(CaseScores(needed=self.store.only_scores)) as scores:
            frames = CaseFrames(case, watch, reached)
            frames.reached("write")
            with self.store.attempt(case) as attempt:
                frames.reached("wait")
                with self._device.expecting():
                    limits, read_bytes = self._read(case, frames, scores)
                with self._device.giving(frames):
                    self._write(case, attempt, FrameCheck(case, self.source.grid, self.task, limits), frames, scores)
                frames.reached("write")
                if self.store.only_scores:
                    scores.write("")  # before the record, since nothing could be scored afterwards
                with watch.stage("commit"):
                    record = attempt.commit(
                        lease=lease,
                        seconds=watch.seconds,
                        device=self.model.device,
                        worker=self.name,
                        attempts=attempts,
                        details={
                            "peak_memory_bytes": peak_memory_bytes(),
                            "read_bytes": read_bytes,
                            # Beside the device, what changes the last bits of a forecast.
                            "batch_size": self.batch_size,
                            **({OUTPUTS: NONE} if self.store.only_scores else {}),
                        },
                    )
            if not self.store.only_scores:
                scores.write(record.finished_at)
        return CompletedCase(record, watch.spans, scores.fault)

    def _read(self, case: Case, frames: CaseFrames, scores: CaseScores) -> tuple[LimitsOf, int]:
        """Read what a Case starts from, one Case at a time and not far ahead of the device, and queue it there.

        Returns:
            The limits of its frames, and how many bytes were read. The inputs are large, and the device's from here on.
        """
        with self._turns.turn(case):
            self._device.wait_for_room()
            reading = partial(self._reading_for, frames)
            preparation = CasePreparation(self.source, self.task, self.check, self._device, frames, reading)
            start = self._starts.start(case, frames.watch, preparation)
            if self.weights and not self.weights.holds(case):
                with frames.watch.stage("weights"):
                    self.weights.fetch(case)  # ahead of the device, which waits for nothing then
            if self.scorer:
                scores.begin(self.scorer, case, frames.watch, self._reading)
            frames.reached("wait")
            self._device.queue(frames, start.inputs)
        return start.limits, start.read_bytes

    @contextmanager
    def _reading_for(self, frames: CaseFrames) -> Iterator[None]:
        """Hold the inputs for one Case, whose time for reading begins when no other has them."""
        with self._reading:
            frames.reached("read")
            yield

    def _write(self, case: Case, attempt: Attempt, check: FrameCheck, frames: CaseFrames, scores: CaseScores) -> None:
        """Check frames as they come, and write and score those of one call while the next are computed."""
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
                    del block
                del computed, full  # else they would take memory until the next frames come
            await_writing()

    def under_way(self) -> list[CaseStage]:
        """Return the stage of each Case in progress; see `CaseStages.under_way`."""
        return self._stages.under_way()

    def late(self, limits: TimeLimitsConfig) -> CaseStage | None:
        """Return a Case that exceeds the time limit of its stage, or None; see `CaseStages.late`."""
        return self._stages.late(limits)


def _largest_first(frames: HostFrames) -> list[str]:
    """Return the names of variables, the one that takes longest to write first, so that all end together."""
    return sorted(frames, key=lambda name: -frames[name].nbytes)
