"""Runs of ensembles whose members start from bred states, through the public door."""

import shutil

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.app.planning import plan
from graphcast_batch.errors import ConfigError
from tests.conftest import SMALL, made_once
from tests.test_member_states import as_zarr, inputs, weather, written

BRED = {"kind": "bred", "members": 4, "amplitude": 0.5, "cycles": 2, "cycle_hours": 6, "seed": 3}
TIMES = {"first": "2020-01-01T00", "last": "2020-01-01T06", "every_hours": 6}


def config_of(store, **changes):
    return SMALL | {"store": str(store), "times": TIMES, "ensemble": {"perturbations": BRED, "control": True}} | changes


@pytest.fixture(scope="session")
def made(run_on_ray, shared_folder):
    """How the run ended, and its store; not to be changed."""

    def make(folder):
        config = written(folder / "run.yaml", config_of(folder / "run"))
        return run_on_ray("run", config, cwd=folder), folder / "run"

    return made_once(shared_folder / "bred", make)


def shards(store):
    return {str(path.relative_to(store)): path.read_bytes() for path in store.glob("*/c.?.*.0.*")}


def test_members_are_pairs_on_both_sides_of_the_control(made):
    told, store = made
    assert told.returncode == 0, told.stderr
    assert "10 of 10 Cases complete" in told.stdout
    stored = xr.open_zarr(store)
    assert stored["perturbation"].values.tolist() == ["none", "bred 0", "bred 1", "bred 2", "bred 3"]
    first = stored["geopotential"].isel(prediction_timedelta=0).load()
    change = (first - first.sel(number=0)).values.reshape(2, 5, -1)
    for time in range(2):
        for plus, minus in ((1, 2), (3, 4)):
            assert np.corrcoef(change[time, plus], change[time, minus])[0, 1] < -0.8
        assert abs(np.corrcoef(change[time, 1], change[time, 3])[0, 1]) < 0.5


def test_a_member_that_was_lost_is_bred_again_alone_to_the_bit(made, command, tmp_path):
    store = tmp_path / "run"
    shutil.copytree(made[1], store)
    before = shards(store)
    for path in store.glob("*/c.1.4.*"):
        path.unlink()
    assert "2020-01-01T06-m004" in command("verify", store, "--repair").stdout

    again = command("run", written(tmp_path / "run.yaml", config_of(store)))

    assert "10 of 10 Cases complete, 1 of them made now" in again.stdout, again.stderr
    assert shards(store) == before


def test_members_are_computed_together_and_beside_other_cases(command, tmp_path):
    model = SMALL["model"] | {"batch_size": 2}
    content = config_of(tmp_path / "run", model=model, workers=SMALL["workers"] | {"count": 2})
    done = command("run", written(tmp_path / "run.yaml", content))
    assert "10 of 10 Cases complete" in done.stdout, done.stderr


def test_initial_times_without_inputs_for_the_cycles_are_skipped_and_named(tmp_path, command):
    archive = as_zarr(weather(0), tmp_path / "c.zarr")  # from 2019-12-31T18 on
    times = {"first": "2020-01-01T06", "last": "2020-01-01T12", "every_hours": 6}
    content = config_of(tmp_path / "run", inputs=inputs(archive), times=times)

    done = command("check", written(tmp_path / "c.yaml", content))

    assert "2019-12-31T18" in done.stdout  # the state that cannot start the first cycle
    planned = plan(content)
    assert planned.skipped == {"2020-01-01T06": "12 h before: the archive lacks 2019-12-31T12"}
    with pytest.raises(ConfigError, match="need inputs that hold earlier initial times too, but"):
        plan(content | {"inputs": {"kind": "datasets", "path": str(tmp_path)}, "times": None})
