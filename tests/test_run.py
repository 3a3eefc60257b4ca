"""Whole runs through the public door: real Ray, real zarr, real processes killed for real."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import xarray as xr
import yaml
from PIL import Image

from graphcast_batch.cli import main
from tests.conftest import FIGURES, ROOT, SMALL

REFERENCE = ROOT / "tests" / "reference"


def files(store):
    """Every file of the forecasts with its content."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in Path(store).rglob("*")
        if path.is_file()
        and path.relative_to(store).parts[0] not in ("ledger", "log", ".staging", "run.yaml", "zarr.json")
    }


def test_a_run_makes_forecasts_and_figures_and_running_again_has_nothing_left_to_do(
    finished, small_config, command, tmp_path
):
    done = finished.told

    assert done.returncode == 0, done.stderr
    assert "4 of 4 Cases complete, 4 of them made now, 0 failed, 0 left" in done.stdout
    assert len(re.findall(r"^2020-01-01T\d\d complete", done.stdout, re.MULTILINE)) == 4
    finished.copy(tmp_path / "run")
    stored = xr.open_zarr(tmp_path / "run")
    assert stored.sizes == {"time": 4, "prediction_timedelta": 3, "level": 13, "latitude": 13, "longitude": 24}
    assert all(np.isfinite(field.values).all() for field in stored.values())
    pictures = sorted(path.relative_to(tmp_path / "run" / "figures") for path in (tmp_path / "run").rglob("*.png"))
    assert len(pictures) == 8
    assert str(pictures[0]) == "2020-01-01T00/2m_temperature_012h.png"
    with Image.open(tmp_path / "run" / "figures" / pictures[0]) as image:
        assert "Initial time 2020-01-01 00:00 UTC, Valid time 2020-01-01 12:00 UTC" in image.text["Description"]

    before = files(tmp_path / "run")
    again = command("run", small_config(figures=FIGURES))
    assert again.returncode == 0
    assert "4 of 4 Cases complete, 0 of them made now" in again.stdout
    assert files(tmp_path / "run") == before

    status = command("status", tmp_path / "run")
    assert status.stdout.splitlines()[0] == "4 complete, 0 running, 0 failed, 0 missing"


def test_a_longer_period_and_more_lead_times_extend_the_store(finished, small_config, command, tmp_path):
    finished.copy(tmp_path / "run")
    first = xr.open_zarr(tmp_path / "run").load()

    longer = small_config(times=SMALL["times"] | {"last": "2020-01-02T06"})
    done = command("run", longer)
    assert "6 of 6 Cases complete, 2 of them made now" in done.stdout, done.stderr
    done = command("run", small_config(times=SMALL["times"] | {"last": "2020-01-02T06"}, steps=5))
    assert "6 of 6 Cases complete, 6 of them made now" in done.stdout, done.stderr

    extended = xr.open_zarr(tmp_path / "run").load()
    assert (extended.sizes["time"], extended.sizes["prediction_timedelta"]) == (6, 5)
    kept = extended.isel(time=slice(0, 4), prediction_timedelta=slice(0, 3))
    for name in first:
        np.testing.assert_allclose(kept[name].values, first[name].values, rtol=1e-5, atol=1e-6)


def test_another_precision_is_refused_with_the_difference(finished, small_config, command, tmp_path):
    finished.copy(tmp_path / "run")

    refused = command("run", small_config(model=SMALL["model"] | {"precision": "bfloat16"}))

    assert refused.returncode == 1
    assert "StoreMismatchError" in refused.stderr
    assert re.search(r"precision.*float32.*bfloat16|precision.*bfloat16.*float32", refused.stderr, re.DOTALL)
    assert "Traceback" not in refused.stderr


def test_a_run_killed_halfway_makes_only_what_is_missing_and_ends_bit_identical(
    small_config, command, begin_on_ray, tmp_path
):
    many = {"times": SMALL["times"] | {"last": "2020-01-04T18"}}  # 16 Cases
    undisturbed, disturbed = small_config("undisturbed", **many), small_config("disturbed", **many)
    assert command("run", undisturbed).returncode == 0

    store = tmp_path / "disturbed"
    killed = begin_on_ray("run", disturbed, cwd=tmp_path)
    deadline = time.monotonic() + 240
    while len(list(store.glob("ledger/**/2020*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.end().returncode == -signal.SIGKILL
    _await_end_of_workers(store)
    complete = {path.stem: path.stat().st_mtime_ns for path in store.glob("ledger/**/2020*.json")}
    assert 3 <= len(complete) < 16

    done = command("run", disturbed)

    assert done.returncode == 0, done.stderr
    assert f"16 of 16 Cases complete, {16 - len(complete)} of them made now" in done.stdout
    after = {path.stem: path.stat().st_mtime_ns for path in store.glob("ledger/**/2020*.json")}
    assert all(after[key] == written for key, written in complete.items())
    assert files(store) == files(tmp_path / "undisturbed")
    assert not list((store / ".staging").iterdir())
    assert not list(store.rglob("*.claim"))


def _await_end_of_workers(store):
    """Ray's workers notice the death of their driver a little later, and may make a Case whole until then."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        records = [json.loads(path.read_text()) for path in store.glob("ledger/**/2020*.json")]
        pids = {record["worker"].split(":")[1] for record in records}
        if not any(_lives(pid) for pid in pids):
            return
        time.sleep(0.2)


def _lives(pid):
    """A zombie, which only waits for a parent to ask after it, does not."""
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _terminated(config, appeared):
    """A run of a user that gets SIGTERM as soon as something is there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "graphcast_batch", "run", config],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _await(lambda: appeared(process.pid))
    process.terminate()
    out, err = process.communicate(timeout=120)
    return process.returncode, out + err


def _await(appeared):
    deadline = time.monotonic() + 120
    while not appeared() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_sigterm_drains_and_exits_with_work_left(small_config, tmp_path):
    config = small_config(times=SMALL["times"] | {"last": "2020-03-01T00"}, steps=8)

    code, told = _terminated(config, lambda _: list(tmp_path.glob("run/ledger/**/2020*.json")))

    assert code == 75, told
    assert re.search(r"(\d+) of 241 Cases complete, \1 of them made now, 0 failed, (\d+) left", told)
    assert re.search(r"^SIGTERM: no other Case is begun, and \d in progress are finished, ", told, re.MULTILINE)
    assert not list(tmp_path.glob("run/ledger/**/*.claim"))


@pytest.mark.slow
def test_ctrl_c_is_answered_with_the_cases_that_are_finished_and_a_second_one_ends_the_run(
    small_config, begin_on_ray, tmp_path
):
    long = {"steps": 400, "limits": "off", "model": SMALL["model"] | {"steps_per_call": 1}}
    config = small_config(times=SMALL["times"] | {"last": "2020-01-02T06"}, **long)

    begun = begin_on_ray("run", config, "--quiet", cwd=tmp_path)
    _await(lambda: list(tmp_path.glob("run/.staging/*")))
    os.kill(begun.pid, signal.SIGINT)
    done = begun.end()

    assert done.returncode == 75, done.stderr
    found = re.search(
        r"^SIGINT: no other Case is begun, and (\d) in progress are finished, (?:which takes [\d:]+ at most|for how "
        r"long is not known before their first steps are made): (2020-.*)\. A second signal ends the command at once",
        done.stderr,
        re.MULTILINE,
    )
    assert found, done.stderr
    finished = sorted(path.stem for path in tmp_path.glob("run/ledger/**/2020*.json"))
    assert sorted(re.findall(r"(2020-[\dT-]+) \(\d+ of 400 steps\)", found[2])) == finished
    assert f"{found[1]} of 6 Cases complete, {found[1]} of them made now, 0 failed" in done.stdout
    assert 0 < int(found[1]) < 6

    begun = begin_on_ray("run", config, cwd=tmp_path)
    _await(lambda: list(tmp_path.glob("run/.staging/*")))
    os.kill(begun.pid, signal.SIGINT)
    _await(lambda: any("stopping" in path.read_text() for path in tmp_path.glob(f"run/log/*-{begun.pid}.jsonl")))
    os.kill(begun.pid, signal.SIGINT)
    done = begun.end()

    assert done.returncode == 130, done.stderr
    assert done.stderr.count("SIGINT: no other Case is begun") == 1
    assert sorted(path.stem for path in tmp_path.glob("run/ledger/**/2020*.json")) == finished
    assert not list(tmp_path.glob("run/ledger/**/*.claim"))


def test_a_drain_also_ends_the_drawing_and_leaves_the_rest_for_the_next_run(
    small_config, command, begin_on_ray, tmp_path
):
    config = small_config(
        times=SMALL["times"] | {"last": "2020-01-02T06"},
        figures={"variables": ["temperature"], "levels": [500], "lead_hours": [6, 18]},
    )

    begun = begin_on_ray("run", config, cwd=tmp_path)
    _await(lambda: list(tmp_path.glob("run/figures/*/*.png")))
    os.kill(begun.pid, signal.SIGTERM)
    done = begun.end()

    assert done.returncode == 75, done.stderr
    assert "6 of 6 Cases complete" in done.stdout
    assert 0 < len(list(tmp_path.glob("run/figures/*/*.png"))) < 6 * 2
    done = command("run", config)
    assert done.returncode == 0
    assert len(list(tmp_path.glob("run/figures/*/*.png"))) == 6 * 2


def test_sigterm_before_ray_has_started_also_leaves_the_work(small_config, tmp_path):
    def starts(pid):
        return any(child.name() == "gcs_server" for child in psutil.Process(pid).children(recursive=True))

    code, told = _terminated(small_config(), starts)

    assert code == 75, told
    assert "T00 complete" not in told


HRES = ROOT.parent / "shared" / "data" / "hres_2024-06-03_res-10.0_levels-6.nc"


@pytest.mark.slow
@pytest.mark.skipif(
    not HRES.exists(), reason=f"the real ECMWF fields are not at {HRES}; other archives are tried below"
)
def test_the_hres_config_runs_on_real_fields(command, tmp_path):
    config = yaml.safe_load((ROOT / "configs" / "hres.yaml").read_text())
    config |= {"store": str(tmp_path / "hres"), "inputs": {"kind": "archive", "path": str(HRES)}}
    (tmp_path / "hres.yaml").write_text(yaml.safe_dump(config))

    done = command("run", tmp_path / "hres.yaml")

    assert done.returncode == 0, done.stderr
    assert "7 of 7 Cases complete" in done.stdout
    stored = xr.open_zarr(tmp_path / "hres")
    assert dict(stored.sizes) == {"time": 7, "prediction_timedelta": 4, "level": 6, "latitude": 19, "longitude": 36}
    assert all(np.isfinite(field.values).all() for field in stored.values())


def test_an_archive_that_lacks_a_variable_is_refused_before_anything_starts(small_config, command, tmp_path):
    _archive(tmp_path / "archive.nc").drop_vars("2m_temperature").to_netcdf(tmp_path / "archive.nc")

    for name in ("plan", "run"):
        done = command(name, small_config(**_on(tmp_path / "archive.nc")))
        assert done.returncode == 1
        assert re.search(r"InputError: .*lacks the variables 2m_temperature", done.stderr)
    assert not (tmp_path / "run").exists()


def test_dataset_files_that_do_not_fit_the_checkpoint_are_set_aside_and_the_rest_has_deepminds_numbers(
    small_config, command, tmp_path
):
    config = small_config(
        inputs={"kind": "datasets", "path": str(REFERENCE / "*" / "source-*.nc")},
        times=None,
        steps=4,
        model={
            "weights": {"kind": "checkpoint", "path": str(REFERENCE / "small_13" / "checkpoint.npz")},
            "statistics": str(REFERENCE / "small_13"),
        },
        figures={"variables": ["temperature"], "levels": [850]},
    )

    done = command("run", config)

    assert done.returncode == 3
    assert "1 of 1 Cases complete" in done.stdout
    assert re.search(
        r"skipped: source-fake_date-2021-06-30.*must be on a grid of 10°.*is on 16 x 30 \(12°\)", done.stdout
    )
    forecast = xr.open_zarr(tmp_path / "run").isel(time=0)
    expected = xr.open_dataset(REFERENCE / "small_13" / "predictions_float32.nc", decode_timedelta=True).isel(batch=0)
    for name, field in expected.items():
        np.testing.assert_allclose(
            forecast[name].values, field.transpose("time", ...).values, rtol=2e-6, atol=2e-6 * abs(field.values).max()
        )
    assert len(list((tmp_path / "run" / "figures" / "2022-01-01T06").glob("temperature_at_850_hPa_*.png"))) == 4


def test_a_case_with_broken_input_fails_alone_and_is_tried_again_once_it_is_mended(small_config, command, tmp_path):
    archive = _archive(tmp_path / "archive.nc")
    spoilt = archive.copy(deep=True)
    spoilt["temperature"][4, 1, 3, 5] = np.nan
    spoilt.to_netcdf(tmp_path / "archive.nc")
    config = small_config(**_on(tmp_path / "archive.nc"))

    done = command("run", config)

    assert done.returncode == 3
    assert "3 of 5 Cases complete, 3 of them made now, 2 failed, 0 left" in done.stdout
    told = re.findall(r"^(\S+) failed: InputError: the inputs at", done.stdout, re.MULTILINE)
    assert sorted(told) == ["2020-01-02T00", "2020-01-02T06"]
    status = command("status", tmp_path / "run").stdout
    assert "3 complete, 0 running, 2 failed, 0 missing" in status
    assert re.search(r"2020-01-02T00 failed after 1 attempts.*temperature.*850", status, re.DOTALL)
    missing = xr.open_zarr(tmp_path / "run")["temperature"].sel(time="2020-01-02T00")
    assert np.isnan(missing.values).all()

    archive.to_netcdf(tmp_path / "archive.nc")
    again = command("run", config).stdout
    assert "0 of them made now, 2 failed" in again
    assert re.search(r"2020-01-02T00 failed .*temperature.*850.*retry-failed STORE", again, re.DOTALL)
    assert (
        "2 Cases will be tried again by the next run: 2020-01-02T00 2020-01-02T06"
        in command("retry-failed", tmp_path / "run").stdout
    )
    done = command("run", config)
    assert done.returncode == 0
    assert "5 of 5 Cases complete, 2 of them made now, 0 failed" in done.stdout


def test_initial_times_that_the_archive_lacks_are_set_aside(small_config, command, tmp_path):
    _archive(tmp_path / "archive.nc").to_netcdf(tmp_path / "archive.nc")
    config = small_config(
        **_on(tmp_path / "archive.nc") | {"times": {"list": ["2020-01-01T00", "2020-01-01T06", "2020-02-01T00"]}}
    )

    done = command("plan", config)

    assert done.returncode == 0
    assert "skipped: 2020-01-01T00: the archive lacks 2019-12-31T18" in done.stdout
    assert "skipped: 2020-02-01T00" in done.stdout
    assert re.search(r"Cases +1: 2020-01-01T06 to 2020-01-01T06", done.stdout)


def test_an_archive_is_made_measured_checked_and_planned(small_config, command, tmp_path):
    span = ("--first", "2020-01-01T00", "--last", "2020-01-02T00")
    made = command("archive", "synthetic", "--out", tmp_path / "planet.zarr", *span, "--res", 7.5, "--levels", "13")
    assert made.returncode == 0, made.stderr
    measured = command("stats", "../planet.zarr", "--to", tmp_path / "stats")
    assert measured.returncode == 0, measured.stderr
    planet = xr.open_zarr(tmp_path / "planet.zarr", chunks=None)["temperature"].astype(float)
    kept = xr.open_dataset(tmp_path / "stats" / "stddev_by_level.nc")["temperature"]
    np.testing.assert_allclose(kept, planet.std(("time", "latitude", "longitude")), rtol=1e-9)

    weights = SMALL["model"]["weights"]
    model = {"weights": weights | {"architecture": weights["architecture"] | {"resolution": 15}}}
    config = small_config(
        inputs={"kind": "archive", "path": str(tmp_path / "planet.zarr"), "regrid": "subsample"},
        times={"list": ["2020-01-01T00", "2020-01-01T06", "2020-01-01T12"]},
        model=model | {"statistics": str(tmp_path / "stats")},
    )
    checked = command("check", config)
    assert checked.returncode == 3, checked.stderr
    assert "2 of 3 Cases can be run, 1 cannot" in checked.stdout
    assert "2020-01-01T00" in checked.stdout
    assert re.search(r"2019-12-31T18:00\s", checked.stdout)
    planned = command("plan", config)
    assert planned.returncode == 0, planned.stderr
    words = " ".join(planned.stdout.split())
    assert "layout WeatherBench 2's names regridded" in words
    assert "regridded from 25 x 48 (7.5°) by subsample" in words
    assert "skipped: 2020-01-01T00: the archive lacks 2019-12-31T18" in words


def test_published_files_are_fetched_from_a_mirror_and_named_where_they_are_not(command, tmp_path):
    (tmp_path / "mirror" / "stats").mkdir(parents=True)
    missing = command("fetch", "stats", "--to", tmp_path / "here", "--mirror", tmp_path / "mirror")
    assert missing.returncode == 1
    assert re.search(r"InputNotFoundError: the mirror must hold .*diffs_stddev_by_level\.nc", missing.stderr)
    unknown = command("fetch", "checkpoint", "GraphCast_smal", "--mirror", tmp_path / "mirror")
    assert "GraphCast_small" in unknown.stderr


def _archive(path):
    """A small archive of the synthetic planet, of a task that is none of the published ones."""
    from graphcast_batch.grid import regular_grid
    from graphcast_batch.inputs.sources.synthetic import SyntheticPlanet

    times = np.arange("2020-01-01T00", "2020-01-02T13", 6, dtype="datetime64[h]").astype("datetime64[ns]")
    names = ["temperature", "2m_temperature", "land_sea_mask"]
    return SyntheticPlanet().fields(names, times, regular_grid(15), [500, 850])


def _on(path):
    forcings = ["toa_incident_solar_radiation", "day_progress_sin"]
    task = {
        "input_variables": ["temperature", "2m_temperature", "land_sea_mask", *forcings],
        "target_variables": ["temperature", "2m_temperature"],
        "forcing_variables": forcings,
        "pressure_levels": [500, 850],
    }
    weights = SMALL["model"]["weights"] | {"task": task}
    return {
        "inputs": {"kind": "archive", "path": str(path)},
        "times": {"first": "2020-01-01T06", "last": "2020-01-02T06", "every_hours": 6},
        "model": {"weights": weights, "statistics": str(_statistics(path.parent))},
        "workers": SMALL["workers"] | {"count": 1},
    }


def _statistics(folder):
    place = folder / "statistics"
    if not place.exists():
        from graphcast_batch.inputs.statistics import read_statistics, write_statistics

        write_statistics(read_statistics(ROOT / "stats" / "synthetic"), place)
    return place


@pytest.fixture
def run_serially(tmp_path, monkeypatch, capsys):
    """Runs what stops before it starts anything, which needs no process of its own."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(list(map(str, arguments)))
        out, told = capsys.readouterr()
        assert "Traceback" not in out + told
        return ended.value.code, told

    return call


def test_statistics_that_are_not_given_are_computed_from_the_inputs_and_kept(small_config, command, tmp_path):
    _archive(tmp_path / "archive.nc").to_netcdf(tmp_path / "archive.nc")
    sections = _on(tmp_path / "archive.nc")
    del sections["model"]["statistics"]

    done = command("run", small_config(**sections))

    assert done.returncode == 0, done.stderr
    kept = xr.open_dataset(tmp_path / "run" / "statistics" / "mean_by_level.nc")
    archive = _archive(None)
    expected = archive["temperature"].astype(float).mean(("time", "latitude", "longitude"))
    np.testing.assert_allclose(kept["temperature"].sel(level=[500, 850]), expected, rtol=1e-6)
    assert "5 of 5 Cases complete, 0 of them made now" in command("run", small_config(**sections)).stdout


@pytest.mark.parametrize(
    ("changes", "message", "code"),
    [
        ({"stpes": 3}, r"stpes: unknown key; did you mean steps\?", 2),
        ({"inputs": {"kind": "archive", "path": "nowhere.nc"}}, r"InputNotFoundError.*nowhere\.nc", 1),
        ({"figures": {"variables": ["2m_temprature"]}}, r"FigureError.*2m_temprature", 2),
        ({"figures": {"variables": ["temperature"], "levels": [501]}}, r"FigureError.*501", 2),
        ({"model": SMALL["model"] | {"statistics": "nowhere"}}, r"StatisticsError.*nowhere", 1),
        (
            {"model": SMALL["model"] | {"weights": {"kind": "checkpoint", "path": "none.npz"}}},
            r"CheckpointError.*none\.npz is not a file",
            1,
        ),
    ],
)
def test_what_cannot_run_says_why_in_a_few_lines(small_config, run_serially, changes, message, code):
    ended, told = run_serially("run", small_config(**changes))

    assert ended == code, told
    assert re.search(message, told, re.DOTALL)


def test_a_gpu_that_is_not_there_is_told_in_a_few_lines(small_config, command):
    done = command("run", small_config(workers={"device": "gpu"}))

    assert done.returncode == 1, done.stderr
    assert re.search(r"ClusterError.*Ray sees no GPU", done.stderr, re.DOTALL)
    assert "Traceback" not in done.stderr + done.stdout


def test_figures_can_be_drawn_anew_from_the_store_alone(finished, command, tmp_path):
    finished.copy(tmp_path / "run")
    for picture in (tmp_path / "run").rglob("*.png"):
        picture.unlink()

    done = command("figures", tmp_path / "run")

    assert "drawing the figures of 4 Cases\n8 figures in" in done.stdout, done.stderr
    assert len(list((tmp_path / "run").rglob("*.png"))) == 8


def infer(command, case, *options):
    (dataset,) = (REFERENCE / case).glob("source-*.nc")
    return command("infer", "--dataset", dataset, *options)


# The loss of both is compared in tests/models/test_loss.py.
@pytest.mark.parametrize(("case", "loss"), [("small_13", ["--loss"]), ("operational_13", [])])
def test_infer_has_deepminds_numbers_and_draws_the_variable(command, case, loss, tmp_path):
    (dataset,) = (REFERENCE / case).glob("source-*.nc")
    options = ("--mode", "Checkpoint", "--pretrained", REFERENCE / case / "checkpoint.npz", "--var", "temperature")

    done = command(
        *("infer", "--dataset", dataset, *options, "--level", 500, "--save", "all.nc", *loss),
        *("--stats", REFERENCE / case, "--precision", "float32"),
        also={} if loss else {"XLA_FLAGS": ""},  # as a user's, but for gradients, which take long to compile so
    )

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cwd" / "temperature_at_500_hPa.png").stat().st_size > 10_000
    saved = xr.open_dataset(tmp_path / "cwd" / "all.nc", decode_timedelta=True)
    assert saved["temperature"].dims == ("batch", "time", "level", "lat", "lon")
    expected = xr.open_dataset(REFERENCE / case / "predictions_float32.nc", decode_timedelta=True)
    deviation = xr.open_dataset(REFERENCE / case / "stats_diffs_stddev_by_level.nc")
    for name, field in expected.items():
        assert float((abs(saved[name] - field) / deviation[name]).max()) < 2e-4, name
    assert ("\n{" in done.stdout) == bool(loss)
    if loss:
        found = json.loads(done.stdout[done.stdout.index("\n{") :])
        reference = json.loads((REFERENCE / case / "loss.json").read_text())["float32"]
        assert found["loss"] == pytest.approx(reference["loss"], rel=1e-4)
        assert found["gradient_norm"] == pytest.approx(reference["gradient_norm"], rel=1e-3)


def test_infer_with_random_weights_needs_nothing_but_the_dataset(command, tmp_path):
    done = infer(command, "operational_13", "--mode", "Random", "--steps", 3)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cwd" / "2m_temperature.png").exists()
    assert re.search(r"Dimensions: +\(batch: 1, time: 3, lat: 16, lon: 30", done.stdout)


def test_infer_takes_a_random_model_from_yaml(command, tmp_path):
    shape = {"architecture": {"mesh_size": 0, "latent_size": 4, "gnn_msg_steps": 1}, "task": "GraphCast_operational"}
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(shape | {"seed": 3}))

    done = infer(command, "operational_13", "--mode", "Random", "--pretrained", tmp_path / "model.yaml", "--steps", 1)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--mode", "Checkpoint"), 1, "needs the path of a checkpoint; give it with --pretrained"),
        (("--mode", "Random", "--var", "wind"), 2, "the variable wind is not predicted; take one of 10m_u_comp"),
        (("--mode", "Random", "--var", "temperature", "--level", "333"), 2, "temperature is not predicted at 333 hPa"),
    ],
)
def test_infer_says_what_does_not_fit(run_serially, options, code, message):
    ended, told = infer(run_serially, "small_13", *options)

    assert ended == code
    assert message in " ".join(told.split())


def test_a_dataset_may_hold_more_than_the_checkpoint_asks_for(command):
    done = infer(
        command, "small_13", "--mode", "Checkpoint", "--pretrained", REFERENCE / "operational_13" / "checkpoint.npz"
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("job", "word"), [("forecast", "CONFIG"), ("figures", "STORE"), ("inference", "--pretrained")])
def test_the_jobs_are_the_commands(job, word):
    done = subprocess.run(
        [sys.executable, ROOT / "jobs" / f"{job}.py", "--help"], capture_output=True, text=True, check=True
    )

    assert word in done.stdout
