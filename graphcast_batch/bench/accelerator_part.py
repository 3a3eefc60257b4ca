"""Measure one part of the benchmark of an accelerator, in a process of its own.

`accelerator_suite` starts ``python -m graphcast_batch.bench.accelerator_part PART FILE`` with the part as JSON. Each
figure is a line of JSON in the file as soon as it is there, so that it is kept whatever happens later; the last line
tells why a part failed.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from types import MappingProxyType
from typing import Any, Final, Literal

import jax
import xarray as xr

from graphcast_batch.bench.records import BenchmarkFigure
from graphcast_batch.bench.reference_distance import distances
from graphcast_batch.bench.step_contestant import SIZES, SizeName, check_memory, noise
from graphcast_batch.bench.worker_run import run_of_network
from graphcast_batch.errors import BenchError
from graphcast_batch.models.base import CallSize, MemoryMode, Model, Precision
from graphcast_batch.models.devices import device_bytes
from graphcast_batch.models.disk_cache import Cache
from graphcast_batch.models.model_kinds import MODELS
from graphcast_batch.pipeline.peak_memory import peak_memory_bytes
from graphcast_batch.text import byte_size

PartKind = Literal["forecast", "profile", "batches", "reference", "run"]
_ROUNDS: Final = 2
_TIMED_CALLS: Final = 8
"""Calls of a rollout whose frames stay on the device, or that computes a batch."""
_PROFILED_CALLS: Final = 3
_MOST_PROFILE_BYTES: Final = 15 * 2**20
"""Largest file of a profile that is kept."""


@dataclass(frozen=True)
class Part:
    """One part of the benchmark.

    Attributes:
        kind: a forecast; one whose program was compiled before, with a profile; batches of several sizes; distances
            from reference forecasts; or a whole run.
        seconds: about how long it takes, of which a guess is enough.
        size: of network and grid.
        precision: of the network.
        memory: how the network uses the memory.
        steps_per_call: steps in a call of the compiled program.
        steps: of a forecast.
        batches: numbers of Cases in a call, ascending, as peaks of memory never fall.
        cases: of a run.
        accelerated: whether the device is an accelerator.
        scratch: a folder for what is not kept, and for the cache of compiled programs, which the parts share.
        kept: folder of the profile, or of reference forecasts.
    """

    kind: PartKind
    seconds: float
    size: SizeName = "operational"
    precision: Precision = "bfloat16"
    memory: MemoryMode = "lean"
    steps_per_call: int = 1
    steps: int = 40
    batches: Sequence[int] = (1, 2, 4, 8, 16)
    cases: int = 16
    accelerated: bool = True
    scratch: str = ""
    kept: str = ""

    @property
    def name(self) -> str:
        """What is measured, in words."""
        if self.kind == "reference":
            return "reference forecasts"
        if self.kind == "run":
            return f"{self.size}, {self.precision}, run"
        also = "" if self.kind == "forecast" else f", {self.kind}"
        steps = "1 step" if self.steps_per_call == 1 else f"{self.steps_per_call} steps"
        return f"{self.size}, {self.precision}, {self.memory}, {steps} a call{also}"

    @property
    def cache(self) -> Cache:
        """The cache of compiled programs that the parts share."""
        return Cache(Path(self.scratch) / "cache")

    def call(self, cases: int = 1) -> CallSize:
        """Return the sizes of a call."""
        size = SIZES[self.size]
        shape, steps = size.architecture, self.steps_per_call
        return CallSize(shape, size.grid, size.channels, self.precision, self.accelerated, steps, cases)


def _forecast(part: Part) -> Iterator[BenchmarkFigure]:
    """Measure a forecast: the first frame, steps, all of it with frames on the host, and memory."""
    check_memory("native", part.call(), part.memory)
    model, inputs, start = _loaded(part)
    few = model.forecast(inputs, xr.Dataset(), 2 * part.steps_per_call)
    jax.device_get(next(few))
    how = "compiled before" if part.kind == "profile" else "compiled anew"
    yield BenchmarkFigure(f"to the first frame, {how}", "s", [perf_counter() - start])
    _seconds(few, jax.device_get)
    if part.kind == "profile":
        yield from _memory(part)
        yield from _profile(part, model, inputs)
        return
    steps = _TIMED_CALLS * part.steps_per_call
    ready = [_seconds(model.forecast(inputs, xr.Dataset(), steps), jax.block_until_ready) for _ in range(_ROUNDS)]
    yield BenchmarkFigure("a step, frames on the device", "s", [seconds / steps for seconds in ready])
    fetched = [_seconds(model.forecast(inputs, xr.Dataset(), part.steps), jax.device_get) for _ in range(_ROUNDS)]
    yield BenchmarkFigure("a step, frames on the host", "s", [seconds / part.steps for seconds in fetched])
    hours = part.steps * SIZES[part.size].channels.step_hours
    yield BenchmarkFigure(f"a forecast of {hours} h, frames on the host", "s", fetched)
    yield from _memory(part)
    yield BenchmarkFigure("peak memory of the process", "GB", [peak_memory_bytes() / 1e9])


def _profile(part: Part, model: Model, inputs: xr.Dataset) -> Iterator[BenchmarkFigure]:
    """Keep a profile of a few calls, without Python's own functions, which would make its files large."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    made, steps = Path(part.scratch) / "profile", _PROFILED_CALLS * part.steps_per_call
    with jax.profiler.trace(str(made), profiler_options=options):
        _seconds(model.forecast(inputs, xr.Dataset(), steps), jax.device_get)
    for path in kept_files(made, Path(part.kept)):
        yield BenchmarkFigure(f"profile of {steps} steps, {path.name}", "MB", [path.stat().st_size / 1e6])


def kept_files(made: Path, kept: Path) -> Iterator[Path]:
    """Copy the files of a profile into one folder, without the name of this host; yield the copies.

    Raises:
        BenchError: a file is too large to keep; the others are kept.
    """
    kept.mkdir(parents=True, exist_ok=True)
    large = []
    for path in sorted(path for path in made.rglob("*") if path.is_file()):
        if path.stat().st_size > _MOST_PROFILE_BYTES:
            large.append(f"{path.name} of {byte_size(path.stat().st_size)}")
            continue
        copy = kept / f"profile{''.join(path.suffixes[-2:])}"
        copy.write_bytes(path.read_bytes())
        yield copy
    if large:
        raise BenchError(
            f"a file of a profile is kept if it has at most {byte_size(_MOST_PROFILE_BYTES)}, so these are not: "
            f"{', '.join(large)}; profile fewer steps"
        )


def _batches(part: Part) -> Iterator[BenchmarkFigure]:
    """Measure how many steps a second batches of several sizes make, and the memory that they need."""
    model, inputs, _ = _loaded(part)
    steps = _TIMED_CALLS * part.steps_per_call
    for cases in part.batches:
        check_memory("native", part.call(cases), part.memory)
        starts = [(inputs, xr.Dataset())] * cases
        _seconds(model.forecast_many(starts, part.steps_per_call), jax.device_get)  # compiles
        took = [_seconds(model.forecast_many(starts, steps), jax.device_get) for _ in range(_ROUNDS)]
        rates = [cases * steps / seconds for seconds in took]
        yield BenchmarkFigure(f"batch size {cases}: steps of all Cases", "1/s", rates)
        for figure in _memory(part, cases):
            yield replace(figure, name=f"batch size {cases}: {figure.name}")


def _reference(part: Part) -> Iterator[BenchmarkFigure]:
    return distances(Path(part.kept), part.cache)


def _run(part: Part) -> Iterator[BenchmarkFigure]:
    """Measure a run of one worker, without the driver and Ray, which need not be there."""
    with TemporaryDirectory(dir=part.scratch) as folder:
        sizes = SIZES[part.size], part.precision, part.steps, part.cases
        found = run_of_network(Path(folder), *sizes, part.cache.folder)
    yield BenchmarkFigure(f"wall / slowest stage, {found.slowest}", "1", [found.ratio], goal="at most 1.05")
    yield BenchmarkFigure("Cases", "1/s", [part.cases / found.wall])
    yield BenchmarkFigure("wall of all Cases", "s", [found.wall])
    for stage, seconds in found.busy.items():
        yield BenchmarkFigure(f"{stage} of all Cases", "s", [seconds])


def _loaded(part: Part) -> tuple[Model, xr.Dataset, float]:
    """Return a model with random weights, inputs of noise, and when loading began."""
    size, kind = SIZES[part.size], MODELS["native"]
    checkpoint, inputs, statistics = noise(size, kind)
    start = perf_counter()
    model = kind.load(
        checkpoint,
        statistics,
        size.grid,
        size.channels,
        part.precision,
        steps_per_call=part.steps_per_call,
        memory=part.memory,
        cache=part.cache,
    )
    return model, inputs, start


def _seconds(calls: Iterator[Any], take: Callable[[Any], object]) -> float:
    """Return the seconds until all frames were taken, those of each call while the next one is computed."""
    start = perf_counter()
    before = next(calls)
    for frames in calls:
        take(before)
        before = frames
    take(before)
    return perf_counter() - start


def _memory(part: Part, cases: int = 1) -> Iterator[BenchmarkFigure]:
    """Tell the peak memory of the device so far, where it reports one, beside the predicted one."""
    predicted = MODELS["native"].predicted_bytes(part.call(cases), part.memory)
    yield BenchmarkFigure("memory of the device as predicted", "GB", [predicted / 1e9])
    held = jax.local_devices()[0].memory_stats() or {}
    if peak := held.get("peak_bytes_in_use", 0):
        yield BenchmarkFigure("peak memory of the device", "GB", [peak / 1e9], limit=device_bytes() / 1e9)
        yield BenchmarkFigure("predicted / peak, memory of the device", "times", [predicted / peak], goal="0.9 to 1.1")


_MEASURE: Final[Mapping[PartKind, Callable[[Part], Iterator[BenchmarkFigure]]]] = MappingProxyType(
    {"forecast": _forecast, "profile": _forecast, "batches": _batches, "reference": _reference, "run": _run}
)


def _measure(part: Part, answers: Path) -> None:
    with answers.open("w") as file:
        try:
            for figure in _MEASURE[part.kind](part):
                file.write(json.dumps({**asdict(figure), "samples": [*map(float, figure.samples)]}))
                file.write("\n")
                file.flush()
        except Exception as error:  # whatever it is, the parts that follow are measured
            file.write(json.dumps({"failure": f"{type(error).__name__}: {error}"}) + "\n")


if __name__ == "__main__":
    _measure(Part(**json.loads(sys.argv[1])), Path(sys.argv[2]))
