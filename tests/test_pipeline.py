import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig, TimeLimitsConfig
from graphcast_batch.errors import ClusterError, ConfigError, ForecastError, InputError, StoreError
from graphcast_batch.grid import Grid
from graphcast_batch.inputs.case_inputs import CaseInputs
from graphcast_batch.inputs.formats.chunks import ReadCost
from graphcast_batch.inputs.quality.limits import forecast_limits
from graphcast_batch.inputs.statistics import run_serially
from graphcast_batch.pipeline import stages as stages_module
from graphcast_batch.pipeline.device_queue import DeviceQueue
from graphcast_batch.pipeline.peak_memory import peak_memory_bytes
from graphcast_batch.pipeline.stages import CaseStage
from graphcast_batch.pipeline.worker_context import WorkerContext
from graphcast_batch.plan import Case
from graphcast_batch.setup.resources import memory_uses
from graphcast_batch.setup.run_setup import assemble
from graphcast_batch.setup.store_identity import lay_out
from graphcast_batch.setup.worker_setup import worker_context
from graphcast_batch.spec import Task
from graphcast_batch.stores.case_records import CaseState
from graphcast_batch.stores.layout import Layout, Plan
from graphcast_batch.stores.store_kinds import create_or_extend
from graphcast_batch.stores.zarr.attempts import ZarrAttempt
from tests.conftest import SMALL

GRID = Grid(np.linspace(-90, 90, 5, dtype=np.float32), np.arange(0, 360, 45, dtype=np.float32))
TASK = Task(input_variables=("a", "b"), target_variables=("a", "b"), forcing_variables=(), pressure_levels=(500, 850))


def cases(count, steps):
    return tuple(Case(np.datetime64("2020-01-01T00") + np.timedelta64(6 * k, "h"), steps, 6) for k in range(count))


def store_of(path, some, block_steps=None):
    layout = Layout(GRID, (500, 850), (("a", True), ("b", False)), some[0].steps, 6)
    if block_steps:
        object.__setattr__(layout, "block_steps", block_steps)
    return create_or_extend(path, Plan(some, layout), identity={}, provenance={}, config_text="")


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
        return ReadCost(3000, 1000, "a", (3, 1, 1, 1))


class FakeForecasts:
    """Frames that hold their valid time, some steps a call."""

    device = "paper"
    task = TASK

    def __init__(self, per_call=1, broken_at=None, error_at=None, broken=None):
        self.per_call, self.broken_at, self.error_at = per_call, broken_at, error_at
        self.broken = np.nan if broken is None else broken
        self.made = 0
        self.busy = threading.Lock()

    def forecast(self, inputs, forcings, steps):
        case = Case(inputs["time"].values[-1], steps, 6)
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
                    frames["a"][self.broken_at - first, 1, 2, 3] = self.broken
                self.made += self.per_call
                yield frames
        finally:
            self.busy.release()


def unlimited(name, level):
    return None


def context(store, forecasts, source=None, check=lambda inputs: None, limits=unlimited):
    return WorkerContext(source or FakeSource(), check, forecasts, store, lambda start: limits, "tester")


def make(context, case, attempts=1):
    return context.run_case(case, context.store.ledger.lease(case, 60), attempts).record


@pytest.mark.parametrize("block_steps", [1, 3, 4, 12])
@pytest.mark.parametrize("per_call", [1, 2, 4, 12])
def test_frames_of_any_calls_fill_blocks_of_any_size(tmp_path, per_call, block_steps):
    (case,) = cases(1, 12)
    store = store_of(tmp_path / "s", (case,), block_steps)

    record = make(context(store, FakeForecasts(per_call)), case)

    stored = xr.open_zarr(tmp_path / "s")
    expected = np.array([value(case, step) for step in range(12)])
    np.testing.assert_array_equal(
        stored["a"].values, np.broadcast_to(expected[None, :, None, None, None], stored["a"].shape)
    )
    np.testing.assert_array_equal(stored["b"].values[0, :, 1, 1], expected)
    assert (record.steps, record.device, record.worker, record.attempts) == (12, "paper", "tester", 1)
    assert set(record.seconds) == {"read", "compute", "check", "write"}
    assert record.details["peak_memory_bytes"] > 1e7
    assert record.details["read_bytes"] == 3000


def test_a_frame_that_is_not_finite_fails_the_case_by_name_and_leaves_nan(tmp_path):
    (case,) = cases(1, 6)
    store = store_of(tmp_path / "s", (case,), 2)

    with pytest.raises(ForecastError, match="2020-01-01T00: a at 850 hPa must stay finite, but is nan after 30 h"):
        make(context(store, FakeForecasts(2, broken_at=4)), case)

    assert store.ledger.record(case.key) is None
    assert np.isnan(xr.open_zarr(tmp_path / "s")["b"].values).all()
    assert not list((tmp_path / "s" / ".staging").iterdir())


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_without_any_limits_and_whatever_they_are(tmp_path, broken):
    (case,) = cases(1, 2)
    for number, limits in enumerate([unlimited, lambda name, level: (-1e300, 1e300)]):
        store = store_of(tmp_path / str(number), (case,))
        with pytest.raises(ForecastError, match=f"must stay finite, but is {broken} after 12 h"):
            make(context(store, FakeForecasts(2, broken_at=1, broken=broken), limits=limits), case)


@pytest.mark.parametrize(("per_call", "block_steps"), [(1, 1), (4, 2), (4, 12), (12, 8)])
@pytest.mark.parametrize(("broken", "low", "high"), [(-7.5, -7, 1e3), (2000, -7, 1e3)])
def test_a_frame_beyond_its_limits_fails_the_case_with_all_that_is_known(
    tmp_path, per_call, block_steps, broken, low, high
):
    (case,) = cases(1, 12)
    store = store_of(tmp_path / "s", (case,), block_steps)
    forecasts = FakeForecasts(per_call, broken_at=6, broken=broken)

    with pytest.raises(ForecastError) as caught:
        make(context(store, forecasts, limits=lambda name, level: (low, high) if level == 850 else None), case)

    # Row 2 of 5 is the equator, column 3 of 8 is 135 degrees east; step 6, counted from 0, is 42 h after the start.
    assert str(caught.value) == (
        f"2020-01-01T00: a at 850 hPa must stay within -7 and 1000, but is {broken:g} after 42 h at latitude 0, "
        "longitude 135, one of 1 such values among 40; nothing of this forecast is kept; widen these limits in "
        "the config (limits: {a: [LOW, HIGH]}) or switch them off (limits: off)"
    )
    assert store.ledger.record(case.key) is None
    assert np.isnan(xr.open_zarr(tmp_path / "s")["b"].values).all()
    assert not list((tmp_path / "s" / ".staging").iterdir())


def test_of_a_call_the_earliest_frame_is_told_and_of_its_values_the_worst(tmp_path):
    (case,) = cases(1, 4)
    store = store_of(tmp_path / "s", (case,))

    class Wild(FakeForecasts):
        def forecast(self, *arguments):
            for frames in super().forecast(*arguments):
                frames["a"][3] = np.nan
                frames["b"][1, 0, :] = -100
                frames["b"][1, 4, 7] = 900
                frames["b"][2] = np.inf
                yield frames

    with pytest.raises(
        ForecastError, match=r": b must stay .* 500, but is 900 after 12 h .* 90, longitude 315, one of 9"
    ):
        make(context(store, Wild(4), limits=lambda name, level: (0, 500)), case)


def test_the_limits_themselves_may_be_reached(tmp_path):
    (case,) = cases(1, 4)
    store = store_of(tmp_path / "s", (case,))

    make(context(store, FakeForecasts(2), limits=lambda name, level: (value(case, 0), value(case, 3))), case)

    assert store.ledger.record(case.key).steps == 4


def test_units_are_told_with_the_limits(tmp_path):
    (case,) = cases(1, 1)
    layout = Layout(GRID, (), (("2m_temperature", False),), 1, 6)
    store = create_or_extend(tmp_path / "s", Plan((case,), layout), identity={}, provenance={}, config_text="")

    class Hot:
        device = "paper"
        task = TASK

        def forecast(self, *_):
            yield {"2m_temperature": np.full((1, *GRID.shape), 700, np.float32)}

    with pytest.raises(ForecastError, match=r"2m_temperature must stay within -5 and 520 K, but is 700 after 6 h"):
        make(context(store, Hot(), limits=lambda name, level: (-5, 520)), case)


def test_a_rollout_that_went_wrong_is_not_run_on(tmp_path):
    (case,) = cases(1, 400)
    forecasts = FakeForecasts(1, broken_at=100)

    with pytest.raises(ForecastError, match="after 606 h"):
        make(context(store_of(tmp_path / "s", (case,), 8), forecasts), case)

    # While the broken one is looked at, one waits, one comes to the host, and one has just been asked for.
    assert forecasts.made <= 101 + 3


def test_an_error_of_the_device_ends_the_attempt_and_frees_the_device_for_the_next(tmp_path):
    first, second = cases(2, 4)
    store = store_of(tmp_path / "s", (first, second), 2)
    forecasts = FakeForecasts(1, error_at=2)
    shared, before = context(store, forecasts), threading.active_count()  # some are of tests before this one

    with pytest.raises(RuntimeError, match="the device is gone"):
        make(shared, first)
    forecasts.error_at = None
    make(shared, second)

    assert set(store.ledger.states((second,)).values()) == {CaseState.COMPLETE}
    assert threading.active_count() < before + 10


def test_inputs_that_do_not_pass_the_check_never_reach_the_device(tmp_path):
    (case,) = cases(1, 2)

    def check(inputs):
        raise InputError("too warm")

    class Untouchable:
        device = "paper"
        task = TASK

        def forecast(self, *_):
            pytest.fail("the device was used")

    with pytest.raises(InputError, match="too warm"):
        make(context(store_of(tmp_path / "s", (case,)), Untouchable(), check=check), case)


def test_cases_in_several_threads_take_turns_on_the_device(tmp_path):
    some = cases(8, 3)
    store = store_of(tmp_path / "s", some)
    shared = context(store, FakeForecasts())
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
    assert set(store.ledger.states(some).values()) == {CaseState.COMPLETE}
    leads = xr.open_zarr(tmp_path / "s")["b"].values[:, :, 0, 0]
    np.testing.assert_array_equal(leads, [[value(case, step) for step in range(3)] for case in some])


def test_a_slow_disk_holds_the_device_back_instead_of_filling_memory(tmp_path, monkeypatch):
    (case,) = cases(1, 24)
    store = store_of(tmp_path / "s", (case,), 1)
    waiting = []

    forecasts = FakeForecasts()
    write = ZarrAttempt.write_variable

    def slow(attempt, name, first, values):
        time.sleep(0.01)
        waiting.append(forecasts.made - first)
        write(attempt, name, first, values)

    monkeypatch.setattr(ZarrAttempt, "write_variable", slow)
    make(context(store, forecasts), case)

    # One is written, one checked, one waits, one comes to the host, and one is computed.
    assert max(waiting) <= 5


def test_a_store_that_cannot_be_written_ends_the_rollout_early(tmp_path, monkeypatch):
    (case,) = cases(1, 400)
    store = store_of(tmp_path / "s", (case,), 1)
    forecasts = FakeForecasts()

    def full(attempt, name, first, values):
        raise StoreError("no space left on device")

    monkeypatch.setattr(ZarrAttempt, "write_variable", full)
    with pytest.raises(StoreError, match="no space left"):
        make(context(store, forecasts), case)

    assert forecasts.made < 10


def test_a_claim_that_was_lost_keeps_the_forecast_out(tmp_path):
    (case,) = cases(1, 2)
    store = store_of(tmp_path / "s", (case,))
    lease = store.ledger.lease(case, 60)
    lease.path.unlink()

    with pytest.raises(StoreError, match="the lease must be held"):
        context(store, FakeForecasts()).run_case(case, lease, 1)

    assert store.ledger.record(case.key) is None


def test_peak_memory_is_what_the_kernel_says_in_bytes():
    status = Path("/proc/self/status").read_text()

    kilobytes = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])
    assert peak_memory_bytes() == pytest.approx(1024 * kilobytes, rel=0.02)


class Gate:
    """Holds a thread up until it is opened."""

    def __init__(self):
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self):
        self.reached.set()
        assert self.open.wait(60)


@contextmanager
def in_a_thread(work, *arguments):
    """Runs something beside; it must end once the context does."""
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    yield
    thread.join(60)
    assert not thread.is_alive()


def stages(context):
    return {stage.key: stage.name for stage in context.under_way()}


def test_each_case_under_way_is_seen_where_it_is(tmp_path, monkeypatch):
    first, second = cases(2, 2)
    store = store_of(tmp_path / "s", (first, second), 1)
    read, computed, written = Gate(), Gate(), Gate()

    class GatedSource(FakeSource):
        def read(self, case, task):
            if case == first:
                read()
            return super().read(case, task)

    class GatedForecasts(FakeForecasts):
        def forecast(self, *arguments):
            computed()
            yield from super().forecast(*arguments)

    write = ZarrAttempt.write_variable

    def gated(attempt, name, first, values):
        written()
        write(attempt, name, first, values)

    monkeypatch.setattr(ZarrAttempt, "write_variable", gated)
    shared = context(store, GatedForecasts(), GatedSource())
    assert shared.under_way() == []

    with in_a_thread(make, shared, first):
        assert read.reached.wait(60)
        assert stages(shared) == {first.key: "read"}
        assert [stage.steps for stage in shared.under_way()] == [0]
        with in_a_thread(make, shared, second):
            while stages(shared).get(second.key) != "wait":
                time.sleep(0.001)
            assert stages(shared) == {first.key: "read", second.key: "wait"}
            read.open.set()
            assert computed.reached.wait(60)
            while sorted(stages(shared).values()) != ["compute", "wait"]:
                time.sleep(0.001)
            computed.open.set()
            assert written.reached.wait(60)
            assert "write" in stages(shared).values()
            assert all(stage.steps >= 1 for stage in shared.under_way() if stage.name == "write")
            written.open.set()
    assert shared.under_way() == []


def test_a_case_that_failed_is_no_longer_under_way(tmp_path):
    (case,) = cases(1, 2)
    shared = context(store_of(tmp_path / "s", (case,)), FakeForecasts(1, error_at=1))

    with pytest.raises(RuntimeError, match="the device is gone"):
        make(shared, case)

    assert shared.under_way() == []


LIMITS = TimeLimitsConfig(read=10, compute=20, write=30)


def test_a_read_that_hangs_is_late_after_its_limit_and_who_waits_for_it_is_not(tmp_path, monkeypatch):
    first, second = cases(2, 2)
    gate = Gate()
    now = [1000.0]
    monkeypatch.setattr(stages_module, "monotonic", lambda: now[0])

    class Hanging(FakeSource):
        def read(self, case, task):
            gate()
            return super().read(case, task)

    shared = context(store_of(tmp_path / "s", (first, second)), FakeForecasts(), Hanging())
    with in_a_thread(make, shared, first):
        assert gate.reached.wait(60)
        with in_a_thread(make, shared, second):
            while stages(shared).get(second.key) != "wait":
                time.sleep(0.001)
            now[0] += 10
            assert shared.late(LIMITS) is None
            now[0] += 1
            assert shared.late(LIMITS) == CaseStage(first.key, "read", 11)
            gate.open.set()
    assert shared.late(LIMITS) is None


def test_a_thread_that_cannot_start_fails_its_case_alone_and_the_next_is_made(tmp_path, monkeypatch):
    first, second = cases(2, 2)
    shared = context(store_of(tmp_path / "s", (first, second)), FakeForecasts())
    with monkeypatch.context() as patch:

        def refuse(_thread):
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(ClusterError, match=r"must be able to start a thread .*can't start new thread; raise"):
            make(shared, first)

    assert make(shared, second).key == second.key


def test_a_lack_of_memory_between_two_calls_fails_who_waits_and_the_next_is_made(tmp_path, monkeypatch):
    first, second = cases(2, 2)
    shared = context(store_of(tmp_path / "s", (first, second)), FakeForecasts())
    with monkeypatch.context() as patch:

        def lack(_device):
            raise MemoryError

        patch.setattr(DeviceQueue, "_next_group", lack)
        with pytest.raises(MemoryError):
            make(shared, first)

    assert make(shared, second).key == second.key


def test_a_case_that_waits_while_nothing_moves_is_late(tmp_path, monkeypatch):
    """As after a thread that dies before it has told its starter of itself, who waits for that for good."""
    (case,) = cases(1, 2)
    gate, start = Gate(), threading.Thread.start
    now = [1000.0]
    monkeypatch.setattr(stages_module, "monotonic", lambda: now[0])
    shared = context(store_of(tmp_path / "s", (case,)), FakeForecasts())

    def hang(thread):
        if thread.name == "compute":
            gate()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", hang)
    with in_a_thread(make, shared, case):
        assert gate.reached.wait(60)
        now[0] += 20
        assert shared.late(LIMITS) is None
        now[0] += 1
        assert shared.late(LIMITS) == CaseStage(case.key, "wait", 21)
        assert shared.late(LIMITS.model_copy(update={"compute": 1000})) is None
        now[0] += 280
        assert shared.late(LIMITS.model_copy(update={"compute": 1000})) == CaseStage(case.key, "wait", 301)
        gate.open.set()
    assert shared.late(LIMITS) is None


class Awaited:
    """An array that a device is still computing when it is handed out; tells when it is asked for."""

    def __init__(self, values, asked_for):
        self.values, self.asked_for, self.shape = values, asked_for, values.shape

    def __array__(self, dtype=None, copy=None):
        self.asked_for()
        return self.values


def test_the_device_has_its_next_call_before_the_last_is_waited_for_even_that_of_another_case(tmp_path):
    some = cases(2, 2)
    begun, asked_for, read = [], [], threading.Event()

    class Reading(FakeSource):
        def read(self, case, task):
            if case == some[1]:
                read.set()
            return super().read(case, task)

    class Asynchronous(FakeForecasts):
        def forecast(self, inputs, forcings, steps):
            for frames in super().forecast(inputs, forcings, steps):
                number = len(begun)
                begun.append(number)
                if number == 1:  # the second Case must be there when the first ends
                    assert read.wait(60)
                    while len(shared._device._waiting) < 1:
                        time.sleep(0.001)
                yield {
                    **frames,
                    "a": Awaited(frames["a"], lambda number=number: asked_for.append((number, len(begun)))),
                }

    shared = context(store_of(tmp_path / "s", some), Asynchronous(), Reading())
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda case: make(shared, case), some))

    # As each of the four calls is waited for, so many have begun; after the last of all there is no other.
    assert asked_for == [(0, 2), (1, 3), (2, 4), (3, 4)]


def test_no_more_inputs_are_read_than_the_device_will_need_next(tmp_path):
    some = cases(4, 1)
    computed, read = Gate(), []

    class Noted(FakeSource):
        def read(self, case, task):
            read.append(case)
            return super().read(case, task)

    class Gated(FakeForecasts):
        def forecast(self, *arguments):
            computed()
            yield from super().forecast(*arguments)

    shared = context(store_of(tmp_path / "s", some), Gated(), Noted())
    with ThreadPoolExecutor() as pool:
        made = [pool.submit(make, shared, case) for case in some]
        assert computed.reached.wait(60)
        while sorted(stages(shared).values()) != ["compute", "wait", "wait", "wait"] or len(read) < 2:
            time.sleep(0.001)
        assert len(read) == 2
        computed.open.set()
        assert {each.result().key for each in made} == {case.key for case in some}


class GroupForecasts(FakeForecasts):
    """Also forecasts several Cases in one call; one of them may bring broken frames, or an error at its start."""

    def __init__(self, size, per_call=1, broken=None, refused=None, refused_at=0):
        super().__init__(per_call)
        self.size, self.broken_case, self.refused, self.refused_at = size, broken, refused, refused_at
        self.groups = []

    def forecast_many(self, starts, steps):
        assert len(starts) == self.size
        keys = [Case(inputs["time"].values[-1], steps, 6).key for inputs, _ in starts]
        self.groups.append(keys)
        each = [FakeForecasts(self.per_call).forecast(inputs, forcings, steps) for inputs, forcings in starts]
        for number, together in enumerate(zip(*each, strict=True)):
            if self.refused in keys and number == self.refused_at:
                raise InputError("a forcing is missing")
            for key, frames in zip(keys, together, strict=True):
                if key == self.broken_case:
                    frames["a"][:] = np.nan
            yield list(together)


def make_together(tmp_path, some, forecasts, source=None):
    """Makes Cases in as many threads, all queued before the first is computed; results and errors by key."""
    store = store_of(tmp_path / "s", some[::-1])
    shared = WorkerContext(
        source or FakeSource(),
        lambda inputs: None,
        forecasts,
        store,
        lambda start: unlimited,
        "t",
        forecasts.size,
    )
    with ThreadPoolExecutor(len(some)) as pool:
        with shared._reading:
            futures = {case.key: pool.submit(make, shared, case) for case in some}
            while shared._device._expected < len(some):
                time.sleep(0.001)
        made = {key: future.exception() or future.result() for key, future in futures.items()}
    while shared._device._is_at_work:
        time.sleep(0.001)
    assert shared.under_way() == []
    return made


def assert_whole(path, case):
    leads = xr.open_zarr(path)["b"].sel(time=case.init_time.astype("datetime64[ns]")).values[: case.steps, 0, 0]
    np.testing.assert_array_equal(leads, [value(case, step) for step in range(case.steps)])


@pytest.mark.parametrize(("count", "size"), [(1, 3), (3, 3), (7, 3), (4, 2)])
def test_cases_that_share_calls_become_whole_each_with_its_own_frames(tmp_path, count, size):
    some, forecasts = cases(count, 4), GroupForecasts(size, 2)

    made = make_together(tmp_path, some, forecasts)

    assert [made[case.key].steps for case in some] == [4] * count
    for case in some:
        assert_whole(tmp_path / "s", case)
    assert len(forecasts.groups) == -(-count // size)
    assert sorted({key for group in forecasts.groups for key in group}) == [case.key for case in some]


def test_cases_of_other_lengths_do_not_share_calls(tmp_path):
    long, short = cases(4, 6)[::2], tuple(Case(case.init_time, 3, 6) for case in cases(4, 3)[1::2])
    forecasts = GroupForecasts(2)

    make_together(tmp_path, (*short, *long), forecasts)

    keys_of = [{case.key for case in alike} for alike in (long, short)]
    assert all(any(set(group) <= keys for keys in keys_of) for group in forecasts.groups)
    for case in (*long, *short):
        assert_whole(tmp_path / "s", case)


def test_frames_that_are_refused_stop_their_own_case_and_no_other_of_their_call(tmp_path):
    first, second, third = some = cases(3, 4)

    made = make_together(tmp_path, some, GroupForecasts(3, broken=second.key))

    assert isinstance(made[second.key], ForecastError)
    for case in (first, third):
        assert_whole(tmp_path / "s", case)


@pytest.mark.parametrize("refused_at", [0, 1, 3])
def test_an_error_of_one_case_is_raised_for_it_alone_and_the_others_get_every_frame_once(tmp_path, refused_at):
    first, second, third = some = cases(3, 4)
    forecasts = GroupForecasts(3, refused=second.key, refused_at=refused_at)

    made = make_together(tmp_path, some, forecasts)

    assert isinstance(made[second.key], InputError)
    for case in (first, third):
        assert_whole(tmp_path / "s", case)
    assert len(forecasts.groups) == 1 + 3


def test_a_case_that_is_refused_before_an_error_of_its_neighbor_stays_refused(tmp_path):
    first, second, third = some = cases(3, 40)
    forecasts = GroupForecasts(3, broken=first.key, refused=second.key, refused_at=30)

    made = make_together(tmp_path, some, forecasts)

    assert isinstance(made[first.key], ForecastError)
    assert isinstance(made[second.key], InputError)
    assert_whole(tmp_path / "s", third)


def test_a_case_that_cannot_be_read_is_not_waited_for_by_those_that_it_would_share_calls_with(tmp_path):
    first, second, third = some = cases(3, 2)

    class Lacking(FakeSource):
        def read(self, case, task):
            if case == second:
                raise InputError("a gap")
            return super().read(case, task)

    made = make_together(tmp_path, some, GroupForecasts(3), Lacking())

    assert isinstance(made[second.key], InputError)
    for case in (first, third):
        assert_whole(tmp_path / "s", case)


class TruthAhead:
    """A scorer that holds the inputs for as long as its gate is closed, as a slow archive does that is read ahead."""

    def __init__(self, gate):
        self.gate, self.pool = gate, ThreadPoolExecutor(2)

    def begin(self, case, watch, reading):
        self.pool.submit(self.read, reading)
        assert self.gate.reached.wait(60)
        return self

    def read(self, reading):
        with reading:
            self.gate()

    def add(self, first, values):
        pass

    def write(self, forecast):
        pass

    def close(self):
        pass


def test_who_waits_for_truth_that_is_read_ahead_has_the_time_of_a_read(tmp_path, monkeypatch):
    first, second = some = cases(2, 2)
    gate, now = Gate(), [1000.0]
    monkeypatch.setattr(stages_module, "monotonic", lambda: now[0])
    store, limits = store_of(tmp_path / "s", some), TimeLimitsConfig(read=1800, compute=3600, write=1800)
    parts = FakeSource(), lambda inputs: None, GroupForecasts(2), store, lambda start: unlimited, "t"
    shared = WorkerContext(*parts, batch_size=2, scorer=TruthAhead(gate))
    with shared._device.expecting(), in_a_thread(make, shared, first):
        assert gate.reached.wait(60)
        with in_a_thread(make, shared, second):
            while stages(shared) != {first.key: "wait", second.key: "wait"}:
                time.sleep(0.001)
            now[0] += 1800
            assert shared.late(limits) is None
            now[0] += 1
            late = shared.late(limits)
            assert (late.name, late.seconds) == ("read", 1801)
            gate.open.set()


class Clock:
    """Stands still but for what takes a while in it, before which the Case must have got on by all that is done."""

    def __init__(self, monkeypatch):
        self.now, self.seen = 1000.0, []
        monkeypatch.setattr(stages_module, "monotonic", lambda: self.now)

    def take(self, seconds, context, name):
        while [(stage.name, stage.seconds) for stage in context.under_way()] != [(name, 0)]:
            time.sleep(1e-4)
        self.now += seconds
        self.seen.append(context.late(LIMITS))


@pytest.mark.parametrize("per_call", [1, 4])
def test_frames_count_as_getting_on_and_the_limit_is_that_of_a_step(tmp_path, monkeypatch, per_call):
    (case,) = cases(1, 40)
    store, clock = store_of(tmp_path / "s", (case,), 40), Clock(monkeypatch)

    class Slow:
        """Frames that take a while once they are asked for, as those of a device do."""

        def __init__(self, values, wait):
            self.values, self.wait, self.shape = values, wait, values.shape

        def __array__(self, dtype=None, copy=None):
            clock.take(self.wait, shared, "compute")
            return self.values

    class SlowForecasts(FakeForecasts):
        def forecast(self, *arguments):
            for call, frames in enumerate(super().forecast(*arguments)):
                wait = 3619 if call == 0 else 20 * per_call + (1 if call == 7 else -1)
                yield {**frames, "a": Slow(frames["a"], wait)}

    parts = FakeSource(), lambda inputs: None, SlowForecasts(per_call), store, lambda start: unlimited, "tester"
    shared = WorkerContext(*parts, steps_per_call=per_call)
    make(shared, case)

    assert [stage for stage in clock.seen if stage] == [CaseStage(case.key, "compute", 20 * per_call + 1)]
    assert len(clock.seen) == 40 // per_call


def test_the_first_call_has_an_hour_more_and_cases_of_a_batch_count_like_steps(monkeypatch):
    now, (first, second) = [1000.0], cases(2, 6)
    monkeypatch.setattr(stages_module, "monotonic", lambda: now[0])
    followed = stages_module.CaseStages(threading.Lock(), steps_per_call=4, batch_size=5)  # 3 is what divides 6
    with followed.followed(first) as reached:
        for made, most in ((0, 3600 + 3 * 5 * 20), (3, 3 * 5 * 20)):
            reached("compute", made)
            now[0] += most
            assert followed.late(LIMITS) is None
            now[0] += 1
            assert followed.late(LIMITS) == CaseStage(first.key, "compute", most + 1)
    with followed.followed(second) as reached:  # whose program is there
        reached("compute", 0)
        now[0] += 301
        assert followed.late(LIMITS) == CaseStage(second.key, "compute", 301)


def test_blocks_count_as_getting_on(tmp_path, monkeypatch):
    (case,) = cases(1, 40)
    store, clock = store_of(tmp_path / "s", (case,), 1), Clock(monkeypatch)
    write = ZarrAttempt.write_variable

    def slow(attempt, name, first, values):
        if name == "a":
            clock.take(31 if first == 20 else 29, shared, "write")
        write(attempt, name, first, values)

    monkeypatch.setattr(ZarrAttempt, "write_variable", slow)
    shared = context(store, FakeForecasts())
    make(shared, case)

    assert [stage for stage in clock.seen if stage] == [CaseStage(case.key, "write", 31)]
    assert len(clock.seen) == 40


def small_bench(tmp_path, batch_size=1, **changes):
    config = parse_config(SMALL | {"store": str(tmp_path / "run"), "steps": 2} | changes, RunConfig, origin="here")
    run = assemble(config)
    lay_out(run, "float32", run_serially)
    use = replace(memory_uses(run, accelerated=False)[0], batch_size=batch_size)
    return worker_context(config, run.source, use, "tester"), run.plan.cases[0]


def test_the_real_network_forecasts_the_same_alone_and_in_company(tmp_path):
    stores = {}
    for together in (1, 3):
        model = SMALL["model"] | {"batch_size": "auto", "steps_per_call": 2}
        shared, _ = small_bench(tmp_path / str(together), batch_size=together, model=model)
        assert (shared.batch_size, shared.steps_per_call) == (together, 2)
        some = [Case(np.datetime64("2020-01-01T00") + np.timedelta64(6 * number, "h"), 2, 6) for number in range(4)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda case, shared=shared: make(shared, case), some))
        stores[together] = xr.open_zarr(shared.store.path).load()

    for name, alone in stores[1].items():
        assert not alone.isnull().any()
        # Sums in another order: a few rounding errors of float32, of the largest value at hand.
        error = float(abs(stores[3][name] - alone).max())
        assert error < 64 * np.finfo(np.float32).eps * float(abs(alone).max()), name


def test_limits_of_the_config_reach_the_frames_and_are_no_part_of_the_stores_identity(tmp_path):
    narrow, case = small_bench(tmp_path, limits={"2m_temperature": [100, 200]})
    with pytest.raises(ForecastError, match=r"2m_temperature must stay within 100 and 200 K, but is .* after 6 h"):
        narrow.run_case(case, None, 1)
    start = narrow.source.read(case, narrow.task).frames
    noise = start.assign(temperature=start["temperature"] - 273.15)
    assert narrow.limits(start)("temperature", 500) == forecast_limits("temperature", 500)
    assert narrow.limits(noise)("temperature", 500) is None
    assert narrow.limits(noise)("2m_temperature", None) == (100, 200)

    without, _ = small_bench(tmp_path, limits="off")
    assert without.limits(start)("2m_temperature", None) is None


@pytest.mark.parametrize(
    ("name", "hint"), [("tempratur", r"did you mean temperature\?"), ("ozone", "take one of 10m_u_component_of_wind, ")]
)
def test_limits_of_what_is_not_predicted_are_refused_before_anything_starts(tmp_path, name, hint):
    with pytest.raises(ConfigError, match=rf"limits: .* a variable that is predicted, but {name} is not; {hint}"):
        small_bench(tmp_path, limits={name: [1, 2]})
