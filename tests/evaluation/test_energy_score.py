"""The energy score of ensembles of vectors."""

import csv
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.config.scores_section import ScoresConfig
from graphcast_batch.errors import ConfigError, EvaluationError, StoreMismatchError
from graphcast_batch.evaluation import case_scoring as module
from graphcast_batch.evaluation.case_scoring import score_case
from graphcast_batch.evaluation.energy_score import VectorPoints, energy_score
from graphcast_batch.evaluation.ensemble import ENSEMBLE
from graphcast_batch.evaluation.pointwise_statistics import Points, crps
from graphcast_batch.evaluation.score_export import write_table
from graphcast_batch.evaluation.score_results import average, read
from graphcast_batch.evaluation.score_store import ScoreStore
from graphcast_batch.evaluation.store_scoring import ensemble_of, evaluations, lay_out, score_stored, scoring_of
from graphcast_batch.timing import Stopwatch
from tests.conftest import SMALL
from tests.evaluation.made import cases, config_for, stored, truth

U, V, T = "10m_u_component_of_wind", "10m_v_component_of_wind", "temperature"
WANTED = ScoresConfig(regions=("global", "tropics"), vectors={"wind": (U, V)})


def vectors(seed, members, components, size=(2, 5)):
    random = np.random.default_rng(seed)
    return [
        Points(random.normal(size=(members, *size)).astype(np.float32), random.normal(size=size).astype(np.float32))
        for _ in range(components)
    ]


@pytest.mark.parametrize(("members", "components"), [(2, 2), (5, 2), (4, 3)])
def test_the_score_is_what_its_definition_says_of_each_point(members, components):
    parts = vectors(0, members, components)

    found = energy_score(VectorPoints.of(tuple(parts)))

    for place in np.ndindex(2, 5):
        came = np.array([part.truth[place] for part in parts], float)
        held = [np.array([part.forecast[(n, *place)] for part in parts], float) for n in range(members)]
        from_truth = np.mean([np.linalg.norm(each - came) for each in held])
        apart = np.mean([np.linalg.norm(one - other) for one, other in combinations(held, 2)])
        assert found[place] == pytest.approx(from_truth - apart / 2, rel=1e-6)


def test_of_one_component_it_is_the_fair_crps():
    (part,) = vectors(1, 6, 1)

    np.testing.assert_allclose(energy_score(VectorPoints.of((part,))), crps(part), rtol=1e-5, atol=1e-6)


def test_it_is_fair_to_the_number_of_members():
    """With the truth from the distribution of the members, it is half their mean distance: sqrt(pi) / 2 in a plane."""
    for members in (2, 8):
        found = energy_score(VectorPoints.of(tuple(vectors(2, members, 2, size=(50, 2000)))))
        # The distance of two standard normal vectors of the plane is Rayleigh with scale sqrt(2), of mean sqrt(pi).
        assert found.mean() == pytest.approx(np.sqrt(np.pi) / 2, abs=5 * found.std() / np.sqrt(found.size))


def test_turning_all_vectors_changes_nothing():
    east, north = vectors(3, 4, 2)
    angle = 0.7

    def turned(sign):
        def of(values):
            ours, theirs = values
            return np.cos(angle) * ours + sign * np.sin(angle) * theirs

        return of

    pairs = ((east, north), (north, east))
    parts = tuple(
        Points(*(turned(sign)([getattr(each, kind) for each in pair]) for kind in ("forecast", "truth")))
        for pair, sign in zip(pairs, (-1, 1), strict=True)
    )
    found = energy_score(VectorPoints.of(parts))
    np.testing.assert_allclose(found, energy_score(VectorPoints.of((east, north))), rtol=1e-5)


ERRORS = ((3, 4), (-6, 8), (0, 0))
"""Of the members, in u and v: they are 5, 10 and 0 from the truth, and sqrt(97), 5 and 10 from each other."""
SCORE = 5 - (np.sqrt(97) + 5 + 10) / 6


def of_errors(east, north):
    return lambda name, hours, values: values + {U: east, V: north, T: 0}[name]


def made(folder):
    return [stored(folder / f"s{n}", cases(2), of_errors(*each)) for n, each in enumerate(ERRORS)]


def score(stores, wanted=WANTED):
    """Scores all that is left; returns what there was to do."""
    found = lay_out(stores[0], ENSEMBLE, ensemble_of(scoring_of(wanted, stores[0], truth()), stores), {})
    for case in found.left:
        score_stored(found.path, found.name, found.scoring, case)
    return found


def test_a_store_has_the_score_of_its_vectors_in_its_table(tmp_path):
    stores = made(tmp_path)

    score(stores)
    write_table(stores[0].path, tmp_path / "scores.csv", ENSEMBLE)

    results = average(read(stores[0].path, ENSEMBLE)).values
    np.testing.assert_allclose(results["wind"].sel(metric="energy_score"), SCORE, rtol=1e-5)
    with (tmp_path / "scores.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["variable"] == "wind" or row["metric"] == "energy_score"]
    assert {(row["variable"], row["metric"]) for row in rows} == {("wind", "energy_score")}
    assert len(rows) == 2 * 4  # regions and lead times
    assert float(rows[0]["value"]) == pytest.approx(SCORE, rel=1e-5)


def test_a_vector_that_is_added_later_is_scored_alone_and_its_components_stay(tmp_path):
    stores = made(tmp_path)
    score(stores, WANTED.model_copy(update={"vectors": {}}))
    before = read(stores[0].path, ENSEMBLE)

    assert len(score(stores).left) == 2
    assert score(stores).left == ()

    found = read(stores[0].path, ENSEMBLE)
    xr.testing.assert_equal(found[[*before]].sel(statistic=before["statistic"]), before)
    np.testing.assert_allclose(found["wind"].sel(statistic="energy_score"), SCORE, rtol=1e-5)
    added = ScoreStore.at(stores[0].path, f"{ENSEMBLE}+1").identity
    assert (added["variables"], added["statistics"], added["vectors"]) == (["wind"], ["energy_score"], {"wind": [U, V]})
    with pytest.raises(StoreMismatchError, match="vectors: there"):
        score(stores, WANTED.model_copy(update={"vectors": {"wind": (V, U)}}))


def test_pieces_of_one_lead_time_give_the_same_score(tmp_path, monkeypatch):
    stores = made(tmp_path)
    scoring = scoring_of(WANTED, stores[0], truth())
    scoring = ensemble_of(scoring, stores)
    at_once = score_case(scoring, cases(1)[0], Stopwatch())
    monkeypatch.setattr(module, "_PIECE_BYTES", 1)

    for name, found in score_case(scoring, cases(1)[0], Stopwatch()).items():
        np.testing.assert_allclose(found.means, at_once[name].means, rtol=1e-12)


def test_a_gap_in_a_component_is_refused_with_its_name(tmp_path):
    def change(name, hours, values):
        values = values.copy()
        if name == V and hours == 12:
            values[3, 4] = np.nan
        return values

    stores = [stored(tmp_path / "a", cases(1), of_errors(0, 0)), stored(tmp_path / "b", cases(1), change)]
    scoring = ensemble_of(scoring_of(WANTED.model_copy(update={"variables": (U, V)}), stores[0], truth()), stores)
    alone = replace(scoring, on_levels=(("wind", False),))

    with pytest.raises(EvaluationError, match=r"10m_v_component_of_wind is nan after 12 h at latitude -60, longitude"):
        score_case(alone, cases(1)[0], Stopwatch())


@pytest.mark.parametrize(
    ("vectors", "match"),
    [
        (
            {"wind": [U, T]},
            "must have one unit that is known, and be all on levels or none.*temperature is in K on levels",
        ),
        ({"wind": [U, "v_component_of_wind"]}, "must name variables that are scored, but v_component_of_wind is not"),
        ({T: [U, V]}, "must not have the name of a variable that is scored"),
        ({"wind_vector": [U, V]}, "must not have the name of a variable that is scored"),
    ],
)
def test_vectors_that_cannot_be_are_refused(tmp_path, vectors, match):
    store = stored(tmp_path / "s", cases(1), of_errors(0, 0))
    config = config_for(store.path, truth={"kind": "synthetic", "resolution": 10}, vectors=vectors)

    with pytest.raises(EvaluationError, match=match):
        evaluations(config)


@pytest.mark.parametrize(
    ("parts", "match"),
    [
        ([U], "at least 2"),
        ([U, U], r"vectors\.wind must name each once"),
    ],
)
def test_a_vector_has_two_different_components(parts, match):
    with pytest.raises(ConfigError, match=match):
        parse_config(SMALL | {"store": "s", "scores": {"vectors": {"wind": parts}}}, RunConfig, origin="here")
