"""Measure how fast stored forecasts are scored, compared with summing the same files by NumPy, and with a library.

Two processes share the Cases, whatever is measured. The library, ``scores`` of the Bureau of Meteorology, gets a part
of the work that is large enough to be measured: the first block of lead times of one Case, all regions and three
scores.
"""

import importlib.util
import os
import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

import numpy as np
import xarray as xr
import zarr

from graphcast_batch.bench.records import BenchmarkFigure, BenchmarkResult
from graphcast_batch.bench.write_speed import Frames, weather
from graphcast_batch.config.scores_section import ScoresConfig
from graphcast_batch.evaluation.case_scoring import score_case
from graphcast_batch.evaluation.scoring_setup import ScoringSetup
from graphcast_batch.evaluation.store_scoring import scoring_of
from graphcast_batch.grid import Grid
from graphcast_batch.inputs.sources import archive_writer
from graphcast_batch.inputs.sources.archive import Archive
from graphcast_batch.plan import Case
from graphcast_batch.spec import TASKS
from graphcast_batch.stores.base import Store
from graphcast_batch.stores.layout import Layout, Plan, plan_layout
from graphcast_batch.stores.store_kinds import create_or_extend
from graphcast_batch.timing import Stopwatch

_TASK: Final = "GraphCast_small"
_FIRST: Final = np.datetime64("2020-01-01T00", "h")
_STEP: Final = TASKS[_TASK].step
_EVERY: Final = 2
"""Steps between initial times."""
_THREADS: Final = "OMP_NUM_THREADS"
_STATISTICS: Final = ("squared_error", "absolute_error", "error")


def measure(
    folder: Path, rounds: int, resolution: float = 1.0, steps: int = 40, cases: int = 4, processes: int = 2
) -> BenchmarkResult:
    """Score all Cases of a store against an archive, several times.

    Args:
        folder: a folder on the disk to measure; nothing is left in it.
        rounds: how often the Cases are scored, after a first round that is not counted.
        resolution: of the grid, degrees, a divisor of 180.
        steps: lead times of each Case.
        cases: how many.
        processes: among which they are dealt out.
    """
    with TemporaryDirectory(dir=folder, prefix="bench-evaluation-") as name:
        place = Path(name)
        grid, store = _make(place, resolution, steps, cases)
        scoring = scoring_of(ScoresConfig(), store, Archive(str(place / "truth.zarr")))
        found = store.cases(steps)
        contestants = {
            "read and sum": partial(_read, place, store.kept.variables, store.block_steps),
            "score": partial(_score, scoring),
        }
        seconds, peak = _in_turn(contestants, found, rounds, processes)
        library = _beside_library(place, scoring, found[0], rounds)
    megabytes = 2 * sum(4 * np.prod(shape) for shape in _shapes(store, steps, grid)) * cases / 1e6
    return BenchmarkResult(
        bench="evaluation",
        what=f"{cases} Cases of {_TASK} on {grid}, {steps} lead times, scored in {processes} processes against an "
        f"archive; {megabytes:.0f} MB of forecasts and truth",
        command=f"graphcast-batch bench evaluation --folder FOLDER --rounds {rounds}",
        figures=[
            BenchmarkFigure(
                "rate, beside NumPy that reads and sums the same files",
                "share",
                [read / score for read, score in zip(seconds["read and sum"], seconds["score"], strict=True)],
                limit=1.0,
                goal=">= 0.5",
            ),
            *library,
            BenchmarkFigure("peak memory of a process", "GB", [peak / 1e9], goal="< 4"),
            *(BenchmarkFigure(f"time to {name}", "s", samples) for name, samples in seconds.items()),
            BenchmarkFigure("rate of scoring", "MB/s", [megabytes / each for each in seconds["score"]]),
        ],
        settings={"resolution": resolution, "steps": steps, "cases": cases, "processes": processes},
    )


def _make(place: Path, resolution: float, steps: int, cases: int) -> tuple[Grid, Store]:
    """Make a store of forecasts, and an archive with their truth."""
    grid, frames = weather(resolution, steps)
    layout = plan_layout(TASKS[_TASK], grid, steps, {})
    planned = tuple(Case(_FIRST + n * _EVERY * _STEP, steps, layout.step_hours) for n in range(cases))
    store = create_or_extend(
        place / "run", Plan(planned, layout), identity={}, provenance={}, config_text="bench: evaluation\n"
    )
    for case in planned:
        with store.attempt(case) as attempt:
            for first in range(0, steps, store.block_steps):
                attempt.write(first, {name: all_[first : first + store.block_steps] for name, all_ in frames.items()})
            attempt.commit(lease=None, seconds={}, device="cpu", worker="bench", attempts=1, details={})
    _make_truth(place / "truth.zarr", grid, layout, frames, _FIRST + np.arange(1, steps + _EVERY * cases) * _STEP)
    return grid, store


def _make_truth(path: Path, grid: Grid, layout: Layout, frames: Frames, times: np.ndarray[Any, Any]) -> None:
    """Write the same frames, rotated about the pole: the files compress as well, and no forecast equals its truth."""
    points = ("latitude", "longitude")
    dims = {name: ("time", "level", *points) if levelled else ("time", *points) for name, levelled in layout.on_levels}
    draft = archive_writer.lay_out(path, dims, grid, layout.levels, times.astype("datetime64[s]"))
    for n in range(times.size):
        at = n % len(next(iter(frames.values())))
        block = xr.Dataset(
            {name: (dims[name], np.roll(frames[name][at : at + 1], n + 1, axis=-1)) for name in dims},
            {"time": times[n : n + 1].astype("datetime64[ns]"), "level": np.array(layout.levels, np.int32)},
        )
        archive_writer.fill(draft, n, block.assign_coords(latitude=grid.latitude, longitude=grid.longitude))
    archive_writer.publish(draft, path)


def _shapes(store: Store, steps: int, grid: Grid) -> list[tuple[int, ...]]:
    return [(steps, len(store.kept.levels) if levelled else 1, grid.size) for _, levelled in store.kept.on_levels]


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let processes started within compute with one thread each, as with Ray: more would slow each other down."""
    before = os.environ.get(_THREADS)
    os.environ[_THREADS] = "1"
    try:
        yield
    finally:
        os.environ.pop(_THREADS)
        os.environ.update({} if before is None else {_THREADS: before})


def _in_turn(
    contestants: Mapping[str, Callable[[Case], int]], cases: Sequence[Case], rounds: int, processes: int
) -> tuple[dict[str, list[float]], int]:
    """Return the seconds of each contestant in each round, and the peak memory of a process in bytes."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    peak = 0
    with _one_thread_each(), ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for turn in range(rounds + 1):
            for name, contestant in contestants.items():
                start = perf_counter()
                peak = max(peak, *pool.map(contestant, cases))
                if turn:
                    seconds[name].append(perf_counter() - start)
    return seconds, peak


def _read(place: Path, names: Sequence[str], block: int, case: Case) -> int:
    """Read a forecast and its truth with zarr, and sum them up in float64; return the peak memory in bytes."""
    first = int((case.init_time - _FIRST) / _STEP)
    for name in names:
        forecast = zarr.open_array(place / "run" / name, mode="r")
        truth = zarr.open_array(place / "truth.zarr" / name, mode="r")
        for lead in range(0, case.steps, block):
            span = slice(lead, min(lead + block, case.steps))
            np.asarray(forecast[first // _EVERY, span]).sum(dtype=np.float64)
            np.asarray(truth[first + span.start : first + span.stop]).sum(dtype=np.float64)
    return _peak()


def _score(scoring: ScoringSetup, case: Case) -> int:
    score_case(scoring, case, Stopwatch())
    return _peak()


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _beside_library(place: Path, scoring: ScoringSetup, case: Case, rounds: int) -> list[BenchmarkFigure]:
    """Return how many times as fast as the library our scoring is in this process, and how far the scores differ."""
    if importlib.util.find_spec("scores") is None:
        return []
    block = Case(case.init_time, min(case.steps, scoring.block), case.step_hours)
    ratios, apart = list[float](), 0.0
    for turn in range(rounds + 1):
        start = perf_counter()
        ours = score_case(scoring, block, Stopwatch())
        between = perf_counter()
        theirs = _by_library(place, scoring, block)
        if turn:
            ratios.append((perf_counter() - between) / (between - start))
        for name, found in theirs.items():
            means = ours[name].means[[scoring.statistics.index(one) for one in _STATISTICS]]
            scale = means[[0, 1, 1]]  # a bias may vanish: it is compared with the absolute error
            apart = max(apart, float(np.max(np.abs(found - means) / scale)))
    return [
        BenchmarkFigure("as fast as the library scores", "times", ratios, goal=">= 5"),
        BenchmarkFigure("largest relative difference from it", "", [apart], goal="< 1e-6"),
    ]


def _by_library(place: Path, scoring: ScoringSetup, case: Case) -> dict[str, np.ndarray[Any, Any]]:
    """Compute scores with the library; return them by variable as (statistic, lead time, [level], region)."""
    from scores.continuous import additive_bias, mae, mse

    dims, regions = ["latitude", "longitude"], scoring.weighed()
    forecast = xr.open_zarr(place / "run", chunks=None).sel(time=case.init_time)
    archived = xr.open_zarr(place / "truth.zarr", chunks=None)
    axes = {dim: forecast[dim] for dim in dims}
    weights = [xr.DataArray(weight, axes, dims) for weight in regions.weights]
    found = {}
    for name, _ in scoring.on_levels:
        ahead = forecast[name].isel(prediction_timedelta=slice(case.steps)).load().astype(np.float64)
        valid = (ahead.time + ahead.prediction_timedelta).values
        truth = archived[name].sel(time=valid).load().astype(np.float64).rename(time="prediction_timedelta")
        truth = truth.assign_coords(prediction_timedelta=ahead.prediction_timedelta)
        pair = ahead.drop_vars("time"), truth
        by_score = [
            np.stack([score(*pair, weights=weight, reduce_dims=dims).values for weight in weights], axis=-1)
            for score in (mse, mae, additive_bias)
        ]
        found[name] = np.stack(by_score)
    return found
