"""Measure how many Cases a driver hands out in a second to workers that only sleep, and the memory for each Case.

The driver is real: its loop, calls over Ray, leases in a store, and the journal. Real workers are a process each, and
no single machine has room for hundreds of them; here a few processes stand for all of them. Each sleeps for many
workers at once, so that the driver has as many workers with as many Cases in progress as on a cluster; but its calls
pass through only as many connections as there are processes, and these share the cores with the driver.
"""

import asyncio
import cProfile
import os
import pstats
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
import ray

from graphcast_batch.bench.records import BenchmarkFigure, BenchmarkResult
from graphcast_batch.cluster.connection import connected
from graphcast_batch.cluster.dispatch_loop import DispatchLoop
from graphcast_batch.cluster.dispatch_rules import IN_FLIGHT
from graphcast_batch.cluster.drain import Drain
from graphcast_batch.cluster.outcome import CompletedCases
from graphcast_batch.cluster.worker import WorkerState
from graphcast_batch.cluster.worker_start import WorkerHandle
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig, TimeLimitsConfig
from graphcast_batch.errors import BenchError
from graphcast_batch.grid import regular_grid
from graphcast_batch.pipeline.peak_memory import peak_memory_bytes
from graphcast_batch.pipeline.stages import CaseStage
from graphcast_batch.pipeline.worker_context import CompletedCase
from graphcast_batch.plan import Case
from graphcast_batch.stores.base import Lease
from graphcast_batch.stores.case_records import CaseFailure, CaseRecord
from graphcast_batch.stores.journal import Journal
from graphcast_batch.stores.layout import Layout, Plan
from graphcast_batch.stores.zarr.store import ZarrStore
from graphcast_batch.timing import Span, clock

_WORKERS: Final = 64
"""Number of workers of the figure with a goal, and of the curve over Cases."""
_CASES: Final = 10_000
"""Number of Cases of the figure with a goal, and of the curve over workers."""
_GOAL: Final = 300
"""Goal of the hand-outs in a second."""
_PROFILED: Final = 1_000
"""Number of Cases of the run under the profiler, which makes it up to twice as slow."""
_SLEEP_SECONDS: Final = 0.005
_PROCESSES: Final = 2
_STEPS: Final = 40
_STEP_HOURS: Final = 6
"""Of the Cases, which no model computes."""
_FILES, _SPANS = 55, 20
"""Files and spans in the record of a Case of 40 steps of GraphCast_small: 11 variables in shards of 8 lead times."""
_PARTS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "lease": ("ledger.py", "lease"),
        "release": ("leases.py", "release"),
        "choose": ("dispatch_rules.py", "choose"),
        "send": ("actor.py", "_remote"),
        "wait": ("worker.py", "wait"),
        "get": ("worker.py", "get"),
        "journal": ("journal.py", "finished"),
    }
)
"""Parts of the driver's time: functions by file and name; ``wait`` includes the time in which it has nothing to do."""


def measure(
    folder: Path, workers: Sequence[int] = (1, 8, 64, 256), cases: Sequence[int] = (1_000, 10_000, 100_000)
) -> BenchmarkResult:
    """Measure a curve over numbers of workers and one over numbers of Cases.

    Args:
        folder: a folder on the disk for the leases; nothing is left in it.
        workers: numbers of workers, each measured with 10,000 Cases, or with the most of ``cases``.
        cases: numbers of Cases, each measured with 64 workers, or with the most of ``workers``.

    Raises:
        BenchError: the driver did not make every Case once.
    """
    some = min(_WORKERS, max(workers))
    with connected(None, Drain()):
        points = [_hand_out(folder, *point) for point in curves(workers, cases)]
        parts = _profile(folder, some, min(_PROFILED, max(cases)))
    figures = [figure for point in points for figure in point.figures]
    name = f"{some} workers, under the profiler"
    figures += [BenchmarkFigure(f"{part}, {name}", "ms a Case", [spent]) for part, spent in parts.items()]
    return BenchmarkResult(
        bench="driver",
        what=f"Cases that a driver hands out, whose workers only sleep for {1e3 * _SLEEP_SECONDS:.0f} ms",
        command="graphcast-batch bench driver --folder FOLDER",
        figures=figures,
        settings={"in_flight": IN_FLIGHT, "processes": _PROCESSES, "files": _FILES, "spans": _SPANS},
    )


class _Seen(NamedTuple):
    """State of the driver after a number of completed Cases: clock and processor time in seconds, memory in bytes."""

    done: int
    clock: float
    busy: float
    memory: int


def curves(workers: Sequence[int], cases: Sequence[int]) -> list[tuple[int, int]]:
    """Return the pairs of workers and Cases of both curves, those with the fewest Cases first; see `measure`."""
    some, many = min(_WORKERS, max(workers)), min(_CASES, max(cases))
    points = {(count, many) for count in workers} | {(some, count) for count in cases}
    return sorted(points, key=lambda point: point[::-1])


@dataclass(frozen=True)
class _Point:
    """What was measured with a number of workers and of Cases.

    Attributes:
        workers: number of workers.
        cases: number of Cases.
        rate: Cases a second, from the first that is handed out to the last that is taken in.
        busy: seconds of processors that the driver took for each of them, all threads together.
        growth: bytes by which the driver grew for each of the last nine tenths.
        peak: most bytes of the process so far.
    """

    workers: int
    cases: int
    rate: float
    busy: float
    growth: float
    peak: int

    @property
    def figures(self) -> list[BenchmarkFigure]:
        """Figures of the result."""
        name = f"{self.workers} workers, {self.cases} Cases"
        goal = f"{_GOAL} at least" if (self.workers, self.cases) == (_WORKERS, _CASES) else ""
        return [
            BenchmarkFigure(f"hand-outs, {name}", "1/s", [self.rate], goal=goal),
            BenchmarkFigure(f"processor, {name}", "ms a Case", [1e3 * self.busy]),
            BenchmarkFigure(f"growth, {name}", "bytes a Case", [self.growth]),
            BenchmarkFigure(f"peak memory, {name}", "MB", [self.peak / 1e6]),
        ]


class _Sleeper:
    """A process that sleeps for many workers at once."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._record = _record()

    async def begin(self) -> str:
        """Return Ray's id of the node, as `Actor.begin` does."""
        return str(ray.get_runtime_context().get_node_id())

    async def report(self, limits: TimeLimitsConfig) -> WorkerState:
        """Report that no Case is late."""
        return WorkerState()

    async def run_case(self, case: Case, lease: Lease, attempts: int) -> CompletedCase:
        """Sleep, and record the Case by an empty file: the worker itself must not affect what is measured."""
        begun = clock()
        await asyncio.sleep(_SLEEP_SECONDS)
        (self._ledger / f"steps-{case.steps}" / f"{case.key}.json").touch(exist_ok=False)
        record = self._record.model_copy(update={"key": case.key, "attempts": attempts})
        return CompletedCase(
            record, tuple(Span("write", begun, clock(), f"write {number}") for number in range(_SPANS))
        )


class _Sleepers:
    """Starter of any number of workers in a few processes."""

    in_flight = IN_FLIGHT

    def __init__(self, store: ZarrStore, places: int) -> None:
        self.places = places
        steps = store.ledger.folder / f"steps-{_STEPS}"
        steps.mkdir()
        at_once = (IN_FLIGHT + 1) * -(-places // _PROCESSES)
        start = ray.remote(_Sleeper).options(num_cpus=0, max_concurrency=at_once).remote
        self._processes: list[Any] = [start(store.ledger.folder) for _ in range(min(places, _PROCESSES))]
        ray.get([process.begin.remote() for process in self._processes])  # so that the driver need not wait for them

    def start(self, others: Sequence[WorkerHandle]) -> tuple[WorkerHandle, Any]:
        """Start a worker; see `WorkerStarter.start`."""
        number = len(others) + 1
        worker = WorkerHandle(self._processes[number % len(self._processes)], f"worker {number}", "")
        return worker, worker.actor.begin.remote()

    def fault(self, worker: WorkerHandle) -> str:
        """Return no explanation for a worker that died."""
        return ""


class _Watch(Journal):
    """Writes the journal, and measures time and memory after a tenth of the Cases and after all."""

    def __init__(self, store: Path, cases: int) -> None:
        super().__init__(store, self._refuse)
        self._cases, self._done = cases, 0
        self.seen = [self._seen()]

    def under_way(self, worker: str, stages: Sequence[CaseStage]) -> None:
        """Show nothing."""

    def finished(self, record: CaseRecord) -> None:
        super().finished(record)
        self._done += 1
        if self._done in (self._cases // 10, self._cases):
            self.seen.append(self._seen())

    def retried(self, case: Case, error: BaseException) -> None:
        raise BenchError(f"no Case may fail that only sleeps, but {case.key} did: {error}; look there") from error

    def failed(self, failure: CaseFailure) -> None:
        self._refuse(failure.message)

    def _seen(self) -> _Seen:
        return _Seen(self._done, perf_counter(), process_time(), _memory_bytes())

    def _refuse(self, text: str) -> None:
        raise BenchError(f"nothing may go wrong where workers only sleep, but: {text}; look there")


def _hand_out(folder: Path, workers: int, cases: int) -> _Point:
    begun, tenth, ended = _work_through(folder, workers, cases, lambda work: work())
    return _Point(
        workers,
        cases,
        rate=cases / (ended.clock - begun.clock),
        busy=(ended.busy - begun.busy) / cases,
        growth=(ended.memory - tenth.memory) / (ended.done - tenth.done),
        peak=peak_memory_bytes(),
    )


def _profile(folder: Path, workers: int, cases: int) -> dict[str, float]:
    """Return the milliseconds that each part of the driver takes for a Case."""
    profile = cProfile.Profile()
    _work_through(folder, workers, cases, profile.runcall)
    stats: Mapping[tuple[str, int, str], tuple[int, int, float, float, Any]]
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined] # it is there, and without a type
    spent = {
        part: sum(
            cumulative
            for (file, _, name), (_, _, _, cumulative, _) in stats.items()
            if (os.path.basename(file), name) == place
        )
        for part, place in _PARTS.items()
    }
    return {part: 1e3 * seconds / cases for part, seconds in spent.items()}


def _work_through(folder: Path, workers: int, cases: int, call: Callable[[Callable[[], Any]], Any]) -> list[_Seen]:
    """Make all Cases; return the measurements before the first, after a tenth of them and after all."""
    with TemporaryDirectory(dir=folder) as place:
        plan = _plan(cases)
        store = ZarrStore.create_or_extend(Path(place) / "run", plan, identity={}, provenance={}, config_text="")
        starter, watch = _Sleepers(store, workers), _Watch(store.path, cases)
        loop = DispatchLoop(starter, store, plan.cases, _config(store.path), watch, Drain(), CompletedCases())
        call(loop.work_through)
        complete, held = len(store.ledger.complete_steps()), len(list(store.ledger.folder.glob("*.claim")))
        if complete != cases or watch.seen[-1].done != cases or held:
            raise BenchError(
                f"all {cases} Cases must be complete and released, but {complete} are complete, {watch.seen[-1].done} "
                f"recorded and {held} still leased: the driver lost some; look at its tests"
            )
    return watch.seen


def _plan(cases: int) -> Plan:
    """Plan a number of Cases on a small grid."""
    begin = np.datetime64("1700-01-01T00", "h")
    times = (begin + number * np.timedelta64(_STEP_HOURS, "h") for number in range(cases))
    layout = Layout(regular_grid(90), (), (("2m_temperature", False),), _STEPS, _STEP_HOURS)
    return Plan(tuple(Case(time, _STEPS, _STEP_HOURS) for time in times), layout)


def _config(store: Path) -> RunConfig:
    content = {
        "store": str(store),
        "inputs": {"kind": "synthetic", "resolution": 30},
        "times": {"list": ["2000-01-01T00"]},
        "steps": _STEPS,
        "model": {
            "weights": {
                "kind": "random",
                "architecture": {"mesh_size": 0, "latent_size": 1, "gnn_msg_steps": 1},
                "task": "GraphCast_small",
            }
        },
    }
    return parse_config(content, RunConfig, origin="the benchmark")


def _record() -> CaseRecord:
    files = {f"variable_{n % 11}/c.0.{n // 11}.0.0": (10**6, f"{n:08x}") for n in range(_FILES)}
    return CaseRecord(
        key="2000-01-01T00",
        init_time="2000-01-01T00:00:00Z",
        steps=_STEPS,
        bytes=_FILES * 10**6,
        files=files,
        seconds={"read": 1.0, "compute": 1.0, "check": 1.0, "write": 1.0, "commit": 1.0},
        host="host",
        device="sleep",
        worker=f"host:{os.getpid()}",
        attempts=1,
        finished_at="2000-01-01T00:00:00+00:00",
        details={"peak_memory_bytes": 10**9, "read_bytes": 10**9},
    )


def _memory_bytes() -> int:
    """Return the memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
