"""What is said of values beyond quantiles of what is usual."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.config.scores_section import ScoresConfig
from graphcast_batch.errors import ConfigError, EvaluationError
from graphcast_batch.evaluation.case_scoring import score_case, weighted_sums
from graphcast_batch.evaluation.climatology import Climatology
from graphcast_batch.evaluation.ensemble import ENSEMBLE
from graphcast_batch.evaluation.group_scoring import score_layout_of
from graphcast_batch.evaluation.metrics import metric_of, metrics_of
from graphcast_batch.evaluation.online_scores import OnlineScorer
from graphcast_batch.evaluation.pointwise_statistics import Points, at_events
from graphcast_batch.evaluation.regions import weigh
from graphcast_batch.evaluation.score_results import average, read
from graphcast_batch.evaluation.score_store import FORECAST, ScoreStore
from graphcast_batch.evaluation.store_scoring import ensemble_of, evaluations, lay_out, score_stored, scoring_of
from graphcast_batch.grid import regular_grid
from graphcast_batch.timing import Stopwatch
from tests.conftest import SMALL
from tests.evaluation.made import cases, config_for, records, stored, truth
from tests.evaluation.test_climatology import usual_wave
from tests.evaluation.test_during import assert_same_scores, run

GRID = regular_grid(5)
PLACE = ["latitude", "longitude"]
KINDS = ("brier", "frequency_bias", "sedi", "rmse")
RAIN = "total_precipitation_6hr"


def flat(fields):
    return np.asarray(fields, np.float32).reshape(-1, np.shape(fields)[-2] * np.shape(fields)[-1])


def scores_of(forecast, true, usual, deviation, quantile, regions=None):
    """Every metric of extremes, each over (field, region), without its quantile."""
    regions = regions or weigh(("global",), {}, GRID, lambda: None)
    names = at_events([quantile])
    at = Points(flat(forecast), flat(true), flat(usual), None, flat(deviation))
    means = weighted_sums(at, names, regions) / regions.totals
    dataset = xr.Dataset({"x": (("statistic", "field", "region"), means)}, {"statistic": list(names)})
    return {metric.name: metric_of(dataset, metric)["x"].values for metric in metrics_of(names)}


@pytest.mark.parametrize("quantile", [0.02, 0.3, 0.5, 0.9])
def test_scores_of_random_extremes_are_what_another_library_says(quantile):
    """Each table counts areas; https://scores.readthedocs.io."""
    categorical, continuous, probability = (
        pytest.importorskip(f"scores.{name}") for name in ("categorical", "continuous", "probability")
    )
    random = np.random.default_rng(0)
    regions = weigh(("global", "tropics", "land"), {}, GRID, lambda: np.tri(*GRID.shape, dtype=np.float32))
    scale, height = np.array([9.0, 3e-3, 2e3])[:, None, None], np.array([280.0, 0.0, 5.5e4])[:, None, None]
    usual, true = ((height + scale * random.normal(size=(3, *GRID.shape))).astype(np.float32) for _ in range(2))
    forecast = (true + 0.5 * scale * random.normal(size=true.shape)).astype(np.float32)
    deviation = (scale * random.uniform(0.5, 2, true.shape)).astype(np.float32)

    found = scores_of(forecast, true, usual, deviation, quantile, regions)

    threshold = usual.astype(float) + norm.ppf(quantile) * deviation
    events = [np.less if quantile < 0.5 else np.greater] * 2
    of_forecast, of_truth = (
        xr.DataArray(event(field, threshold), dims=["field", *PLACE])
        for event, field in zip(events, (forecast, true), strict=True)
    )
    weights = xr.DataArray(regions.weights, dims=["region", *PLACE])
    cells = {
        "tp_count": of_forecast & of_truth,
        "fp_count": of_forecast & ~of_truth,
        "fn_count": ~of_forecast & of_truth,
        "tn_count": ~of_forecast & ~of_truth,
    }
    counts = {name: (cell * weights).sum(PLACE) for name, cell in cells.items()}
    table = categorical.BasicContingencyManager({**counts, "total_count": sum(counts.values())})
    fields = [xr.DataArray(field.astype(float), dims=["field", *PLACE]) for field in (forecast, true)]
    options = {"reduce_dims": PLACE, "weights": weights}
    expected = {
        "brier": probability.brier_score(of_forecast.astype(float), of_truth.astype(float), **options),
        "frequency_bias": table.frequency_bias(),
        "sedi": table.symmetric_extremal_dependence_index(),
        "rmse": continuous.rmse(*fields, reduce_dims=PLACE, weights=weights * of_truth),
    }
    assert sorted(found) == sorted(f"{kind}@{quantile}" for kind in KINDS)
    for kind, values in expected.items():
        np.testing.assert_allclose(found[f"{kind}@{quantile}"], values.transpose("field", "region"), rtol=1e-6)


WAVE = np.cos(np.deg2rad(30 * np.arange(GRID.shape[1]))) * np.ones((GRID.shape[0], 1))
"""Of twelve points; above 0.7 at three of them."""
DEVIATION = np.full(GRID.shape, 0.7 / norm.ppf(0.9))


def test_a_wave_that_is_late_has_the_scores_that_it_must_have():
    """Of three points in twelve that are beyond two are forecast, and one of the other nine; errors by hand."""
    late = np.roll(WAVE, 1, axis=-1)

    found = {name: value.item() for name, value in scores_of(late, WAVE, 0 * WAVE, DEVIATION, 0.9).items()}

    hits, alarms = 2 / 3, 1 / 9
    up, down = np.log(alarms) + np.log(1 - hits), np.log(hits) + np.log(1 - alarms)
    squares = [(np.cos(np.deg2rad(angle - 30)) - np.cos(np.deg2rad(angle))) ** 2 for angle in (-30, 0, 30)]
    assert found["brier@0.9"] == pytest.approx(2 / 12)
    assert found["frequency_bias@0.9"] == pytest.approx(1)
    assert found["sedi@0.9"] == pytest.approx((up - down) / (up + down))
    assert found["rmse@0.9"] == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-6)


def test_a_low_quantile_is_a_high_one_upside_down():
    late = np.roll(WAVE, 1, axis=-1) + 0.1

    high = scores_of(late, WAVE, 0 * WAVE, DEVIATION, 0.9)
    low = scores_of(-late, -WAVE, 0 * WAVE, DEVIATION, 1 - 0.9)

    np.testing.assert_array_equal([*high.values()], [*low.values()])


def test_where_nothing_is_beyond_only_the_brier_score_is_defined():
    found = scores_of(WAVE, WAVE, 0 * WAVE, 10 * DEVIATION, 0.9)

    assert {name: value.item() for name, value in found.items() if np.isfinite(value)} == {"brier@0.9": 0}


def test_a_perfect_forecast_has_no_error_and_an_empty_cell_of_the_table():
    found = {name: value.item() for name, value in scores_of(WAVE, WAVE, 0 * WAVE, DEVIATION, 0.9).items()}

    assert (found["brier@0.9"], found["frequency_bias@0.9"], found["rmse@0.9"]) == (0, 1, 0)
    assert np.isnan(found["sedi@0.9"])


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.99))
def test_the_brier_score_of_means_is_the_mean_squared_difference_of_events(seed, quantile):
    forecast, true = np.random.default_rng(seed).normal(size=(2, *GRID.shape)).astype(np.float32)
    regions = weigh(("global",), {}, GRID, lambda: None)

    found = scores_of(forecast, true, 0 * true, np.ones(GRID.shape), quantile)[f"brier@{quantile}"]

    beyond = [(-1 if quantile < 0.5 else 1) * (each - norm.ppf(quantile)) > 0 for each in (forecast, true)]
    expected = np.average(beyond[0] != beyond[1], weights=regions.weights[0])
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


QUANTILES = (0.1, 0.9)
WANTED = ScoresConfig(regions=("global", "tropics"), quantiles=QUANTILES)


@pytest.fixture(scope="module")
def usual_path(tmp_path_factory):
    """What is usual of the wave planet, with deviations by which the wave is above 2.1 where it is beyond."""
    folder = tmp_path_factory.mktemp("extremes")
    opened = xr.open_zarr(usual_wave(folder / "mean.zarr"), chunks=None).load()
    spread = {f"{name}_std": 0 * array + np.float32(2.1 / norm.ppf(0.9)) for name, array in opened.data_vars.items()}
    rain = dict.fromkeys(
        (RAIN, f"{RAIN}_seeps_dry_fraction", f"{RAIN}_seeps_threshold"), opened["10m_u_component_of_wind"]
    )
    opened.assign(spread).assign(rain).to_zarr(folder / "c.zarr", zarr_format=2)
    return folder / "c.zarr"


def late(name, hours, values):
    return np.roll(values, 1, axis=-1)


def scored(store, usual_path, wanted=WANTED):
    """Scores all that is left."""
    scoring = scoring_of(wanted, store, truth(), Climatology(usual_path, store.kept))
    found = lay_out(store, FORECAST, scoring, {})
    for case in found.left:
        score_stored(found.path, found.name, found.scoring, case)


def test_extremes_of_a_store_are_in_its_table_but_those_of_precipitation(tmp_path, usual_path):
    variables = (("10m_u_component_of_wind", False), ("temperature", True), (RAIN, False))
    store = stored(tmp_path / "s", cases(2), late, variables=variables)

    scored(store, usual_path)

    results = average(read(store.path))
    found = results.values.sel(region="global").isel(prediction_timedelta=0)
    np.testing.assert_allclose(found["temperature"].sel(metric="brier@0.9"), 2 / 12, rtol=1e-6)
    np.testing.assert_allclose(found["temperature"].sel(metric="frequency_bias@0.1"), 1, rtol=1e-6)
    listed = {(row["variable"], row["metric"]) for row in records(results) if "@" in row["metric"]}
    assert {variable for variable, _ in listed} == {"10m_u_component_of_wind", "temperature"}
    assert {metric for _, metric in listed} == {f"{kind}@{quantile}" for kind in KINDS for quantile in QUANTILES}
    assert all(row["cases"] == 2 for row in records(results))


def test_an_undefined_score_stands_in_the_table_with_the_cases_that_went_in(tmp_path, usual_path):
    store = stored(tmp_path / "s", cases(2), late)

    scored(store, usual_path, ScoresConfig(regions=("global",), quantiles=(0.999,)))

    found = [row for row in records(average(read(store.path))) if row["metric"] == "sedi@0.999"]
    assert found
    assert all(np.isnan(row["value"]) and row["cases"] == 2 for row in found)


def test_extremes_during_a_run_are_those_of_the_stored_forecasts_to_the_last_bit(tmp_path, usual_path):
    planned = cases(1, steps=12)
    online, after = (stored(tmp_path / name, planned, None, filled=[], keep_bits=9) for name in ("during", "after"))
    scoring = scoring_of(WANTED, online, truth(), Climatology(usual_path, online.kept))
    regions = scoring.weighed()
    scores = ScoreStore.lay_out(online.path, FORECAST, score_layout_of(scoring, regions, {}))

    (made,) = run(online, planned, OnlineScorer(online, scores, scoring, regions), per_call=5)
    run(after, planned)
    scored(after, usual_path)

    assert made.unscored == ""
    assert_same_scores(online, after)
    assert np.isfinite(average(read(after.path)).values.sel(metric="sedi@0.9", region="global")["temperature"]).all()


def test_quantiles_need_a_climatology_with_standard_deviations(tmp_path, usual_path):
    store = stored(tmp_path / "s", cases(1), late)
    config = config_for(store.path, truth={"kind": "synthetic", "resolution": 10}, quantiles=[0.9])
    opened = xr.open_zarr(usual_path, chunks=None).load()
    opened.drop_vars("temperature_std").to_zarr(tmp_path / "mean.zarr", zarr_format=2)

    with pytest.raises(EvaluationError, match=r"scores\.quantiles needs scores\.climatology, but none is given"):
        evaluations(config)
    with pytest.raises(EvaluationError, match=r"mean\.zarr must hold temperature_std, but has"):
        scored(store, tmp_path / "mean.zarr")


def test_a_gap_in_the_standard_deviation_is_refused_with_its_place(tmp_path, usual_path):
    store = stored(tmp_path / "s", cases(1), late)
    opened = xr.open_zarr(usual_path, chunks=None).load()
    opened["temperature_std"].loc[{"dayofyear": 1, "level": 850, "latitude": 10, "longitude": 30}] = np.nan
    opened.to_zarr(tmp_path / "gap.zarr", zarr_format=2)
    scoring = scoring_of(WANTED, store, truth(), Climatology(tmp_path / "gap.zarr", store.kept))

    with pytest.raises(
        EvaluationError,
        match="the standard deviation of the climatology must be finite everywhere, but temperature at 850 hPa is nan "
        "after 6 h at latitude 10, longitude 30",
    ):
        score_case(scoring, cases(1)[0], Stopwatch())


@pytest.mark.parametrize(
    ("quantiles", "match"),
    [
        ([0.9, 0.9], "quantiles must name each once, but are 0.9, 0.9"),
        ([0.0], "greater than 0"),
        ([1.0], "less than 1"),
    ],
)
def test_quantiles_are_shares_each_of_them_once(quantiles, match):
    with pytest.raises(ConfigError, match=match):
        parse_config(SMALL | {"store": "s", "scores": {"quantiles": quantiles}}, RunConfig, origin="here")


def test_an_ensemble_is_scored_against_the_climatology_where_that_has_deviations(tmp_path, usual_path):
    variables = (("temperature", True), (RAIN, False))
    pair = [stored(tmp_path / name, cases(2), late, variables=variables) for name in "ab"]
    first = pair[0]
    scoring = scoring_of(ScoresConfig(regions=("global",)), first, truth(), Climatology(usual_path, first.kept))

    found = lay_out(first, ENSEMBLE, ensemble_of(scoring, pair), {})
    for case in found.left:
        score_stored(found.path, found.name, found.scoring, case)

    values = average(read(first.path, ENSEMBLE)).values.sel(region="global").isel(prediction_timedelta=0)
    crps, usual, skill = (values["temperature"].sel(metric=name) for name in ("crps", "crps_climatology", "crpss"))
    np.testing.assert_allclose(skill, 1 - crps / usual, rtol=1e-12)
    assert (usual > 0).all()
    assert np.isnan(values[RAIN].sel(metric="crpss"))
    assert np.isfinite(values[RAIN].sel(metric="crps"))
    assert lay_out(first, ENSEMBLE, ensemble_of(scoring, pair), {}).left == ()
