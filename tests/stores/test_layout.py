import json
import os
import random
import re
import subprocess
import time
from contextlib import contextmanager

import numpy as np
import pytest
import xarray as xr
import zarr

from graphcast_batch.config.loading import load_config
from graphcast_batch.errors import StoreError, StoreMismatchError
from graphcast_batch.files.leases import FileLease
from graphcast_batch.integrity.verify import verify
from graphcast_batch.setup.run_setup import assemble
from graphcast_batch.setup.store_identity import existing_store
from graphcast_batch.stores.case_records import CaseState
from graphcast_batch.stores.flaws import FlawKind
from graphcast_batch.stores.store_kinds import check_place, open_store
from graphcast_batch.stores.zarr.store_layout import extension_lock
from tests.forks import PROCESSES
from tests.stores.made_stores import (
    IDENTITY,
    VARIABLES,
    assert_whole_cases_are_all_there,
    case_at,
    data_files,
    fill,
    grid_of,
    kill,
    make,
    plan_of,
    small_disk,
    values_of,
)

# Without consolidated metadata zarr looks at the ledger too, and says that it is none of its own.
UNCONSOLIDATED = pytest.mark.filterwarnings("ignore:Object at:zarr.errors.ZarrUserWarning")


def test_xarray_opens_the_store_as_it_is_with_decoded_times_and_cf_attributes(tmp_path):
    path = tmp_path / "run.zarr"
    provenance = {"checkpoint_description": "random", "license": None, "versions": {"jax": "0"}, "seed": 3}
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
    assert (read.attrs["seed"], read.attrs["license"], read.attrs["versions"]) == (3, "null", '{"jax": "0"}')
    assert (path / "run.yaml").read_text() == "steps: 1\n"
    xr.testing.assert_identical(read.load(), open_store(path).forecasts().load())


def test_what_xarray_read_can_be_written_as_netcdf(tmp_path):
    store = make(tmp_path / "run.zarr", plan_of(range(2), 3), provenance={"versions": {"jax": "0"}, "fast": True})
    fill(store, case_at(0, 3))
    store.forecasts().to_netcdf(tmp_path / "run.nc")
    with xr.open_dataset(tmp_path / "run.nc", decode_timedelta=True) as read:
        np.testing.assert_array_equal(read["2m_temperature"], store.forecasts()["2m_temperature"])


@UNCONSOLIDATED
def test_metadata_is_consolidated_and_agrees_with_that_of_each_array(tmp_path):
    make(tmp_path / "run.zarr", plan_of(range(3), 10))
    store = make(tmp_path / "run.zarr", plan_of(range(4), 11))
    consolidated = store.root["consolidated_metadata"]["metadata"]
    assert set(consolidated) == {"time", "prediction_timedelta", "level", "latitude", "longitude", *store.variables}
    for name, metadata in consolidated.items():
        assert json.loads((store.path / name / "zarr.json").read_text()) == metadata
    xr.testing.assert_identical(xr.open_zarr(store.path, consolidated=False).load(), store.forecasts().load())


def test_a_store_is_laid_out_around_the_files_of_its_jobs(tmp_path):
    path = tmp_path / "run.zarr"
    (path / "slurm").mkdir(parents=True)
    (path / "slurm" / "7-ray.sbatch").write_text("#!/bin/bash")
    store = make(path, plan_of(range(3), 5))
    fill(store, case_at(0, 5))
    assert (path / "slurm" / "7-ray.sbatch").read_text() == "#!/bin/bash"
    assert store.root == make(tmp_path / "other.zarr", plan_of(range(3), 5)).root
    names = [{each.name for each in folder.iterdir()} for folder in (path, tmp_path / "other.zarr")]
    assert names[0] - {"slurm"} == names[1]


def test_half_a_lay_out_around_jobs_is_begun_again(tmp_path):
    path = tmp_path / "run.zarr"
    (path / "slurm").mkdir(parents=True)
    make(tmp_path / "other.zarr", plan_of([0], 5))
    (tmp_path / "other.zarr" / "zarr.json").rename(path / ".halfzarr.json")
    (tmp_path / "other.zarr" / "time").rename(path / "time")
    assert len(make(path, plan_of(range(3), 5)).init_times) == 3
    assert not (path / ".halfzarr.json").exists()


def test_a_store_with_jobs_that_has_lost_its_root_keeps_its_forecasts(tmp_path):
    path = tmp_path / "run.zarr"
    (path / "slurm").mkdir(parents=True)
    fill(make(path, plan_of(range(3), 5)), case_at(0, 5))
    (path / "zarr.json").unlink()
    before = data_files(path)
    with pytest.raises(StoreError, match=r"is something else \(it holds .*put its zarr.json back"):
        make(path, plan_of(range(3), 5))
    assert data_files(path) == before


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
        (IDENTITY, {"variables": ("temperature",)}, r"variables: .*, this run has \['temperature \(on levels\)'\]\n"),
        (IDENTITY, {"levels": (850,)}, r"levels: the store has \[500, 850\], this run has \[850\]\n"),
        (IDENTITY, {"lead_hours": (18, 30)}, r"lead hours: the store has \(6, 12\), this run has \(18, 30\)\n"),
        (
            IDENTITY,
            {"region": {"latitude": (0, 90), "longitude": (315, 45)}},
            r"grid: the store has 5 x 8 at latitudes -90 to 90, longitudes 0 to 315 .*, "
            r"this run has 3 x 3 at latitudes 0 to 90, longitudes -45 to 45 ",
        ),
        (
            IDENTITY,
            {"compression": "zstd"},
            r"encoding of temperature: the store has blosc lz4 5 shuffle, this run has blosc zstd 1 shuffle\n",
        ),
        (
            IDENTITY,
            {"keep_bits": {"temperature": 10}},
            r"encoding of temperature: the store has blosc lz4 5 shuffle, this run has blosc lz4 5 bitshuffle, "
            r"10 bits of the mantissa\n",
        ),
    ],
)
def test_a_store_of_something_else_is_refused_with_the_difference(tmp_path, identity, changes, found):
    path = tmp_path / "run.zarr"
    make(path, plan_of(range(3), 5))
    before = data_files(path)
    with pytest.raises(StoreMismatchError, match=rf"(?s){found}.*choose another `store` path"):
        make(path, plan_of(range(3), 5, **changes), identity=identity)
    assert data_files(path) == before


def test_a_store_of_more_files_than_a_run_wants_is_refused(tmp_path):
    make(tmp_path / "run.zarr", plan_of([0], 16))
    make(tmp_path / "run.zarr", plan_of([0], 16, max_files=6))
    with pytest.raises(StoreMismatchError, match=r"files: the store has 9 a Case, this run has at most 6\n"):
        make(tmp_path / "run.zarr", plan_of([0], 24, max_files=6))


SELECTED = {
    "variables": ("temperature",),
    "levels": (850,),
    "region": {"latitude": (0, 90), "longitude": (315, 45)},
    "keep_bits": 9,
    "compression": "zstd",
}


def test_what_was_selected_resumes_and_grows_in_time_and_lead_time(tmp_path):
    path = tmp_path / "run.zarr"
    store = make(path, plan_of([0, 1], 8, every_hours=24, **SELECTED))
    fill(store, case_at(0, 8))
    assert make(path, plan_of([0, 1], 8, every_hours=24, **SELECTED)).root == store.root
    before = store.forecasts().isel(time=0).load()
    longer = make(path, plan_of([0, 2], 16, every_hours=24, **SELECTED))
    assert longer.kept.lead_hours == (24, 48, 72, 96)
    assert longer.block_steps == 2
    assert longer.ledger.states([case_at(0, 8), case_at(0, 16)]) == {case_at(0, 16).key: CaseState.MISSING}
    xr.testing.assert_identical(longer.forecasts().isel(time=0, prediction_timedelta=slice(0, 2)).load(), before)
    assert np.isnan(longer.forecasts()["temperature"][0, 2:]).all()
    fill(longer, case_at(0, 16), case_at(2, 16))
    assert {flaw.kind for flaw in verify(path, deep=True).flaws} == {FlawKind.STATISTICS}
    assert longer.ledger.states([case_at(0, 8)]) == {case_at(0, 8).key: CaseState.COMPLETE}
    assert not np.isnan(longer.forecasts()["temperature"].isel(time=[0, 2])).any()


def test_lead_times_between_those_that_are_kept_cannot_be_added(tmp_path):
    make(tmp_path / "run.zarr", plan_of([0], 8, every_hours=24))
    with pytest.raises(StoreMismatchError, match=r"lead hours: the store has \(24, 48\), this run has \(12, 24\)"):
        make(tmp_path / "run.zarr", plan_of([0], 8, every_hours=12))
    assert make(tmp_path / "run.zarr", plan_of([0], 20, lead_hours=(24, 48, 120))).kept.lead_hours == (24, 48, 120)


def test_lead_times_that_another_driver_adds_meanwhile_are_not_replaced(tmp_path, monkeypatch):
    path, two = tmp_path / "run.zarr", plan_of([0], 8, lead_hours=(24, 48))
    store, ours = make(path, two), plan_of([0], 30, lead_hours=(24, 48, 120, 180))

    @contextmanager
    def growing_after_another(folder):
        monkeypatch.undo()
        make(path, plan_of([0], 12, lead_hours=(24, 48, 72)))
        with extension_lock(folder) as lock:
            yield lock

    monkeypatch.setattr("graphcast_batch.stores.zarr.store.extension_lock", growing_after_another)
    with pytest.raises(
        StoreMismatchError, match=r"lead hours: the store has \(24, 48, 72\), this run has \(24, 48, 120\)"
    ):
        make(path, ours)
    assert open_store(store.path).kept.lead_hours == (24, 48, 72)


def test_all_differences_are_told_at_once(tmp_path):
    make(tmp_path / "run.zarr", plan_of(range(3), 5))
    with pytest.raises(StoreMismatchError, match=r"(?s)checkpoint: .*levels: .*precision: "):
        make(tmp_path / "run.zarr", plan_of(range(3), 5, levels=(1,)), identity={"checkpoint": 1, "precision": 2})


@pytest.mark.parametrize("content", [None, "", "{}", '{"attributes": {}}', "[]"])
def test_what_is_not_one_of_ours_is_not_opened(tmp_path, content):
    if content is not None:
        (tmp_path / "zarr.json").write_text(content)
    with pytest.raises(StoreError, match=r"no store at|cannot be read as one"):
        open_store(tmp_path)


def test_nothing_is_laid_out_over_something_else(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    zarr.create_group(tmp_path / "other.zarr")
    for path in (tmp_path, tmp_path / "file", tmp_path / "other.zarr"):
        with pytest.raises(StoreError, match=r"store that this program made|must be a folder or not exist yet"):
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
    store = make(path, plan_of([2, 0], 3))
    fill(store, case_at(2, 3))
    chunks = {name: content for name, content in data_files(path).items() if "/c." in name and "time" not in name}
    longer = make(path, plan_of([9, 2, 4], 7), config_text="steps: 7\n")
    assert {name: data_files(path)[name] for name in chunks} == chunks
    assert [longer.place_of(case_at(index, 7))["time"] for index in (0, 2, 4, 9)] == [0, 1, 2, 3]
    assert (longer.kept.lead_hours, longer.block_steps) == ((6, 12, 18, 24, 30, 36, 42), 3)
    assert (path / "run.yaml").read_text() == "steps: 7\n"
    old = longer.forecasts().sel(time=case_at(2, 3).init_time)
    for name, values in values_of(store, case_at(2, 3)).items():
        np.testing.assert_array_equal(old[name][:3], values)
        assert np.isnan(old[name][3:]).all()
    assert longer.ledger.states([case_at(2, 7)]) == {case_at(2, 7).key: CaseState.MISSING}
    fill(longer, case_at(2, 7), case_at(9, 7))
    for case in (case_at(2, 7), case_at(9, 7)):
        for name, values in values_of(store, case).items():
            np.testing.assert_array_equal(longer.forecasts()[name].sel(time=case.init_time), values)
    assert_whole_cases_are_all_there(longer, [case_at(2, 7), case_at(9, 7)])


@pytest.mark.parametrize(("indices", "first"), [([0, 2, 4], "2020-01-01T00"), ([2, 3, 9], "2020-01-01T18")])
def test_initial_times_before_or_between_those_that_are_there_are_refused(tmp_path, indices, first):
    path = tmp_path / "run.zarr"
    store = make(path, plan_of([2, 4], 3))
    fill(store, case_at(2, 3))
    before = data_files(path)
    with pytest.raises(StoreMismatchError, match=rf"after its last one, 2020-01-02T00, .* 1 new .* the first {first}"):
        make(path, plan_of(indices, 3))
    assert data_files(path) == before
    assert make(path, plan_of([4, 5], 3)).init_times.size == 3


def test_a_config_may_put_earlier_initial_times_at_the_end(tmp_path):
    path = tmp_path / "run.zarr"
    fill(make(path, plan_of([2, 4], 3)), case_at(2, 3))

    extended = make(path, plan_of([0, 2, 3, 4], 3, time_axis="any"))
    fill(extended, case_at(3, 3))

    assert [extended.place_of(case_at(index, 3))["time"] for index in (2, 4, 0, 3)] == [0, 1, 2, 3]
    for index in (2, 3):
        read = extended.forecasts().sel(time=case_at(index, 3).init_time)
        np.testing.assert_array_equal(read["temperature"], values_of(extended, case_at(index, 3))["temperature"])


def test_a_store_whose_times_were_not_sorted_by_an_earlier_version_is_extended_at_its_end(tmp_path):
    path = tmp_path / "run.zarr"
    make(path, plan_of([2, 4], 3))
    times = zarr.open_array(path / "time", mode="r+")
    times[:] = times[:][::-1]
    with pytest.raises(StoreMismatchError, match="after its last one, 2020-01-02T00"):
        make(path, plan_of([2, 3, 4], 3))
    extended = make(path, plan_of([2, 4, 5], 3))
    assert [extended.place_of(case_at(index, 3))["time"] for index in (2, 4, 5)] == [1, 0, 2]


def test_a_store_opened_before_an_extension_can_still_be_written(tmp_path):
    path = tmp_path / "run.zarr"
    before = make(path, plan_of(range(2), 3))
    make(path, plan_of(range(5), 9))
    fill(before, case_at(1, 3))
    read = xr.open_zarr(path).sel(time=case_at(1, 3).init_time)
    np.testing.assert_array_equal(read.temperature[:3], values_of(before, case_at(1, 3))["temperature"])
    with pytest.raises(
        StoreError, match=r"2020-01-01T06: .* with 9 steps, but holds 3 lead times up to 18 h of 2 .*extend it"
    ):
        before.attempt(case_at(1, 9))
    with pytest.raises(StoreError, match="2020-01-02T00: "):
        before.place_of(case_at(4, 3))


def extend_on_and_on(path, ready):
    for steps in range(2, 2000):
        make(path, plan_of(range(steps), steps))
        ready.set()


@UNCONSOLIDATED
def test_killed_while_extending_the_store_opens_and_extending_again_mends_it(tmp_path):
    path, chance = tmp_path / "run.zarr", random.Random(3)
    fill(make(path, plan_of(range(2), 1)), case_at(1, 1))
    for _ in range(4):
        ready = PROCESSES.Event()
        child = PROCESSES.Process(target=extend_on_and_on, args=(path, ready))
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
    make(path, plan_of(range(index + 1), 1))


def test_drivers_that_extend_at_once_all_get_their_times(tmp_path):
    path, together = tmp_path / "run.zarr", PROCESSES.Barrier(4)
    make(path, plan_of([0], 1))
    children = [PROCESSES.Process(target=extend_by, args=(path, index, together)) for index in range(1, 5)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        assert child.exitcode == 0
    store = open_store(path)
    assert list(store.init_times) == [case_at(index, 1).init_time for index in range(5)]
    assert store.init_times[0] == case_at(0, 1).init_time


def test_the_lock_of_a_dead_driver_does_not_stop_an_extension(tmp_path):
    store = make(tmp_path / "run.zarr", plan_of([0], 1))
    lease = FileLease.take(store.ledger.folder / ".extending", 60)
    dead = lease.owner.model_copy(update={"started": "1"})
    lease.path.write_text(dead.model_dump_json())
    assert make(store.path, plan_of([0, 1], 1)).init_times.size == 2
    assert not lease.path.exists()


def test_no_draft_is_left_where_a_store_could_not_be_laid_out(tmp_path):
    with small_disk(tmp_path / "small") as disk:
        subprocess.run(["mount", "-o", "remount,size=16k", disk], check=True)
        with pytest.raises(StoreError, match=r"laying out .*run\.zarr failed: .*No space left"):
            make(disk / "run.zarr", plan_of([0], 1))
        assert not list(disk.iterdir())


def at_fifo(path):
    os.mkfifo(path)


def at_link(path):
    path.symlink_to(path.with_name("nowhere"))


def at_file(path):
    path.touch()


def at_folder(path):
    path.mkdir()
    (path / "letters").touch()


@pytest.mark.parametrize(
    ("make_it", "below", "told"),
    [
        (at_file, ".", r"{path} must be a folder or not exist yet, but {path} is a file; choose another `store` path"),
        (at_file, "a/b", r"{path}/a/b must be a folder or not exist yet, but {path} is a file; choose another"),
        (at_fifo, ".", r"{path} must be .* but {path} is neither a file nor a folder; choose another"),
        (at_fifo, "a", r"{path}/a must be .* but {path} is neither a file nor a folder; choose another"),
        (at_link, ".", r"{path} must .* but {path} is a link to .*/nowhere, which is not there; correct the link, or"),
        (
            at_link,
            "a",
            r"{path}/a must .* but {path} is a link to .*/nowhere, which is not there; correct the link, or",
        ),
        (at_folder, ".", r"{path} must be a store .* but is something else \(it holds letters\); choose another"),
    ],
)
def test_a_place_where_no_store_can_be_is_refused_by_plan_and_by_run(small_config, tmp_path, make_it, below, told):
    make_it(tmp_path / "place")
    path = tmp_path / "place" / below
    run = assemble(load_config(small_config(store=str(path))))
    with pytest.raises(StoreError, match=told.format(path=re.escape(str(tmp_path / "place")))):
        existing_store(run)
    with pytest.raises(StoreError, match="choose another `store` path"):
        make(path, plan_of([0], 1))


def test_the_root_of_the_file_system_is_no_place_for_a_store(small_config):
    with pytest.raises(StoreError, match=r"/ must be a folder for a store, but is the root .*; choose another"):
        existing_store(assemble(load_config(small_config(store="/"))))


def test_an_empty_folder_a_link_to_a_folder_and_nothing_are_places_for_a_store(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for place in ("empty", "new", "new folder/below", "link", "link/below"):
        check_place(tmp_path / place)
        make(tmp_path / place, plan_of([0], 1))
        check_place(tmp_path / place)
