"""Statistics over the members of an ensemble, beside what other libraries compute in the plain way."""

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.ensemble_statistics import RunningMoments, statistic_attributes, statistic_name, statistics_of


def test_statistics_are_those_of_xarray():
    values = np.random.default_rng(1).normal(250.0, 10.0, (7, 2, 300, 301)).astype(np.float32)  # more than one run
    members = xr.DataArray(values.astype(np.float64), dims=("number", "lead", "y", "x"))

    found = statistics_of(values, ("mean", "standard_deviation", 0.05, 0.5))

    assert [*found] == ["mean", "standard_deviation", 0.05, 0.5]
    np.testing.assert_array_equal(found["mean"], members.mean("number").astype(np.float32))
    np.testing.assert_array_equal(found["standard_deviation"], members.std("number", ddof=1).astype(np.float32))
    for quantile in (0.05, 0.5):
        expected = members.quantile(quantile, "number").astype(np.float32)
        np.testing.assert_array_equal(found[quantile], expected)


def test_a_small_spread_of_large_values_is_not_lost():
    values = (50_000.0 + np.array([-1.0, 0.0, 1.0])[:, np.newaxis]).astype(np.float32)

    assert statistics_of(values, ("standard_deviation",))["standard_deviation"] == pytest.approx(1.0, rel=1e-7)


def test_a_statistic_says_what_it_is():
    assert statistic_name("geopotential", 0.95) == "geopotential_quantile_0.95"
    assert statistic_attributes("geopotential", "standard_deviation") == {
        "units": "m**2 s**-2",
        "long_name": "Geopotential, standard deviation of the ensemble",
        "standard_name": "geopotential",
        "cell_methods": "number: standard_deviation",
    }
    of_rain = statistic_attributes("total_precipitation_6hr", "mean")
    assert of_rain["cell_methods"] == "prediction_timedelta: sum (interval: 6 hours) number: mean"
    assert "cell_methods" not in statistic_attributes("temperature", 0.1)
    assert statistic_attributes("ozone_mixing_ratio", 0.1) == {
        "long_name": "ozone mixing ratio, quantile 0.1 of the ensemble"
    }


def test_running_moments_are_the_mean_and_standard_deviation_of_all_fields():
    members = np.random.default_rng(2).normal(50_000.0, 3.0, (50, 19, 36)).astype(np.float32)
    members[3, 0, 0] = np.nan
    moments = RunningMoments()

    for member in members:
        moments.add(member)

    every = members.astype(np.float64)
    np.testing.assert_allclose(moments.mean, every.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(moments.standard_deviation, every.std(axis=0, ddof=1), rtol=1e-10)
