import numpy as np
import pytest

from graphcast_batch.app.evaluating import common_times
from graphcast_batch.config.scores_section import ScoresConfig
from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation.comparison import compare
from graphcast_batch.evaluation.store_scoring import lay_out, score_stored, scoring_of
from tests.evaluation.made import cases, stored, truth
from tests.evaluation.test_stored import score


def of_errors(path, errors, first=0):
    """A store whose forecasts are off by one number after another, 12 h apart."""
    planned = cases(first + len(errors))[first:]
    current = iter(errors)
    error = {}

    def change(name, hours, values):
        if (name, hours) == ("10m_u_component_of_wind", 6):
            error["of"] = next(current)
        return values + error["of"]

    store = stored(path, planned, change)
    score(store)
    return store.path, "forecast"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Thirty initial times; the second forecasts are about a tenth better."""
    folder = tmp_path_factory.mktemp("pair")
    errors = np.random.default_rng(0).uniform(2, 3, 30)
    noise = np.random.default_rng(1).normal(scale=0.05, size=30)
    return of_errors(folder / "a", errors), of_errors(folder / "b", 0.9 * errors + noise), errors, 0.9 * errors + noise


def test_a_better_forecast_is_found_with_its_sureness(pair):
    one, other, errors, better = pair

    found = next(each for each in compare(one, other, "global") if each.label == "temperature 850")

    assert found.hours == 24
    assert found.first == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-4)  # float32 of 3500
    assert found.relative == pytest.approx(np.sqrt(np.mean(better**2) / np.mean(errors**2)) - 1, abs=1e-4)
    assert found.low < found.relative < found.high < 0
    assert found.paired.mean == pytest.approx(np.mean(better - errors), abs=1e-4)
    assert found.paired.significant
    assert found.paired.cases == 30


def test_initial_times_that_only_one_has_are_left_out(tmp_path):
    one, other = of_errors(tmp_path / "a", [1, 2, 3, 4, 5]), of_errors(tmp_path / "b", [7, 7, 7, 7, 7], first=3)

    found = compare(one, other, "tropics")[0]

    assert found.paired.cases == 2
    assert found.first == pytest.approx(np.sqrt((16 + 25) / 2), rel=1e-6)
    assert found.second == pytest.approx(7, rel=1e-6)
    assert np.isnan([found.low, found.high, found.paired.p]).all()


def test_forecasts_without_a_common_initial_time_are_not_compared(tmp_path):
    one, other = of_errors(tmp_path / "a", [1]), of_errors(tmp_path / "b", [1], first=2)

    with pytest.raises(EvaluationError, match="must have initial times in common, but have none"):
        compare(one, other, "global")


def test_forecasts_that_were_scored_against_different_truths_are_not_compared(tmp_path):
    one = of_errors(tmp_path / "a", [1])
    store = stored(tmp_path / "b", cases(1), lambda name, hours, values: values)
    found = lay_out(store, "forecast", scoring_of(ScoresConfig(), store, truth()), {"truth": "hres"})
    score_stored(found.path, found.name, found.scoring, found.left[0])

    with pytest.raises(
        EvaluationError, match=r"against the same truth to be compared, but .* has None and .* has hres"
    ):
        compare(one, (store.path, "forecast"), "global")


def test_averages_beside_each_other_are_over_the_initial_times_that_all_have(tmp_path):
    one, other = of_errors(tmp_path / "a", [1, 2, 3, 4, 5]), of_errors(tmp_path / "b", [7, 7, 7, 7, 7], first=3)
    third = of_errors(tmp_path / "c", [1, 1], first=9)

    alike, common = common_times({"forecast": one, "other": other, "third": third})

    assert alike == ["forecast", "other"]
    assert common.astype("datetime64[h]").astype(str).tolist() == ["2020-01-02T12", "2020-01-03T00"]
