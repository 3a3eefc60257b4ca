"""The command, as a user calls it: real Ray, real zarr."""

import csv
import os
import shutil
import signal
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import xarray as xr

from graphcast_batch.evaluation.score_store import ScoreStore
from graphcast_batch.inputs.sources import archive_writer
from graphcast_batch.plan import Case
from tests.evaluation.made import AMPLITUDE, START, cases, fill, stored, truth
from tests.evaluation.test_stored import score, shifted, times, written

CONFIG = """
inputs: {{kind: archive, path: {path}}}
times: {{first: 2020-01-01T00, last: 2020-01-02T00, every_hours: 12}}
store: {store}
steps: 4
model: {{weights: {{kind: checkpoint, path: never-opened.npz}}}}
"""


def test_a_store_is_scored_over_ray_taken_up_again_and_held_against_a_baseline(tmp_path, command):
    planned = cases(3)
    store = stored(tmp_path / "s", planned, shifted, filled=planned[:2])
    written(tmp_path / "truth.zarr", times(9))
    (store.path / "run.yaml").write_text(CONFIG.format(path=tmp_path / "truth.zarr", store=tmp_path / "s"))

    done = command("evaluate", tmp_path / "s", "--baseline", "persistence", "--out", tmp_path / "scores.csv")

    assert done.returncode == 0, done.stderr
    assert "forecast: 2 to score, 0 scored before" in done.stdout
    assert "4 scored now, 0 failed, 0 left" in done.stdout
    assert "skill over persistence" in done.stdout
    row = next(line for line in done.stdout.splitlines() if "temperature 850" in line)
    assert [part.strip() for part in row.split("│")[1:-1]] == ["temperature 850", "K", "2", "2"]
    assert len((tmp_path / "scores.csv").read_text().splitlines()) > 1
    opened = xr.open_zarr(tmp_path / "s" / "scores" / "persistence", chunks=None)
    assert np.isfinite(opened["temperature"][:, :2]).all()

    again = command("evaluate", tmp_path / "s", "--out", tmp_path / "hours.csv", "--over", "hour")
    assert again.returncode == 0, again.stderr
    hours = {line.split(",")[4] for line in (tmp_path / "hours.csv").read_text().splitlines()}
    assert hours == {"hour", "0", "12"}
    assert "forecast: 0 to score, 2 scored before" in again.stdout
    assert "scored now" not in again.stdout


def test_a_table_is_asked_for_with_what_it_averages_over(tmp_path, command):
    done = command("evaluate", tmp_path, "--over", "hour")
    assert done.returncode == 2
    assert "give --out too" in " ".join(done.stderr.replace("│", " ").split())


def test_a_case_with_a_gap_is_told_while_the_others_are_scored(tmp_path, command):
    def change(name, hours, values):
        values = values + 2
        if change.case == 1:
            values[..., 0, 0] = np.nan
        return values

    planned = cases(2)
    store = stored(tmp_path / "s", planned, shifted, filled=[])
    for number, case in enumerate(planned):
        change.case = number
        fill(store, case, change, truth())
    written(tmp_path / "truth.zarr", times(9))
    (store.path / "run.yaml").write_text(CONFIG.format(path=tmp_path / "never.zarr", store=tmp_path / "s"))

    done = command("evaluate", tmp_path / "s", "--truth", tmp_path / "truth.zarr")

    assert done.returncode == 3, done.stderr
    assert "forecast 2020-01-01T12 was not scored: 2020-01-01T12: the forecast must be finite" in done.stderr
    assert "1 scored now, 1 failed, 0 left" in done.stdout
    assert set(ScoreStore.at(store.path, "forecast").records()) == {"2020-01-01T00"}


def test_asked_to_stop_it_leaves_the_rest_to_another_run(tmp_path, command):
    store = stored(tmp_path / "s", cases(2), shifted)
    written(tmp_path / "truth.zarr", times(9))
    (store.path / "run.yaml").write_text(CONFIG.format(path=tmp_path / "truth.zarr", store=tmp_path / "s"))
    (tmp_path / "drain").touch()

    done = command("evaluate", tmp_path / "s", also={"GRAPHCAST_BATCH_DRAIN": str(tmp_path / "drain")})

    assert done.returncode == 75, done.stderr
    assert ScoreStore.at(store.path, "forecast").records() == {}


def test_a_climatology_is_made_over_ray_and_gives_anomaly_correlations_and_a_baseline(tmp_path, command):
    summer = [Case(START + np.timedelta64(180, "D"), 4, 6)]  # far from where the wave is cut off by the year's end
    store = stored(tmp_path / "s", summer, lambda name, hours, values: np.roll(values, 1, axis=-1))
    every_third_day = np.add.outer(np.arange(0, 8784, 72), np.arange(0, 24, 6)).ravel() * np.timedelta64(1, "h")
    winds = ("10m_u_component_of_wind", "10m_v_component_of_wind")
    written(tmp_path / "year.zarr", START + every_third_day, lacking=winds)
    written(tmp_path / "truth.zarr", times(9) + np.timedelta64(180, "D"), lacking=winds)
    (store.path / "run.yaml").write_text(CONFIG.format(path=tmp_path / "truth.zarr", store=tmp_path / "s"))

    asked = ("climatology", tmp_path / "year.zarr", "--to", tmp_path / "usual.zarr", "--variable", "temperature")
    for levels, code, told in (
        ("all", 2, "13, 37, or levels in hPa"),
        ("300", 1, "500, 850 hPa, but 300 hPa were chosen"),
    ):
        refused = command(*asked, "--levels", levels)
        assert (refused.returncode, told in refused.stderr) == (code, True), refused.stderr
    made = command(*asked, "--levels", "500,850")
    assert made.returncode == 0, made.stderr
    # 684 points and two levels; 48 shards of the mean, as many of the deviation, and what describes them
    assert "1 variables on 2 levels at 4 hours of the day on 19 x 36" in made.stdout
    assert "16 MB in 109 files before compression, and up to 16 MB beside them" in made.stdout
    assert set(xr.open_zarr(tmp_path / "usual.zarr").data_vars) == {"temperature", "temperature_std"}

    usual = ("--climatology", tmp_path / "usual.zarr", "--baseline", "climatology")
    done = command("evaluate", tmp_path / "s", *usual, "--out", tmp_path / "scores.csv")

    assert done.returncode == 0, done.stderr
    assert "skill over climatology" in done.stdout
    with (tmp_path / "scores.csv").open() as file:
        scores = {
            (row["variable"], row["level"], row["region"], row["lead_hours"], row["metric"]): row
            for row in csv.DictReader(file)
        }
    # A twelfth of a turn late; the window leaves a fiftieth of the wave in its mean, hence the tolerance.
    acc = scores["temperature", "850", "global", "24", "acc"]
    assert float(acc["value"]) == pytest.approx(np.cos(np.deg2rad(30)), abs=0.02)

    compared = command("compare", tmp_path / "s", "climatology")
    assert compared.returncode == 0, compared.stderr
    assert "more than 10 days" in compared.stdout


RAINY = (("10m_u_component_of_wind", False), ("10m_v_component_of_wind", False), ("total_precipitation_6hr", False))
DERIVED = ("10m_wind_speed", "total_precipitation_24hr")


def rainy_archive(path, when):
    source, names = truth(), [name for name, _ in RAINY]
    draft = archive_writer.lay_out(path, {name: source.dims[name] for name in names}, source.grid, source.levels, when)
    archive_writer.fill(draft, 0, source.fields(names, when, source.levels))
    archive_writer.publish(draft, path)


def test_a_climatology_of_derived_variables_scores_those_of_the_forecasts(tmp_path, command):
    summer = [Case(START + np.timedelta64(180, "D"), 4, 6)]
    store = stored(tmp_path / "s", summer, lambda name, hours, values: 2 * values, variables=RAINY)
    # Every five days a day and a half: of its last four times there are sums, at all phases of the wave.
    days = np.add.outer(np.arange(0, 8700, 120), np.arange(0, 42, 6)).ravel() * np.timedelta64(1, "h")
    rainy_archive(tmp_path / "year.zarr", START + days)
    rainy_archive(tmp_path / "truth.zarr", times(5) + np.timedelta64(180, "D"))
    config = CONFIG.format(path=tmp_path / "truth.zarr", store=store.path)
    usual = f"scores: {{climatology: {tmp_path / 'usual.zarr'}, derived: [{', '.join(DERIVED)}]}}\n"
    (tmp_path / "run.yaml").write_text(config + usual)

    asked = [word for name in DERIVED for word in ("--derived", name)]
    made = command("climatology", tmp_path / "year.zarr", "--to", tmp_path / "usual.zarr", *asked)
    done = command("evaluate", tmp_path / "run.yaml", "--out", tmp_path / "scores.parquet")

    assert (made.returncode, done.returncode) == (0, 0), made.stderr + done.stderr
    opened = xr.open_zarr(tmp_path / "usual.zarr", chunks=None)
    assert [opened[f"{name}{kind}"].attrs["units"] for name in DERIVED for kind in ("", "_std")] == [
        *("m s**-1", "m s**-1", "m", "m")
    ]
    assert opened["total_precipitation_24hr_seeps_dry_fraction"].attrs["units"] == "1"
    scores = {
        (row["variable"], row["metric"]): row["value"]
        for row in pq.read_table(tmp_path / "scores.parquet").to_pylist()
        if (row["region"], row["lead_hours"]) == ("global", 24)
    }
    # Two components that are one wave, doubled, err by its size; four waves an angle apart add up to one of this size.
    assert scores["10m_wind_speed", "rmse"] == pytest.approx(AMPLITUDE, rel=1e-5)
    day = AMPLITUDE * np.sin(np.deg2rad(45)) / np.sin(np.deg2rad(11.25)) / np.sqrt(2)
    assert scores["total_precipitation_24hr", "rmse"] == pytest.approx(day, rel=1e-5)
    # In a triangle that reaches six samples to either side, a quarter of a turn apart, 1/18 of a wave is left (Fejér).
    assert scores["total_precipitation_24hr", "truth_activity"] == pytest.approx(day * 17 / 18, rel=1e-3)
    assert ("total_precipitation_24hr", "seeps") in scores


def test_an_evaluation_that_was_killed_goes_on_where_it_was(tmp_path, begin_on_ray, command):
    planned = cases(40)
    store = stored(tmp_path / "s", planned, shifted)
    written(tmp_path / "truth.zarr", times(90))
    (store.path / "run.yaml").write_text(CONFIG.format(path=tmp_path / "truth.zarr", store=store.path))
    scores = ScoreStore.at(store.path, "forecast")
    first = begin_on_ray("evaluate", store.path, cwd=tmp_path)
    while first.is_running and len(scores.keys()) < 3:
        time.sleep(0.005)
    os.kill(first.pid, signal.SIGKILL)
    killed = first.end()
    before = scores.records()

    done = command("evaluate", store.path)

    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    assert done.returncode == 0, done.stderr
    assert 3 <= len(before) < 40
    records = scores.records()
    assert set(records) == {case.key for case in planned}
    assert {key: records[key] for key in before} == before
    found = scores.dataset().load()
    shutil.rmtree(scores.folder)
    score(store)
    xr.testing.assert_equal(found, scores.dataset().load())
