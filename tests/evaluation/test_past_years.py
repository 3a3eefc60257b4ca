"""The truth of other years as an ensemble: a climatology that knows the season and the hour alone."""

import numpy as np
import pytest

from graphcast_batch.app.evaluating import plan_evaluation
from graphcast_batch.app.score_drawing import draw_scores
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.scores_section import ScoresConfig
from graphcast_batch.errors import ConfigError, EvaluationError, StoreMismatchError
from graphcast_batch.evaluation.past_years import CLIMATOLOGY_YEARS, in_year
from graphcast_batch.evaluation.score_results import average, read
from graphcast_batch.report.skill import skill
from graphcast_batch.report.summary import Opened
from graphcast_batch.setup.kept_config import kept_config
from graphcast_batch.stores.store_kinds import open_store
from tests.evaluation.made import START, cases, stored, truth
from tests.evaluation.test_during import told
from tests.evaluation.test_evaluate import CONFIG
from tests.evaluation.test_lagged import shown
from tests.evaluation.test_stored import written

YEARS = range(2016, 2019)
HOUR = np.timedelta64(1, "h")


def moved(time, year):
    """A time in another year, by the calendar of the standard library."""
    found = time.astype("datetime64[s]").item()
    day = min(found.day, 28) if found.month == 2 and year % 4 else found.day
    return np.datetime64(found.replace(year=year, day=day), "ns")


def weather(path):
    """The archive that is the truth: the time of the forecasts, and the same days of some years before."""
    here = START + 6 * np.arange(9) * HOUR
    before = [moved(time, year) for year in YEARS for time in here]
    written(path, np.array(sorted([*before, *here.astype("datetime64[ns]")]), "datetime64[ns]"))


@pytest.fixture
def store(tmp_path):
    """Two forecasts that are 1 too high, with the config of their run."""
    made = stored(tmp_path / "s", cases(2), lambda name, lead, values: values + 1)
    weather(tmp_path / "truth.zarr")
    (made.path / "run.yaml").write_text(CONFIG.format(path=tmp_path / "truth.zarr", store=made.path))
    return made.path


def expected_crps(lead):
    """The score at one lead time by another library; the wave is the same at all latitudes."""
    from scores.probability import crps_for_ensemble

    means = []
    for case in cases(2):
        valid = (case.init_time + lead * HOUR).astype("datetime64[ns]")
        times = np.array([moved(valid, year) for year in YEARS])
        fields = truth().fields(["temperature"], np.array([valid, *times]), (850,))["temperature"]
        ensemble = fields[1:].rename(time="number").assign_coords(number=range(len(YEARS)))
        means.append(float(crps_for_ensemble(ensemble, fields[0].drop_vars("time"), "number", method="fair")))
    return np.mean(means)


@pytest.mark.parametrize("year", [1999, 2000, 2019])
def test_times_keep_day_and_hour_and_leap_days_become_the_day_before(year):
    times = np.arange("2020-01-01", "2021-01-03", 6, "datetime64[h]").astype("datetime64[ns]")

    assert in_year(times, year).tolist() == [moved(time, year).item() for time in times]


def test_the_command_scores_and_compares_it(store, tmp_path, command):
    other = stored(tmp_path / "other", cases(2), lambda name, lead, values: values)

    done = command("evaluate", store, "--climatology-years", "2016-2018", "--member", other.path)

    assert done.returncode == 0, done.stderr
    assert "climatology_years: 2 to score, 0 scored before" in done.stdout
    lines = shown(done.stdout, "CRPS of the ensemble of other years, global")
    expected = expected_crps(24)
    assert lines[0] == ["temperature 850", "K", f"{expected:.4g}", "2"]
    lines = shown(done.stdout, "CRPS of the ensemble, global")  # of a perfect member and one that is 1 too high: 0
    assert lines[2] == ["skill over climatology_years", "", "+1.00", ""]
    values = average(read(store, CLIMATOLOGY_YEARS)).values["temperature"].sel(region="global", level=850)
    for lead in (6, 24):
        found = values.sel(metric="crps", prediction_timedelta=np.timedelta64(lead, "h"))
        assert float(found) == pytest.approx(expected_crps(lead), rel=1e-5)
    assert "RMSE of climatology_years against" in command("compare", store, "climatology_years").stdout


def test_it_is_drawn_and_reported_beside_the_forecasts(store, command):
    assert command("evaluate", store, "--climatology-years", "2016-2018").returncode == 0

    drawn = draw_scores(store, [], "global", "svg")
    found = skill(Opened("s", open_store(store), kept_config(store), tuple(cases(2))), None, None)

    assert "scorecard_against_climatology_years_global.svg" in {path.name for path in drawn}
    assert [card.name for card in found.cards] == ["climatology_years"]


def test_scores_of_other_years_are_not_mixed_in(store):
    plan_evaluation(store, climatology_years=(2016, 2018))

    with pytest.raises(StoreMismatchError, match="years"):
        plan_evaluation(store, climatology_years=(2017, 2018))


def test_years_of_the_forecasts_and_years_that_the_truth_lacks_are_refused(store):
    with pytest.raises(EvaluationError, match=r"others than those of the forecasts, 2020, but are 2017-2020"):
        plan_evaluation(store, climatology_years=(2017, 2020))
    with pytest.raises(EvaluationError, match=r"lacks 6 of 24, the first 2015-01-01T06:00; take years that it holds"):
        plan_evaluation(store, climatology_years=(2015, 2018))


@pytest.mark.parametrize("years", [{"first": 2016, "last": 2016}, {"first": 2016}, {"first": 16, "last": 17}])
def test_years_are_a_first_and_a_later_last_one(years):
    with pytest.raises(ConfigError, match="climatology_years"):
        parse_config({"climatology_years": years}, ScoresConfig, origin="c")


def test_the_option_names_two_years(store, capsys):
    assert "must be two years, such as 1990-2019, but is '2016'" in told(
        capsys, "evaluate", store, "--climatology-years", "2016"
    )
