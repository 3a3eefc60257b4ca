import numpy as np
import pytest
from scipy import stats

from graphcast_batch.evaluation.significance import block_bootstrap, paired_difference


def every(hours, count):
    return np.datetime64("2020-01-01", "ns") + np.arange(count) * np.timedelta64(hours, "h")


def process(random, count, near, far=0.0, runs=1):
    """An autoregressive process of order 2, from its second hundred values on."""
    noise = random.normal(size=(runs, count + 200))
    values = noise.copy()
    for n in range(2, values.shape[1]):
        values[:, n] = near * values[:, n - 1] + far * values[:, n - 2] + noise[:, n]
    return values[:, 200:]


def test_without_autocorrelation_it_is_the_paired_test_of_scipy():
    """Of alternating differences the first autocorrelation is below 0, which is not believed."""
    one, two = np.random.default_rng(0).normal(size=(2, 40))
    differences = np.sort(np.abs(one - two))
    differences[1::2] *= -1

    found = paired_difference(differences, every(12, 40))

    expected = stats.ttest_1samp(differences, 0)
    low, high = expected.confidence_interval(0.95)
    assert found.inflation == 1
    assert (found.low, found.high, found.p) == pytest.approx((low, high, expected.pvalue), rel=1e-12)


@pytest.mark.parametrize(("near", "far"), [(0.5, 0.0), (0.6, 0.2), (0.3, -0.2)])
def test_the_inflation_of_a_long_series_is_that_of_its_process(near, far):
    """The variance of a mean of an AR(2) process is that of its noise over (1 - near - far)², for each value."""
    values = process(np.random.default_rng(1), 200_000, near, far)[0]

    found = paired_difference(values, every(6, values.size))

    assert found.inflation == pytest.approx(1 / (1 - near - far) / values.std(), rel=0.03)


def test_no_difference_is_called_significant_about_as_often_as_it_should_be():
    """Independent tests would find one in three of these series significant; that there are 5 in 100 is the aim."""
    series = process(np.random.default_rng(2), 200, 0.6, runs=400)

    found = sum(paired_difference(values, every(12, 200)).significant for values in series)
    plain = sum(stats.ttest_1samp(values, 0).pvalue < 0.05 for values in series)

    assert plain > 100
    assert found < 45


def test_gaps_between_initial_times_are_no_neighbors():
    values = process(np.random.default_rng(3), 2000, 0.7)[0]
    times = every(12, 2000)
    kept = np.random.default_rng(4).random(2000) < 0.8

    complete = paired_difference(values, times)
    gappy = paired_difference(np.where(kept, values, np.nan), times)

    assert gappy.cases == kept.sum()
    assert gappy.inflation == pytest.approx(complete.inflation, rel=0.25)


def test_few_initial_times_have_no_interval():
    found = paired_difference(np.array([1.0, 2.0, np.nan]), every(12, 3))

    assert (found.mean, found.cases, found.significant) == (1.5, 2, False)
    assert np.isnan([found.low, found.high, found.p]).all()


def test_equal_scores_do_not_differ():
    assert not paired_difference(np.zeros(9), every(12, 9)).significant
    assert paired_difference(np.ones(9), every(12, 9)).significant


def test_the_bootstrap_spreads_as_the_mean_of_the_process_does():
    """The mean of n values of an AR(1) process has the variance 1 / (1 - near)² / n, of unit noise."""
    values = process(np.random.default_rng(5), 4000, 0.5)[0]

    found = block_bootstrap(values[:, np.newaxis], every(12, 4000)).ravel()

    assert found.mean() == pytest.approx(values.mean(), abs=0.01)
    assert found.std() == pytest.approx(2 / np.sqrt(4000), rel=0.1)
    np.testing.assert_array_equal(found, block_bootstrap(values[:, np.newaxis], every(12, 4000)).ravel())


def test_the_bootstrap_of_one_block_of_days_says_nothing():
    assert np.isnan(block_bootstrap(np.ones((15, 2)), every(12, 15))).all()
    assert np.isnan(block_bootstrap(np.ones((1, 2)), every(12, 1))).all()
    np.testing.assert_allclose(block_bootstrap(np.ones((25, 2)), every(12, 25)), 1, rtol=1e-12)
