"""Beside another library, on random fields: https://scores.readthedocs.io."""

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.evaluation.case_scoring import weighted_sums
from graphcast_batch.evaluation.metrics import METRICS, metric_of
from graphcast_batch.evaluation.pointwise_statistics import SEEPS, STATISTICS, Points, PrecipitationClimatology
from graphcast_batch.evaluation.regions import weigh
from graphcast_batch.grid import regular_grid

continuous = pytest.importorskip("scores.continuous")
categorical = pytest.importorskip("scores.categorical")
GRID = regular_grid(5)
REGIONS = weigh(("global", "tropics", "europe", "land"), {}, GRID, lambda: np.tri(*GRID.shape, dtype=np.float32))
PLACE = ["latitude", "longitude"]
NAMES = [name for name in METRICS if name != SEEPS]


@pytest.fixture(scope="module")
def fields():
    """Forecast, truth and climatology of three variables of very different size, (field, latitude, longitude)."""
    random = np.random.default_rng(0)
    scale, height = np.array([9.0, 3e-3, 2e3])[:, None, None], np.array([280.0, 0.0, 5.5e4])[:, None, None]
    return [(height + scale * random.normal(size=(3, *GRID.shape))).astype(np.float32) for _ in range(3)]


@pytest.fixture(scope="module")
def ours(fields):
    at = Points(*(field.reshape(3, -1) for field in fields))
    means = weighted_sums(at, tuple(STATISTICS), REGIONS) / REGIONS.totals
    dataset = xr.Dataset({"x": (("statistic", "field", "region"), means)}, {"statistic": list(STATISTICS)})
    return {name: metric_of(dataset, METRICS[name])["x"].values for name in NAMES}


@pytest.fixture(scope="module")
def theirs(fields):
    forecast, truth, usual = (xr.DataArray(field.astype(float), dims=["field", *PLACE]) for field in fields)
    weights = xr.DataArray(REGIONS.weights, dims=["region", *PLACE])
    options = {"reduce_dims": PLACE, "weights": weights}
    # The product of two anomalies is a quarter of what the square of their sum is more than that of their difference.
    product = continuous.mse(forecast, 2 * usual - truth, **options), continuous.mse(forecast, truth, **options)
    squares = [continuous.mse(field, usual, **options) for field in (forecast, truth)]
    means = [continuous.additive_bias(field, usual, **options) for field in (forecast, truth)]
    return {
        "rmse": continuous.rmse(forecast, truth, **options),
        "mse": continuous.mse(forecast, truth, **options),
        "mae": continuous.mae(forecast, truth, **options),
        "bias": continuous.additive_bias(forecast, truth, **options),
        "acc": (product[0] - product[1]) / 4 / (squares[0] * squares[1]) ** 0.5,
        "forecast_activity": (squares[0] - means[0] ** 2) ** 0.5,
        "truth_activity": (squares[1] - means[1] ** 2) ** 0.5,
    }


@pytest.mark.parametrize("metric", NAMES)
def test_each_metric_of_random_fields_is_what_the_library_says(ours, theirs, metric):
    expected = theirs[metric].transpose("field", "region").values

    # The differences are taken in float32; a correlation and a bias are small sums of large terms.
    scale = np.sqrt(theirs["mse"]).transpose("field", "region").values if metric == "bias" else 1
    np.testing.assert_allclose(ours[metric] / scale, expected / scale, rtol=1e-6, atol=1e-7)


def test_seeps_of_random_rain_is_what_the_library_says():
    random = np.random.default_rng(0)
    forecast, truth = (random.gamma(0.4, 5e-3, (3, *GRID.shape)).astype(np.float32) for _ in range(2))
    heavy = random.uniform(1e-3, 9e-3, (3, *GRID.shape)).astype(np.float32)
    dry = random.uniform(0, 1, GRID.shape).astype(np.float32)
    rain = PrecipitationClimatology(heavy.reshape(3, -1), dry.ravel(), 0.25e-3)
    at = Points(forecast.reshape(3, -1), truth.reshape(3, -1), None, rain)

    sums = weighted_sums(at, (SEEPS,), REGIONS)[0]
    found = sums / (REGIONS.weights.reshape(4, -1) @ rain.counted)

    fields = [xr.DataArray(field.astype(float), dims=["field", *PLACE]) for field in (forecast, truth, heavy)]
    expected = categorical.seeps(
        *fields[:2],
        xr.DataArray(dry.astype(float), dims=PLACE),
        fields[2],
        dry_light_threshold=0.25e-3,
        mask_clim_extremes=True,
        lower_masked_value=0.1,
        upper_masked_value=0.85,
        reduce_dims=PLACE,
        weights=xr.DataArray(REGIONS.weights, dims=["region", *PLACE]),
    )
    np.testing.assert_allclose(found, expected.transpose("field", "region"), rtol=1e-6)
