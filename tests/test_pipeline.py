import re
import threading
import time
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.config import Task
from graphcast_batch.errors import ForecastError, InputError, StoreError
from graphcast_batch.grid import Grid
from graphcast_batch.inputs.chunks import ReadCost
from graphcast_batch.inputs.states import CaseInputs
from graphcast_batch.outputs.ledger import State
from graphcast_batch.outputs.store import Store
from graphcast_batch.pipeline import Bench, peak_memory_bytes
from graphcast_batch.plan import Case, Layout, Plan

GRID = Grid(np.linspace(-90, 90, 5, dtype=np.float32), np.arange(0, 360, 45, dtype=np.float32))
TASK = Task(input_variables=("a", "b"), target_variables=("a", "b"), forcing_variables=(), pressure_levels=(500, 850))


def cases(count, steps):
    return tuple(Case(np.datetime64("2020-01-01T00") + np.timedelta64(6 * k, "h"), steps) for k in range(count))


def store_of(path, some, block_steps=None):
    layout = Layout(GRID, (500, 850), (("a", True), ("b", False)), some[0].steps)
    if block_steps:
        object.__setattr__(layout, "block_steps", block_steps)
    return Store.create_or_extend(path, Plan(some, layout), identity={}, provenance={}, config_text="")


def value(case, step):
    """What the fakes forecast: the hours since 2020 of the valid time."""
    return float((case.init_time - np.datetime64("2020-01-01T00")) / np.timedelta64(1, "h")) + 6 * (step + 1)


class FakeSource:
    grid = GRID
    dims = MappingProxyType({"a": ("time", "level", "latitude", "longitude"), "b": ("time", "latitude", "longitude")})

    def read(self, case, task):
        return CaseInputs(xr.Dataset(coords={"time": [case.init_time.astype("datetime64[ns]")]}), xr.Dataset())

    def truth(self, case, names, levels=None):
        return None

    def cost(self, case, task):
        return ReadCost(3000, 1000, "a", 3.0, (3, 1, 1, 1))


class FakeForecasts:
    """Frames that hold their valid time, some steps a call."""

    device = "paper"

    def __init__(self, per_call=1, broken_at=None, error_at=None):
        self.per_call, self.broken_at, self.error_at = per_call, broken_at, error_at
        self.busy = threading.Lock()

    def forecast(self, inputs, forcings, steps):
        case = Case(inputs["time"].values[-1], steps)
        assert self.busy.acquire(blocking=False), "two Cases had the device at once"
        try:
            for first in range(0, steps, self.per_call):
                if self.error_at is not None and first >= self.error_at:
                    raise RuntimeError("the device is gone")
                values = np.array([value(case, first + k) for k in range(self.per_call)], np.float32)
                frames = {
                    "a": np.broadcast_to(values[:, None, None, None], (self.per_call, 2, *GRID.shape)).copy(),
                    "b": np.broadcast_to(values[:, None, None], (self.per_call, *GRID.shape)).copy(),
                }
                if self.broken_at in range(first, first + self.per_call):
                    frames["a"][self.broken_at - first, 1, 2, 3] = np.nan
                yield frames
        finally:
            self.busy.release()


def bench(store, forecasts, source=None, check=lambda inputs: None):
    return Bench(source or FakeSource(), check, forecasts, TASK, store, "tester")


def make(bench, case, attempts=1):
    return bench.run_case(case, bench.store.ledger.claim(case, 60), attempts)


@pytest.mark.parametrize("block_steps", [1, 3, 4, 12])
@pytest.mark.parametrize("per_call", [1, 2, 4, 12])
def test_frames_of_any_calls_fill_blocks_of_any_size(tmp_path, per_call, block_steps):
    (case,) = cases(1, 12)
    store = store_of(tmp_path / "s", (case,), block_steps)

    record = make(bench(store, FakeForecasts(per_call)), case)

    stored = xr.open_zarr(tmp_path / "s")
    expected = np.array([value(case, step) for step in range(12)])
    np.testing.assert_array_equal(
        stored["a"].values, np.broadcast_to(expected[None, :, None, None, None], stored["a"].shape)
    )
    np.testing.assert_array_equal(stored["b"].values[0, :, 1, 1], expected)
    assert (record.steps, record.device, record.worker, record.attempts) == (12, "paper", "tester", 1)
    assert set(record.seconds) == {"read", "compute", "write"}
    assert record.details["peak_memory_bytes"] > 1e7
    assert record.details["read_bytes"] == 3000


def test_a_frame_that_is_not_finite_fails_the_case_by_name_and_leaves_nan(tmp_path):
    (case,) = cases(1, 6)
    store = store_of(tmp_path / "s", (case,), 2)

    with pytest.raises(ForecastError, match="2020-01-01T00: a at 850 hPa must stay finite, but is nan after 30 h"):
        make(bench(store, FakeForecasts(2, broken_at=4)), case)

    assert store.ledger.record(case.key) is None
    assert np.isnan(xr.open_zarr(tmp_path / "s")["b"].values).all()
    assert not list((tmp_path / "s" / ".staging").iterdir())


def test_an_error_of_the_device_ends_the_attempt_and_frees_the_device_for_the_next(tmp_path):
    first, second = cases(2, 4)
    store = store_of(tmp_path / "s", (first, second), 2)
    forecasts = FakeForecasts(1, error_at=2)
    shared = bench(store, forecasts)

    with pytest.raises(RuntimeError, match="the device is gone"):
        make(shared, first)
    forecasts.error_at = None
    make(shared, second)

    assert set(store.ledger.states((second,)).values()) == {State.WHOLE}
    assert threading.active_count() < 10


def test_inputs_that_do_not_pass_the_check_never_reach_the_device(tmp_path):
    (case,) = cases(1, 2)

    def check(inputs):
        raise InputError("too warm")

    class Untouchable:
        device = "paper"

        def forecast(self, *_):
            pytest.fail("the device was used")

    with pytest.raises(InputError, match="too warm"):
        make(bench(store_of(tmp_path / "s", (case,)), Untouchable(), check=check), case)


def test_cases_in_several_threads_take_turns_on_the_device(tmp_path):
    some = cases(8, 3)
    store = store_of(tmp_path / "s", some)
    shared = bench(store, FakeForecasts())
    errors = []

    def work(case):
        try:
            make(shared, case)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(case,)) for case in some]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not errors
    assert set(store.ledger.states(some).values()) == {State.WHOLE}
    leads = xr.open_zarr(tmp_path / "s")["b"].values[:, :, 0, 0]
    np.testing.assert_array_equal(leads, [[value(case, step) for step in range(3)] for case in some])


def test_a_slow_disk_holds_the_device_back_instead_of_filling_memory(tmp_path, monkeypatch):
    (case,) = cases(1, 24)
    store = store_of(tmp_path / "s", (case,), 1)
    waiting = []

    class Counting(FakeForecasts):
        made = 0

        def forecast(self, *arguments):
            for frames in super().forecast(*arguments):
                self.made += 1
                yield frames

    forecasts = Counting()
    write = type(store.attempt(case)).write

    def slow(attempt, first_step, frames):
        time.sleep(0.01)
        waiting.append(forecasts.made - first_step)
        write(attempt, first_step, frames)

    monkeypatch.setattr(type(store.attempt(case)), "write", slow)
    make(bench(store, forecasts), case)

    assert max(waiting) <= 4  # one being written, two waiting, one made


def test_a_store_that_cannot_be_written_ends_the_rollout_early(tmp_path, monkeypatch):
    (case,) = cases(1, 400)
    store = store_of(tmp_path / "s", (case,), 1)
    steps = []

    class Counting(FakeForecasts):
        def forecast(self, *arguments):
            for frames in super().forecast(*arguments):
                steps.append(1)
                yield frames

    def full(attempt, first_step, frames):
        raise StoreError("no space left on device")

    monkeypatch.setattr(type(store.attempt(case)), "write", full)
    with pytest.raises(StoreError, match="no space left"):
        make(bench(store, Counting()), case)

    assert len(steps) < 10


def test_a_claim_that_was_lost_keeps_the_forecast_out(tmp_path):
    (case,) = cases(1, 2)
    store = store_of(tmp_path / "s", (case,))
    claim = store.ledger.claim(case, 60)
    claim.path.unlink()

    with pytest.raises(StoreError, match="the claim must be held"):
        bench(store, FakeForecasts()).run_case(case, claim, 1)

    assert store.ledger.record(case.key) is None


def test_peak_memory_is_what_the_kernel_says_in_bytes():
    status = Path("/proc/self/status").read_text()

    kilobytes = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])
    assert peak_memory_bytes() == pytest.approx(1024 * kilobytes, rel=0.02)
