import numpy as np
import pytest
from scipy import stats

from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation.score_curves import curves
from graphcast_batch.evaluation.score_differences import score_differences
from graphcast_batch.evaluation.significance import block_bootstrap
from tests.evaluation.test_comparison import of_errors

ALTERNATING = np.where(np.arange(24) % 2, 1.0, -1.0)
"""Of errors that go up and down the autocorrelation is below 0, which is not believed."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Twenty-four initial times, in twelve days, with errors in kelvin or m/s that are the same everywhere."""
    folder = tmp_path_factory.mktemp("pair")
    first, second = 2.0 + 0.1 * ALTERNATING, 1.0 + 0.2 * ALTERNATING
    return of_errors(folder / "first", first), of_errors(folder / "second", second), first, second


def test_every_variable_level_and_lead_time_has_a_cell(pair):
    one, other, first, second = pair

    card = score_differences(other, one, "tropics")

    assert card.rows == (
        ("10m_u_component_of_wind", None),
        ("10m_v_component_of_wind", None),
        ("temperature", 500),
        ("temperature", 850),
    )
    assert card.hours == (6, 12, 18, 24)
    assert card.cases == 24
    assert card.relative == pytest.approx(
        np.full((4, 4), np.sqrt(np.mean(second**2) / np.mean(first**2)) - 1), abs=1e-4
    )


def test_significance_is_that_of_the_paired_test(pair):
    one, other, first, second = pair

    assert stats.ttest_rel(first, second).pvalue < 0.05
    assert score_differences(other, one, "global").significant.all()
    assert not score_differences(one, one, "global").significant.any()


def test_few_initial_times_are_not_tested(tmp_path):
    one, other = of_errors(tmp_path / "a", [1, 2, 3]), of_errors(tmp_path / "b", [2, 2, 2])

    card = score_differences(one, other, "global")

    assert not card.tested.any()
    assert not card.significant.any()


def test_without_common_initial_times_there_is_no_scorecard(tmp_path):
    one, other = of_errors(tmp_path / "a", [1]), of_errors(tmp_path / "b", [1], first=2)

    with pytest.raises(EvaluationError, match="scores of the same variables at the same initial times, but have none"):
        score_differences(one, other, "global")


def test_curves_have_the_interval_of_the_bootstrap(pair):
    one, other, first, _ = pair

    found = curves({"one": one, "other": other}, "global")

    mine = next(each for each in found if (each.name, each.variable, each.metric) == ("one", "temperature", "rmse"))
    times = np.datetime64("2020-01-01", "ns") + np.arange(24) * np.timedelta64(12, "h")
    low, high = np.quantile(np.sqrt(block_bootstrap(first**2, times)), (0.025, 0.975))
    assert mine.hours.tolist() == [6, 12, 18, 24]
    assert (mine.level, mine.units, mine.cases) == (850, "K", 24)
    assert mine.values == pytest.approx(np.full(4, np.sqrt(np.mean(first**2))), rel=1e-4)
    assert (mine.low[0], mine.high[0]) == pytest.approx((low, high), rel=1e-3)
    assert {each.metric for each in found} == {"rmse", "bias"}


def test_curves_of_few_initial_times_have_no_interval(tmp_path):
    one = of_errors(tmp_path / "a", [1, 2])

    found = curves({"one": one}, "global")

    assert all(np.isnan([each.low, each.high]).all() for each in found)
    assert all(np.isfinite(each.values).all() for each in found)


def test_curves_are_of_the_initial_times_that_all_have(tmp_path):
    one, other = of_errors(tmp_path / "a", [1, 3, 3]), of_errors(tmp_path / "b", [5, 5], first=2)

    found = curves({"one": one, "other": other}, "global")

    assert {each.cases for each in found} == {1}
    assert {round(float(each.values[0]), 3) for each in found if each.metric == "rmse" and each.level} == {3.0, 5.0}


def test_curves_without_a_common_initial_time_are_refused(tmp_path):
    one, other = of_errors(tmp_path / "a", [1]), of_errors(tmp_path / "b", [5], first=2)

    with pytest.raises(EvaluationError, match="one, other must have initial times in common, but have none"):
        curves({"one": one, "other": other}, "global")
