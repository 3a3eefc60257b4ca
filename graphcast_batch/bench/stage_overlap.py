"""Measure how closely the slowest stage determines the speed of a run, and how much two workers gain over one.

Reading and computing only sleep, and so take no time of this machine's cores; frames are checked, encoded and written
as in any run. A real run, with the network on the cores, is measured as well.
"""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, Final, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.bench.records import BenchmarkFigure, BenchmarkResult
from graphcast_batch.bench.worker_run import stages_of
from graphcast_batch.cluster import driver
from graphcast_batch.cluster.drain import Drain
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.grid import Grid, regular_grid
from graphcast_batch.inputs.case_inputs import CaseInputs
from graphcast_batch.inputs.formats.chunks import ReadCost
from graphcast_batch.models.base import Model
from graphcast_batch.pipeline.stages import CaseStage
from graphcast_batch.pipeline.worker_context import WorkerContext
from graphcast_batch.plan import Case
from graphcast_batch.setup.run_setup import assemble
from graphcast_batch.spec import Task
from graphcast_batch.stores.case_records import CaseFailure, CaseRecord
from graphcast_batch.stores.layout import Layout, Plan
from graphcast_batch.stores.store_kinds import create_or_extend
from graphcast_batch.timing import Balance
from graphcast_batch.variables import HOUR, LEVELS_13

_STEPS, _PER_CALL = 16, 4
_LEVELLED, _SURFACE = ("geopotential", "temperature"), ("2m_temperature",)
_SHARE: Final = 0.5
"""Duration of each other stage, as a fraction of that of the slowest."""
_TRIED: Final = 4
"""Number of Cases that are written first, to find out how long writing takes."""
_NETWORK: Final = {
    "inputs": {"kind": "synthetic", "resolution": 5},
    "steps": 40,  # so that reading, which is computing on a synthetic planet, takes little beside
    "model": {
        "weights": {
            "kind": "random",
            "architecture": {"mesh_size": 3, "latent_size": 64, "gnn_msg_steps": 4},
            "task": "GraphCast_small",
        },
    },
    "limits": "off",  # random weights leave physics
}


@dataclass(frozen=True)
class _Later:
    """An array that is ready at a certain time, like one on a device."""

    values: NDArray[np.float32]
    ready: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def __array__(self, dtype: object = None, copy: object = None) -> NDArray[np.float32]:
        time.sleep(max(0.0, self.ready - time.perf_counter()))
        return self.values


class _Sleeping:
    """A source and a model that take time, but do not use the cores."""

    device = "sleeping"
    dims: Mapping[str, tuple[str, ...]] = MappingProxyType({})

    def __init__(self, grid: Grid, task: Task, read_seconds: float, compute_seconds: float) -> None:
        self.grid, self.task = grid, task
        self._read_seconds, self._call_seconds = read_seconds, compute_seconds * _PER_CALL / _STEPS
        shapes = {name: (len(task.pressure_levels),) for name in _LEVELLED} | dict.fromkeys(_SURFACE, ())
        draw = np.random.default_rng(0)
        # Noise in steps of 1/64 packs to about half, as weather does.
        self._frames = {
            name: (np.round(280 * 64 + 640 * draw.standard_normal((_PER_CALL, *more, *grid.shape))) / 64).astype(
                np.float32
            )
            for name, more in shapes.items()
        }
        self._ready = 0.0

    def read(self, case: Case, task: Task) -> CaseInputs:
        time.sleep(self._read_seconds)
        return CaseInputs(xr.Dataset(), xr.Dataset())

    def truth(self, case: Case, names: list[str], levels: list[int] | None = None) -> None:
        return None

    def cost(self, case: Case, task: Task) -> ReadCost | None:
        return None

    def forecast(self, inputs: xr.Dataset, forcings: xr.Dataset, steps: int) -> Iterator[Mapping[str, Any]]:
        for _ in range(0, steps, _PER_CALL):
            self._ready = max(self._ready, time.perf_counter()) + self._call_seconds
            yield {name: _Later(values, self._ready) for name, values in self._frames.items()}


class _Quiet:
    """Progress of a run in which nothing may go wrong: shows nothing, and raises at any failure."""

    def started(self, workers: int, device: str, total: int, complete: int) -> None:
        """Nothing is shown."""

    def under_way(self, worker: str, stages: Sequence[CaseStage]) -> None:
        """Nothing is shown."""

    def finished(self, record: CaseRecord) -> None:
        """Nothing is shown."""

    def combined(self, record: CaseRecord) -> None:
        """Nothing is shown."""

    def retried(self, case: Case, error: BaseException) -> None:
        """Raise: a benchmark must not hide a failure."""
        raise error

    def failed(self, failure: CaseFailure) -> None:
        """Raise: a benchmark must not hide a failure."""
        raise RuntimeError(failure.message)

    def note(self, event: str, text: str) -> None:
        """Raise: a benchmark must not hide a failure."""
        raise RuntimeError(f"{event}: {text}")


def measure(folder: Path, cases: int = 32, network_cases: int = 16, rounds: int = 5) -> BenchmarkResult:
    """Measure how well the stages of a run overlap, and two workers compared with one.

    Args:
        folder: a folder on the disk to write to; all that is written is removed.
        cases: number of Cases in each run without a network.
        network_cases: in each run with one.
        rounds: how often each is measured, one after the other.

    Returns:
        For each bound, wall time over the time of the slowest stage; the same for a run with a network on the cores;
        and Cases per second of two workers of one thread over those of one.
    """
    ratios: dict[str, list[float]] = {}
    for _ in range(rounds):
        for bound in ("read", "compute", "write"):
            ratios.setdefault(f"{bound}-bound", []).append(overlap(folder, bound, cases))
    gains = []
    with driver.connected(None, Drain()):
        network(folder, 1, 2)  # compiles, and keeps what it compiled
        for _ in range(rounds):
            one, two = network(folder, 1, network_cases), network(folder, 2, network_cases)
            gains.append(two.rate / one.rate)
            ratios.setdefault("network on the cores", []).append(one.balance.ratio)
    return BenchmarkResult(
        bench="run",
        what="how nearly the slowest stage of a run sets its pace, and what a second worker gains",
        command=f"graphcast-batch bench run --folder FOLDER --rounds {rounds}",
        figures=[
            *(
                BenchmarkFigure(f"wall / slowest stage, {name}", "1", found, goal="at most 1.05")
                for name, found in ratios.items()
            ),
            BenchmarkFigure("two workers / one, 1 thread each", "1", gains, goal="1.9 on 2 cores"),
        ],
        settings={
            "cases": cases,
            "network_cases": network_cases,
            "steps": _STEPS,
            "steps_per_call": _PER_CALL,
            "other_stages": _SHARE,
        },
    )


def overlap(folder: Path, bound: str, cases: int, resolution: float = 1.0) -> float:
    """Return the wall time of one worker's Cases, from the first hand-out to the last commit, over the slowest stage's.

    Args:
        folder: a folder on the disk to write to.
        bound: the slowest stage, twice as slow as the others: ``read``, ``compute`` or ``write``.
        cases: to be made.
        resolution: degrees, of the frames.
    """
    written = _balance(folder, _TRIED, 0.0, 0.0, resolution).busy["write"] / _TRIED
    slowest = written if bound == "write" else written / _SHARE
    read, compute = (slowest if bound == stage else _SHARE * slowest for stage in ("read", "compute"))
    return _balance(folder, cases, read, compute, resolution).ratio


@dataclass(frozen=True)
class NetworkRun:
    """A run with a network on the cores.

    Attributes:
        balance: how well its stages overlapped.
        rate: Cases a second, from each worker's first completed Case to its last, all workers together.
    """

    balance: Balance
    rate: float


def network(folder: Path, workers: int, cases: int) -> NetworkRun:
    """Make Cases with workers of one thread, on a connected cluster.

    Args:
        folder: a folder on the disk to write to; the cache of compiled programs stays there.
        workers: number of workers.
        cases: to be made.
    """
    with TemporaryDirectory(dir=folder) as place:
        hours = np.datetime64("2020-01-01T00") + 6 * np.arange(cases) * HOUR
        content = _NETWORK | {
            "store": f"{place}/store",
            "cache": str(folder / "cache"),
            "times": {"list": [str(time) for time in hours]},
            "workers": {"device": "cpu", "threads": 1, "count": workers},
        }
        run = assemble(parse_config(content, RunConfig, origin="the benchmark"))
        outcome = driver.run(run, _Quiet(), Drain(), traced=True)
    ends: dict[str, list[float]] = {}
    for made in outcome.trace:
        ends.setdefault(made.record.worker, []).append(max(span.end for span in made.spans))
    rate = sum((len(found) - 1) / (max(found) - min(found)) for found in ends.values() if len(found) > 1)
    assert outcome.balance is not None
    return NetworkRun(outcome.balance, rate)


def _balance(folder: Path, cases: int, read_seconds: float, compute_seconds: float, resolution: float) -> Balance:
    """Make Cases with one worker that only sleeps while it reads and computes."""
    grid = regular_grid(resolution)
    names = tuple(sorted((*_LEVELLED, *_SURFACE)))
    task = Task(input_variables=names, target_variables=names, forcing_variables=(), pressure_levels=LEVELS_13)
    begin = np.datetime64("2020-01-01T00")
    some = tuple(Case(begin + number * task.step, _STEPS, task.step_hours) for number in range(cases))
    layout = Layout(grid, LEVELS_13, tuple((name, name in _LEVELLED) for name in names), _STEPS, task.step_hours)
    place = folder / "overlap"
    shutil.rmtree(place, ignore_errors=True)
    store = create_or_extend(place, Plan(some, layout), identity={}, provenance={}, config_text="")
    sleeping = _Sleeping(grid, task, read_seconds, compute_seconds)
    model = cast(Model, sleeping)  # which is asked for one forecast at a time only
    context = WorkerContext(sleeping, lambda _: None, model, store, lambda _: lambda *_: None, "worker")
    found = stages_of(context, some)
    shutil.rmtree(place)
    return found
