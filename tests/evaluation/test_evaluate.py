"""The command, as a user calls it: real Ray, real zarr."""

import csv
import os

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.outputs.scores import Scores
from graphcast_batch.plan import Case
from tests.evaluation.made import START, cases, fill, stored, truth
from tests.evaluation.test_stored import shifted, times, written

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

    again = command("evaluate", tmp_path / "s")
    assert again.returncode == 0, again.stderr
    assert "forecast: 0 to score, 2 scored before" in again.stdout
    assert "scored now" not in again.stdout


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
    assert set(Scores.at(store.path, "forecast").records()) == {"2020-01-01T00"}


def test_asked_to_stop_it_leaves_the_rest_to_another_run(tmp_path, command):
    store = stored(tmp_path / "s", cases(2), shifted)
    written(tmp_path / "truth.zarr", times(9))
    (store.path / "run.yaml").write_text(CONFIG.format(path=tmp_path / "truth.zarr", store=tmp_path / "s"))
    (tmp_path / "drain").touch()

    done = command("evaluate", tmp_path / "s", env=os.environ | {"GRAPHCAST_BATCH_DRAIN": str(tmp_path / "drain")})

    assert done.returncode == 75, done.stderr
    assert Scores.at(store.path, "forecast").records() == {}


def test_a_climatology_is_made_over_ray_and_gives_anomaly_correlations_and_a_baseline(tmp_path, command):
    summer = [Case(START + np.timedelta64(180, "D"), 4)]  # far from where the wave is cut off by the year's end
    store = stored(tmp_path / "s", summer, lambda name, hours, values: np.roll(values, 1, axis=-1))
    every_third_day = np.add.outer(np.arange(0, 8784, 72), np.arange(0, 24, 6)).ravel() * np.timedelta64(1, "h")
    winds = ("10m_u_component_of_wind", "10m_v_component_of_wind")
    written(tmp_path / "year.zarr", START + every_third_day, lacking=winds)
    written(tmp_path / "truth.zarr", times(9) + np.timedelta64(180, "D"), lacking=winds)
    (store.path / "run.yaml").write_text(CONFIG.format(path=tmp_path / "truth.zarr", store=tmp_path / "s"))

    made = command("climatology", tmp_path / "year.zarr", "--to", tmp_path / "usual.zarr")
    assert made.returncode == 0, made.stderr

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
    assert "too few initial times for a test" in compared.stdout
