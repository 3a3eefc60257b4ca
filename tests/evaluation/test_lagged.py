"""Lagged ensembles: forecasts from earlier initial times that are valid at the same times."""

import json
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.app.evaluated_config import evaluated_config
from graphcast_batch.app.evaluating import plan_evaluation
from graphcast_batch.app.score_drawing import draw_scores
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.scores_section import ScoresConfig
from graphcast_batch.errors import ConfigError, EvaluationError, StoreMismatchError
from graphcast_batch.evaluation.case_scoring import score_case
from graphcast_batch.evaluation.lagged import LAGGED, lagged_members
from graphcast_batch.evaluation.score_results import average, read
from graphcast_batch.evaluation.score_store import ScoreStore
from graphcast_batch.evaluation.store_scoring import ensemble_scoring, evaluations, lay_out, score_stored, scoring_of
from graphcast_batch.members import Member
from graphcast_batch.plan import Case
from graphcast_batch.report.skill import skill
from graphcast_batch.report.summary import Opened
from graphcast_batch.stores.layout import Layout, Plan
from graphcast_batch.stores.store_kinds import create_or_extend
from graphcast_batch.timing import Stopwatch
from tests.evaluation.made import LEVELS, START, VARIABLES, cases, config_for, fill, stored, truth
from tests.evaluation.test_during import told
from tests.evaluation.test_ensemble import made_again
from tests.evaluation.test_evaluate import CONFIG
from tests.evaluation.test_stored import times, written

HOUR = np.timedelta64(1, "h")
WANTED = ScoresConfig(regions=("global",))


def error_of(begun, lead):
    """The error of a forecast, the same everywhere, by the hours from START to its initial time, and its lead time."""
    return ((7 * begun // 6 + 5 * lead // 6) % 17) - 4.5


def fill_with_errors(store, case):
    begun = int((case.init_time - START) / HOUR)
    fill(store, case, lambda name, lead, values: values + error_of(begun, lead), truth())


def with_errors(path, planned, filled=None, **options):
    store = stored(path, planned, None, filled=[], **options)
    for case in planned if filled is None else filled:
        fill_with_errors(store, case)
    return store


def six_hourly(count, steps=6):
    return cases(count, steps, every_hours=6)


def found_of(store, lags, wanted=WANTED):
    """What there is to score."""
    return lay_out(store, LAGGED, ensemble_scoring(scoring_of(wanted, store, truth()), lagged_members(store, lags)), {})


def score(store, lags, wanted=WANTED):
    """Scores all that is left; returns what there was to do."""
    found = found_of(store, lags, wanted)
    for case in found.left:
        score_stored(found.path, found.name, found.scoring, case)
    return found


def keys(*hours):
    return [str(START + each * HOUR) for each in hours]


def fair_crps(errors):
    """Ferro 2014: the mean distance from the truth, less half the mean distance of two different members."""
    members = len(errors)
    return np.abs(errors).mean() - np.abs(np.subtract.outer(errors, errors)).sum() / (2 * members * (members - 1))


def check_scores(store, begun, leads, lags):
    """Compare the scores of an initial time with those of the forecasts that are valid at the same time."""
    means = read(store.path, LAGGED)["temperature"].sel(time=START + begun * HOUR, level=500, region="global")
    for lead in leads:
        errors = np.array([error_of(begun - lag, lead + lag) for lag in (0, *lags)])
        here = means.sel(prediction_timedelta=lead * HOUR)
        expected = {"crps": fair_crps(errors), "squared_error": errors.mean() ** 2, "variance": errors.var(ddof=1)}
        expected |= {f"rank_{rank}": float(rank == (errors < 0).sum()) for rank in range(len(errors) + 1)}
        for name, value in expected.items():
            assert here.sel(statistic=name).item() == pytest.approx(value, rel=1e-5, abs=1e-5), (begun, lead, name)
    others = [hours for hours in store.kept.lead_hours if hours not in leads]
    assert means.sel(prediction_timedelta=np.array(others, int) * HOUR).isnull().all()


def test_each_score_is_that_of_the_forecasts_valid_at_the_same_time(tmp_path):
    store = with_errors(tmp_path / "s", six_hourly(5))

    found = score(store, (6, 18))

    assert [case.key for case in found.left] == keys(18, 24)
    assert found.incomplete == tuple(keys(0, 6, 12))
    for begun in (18, 24):
        check_scores(store, begun, (6, 12, 18), (6, 18))  # the forecast from 18 h before ends at 36 h
    results = average(read(store.path, LAGGED)).values["temperature"].sel(level=500, region="global")
    errors = np.array([[error_of(begun - lag, 6 + lag) for lag in (0, 6, 18)] for begun in (18, 24)])
    rmse = np.sqrt(np.mean(errors.mean(axis=1) ** 2))
    ratio = np.sqrt(4 / 3 * errors.var(axis=1, ddof=1).mean()) / rmse
    first = results.isel(prediction_timedelta=0)
    assert first.sel(metric="rmse").item() == pytest.approx(rmse, rel=1e-5)
    assert first.sel(metric="spread_skill_ratio").item() == pytest.approx(ratio, rel=1e-5)


def test_scores_agree_with_another_library_on_forecasts_selected_with_xarray(tmp_path):
    """https://scores.readthedocs.io."""
    probability, continuous = (pytest.importorskip(f"scores.{name}") for name in ("probability", "continuous"))
    random = np.random.default_rng(0)
    store = stored(tmp_path / "s", six_hourly(4), lambda name, lead, values: values + random.normal(size=values.shape))
    score(store, (6, 12))

    time, leads = START + 18 * HOUR, np.array([6, 12, 18, 24]) * HOUR
    opened = store.forecasts()["temperature"].sel(level=850, drop=True).astype(float)
    chosen = [opened.sel(time=time - lag * HOUR, prediction_timedelta=leads + lag * HOUR) for lag in (0, 6, 12)]
    places = {"latitude": opened["latitude"], "longitude": opened["longitude"]}
    members = xr.DataArray(np.stack(chosen), {"lead": leads, **places}, ["member", "lead", *places])
    valid = truth().fields(["temperature"], (time + leads).astype("datetime64[ns]"), (850,))["temperature"].values
    observed = xr.DataArray(valid[:, 0].astype(float), {"lead": leads, **places}, ["lead", *places])
    edges = np.sin(np.deg2rad(np.clip(np.arange(-95, 96, 10), -90, 90)))
    options = {"reduce_dims": [*places], "weights": xr.DataArray(np.diff(edges), {"latitude": opened["latitude"]})}

    found = read(store.path, LAGGED)["temperature"].sel(time=time, level=850, region="global")
    found = found.sel(prediction_timedelta=leads)
    expected = probability.crps_for_ensemble(members, observed, "member", method="fair", **options)
    np.testing.assert_allclose(found.sel(statistic="crps"), expected, rtol=1e-6)
    expected = continuous.mse(members.mean("member"), observed, **options)
    np.testing.assert_allclose(found.sel(statistic="squared_error"), expected, rtol=1e-6)


def test_forecasts_and_their_records_stay_as_they_are_and_none_is_copied(tmp_path):
    store = with_errors(tmp_path / "s", six_hourly(3))
    before = {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()}

    score(store, (6,))

    after = {path for path in store.path.rglob("*") if path.is_file()}
    assert all(path.read_bytes() == content for path, content in before.items())
    scores = ScoreStore.at(store.path, LAGGED).folder
    assert all(path.is_relative_to(scores) for path in after - set(before))
    assert json.loads((scores / "records" / f"{keys(6)[0]}.json").read_text())["fields"] == 5 * len(VARIABLES)


def test_an_initial_time_is_scored_as_far_as_the_shortest_of_its_forecasts_reaches(tmp_path):
    with_errors(tmp_path / "s", six_hourly(3, steps=3))
    extended = with_errors(tmp_path / "s", six_hourly(3, steps=6), filled=six_hourly(3, steps=6)[1:])

    found = score(extended, (6,))

    assert [(case.key, case.steps) for case in found.left] == list(zip(keys(6, 12), (2, 5), strict=True))
    check_scores(extended, 6, (6, 12), (6,))
    check_scores(extended, 12, (6, 12, 18, 24, 30), (6,))

    fill_with_errors(extended, six_hourly(1)[0])
    again = score(extended, (6,))

    assert [(case.key, case.steps) for case in again.left] == [(keys(6)[0], 5)]
    check_scores(extended, 6, (6, 12, 18, 24, 30), (6,))


def test_lead_times_whose_later_ones_are_not_kept_are_left_out(tmp_path):
    store = with_errors(tmp_path / "s", six_hourly(5, steps=8), lead_hours=(6, 12, 24, 36, 48))

    score(store, (12,))

    check_scores(store, 24, (12, 24, 36), (12,))


def test_a_forecast_too_short_for_any_lead_time_of_all_members_counts_as_incomplete(tmp_path):
    """After 6 h the forecast from 24 h before would have to be read at 30 h, which is not kept."""
    first, second = cases(2, steps=8, every_hours=24)
    store = with_errors(tmp_path / "s", [first, second], filled=[first], lead_hours=(6, 24, 48))
    fill_with_errors(store, replace(second, steps=1))

    found = score(store, (24,))
    fill_with_errors(store, second)
    again = score(store, (24,))

    assert (found.left, found.incomplete, found.without_truth) == ((), tuple(keys(0, 24)), ())
    assert ([case.key for case in again.left], again.incomplete) == (keys(24), tuple(keys(0)))
    check_scores(store, 24, (24,), (24,))


def test_a_time_is_incomplete_until_all_of_its_forecasts_are_complete(tmp_path):
    planned = six_hourly(5)
    store = with_errors(tmp_path / "s", planned, filled=[case for case in planned if case.key != keys(6)[0]])

    first = score(store, (6, 12))
    fill_with_errors(store, planned[1])
    second = score(store, (6, 12))

    assert [case.key for case in first.left] == keys(24)
    assert first.incomplete == tuple(keys(0, 6, 12, 18))
    assert [case.key for case in second.left] == keys(12, 18)
    assert second.done == tuple(keys(24))
    assert score(store, (6, 12)).left == ()


def test_a_forecast_that_was_made_again_scores_all_times_it_belongs_to_again(tmp_path):
    store = with_errors(tmp_path / "s", six_hourly(5))
    score(store, (6, 18))

    made_again(store, keys(6)[0])

    assert [case.key for case in score(store, (6, 18)).left] == keys(24)
    made_again(store, keys(18)[0])
    assert [case.key for case in score(store, (6, 18)).left] == keys(18, 24)


def test_scores_of_other_lags_are_not_mixed_in(tmp_path):
    store = with_errors(tmp_path / "s", six_hourly(4))
    score(store, (12, 6))

    assert found_of(store, (6, 12)).left == ()
    with pytest.raises(StoreMismatchError, match=r"lag_hours: there \[0, 6, 12\], now \[0, 6, 18\]\nremove lagged"):
        found_of(store, (6, 18))


def test_a_variable_that_is_a_sum_is_scored_where_all_members_have_its_parts(tmp_path):
    """Each member errs by the sum of the errors of its four values."""
    rain = (("total_precipitation_6hr", False),)
    source = truth()
    store = stored(tmp_path / "s", six_hourly(2, steps=8), None, filled=[], variables=rain)
    for case in six_hourly(2, steps=8):
        begun = int((case.init_time - START) / HOUR)
        fill(store, case, lambda name, lead, values, begun=begun: values + error_of(begun, lead), source)

    score(store, (6,), ScoresConfig(regions=("global",), derived=("total_precipitation_24hr",)))

    means = read(store.path, LAGGED)["total_precipitation_24hr"].sel(time=START + 6 * HOUR, region="global")
    errors = [sum(error_of(6 - lag, 30 + lag - back) for back in (0, 6, 12, 18)) for lag in (0, 6)]
    there = means.sel(statistic="error").dropna("prediction_timedelta")["prediction_timedelta"].values
    assert (there / HOUR).tolist() == [24, 30, 36, 42]
    assert means.sel(statistic="error", prediction_timedelta=30 * HOUR).item() == pytest.approx(np.mean(errors))


def test_the_members_are_the_forecasts_of_the_first_member_of_an_ensemble(tmp_path):
    members = tuple(Member(number, "weights", "ab" * 32, "", 0) for number in range(2))
    layout = Layout(truth().grid, LEVELS, VARIABLES, 3, 6)
    planned = [Case(START + begun * HOUR, 3, 6, member=number) for begun in (0, 6) for number in (0, 1)]
    plan = Plan(tuple(planned), layout, members=members)
    store = create_or_extend(tmp_path / "s", plan, identity={}, provenance={}, config_text="a: 1\n")
    for case in planned:
        shift = 100 * case.member + (case.init_time == START)
        fill(store, case, lambda name, lead, values, shift=shift: values + shift, truth())

    found = score(store, (6,))

    assert found.incomplete == tuple(keys(0))
    bias = read(store.path, LAGGED)["temperature"].sel(statistic="error", time=START + 6 * HOUR, region="global")
    np.testing.assert_allclose(bias.sel(level=500), [0.5, 0.5, np.nan], rtol=1e-5)


def test_a_gap_is_refused_with_the_forecast_that_has_it(tmp_path):
    def change(name, lead, values):
        return np.where(values == values[..., :1, :1], np.nan, values) if lead == 18 else values

    planned = six_hourly(3)
    store = stored(tmp_path / "s", planned, lambda name, lead, values: values, filled=planned[1:])
    fill(store, planned[0], change, truth())
    with pytest.raises(EvaluationError, match=r"the forecast of .*/s from 12 h before must be finite everywhere"):
        score_case(found_of(store, (6, 12)).scoring, planned[2], Stopwatch())


@pytest.mark.parametrize(
    ("lags", "options", "match"),
    [
        ((9,), {}, "must be a multiple of 6 h, the model's step, but 9 h is not; choose some of 6, 12, 18 h"),
        ((6, 36), {}, "shorter than the forecasts, of which .*/s keeps lead times from 6 to 36 h, but 36 h is not"),
        ((30,), {}, "must be the difference of two initial times in .*/s, but 30 h is not; choose some of 6, 12, 18 h"),
        ((6,), {"every_hours": 12}, r"lead times that .*/s keeps, 12, 24, 36 h, but 6 h is not; choose some of 12 h"),
        ((6, 12), {"lead_hours": (6, 12, 24, 36)}, "longer by 6, 12 h, but of the lead times 6, 12, 24, 36 h there is"),
        ((6,), {"lead_hours": (36,)}, "from 36 to 36 h, but 6 h is not; no lag is possible with this store"),
    ],
)
def test_a_lag_that_the_store_cannot_serve_is_refused_with_those_that_it_can(tmp_path, lags, options, match):
    store = with_errors(tmp_path / "s", six_hourly(4), filled=[], **options)
    with pytest.raises(EvaluationError, match=match):
        lagged_members(store, lags)


def test_a_store_of_scores_alone_has_no_lagged_ensemble(tmp_path):
    store = stored(tmp_path / "s", cases(2), None, filled=[], identity={"outputs": "none"}, forecasts=False)
    with pytest.raises(EvaluationError, match=r"keeps only scores \(outputs: none\)"):
        lagged_members(store, (12,))


@pytest.mark.parametrize(
    ("lags", "match"),
    [
        ([6, 6], "lagged: lags must be named once each, but are 6, 6"),
        ([0, 6], "lagged: lags must be above 0 h, but are 0, 6; the forecast without lag is always a member"),
        ([-6], "lagged: lags must be above 0 h, but are -6"),
        ([6.5], r"lagged.0: Input should be a valid integer"),
    ],
)
def test_a_list_of_lags_names_hours_above_zero_once_each(lags, match):
    with pytest.raises(ConfigError, match=match):
        parse_config({"lagged": lags}, ScoresConfig, origin="given")
    assert parse_config({"lagged": [18, 6]}, ScoresConfig, origin="given").lagged == (6, 18)


def test_the_config_or_the_caller_asks_for_a_lagged_ensemble_beside_others(tmp_path):
    store = with_errors(tmp_path / "s", six_hourly(3))
    written(tmp_path / "truth.zarr", times(12))
    config = CONFIG.format(path=tmp_path / "truth.zarr", store=store.path)
    (store.path / "run.yaml").write_text(f"{config}scores: {{lagged: [6, 12]}}\n")

    planned = plan_evaluation(store.path, lagged=[6])

    assert [part.name for part in planned.parts] == ["forecast", LAGGED]
    assert [part.scoring.lags for part in planned.parts] == [(), (0, 6)]
    assert evaluated_config(store.path).scores.lagged == (6, 12)
    assert [part.name for part in evaluations(config_for(store.path, truth=evaluated_config(store.path).inputs))] == [
        "forecast"
    ]


def test_the_report_and_the_figures_of_scores_compare_it_with_the_forecasts(tmp_path):
    store = with_errors(tmp_path / "s", six_hourly(3))
    score(store, (6,))
    alone = lay_out(store, "forecast", scoring_of(WANTED, store, truth()), {})
    for case in alone.left:
        score_stored(alone.path, alone.name, alone.scoring, case)

    found = skill(Opened("s", store, config_for(store.path), tuple(six_hourly(3))), None, None)
    drawn = draw_scores(store.path, [], "global", "svg")

    (card,) = found.cards
    assert (card.name, card.columns) == ("lagged", ("6 h", "12 h", "18 h", "1 d", "30 h", "36 h"))
    means = [np.mean([error_of(begun - lag, 6 + lag) for lag in (0, 6)]) for begun in (6, 12)]
    squares = [[error_of(begun, 6) ** 2, mean**2] for begun, mean in zip((6, 12), means, strict=True)]
    alone, lagged = np.sqrt(np.mean(squares, axis=0))
    text = f"{100 * (alone / lagged - 1):+.0f} %".replace("-", "−")
    assert {(cells[0].text, cells[-1].text) for _, cells in (*card.headlines, *card.rest)} == {(text, "")}
    assert {path.name for path in drawn} >= {"curves_rmse_global.svg", "scorecard_against_lagged_global.svg"}


def test_the_command_prints_the_scores_of_a_lagged_ensemble(tmp_path, command, capsys):
    store = with_errors(tmp_path / "s", six_hourly(3))
    other = stored(tmp_path / "other", six_hourly(3), lambda name, lead, values: values + 1)
    written(tmp_path / "truth.zarr", times(12))
    (store.path / "run.yaml").write_text(CONFIG.format(path=tmp_path / "truth.zarr", store=store.path))

    done = command("evaluate", store.path, "--lagged", "6", "--member", other.path)

    assert done.returncode == 0, done.stderr
    assert "lagged: 2 to score, 0 scored before" in done.stdout
    left_out = "1 left out because they or the forecasts from before them are missing, not complete or too short"
    assert f"{left_out}: {keys(0)[0]}" in done.stdout
    errors = {lead: [[error_of(begun - lag, lead + lag) for lag in (0, 6)] for begun in (6, 12)] for lead in (24, 30)}
    lagged = {lead: np.mean([fair_crps(np.array(each)) for each in rows]) for lead, rows in errors.items()}
    lines = shown(done.stdout, "CRPS of the lagged ensemble, global")
    assert lines[0] == ["temperature 850", "K", *(f"{lagged[lead]:.4g}" for lead in (24, 30)), "2"]
    assert lines[1][0] == "spread / skill"
    lines = shown(done.stdout, "CRPS of the ensemble, global")
    single = np.mean([fair_crps(np.array([error_of(begun, 24), 1])) for begun in (6, 12)])
    assert lines[0][:3] == ["temperature 850", "K", f"{single:.4g}"]
    assert lines[2][:3] == ["skill over lagged", "", f"{1 - single / lagged[24]:+.2f}"]

    compared = told(capsys, "compare", store.path, "lagged")
    assert "RMSE of lagged against" in compared
    for text, match in (
        ("6;12", "--lagged must be whole hours, separated by commas"),
        ("6,6", "must be named once each"),
    ):
        assert match in told(capsys, "evaluate", store.path, "--lagged", text)


def shown(output, title):
    """Return the rows of a table that was printed, as lists of texts."""
    lines = output[output.index(title) :].splitlines()
    end = next(n for n, line in enumerate(lines) if line.startswith("└"))
    return [[part.strip() for part in line.split("│")[1:-1]] for line in lines[:end] if "│" in line]
