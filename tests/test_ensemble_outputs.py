"""What a run keeps of all members together: statistics and online scores, through the public door."""

import json
import re
import shutil

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.app.forecasts import open_forecasts
from graphcast_batch.app.planning import plan
from graphcast_batch.errors import ConfigError, StoreError
from graphcast_batch.setup.resources import memory_uses
from tests.conftest import SMALL, made_once
from tests.test_ensemble_run import STATES, TIMES, written

KEPT = {"ensemble": ["mean", "standard_deviation", 0.25]}
SCORED = {"online": True, "regions": ["global", "tropics"]}


def states_of(store, members=2, **changes):
    """A config of one model with a control and two perturbed states, of which the statistics are kept and scored."""
    ensemble = {"perturbations": STATES | {"members": members}, "control": True}
    content = {"store": str(store), "times": TIMES, "ensemble": ensemble, "outputs": KEPT, "scores": SCORED}
    return SMALL | content | changes


def statistics_from(members):
    """The statistics of all variables of an opened store, as xarray computes them from its members."""
    values = members.astype(np.float64)
    found = {"mean": values.mean("number"), "standard_deviation": values.std("number", ddof=1)}
    found["quantile_0.25"] = values.quantile(0.25, "number").drop_vars("quantile")
    return {f"{name}_{kind}": array.astype(np.float32) for kind, each in found.items() for name, array in each.items()}


@pytest.fixture(scope="session")
def made(run_on_ray, shared_folder):
    """How the run ended, and its store; not to be changed."""

    def make(folder):
        store = folder / "run"
        return run_on_ray("run", written(folder / "run.yaml", states_of(store)), cwd=folder), store

    return made_once(shared_folder / "ensemble-outputs", make)


def test_statistics_of_all_members_are_kept_while_they_are_made(made):
    done, store = made
    assert done.returncode == 0, done.stderr
    assert "6 of 6 Cases complete, 6 of them made now" in done.stdout
    assert "2 of 2 ensembles complete, 0 with a failure, 0 left" in done.stdout
    assert "2020-01-01T06: 3 members combined" in done.stderr + done.stdout

    kept, expected = xr.open_zarr(store / "ensemble").load(), statistics_from(xr.open_zarr(store).load())
    assert set(kept) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(kept[name].values, values.values, err_msg=name)
    assert kept["temperature_mean"].attrs["units"] == "K"
    assert "number" not in kept.dims


def test_scores_made_online_are_those_of_an_evaluation(made, command, tmp_path):
    store = tmp_path / "run"
    shutil.copytree(made[1], store)
    online = {name: xr.open_zarr(store / "scores" / name).load() for name in ("forecast", "ensemble")}
    done = command("evaluate", store)
    assert "forecast: 0 to score, 2 scored before" in done.stdout, done.stderr
    assert "ensemble: 0 to score, 2 scored before" in done.stdout

    shutil.rmtree(store / "scores")
    again = command("evaluate", store)
    assert "ensemble: 2 to score" in again.stdout, again.stderr
    for name, scores in online.items():
        xr.testing.assert_equal(xr.open_zarr(store / "scores" / name).load(), scores)


def test_status_and_verification_count_ensembles(made, command):
    assert (
        "6 complete, 0 running, 0 failed, 0 missing\nensembles: 2 complete, 0 running"
        in command("status", made[1]).stdout
    )
    verified = command("verify", made[1], "--deep")
    assert verified.returncode == 0
    assert re.search(r"6 complete Cases.*no difference\nensembles:\n2 complete Cases.*no difference", verified.stdout)


def test_a_damaged_ensemble_is_combined_again_from_the_members_to_the_bit(made, command, tmp_path):
    store = tmp_path / "run"
    shutil.copytree(made[1], store)
    lost = store / "ensemble" / "temperature_mean" / "c.1.0.0.0.0"
    before = lost.read_bytes()
    lost.write_bytes(before[:100])
    assert "2020-01-01T06" in command("verify", store, "--repair").stdout

    again = command("run", written(tmp_path / "run.yaml", states_of(store)))

    assert "6 of 6 Cases complete, 0 of them made now" in again.stdout, again.stderr
    assert "2 of 2 ensembles complete" in again.stdout
    assert lost.read_bytes() == before


def test_an_ensemble_waits_for_the_member_that_is_made_again(made, command, tmp_path):
    store = tmp_path / "run"
    shutil.copytree(made[1], store)
    for path in store.glob("2m_temperature/c.1.2.*"):
        path.unlink()
    shutil.rmtree(store / "ensemble")
    assert "2020-01-01T06-m002" in command("verify", store, "--repair").stdout

    again = command("run", written(tmp_path / "run.yaml", states_of(store)))

    assert "1 of them made now" in again.stdout, again.stderr
    expected = xr.open_zarr(made[1] / "ensemble").load()
    xr.testing.assert_identical(xr.open_zarr(store / "ensemble").load(), expected)


def removed(path):
    path.unlink()


def changed(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [removed, changed])
def test_members_that_were_damaged_are_not_combined_until_they_are_made_again(made, command, tmp_path, damage):
    store = tmp_path / "run"
    shutil.copytree(made[1], store)
    shutil.rmtree(store / "ensemble")
    damage(next(store.glob("2m_temperature/c.1.2.*")))
    config = written(tmp_path / "run.yaml", states_of(store))

    refused = command("run", config)

    assert "1 of 2 ensembles complete, 1 with a failure" in refused.stdout, refused.stderr
    said = " ".join((refused.stdout + refused.stderr).split())
    assert "2020-01-01T06 cannot be combined from its members: 2m_temperature/c.1.2." in said
    assert "verify with --repair, so that the next run makes the Case again" in said
    assert "2020-01-01T06-m002" in command("verify", store, "--deep", "--repair").stdout
    command("retry-failed", store)
    again = command("run", config)
    assert "2 of 2 ensembles complete" in again.stdout, again.stderr
    expected = xr.open_zarr(made[1] / "ensemble").load()
    xr.testing.assert_identical(xr.open_zarr(store / "ensemble").load(), expected)


def test_statistics_can_be_added_to_a_store_whose_members_are_complete(made, command, tmp_path):
    store = tmp_path / "run"
    shutil.copytree(made[1], store)
    shutil.rmtree(store / "ensemble")
    other = states_of(store, outputs={"ensemble": [0.5]}, scores={})

    done = command("run", written(tmp_path / "run.yaml", other))

    assert "0 of them made now" in done.stdout, done.stderr
    median = xr.open_zarr(store / "ensemble")["2m_temperature_quantile_0.5"].load()
    expected = xr.open_zarr(store)["2m_temperature"].load().astype(np.float64).median("number")
    np.testing.assert_array_equal(median.values, expected.astype(np.float32).values)


def test_other_statistics_are_refused_until_the_old_ones_are_removed(made, command, tmp_path):
    store = tmp_path / "run"
    shutil.copytree(made[1], store)
    config = written(tmp_path / "run.yaml", states_of(store, outputs={"ensemble": ["mean"]}))

    for verb in ("plan", "run"):
        refused = command(verb, config)
        assert refused.returncode == 1
        assert "outputs.ensemble must be [mean, standard_deviation, 0.25] as in" in refused.stderr
        assert f"but is [mean]; change it back, or remove {store}/ensemble" in refused.stderr, refused.stderr
    shutil.rmtree(store / "ensemble")
    assert "2 of 2 ensembles complete" in command("run", config).stdout


def test_an_ensemble_that_grows_is_combined_anew_and_the_smaller_one_stays(made, command, tmp_path):
    store = tmp_path / "run"
    shutil.copytree(made[1], store)
    before = xr.open_zarr(store / "ensemble").load()

    done = command("run", written(tmp_path / "run.yaml", states_of(store, members=4)))

    assert "10 of 10 Cases complete, 4 of them made now" in done.stdout, done.stderr
    kept, expected = xr.open_zarr(store / "ensemble").load(), statistics_from(xr.open_zarr(store).load())
    for name, values in expected.items():
        np.testing.assert_array_equal(kept[name].values, values.values, err_msg=name)
    xr.testing.assert_identical(xr.open_zarr(store / "ensemble-3").load(), before)
    assert "rank_5" in xr.open_zarr(store / "scores" / "ensemble")["statistic"].values.tolist()


def test_a_longer_run_combines_the_longer_members(made, command, tmp_path):
    store = tmp_path / "run"
    shutil.copytree(made[1], store)

    done = command("run", written(tmp_path / "run.yaml", states_of(store, steps=SMALL["steps"] + 1)))

    assert "2 of 2 ensembles complete" in done.stdout, done.stderr
    kept, expected = xr.open_zarr(store / "ensemble").load(), statistics_from(xr.open_zarr(store).load())
    for name, values in expected.items():
        np.testing.assert_array_equal(kept[name].values, values.values, err_msg=name)


def test_an_ensemble_with_a_failed_member_is_not_combined_until_the_member_is_made(command, tmp_path):
    store, limits = tmp_path / "run", {"2m_temperature": [299.0, 300.0]}
    failed = command("run", written(tmp_path / "run.yaml", states_of(store, limits=limits, retries=0)))
    assert failed.returncode == 3
    assert "0 of 2 ensembles complete, 2 with a failure, 0 left" in failed.stdout, failed.stdout
    assert not (store / "scores" / "ensemble" / "records").exists() or not any(
        (store / "scores" / "ensemble" / "records").iterdir()
    )

    command("retry-failed", store)
    done = command("run", written(tmp_path / "run.yaml", states_of(store)))
    assert done.returncode == 0, done.stderr
    assert "2 of 2 ensembles complete, 0 with a failure" in done.stdout


def test_scores_alone_are_computed_of_all_members(command, tmp_path, made):
    store = tmp_path / "run"
    done = command("run", written(tmp_path / "run.yaml", states_of(store, outputs={})))
    assert "2 of 2 ensembles complete" in done.stdout, done.stderr

    found = xr.open_zarr(store / "scores" / "ensemble").load()
    xr.testing.assert_equal(found, xr.open_zarr(made[1] / "scores" / "ensemble").load())
    records = [json.loads(path.read_text()) for path in store.glob("ensemble/ledger/steps-*/*.json")]
    assert [record["files"] for record in records] == [{}, {}]
    assert command("verify", store).returncode == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ensemble": None}, r"outputs\.ensemble needs two members .* but there is no ensemble"),
        ({"ensemble": {"perturbations": STATES | {"members": 1, "centred": False}}}, "there is a single member"),
        ({"outputs": {"ensemble": ["mean", "mean"]}}, "ensemble must name each once, but names mean again"),
        ({"outputs": {"ensemble": [1.0]}}, r"outputs\.ensemble"),
        ({"outputs": {"ensemble": ["median"]}}, r"outputs\.ensemble"),
        ({"outputs": {"ensemble": ["mean"], "max_files": 5}}, r"outputs\.max_files must be"),
        ({"outputs": "none"}, "outputs: none must be left out with an ensemble"),
    ],
)
def test_outputs_that_do_not_fit_are_refused_by_their_key(tmp_path, changes, message):
    content = {key: value for key, value in states_of(tmp_path / "run", **changes).items() if value is not None}
    with pytest.raises(ConfigError, match=message):
        plan(content)


def dropping(store, kept="none", **changes):
    return states_of(store, outputs=KEPT | {"members": kept}, **changes)


@pytest.fixture(scope="session")
def dropped(run_on_ray, shared_folder):
    """How a run ended that keeps no members, and its store; not to be changed."""

    def make(folder):
        store = folder / "run"
        return run_on_ray("run", written(folder / "run.yaml", dropping(store)), cwd=folder), store

    return made_once(shared_folder / "ensemble-dropped", make)


def test_members_that_are_not_kept_are_removed_once_they_have_served(made, dropped, command):
    done, store = dropped
    assert "6 of 6 Cases complete, 6 of them made now, 0 failed, 0 left" in done.stdout, done.stderr
    assert "2 of 2 ensembles complete" in done.stdout

    assert not list(store.glob("*/c.?.?.0.*"))
    for name in ("ensemble", "scores/forecast", "scores/ensemble"):
        kept, expected = (xr.open_zarr(each / name).load() for each in (store, made[1]))
        xr.testing.assert_equal(kept, expected)
    assert "6 complete, 0 running, 0 failed, 0 missing" in command("status", store).stdout
    verified = command("verify", store, "--deep")
    assert verified.returncode == 0, verified.stdout
    assert open_forecasts(store, only_complete=False)["complete_hours"].values.tolist() == [[0, 0, 0]] * 2
    with pytest.raises(StoreError, match=r"those that were made are removed .* open .*/ensemble"):
        open_forecasts(store)
    assert open_forecasts(store / "ensemble")["complete_hours"].values.tolist() == [18, 18]
    scored = command("evaluate", store)
    assert "ensemble: 0 to score, 2 scored before" in scored.stdout, scored.stderr
    assert "forecast: 0 to score, 2 scored before" in scored.stdout


def test_members_that_were_removed_are_not_drawn_together(dropped, command):
    refused = command("figures", dropped[1], "--variable", "2m_temperature", "--ensemble")

    assert refused.returncode == 2
    assert "must keep two members at least to draw them together, but keeps 0" in refused.stderr


def test_a_run_that_is_resumed_makes_no_dropped_member_again(dropped, command, tmp_path):
    store = tmp_path / "run"
    shutil.copytree(dropped[1], store)

    again = command("run", written(tmp_path / "run.yaml", dropping(store)))

    assert "6 of 6 Cases complete, 0 of them made now" in again.stdout, again.stderr
    assert "2 of 2 ensembles complete" in again.stdout


def test_dropped_members_are_made_again_where_their_statistics_were_lost(dropped, command, tmp_path):
    store = tmp_path / "run"
    shutil.copytree(dropped[1], store)
    lost = store / "ensemble" / "temperature_mean" / "c.1.0.0.0.0"
    before = lost.read_bytes()
    lost.unlink()
    assert "2020-01-01T06" in command("verify", store, "--repair").stdout

    again = command("run", written(tmp_path / "run.yaml", dropping(store)))

    assert "6 of 6 Cases complete, 3 of them made now" in again.stdout, again.stderr
    assert lost.read_bytes() == before
    assert not list(store.glob("*/c.?.?.0.*"))


def test_the_control_alone_can_be_kept(made, command, tmp_path):
    store = tmp_path / "run"
    figures = {"variables": ["2m_temperature"], "lead_hours": [6]}
    config = dropping(store, [0], figures=figures)
    done = command("run", written(tmp_path / "run.yaml", config))
    assert done.returncode == 0, done.stdout + done.stderr

    kept, expected = xr.open_zarr(store).load(), xr.open_zarr(made[1]).load()
    for name in expected:
        np.testing.assert_array_equal(kept[name].sel(number=0).values, expected[name].sel(number=0).values)
        assert np.isnan(kept[name].sel(number=[1, 2]).values).all()
    assert {path.name for path in (store / "figures").iterdir()} == {"2020-01-01T00-m000", "2020-01-01T06-m000"}


def test_a_longer_run_makes_the_dropped_members_longer(dropped, command, tmp_path):
    store = tmp_path / "run"
    shutil.copytree(dropped[1], store)

    done = command("run", written(tmp_path / "run.yaml", dropping(store, steps=SMALL["steps"] + 1)))

    assert "6 of 6 Cases complete, 6 of them made now" in done.stdout, done.stderr
    longer = xr.open_zarr(store / "ensemble")["temperature_mean"].load()
    assert longer.sizes["prediction_timedelta"] == SMALL["steps"] + 1
    assert np.isfinite(longer.values).all()
    assert not list(store.glob("*/c.?.?.*.*.0"))


def test_members_left_by_a_run_that_was_killed_are_removed_by_the_next(made, dropped, command, tmp_path):
    store = tmp_path / "run"
    shutil.copytree(dropped[1], store)
    for path in [*made[1].glob("*/c.1.2.*"), *made[1].glob("ledger/steps-*/2020-01-01T06-m002.json")]:
        shutil.copy(path, store / path.relative_to(made[1]))
    (record,) = store.glob("ledger/dropped-*/2020-01-01T06-m002.json")
    record.unlink()

    again = command("run", written(tmp_path / "run.yaml", dropping(store)))

    assert "0 of them made now" in again.stdout, again.stderr
    assert not list(store.glob("*/c.1.2.*"))
    assert record.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kept": "all"}, r"outputs\.members must be none as in .*ensemble, but is all; change it back"),
        ({"kept": [1]}, r"outputs\.members must be none as in .*ensemble, but is \[1\]"),
        ({"members": 4}, "members can be added only where all are kept"),
    ],
)
def test_members_that_were_dropped_cannot_be_asked_for(dropped, command, tmp_path, changes, message):
    store = tmp_path / "run"
    shutil.copytree(dropped[1], store)
    refused = command("run", written(tmp_path / "run.yaml", dropping(store, **({"kept": "none"} | changes))))

    assert refused.returncode == 1
    assert re.search(message, refused.stderr), refused.stderr
    assert xr.open_zarr(store).sizes["number"] == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": {"members": "none"}, "scores": {}}, "outputs.members: none needs something that is kept"),
        ({"outputs": KEPT | {"members": [0, 3]}}, "outputs.members must be below 3, .* but names 3"),
        ({"outputs": KEPT | {"members": [0, 0]}}, "members must name each once, but names 0 again"),
        ({"outputs": KEPT | {"members": "some"}}, r"outputs\.members"),
        (
            {"outputs": KEPT | {"members": "none"}, "figures": {"variables": ["2m_temperature"]}},
            "figures must be left out with outputs.members: none",
        ),
    ],
)
def test_members_that_cannot_be_kept_are_refused_by_their_key(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        plan(states_of(tmp_path / "run", **changes))


def test_a_run_draws_the_members_together_once(made, command, tmp_path):
    store = tmp_path / "run"
    shutil.copytree(made[1], store)
    figures = {"variables": ["2m_temperature"], "lead_hours": [6], "ensemble": True, "points": ["Oslo"]}
    config = written(tmp_path / "run.yaml", states_of(store, figures=figures))

    done = command("run", config)

    assert done.returncode == 0, done.stdout + done.stderr
    folder = store / "figures" / "2020-01-01T06"
    names = {"2m_temperature_mean_and_spread_006h.png", "2m_temperature_plume_in_Oslo.png"}
    assert {path.name for path in folder.iterdir()} == names
    before = {path: path.stat().st_mtime_ns for path in store.glob("figures/*/*")}
    assert command("run", config).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in store.glob("figures/*/*")} == before


def test_contour_lines_of_members_can_be_asked_for_by_an_option(made, command, tmp_path):
    store = tmp_path / "run"
    shutil.copytree(made[1], store)
    option = ("--variable", "2m_temperature", "--lead-hours", "6", "--spaghetti")

    done = command("figures", store, *option, "2m_temperature=0")

    assert done.returncode == 0, done.stdout + done.stderr
    for time in ("2020-01-01T00", "2020-01-01T06"):
        assert (store / "figures" / time / "2m_temperature_contour_0_006h.png").exists()
    refused = command("figures", store, *option, "2m_temperature")
    assert refused.returncode == 2
    assert "--spaghetti must be a variable and the value of its contour lines like geopotential=552" in refused.stderr


def test_members_that_are_not_there_cannot_be_drawn_together(tmp_path):
    figures = {"variables": ["2m_temperature"], "ensemble": True}
    with pytest.raises(ConfigError, match=r"draw two members of an ensemble at least, but members are not kept"):
        plan(dropping(tmp_path / "run", [0], figures=figures))
    single = {key: value for key, value in states_of(tmp_path / "run", figures=figures).items() if key != "ensemble"}
    with pytest.raises(ConfigError, match="draw two members of an ensemble at least, but there are none"):
        plan(single | {"outputs": {}})


def test_the_memory_of_workers_has_room_for_the_members_that_are_combined_at_once(tmp_path):
    """A lead time of the largest variable of all members; while it is scored, the next one is read."""

    def needed(**changes):
        states = {"kind": "gaussian", "members": 50, "amplitude": 0.1}
        content = states_of(tmp_path / "run", outputs={}, scores={}) | {"ensemble": {"perturbations": states}}
        content |= {"inputs": {"kind": "synthetic", "resolution": 1}, "model": SMALL["model"]} | changes
        return memory_uses(plan(content).assembled, accelerated=False)[0].host_bytes

    members = 50 * 13 * 181 * 360 * 4
    without = needed()
    assert needed(outputs={"ensemble": ["mean"]}) - without == members
    assert needed(scores={"online": True}) - without == 2 * members
    wind = {"wind": ["u_component_of_wind", "v_component_of_wind"]}
    assert needed(scores={"online": True, "vectors": wind}) - without == 2 * 2 * members
