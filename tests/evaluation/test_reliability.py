"""How often an event occurs where an ensemble gives it a probability."""

import csv

import numpy as np
import pytest
import xarray as xr
from PIL import Image
from scipy.stats import norm

from graphcast_batch.app.score_drawing import draw_scores
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.config.scores_section import ScoresConfig
from graphcast_batch.errors import ConfigError, EvaluationError, FigureError, StoreMismatchError
from graphcast_batch.evaluation.case_scoring import weighted_sums
from graphcast_batch.evaluation.climatology import Climatology
from graphcast_batch.evaluation.ensemble import ENSEMBLE
from graphcast_batch.evaluation.metrics import metric_of, metrics_of
from graphcast_batch.evaluation.pointwise_statistics import BRIER, EVENT_MARK, Points, events_of
from graphcast_batch.evaluation.regions import weigh
from graphcast_batch.evaluation.reliability import of_reliability
from graphcast_batch.evaluation.reliability_diagrams import reliability_diagrams
from graphcast_batch.evaluation.score_export import write_table
from graphcast_batch.evaluation.score_results import average, read
from graphcast_batch.evaluation.score_store import ScoreStore
from graphcast_batch.evaluation.store_scoring import ensemble_of, evaluations, lay_out, score_stored, scoring_of
from graphcast_batch.figures.reliability_diagrams import draw_reliability
from graphcast_batch.grid import regular_grid
from tests.conftest import SMALL
from tests.evaluation.made import cases, config_for, stored, truth
from tests.evaluation.test_climatology import usual_wave

GRID = regular_grid(5)
REGIONS = weigh(("global", "tropics", "land"), {}, GRID, lambda: np.tri(*GRID.shape, dtype=np.float32))
MEMBERS = 4


def scores_of(at, events):
    """Every metric of the events, each over (field, region)."""
    names = (*(f"{BRIER}{EVENT_MARK}{event}" for event in events), *of_reliability(at.members, events))
    means = weighted_sums(at, names, REGIONS) / REGIONS.totals
    dataset = xr.Dataset({"x": (("statistic", "field", "region"), means)}, {"statistic": list(names)})
    return {metric.name: metric_of(dataset, metric)["x"].values for metric in metrics_of(names)}


def random_points(seed=0, fields=50, thresholds=()):
    random = np.random.default_rng(seed)
    size = (fields, GRID.latitude.size * GRID.longitude.size)
    shared = random.normal(size=size)
    forecast = (shared + random.normal(size=(MEMBERS, *size))).astype(np.float32)
    true, usual = ((part * shared + random.normal(size=size)).astype(np.float32) for part in (1, 0))
    deviation = random.uniform(0.5, 2, size).astype(np.float32)
    return Points(forecast, true, usual, None, deviation, thresholds)


@pytest.mark.parametrize(("event", "thresholds"), [("0.7", ()), ("0.2", ()), (">0.5", (0.5,))])
def test_frequencies_and_parts_of_the_brier_score_are_those_of_brute_force(event, thresholds):
    at = random_points(fields=2, thresholds=thresholds)

    found = scores_of(at, [event])

    if thresholds:
        forecast, true = at.forecast > 0.5, at.truth > 0.5
    else:
        quantile, beyond = float(event), np.greater if float(event) > 0.5 else np.less
        threshold = at.climatology.astype(float) + norm.ppf(quantile) * at.deviation
        forecast, true = beyond(at.forecast, threshold), beyond(at.truth, threshold)
    for field, region in np.ndindex(2, len(REGIONS.names)):
        area = REGIONS.weights[region].ravel() / REGIONS.totals[region]
        issued, rate = forecast[:, field].mean(axis=0), np.sum(area * true[field])
        expected = dict.fromkeys(("reliability", "resolution"), 0.0) | {"uncertainty": rate * (1 - rate)}
        for count in range(MEMBERS + 1):
            here = issued == count / MEMBERS
            frequency = np.average(true[field][here], weights=area[here])
            expected[f"forecast_frequency_{count}"] = np.sum(area[here])
            expected[f"observed_frequency_{count}"] = frequency
            expected["reliability"] += np.sum(area[here]) * (count / MEMBERS - frequency) ** 2
            expected["resolution"] += np.sum(area[here]) * (frequency - rate) ** 2
        assert sorted(found) == sorted(f"{name}@{event}" for name in (*expected, "brier"))
        for name, value in expected.items():
            assert found[f"{name}@{event}"][field, region] == pytest.approx(value, rel=1e-9), name
        parts = expected["reliability"] - expected["resolution"] + expected["uncertainty"]
        assert found[f"brier@{event}"][field, region] == pytest.approx(parts, rel=1e-9)


def test_an_ensemble_of_which_the_truth_could_be_a_member_is_reliable_up_to_its_size():
    """With p of the members beyond, p or so of the truth is too, if p has a uniform prior: (k + 1) / (M + 2)."""
    random = np.random.default_rng(0)
    fields, size = 200, GRID.latitude.size * GRID.longitude.size
    chance = random.uniform(size=(fields, size))
    forecast, true = (random.uniform(size=(*more, fields, size)) < chance for more in ((MEMBERS,), ()))

    at = Points(forecast.astype(np.float32), true.astype(np.float32), thresholds=(0.5,))
    found = {name: values[:, 0].mean() for name, values in scores_of(at, [">0.5"]).items()}

    for count in range(MEMBERS + 1):
        assert found[f"observed_frequency_{count}@>0.5"] == pytest.approx((count + 1) / (MEMBERS + 2), abs=0.01)
        assert found[f"forecast_frequency_{count}@>0.5"] == pytest.approx(1 / (MEMBERS + 1), abs=0.01)


def test_a_probability_that_is_never_given_has_no_frequency_and_no_weight():
    forecast = np.ones((MEMBERS, 1, GRID.latitude.size * GRID.longitude.size), np.float32)

    found = scores_of(Points(forecast, forecast[0], thresholds=(0.5,)), [">0.5"])

    frequencies = [found[f"observed_frequency_{count}@>0.5"][0, 0] for count in range(MEMBERS + 1)]
    np.testing.assert_allclose(frequencies, [*[np.nan] * MEMBERS, 1], rtol=1e-12)
    for part in ("reliability", "resolution", "uncertainty"):
        np.testing.assert_allclose(found[f"{part}@>0.5"], 0, atol=1e-12)


def test_events_are_named_by_quantile_and_by_threshold():
    found = events_of((0.01, 0.99), {"a": (273.15, 280.0), "b": (1e-3, 280.0)})

    assert found == ("0.01", "0.99", ">0.001", ">273.15", ">280")


SHIFTS = (-1, 2, 5)
WARM = {"temperature": (0.0, 3501.5), "10m_u_component_of_wind": (1.5,)}
WANTED = ScoresConfig(regions=("global", "tropics"), quantiles=(0.9,), thresholds=WARM, reliability=True)


def shifted_by(shift):
    return lambda name, hours, values: values + shift


def made(folder):
    return [stored(folder / f"s{shift}", cases(2), shifted_by(shift)) for shift in SHIFTS]


@pytest.fixture(scope="module")
def usual_path(tmp_path_factory):
    """A climatology of the wave planet with the standard deviation 1."""
    folder = tmp_path_factory.mktemp("usual")
    opened = xr.open_zarr(usual_wave(folder / "mean.zarr"), chunks=None).load()
    one = {f"{name}_std": 0 * array + np.float32(1) for name, array in opened.data_vars.items()}
    opened.assign(one).to_zarr(folder / "usual.zarr", zarr_format=2)
    return folder / "usual.zarr"


def score(stores, usual_path, wanted=WANTED):
    """Scores all that is left; returns what there was to do."""
    scoring = scoring_of(wanted, stores[0], truth(), Climatology(usual_path, stores[0].kept))
    found = lay_out(stores[0], ENSEMBLE, ensemble_of(scoring, stores), {})
    for case in found.left:
        score_stored(found.path, found.name, found.scoring, case)
    return found


def test_a_store_has_the_frequencies_of_its_events_in_its_table(tmp_path, usual_path):
    """Above 1.5 are half of the truth's 3 cos x where it is 1/2 or more; the members are 1 lower, 2 and 5 higher."""
    stores = made(tmp_path)

    score(stores, usual_path)
    write_table(stores[0].path, tmp_path / "scores.csv", ENSEMBLE)

    came = truth().fields(["10m_u_component_of_wind"], np.array(["2020-01-01T06"], "datetime64[ns]"), ())
    values = came["10m_u_component_of_wind"].values[0, 0]  # the same at all latitudes
    counts = np.sum([values + shift > 1.5 for shift in SHIFTS], axis=0)
    means = read(stores[0].path, ENSEMBLE).isel(time=0, prediction_timedelta=0).sel(region="tropics")
    for count in range(4):
        wind = means["10m_u_component_of_wind"]
        assert wind.sel(statistic=f"members_{count}@>1.5").item() == pytest.approx(np.mean(counts == count))
        both = np.mean((counts == count) & (values > 1.5))
        assert wind.sel(statistic=f"members_{count}_and_truth@>1.5").item() == pytest.approx(both)
    assert means["10m_u_component_of_wind"].sel(statistic="brier@>0").isnull()
    with (tmp_path / "scores.csv").open() as file:
        listed = {(row["variable"], row["metric"].partition("@")[2]) for row in csv.DictReader(file)}
    assert {each for each in listed if each[1]} == {
        *((name, "0.9") for name in ("temperature", "10m_u_component_of_wind", "10m_v_component_of_wind")),
        *(("temperature", event) for event in (">0", ">3501.5")),
        ("10m_u_component_of_wind", ">1.5"),
    }


def test_events_that_are_added_later_are_counted_alone_for_their_variables(tmp_path, usual_path):
    stores, others = made(tmp_path / "a"), made(tmp_path / "b")
    few = {"temperature": (3501.5,)}
    score(stores, usual_path, WANTED.model_copy(update={"thresholds": few, "quantiles": (), "reliability": False}))
    before = read(stores[0].path, ENSEMBLE)

    assert len(score(stores, usual_path).left) == 2
    assert score(stores, usual_path).left == ()
    score(others, usual_path)

    ours, theirs = (read(each[0].path, ENSEMBLE).sortby("statistic") for each in (stores, others))
    xr.testing.assert_allclose(ours, theirs, rtol=1e-12)
    xr.testing.assert_equal(read(stores[0].path, ENSEMBLE).sel(statistic=before["statistic"]), before)
    groups = ScoreStore.groups(stores[0].path, ENSEMBLE)
    assert groups[0].identity["thresholds"] == {"temperature": [3501.5]}
    with pytest.raises(StoreMismatchError, match="thresholds"):
        score(stores, usual_path, WANTED.model_copy(update={"thresholds": few}))


def test_a_single_forecast_has_scores_of_thresholds_without_a_climatology(tmp_path):
    store = stored(tmp_path / "s", cases(1), lambda name, hours, values: np.roll(values, 1, axis=-1))
    scoring = scoring_of(ScoresConfig(regions=("global",), thresholds={"temperature": (1.5,)}), store, truth())
    found = lay_out(store, "forecast", scoring, {})
    score_stored(found.path, found.name, found.scoring, found.left[0])

    results = average(read(store.path)).values["temperature"].sel(level=500, region="global")
    came = truth().fields(["temperature"], np.array(["2020-01-01T06"], "datetime64[ns]"), (500,))
    beyond = came["temperature"].values[0, 0, 0] > 1.5
    here = results.isel(prediction_timedelta=0)
    assert here.sel(metric="brier@>1.5").item() == pytest.approx(np.mean(beyond != np.roll(beyond, 1)))
    assert here.sel(metric="frequency_bias@>1.5").item() == pytest.approx(1)


def test_diagrams_and_their_figures_stand_beside_those_of_ranks(tmp_path, usual_path):
    stores = made(tmp_path)
    score(stores, usual_path)
    plain = lay_out(stores[0], "forecast", scoring_of(ScoresConfig(regions=("global",)), stores[0], truth()), {})
    for case in plain.left:
        score_stored(plain.path, plain.name, plain.scoring, case)

    diagrams = reliability_diagrams(stores[0].path, ENSEMBLE, "global")

    kinds = [(diagram.variable, diagram.level, diagram.quantile, diagram.threshold) for diagram in diagrams]
    assert kinds == [
        ("temperature", 850, 0.9, None),
        ("temperature", 850, None, 0.0),
        ("temperature", 850, None, 3501.5),
    ]
    metrics = average(read(stores[0].path, ENSEMBLE)).values["temperature"].sel(level=850, region="global")
    for diagram, event in zip(diagrams, ("0.9", ">0", ">3501.5"), strict=True):
        at = metrics.sel(prediction_timedelta=diagram.hours * np.timedelta64(1, "h"))
        for count in range(4):
            np.testing.assert_allclose(diagram.issued[:, count], at.sel(metric=f"forecast_frequency_{count}@{event}"))
            np.testing.assert_allclose(diagram.observed[:, count], at.sel(metric=f"observed_frequency_{count}@{event}"))
        rate = np.nansum(diagram.issued * diagram.observed, axis=1)
        always = rate * (1 - rate) < 1e-9
        with np.errstate(invalid="ignore", divide="ignore"):
            skill = 1 - at.sel(metric=f"brier@{event}").values / (rate * (1 - rate))
        np.testing.assert_allclose(diagram.skill, np.where(always, np.nan, skill), rtol=1e-6)
    names = {path.name for path in draw_scores(stores[0].path, (), "global", "png")}
    assert {f"reliability_of_ensemble_{event}_global.png" for event in ("quantile_0.9", "thresholds")} <= names
    with Image.open(stores[0].path / "figures" / "scores" / "reliability_of_ensemble_thresholds_global.png") as image:
        assert image.text["Title"] == "Reliability of ensemble, global"
        assert "Temperature at 850 hPa > 3228.35 °C at 24 h: Brier skill score" in image.text["Description"]


def test_without_events_no_diagram_is_drawn(tmp_path):
    with pytest.raises(FigureError, match=r"its events were not counted; set scores\.reliability"):
        draw_reliability(tmp_path / "r.png", [], "ensemble", "global")


def test_thresholds_of_what_is_not_scored_are_refused(tmp_path):
    store = stored(tmp_path / "s", cases(1), shifted_by(0))
    config = config_for(store.path, truth={"kind": "synthetic", "resolution": 10}, thresholds={"temperatur": [1]})

    with pytest.raises(EvaluationError, match=r"but temperatur is not; did you mean temperature\?"):
        evaluations(config)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"reliability": True}, "neither quantiles nor thresholds name any"),
        ({"thresholds": {"temperature": [1, 1]}}, "thresholds.temperature must name each once, but are 1.0, 1.0"),
        ({"thresholds": {"temperature": [float("nan")]}}, "finite"),
    ],
)
def test_events_are_there_each_of_them_once(given, match):
    with pytest.raises(ConfigError, match=match):
        parse_config(SMALL | {"store": "s", "scores": given}, RunConfig, origin="here")
