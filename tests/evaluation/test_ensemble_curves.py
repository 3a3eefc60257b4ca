"""What figures show of an ensemble whose members have known errors, the same everywhere."""

import numpy as np
import pytest
from PIL import Image

from graphcast_batch.app.score_drawing import draw_scores
from graphcast_batch.errors import FigureError
from graphcast_batch.evaluation.ensemble_curves import crps_curves, is_ensemble, rank_histograms, spread_curves
from graphcast_batch.evaluation.lagged import LAGGED
from graphcast_batch.evaluation.score_store import FORECAST
from graphcast_batch.evaluation.store_scoring import lay_out, score_stored, scoring_of
from graphcast_batch.figures.rank_histograms import draw_rank_histograms
from graphcast_batch.report.skill import skill
from graphcast_batch.report.summary import Opened
from tests.evaluation.made import truth
from tests.evaluation.test_lagged import WANTED, error_of, score, six_hourly, with_errors

LAGS, TIMES, LEADS = (0, 6, 12), (12, 18, 24), (6, 12, 18, 24)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A hindcast that is scored as a lagged ensemble of three members, and by itself."""
    made = with_errors(tmp_path_factory.mktemp("made") / "run", six_hourly(5))
    score(made, LAGS[1:])
    plain = lay_out(made, FORECAST, scoring_of(WANTED, made, truth()), {})
    for case in plain.left:
        score_stored(plain.path, plain.name, plain.scoring, case)
    return made


def errors(lead):
    """Of the members, (time, member)."""
    return np.array([[error_of(begun - lag, lead + lag) for lag in LAGS] for begun in TIMES])


def of_temperature(curves, name):
    (found,) = (curve for curve in curves if curve.variable == "temperature" and curve.name == name)
    return found.values[: len(LEADS)]


def test_error_of_the_mean_and_spread_are_those_of_the_members(store):
    curves = spread_curves(store.path, LAGGED, "global")

    error = [np.sqrt((errors(lead).mean(axis=1) ** 2).mean()) for lead in LEADS]
    spread = [np.sqrt(4 / 3 * errors(lead).var(axis=1, ddof=1).mean()) for lead in LEADS]
    np.testing.assert_allclose(of_temperature(curves, "lagged: error of the mean"), error, rtol=1e-5)
    np.testing.assert_allclose(of_temperature(curves, "lagged: spread"), spread, rtol=1e-5)
    assert {curve.metric for curve in curves} == {"error and spread"}


def test_a_single_forecast_has_its_absolute_error_as_crps_at_the_times_of_all(store):
    scores = {"run": (store.path, FORECAST), "lagged": (store.path, LAGGED)}
    curves = crps_curves(scores, "global")

    pairs = [np.abs(errors(lead)[:, :, None] - errors(lead)[:, None]).sum(axis=(1, 2)) / 12 for lead in LEADS]
    fair = [(np.abs(errors(lead)).mean(axis=1) - apart).mean() for lead, apart in zip(LEADS, pairs, strict=True)]
    single = [np.abs(errors(lead)[:, 0]).mean() for lead in LEADS]
    np.testing.assert_allclose(of_temperature(curves, "lagged"), fair, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(of_temperature(curves, "run"), single, rtol=1e-5)
    assert is_ensemble(store.path, LAGGED)
    assert not is_ensemble(store.path, FORECAST)


def test_the_rank_of_the_truth_is_the_number_of_members_below_it(store):
    (found,) = (one for one in rank_histograms(store.path, LAGGED, "global") if one.variable == "temperature")

    assert found.hours.tolist() == [6, 18, 24]
    assert found.cases == len(TIMES)
    for hours, shares in zip(found.hours, found.shares, strict=True):
        below = (errors(int(hours)) < 0).sum(axis=1)
        np.testing.assert_allclose(shares, np.bincount(below, minlength=4) / len(TIMES), atol=1e-9)


def test_figures_of_an_ensemble_stand_beside_those_of_the_forecast(store):
    names = {path.name for path in draw_scores(store.path, (), "global", "png")}

    assert {"spread_of_lagged_global.png", "ranks_of_lagged_global.png", "curves_crps_global.png"} <= names
    folder = store.path / "figures" / "scores"
    with Image.open(folder / "ranks_of_lagged_global.png") as image:
        assert image.text["Title"] == "Ranks of the truth, lagged, global"
        assert "Temperature at 850 hPa at 24 h: below all members" in image.text["Description"]
    with Image.open(folder / "curves_crps_global.png") as image:
        assert "run " in image.text["Description"]
        assert "lagged " in image.text["Description"]


def test_without_a_rank_histogram_nothing_is_drawn(tmp_path):
    with pytest.raises(FigureError, match="there must be a rank histogram of ensemble"):
        draw_rank_histograms(tmp_path / "ranks.png", [], "ensemble", "global")


def test_a_report_has_the_scores_that_only_ensembles_have(store):
    found = skill(Opened("run", store, config=None, cases=()), None, None)

    tables = {
        caption: {line.label: {lead: value for lead, value in line.values if value} for line in lines}
        for caption, lines in found.ensembles
    }
    label = "Temperature at 850 hPa"
    error, spread = (
        of_temperature(spread_curves(store.path, LAGGED, "global"), f"lagged: {what}")
        for what in ("error of the mean", "spread")
    )
    assert tables["Spread over error of the mean, lagged: 1 if reliable"][label] == {
        lead: f"{ratio:.2f}" for lead, ratio in zip(("6 h", "12 h", "18 h", "1 d"), spread / error, strict=True)
    }
    crps = of_temperature(crps_curves({"lagged": (store.path, LAGGED)}, "global"), "lagged")
    assert tables["CRPS of lagged"][label]["1 d"] == f"{crps[-1]:.3g}"
    charts = {(each["metric"], each["label"]): [line["name"] for line in each["lines"]] for each in found.charts}
    assert charts["crps", label] == ["run", "lagged"]
    assert charts["error and spread", label] == ["lagged: error of the mean", "lagged: spread"]
