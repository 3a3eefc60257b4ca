"""Measure the seconds that the forcings of a forecast take on one core."""

import os
from time import perf_counter

import numpy as np
import xarray as xr

from graphcast_batch.bench.records import BenchmarkFigure, BenchmarkResult
from graphcast_batch.grid import regular_grid
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.state_arrays import forcing_blocks
from graphcast_batch.spec import TASKS


def measure(resolution: float = 0.25, steps: int = 40, steps_per_call: int = 4, rounds: int = 5) -> BenchmarkResult:
    """Compute all five forcings of a forecast in blocks, as a worker does while the device computes.

    Args:
        resolution: grid spacing in degrees.
        steps: number of lead times.
        steps_per_call: lead times in a block.
        rounds: how often.
    """
    samples, cores = [], os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        for _ in range(rounds):
            start = perf_counter()
            made = _make(resolution, steps, steps_per_call)
            samples.append(perf_counter() - start)
    finally:
        os.sched_setaffinity(0, cores)
    return BenchmarkResult(
        bench="forcings",
        what=f"Forcings of {steps} lead times at {resolution:g}° on one core",
        command=f"graphcast-batch bench forcings --rounds {rounds}",
        figures=[
            BenchmarkFigure("all lead times", "s", samples, goal="< 4 s"),
            BenchmarkFigure("filling as much memory", "s", [_fill_seconds(made) for _ in range(rounds)]),
        ],
        settings={"resolution": resolution, "steps": steps, "steps_per_call": steps_per_call},
    )


def _make(resolution: float, steps: int, steps_per_call: int) -> int:
    """Compute the forcings; return their bytes."""
    channels = Channels.of(TASKS["GraphCast_small"], {})
    start = np.datetime64("2020-01-01T00", "ns")
    blocks = forcing_blocks(channels, xr.Dataset(), start, steps, steps_per_call, regular_grid(resolution))
    return sum(block.nbytes for block in blocks)


def _fill_seconds(count: int) -> float:
    start = perf_counter()
    np.empty(count // 4, np.float32).fill(1)
    return perf_counter() - start
