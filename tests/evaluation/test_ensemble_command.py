"""What the command says and writes of an ensemble, its control, its vectors and its baselines."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.special import erf

from graphcast_batch.app.score_drawing import draw_scores
from graphcast_batch.evaluation.ensemble_curves import energy_curves
from tests.evaluation.made import AMPLITUDE, TURN_HOURS, WAVES, cases, stored
from tests.evaluation.test_climatology import usual_wave
from tests.evaluation.test_ensemble import SHIFTS, shifted_by
from tests.evaluation.test_evaluate import CONFIG
from tests.evaluation.test_stored import times, written

U, V = "10m_u_component_of_wind", "10m_v_component_of_wind"
DEVIATION = 1.5
SECTION = f"""
scores:
  regions: [global]
  vectors: {{wind: [{U}, {V}]}}
  spectra: [temperature]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory, run_on_ray):
    """Three stores, whose members are shifted by the same in all variables, scored with what can be said of them."""
    folder = tmp_path_factory.mktemp("three")
    stores = [stored(folder / f"s{shift}", cases(2), shifted_by(shift)) for shift in SHIFTS]
    written(folder / "truth.zarr", times(9))
    usual = xr.open_zarr(usual_wave(folder / "mean.zarr"), chunks=None).load()
    deviations = {f"{name}_std": 0 * array + np.float32(DEVIATION) for name, array in usual.data_vars.items()}
    usual.assign(deviations).to_zarr(folder / "usual.zarr", zarr_format=2)
    config = CONFIG.format(path=folder / "truth.zarr", store=stores[0].path) + SECTION
    (stores[0].path / "run.yaml").write_text(config)
    members = [part for store in stores[1:] for part in ("--member", store.path)]
    options = ["--climatology", folder / "usual.zarr", "--baseline", "persistence"]
    options += ["--out", folder / "scores.csv", "--spectra-out", folder / "spectra.csv"]
    done = run_on_ray("evaluate", stores[0].path, *members, *options, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, stores[0].path, done.stdout


def shown(text, title):
    """The lines of a printed table."""
    lines = text[text.index(title) :].partition("└")[0].splitlines()
    return [[part.strip() for part in line.split("│")[1:-1]] for line in lines if "│" in line]


def energy():
    """Of vectors with equal components: the square root of 2 times the fair CRPS of one of them."""
    distances = np.abs(np.subtract.outer(SHIFTS, SHIFTS))
    return np.sqrt(2) * (np.abs(SHIFTS).mean() - distances.sum() / 12)


def gaussian_crps(distance):
    """Mean distance of a Gaussian from a number, less half the mean distance of two draws from it."""
    folded = DEVIATION * np.sqrt(2 / np.pi) * np.exp(-(distance**2) / (2 * DEVIATION**2))
    return folded + distance * erf(distance / (DEVIATION * np.sqrt(2))) - DEVIATION / np.sqrt(np.pi)


def crps_of_persistence(hours):
    """The mean over a wave's phase: it changes by 2 A |sin(turn / 2)| times the cosine of its phase."""
    phase = 2 * np.pi * (np.arange(36) + 0.5) * WAVES / 36
    change = 2 * AMPLITUDE * np.sin(np.pi * hours / TURN_HOURS) * np.cos(phase)
    return gaussian_crps(change).mean()


def test_energy_scores_of_vectors_are_printed_with_their_unit_and_drawn(made):
    _, store, text = made
    (row,) = (row for row in shown(text, "CRPS of the ensemble, global") if row[0].startswith("wind"))

    assert row == ["wind, energy score", "m s**-1", f"{energy():.4g}", "2"]
    array = xr.open_zarr(store / "scores" / "ensemble")["wind"]
    assert array.attrs["variable_units"] == "m s**-1"
    (curve,) = energy_curves({"ensemble": (store, "ensemble")}, "global")
    assert (curve.name, curve.metric, curve.units) == ("ensemble", "energy_score", "m s**-1")
    np.testing.assert_allclose(curve.values, energy(), rtol=1e-5)
    drawn = {path.name for path in draw_scores(store, [], "global", "png")}
    assert "curves_energy_score_global.png" in drawn


def test_the_table_has_the_scores_of_the_control_beside_those_of_the_ensemble(made):
    table = pd.read_csv(made[0] / "scores.csv")

    assert table.columns[0] == "scores"
    at = table.query("variable == 'temperature' and level == 850 and lead_hours == 24").set_index(["scores", "metric"])
    assert at["value"]["ensemble", "bias"] == pytest.approx(np.mean(SHIFTS), rel=1e-4)
    assert at["value"]["forecast", "bias"] == pytest.approx(SHIFTS[0], rel=1e-4)
    assert ("forecast", "crps") not in at.index
    assert set(at.index.get_level_values(0)) == {"ensemble", "forecast"}


def test_the_spectra_have_the_power_of_the_mean_of_the_ensemble(made):
    table = pd.read_csv(made[0] / "spectra.csv").query("level == 500 and lead_hours == 24")
    at = table.set_index(["scores", "wavenumber"])

    # All members are the same wave with other means, so that only the wavenumber 0 of the mean differs.
    assert at["mean"]["ensemble", 0] == pytest.approx(np.mean(SHIFTS) ** 2, rel=1e-4)
    assert at["forecast"]["ensemble", 0] == pytest.approx(np.mean(np.square(SHIFTS)), rel=1e-4)
    assert at["mean"]["ensemble", WAVES] == pytest.approx(AMPLITUDE**2 / 2, rel=1e-4)
    assert at["forecast"]["forecast", 0] == pytest.approx(SHIFTS[0] ** 2, rel=1e-4)
    assert np.isnan(at["mean"]["forecast", 0])


def test_ensembles_are_compared_with_persistence_that_has_the_spread_of_the_climatology(made):
    _, store, text = made
    means = xr.open_zarr(store / "scores" / "persistence")["temperature"].sel(statistic="crps_gaussian", level=500)

    expected = [crps_of_persistence(hours) for hours in (6, 12, 18, 24)]
    np.testing.assert_allclose(means.sel(region="global")[0], expected, rtol=1e-4)
    rows = shown(text, "CRPS of the ensemble, global")
    crps = np.abs(SHIFTS).mean() - np.abs(np.subtract.outer(SHIFTS, SHIFTS)).sum() / 12
    skill = f"{1 - crps / expected[-1]:+.2f}"
    assert ["  skill over persistence".strip(), "", skill, ""] in rows
