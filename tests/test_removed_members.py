"""Scores of members whose values were removed: what verification says of damaged ones, and what can be done."""

import re
import shutil

import pytest
import xarray as xr

from graphcast_batch.app.verifying import verify
from tests.conftest import made_once
from tests.test_ensemble_outputs import KEPT, SCORED, states_of
from tests.test_ensemble_run import written

KEY = "2020-01-01T06"


def dropping(store, **changes):
    return states_of(store, outputs=KEPT | {"members": "none"}, **changes)


@pytest.fixture(scope="session")
def scored_online(run_on_ray, shared_folder):
    """A store that keeps statistics and online scores, and no members; not to be changed."""

    def make(folder):
        store = folder / "run"
        done = run_on_ray("run", written(folder / "run.yaml", dropping(store)), cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        return store

    return made_once(shared_folder / "removed-members", make)


def damage(store, name="ensemble"):
    """Cut off the end of a file of the scores of one initial time."""
    path = store / "scores" / name / "temperature" / "c.0.1.0.0.0"
    path.write_bytes(path.read_bytes()[:-1])
    return path


@pytest.mark.parametrize("name", ["ensemble", "forecast"])
def test_a_run_makes_removed_members_again_whose_scores_are_damaged(scored_online, command, tmp_path, name):
    store = tmp_path / "run"
    shutil.copytree(scored_online, store)
    damage(store, name)
    found = command("verify", store)
    assert found.returncode == 3
    assert "so that the next run makes the members again whose values were removed, and scores them" in found.stdout

    repaired = command("verify", store, "--repair")
    assert repaired.returncode == 0, repaired.stdout
    assert f"1 Cases will be made again by the next run: {KEY}" in repaired.stdout
    again = command("run", written(tmp_path / "run.yaml", dropping(store)))

    assert "6 of 6 Cases complete, 3 of them made now" in again.stdout, again.stderr
    for part in ("scores/ensemble", "scores/forecast", "ensemble"):
        xr.testing.assert_equal(*(xr.open_zarr(each / part).load() for each in (store, scored_online)))
    assert command("verify", store, "--deep").returncode == 0
    assert not list(store.glob("*/c.?.?.0.*"))


def test_scores_that_nothing_can_make_again_are_not_freed(scored_online, command, tmp_path):
    """The last run did not score, so that the next one would remove the members before an evaluation could."""
    store = tmp_path / "run"
    shutil.copytree(scored_online, store)
    offline = written(tmp_path / "run.yaml", dropping(store, scores={}))
    assert command("run", offline).returncode == 0
    damaged = damage(store)
    before = damaged.read_bytes()

    repaired = command("verify", store, "--repair")

    assert repaired.returncode == 3
    assert "were removed (outputs.members), so they cannot be made again from the store" in repaired.stdout
    assert re.search(f"1 Cases keep damaged scores, which neither .* can make again: {KEY}", repaired.stdout)
    assert damaged.read_bytes() == before
    assert (store / "scores/ensemble/records" / f"{KEY}.json").exists()


def test_scores_are_made_again_once_a_run_scores_as_the_message_says(scored_online, command, tmp_path):
    store = tmp_path / "run"
    shutil.copytree(scored_online, store)
    assert command("run", written(tmp_path / "off.yaml", dropping(store, scores={}))).returncode == 0
    damage(store)
    found = command("verify", store).stdout
    assert "run once with online: true in scores, and then verify with --repair, so that a further run makes" in found

    online = written(tmp_path / "on.yaml", dropping(store, scores=SCORED))
    first = command("run", online)
    assert "0 of them made now" in first.stdout, first.stderr
    assert command("verify", store, "--repair").returncode == 0
    again = command("run", online)

    assert "3 of them made now" in again.stdout, again.stderr
    xr.testing.assert_equal(*(xr.open_zarr(each / "scores/ensemble").load() for each in (store, scored_online)))


def test_a_case_can_go_without_its_scores_as_the_message_says(scored_online, command, tmp_path):
    store = tmp_path / "run"
    shutil.copytree(scored_online, store)
    assert command("run", written(tmp_path / "off.yaml", dropping(store, scores={}))).returncode == 0
    damage(store)
    (record,) = re.findall(r"or remove (\S+) to go without the scores of this Case", command("verify", store).stdout)

    (store / record).unlink()

    assert verify(store).is_sound
    scored = command("evaluate", written(tmp_path / "on.yaml", dropping(store, scores=SCORED)))
    assert "ensemble: 0 to score, 1 scored before" in scored.stdout, scored.stderr
    assert f"1 left out because the values of their members were removed (outputs.members): {KEY}" in scored.stdout


def test_scores_of_fewer_members_are_left_as_no_evaluation_makes_them(scored_online, command, tmp_path):
    store = tmp_path / "run"
    shutil.copytree(scored_online, store)
    (store / "scores/ensemble").rename(store / "scores/ensemble-2")
    damage(store, "ensemble-2")

    repaired = command("verify", store, "--repair")

    assert repaired.returncode == 3
    assert "fewer members than the store has now, which no evaluation scores again: put back a copy" in repaired.stdout
    assert len(list((store / "scores/ensemble-2/records").glob("*.json"))) == 2
