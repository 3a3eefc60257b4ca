import json
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import tempfile
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcast_batch.errors import StoreError, StoreMismatchError
from graphcast_batch.grid import Grid
from graphcast_batch.outputs.ledger import Claim, Ledger, Owner, State
from graphcast_batch.outputs.store import Store
from graphcast_batch.plan import Case, Layout, Plan

SPAWN = multiprocessing.get_context("spawn")
VARIABLES = (("2m_temperature", False), ("temperature", True), ("total_precipitation_6hr", False))
IDENTITY = {"checkpoint": "a1", "precision": "float32"}


def grid_of(rows=5, columns=8):
    longitude = np.arange(columns, dtype=np.float32) * np.float32(360 / columns)
    return Grid(np.linspace(-90, 90, rows, dtype=np.float32), longitude)


def case_at(index, steps):
    return Case(np.datetime64("2020-01-01T00", "h") + np.timedelta64(6 * index, "h"), steps)


def plan_of(indices, steps, *, grid=None, levels=(500, 850), on_levels=VARIABLES):
    layout = Layout(grid=grid or grid_of(), levels=levels, on_levels=on_levels, steps=steps)
    return Plan(tuple(case_at(index, steps) for index in indices), layout)


def make(path, plan, *, identity=IDENTITY, provenance=None, config_text="steps: 1\n"):
    return Store.create_or_extend(path, plan, identity=identity, provenance=provenance or {}, config_text=config_text)


def values_of(store, case):
    """Numbers that depend on the Case, the variable and the lead time only, so that a retry repeats them."""
    found = {}
    for number, (name, levelled) in enumerate(store.on_levels):
        shape = ((len(store.levels),) if levelled else ()) + store.grid.shape
        hours = int(case.init_time.astype(np.int64))
        frames = [
            np.random.default_rng([hours, number, step]).normal(size=shape).astype(np.float32)
            for step in range(case.steps)
        ]
        found[name] = np.stack(frames)
    return found


def write_all(attempt, store, case):
    values = values_of(store, case)
    for first in range(0, case.steps, store.block_steps):
        last = min(first + store.block_steps, case.steps)
        attempt.write(first, {name: array[first:last] for name, array in values.items()})


def commit(attempt, claim=None):
    return attempt.commit(claim=claim, seconds={"compute": 1.0}, device="cpu", worker="w", attempts=1, details={})


def fill(store, *cases):
    for case in cases:
        with store.attempt(case) as attempt:
            write_all(attempt, store, case)
            commit(attempt)


def data_files(path):
    """Content of every file but the ledger's and what waits to be swept, by its path in the store."""
    aside = (path / "ledger", path / ".staging")
    files = [file for file in path.rglob("*") if file.is_file() and not set(aside) & set(file.parents)]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def assert_whole_cases_are_all_there(store, cases):
    for case in cases:
        record = store.ledger.record(case.key, case.steps)
        if record:
            assert len(record.files) == len(store.variables) * -(-case.steps // store.block_steps)
            for file, (size, checksum) in record.files.items():
                content = (store.path / file).read_bytes()
                assert (len(content), f"{zlib.crc32(content):08x}") == (size, checksum)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(2, 5),
    columns=st.integers(2, 6),
    levels=st.lists(st.integers(1, 1000), max_size=3, unique=True).map(sorted),
    laid_out=st.integers(1, 10),
    steps=st.integers(1, 20),
    shorter=st.integers(1, 20),
)
def test_what_is_written_is_what_xarray_reads_and_the_rest_is_nan(rows, columns, levels, laid_out, steps, shorter):
    on_levels = VARIABLES if levels else VARIABLES[::2]
    plans = [
        plan_of(range(3), length, grid=grid_of(rows, columns), levels=tuple(levels), on_levels=on_levels)
        for length in (laid_out, steps)
    ]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        path = Path(folder) / "run.zarr"
        store = [make(path, plan) for plan in plans][-1]
        assert store.block_steps == plans[0].layout.block_steps
        cases = [case_at(2, steps), case_at(0, min(shorter, steps))]
        fill(store, *cases)
        with xr.open_zarr(path) as read:
            assert read.sizes["prediction_timedelta"] == max(laid_out, steps)
            for case in cases:
                for name, values in values_of(store, case).items():
                    one = read[name].sel(time=case.init_time)
                    np.testing.assert_array_equal(one.sel(prediction_timedelta=case.lead_times), values)
                    assert np.isnan(one[case.steps :]).all()
                    assert np.isnan(read[name].sel(time=case_at(1, 1).init_time)).all()


def test_xarray_opens_the_store_as_it_is_with_decoded_times_and_cf_attributes(tmp_path):
    path = tmp_path / "run.zarr"
    provenance = {"checkpoint_description": "random", "licence": None, "versions": {"jax": "0"}, "seed": 3}
    fill(make(path, plan_of(range(3), 10), provenance=provenance), case_at(1, 10))
    read = xr.open_zarr(path)
    assert dict(read.sizes) == {"time": 3, "prediction_timedelta": 10, "level": 2, "latitude": 5, "longitude": 8}
    assert read.temperature.dims == ("time", "prediction_timedelta", "level", "latitude", "longitude")
    assert read["2m_temperature"].dims == ("time", "prediction_timedelta", "latitude", "longitude")
    assert read.time.values[1] == np.datetime64("2020-01-01T06")
    assert read.prediction_timedelta.dtype == "timedelta64[ns]"
    assert list(read.prediction_timedelta.values[:2]) == [np.timedelta64(6, "h"), np.timedelta64(12, "h")]
    assert {read[name].dtype for name in read} == {np.dtype("float32")}
    assert (read.level.dtype, read.level.attrs["units"], read.level.attrs["positive"]) == ("int32", "hPa", "down")
    assert read.latitude.attrs["units"] == "degrees_north"
    assert read.total_precipitation_6hr.attrs["cell_methods"].startswith("prediction_timedelta: sum")
    assert read.attrs["Conventions"] == "CF-1.11"
    assert (read.attrs["seed"], read.attrs["licence"], read.attrs["versions"]) == (3, "null", '{"jax": "0"}')
    assert (path / "run.yaml").read_text() == "steps: 1\n"
    xr.testing.assert_identical(read.load(), Store.open(path).forecasts().load())


def test_what_xarray_read_can_be_written_as_netcdf(tmp_path):
    store = make(tmp_path / "run.zarr", plan_of(range(2), 3), provenance={"versions": {"jax": "0"}, "fast": True})
    fill(store, case_at(0, 3))
    store.forecasts().to_netcdf(tmp_path / "run.nc")
    with xr.open_dataset(tmp_path / "run.nc", decode_timedelta=True) as read:
        np.testing.assert_array_equal(read["2m_temperature"], store.forecasts()["2m_temperature"])


# Without consolidated metadata zarr looks at the ledger too, and says that it is none of its own.
UNCONSOLIDATED = pytest.mark.filterwarnings("ignore:Object at:zarr.errors.ZarrUserWarning")


@UNCONSOLIDATED
def test_metadata_is_consolidated_and_agrees_with_that_of_each_array(tmp_path):
    make(tmp_path / "run.zarr", plan_of(range(3), 10))
    store = make(tmp_path / "run.zarr", plan_of(range(4), 11))
    consolidated = store.root["consolidated_metadata"]["metadata"]
    assert set(consolidated) == {"time", "prediction_timedelta", "level", "latitude", "longitude", *store.variables}
    for name, metadata in consolidated.items():
        assert json.loads((store.path / name / "zarr.json").read_text()) == metadata
    xr.testing.assert_identical(xr.open_zarr(store.path, consolidated=False).load(), store.forecasts().load())


def test_a_case_owns_whole_shards_and_its_chunks_are_there_even_if_all_are_nan(tmp_path):
    store = make(tmp_path / "run.zarr", plan_of(range(2), 10))
    array = zarr.open_array(store.path / "temperature", mode="r")
    assert array.chunks == (1, 1, 2, 5, 8)
    assert array.shards == (1, 8, 2, 5, 8)
    nothing = {name: np.full_like(values, np.nan) for name, values in values_of(store, case_at(0, 10)).items()}
    with store.attempt(case_at(0, 10)) as attempt:
        attempt.write(0, {name: values[:8] for name, values in nothing.items()})
        attempt.write(8, {name: values[8:] for name, values in nothing.items()})
        record = commit(attempt)
    assert sorted(record.files) == [
        "2m_temperature/c.0.0.0.0",
        "2m_temperature/c.0.1.0.0",
        "temperature/c.0.0.0.0.0",
        "temperature/c.0.1.0.0.0",
        "total_precipitation_6hr/c.0.0.0.0",
        "total_precipitation_6hr/c.0.1.0.0",
    ]
    assert_whole_cases_are_all_there(store, [case_at(0, 10)])


def test_the_same_plan_takes_the_store_up_and_rewrites_nothing(tmp_path):
    path, plan = tmp_path / "run.zarr", plan_of(range(3), 5)
    fill(make(path, plan), case_at(0, 5))
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()}
    make(path, plan, identity=dict(reversed(IDENTITY.items())))
    make(path, plan_of([1], 2))
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    ("identity", "changes", "found"),
    [
        (IDENTITY | {"checkpoint": "b2"}, {}, r"checkpoint: the store has a1, this run has b2\n"),
        ({"checkpoint": "a1"}, {}, r"precision: the store has float32, this run has \(absent\)\n"),
        (IDENTITY | {"task": [1, 2]}, {}, r"task: the store has \(absent\), this run has \[1, 2\]\n"),
        (IDENTITY, {"levels": (500, 700)}, r"levels: the store has \[500, 850\], this run has \[500, 700\]\n"),
        (IDENTITY, {"grid": grid_of(9, 16)}, r"grid: the store has 5 x 8 .*, this run has 9 x 16 "),
        (IDENTITY, {"on_levels": VARIABLES[1:]}, r"variables: the store has \['2m_temperature', "),
    ],
)
def test_a_store_of_something_else_is_refused_with_the_difference(tmp_path, identity, changes, found):
    path = tmp_path / "run.zarr"
    make(path, plan_of(range(3), 5))
    before = data_files(path)
    with pytest.raises(StoreMismatchError, match=rf"(?s){found}.*choose another `store` path"):
        make(path, plan_of(range(3), 5, **changes), identity=identity)
    assert data_files(path) == before


def test_all_differences_are_told_at_once(tmp_path):
    make(tmp_path / "run.zarr", plan_of(range(3), 5))
    with pytest.raises(StoreMismatchError, match=r"(?s)checkpoint: .*levels: .*precision: "):
        make(tmp_path / "run.zarr", plan_of(range(3), 5, levels=(1,)), identity={"checkpoint": 1, "precision": 2})


@pytest.mark.parametrize("content", [None, "", "{}", '{"attributes": {}}', "[]"])
def test_what_is_not_one_of_ours_is_not_opened(tmp_path, content):
    if content is not None:
        (tmp_path / "zarr.json").write_text(content)
    with pytest.raises(StoreError, match=r"no store at|not readable as one"):
        Store.open(tmp_path)


def test_nothing_is_laid_out_over_something_else(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    zarr.create_group(tmp_path / "other.zarr")
    for path in (tmp_path, tmp_path / "file", tmp_path / "other.zarr"):
        with pytest.raises(StoreError, match="store that this program made"):
            make(path, plan_of([0], 1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "notes.txt", "other.zarr"]
    assert not list(tmp_path.parent.glob(".*.partial"))


def test_an_empty_folder_and_a_link_to_one_may_become_a_store(tmp_path):
    (tmp_path / "scratch" / "run").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "scratch" / "run")
    assert make(tmp_path / "link", plan_of([0], 1)).path == tmp_path / "scratch" / "run"
    assert (tmp_path / "link").is_symlink()


def test_two_cases_at_one_time_are_refused(tmp_path):
    with pytest.raises(StoreError, match="each initial time must be one Case, but 2020-01-01T00 is several"):
        make(tmp_path / "run.zarr", plan_of([0, 0], 1))


def test_more_times_and_leads_keep_what_is_there_bit_by_bit(tmp_path):
    path = tmp_path / "run.zarr"
    store = make(path, plan_of([4, 2], 3))
    fill(store, case_at(2, 3))
    chunks = {name: content for name, content in data_files(path).items() if "/c." in name and "time" not in name}
    longer = make(path, plan_of([2, 0, 9], 7), config_text="steps: 7\n")
    assert {name: data_files(path)[name] for name in chunks} == chunks
    assert [longer.index_of(case_at(index, 7)) for index in (2, 4, 0, 9)] == [0, 1, 2, 3]
    assert (longer.steps, longer.block_steps) == (7, 3)
    assert (path / "run.yaml").read_text() == "steps: 7\n"
    old = longer.forecasts().sel(time=case_at(2, 3).init_time)
    for name, values in values_of(store, case_at(2, 3)).items():
        np.testing.assert_array_equal(old[name][:3], values)
        assert np.isnan(old[name][3:]).all()
    assert longer.ledger.states([case_at(2, 7)]) == {case_at(2, 7).key: State.MISSING}
    fill(longer, case_at(2, 7), case_at(9, 7))
    for case in (case_at(2, 7), case_at(9, 7)):
        for name, values in values_of(store, case).items():
            np.testing.assert_array_equal(longer.forecasts()[name].sel(time=case.init_time), values)
    assert_whole_cases_are_all_there(longer, [case_at(2, 7), case_at(9, 7)])


def test_a_store_opened_before_an_extension_can_still_be_written(tmp_path):
    path = tmp_path / "run.zarr"
    before = make(path, plan_of(range(2), 3))
    make(path, plan_of(range(5), 9))
    fill(before, case_at(1, 3))
    read = xr.open_zarr(path).sel(time=case_at(1, 3).init_time)
    np.testing.assert_array_equal(read.temperature[:3], values_of(before, case_at(1, 3))["temperature"])
    with pytest.raises(StoreError, match=r"2020-01-01T06: .* with 9 steps, but holds 3 steps of 2 .*extend it"):
        before.attempt(case_at(1, 9))
    with pytest.raises(StoreError, match="2020-01-02T00: "):
        before.index_of(case_at(4, 3))


def test_frames_that_do_not_fit_are_refused(tmp_path):
    store, case = make(tmp_path / "run.zarr", plan_of([0], 10)), case_at(0, 10)
    values = values_of(store, case)
    with store.attempt(case) as attempt:
        for first, last in ((0, 7), (1, 9), (8, 9), (2, 10), (0, 0)):
            with pytest.raises(StoreError, match=rf"whole blocks of 8 of its 10, but are {first} to {last}"):
                attempt.write(first, {name: array[first:last] for name, array in values.items()})
        block = {name: array[:8] for name, array in values.items()}
        with pytest.raises(StoreError, match=r"frames must hold .*'temperature'.*, but hold \['2m_temperature'\]"):
            attempt.write(0, {"2m_temperature": block["2m_temperature"]})
        with pytest.raises(StoreError, match=r"temperature must be float32 \(8, 2, 5, 8\), but is float64 "):
            attempt.write(0, block | {"temperature": block["temperature"].astype(np.float64)})
        with pytest.raises(StoreError, match=r"temperature must be float32 .*, but is float32 \(8, 1, 5, 8\)"):
            attempt.write(0, block | {"temperature": block["temperature"][:, :1]})
        attempt.write(0, block)
        with pytest.raises(StoreError, match=r"2020-01-01T00: all 10 steps must be written first, but .*c\.0\.1"):
            commit(attempt)
    assert store.ledger.record(case.key) is None


def test_threads_may_write_the_blocks_of_a_case_in_any_order_through_a_store_sent_to_them(tmp_path):
    store, case = pickle.loads(pickle.dumps(make(tmp_path / "run.zarr", plan_of([0], 40)))), case_at(0, 40)
    values = values_of(store, case)
    blocks = [
        (first, {name: array[first : first + 8] for name, array in values.items()}) for first in range(32, -1, -8)
    ]
    with store.attempt(case) as attempt, ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda block: attempt.write(*block), blocks))
        commit(attempt)
    assert_whole_cases_are_all_there(store, [case])
    np.testing.assert_array_equal(store.forecasts()["temperature"][0], values["temperature"])


def test_an_attempt_leaves_nothing_behind_unless_committed(tmp_path):
    store, case = make(tmp_path / "run.zarr", plan_of([0], 3)), case_at(0, 3)
    before = data_files(store.path)
    with store.attempt(case) as attempt:
        write_all(attempt, store, case)
    assert data_files(store.path) == before
    assert not list((store.path / ".staging").iterdir())


def test_a_second_attempt_at_a_whole_case_gives_the_record_that_stands(tmp_path):
    store, case = make(tmp_path / "run.zarr", plan_of([0], 3)), case_at(0, 3)
    with store.attempt(case) as first, store.attempt(case) as second:
        write_all(second, store, case)
        write_all(first, store, case)
        record = commit(first)
        before = data_files(store.path / "temperature")
        assert commit(second) == record
        assert commit(first) == record
    assert data_files(store.path / "temperature") == before
    assert not list((store.path / ".staging").iterdir())


def test_whoever_lost_the_claim_cannot_commit(tmp_path):
    store, case = make(tmp_path / "run.zarr", plan_of([0], 3)), case_at(0, 3)
    lost = store.ledger.claim(case, 60)
    os.utime(lost.path, (0, 0))
    taker = store.ledger.claim(case, 60)
    with store.attempt(case) as attempt:
        write_all(attempt, store, case)
        with pytest.raises(StoreError, match=r"2020-01-01T00: the claim must be held .* lost to another"):
            commit(attempt, lost)
        assert store.ledger.record(case.key) is None
        assert not list(store.path.glob("temperature/c.*"))
        assert commit(attempt, taker) == store.ledger.record(case.key)


def test_a_commit_that_breaks_off_between_two_files_leaves_the_case_missing(tmp_path):
    store, case = make(tmp_path / "run.zarr", plan_of([0], 10)), case_at(0, 10)
    obstacle = store.path / "temperature" / "c.0.1.0.0.0"
    obstacle.mkdir()
    with pytest.raises(StoreError, match=r"2020-01-01T00: writing it .* failed: .*c\.0\.1.*run again"):
        fill(store, case)
    assert (store.path / "temperature" / "c.0.0.0.0.0").exists()
    assert store.ledger.states([case]) == {case.key: State.MISSING}
    obstacle.rmdir()
    fill(store, case)
    assert_whole_cases_are_all_there(store, [case])
    assert store.ledger.states([case]) == {case.key: State.WHOLE}


def test_only_what_the_dead_left_is_swept(tmp_path):
    store, case = make(tmp_path / "run.zarr", plan_of([0], 3)), case_at(0, 3)
    staging = store.path / ".staging"
    owners = {
        "dead": Owner.here(60).model_copy(update={"started": "1"}),
        "elsewhere": Owner.here(60).model_copy(update={"host": "elsewhere"}),
        "old": Owner.here(60).model_copy(update={"host": "elsewhere"}),
    }
    for name, owner in owners.items():
        (staging / name).mkdir()
        (staging / name / "owner.json").write_text(owner.model_dump_json())
    (staging / "unknown").mkdir()
    os.utime(staging / "old" / "owner.json", (0, 0))
    with store.attempt(case) as attempt:
        write_all(attempt, store, case)
        assert sorted(path.name for path in store.sweep()) == ["dead", "old"]
        commit(attempt)
    assert sorted(path.name for path in staging.iterdir()) == ["elsewhere", "unknown"]


def fill_in_turn(path, cases):
    store = Store.open(path)
    for case in cases:
        claim = store.ledger.claim(case, 3600)
        if claim:
            with store.attempt(case) as attempt:
                write_all(attempt, store, case)
                commit(attempt, claim)
            claim.release()


def make_and_fill(path, cases, steps, together):
    together.wait(120)
    make(path, plan_of(range(len(cases)), steps))
    fill_in_turn(path, random.sample(cases, len(cases)))


def test_eight_processes_at_once_lay_out_one_store_and_lose_nothing(tmp_path):
    cases, together = [case_at(index, 10) for index in range(24)], SPAWN.Barrier(8)
    children = [
        SPAWN.Process(target=make_and_fill, args=(tmp_path / "run.zarr", cases, 10, together)) for _ in range(8)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(300)
        assert child.exitcode == 0
    alone = make(tmp_path / "alone.zarr", plan_of(range(24), 10))
    fill(alone, *cases)
    assert data_files(tmp_path / "run.zarr") == data_files(alone.path)
    assert set(Ledger(tmp_path / "run.zarr" / "ledger").states(cases).values()) == {State.WHOLE}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone.zarr", "run.zarr"]


def kill(child):
    os.kill(child.pid, signal.SIGKILL)
    child.join()


def fill_when_told(path, cases, ready, go):
    store = Store.open(path)
    ready.set()
    go.wait()
    fill_in_turn(path, cases)
    store.sweep()


def test_killed_at_any_moment_nothing_counts_as_whole_that_is_not_and_a_rerun_mends_all(tmp_path):
    cases, chance = [case_at(index, 20) for index in range(16)], random.Random(1)
    store = make(tmp_path / "run.zarr", plan_of(range(16), 20))
    for _ in range(5):
        ready, go = SPAWN.Event(), SPAWN.Event()
        child = SPAWN.Process(target=fill_when_told, args=(store.path, cases, ready, go))
        child.start()
        assert ready.wait(120)
        go.set()
        time.sleep(chance.uniform(0.02, 0.3))
        kill(child)
        assert_whole_cases_are_all_there(store, cases)
    store.sweep()
    # A folder killed before it said whose it was waits for a day; it is empty.
    assert not list((store.path / ".staging").glob("*/*/*"))
    fill_in_turn(store.path, cases)
    undisturbed = make(tmp_path / "undisturbed.zarr", plan_of(range(16), 20))
    fill(undisturbed, *cases)
    assert data_files(store.path) == data_files(undisturbed.path)
    assert set(store.ledger.states(cases).values()) == {State.WHOLE}


def commit_when_told(path, case, ready, go):
    store = Store.open(path)
    with store.attempt(case) as attempt:
        write_all(attempt, store, case)
        ready.set()
        go.wait()
        commit(attempt, store.ledger.claim(case, 3600))


def test_killed_while_committing_a_case_is_whole_or_missing(tmp_path):
    # Many files, so that most kills fall between two of them; the first comes before any is moved.
    cases, chance = [case_at(index, 160) for index in range(6)], random.Random(2)
    store = make(tmp_path / "run.zarr", plan_of(range(6), 160))
    signals = [(SPAWN.Event(), SPAWN.Event()) for _ in cases]
    children = [
        SPAWN.Process(target=commit_when_told, args=(store.path, case, *pair))
        for case, pair in zip(cases, signals, strict=True)
    ]
    for child in children:
        child.start()
    for number, (child, (ready, go)) in enumerate(zip(children, signals, strict=True)):
        assert ready.wait(120)
        if number:
            go.set()
            time.sleep(chance.uniform(0, 0.02))
        kill(child)
    assert store.ledger.states(cases)[cases[0].key] == State.MISSING
    assert not list(store.path.glob("*/c.0.[0-9]*.0.0"))
    assert_whole_cases_are_all_there(store, cases)
    store.sweep()
    fill_in_turn(store.path, cases)
    undisturbed = make(tmp_path / "undisturbed.zarr", plan_of(range(6), 160))
    fill(undisturbed, *cases)
    assert data_files(store.path) == data_files(undisturbed.path)


def extend_on_and_on(path, ready):
    for steps in range(2, 2000):
        make(path, plan_of(range(steps), steps))
        ready.set()


@UNCONSOLIDATED
def test_killed_while_extending_the_store_opens_and_extending_again_mends_it(tmp_path):
    path, chance = tmp_path / "run.zarr", random.Random(3)
    fill(make(path, plan_of(range(2), 1)), case_at(1, 1))
    for _ in range(4):
        ready = SPAWN.Event()
        child = SPAWN.Process(target=extend_on_and_on, args=(path, ready))
        child.start()
        assert ready.wait(120)
        for _ in range(10):  # a reader beside it
            sizes = xr.open_zarr(path).sizes
            assert sizes["time"] >= 2
        time.sleep(chance.uniform(0, 0.1))
        kill(child)
        left = xr.open_zarr(path)
        assert list(left.time.values) == [case_at(index, 1).init_time for index in range(left.sizes["time"])]
        mended = make(path, plan_of(range(2), 1))
        xr.testing.assert_identical(
            xr.open_zarr(path, consolidated=False).isel(time=1).load(), mended.forecasts().isel(time=1).load()
        )
    np.testing.assert_array_equal(
        mended.forecasts()["temperature"].sel(time=case_at(1, 1).init_time)[:1],
        values_of(mended, case_at(1, 1))["temperature"],
    )


def extend_by(path, index, together):
    together.wait(120)
    make(path, plan_of([index], 1))


def test_drivers_that_extend_at_once_all_get_their_times(tmp_path):
    path, together = tmp_path / "run.zarr", SPAWN.Barrier(4)
    make(path, plan_of([0], 1))
    children = [SPAWN.Process(target=extend_by, args=(path, index, together)) for index in range(1, 5)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        assert child.exitcode == 0
    store = Store.open(path)
    assert sorted(store.init_times) == [case_at(index, 1).init_time for index in range(5)]
    assert store.init_times[0] == case_at(0, 1).init_time


def test_the_lock_of_a_dead_driver_does_not_stop_an_extension(tmp_path):
    store = make(tmp_path / "run.zarr", plan_of([0], 1))
    claim = Claim.take(store.ledger.folder / ".extending", 60)
    dead = claim.owner.model_copy(update={"started": "1"})
    claim.path.write_text(dead.model_dump_json())
    assert make(store.path, plan_of([0, 1], 1)).init_times.size == 2
    assert not claim.path.exists()


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("only root may mount a small file system to fill")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_stops_a_case_with_its_name_and_space_mends_it(small_disk):
    plan = plan_of(range(12), 16, grid=grid_of(9, 16))
    store = make(small_disk / "run.zarr", plan)
    with pytest.raises(StoreError, match=r"2020-01-\S+: .*run\.zarr.*No space left.*mend the space"):
        fill(store, *plan.cases)
    assert_whole_cases_are_all_there(store, plan.cases)
    states = store.ledger.states(plan.cases)
    assert set(states.values()) == {State.WHOLE, State.MISSING}
    assert not list((store.path / ".staging").iterdir())
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    fill(store, *(case for case in plan.cases if states[case.key] == State.MISSING))
    assert set(store.ledger.states(plan.cases).values()) == {State.WHOLE}
    assert_whole_cases_are_all_there(store, plan.cases)


def test_no_draft_is_left_where_a_store_could_not_be_laid_out(small_disk):
    subprocess.run(["mount", "-o", "remount,size=16k", small_disk], check=True)
    with pytest.raises(StoreError, match=r"laying out .*run\.zarr failed: .*No space left"):
        make(small_disk / "run.zarr", plan_of([0], 1))
    assert not list(small_disk.iterdir())
