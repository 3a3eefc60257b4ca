"""Measure how fast the frames of a forecast are stored: by this package, by plain xarray, and by the disk alone.

All contestants store the same frames in every round, one after the other, durably except for xarray, which makes
nothing durable. Frames are weather of the synthetic planet with noise, since data that compress too well would not be
representative.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from types import MappingProxyType
from typing import Final

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.errors import ZarrUserWarning

from graphcast_batch.bench.records import BenchmarkFigure, BenchmarkResult
from graphcast_batch.config.outputs_section import OutputsConfig
from graphcast_batch.files.durable import sync_tree
from graphcast_batch.grid import Grid, regular_grid
from graphcast_batch.inputs.sources.synthetic import SyntheticPlanet
from graphcast_batch.plan import Case
from graphcast_batch.spec import TASKS
from graphcast_batch.stores.frame_blocks import Blocks
from graphcast_batch.stores.layout import Layout, Plan, plan_layout
from graphcast_batch.stores.store_kinds import create_or_extend
from graphcast_batch.stores.zarr.shards import Encoding

Frames = Mapping[str, NDArray[np.float32]]
_Contestant = Callable[[Path, Frames], None]
_TASK: Final = "GraphCast_small"
_CASE_TIME: Final = np.datetime64("2020-01-01T00", "h")
_DISTINCT: Final = 4
"""Number of frames of weather, which are repeated, each time with new noise."""
_NOISE: Final = 0.01
"""Noise as a fraction of the standard deviation of a field, so that its last bits are as random as a forecast's."""
_WRITE_BYTES: Final = 2**20
_SHARD: Final = 8
"""Number of lead times in a shard, as in a store by default."""
_CONTESTS: Final[Mapping[str, OutputsConfig]] = MappingProxyType(
    {
        "lz4": OutputsConfig(),
        "none": OutputsConfig(compression="none"),
        "zstd": OutputsConfig(compression="zstd"),
        "lz4, 10 bits": OutputsConfig(keep_bits=10),
        "zstd, 10 bits": OutputsConfig(compression="zstd", keep_bits=10),
    }
)


def measure(
    folder: Path, rounds: int, resolution: float = 1.0, steps: int = 40, threads: int = 2, per_call: int = 4
) -> BenchmarkResult:
    """Store one forecast of the task GraphCast_small several times, in a new folder each time.

    Args:
        folder: a folder on the disk to measure; nothing is left in it.
        rounds: how often each contestant stores it, after a first round that is not counted.
        resolution: of the grid, degrees, a divisor of 180.
        steps: lead times.
        threads: that write different variables at once.
        per_call: lead times that come at once, as from a call of the model.

    Returns:
        For each contestant seconds, bytes and files; how many times as fast as xarray we are by default, and what share
        of the disk's rate we reach without compression, each round by round. By default is lz4.
    """
    grid, frames = weather(resolution, steps)
    contestants: dict[str, _Contestant] = {"disk": _fill_disk, "disk, streams": _streams_to_disk(threads)}
    contestants |= {"xarray": _by_xarray, "xarray, durable": _by_xarray_durably, "zarr, durable": _by_zarr}
    contestants |= {
        name: _ours(plan_layout(TASKS[_TASK], grid, steps, {}, outputs), threads, per_call)
        for name, outputs in _CONTESTS.items()
    }
    seconds, stored = _in_turn(folder, frames, contestants, rounds)
    megabytes = sum(values.nbytes for values in frames.values()) / 1e6
    return BenchmarkResult(
        bench="io",
        what=f"{steps} frames of {_TASK} on {grid}, {megabytes:.0f} MB, stored by us, by xarray's to_zarr and by zarr",
        command=f"graphcast-batch bench io --folder FOLDER --rounds {rounds}",
        figures=[
            BenchmarkFigure("as fast as xarray", "times", _quotients(seconds["xarray"], seconds["lz4"]), goal=">= 3"),
            BenchmarkFigure(
                "as fast as xarray made durable", "times", _quotients(seconds["xarray, durable"], seconds["lz4"])
            ),
            BenchmarkFigure(
                "rate of the disk, without compression",
                "share",
                _quotients(seconds["disk"], seconds["none"]),
                goal=">= 0.8",
            ),
            BenchmarkFigure(
                "rate of the disk in as many streams, without compression",
                "share",
                _quotients(seconds["disk, streams"], seconds["none"]),
                limit=1.0,
            ),
            *(BenchmarkFigure(f"time of {name}", "s", found) for name, found in seconds.items()),
            *(
                BenchmarkFigure(f"rate of {name}", "MB/s", [megabytes / each for each in found])
                for name, found in seconds.items()
            ),
            *(BenchmarkFigure(f"size of {name}", "MB", [size / 1e6]) for name, (size, _) in stored.items()),
            *(BenchmarkFigure(f"files of {name}", "files", [float(files)]) for name, (_, files) in stored.items()),
        ],
        settings={"resolution": resolution, "steps": steps, "threads": threads, "per_call": per_call},
    )


def weather(resolution: float, steps: int) -> tuple[Grid, Frames]:
    """Return a grid, and frames on it by variable, float32 (step, [level], latitude, longitude)."""
    task, grid, random = TASKS[_TASK], regular_grid(resolution), np.random.default_rng(0)
    times = _CASE_TIME + np.arange(min(steps, _DISTINCT)) * task.step
    weather = SyntheticPlanet().fields(task.target_variables, times, grid, task.pressure_levels)
    frames = {}
    for name in sorted(task.target_variables):
        fields = weather[name].values
        noise = _NOISE * fields.std(axis=(0, -2, -1), keepdims=True)[0]
        repeated = (fields[step % len(fields)] for step in range(steps))
        frames[name] = np.stack([at + noise * random.standard_normal(at.shape, np.float32) for at in repeated])
    return grid, frames


def _in_turn(
    folder: Path, frames: Frames, contestants: Mapping[str, _Contestant], rounds: int
) -> tuple[dict[str, list[float]], dict[str, tuple[int, int]]]:
    """Return the seconds of each contestant in each round, and the bytes and files that it stored."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    stored = {}
    for number in range(-1, rounds):  # the first one warms up
        for name, store in contestants.items():
            with TemporaryDirectory(dir=folder) as place:
                os.sync()  # nobody is to wait for what another has left to the disk
                start = perf_counter()
                store(Path(place), frames)
                taken = perf_counter() - start
                files = [path for path in Path(place).rglob("*") if path.is_file()]
                stored[name] = sum(path.stat().st_size for path in files), len(files)
            if number >= 0:
                seconds[name].append(taken)
    return seconds, stored


def _quotients(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(above, below, strict=True)]


def _fill_disk(place: Path, frames: Frames) -> None:
    """Write the bytes alone, in one file, as `dd` with conv=fsync does."""
    _write(place / "frames", frames.values())


def _streams_to_disk(threads: int) -> _Contestant:
    """Return a function that writes the bytes alone, in as many streams and files as our store does."""

    def fill(place: Path, frames: Frames) -> None:
        shards = [
            (place / f"{name}.{first}", [values[first : first + _SHARD]])
            for name, values in frames.items()
            for first in range(0, len(values), _SHARD)
        ]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(_write, *zip(*shards, strict=True)))

    return fill


def _write(path: Path, parts: Iterable[NDArray[np.float32]]) -> None:
    with path.open("wb", buffering=0) as file:
        for values in parts:
            content = values.reshape(-1).view(np.uint8).data
            for start in range(0, content.nbytes, _WRITE_BYTES):
                file.write(content[start : start + _WRITE_BYTES])
        os.fsync(file.fileno())


def _by_xarray(place: Path, frames: Frames) -> None:
    """Store frames by plain xarray, after which a power failure may lose them."""
    dims = {3: ("step", "latitude", "longitude"), 4: ("step", "level", "latitude", "longitude")}
    dataset = xr.Dataset({name: (dims[values.ndim], values) for name, values in frames.items()})
    with warnings.catch_warnings():
        # zarr warns that the specification of version 3 does not yet have what xarray and zarr both read.
        warnings.simplefilter("ignore", ZarrUserWarning)
        dataset.to_zarr(place / "frames.zarr")


def _by_xarray_durably(place: Path, frames: Frames) -> None:
    """Store frames by xarray, and make them durable, as our store does."""
    _by_xarray(place, frames)
    sync_tree(place)


def _by_zarr(place: Path, frames: Frames) -> None:
    """Write the shards of our store with zarr itself, and make them durable afterwards."""
    for name, values in frames.items():
        array = zarr.create_array(
            place / name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=(1, *values.shape[1:]),
            shards=(min(len(values), _SHARD), *values.shape[1:]),
            compressors=Encoding.wanted(OutputsConfig(), name, _SHARD).codecs,
        )
        for first in range(0, len(values), _SHARD):
            array[first : first + _SHARD] = values[first : first + _SHARD]
        sync_tree(place / name)


def _ours(layout: Layout, threads: int, per_call: int) -> _Contestant:
    """Return a function that stores frames by an attempt at a Case, up to its record."""

    def store_case(place: Path, frames: Frames) -> None:
        case = Case(_CASE_TIME, layout.steps, layout.step_hours)
        plan = Plan((case,), layout)
        store = create_or_extend(place / "run", plan, identity={}, provenance={}, config_text="")
        blocks = Blocks(case, store, layout.grid, layout.levels)
        with store.attempt(case) as attempt, ThreadPoolExecutor(threads) as pool:
            for first in range(0, layout.steps, per_call):
                for block in blocks.add({name: values[first : first + per_call] for name, values in frames.items()}):
                    list(
                        pool.map(
                            lambda item, at=block.first: attempt.write_variable(item[0], at, item[1]),
                            block.values.items(),
                        )
                    )
            attempt.commit(lease=None, seconds={}, device="", worker="", attempts=1, details={})

    return store_case
