"""How fast statistics are computed, beside merely reading the same data, by the library alone and as fields.

By default a few frames and one round, as a test; with ``--benchmark-only`` 0.9 GB (uncompressed) and several rounds.
Every round reads before it computes, so that whatever else the machine does meets both. The file cache is warm.
"""

import time
from collections import defaultdict
from functools import partial

import netCDF4
import numpy as np
import pytest
import xarray as xr
import zarr
from numcodecs import Blosc

from graphcast_batch.cluster import driver
from graphcast_batch.cluster.drain import Drain
from graphcast_batch.grid import regular_grid
from graphcast_batch.inputs.sources.archive import Archive
from graphcast_batch.inputs.statistics import compute_statistics
from graphcast_batch.spec import Task
from graphcast_batch.variables import LEVELS_13

LEVELLED, SURFACE = ("geopotential", "temperature"), ("2m_temperature",)
NAMES = (*LEVELLED, *SURFACE)
TASK = Task(input_variables=NAMES, target_variables=NAMES, forcing_variables=(), pressure_levels=LEVELS_13)
FRAMES_AT_ONCE = 16


def fields_of(frames):
    """Noise in steps of 1/64, which packs to about half, as reanalyses do; 7 MB a frame."""
    draw, grid = np.random.default_rng(0), regular_grid(1.0)
    times = np.datetime64("2020-01-01T00", "ns") + np.arange(frames) * np.timedelta64(6, "h")

    def noise(*shape):
        values = draw.standard_normal((frames, *shape, *grid.shape), np.float32)
        return np.round(280 * 64 + 640 * values) / np.float32(64)

    variables = {name: (("time", "level", "latitude", "longitude"), noise(len(LEVELS_13))) for name in LEVELLED}
    variables |= {name: (("time", "latitude", "longitude"), noise()) for name in SURFACE}
    places = {"latitude": grid.latitude, "longitude": grid.longitude}
    return xr.Dataset(variables, {"time": times, "level": np.asarray(LEVELS_13, np.int32), **places})


def write_zarr(fields, path):
    packed = {"compressors": [Blosc(cname="lz4", clevel=5, shuffle=Blosc.SHUFFLE)]}
    encoding = {name: {**packed, "chunks": (1, *fields[name].shape[1:])} for name in NAMES}
    fields.to_zarr(path, encoding=encoding, zarr_format=2)


def read_zarr(path, frames):
    group = zarr.open_group(path, mode="r")
    for name in NAMES:
        for start in range(0, frames, FRAMES_AT_ONCE):
            group[name][start : start + FRAMES_AT_ONCE]


def write_netcdf(fields, path):
    fields.to_netcdf(path, engine="netcdf4")


def read_netcdf(path, frames):
    with netCDF4.Dataset(path) as dataset:
        dataset.set_auto_mask(False)
        for name in NAMES:
            for start in range(0, frames, FRAMES_AT_ONCE):
                dataset[name][start : start + FRAMES_AT_ONCE]


def read_fields(source):
    for start in range(0, source.times.size, FRAMES_AT_ONCE):
        source.fields(NAMES, source.times[start : start + FRAMES_AT_ONCE], LEVELS_13)


def spread_of(rates):
    least, middle, most = np.percentile(rates, [25, 50, 75])
    return {"median": round(middle, 3), "quartiles": [round(least, 3), round(most, 3)], "rounds": len(rates)}


FORMATS = pytest.mark.parametrize(
    ("ending", "write", "read"),
    [
        pytest.param("zarr", write_zarr, read_zarr, id="zarr"),
        pytest.param("nc", write_netcdf, read_netcdf, id="netcdf"),
    ],
)


class Rates:
    """What was measured, by what was done: GB/s, and the seconds of all cores that 1 GB took in this process."""

    def __init__(self, gigabytes):
        self.gigabytes = gigabytes
        self.rates, self.core_seconds = defaultdict(list), defaultdict(list)

    def timed(self, what, call):
        start, busy = time.perf_counter(), time.process_time()
        result = call()
        self.rates[what].append(self.gigabytes / (time.perf_counter() - start))
        self.core_seconds[what].append((time.process_time() - busy) / self.gigabytes)
        return result

    def summary(self, rounds):
        shares = np.divide(self.rates["statistics"], self.rates["fields"])[-rounds:]
        return {
            "gigabytes": round(self.gigabytes, 3),
            "share_of_fields": spread_of(shares),
            "gigabytes_per_second": {what: spread_of(found[-rounds:]) for what, found in self.rates.items()},
        }

    def summary_of_cores(self, rounds):
        return {what: spread_of(found[-rounds:]) for what, found in self.core_seconds.items()}


def assert_exact(found, fields):
    for name in NAMES:
        exact = fields[name].values.astype(np.float64)
        axes = (0, 2, 3) if name in LEVELLED else None
        np.testing.assert_allclose(found.mean[name], exact.mean(axes), rtol=1e-12)
        np.testing.assert_allclose(found.stddev[name], exact.std(axes), rtol=1e-12)


@FORMATS
def test_statistics_beside_reading_alone(benchmark, request, tmp_path, ending, write, read):
    frames, rounds = (128, 9) if request.config.getoption("--benchmark-only") else (3, 1)
    path, fields = tmp_path / f"archive.{ending}", fields_of(frames)
    write(fields, path)
    source, rates = Archive(path), Rates(sum(fields[name].nbytes for name in NAMES) / 1e9)

    def read_both():
        rates.timed("library", lambda: read(path, frames))
        rates.timed("fields", lambda: read_fields(source))

    found = benchmark.pedantic(
        lambda: rates.timed("statistics", lambda: compute_statistics(source, TASK, None)),
        setup=read_both,
        rounds=rounds,
        warmup_rounds=rounds // 9,
    )
    benchmark.extra_info |= rates.summary(rounds) | {"core_seconds_per_gigabyte": rates.summary_of_cores(rounds)}
    assert_exact(found, fields)


@FORMATS
def test_statistics_over_workers_beside_reading_alone(benchmark, request, tmp_path, ending, write, read):
    if not request.config.getoption("--benchmark-only"):
        pytest.skip("Ray takes seconds to start, and statistics over it are tested with the runs")
    frames, rounds = 128, 9
    path, fields = tmp_path / f"archive.{ending}", fields_of(frames)
    write(fields, path)
    source, rates = Archive(path), Rates(sum(fields[name].nbytes for name in NAMES) / 1e9)

    def read_part(times):
        source.fields(NAMES, times, LEVELS_13)

    with Drain() as drain, driver.connected(None, drain):
        each, parts = partial(driver.each, drain=drain), np.array_split(source.times, frames // FRAMES_AT_ONCE)
        found = benchmark.pedantic(
            lambda: rates.timed("statistics", lambda: compute_statistics(source, TASK, None, executor=each)),
            setup=lambda: rates.timed("fields", lambda: list(each(read_part, [(times,) for times in parts]))) and None,
            rounds=rounds,
            warmup_rounds=1,
        )
    benchmark.extra_info |= rates.summary(rounds)
    assert_exact(found, fields)
