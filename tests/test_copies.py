"""Copies of stores: by xarray's own call, by `open_forecasts`, and into the store of a longer run."""

import shutil
import warnings

import numpy as np
import pytest
import xarray as xr
from packaging.version import Version

import graphcast_batch as gb
from graphcast_batch.config.loading import load_config
from graphcast_batch.setup.ensemble_store import ensemble_plan, lay_out_ensembles
from graphcast_batch.stores.layout import Layout, Plan
from graphcast_batch.stores.store_kinds import open_store
from tests.conftest import SMALL
from tests.report.made import LEVELS, VARIABLES, ensemble, truth
from tests.stores.made_stores import case_at, fill, make, plan_of, values_of


@pytest.fixture
def store(tmp_path):
    """Four initial times, of which one has no forecast; 20 lead times in files of 8."""
    made = make(tmp_path / "run.zarr", plan_of(range(4), 20))
    fill(made, *(case_at(index, 20) for index in (0, 2, 3)))
    return made


def copied(dataset, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that consolidated metadata are not in the specification yet
        dataset.to_zarr(path)
    return xr.open_zarr(path, chunks=None)


def assert_complete(dataset, store):
    for index in (0, 2, 3):
        for name, values in values_of(store, case_at(index, 20)).items():
            np.testing.assert_array_equal(dataset[name].sel(time=case_at(index, 20).init_time), values)


@pytest.mark.skipif(Version(xr.__version__) < Version("2026.2"), reason="loses values (docs/guides/reading.md)")
def test_the_plain_copy_by_xarray_is_refused(store, tmp_path):
    opened = xr.open_zarr(store.path)
    assert opened["temperature"].chunks[1] == (1,) * 20
    with pytest.raises(ValueError, match="would overlap multiple Dask chunks"):
        copied(opened, tmp_path / "copy.zarr")


def test_a_copy_with_chunks_of_whole_files_or_without_encoding_is_right(store, tmp_path):
    by_file = xr.open_zarr(store.path, chunks={"prediction_timedelta": store.block_steps})
    assert_complete(copied(by_file, tmp_path / "by_file.zarr"), store)
    assert_complete(copied(xr.open_zarr(store.path).drop_encoding(), tmp_path / "plain.zarr"), store)


@pytest.mark.parametrize("chunks", [None, "files"])
def test_forecasts_that_were_opened_are_copied_by_the_plain_call(store, tmp_path, chunks):
    forecasts = gb.open_forecasts(store.path, chunks=chunks)
    assert (forecasts["temperature"].chunks is None) == (chunks is None)
    copy = copied(forecasts, tmp_path / "copy.zarr")
    assert copy.sizes["time"] == 3
    assert_complete(copy, store)
    xr.testing.assert_equal(copy, gb.open_forecasts(store.path))


def test_a_part_of_the_forecasts_is_copied_by_the_plain_call(store, tmp_path):
    for chunks, leads in ((None, slice(5, 19)), ("files", slice(8, 19))):
        part = gb.open_forecasts(store.path, chunks=chunks).isel(prediction_timedelta=leads, latitude=[1, 2])
        xr.testing.assert_equal(copied(part, tmp_path / f"{chunks}.zarr"), part)


def test_chunks_of_files_are_whole_files(store):
    of_case = gb.open_forecasts(store.path, chunks="files")["temperature"]
    assert of_case.chunks == ((1, 1, 1), (8, 8, 4), (2,), (5,), (8,))


def test_statistics_of_members_are_laid_out_at_all_initial_times_of_the_members(tmp_path):
    store = ensemble(tmp_path / "run.zarr", count=3)
    shutil.rmtree(store.path / "ensemble")
    config = load_config(store.config_path)
    layout = Layout(truth().grid, LEVELS, VARIABLES, 1, 6, config.outputs)
    last = Plan(
        tuple(case for case in store.cases(1) if case.init_time == store.init_times[-1]), layout, (), store.members
    )
    again = lay_out_ensembles(store, ensemble_plan(last, config), store.members, config)
    assert again.init_times.tolist() == store.init_times.tolist()


# --- into the store of a longer run


TIMES = {"first": "2020-01-01T00", "last": "2020-01-01T18", "every_hours": 6}


def test_a_period_that_begins_earlier_gets_a_store_of_its_own_with_the_forecasts_that_are_there(
    small_config, command, tmp_path
):
    two = {"first": "2020-01-01T06", "last": "2020-01-01T18", "every_hours": 12}
    assert command("run", small_config(times=two)).returncode == 0
    before = xr.open_zarr(tmp_path / "run", chunks=None).load()

    refused = command("run", small_config(times=TIMES))
    assert refused.returncode == 1
    assert "after its last one, 2020-01-01T18" in refused.stderr
    assert "2 new ones are earlier, the first 2020-01-01T00" in refused.stderr
    assert command("plan", small_config(times=TIMES)).returncode == 1

    longer = small_config("longer.zarr", times=TIMES)
    copying = command("copy-forecasts", longer, "--from", tmp_path / "run")
    assert copying.returncode == 0, copying.stderr
    assert "2 forecasts copied, 0 were there before, 2 are for a run to make, 0 left" in copying.stdout
    again = command("copy-forecasts", longer, "--from", tmp_path / "run")
    assert "0 forecasts copied, 2 were there before" in again.stdout
    assert command("verify", tmp_path / "longer.zarr", "--deep").returncode == 0

    made = command("run", longer)
    assert "4 of 4 Cases complete, 2 of them made now" in made.stdout, made.stderr
    both = xr.open_zarr(tmp_path / "longer.zarr", chunks=None)
    assert both.indexes["time"].is_monotonic_increasing
    for name in before:
        np.testing.assert_array_equal(both[name].sel(time=before["time"]), before[name])
    xr.testing.assert_identical(xr.open_zarr(tmp_path / "run", chunks=None).load(), before)
    record = open_store(tmp_path / "longer.zarr").ledger.record("2020-01-01T06")
    assert record.details["copied_from"] == str(tmp_path / "run")


@pytest.mark.parametrize("damaged", ["geopotential/c.1.*", "ledger/steps-*/2020-01-01T06.json"])
def test_damaged_forecasts_are_named_and_not_copied(finished, small_config, command, tmp_path, damaged):
    finished.copy(tmp_path / "run")
    file = min((tmp_path / "run").glob(damaged))
    file.write_bytes(file.read_bytes()[:-100] + bytes(100))
    copying = command("copy-forecasts", small_config("new.zarr"), "--from", tmp_path / "run")
    assert copying.returncode == 3, copying.stderr
    assert "damaged, and not copied: 2020-01-01T06" in copying.stdout
    assert "3 forecasts copied" in copying.stdout
    assert command("verify", tmp_path / "new.zarr", "--deep").returncode == 0


def test_forecasts_of_another_config_are_not_copied(finished, small_config, command, tmp_path):
    other = small_config("new.zarr", outputs={"keep_bits": 9})
    refused = command("copy-forecasts", other, "--from", finished.store)
    assert refused.returncode == 1
    assert "encoding of geopotential" in refused.stderr
    assert not (tmp_path / "new.zarr").exists()
    same = small_config("same", times=SMALL["times"])
    finished.copy(tmp_path / "same")
    refused = command("copy-forecasts", same, "--from", tmp_path / "same")
    assert refused.returncode == 1
    assert "must be another than" in refused.stderr


def test_members_are_copied_and_combined_again_by_the_run(small_config, command, tmp_path):
    states = {"kind": "gaussian", "members": 2, "amplitude": 0.1}
    of_members = {"ensemble": {"perturbations": states}, "outputs": {"ensemble": ["mean"]}, "steps": 1}
    one = {"times": {"list": ["2020-01-01T06"]}}
    assert command("run", small_config("run", **one, **of_members)).returncode == 0
    longer = small_config("new.zarr", times={"list": ["2020-01-01T00", "2020-01-01T06"]}, **of_members)
    copying = command("copy-forecasts", longer, "--from", tmp_path / "run")
    assert "2 forecasts copied, 0 were there before, 2 are for a run to make, 0 left" in copying.stdout, copying.stderr
    made = command("run", longer)
    assert "4 of 4 Cases complete, 2 of them made now" in made.stdout, made.stderr
    assert "2 of 2 ensembles complete" in made.stdout
    old, new = (gb.open_forecasts(tmp_path / name / "ensemble") for name in ("run", "new.zarr"))
    name = "2m_temperature_mean"
    np.testing.assert_array_equal(new[name].sel(time="2020-01-01T06"), old[name].sel(time="2020-01-01T06"))
