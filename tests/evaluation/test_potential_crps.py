"""The potential CRPS of deterministic forecasts: by its definition, by mathematics, and of stores."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import graphcast_batch as gb
from graphcast_batch.config.scores_section import ScoresConfig
from graphcast_batch.errors import ConfigError, EvaluationError
from graphcast_batch.evaluation import potential_crps as room
from graphcast_batch.evaluation.potential_crps import climatological_crps, mean_potentials, potential_crps
from graphcast_batch.evaluation.regions import weigh
from graphcast_batch.evaluation.store_scoring import scoring_of
from graphcast_batch.grid import regular_grid
from tests.conftest import SMALL, made_once
from tests.evaluation.made import RESOLUTION, cases, fill, stored, truth
from tests.test_ensemble_run import written


def falling_fit(forecast, values):
    """The regression that falls as the forecast rises, by the formula of extremes, with one value for equal forecasts.

    At x it is the least, over all lower ends a <= x, of the largest mean over a..b with b >= x.
    """
    at = np.unique(forecast)
    held = [values[forecast == x] for x in at]

    def mean(a, b):
        return np.concatenate(held[a : b + 1]).mean()

    size = len(at)
    fitted = [min(max(mean(a, b) for b in range(n, size)) for a in range(n + 1)) for n in range(size)]
    return np.array(fitted)[np.searchsorted(at, forecast)]


def by_definition(forecast, truth):
    """Integrate the Brier score of the regression over all thresholds, one after another."""
    total = 0.0
    for low, high in pairwise(np.unique(truth)):
        below = (truth <= low).astype(float)
        total += (high - low) * np.mean((falling_fit(forecast, below) - below) ** 2)
    return total


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("digits", [6, 0])
def test_it_is_the_crps_of_isotonic_distributional_regression(seed, digits):
    random = np.random.default_rng(seed)
    true = random.normal(size=(14, 5)).round(digits)
    forecast = (true + random.normal(size=true.shape)).round(digits)  # without digits many are equal

    expected = [by_definition(x, y) for x, y in zip(forecast.T, true.T, strict=True)]

    np.testing.assert_allclose(potential_crps(forecast, true), expected, rtol=1e-9, atol=1e-12)


def test_it_does_not_depend_on_how_many_points_are_computed_together(monkeypatch):
    random = np.random.default_rng(1)
    true = random.gamma(0.5, size=(20, 33)).astype(np.float32)
    true[true < 0.2] = 0
    forecast = true + random.normal(size=true.shape).astype(np.float32)
    together = potential_crps(forecast, true)

    monkeypatch.setattr(room, "_REGRESSED", 1)

    np.testing.assert_allclose(potential_crps(forecast, true), together, rtol=1e-9)


def test_a_forecast_that_the_truth_rises_with_is_perfect():
    true = np.random.default_rng(2).normal(size=(40, 3))
    assert potential_crps(true, true).tolist() == [0, 0, 0]
    assert potential_crps(np.exp(true) - 7, true).tolist() == [0, 0, 0]


def test_a_constant_forecast_has_the_score_of_the_climatology():
    """Which is half the mean distance of two values, each drawn from all of them."""
    true = np.random.default_rng(3).normal(size=(40, 3))
    distance = np.abs(true[:, np.newaxis] - true).mean(axis=(0, 1)) / 2

    np.testing.assert_allclose(potential_crps(np.full_like(true, 5), true), distance, rtol=1e-9)
    np.testing.assert_allclose(climatological_crps(true), distance, rtol=1e-12)


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=2, max_size=30))
def test_increasing_functions_of_the_forecast_change_nothing_and_it_is_never_above_the_climatology(pairs):
    forecast, true = np.array(pairs, float).T[..., np.newaxis]
    found = potential_crps(forecast, true)

    np.testing.assert_allclose(potential_crps(forecast**3 + forecast, true), found, atol=1e-12)
    assert -1e-12 <= found[0] <= climatological_crps(true)[0] + 1e-12
    np.testing.assert_allclose(potential_crps(forecast, 3 * true + 1), 3 * found, atol=1e-9)


NOISE = np.random.default_rng(4)


def noisy(name, hours, values):
    return values + NOISE.normal(size=values.shape)


def test_regions_are_weighted_with_the_areas_of_their_cells(tmp_path, monkeypatch):
    planned = cases(12, every_hours=6)
    store = stored(tmp_path / "s", planned, noisy)
    scoring = scoring_of(ScoresConfig(regions=("global", "tropics")), store, truth())

    found = mean_potentials(scoring, planned, "temperature", 850, 12)

    fields = store.forecasts()["temperature"].sel(level=850, prediction_timedelta=np.timedelta64(12, "h")).values
    times = np.array([case.init_time + np.timedelta64(12, "h") for case in planned], "datetime64[ns]")
    true = truth().fields(["temperature"], times, (850,))["temperature"].values.reshape(12, -1)
    at_points = [by_definition(*pair) for pair in zip(fields.reshape(12, -1).T.astype(float), true.T, strict=True)]
    weights = weigh(("global", "tropics"), {}, regular_grid(RESOLUTION), lambda: None).weights.reshape(2, -1)
    np.testing.assert_allclose(found.potential, weights @ at_points / weights.sum(axis=1), rtol=1e-6)
    assert found.cases == 12

    monkeypatch.setattr(room, "_READ_BYTES", 1)  # one latitude after another
    again = mean_potentials(scoring, planned, "temperature", 850, 12)
    np.testing.assert_allclose(again.potential, found.potential, rtol=1e-12)
    np.testing.assert_allclose(again.climatological, found.climatological, rtol=1e-12)


def test_too_few_initial_times_and_gaps_are_refused(tmp_path):
    planned = cases(12, every_hours=6)
    store = stored(tmp_path / "s", planned, noisy)
    scoring = scoring_of(ScoresConfig(regions=("global",)), store, truth())
    with pytest.raises(EvaluationError, match="needs 10 initial times, but temperature at 12 h has 9"):
        mean_potentials(scoring, planned[:9], "temperature", 850, 12)

    gap = stored(tmp_path / "gap", planned, noisy, filled=planned[1:])
    fill(gap, planned[0], lambda name, hours, values: values + (np.inf if hours == 12 else 0), truth())
    scoring = scoring_of(ScoresConfig(regions=("global",)), gap, truth())
    with pytest.raises(EvaluationError, match=r"2020-01-01T00: the forecast must be finite .* temperature .* 12 h"):
        mean_potentials(scoring, planned, "temperature", 850, 12)


WIND = ("10m_u_component_of_wind", "10m_v_component_of_wind")


@pytest.fixture(scope="module")
def made(run_on_ray, shared_folder):
    """A store of twelve initial times of the synthetic planet; not to be changed."""

    def make(folder):
        times = {"first": "2020-01-01T00", "last": "2020-01-03T18", "every_hours": 6}
        config = SMALL | {"store": str(folder / "run"), "times": times, "steps": 2}
        config |= {"outputs": {"variables": ["2m_temperature", "temperature", *WIND], "levels": [500, 850]}}
        done = run_on_ray("run", written(folder / "run.yaml", config), cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        return folder / "run"

    return made_once(shared_folder / "potential", make)


CALL = """
import os, sys, graphcast_batch as gb
scores = gb.potential_crps(
    sys.argv[1], variables=["10m_wind_speed", "2m_temperature"], lead_hours=[12], address=os.environ["RAY_ADDRESS"]
)
scores.to_netcdf(sys.argv[2])
"""


def test_the_command_prints_scores_and_skill_and_writes_a_table(made, command, run_on_ray, tmp_path):
    table = tmp_path / "potential.csv"
    done = command("potential-crps", made, "--levels", "500", "--out", table)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "potential CRPS, global" in done.stdout
    assert "temperature 500" in done.stdout
    assert "skill over climatology" in done.stdout
    assert f"312 scores in {table}" in done.stdout  # 4 variables, 2 lead times, 3 metrics, 13 regions
    rows = pd.read_csv(table).query("region == 'global' and metric == 'potential_crps' and lead_hours == 12")
    assert rows["cases"].tolist() == [12] * 4

    called = run_on_ray(CALL, made, tmp_path / "scores.nc", cwd=tmp_path, kind="python")
    assert called.returncode == 0, called.stdout + called.stderr
    scores = xr.load_dataset(tmp_path / "scores.nc")

    assert set(scores) == {"10m_wind_speed", "2m_temperature"}
    at = scores["2m_temperature"].sel(region="global").isel(prediction_timedelta=0)
    potential, climatology, skill = at.values
    assert (at.attrs["cases"], at.attrs["variable_units"]) == (12, "K")
    assert 0 < potential < climatology
    assert skill == pytest.approx(1 - potential / climatology)
    assert rows.query("variable == '2m_temperature'")["value"].item() == pytest.approx(potential)


def test_what_cannot_be_scored_is_refused_before_anything_is_computed(made, command):
    with pytest.raises(ConfigError, match="lead hours must be some that the store keeps, 6, 12, but 24 is not"):
        gb.potential_crps(made, lead_hours=[24])
    with pytest.raises(EvaluationError, match="humidity must be in the forecasts"):
        gb.potential_crps(made, variables=["humidity"])
    refused = command("potential-crps", made, "--region", "moon")
    assert refused.returncode == 1
    assert "region must be one of those that are scored, global, tropics" in refused.stderr


def test_a_store_with_few_initial_times_is_refused(command, tmp_path):
    config = SMALL | {"store": str(tmp_path / "run"), "steps": 1}
    assert command("run", written(tmp_path / "run.yaml", config)).returncode == 0
    with pytest.raises(EvaluationError, match=r"at least 10 initial times .* has 4; add initial times to the run"):
        gb.potential_crps(tmp_path / "run")
