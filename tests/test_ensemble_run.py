"""Runs of ensembles through the public door: each member of each initial time is a forecast of its own."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml

from graphcast_batch.app.planning import plan
from graphcast_batch.cluster.dispatch_rules import Dispatch
from graphcast_batch.config.model_section import RandomWeights
from graphcast_batch.errors import CheckpointError, ConfigError
from graphcast_batch.inputs.statistics import run_serially
from graphcast_batch.models.graphcast.checkpoint import save_checkpoint
from graphcast_batch.models.graphcast.weights import ConfiguredWeights
from graphcast_batch.setup.resources import memory_uses
from graphcast_batch.setup.store_identity import lay_out
from graphcast_batch.setup.worker_setup import worker_context
from tests.conftest import SMALL, made_once

TIMES = {"first": "2020-01-01T00", "last": "2020-01-01T06", "every_hours": 6}
STATES = {"kind": "spherical", "members": 2, "amplitude": 0.5, "length_km": 4000, "centred": True, "seed": 3}


def save_weights(path, seed, latent_size=8):
    sizes = SMALL["model"]["weights"]["architecture"] | {"latent_size": latent_size}
    chosen = RandomWeights.model_validate(
        {"kind": "random", "architecture": sizes, "task": "GraphCast_small", "seed": seed}
    )
    weights = ConfiguredWeights(chosen)
    save_checkpoint(weights.checkpoint(weights.channels({})), path)


def config_of(store, checkpoints, **changes):
    """A config of two initial times, with two checkpoints, two perturbed states and a control: five members."""
    ensemble = {"checkpoints": [str(path) for path in checkpoints], "perturbations": STATES, "control": True}
    model = {"statistics": SMALL["model"]["statistics"]}
    return SMALL | {"store": str(store), "times": TIMES, "model": model, "ensemble": ensemble} | changes


def written(path, config):
    path.write_text(yaml.safe_dump(config))
    return path


def shards(store):
    return {str(path.relative_to(store)): path.read_bytes() for path in store.glob("*/c.?.*.0.*")}


@pytest.fixture(scope="session")
def checkpoints(shared_folder):
    def make(folder):
        paths = [folder / f"m{seed:02d}.npz" for seed in range(2)]
        for seed, path in enumerate(paths):
            save_weights(path, seed)
        return paths

    return made_once(shared_folder / "checkpoints", make)


@pytest.fixture(scope="session")
def made(run_on_ray, shared_folder, checkpoints):
    """How the run ended, its store and its trace; not to be changed."""

    def make(folder):
        store, trace = folder / "run", folder / "trace.json"
        config = written(folder / "run.yaml", config_of(store, checkpoints))
        return run_on_ray("run", config, "--trace", trace, cwd=folder), store, trace

    return made_once(shared_folder / "ensemble", make)


def test_a_run_makes_all_members_and_the_store_says_what_each_is(made):
    told, store, _ = made
    assert told.returncode == 0, told.stderr
    assert "10 of 10 Cases complete, 10 of them made now, 0 failed, 0 left" in told.stdout

    stored = xr.open_zarr(store)
    assert (stored.sizes["time"], stored.sizes["number"], stored.sizes["prediction_timedelta"]) == (2, 5, 3)
    assert stored["checkpoint"].values.tolist() == ["m00", "m00", "m01", "m00", "m01"]
    assert stored["perturbation"].values.tolist() == ["none"] + ["spherical 0"] * 2 + ["spherical 1"] * 2
    assert stored["seed"].values.tolist() == [-1, 3, 3, 3, 3]
    assert len(set(stored["weights_sha256"].values.tolist())) == 2
    temperature = stored["2m_temperature"].isel(prediction_timedelta=0).values
    assert np.isfinite(temperature).all()
    assert len({temperature[0, number].tobytes() for number in range(5)}) == 5


def test_the_inputs_of_an_initial_time_are_read_once_for_all_of_its_members(made):
    _, store, trace = made
    stages = [span["cat"] for span in json.loads(trace.read_text())["traceEvents"] if span.get("ph") == "X"]
    records = [json.loads(path.read_text()) for path in store.glob("ledger/**/2020*.json")]

    assert len(records) == 10
    read = sorted(record["init_time"] for record in records if "read" in record["seconds"])
    assert read == ["2020-01-01T00:00:00Z", "2020-01-01T06:00:00Z"]
    assert (stages.count("read"), stages.count("weights"), stages.count("perturb")) == (2, 1, 10)


def test_the_control_is_the_forecast_without_an_ensemble(made, command, tmp_path, checkpoints):
    weights = {"kind": "checkpoint", "path": str(checkpoints[0])}
    alone = SMALL | {"store": str(tmp_path / "alone"), "times": TIMES, "model": SMALL["model"] | {"weights": weights}}
    assert command("run", written(tmp_path / "alone.yaml", alone)).returncode == 0

    single, ensemble = xr.open_zarr(tmp_path / "alone").load(), xr.open_zarr(made[1]).load()
    for name in single:
        np.testing.assert_array_equal(ensemble[name].sel(number=0).values, single[name].values)


def test_pairs_of_a_centred_perturbation_lie_on_both_sides_of_the_control(made):
    first = xr.open_zarr(made[1])["geopotential"].isel(time=0, prediction_timedelta=0).load()
    control, plus, minus = (first.sel(number=number) for number in (0, 1, 3))

    above, below = (plus - control).values.ravel(), (minus - control).values.ravel()
    assert np.corrcoef(above, below)[0, 1] < -0.8


def test_a_member_that_was_lost_is_made_again_alone_to_the_bit(made, command, tmp_path, checkpoints):
    store = tmp_path / "run"
    shutil.copytree(made[1], store)
    before = shards(store)
    lost = list(store.glob("*/c.1.4.*"))
    for path in lost:
        path.unlink()
    repaired = command("verify", store, "--repair")
    assert "2020-01-01T06-m004" in repaired.stdout

    again = command("run", written(tmp_path / "run.yaml", config_of(store, checkpoints)))

    assert "10 of 10 Cases complete, 1 of them made now" in again.stdout, again.stderr
    assert len(lost) == len(list(store.glob("*/c.1.4.*"))) > 0
    assert shards(store) == before


def test_more_perturbed_states_extend_the_store_and_leave_the_members_there_are(made, command, tmp_path, checkpoints):
    store = tmp_path / "run"
    shutil.copytree(made[1], store)
    before = shards(store)
    ensemble = config_of(store, checkpoints)["ensemble"] | {"perturbations": STATES | {"members": 4}}

    longer = command("run", written(tmp_path / "run.yaml", config_of(store, checkpoints, ensemble=ensemble)))

    assert "18 of 18 Cases complete, 8 of them made now" in longer.stdout, longer.stderr
    assert {name: content for name, content in shards(store).items() if name in before} == before
    assert xr.open_zarr(store)["perturbation"].values.tolist()[-1] == "spherical 3"
    shown = command("status", store).stdout
    assert "18 complete, 0 running, 0 failed, 0 missing" in shown


def test_an_ensemble_that_has_grown_is_scored_anew_beside_the_scores_of_the_smaller_one(
    made, command, tmp_path, checkpoints
):
    store = tmp_path / "run"
    shutil.copytree(made[1], store)
    assert "CRPS of the ensemble" in command("evaluate", store).stdout
    before = xr.open_zarr(store / "scores" / "ensemble").load()
    ensemble = config_of(store, checkpoints)["ensemble"] | {"perturbations": STATES | {"members": 4}}
    longer = written(tmp_path / "run.yaml", config_of(store, checkpoints, ensemble=ensemble))
    assert "8 of them made now" in command("run", longer).stdout

    done = command("evaluate", store)

    assert "CRPS of the ensemble" in done.stdout, done.stderr
    assert "rank_9" in xr.open_zarr(store / "scores" / "ensemble")["statistic"].values.tolist()
    xr.testing.assert_identical(xr.open_zarr(store / "scores" / "ensemble-5").load(), before)
    assert command("verify", store, "--deep").returncode == 0
    again = command("evaluate", store)
    assert "ensemble: 0 to score, 2 scored before" in again.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"perturbations": STATES | {"seed": 4}}, "number 1: seed 3, this run has number 1: seed 4"),
        ({"perturbations": STATES | {"amplitude": 0.6}}, "perturbations: the store has {.*0.5.*this run has {.*0.6"),
        ({"control": False}, "has 5 of each initial time, this run has 4"),
        ({"perturbations": None, "control": False}, "this run has 2 of each initial time"),
    ],
)
def test_another_ensemble_is_refused_with_the_difference(made, command, tmp_path, checkpoints, change, message):
    config = config_of(made[1], checkpoints)
    ensemble = {key: value for key, value in (config["ensemble"] | change).items() if value is not None}

    refused = command("run", written(tmp_path / "other.yaml", config | {"ensemble": ensemble}))

    assert refused.returncode == 1
    assert re.search(message, refused.stderr), refused.stderr
    assert "Traceback" not in refused.stderr


def test_members_of_one_checkpoint_are_computed_together(made, command, tmp_path, checkpoints):
    together = config_of(tmp_path / "run", checkpoints)
    done = command("run", written(tmp_path / "run.yaml", together | {"model": together["model"] | {"batch_size": 2}}))

    assert "10 of 10 Cases complete" in done.stdout, done.stderr
    ours, theirs = xr.open_zarr(tmp_path / "run").load(), xr.open_zarr(made[1]).load()
    for name in ours:
        difference = np.abs(ours[name] - theirs[name])
        assert float(difference.max()) <= 1e-4 * float(np.abs(theirs[name]).max())


def test_members_are_scored_as_an_ensemble_as_another_library_scores_them(made, command, tmp_path):
    from scores.probability import crps_for_ensemble

    store = tmp_path / "run"
    shutil.copytree(made[1], store)
    table = tmp_path / "scores.csv"
    done = command("evaluate", store, "--out", table)
    assert "CRPS of the ensemble, global" in done.stdout, done.stderr

    rows = pd.read_csv(table).set_index(["scores", "variable", "region", "lead_hours", "metric"])
    record = rows.loc[("ensemble", "2m_temperature", "global", 12, "crps")]
    forecasts = xr.open_zarr(store)["2m_temperature"].sel(prediction_timedelta=np.timedelta64(12, "h")).load()
    truth = truth_of(forecasts)
    weights = np.cos(np.deg2rad(forecasts["latitude"]))
    weights[[0, -1]] = (1 - np.sin(np.deg2rad(82.5))) / (2 * np.sin(np.deg2rad(7.5)))  # half cells at the poles
    found = crps_for_ensemble(forecasts, truth, "number", method="fair", preserve_dims="all")
    expected = found.weighted(weights).mean()
    assert record["value"].item() == pytest.approx(float(expected), rel=2e-5)


def truth_of(forecasts):
    """The synthetic planet at the valid times of forecasts, read by the library's own door."""
    from graphcast_batch.inputs.sources.planet_archive import SyntheticArchive
    from graphcast_batch.inputs.sources.synthetic import SyntheticPlanet

    archive = SyntheticArchive(SyntheticPlanet(0), 15.0, (500,))
    times = forecasts["time"].values + forecasts["prediction_timedelta"].values
    fields = archive.fields(("2m_temperature",), times.astype("datetime64[ns]"), (500,))["2m_temperature"]
    return fields.assign_coords(time=forecasts["time"].values)


def test_an_ensemble_of_one_model_is_made_resumed_and_scored(command, tmp_path):
    states = STATES | {"kind": "gaussian"}
    del states["length_km"]
    content = SMALL | {"store": str(tmp_path / "run"), "times": TIMES, "ensemble": {"perturbations": states}}
    done = command("run", written(tmp_path / "run.yaml", content))
    assert "4 of 4 Cases complete, 4 of them made now" in done.stdout, done.stderr

    again = command("run", tmp_path / "run" / "run.yaml")
    assert "4 of 4 Cases complete, 0 of them made now" in again.stdout, again.stderr
    scored = command("evaluate", tmp_path / "run")
    assert "CRPS of the ensemble, global" in scored.stdout, scored.stderr
    stored = xr.open_zarr(tmp_path / "run")
    assert stored["checkpoint"].values.tolist() == ["", ""]
    assert stored["perturbation"].values.tolist() == ["gaussian 0", "gaussian 1"]


def test_checkpoints_of_another_architecture_are_refused_by_name(tmp_path, checkpoints):
    save_weights(tmp_path / "wide.npz", 2, latent_size=16)
    with pytest.raises(CheckpointError, match=r"latent_size is 16 in .*wide\.npz and 8 in .*m00\.npz"):
        plan(config_of(tmp_path / "run", [*checkpoints, tmp_path / "wide.npz"]))


def test_one_set_of_weights_under_two_names_is_refused(tmp_path, checkpoints):
    shutil.copy(checkpoints[1], tmp_path / "copy.npz")
    with pytest.raises(CheckpointError, match=r"copy\.npz holds the same weights as .*m01\.npz"):
        plan(config_of(tmp_path / "run", [*checkpoints, tmp_path / "copy.npz"]))


def test_a_checkpoint_that_was_replaced_fails_its_members_by_name(made, command, tmp_path, checkpoints):
    store, paths = tmp_path / "run", [tmp_path / path.name for path in checkpoints]
    for path, copied in zip(checkpoints, paths, strict=True):
        shutil.copy(path, copied)
    shutil.copytree(made[1], store)
    save_weights(paths[1], 9)

    refused = command("run", written(tmp_path / "run.yaml", config_of(store, paths)))

    assert refused.returncode == 1
    assert re.search(
        r"number 2: weights [0-9a-f]{64} \(m01\), this run has number 2: weights [0-9a-f]{64} \(m01\)", refused.stderr
    ), refused.stderr


def test_a_worker_refuses_a_first_checkpoint_that_was_replaced_since_the_store_was_laid_out(tmp_path, checkpoints):
    path = tmp_path / "m00.npz"
    shutil.copy(checkpoints[0], path)
    run = plan(config_of(tmp_path / "run", [path, checkpoints[1]])).assembled
    lay_out(run, "float32", run_serially)
    save_weights(path, 9)

    (use, *_) = memory_uses(run, accelerated=False)
    with pytest.raises(CheckpointError, match=r"m00\.npz must hold the weights that .* was laid out for"):
        worker_context(run.config, run.source, use, "test")


def test_a_checkpoint_that_is_lost_fails_its_own_members_alone(made, command, tmp_path, checkpoints):
    paths = [tmp_path / path.name for path in checkpoints]
    for path, copied in zip(checkpoints, paths, strict=True):
        shutil.copy(path, copied)
    run = plan(config_of(tmp_path / "run", paths)).assembled
    store = lay_out(run, "float32", run_serially)
    (use, *_) = memory_uses(run, accelerated=False)
    context = worker_context(run.config, run.source, use, "test")
    paths[1].unlink()

    first, *_, last = (case for case in run.plan.cases if case.init_time == run.plan.cases[0].init_time)
    context.run_case(first, None, 1)
    with pytest.raises(CheckpointError, match=r"m01\.npz is not a file"):
        context.run_case(last, None, 1)
    assert store.ledger.complete([first, last]) == [first]
    dispatch = Dispatch([last], retries=5)
    dispatch.add_worker("w")
    dispatch.assign(*dispatch.choose(0.0))
    assert dispatch.fail("w", last, CheckpointError("lost"), 0.0) == 1
    assert not dispatch.unfinished


@pytest.mark.parametrize(
    ("ensemble", "message"),
    [
        ({}, "needs checkpoints, perturbations or lagged hours"),
        ({"checkpoints": 3}, "give a list of checkpoint files, or a glob"),
        ({"checkpoints": []}, "needs checkpoints, perturbations or lagged hours"),
        ({"checkpoints": "nowhere/*.npz"}, "there must be a file at nowhere/"),
        ({"checkpoints": ["a.npz", "a.npz"]}, "name each file once"),
        ({"checkpoints": ["a.npz"], "control": True}, "control: true needs perturbations"),
        ({"checkpoints": ["a.npz"], "combine": "zip", "perturbations": STATES}, "1 checkpoints and 2 states"),
        ({"perturbations": STATES | {"members": 3}}, "members must be even"),
        ({"perturbations": STATES | {"length_km": 500}}, "length_km must be at least 3336"),
        ({"perturbations": STATES | {"amplitude": {"toa_incident_solar_radiation": 1}}}, "toa_incident_solar"),
        ({"members": 4}, "ensemble.members"),
        ({"perturbations": STATES | {"seed": 2**63}}, "perturbations.*seed"),
        ({"checkpoints": [None]}, "give a list of checkpoint files"),
    ],
)
def test_an_ensemble_that_cannot_be_made_is_refused_by_its_key(tmp_path, ensemble, message):
    content = SMALL | {"store": str(tmp_path / "run"), "ensemble": ensemble}
    if ensemble.get("checkpoints"):
        content |= {"model": {}}
    with pytest.raises(ConfigError, match=message):
        plan(content)


def test_weights_are_given_once(tmp_path, checkpoints):
    content = config_of(tmp_path / "run", checkpoints)
    with pytest.raises(ConfigError, match=r"model\.weights must be left out with ensemble\.checkpoints"):
        plan(content | {"model": SMALL["model"]})
    with pytest.raises(ConfigError, match=r"model\.weights is required, or ensemble\.checkpoints"):
        plan(content | {"ensemble": {"perturbations": STATES}})


def test_zip_makes_one_member_of_each_checkpoint(tmp_path, checkpoints):
    ensemble = {"checkpoints": [*map(str, checkpoints)], "perturbations": STATES, "combine": "zip"}
    members = plan(config_of(tmp_path / "run", checkpoints, ensemble=ensemble)).assembled.plan.members

    assert [(member.checkpoint, member.perturbation) for member in members] == [
        ("m00", "spherical 0"),
        ("m01", "spherical 1"),
    ]
