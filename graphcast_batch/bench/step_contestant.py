"""Measure one contestant of the benchmark of a model step, in a process of its own.

`step_speed` starts ``python -m graphcast_batch.bench.step_contestant ROLE SIZE PRECISION MEMORY STEPS FILE`` for each
one, and asks for a measurement by a line on its standard input. The answer is a line of JSON on its standard output.
Weights and fields are noise: no speed depends on them.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Any, Final, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array
from numpy.typing import NDArray

from graphcast_batch.cluster.usable_memory import usable_bytes
from graphcast_batch.config.model_section import Implementation, RandomWeights
from graphcast_batch.errors import BenchError, PackageError
from graphcast_batch.grid import Grid, regular_grid
from graphcast_batch.models.base import CallSize, Checkpoint, MemoryMode, Model, ModelKind, Precision
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.devices import device_bytes
from graphcast_batch.models.model_kinds import MODELS
from graphcast_batch.pipeline.peak_memory import peak_memory_bytes
from graphcast_batch.spec import TASKS, Architecture
from graphcast_batch.text import byte_size

SizeName = Literal["tiny", "coarse", "small", "narrow", "operational", "full"]
Role = Literal["native", "deepmind", "product"]
"""A contestant: our network, DeepMind's package, or a matrix product for comparison."""
_CHAIN: Final = 16
"""Number of matrix products, one after the other, in a call of the compiled program."""
_ROWS, _MANY_ROWS = 2**13, 2**17
"""Rows of the left matrix, on a CPU and on an accelerator, which fewer rows would leave idle."""
_PRODUCT_SECONDS: Final = 0.5
"""The least duration of a measurement of the product."""


@dataclass(frozen=True)
class Size:
    """A size of the network and of the grid that it forecasts on.

    Attributes:
        architecture: the sizes of the network.
        task: name of a published task.
        resolution: grid spacing in degrees.
    """

    architecture: Architecture
    task: str
    resolution: float

    @property
    def grid(self) -> Grid:
        """The grid, with both poles as in the published models."""
        return regular_grid(self.resolution)

    @property
    def channels(self) -> Channels:
        """The places of the variables of the task."""
        return Channels.of(TASKS[self.task], {})


SIZES: Final[Mapping[SizeName, Size]] = MappingProxyType(
    {
        "tiny": Size(Architecture(mesh_size=3, latent_size=64, gnn_msg_steps=4), "GraphCast_small", 5.0),
        "coarse": Size(Architecture(mesh_size=3, latent_size=512, gnn_msg_steps=16), "GraphCast_small", 6.0),
        "small": Size(Architecture(mesh_size=5, latent_size=512, gnn_msg_steps=16), "GraphCast_small", 1.0),
        "narrow": Size(Architecture(mesh_size=6, latent_size=32, gnn_msg_steps=2), "GraphCast_operational", 0.25),
        "operational": Size(
            Architecture(mesh_size=6, latent_size=512, gnn_msg_steps=16), "GraphCast_operational", 0.25
        ),
        "full": Size(Architecture(mesh_size=6, latent_size=512, gnn_msg_steps=16), "GraphCast", 0.25),
    }
)
"""The sizes that can be measured. ``small``, ``operational`` and ``full`` are published (Lam et al. 2023), the last one
with 37 levels; ``narrow`` has the finest grid and mesh, where DeepMind's package needs less than 10 GB."""


@dataclass(frozen=True)
class Answer:
    """What a contestant reports when it is ready, and after each round.

    Attributes:
        seconds: in the first answer the time until the first frame was there, graphs and compiling included; then that
            of a rollout, or of 10**9 operations of a matrix product.
        host_bytes: peak memory of the contestant's process so far.
        device_bytes: peak memory on its device so far; 0 where the device is the host, or does not report it.
        device: kind of its device.
        what: description of the contestant.
        refusal: why the contestant cannot take part; empty if it can.
    """

    seconds: float = 0.0
    host_bytes: int = 0
    device_bytes: int = 0
    device: str = ""
    what: str = ""
    refusal: str = ""


def _take_part(role: Role, size: SizeName, precision: Precision, memory: MemoryMode, steps: int, frames: Path) -> None:
    """Print an answer when ready, and another one whenever a line is read from standard input."""
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever else is printed is no answer
    if role == "product":
        work = _products(SIZES[size].architecture.latent_size, precision)
    else:
        work = _rollouts(role, SIZES[size], precision, memory, steps, frames)
    try:
        for answer in work:
            print(json.dumps(asdict(answer)), file=answers, flush=True)
            if not sys.stdin.readline():
                return
    except (BenchError, PackageError) as error:
        print(json.dumps(asdict(Answer(refusal=str(error)))), file=answers, flush=True)


def _rollouts(
    implementation: Implementation, size: Size, precision: Precision, memory: MemoryMode, steps: int, frames: Path
) -> Iterator[Answer]:
    """Yield the seconds to the first frame, then those of each rollout; write two frames to a file."""
    kind = MODELS[implementation]
    memory = memory if memory in kind.memory_modes else kind.memory_modes[-1]
    accelerated = jax.default_backend() != "cpu"
    check_memory(implementation, CallSize(size.architecture, size.grid, size.channels, precision, accelerated), memory)
    checkpoint, inputs, statistics = noise(size, kind)
    start = perf_counter()
    model = kind.load(checkpoint, statistics, size.grid, size.channels, precision, memory=memory)
    what = kind.description()
    del checkpoint  # as in a worker, which keeps no second copy of the weights
    kept: dict[str, Any] = {}
    first_seconds = 0.0
    for number, fields in enumerate(_on_host(model, inputs, steps), start=1):
        first_seconds = first_seconds or perf_counter() - start
        if number in (1, steps):
            lead = f"{size.channels.step_hours * number} h"
            kept[lead] = np.concatenate([fields[name].ravel() for name in sorted(fields)])
    np.savez(frames, **kept)
    yield _answer(first_seconds, what)
    while True:
        start = perf_counter()
        for _ in _on_host(model, inputs, steps):
            pass
        yield _answer(perf_counter() - start, what)


def check_memory(implementation: Implementation, call: CallSize, memory: MemoryMode) -> None:
    """Refuse a model that needs more memory than its device has.

    Raises:
        BenchError: it does; the message gives both numbers.
    """
    needed = MODELS[implementation].predicted_bytes(call, memory)
    there = device_bytes() if call.accelerated else usable_bytes()
    if needed > there > 0:
        remedy = "take --memory lean, " if memory == "fast" and implementation == "native" else "take "
        raise BenchError(
            f"{implementation} on {call.grid} in {call.precision} needs at least {byte_size(needed)} with --memory "
            f"{memory}, but the {'device' if call.accelerated else 'machine'} has {byte_size(there)}; {remedy}"
            "a smaller --size, or more memory"
        )


def _on_host(model: Model, inputs: xr.Dataset, steps: int) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Yield frames one by one, each fetched while the next is computed, as in a run."""
    before: Mapping[str, Any] | None = None
    for frames in model.forecast(inputs, xr.Dataset(), steps):
        if before is not None:
            yield {name: np.asarray(values) for name, values in before.items()}
        before = frames
    assert before is not None
    yield {name: np.asarray(values) for name, values in before.items()}


def noise(size: Size, kind: ModelKind) -> tuple[Checkpoint, xr.Dataset, dict[str, xr.Dataset]]:
    """Return random weights and inputs, and statistics in whose units the inputs are."""
    task, channels, grid = TASKS[size.task], size.channels, size.grid
    draw = np.random.default_rng(0)
    times = np.datetime64("2020-01-01T00", "ns") + np.arange(task.input_frames) * task.step
    sizes = {"time": times.size, "level": len(channels.levels), "latitude": grid.shape[0], "longitude": grid.shape[1]}

    def field(name: str) -> tuple[tuple[str, ...], NDArray[np.float32]]:
        absent = {*(("time",) if name in channels.static else ()), *(() if name in channels.on_levels else ("level",))}
        dims = tuple(dim for dim in sizes if dim not in absent)
        return dims, draw.standard_normal([sizes[dim] for dim in dims], np.float32)

    place = {"latitude": grid.latitude, "longitude": grid.longitude}
    inputs = xr.Dataset(
        {name: field(name) for name in channels.carried + channels.static},
        coords={"time": times, "level": list(channels.levels), **place},
    )

    def constant(name: str, value: float) -> tuple[tuple[str, ...], NDArray[np.float32]]:
        levelled = name in channels.on_levels
        return ("level",) if levelled else (), np.full(sizes["level"] if levelled else (), value, np.float32)

    scales = {"mean": 0.0, "stddev": 1.0, "diffs_stddev": 1.0}
    names = {*task.input_variables, *task.target_variables, *task.forcing_variables}
    statistics = {
        kind: xr.Dataset({name: constant(name, value) for name in names}, coords={"level": list(channels.levels)})
        for kind, value in scales.items()
    }
    statistics["stddev"]["toa_incident_solar_radiation"] *= 1e6  # J m**-2, the only one that is no noise
    weights = kind.weights(RandomWeights(kind="random", architecture=size.architecture, task=task))
    return weights.checkpoint(channels), inputs, statistics


def _products(width: int, precision: Precision) -> Iterator[Answer]:
    """Yield the seconds that 10**9 operations take in products of (rows, width) and (width, width) matrices."""
    rows = _ROWS if jax.default_backend() == "cpu" else _MANY_ROWS
    draw = np.random.default_rng(0)
    left = jnp.asarray(draw.standard_normal((rows, width)), precision)
    right = jnp.asarray(draw.standard_normal((width, width)) / np.sqrt(width), precision)

    @jax.jit
    def chain(left: Array, right: Array) -> Array:
        product: Array = jax.lax.fori_loop(0, _CHAIN, lambda _, product: product @ right, left)
        return product

    what = f"({rows}, {width}) x ({width}, {width})"
    chain(left, right).block_until_ready()
    yield _answer(0.0, what)
    while True:
        done, start = 0, perf_counter()
        while perf_counter() - start < _PRODUCT_SECONDS:
            chain(left, right).block_until_ready()
            done += 2 * rows * width * width * _CHAIN
        yield _answer((perf_counter() - start) / done * 1e9, what)


def _answer(seconds: float, what: str) -> Answer:
    device = jax.local_devices()[0]
    held = device.memory_stats() or {}
    return Answer(seconds, peak_memory_bytes(), held.get("peak_bytes_in_use", 0), str(device.device_kind), what)


if __name__ == "__main__":
    _words = cast(tuple[Role, SizeName, Precision, MemoryMode], tuple(sys.argv[1:5]))
    _take_part(*_words, steps=int(sys.argv[5]), frames=Path(sys.argv[6]))
