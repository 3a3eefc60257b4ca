import numpy as np
import pytest
import xarray as xr

from graphcast_batch.evaluation.metrics import METRICS, STATISTICS, Points, metric_of, with_vectors
from graphcast_batch.grid import cell_area, regular_grid

GRID = regular_grid(10)
SHAPE = GRID.shape


def weighted(values):
    """Mean over the globe by another library."""
    array = xr.DataArray(values, dims=("latitude", "longitude"))
    return float(array.weighted(xr.DataArray(cell_area(GRID.latitude), dims="latitude")).mean())


def scored(forecast, truth, usual):
    """Every metric of one field, the means of statistics taken by xarray."""
    at = Points(*(field.astype(np.float32).reshape(1, -1) for field in (forecast, truth, usual)))
    means = [weighted(statistic(at).reshape(SHAPE)) for statistic in STATISTICS.values()]
    dataset = xr.Dataset({"t": ("statistic", means)}, {"statistic": list(STATISTICS)})
    return {name: float(metric_of(dataset, metric)["t"]) for name, metric in METRICS.items()}


@pytest.fixture
def random_fields():
    random = np.random.default_rng(1)
    return [random.normal(5, 2, SHAPE).astype(np.float32).astype(np.float64) for _ in range(3)]


def test_a_constant_error_is_the_bias_the_mae_and_the_rmse(random_fields):
    truth, usual, _ = random_fields

    found = scored(truth.round() - 2, truth.round(), usual)

    assert found["bias"] == pytest.approx(-2, rel=1e-12)
    assert (found["mae"], found["rmse"], found["mse"]) == pytest.approx((2, 2, 4), rel=1e-12)


def test_a_perfect_forecast_has_no_error_and_correlates_wholly(random_fields):
    truth, usual, _ = random_fields

    found = scored(truth, truth, usual)

    assert [found[name] for name in ("bias", "mae", "rmse", "mse")] == [0, 0, 0, 0]
    assert found["acc"] == pytest.approx(1, rel=1e-12)
    assert found["forecast_activity"] == found["truth_activity"] > 0


def test_the_opposite_anomaly_correlates_with_minus_one_and_is_as_active(random_fields):
    anomaly, usual = random_fields[0].round(), random_fields[1].round()

    found = scored(usual - anomaly, usual + anomaly, usual)

    assert found["acc"] == pytest.approx(-1, rel=1e-12)
    assert found["forecast_activity"] == pytest.approx(found["truth_activity"], rel=1e-12)


def test_a_wave_a_quarter_turn_away_correlates_with_nothing():
    angle = 2 * np.deg2rad(GRID.longitude.astype(np.float64)) * np.ones((SHAPE[0], 1))

    found = scored(np.cos(angle), np.sin(angle), np.zeros(SHAPE))

    assert found["acc"] == pytest.approx(0, abs=1e-7)
    assert found["rmse"] == pytest.approx(1, rel=1e-6)
    assert found["truth_activity"] == pytest.approx(np.sqrt(0.5), rel=1e-6)


def test_random_fields_score_as_xarray_and_numpy_say(random_fields):
    forecast, truth, usual = random_fields
    area = np.repeat(cell_area(GRID.latitude)[:, np.newaxis], SHAPE[1], axis=1).ravel()

    found = scored(forecast, truth, usual)

    assert found["rmse"] == pytest.approx(np.sqrt(weighted((forecast - truth) ** 2)), rel=1e-6)
    assert found["mae"] == pytest.approx(weighted(abs(forecast - truth)), rel=1e-6)
    assert found["bias"] == pytest.approx(weighted(forecast - truth), rel=1e-6)
    covariance = np.cov((forecast - usual).ravel(), aweights=area, ddof=0)
    assert found["forecast_activity"] == pytest.approx(np.sqrt(covariance), rel=1e-6)


def test_fields_without_anomaly_have_no_correlation_and_no_activity():
    found = scored(np.full(SHAPE, 3.0), np.ones(SHAPE), np.ones(SHAPE))

    assert np.isnan(found["acc"])
    assert (found["truth_activity"], found["forecast_activity"]) == (0, 0)


def test_the_squared_error_of_a_wind_is_the_sum_of_those_of_its_components():
    statistics = {"statistic": ["error", "squared_error"]}
    means = xr.Dataset(
        {"u_component_of_wind": ("statistic", [1.0, 9.0]), "v_component_of_wind": ("statistic", [0.0, 16.0])},
        statistics,
    )

    wind = metric_of(with_vectors(means), METRICS["rmse"])["wind_vector"]

    assert wind == 5
    assert np.isnan(metric_of(with_vectors(means), METRICS["bias"])["wind_vector"])
