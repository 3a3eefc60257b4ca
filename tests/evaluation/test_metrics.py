import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from graphcast_batch.evaluation.metrics import METRICS, metric_of, with_vectors
from graphcast_batch.evaluation.pointwise_statistics import (
    DRY_BELOW,
    SEEPS,
    STATISTICS,
    Points,
    PrecipitationClimatology,
    seeps,
    seeps_errors,
)
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
    known = {name: metric for name, metric in METRICS.items() if name != SEEPS}
    return {name: float(metric_of(dataset, metric)["t"]) for name, metric in known.items()}


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


def rainy(forecast, truth, dry=0.5, heavy=4e-3, dry_below=0.25e-3):
    """SEEPS of one point."""
    fields = [np.full((1, 1), value, np.float32) for value in (forecast, truth, heavy)]
    return seeps(
        Points(*fields[:2], precipitation=PrecipitationClimatology(fields[2], np.full(1, dry, np.float32), dry_below))
    ).item()


@given(st.floats(0.1, 0.85))
def test_a_forecast_that_is_always_the_same_has_the_seeps_of_a_usual_error(dry):
    """Of what is wet two thirds are light; also if that is forecast at random as often as it comes true."""
    share = np.array([dry, 2 * (1 - dry) / 3, (1 - dry) / 3])

    errors = seeps_errors(np.array([dry]))[..., 0]

    np.testing.assert_allclose(errors @ share, 1, rtol=1e-12)
    assert share @ errors @ share == pytest.approx(1, rel=1e-12)


def test_seeps_of_each_pair_of_categories_is_that_of_the_paper():
    """By hand, with half of the times dry: 4 / (1 - 0.5) / 2 for heavy rain that was not forecast, and so on."""
    dry, light, heavy = 0.0, 1e-3, 9e-3

    assert [rainy(same, same) for same in (dry, light, heavy)] == [0, 0, 0]
    assert [rainy(dry, light), rainy(dry, heavy), rainy(light, heavy)] == [1, 4, 3]
    assert [rainy(light, dry), rainy(heavy, dry), rainy(heavy, light)] == pytest.approx([1, 1.6, 0.6])


def test_a_quarter_of_a_millimeter_a_day_and_a_tenth_in_6_h_is_light_and_the_threshold_heavy():
    assert DRY_BELOW == {"total_precipitation_6hr": 0.1e-3, "total_precipitation_24hr": 0.25e-3}
    for least in DRY_BELOW.values():
        assert [rainy(share * least, 0, dry_below=least) for share in (0.999, 1.001)] == [0, 1]
    assert [rainy(3.999e-3, 9e-3), rainy(4e-3, 9e-3)] == [3, 0]


def test_where_it_never_rains_nothing_is_heavy():
    assert rainy(9e-3, 1e-3, heavy=np.nan) == 0


def test_points_that_are_too_dry_or_too_wet_do_not_count():
    assert [rainy(0, 9e-3, dry=dry) for dry in (0.05, 0.9, 0.0, 1.0)] == [0, 0, 0, 0]
    rain = PrecipitationClimatology(np.ones((1, 4), np.float32), np.float32([0.05, 0.11, 0.84, 0.9]), 0.25e-3)
    assert rain.counted.tolist() == [False, True, True, False]
