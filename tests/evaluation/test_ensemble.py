"""What is said of several stores together."""

import csv
import shutil
import threading

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import chi2, norm

from graphcast_batch.config.outputs_section import RegionConfig
from graphcast_batch.config.scores_section import ScoresConfig
from graphcast_batch.errors import EvaluationError, StoreMismatchError
from graphcast_batch.evaluation import case_scoring as module
from graphcast_batch.evaluation.case_scoring import score_case, scoring_pieces, weighted_sums
from graphcast_batch.evaluation.ensemble import ENSEMBLE
from graphcast_batch.evaluation.metrics import metric_of, metrics_of
from graphcast_batch.evaluation.pointwise_statistics import PLAIN, Points, events_of, of_ensemble, statistic
from graphcast_batch.evaluation.regions import weigh
from graphcast_batch.evaluation.score_results import average, read
from graphcast_batch.evaluation.score_store import ScoreStore
from graphcast_batch.evaluation.store_scoring import ensemble_of, lay_out, score_stored, scoring_of
from graphcast_batch.grid import regular_grid
from graphcast_batch.stores.store_kinds import open_store
from graphcast_batch.timing import Stopwatch
from tests.evaluation.made import cases, fill, records, stored, truth
from tests.evaluation.test_during import told
from tests.evaluation.test_evaluate import CONFIG
from tests.evaluation.test_stored import times, written

GRID = regular_grid(5)
REGIONS = weigh(("global", "tropics", "land"), {}, GRID, lambda: np.tri(*GRID.shape, dtype=np.float32))
PLACE = ["latitude", "longitude"]
MEMBERS = 5


def names_of(members, quantiles=()):
    return (*PLAIN, *of_ensemble(members, events_of(quantiles, {}), deviations=bool(quantiles)))


def points(forecast, true, usual=None, deviation=None):
    """Forecasts (member, field, latitude, longitude), and the rest without members."""
    size = true.shape[-2] * true.shape[-1]
    rest = (None if each is None else each.reshape(-1, size) for each in (true, usual))
    deviation = None if deviation is None else deviation.reshape(-1, size)
    return Points(forecast.reshape(len(forecast), -1, size), *rest, None, deviation)


def scores_of(at, quantiles=()):
    """Every metric, each over (field, region)."""
    names = names_of(at.members, quantiles)
    means = weighted_sums(at, names, REGIONS) / REGIONS.totals
    dataset = xr.Dataset({"x": (("statistic", "field", "region"), means)}, {"statistic": list(names)})
    return {metric.name: metric_of(dataset, metric)["x"].values for metric in metrics_of(names)}


def random_fields(seed=0):
    """Ensemble, truth, mean and deviation of three variables of very different size."""
    random = np.random.default_rng(seed)
    scale, height = np.array([9.0, 3e-3, 2e3])[:, None, None], np.array([280.0, 0.0, 5.5e4])[:, None, None]

    def made(*more):
        return (height + scale * random.normal(size=(*more, 3, *GRID.shape))).astype(np.float32)

    return made(MEMBERS), made(), made(), (scale * random.uniform(0.5, 2, (3, *GRID.shape))).astype(np.float32)


def test_scores_of_a_random_ensemble_are_what_another_library_says():
    """https://scores.readthedocs.io."""
    probability, continuous = (pytest.importorskip(f"scores.{name}") for name in ("probability", "continuous"))
    forecast, true, usual, deviation = random_fields()

    found = scores_of(points(forecast, true, usual, deviation), (0.1, 0.9))

    members = xr.DataArray(forecast.astype(float), dims=["member", "field", *PLACE])
    observed, usual, deviation = (
        xr.DataArray(each.astype(float), dims=["field", *PLACE]) for each in (true, usual, deviation)
    )
    options = {"reduce_dims": PLACE, "weights": xr.DataArray(REGIONS.weights, dims=["region", *PLACE])}
    z = 1.2815515655446004  # of the standard normal distribution at 0.9, from tables
    brier = {"event_thresholds": 0, "fair_correction": False, **options}
    expected = {
        "crps": probability.crps_for_ensemble(members, observed, "member", method="fair", **options),
        "rmse": continuous.rmse(members.mean("member"), observed, **options),
        "mae": continuous.mae(members.mean("member"), observed, **options),
        "spread": members.var("member", ddof=1).weighted(options["weights"]).mean(PLACE) ** 0.5,
    }
    for quantile, sign in ((0.9, 1), (0.1, -1)):
        anomalies = [sign * (each - usual) - z * deviation for each in (members, observed)]
        expected[f"brier@{quantile}"] = probability.brier_score_for_ensemble(*anomalies, "member", **brier)
    expected["spread_skill_ratio"] = np.sqrt((MEMBERS + 1) / MEMBERS) * expected["spread"] / expected["rmse"]
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values.squeeze().transpose("field", "region"), rtol=1e-6)


def test_ranks_share_the_truth_where_members_tie_with_it_as_brute_force_says():
    random = np.random.default_rng(0)
    forecast, true = (random.integers(0, 4, (*more, 2, *GRID.shape)).astype(np.float32) for more in ((MEMBERS,), ()))

    found = scores_of(points(forecast, true))

    expected = np.zeros((MEMBERS + 1, 2, len(REGIONS.names)))
    for field, row, column in np.ndindex(2, *GRID.shape):
        held = sorted(forecast[:, field, row, column].tolist())
        value = true[field, row, column]
        fits = [rank for rank in range(MEMBERS + 1) if all(held[n] <= value for n in range(rank))]
        fits = [rank for rank in fits if all(held[n] >= value for n in range(rank, MEMBERS))]
        expected[fits, field] += REGIONS.weights[:, row, column] / len(fits)
    ranks = np.stack([found[f"rank_{rank}"] for rank in range(MEMBERS + 1)])
    np.testing.assert_allclose(ranks, expected / REGIONS.totals, rtol=1e-9)
    np.testing.assert_allclose(ranks.sum(axis=0), 1, rtol=1e-12)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.permutations(range(MEMBERS)))
def test_the_order_of_members_changes_nothing(seed, order):
    forecast, true, usual, deviation = random_fields(seed)

    first, second = (
        scores_of(points(each, true, usual, deviation), (0.9,)) for each in (forecast, forecast[list(order)])
    )

    for name, values in first.items():
        np.testing.assert_allclose(second[name], values, rtol=1e-9, atol=1e-9 * first["rmse"].max(), err_msg=name)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 2))
def test_sums_of_parts_are_those_of_the_whole(seed, cut):
    forecast, true, usual, deviation = random_fields(seed)
    at, names = points(forecast, true, usual, deviation), names_of(MEMBERS, (0.1,))
    everywhere = slice(None)

    parts = [weighted_sums(at.part(fields, everywhere), names, REGIONS) for fields in (slice(cut), slice(cut, None))]

    np.testing.assert_allclose(np.concatenate(parts, axis=1), weighted_sums(at, names, REGIONS), rtol=1e-12)


def test_two_members_on_either_side_of_the_truth_have_no_score_to_lose():
    """Their mean distance from it is 2, and half of that between them too; their variance is 8."""
    zero = np.zeros((1, *GRID.shape), np.float32)

    found = {name: values[0, 0] for name, values in scores_of(points(np.stack([zero - 2, zero + 2]), zero)).items()}

    assert found["crps"] == pytest.approx(0, abs=1e-12)
    assert found["spread"] == pytest.approx(np.sqrt(8))
    assert [found[f"rank_{rank}"] for rank in range(3)] == pytest.approx([0, 1, 0])
    assert found["rmse"] == 0
    assert np.isnan(found["spread_skill_ratio"])


@pytest.mark.parametrize("members", [2, 3, 10])
def test_an_ensemble_of_which_the_truth_could_be_a_member_spreads_as_much_as_its_mean_errs(members):
    """Within the interval that holds 99.9 of 100 such ensembles, and with ranks that pass Pearson's test."""
    random, count = np.random.default_rng(0), 100
    fields = random.normal(size=(members + 1, count, *GRID.shape)).astype(np.float32)

    found = {name: values[:, 0].copy() for name, values in scores_of(points(fields[1:], fields[0])).items()}

    square, variance = (np.mean(found[name] ** 2) for name in ("rmse", "spread"))
    weights = REGIONS.weights[0] / REGIONS.totals[0]
    independent = count / np.sum(weights**2)  # as many points of equal weight have a mean as certain
    # Error of the mean and variance of the members are independent, with relative variances 2 and 2 / (M - 1).
    uncertain = np.sqrt((1 / 2 + 1 / (2 * (members - 1))) / independent)
    ratio = np.sqrt((members + 1) / members * variance / square)
    assert ratio == pytest.approx(1, abs=3.29 * uncertain)
    of_weatherbench_x = np.sqrt(variance / (square - variance / members))
    assert of_weatherbench_x == pytest.approx(ratio * np.sqrt(members / (members + 1 - ratio**2)))
    assert of_weatherbench_x == pytest.approx(1, abs=3.29 * uncertain * (members + 1) / members)
    shares = np.array([found[f"rank_{rank}"].mean() for rank in range(members + 1)])
    statistic = independent * np.sum((shares - 1 / (members + 1)) ** 2) * (members + 1)
    assert statistic < chi2.ppf(0.999, members)


def test_an_ensemble_that_spreads_too_little_or_too_much_is_seen_by_ratio_and_ranks():
    """Members with half or twice the standard deviation of the truth; the mean of three errs by that of the truth."""
    random = np.random.default_rng(0)
    fields = random.normal(size=(4, 100, *GRID.shape)).astype(np.float32)

    narrow, wide = (scores_of(points(factor * fields[1:], fields[0])) for factor in (0.5, 2))

    for found, factor in ((narrow, 0.5), (wide, 2)):
        ratio = np.sqrt(4 / 3 * np.mean(found["spread"][:, 0] ** 2) / np.mean(found["rmse"][:, 0] ** 2))
        assert ratio == pytest.approx(np.sqrt(4 / 3 * factor**2 / (1 + factor**2 / 3)), rel=0.02)
    outside = [found["rank_0"][:, 0].mean() + found["rank_3"][:, 0].mean() for found in (narrow, wide)]
    assert outside[0] > 0.6
    assert outside[1] < 0.4


SHIFTS = (-1, 2, 5)
"""Of the members: their mean errs by 2, their variance is 9, and their distances from each other are 3, 3 and 6."""


def shifted_by(shift):
    return lambda name, hours, values: values + shift


def made(folder, planned=None, **options):
    return [stored(folder / f"s{shift}", planned or cases(2), shifted_by(shift), **options) for shift in SHIFTS]


def found_of(stores, wanted=None, identity=None):
    """What there is to score."""
    scoring = scoring_of(wanted or ScoresConfig(regions=("global",)), stores[0], truth())
    return lay_out(stores[0], ENSEMBLE, ensemble_of(scoring, stores), identity or {})


def score(stores, wanted=None):
    """Scores all that is left; returns what there was to do."""
    found = found_of(stores, wanted)
    for case in found.left:
        score_stored(found.path, found.name, found.scoring, case)
    return found


def made_again(store, key):
    """Has a store say that it made a Case anew, a century later."""
    record = next((store.path / "ledger").rglob(f"{key}.json"))
    record.write_text(record.read_text().replace('"finished_at": "20', '"finished_at": "21'))


def test_three_stores_have_the_scores_that_their_errors_say(tmp_path):
    stores = made(tmp_path)

    score(stores)

    results = average(read(stores[0].path, ENSEMBLE))
    values = {name: results.values.sel(metric=name) for name in results.values["metric"].values}
    expected = {"crps": 8 / 3 - 2, "spread": 3, "rmse": 2, "bias": 2, "mae": 2}
    expected |= {"spread_skill_ratio": np.sqrt(4 / 3) * 3 / 2, "rank_0": 0, "rank_1": 1, "rank_2": 0, "rank_3": 0}
    for name, value in expected.items():
        np.testing.assert_allclose(values[name]["temperature"], value, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(values["spread"]["10m_wind_vector"], np.sqrt(18), rtol=1e-5)
    np.testing.assert_allclose(values["rmse"]["10m_wind_vector"], np.sqrt(8), rtol=1e-5)
    listed = {row["metric"] for row in records(results) if row["variable"] == "10m_wind_vector"}
    assert listed == {"rmse", "mse", "spread", "spread_skill_ratio"}
    assert not ScoreStore.at(stores[0].path, "forecast").exists
    assert not ScoreStore.at(stores[1].path, ENSEMBLE).exists


def test_the_pieces_of_an_ensemble_are_smaller_and_change_no_score(tmp_path, monkeypatch):
    stores = made(tmp_path, cases(1))
    scoring, case = found_of(stores).scoring, cases(1)[0]
    at_once = score_case(scoring, case, Stopwatch())
    size = 4 * 19 * 36 * (1 + 1 + 2)
    monkeypatch.setattr(module, "_PIECE_BYTES", 6 * size)

    single = scoring_of(ScoresConfig(regions=("global",)), stores[0], truth())
    for each, leads in ((single, 4), (scoring, 2)):
        pieces = scoring_pieces(each, case, each.times())
        assert {piece.leads.size for piece in pieces} == {leads}
    for name, found in score_case(scoring, case, Stopwatch()).items():
        np.testing.assert_allclose(found.means, at_once[name].means, rtol=1e-12)


def test_truth_is_read_in_its_turn_where_other_threads_read_too(tmp_path, monkeypatch):
    """Two threads must not read HDF5 at once."""
    stores, lock, held = made(tmp_path, cases(1)), threading.Lock(), []
    found = found_of(stores)
    expected = module.expectation

    def watched(*given):
        held.append(lock.locked())
        return expected(*given)

    monkeypatch.setattr(module, "expectation", watched)
    score_stored(found.path, found.name, found.scoring, cases(1)[0], lambda: held.append(lock.locked()), lock)
    assert held == [True, False]


def test_members_that_are_all_the_same_score_as_one_of_them_with_what_is_derived(tmp_path):
    """Without spread the probability score is the absolute error."""
    first = stored(tmp_path / "s", cases(1), shifted_by(2))
    shutil.copytree(first.path, tmp_path / "same")
    wanted = ScoresConfig(regions=("global",), derived=("10m_wind_speed",))

    score([first, open_store(tmp_path / "same")], wanted)
    alone = lay_out(first, "forecast", scoring_of(wanted, first, truth()), {})
    score_stored(alone.path, alone.name, alone.scoring, alone.left[0])

    ours, theirs = (average(read(first.path, name)).values for name in (ENSEMBLE, "forecast"))
    for name in ("10m_wind_speed", "temperature"):
        np.testing.assert_allclose(ours[name].sel(metric="crps"), theirs[name].sel(metric="mae"), rtol=1e-12)
        np.testing.assert_allclose(ours[name].sel(metric="rmse"), theirs[name].sel(metric="rmse"), rtol=1e-12)
        assert (ours[name].sel(metric="spread") == 0).all()


def test_only_cases_that_are_whole_in_all_stores_are_scored_and_others_once_they_are(tmp_path):
    planned = cases(3)
    stores = [
        stored(tmp_path / "a", planned, shifted_by(0)),
        stored(tmp_path / "b", planned, shifted_by(1), filled=planned[:2]),
        stored(tmp_path / "c", cases(4), shifted_by(2), filled=planned[1:]),
    ]

    first = score(stores)
    fill(stores[1], planned[2], shifted_by(1), truth())
    second = score(stores)

    assert [case.key for case in first.left] == ["2020-01-01T12"]
    assert first.incomplete == ("2020-01-01T00", "2020-01-02T00", "2020-01-02T12")
    assert [case.key for case in second.left] == ["2020-01-02T00"]
    assert second.done == ("2020-01-01T12",)
    assert score(stores).left == ()


@pytest.mark.parametrize("number", range(3))
def test_a_case_that_was_made_again_in_any_store_is_scored_again(tmp_path, number):
    stores = made(tmp_path, cases(1))
    score(stores)
    made_again(stores[number], "2020-01-01T00")

    assert len(score(stores).left) == 1
    assert score(stores).left == ()


def test_scores_of_other_members_are_not_mixed_in_but_their_order_does_not_matter(tmp_path):
    stores = made(tmp_path)
    made_again(stores[1], "2020-01-01T00")  # forecasts of which each is known by another time
    score(stores)

    assert found_of([stores[0], stores[2], stores[1]]).left == ()
    with pytest.raises(StoreMismatchError, match=r"members: there \['.*s2', '.*s5'\], now \['.*s2'\]"):
        found_of(stores[:2])


def test_a_gap_in_a_member_is_refused_with_its_store_and_place(tmp_path):
    def change(name, hours, values):
        values = values.copy()
        if name == "temperature" and hours == 12:
            values[1, 3, 4] = np.nan
        return values

    stores = [stored(tmp_path / "a", cases(1), shifted_by(0)), stored(tmp_path / "b", cases(1), change)]
    with pytest.raises(
        EvaluationError,
        match=r"the forecast of .*/b must be finite everywhere, but temperature at 850 hPa is nan after 12 h at "
        r"latitude -60, longitude 40 \(1 values in all\)",
    ):
        score_case(found_of(stores).scoring, cases(1)[0], Stopwatch())


def test_stores_that_cannot_be_one_ensemble_are_refused(tmp_path):
    first = stored(tmp_path / "a", cases(1), shifted_by(0))

    def refused(match, name=None, **options):
        other = stored(tmp_path / name, cases(1, options.pop("steps", 4)), shifted_by(0), **options) if name else first
        with pytest.raises(EvaluationError, match=match):
            found_of([first, other])

    refused("must be different stores, but .*/a is given more than once")
    refused("keeps only scores", "none", identity={"outputs": "none"}, forecasts=False, filled=[])
    refused("the lead times of .*/short are 6, 12 h, and those of .*/a 6, 12, 18, 24 h", "short", steps=2)
    refused("the levels of .*/low are 850 hPa, and those of .*/a 500, 850 hPa", "low", levels=(850,))
    refused(
        "the latitudes of .*/box are 5 from 30 to 70", "box", region=RegionConfig(latitude=(30, 70), longitude=(0, 40))
    )
    refused("the variables of .*/few are temperature", "few", variables=(("temperature", True),))


def test_the_command_scores_an_ensemble_and_writes_its_table(tmp_path, command, capsys):
    stores = made(tmp_path)
    written(tmp_path / "truth.zarr", times(9))
    config = CONFIG.format(path=tmp_path / "truth.zarr", store=stores[0].path)
    (stores[0].path / "run.yaml").write_text(config)
    members = [part for store in stores[1:] for part in ("--member", store.path)]

    done = command("evaluate", stores[0].path, *members, "--out", tmp_path / "scores.csv")

    assert done.returncode == 0, done.stderr
    assert "ensemble: 2 to score, 0 scored before" in done.stdout
    assert "4 scored now, 0 failed, 0 left" in done.stdout
    shown = done.stdout[done.stdout.index("CRPS of the ensemble, global") :].splitlines()
    lines = [[part.strip() for part in line.split("│")[1:-1]] for line in shown if "│" in line]
    assert lines == [["temperature 850", "K", "0.6667", "2"], ["spread / skill", "", "1.73", ""]]
    with (tmp_path / "scores.csv").open() as file:
        table = {
            row["metric"]: row
            for row in csv.DictReader(file)
            if [row[key] for key in ("scores", "variable", "level", "region", "lead_hours")]
            == ["ensemble", "temperature", "850", "tropics", "24"]
        }
    assert float(table["crps"]["value"]) == pytest.approx(2 / 3, rel=1e-5)
    assert float(table["rank_1"]["value"]) == pytest.approx(1)
    assert table["spread"]["cases"] == "2"
    assert {f"rank_{rank}" for rank in range(4)} <= set(table)

    (stores[0].path / "run.yaml").write_text(f"{config}scores: {{members: [{stores[1].path}, {stores[2].path}]}}\n")
    assert "ensemble: 0 to score, 2 scored before" in told(capsys, "evaluate", stores[0].path)
    assert "is given more than once" in told(capsys, "evaluate", stores[0].path, "--member", stores[0].path)


def test_the_score_of_a_gaussian_climatology_is_the_integral_that_defines_it():
    mean, deviation = np.array([[280.0, 0.0, 1.0, 5.0]]), np.array([[4.0, 1.0, 0.5, 0.0]])
    true = [[275.0, 0.0, 3.0, 7.5]]
    at = Points(*(np.asarray(each, np.float32) for each in (true, true, mean)), None, deviation.astype(np.float32))

    found = statistic("crps_climatology")(at)

    def score(mean, deviation, true):
        ends = mean - 12 * deviation, mean + 12 * deviation
        return quad(lambda x: (norm.cdf(x, mean, deviation) - (x >= true)) ** 2, *ends, points=[true], limit=500)[0]

    expected = [score(*each) for each in zip(mean[0, :3], deviation[0, :3], true[0][:3], strict=True)]
    np.testing.assert_allclose(found[0], [*expected, 2.5], rtol=1e-6)


def test_a_single_forecast_with_the_spread_of_the_climatology_has_the_score_of_a_gaussian_about_it():
    """It is the mean distance of its quantiles from the truth, less half of that from each other."""
    random = np.random.default_rng(5)
    forecast, true, mean = random.normal(280, 3, size=(3, 1, 50)).astype(np.float32)
    deviation = random.uniform(0.5, 4, size=(1, 50)).astype(np.float32)

    found = statistic("crps_gaussian")(Points(forecast, true, mean, None, deviation))

    of_mean = statistic("crps_climatology")(Points(mean, true, forecast, None, deviation))
    np.testing.assert_allclose(found, of_mean, rtol=1e-12)
    draws = norm.ppf((np.arange(4000) + 0.5) / 4000)[:, np.newaxis] * deviation + forecast
    apart = np.abs(draws - true).mean(axis=0) - (np.sort(draws, axis=0).T @ (2 * np.arange(4000) - 3999)) / 4000**2
    np.testing.assert_allclose(found[0], apart, rtol=1e-3)


def test_a_large_ensemble_drawn_from_the_climatology_has_its_score_and_no_skill():
    random = np.random.default_rng(2)
    _, true, usual, deviation = random_fields()
    forecast = (usual + deviation * random.normal(size=(400, *usual.shape))).astype(np.float32)
    true = (usual + deviation * random.normal(size=usual.shape)).astype(np.float32)

    found = scores_of(points(forecast, true, usual, deviation), (0.9,))

    np.testing.assert_allclose(found["crpss"], 0.0, atol=5e-3)
    np.testing.assert_allclose(found["crps"], found["crps_climatology"], rtol=5e-3)
