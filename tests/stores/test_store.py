import os
import pickle
import random
import subprocess
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcast_batch.errors import StoreError
from graphcast_batch.files.leases import Owner
from graphcast_batch.files.process_identity import mark
from graphcast_batch.stores.case_records import CaseState
from graphcast_batch.stores.store_kinds import open_store
from graphcast_batch.stores.zarr.ledger import FileLedger
from tests.forks import PROCESSES
from tests.stores.made_stores import (
    VARIABLES,
    assert_whole_cases_are_all_there,
    case_at,
    commit,
    data_files,
    fill,
    grid_of,
    kill,
    make,
    plan_of,
    small_disk,
    values_of,
    write_all,
)


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


def test_frames_that_do_not_fit_are_refused(tmp_path):
    store, case = make(tmp_path / "run.zarr", plan_of([0], 10)), case_at(0, 10)
    values = values_of(store, case)
    with store.attempt(case) as attempt:
        for first, last in ((-1, 3), (8, 11), (0, 0)):
            block = {name: np.resize(array, (last - first, *array.shape[1:])) for name, array in values.items()}
            with pytest.raises(StoreError, match=rf"must have lead times 0 to 10, but was given {first} to {last}"):
                attempt.write(first, block)
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


def test_lead_times_of_a_file_are_refused_out_of_their_order_or_twice(tmp_path):
    store, case = make(tmp_path / "run.zarr", plan_of([0], 10)), case_at(0, 10)
    values = values_of(store, case)["temperature"]
    with store.attempt(case) as attempt:
        attempt.write_variable("temperature", 0, values[:3])
        for first in (0, 2, 4):
            with pytest.raises(
                StoreError, match=rf"temperature/c\.0\.0\.0\.0\.0 .* after 3 of them number {first} came"
            ):
                attempt.write_variable("temperature", first, values[first : first + 1])
        attempt.write_variable("temperature", 3, values[3:])
        with pytest.raises(StoreError, match=r"after 8 of them number 7 came"):
            attempt.write_variable("temperature", 7, values[7:8])


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
    lost = store.ledger.lease(case, 60)
    os.utime(lost.path, (0, 0))
    taker = store.ledger.lease(case, 60)
    with store.attempt(case) as attempt:
        write_all(attempt, store, case)
        with pytest.raises(StoreError, match=r"2020-01-01T00: the lease must be held .* lost to another"):
            commit(attempt, lost)
        assert store.ledger.record(case.key) is None
        assert not list(store.path.glob("temperature/c.*"))
        assert commit(attempt, taker) == store.ledger.record(case.key)


def test_a_claim_lost_after_the_last_file_leaves_the_case_without_a_record(tmp_path, monkeypatch):
    store, case = make(tmp_path / "run.zarr", plan_of([0], 3)), case_at(0, 3)
    lease = store.ledger.lease(case, 60)
    with store.attempt(case) as attempt:
        write_all(attempt, store, case)
        # The folders are synced between the last file and the record: that is when another takes the claim.
        monkeypatch.setattr(
            "graphcast_batch.stores.zarr.attempts.sync_folder", lambda folder: lease.path.unlink(missing_ok=True)
        )
        with pytest.raises(StoreError, match=r"2020-01-01T00: the lease must be held"):
            commit(attempt, lease)
    assert store.ledger.record(case.key) is None


def test_a_folder_where_a_file_belongs_breaks_a_commit_off_before_its_first_file_and_is_left_alone(tmp_path):
    store, case = make(tmp_path / "run.zarr", plan_of([0], 10)), case_at(0, 10)
    obstacle = store.path / "temperature" / "c.0.1.0.0.0"
    obstacle.mkdir()
    (obstacle / "kept").touch()
    with pytest.raises(StoreError, match=r"2020-01-01T00: writing it .* failed: .*c\.0\.1.*run again"):
        fill(store, case)
    assert not (store.path / "temperature" / "c.0.0.0.0.0").exists()
    assert store.ledger.states([case]) == {case.key: CaseState.MISSING}
    (obstacle / "kept").unlink()
    obstacle.rmdir()
    fill(store, case)
    assert_whole_cases_are_all_there(store, [case])
    assert store.ledger.states([case]) == {case.key: CaseState.COMPLETE}


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
    # Files by which two processes looked at the clock of the disk; one was killed while it did.
    living = f".{mark()}.tmp"
    host, pid, start, token, _ = living[1:].split(".")
    dead = f".{host}.{pid}.{int(start) - 1}.{token}.tmp"
    for name in living, dead:
        (staging / name).touch()
    with store.attempt(case) as attempt:
        write_all(attempt, store, case)
        assert sorted(path.name for path in store.sweep()) == [dead, "dead", "old"]
        commit(attempt)
    assert sorted(path.name for path in staging.iterdir()) == [living, "elsewhere", "unknown"]


def test_sweeps_at_the_same_time_do_not_disturb_each_other(tmp_path):
    store = make(tmp_path / "run.zarr", plan_of([0], 3))
    for number in range(8):  # each has a sweep look at the clock of the disk
        (store.path / ".staging" / f"unknown-{number}").mkdir()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: store.sweep(), range(40))) == [[]] * 40


def fill_in_turn(path, cases):
    store = open_store(path)
    for case in cases:
        lease = store.ledger.lease(case, 3600)
        if lease:
            with store.attempt(case) as attempt:
                write_all(attempt, store, case)
                commit(attempt, lease)
            lease.release()


def make_and_fill(path, cases, steps, together):
    together.wait(120)
    make(path, plan_of(range(len(cases)), steps))
    fill_in_turn(path, random.sample(cases, len(cases)))


def test_eight_processes_at_once_lay_out_one_store_and_lose_nothing(tmp_path):
    cases, together = [case_at(index, 10) for index in range(24)], PROCESSES.Barrier(8)
    children = [
        PROCESSES.Process(target=make_and_fill, args=(tmp_path / "run.zarr", cases, 10, together)) for _ in range(8)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(300)
        assert child.exitcode == 0
    alone = make(tmp_path / "alone.zarr", plan_of(range(24), 10))
    fill(alone, *cases)
    assert data_files(tmp_path / "run.zarr") == data_files(alone.path)
    assert set(FileLedger(tmp_path / "run.zarr" / "ledger").states(cases).values()) == {CaseState.COMPLETE}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone.zarr", "run.zarr"]


def fill_when_told(path, cases, ready, go):
    store = open_store(path)
    ready.set()
    go.wait()
    fill_in_turn(path, cases)
    store.sweep()


def test_killed_at_any_moment_nothing_counts_as_whole_that_is_not_and_a_rerun_mends_all(tmp_path):
    cases, chance = [case_at(index, 20) for index in range(16)], random.Random(1)
    store = make(tmp_path / "run.zarr", plan_of(range(16), 20))
    for _ in range(5):
        ready, go = PROCESSES.Event(), PROCESSES.Event()
        child = PROCESSES.Process(target=fill_when_told, args=(store.path, cases, ready, go))
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
    assert set(store.ledger.states(cases).values()) == {CaseState.COMPLETE}


def commit_when_told(path, case, ready, go):
    store = open_store(path)
    with store.attempt(case) as attempt:
        write_all(attempt, store, case)
        ready.set()
        go.wait()
        commit(attempt, store.ledger.lease(case, 3600))


def test_killed_while_committing_a_case_is_whole_or_missing(tmp_path):
    # Many files, so that most kills fall between two of them; the first comes before any is moved.
    cases, chance = [case_at(index, 160) for index in range(6)], random.Random(2)
    store = make(tmp_path / "run.zarr", plan_of(range(6), 160))
    signals = [(PROCESSES.Event(), PROCESSES.Event()) for _ in cases]
    children = [
        PROCESSES.Process(target=commit_when_told, args=(store.path, case, *pair))
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
    assert store.ledger.states(cases)[cases[0].key] == CaseState.MISSING
    assert not list(store.path.glob("*/c.0.[0-9]*.0.0"))
    assert_whole_cases_are_all_there(store, cases)
    store.sweep()
    fill_in_turn(store.path, cases)
    undisturbed = make(tmp_path / "undisturbed.zarr", plan_of(range(6), 160))
    fill(undisturbed, *cases)
    assert data_files(store.path) == data_files(undisturbed.path)


def test_a_full_disk_stops_a_case_with_its_name_and_space_mends_it(tmp_path):
    with small_disk(tmp_path / "small") as disk:
        plan = plan_of(range(12), 16, grid=grid_of(9, 16))
        store = make(disk / "run.zarr", plan)
        with pytest.raises(StoreError, match=r"2020-01-\S+: .*run\.zarr.*No space left.*free space"):
            fill(store, *plan.cases)
        assert_whole_cases_are_all_there(store, plan.cases)
        states = store.ledger.states(plan.cases)
        assert set(states.values()) == {CaseState.COMPLETE, CaseState.MISSING}
        assert not list((store.path / ".staging").iterdir())
        subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
        fill(store, *(case for case in plan.cases if states[case.key] == CaseState.MISSING))
        assert set(store.ledger.states(plan.cases).values()) == {CaseState.COMPLETE}
        assert_whole_cases_are_all_there(store, plan.cases)
