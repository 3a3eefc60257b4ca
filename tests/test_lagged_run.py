"""Runs of lagged ensembles through the public door: members that start before the initial time."""

import json

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.app.planning import plan
from graphcast_batch.errors import ConfigError, StoreError, StoreMismatchError
from graphcast_batch.inputs.statistics import run_serially
from graphcast_batch.setup.store_identity import lay_out
from tests.conftest import SMALL, made_once
from tests.test_member_states import as_zarr, inputs, members, perturbations, weather, written

TIMES = {"first": "2020-01-01T06", "last": "2020-01-01T12", "every_hours": 6}
LAGS = {"lagged": {"hours": [0, 6, 12]}}


def config_of(store, **changes):
    return SMALL | {"store": str(store), "times": TIMES, "ensemble": LAGS} | changes


@pytest.fixture(scope="session")
def archive(shared_folder):
    """Inputs from 2019-12-31T18 on, so that the first initial time is 2020-01-01T00."""
    return made_once(shared_folder / "lagged_inputs", lambda folder: as_zarr(weather(0), folder / "c.zarr"))


@pytest.fixture
def run(command, tmp_path):
    def make(content, ends=0):
        done = command("run", written(tmp_path / "config.yaml", content))
        assert done.returncode == ends, done.stdout + done.stderr
        return done, xr.open_zarr(content["store"]).load()

    return make


@pytest.fixture(scope="session")
def made(run_on_ray, shared_folder):
    """The output and the store of a run with three lags; not to be changed."""

    def make(folder):
        config = written(folder / "run.yaml", config_of(folder / "run"))
        return run_on_ray("run", config, cwd=folder), folder / "run"

    return made_once(shared_folder / "lagged", make)


def test_a_member_with_a_lag_is_the_end_of_the_forecast_from_the_earlier_time(made, run, tmp_path):
    told, store = made
    assert told.returncode == 0, told.stderr
    assert "6 of 6 Cases complete" in told.stdout
    lagged = xr.open_zarr(store).load()
    assert lagged["lag"].values.tolist() == [0, 6, 12]
    assert lagged["perturbation"].values.tolist() == ["none"] * 3
    assert lagged.sizes["prediction_timedelta"] == 3

    earlier = {"times": {"first": "2019-12-31T18", "last": "2020-01-01T12", "every_hours": 6}, "steps": 5}
    _, alone = run(SMALL | earlier | {"store": str(tmp_path / "alone")})

    hour = np.timedelta64(1, "h")
    for name in alone:
        for number, lag in enumerate([0, 6, 12]):
            for time in lagged["time"].values:
                ours = lagged[name].sel(number=number, time=time)
                start = alone[name].sel(time=time - lag * hour)
                leads = ours["prediction_timedelta"].values + lag * hour
                np.testing.assert_array_equal(ours.values, start.sel(prediction_timedelta=leads).values)


def test_perturbed_states_are_those_of_the_time_at_which_a_member_starts(run, archive, tmp_path):
    path = as_zarr(members([0, 1]), tmp_path / "eda.zarr")
    both = perturbations(path, 2)
    lags = {"lagged": {"hours": [0, 6]}}
    _, lagged = run(config_of(tmp_path / "run", inputs=inputs(archive), ensemble=both | lags | {"control": True}))
    assert lagged["lag"].values.tolist() == [0, 0, 0, 6, 6]
    assert lagged["perturbation"].values.tolist() == ["none", "file 0", "file 1", "file 0", "file 1"]

    times = {"list": ["2020-01-01T00"]}
    _, alone = run(config_of(tmp_path / "alone", inputs=inputs(archive), ensemble=both, times=times, steps=4))

    for name in alone:
        ours = lagged[name].sel(number=[3, 4], time="2020-01-01T06").values
        np.testing.assert_array_equal(ours, alone[name].isel(time=0, prediction_timedelta=slice(1, None)).values)


def test_initial_times_without_an_earlier_state_are_skipped_and_named(archive, tmp_path, command):
    times = {"first": "2020-01-01T00", "last": "2020-01-01T12", "every_hours": 6}
    config = written(tmp_path / "c.yaml", config_of(tmp_path / "run", inputs=inputs(archive), times=times))

    done = command("plan", config)

    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "3 of each initial time, from 1 checkpoint and 1 initial state, starting at 3 times" in told
    assert "2020-01-01T00: 6 h before: the archive lacks 2019-12-31T12" in told
    assert "2020-01-01T06: 12 h before: the archive lacks 2019-12-31T12" in told
    nothing = (
        r"none of the 1 initial times can be run with all that starts earlier; the first: 2020-01-01T06: 12 h before"
    )
    with pytest.raises(ConfigError, match=nothing):
        plan(config_of(tmp_path / "run", inputs=inputs(archive), times={"list": ["2020-01-01T06"]}))


@pytest.mark.parametrize("hours", [[], [6, 12], [0, 6, 6], [0, -6]])
def test_lags_begin_with_none_and_are_named_once(tmp_path, hours):
    with pytest.raises(ConfigError, match=r"ensemble\.lagged\.hours.*of which the first is 0, but are \["):
        plan(config_of(tmp_path / "run", ensemble={"lagged": {"hours": hours}}))


def test_lags_are_multiples_of_the_step_and_need_an_archive(tmp_path):
    with pytest.raises(ConfigError, match="a multiple of 6 h, the model's step, but 3 is not"):
        plan(config_of(tmp_path / "run", ensemble={"lagged": {"hours": [0, 3]}}))


def test_further_lags_extend_a_store_and_others_are_refused(tmp_path):
    def laid_out(*hours):
        planned = plan(config_of(tmp_path / "run", ensemble={"lagged": {"hours": list(hours)}}))
        return lay_out(planned.assembled, "float32", run_serially)

    laid_out(0, 6)
    assert [member.lag for member in laid_out(0, 6, 12).members] == [0, 6, 12]
    with pytest.raises(StoreMismatchError, match="number 1: lag 6"):
        laid_out(0, 12, 6)


def test_a_store_of_an_ensemble_that_is_too_old_for_lags_goes_on_without(tmp_path):
    def laid_out(count, hours):
        states = {"kind": "gaussian", "members": count, "amplitude": 0.1}
        content = config_of(tmp_path / "run", ensemble={"perturbations": states, "lagged": {"hours": hours}})
        return lay_out(plan(content).assembled, "float32", run_serially)

    root = laid_out(2, [0]).path / "zarr.json"
    content = json.loads(root.read_text())
    del content["consolidated_metadata"]["metadata"]["lag"]
    root.write_text(json.dumps(content))

    assert [member.lag for member in laid_out(3, [0]).members] == [0, 0, 0]
    with pytest.raises(StoreError, match="before stores had lags"):
        laid_out(3, [0, 6])
