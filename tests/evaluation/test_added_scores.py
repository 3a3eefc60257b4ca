"""Statistics, variables and spectra that a later evaluation adds: only they are computed."""

import shutil

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.config.scores_section import ScoresConfig
from graphcast_batch.errors import EvaluationError, StoreError, StoreMismatchError
from graphcast_batch.evaluation import store_scoring as module
from graphcast_batch.evaluation.climatology import Climatology
from graphcast_batch.evaluation.comparison import compare
from graphcast_batch.evaluation.score_results import average, read
from graphcast_batch.evaluation.score_store import ScoreRecord, ScoreStore
from graphcast_batch.evaluation.spectra import read_spectra, spectra_in
from graphcast_batch.evaluation.store_scoring import lay_out, score_stored, scoring_of
from graphcast_batch.integrity.repair import repair
from graphcast_batch.integrity.verify import verify
from graphcast_batch.stores.flaws import FlawKind
from tests.evaluation.made import cases, fill, stored, truth
from tests.evaluation.test_climatology import usual_wave
from tests.evaluation.test_stored import shifted

T, U, SPEED = "temperature", "10m_u_component_of_wind", "10m_wind_speed"
PLAIN = ScoresConfig(regions=("global", "tropics"))


@pytest.fixture(scope="module")
def usual_path(tmp_path_factory):
    """A climatology of the wave planet with standard deviations, and with the wind speed."""
    folder = tmp_path_factory.mktemp("usual")
    opened = xr.open_zarr(usual_wave(folder / "mean.zarr"), chunks=None).load()
    opened = opened.assign({SPEED: opened[U] + np.float32(1)})
    deviations = {f"{name}_std": 0 * array + np.float32(1.5) for name, array in opened.data_vars.items()}
    opened.assign(deviations).to_zarr(folder / "usual.zarr", zarr_format=2)
    return folder / "usual.zarr"


@pytest.fixture
def computed(monkeypatch):
    """What is computed: Case, variables, statistics and spectra of each pass over a forecast."""
    passes = []

    def counted(scoring, case, watch, *advanced):
        passes.append((case.key, [name for name, _ in scoring.on_levels], scoring.statistics, scoring.spectra))
        return module_score(scoring, case, watch, *advanced)

    module_score = module.score_case
    monkeypatch.setattr(module, "score_case", counted)
    return passes


def score(store, wanted, usual_path=None):
    climatology = Climatology(usual_path, store.kept) if usual_path else None
    found = lay_out(
        store, "forecast", scoring_of(wanted, store, truth(), climatology), {"climatology": str(usual_path)}
    )
    for case in found.left:
        score_stored(found.path, found.name, found.scoring, case)
    return found


def files_of(store, group="forecast"):
    folder = ScoreStore.at(store.path, group).folder
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "c.0" in path.name}


def scores_flaws(store):
    return [flaw.path for flaw in verify(store.path, deep=True).flaws if flaw.kind is FlawKind.SCORES]


def assert_same(ours, theirs):
    xr.testing.assert_allclose(ours.sortby("statistic"), theirs.sortby("statistic"), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "more",
    [
        {"quantiles": (0.1, 0.99)},
        {"spectra": (U, T)},
        {"derived": (SPEED,)},
        {"quantiles": (0.9,), "derived": (SPEED,), "spectra": (T, SPEED)},
    ],
)
def test_what_a_later_evaluation_adds_is_scored_alone(tmp_path, usual_path, computed, more):
    store = stored(tmp_path / "s", cases(2), shifted)
    score(store, PLAIN, usual_path)
    before, first = files_of(store), computed.copy()
    wanted = PLAIN.model_copy(update=more)

    found = score(store, wanted, usual_path)

    assert [case.key for case in found.left] == ["2020-01-01T00", "2020-01-01T12"]
    assert files_of(store) == before
    statistics = first[0][2]
    for _, names, added, spectra in computed[len(first) :]:
        assert spectra or names == [SPEED] or not set(added) & set(statistics)
    again = score(store, wanted, usual_path)
    assert (again.left, again.done) == ((), ("2020-01-01T00", "2020-01-01T12"))

    other = stored(tmp_path / "o", cases(2), shifted)
    score(other, wanted, usual_path)
    assert_same(read(store.path), read(other.path))
    for kind in ("values", "counts"):
        xr.testing.assert_allclose(getattr(average(read(store.path)), kind), getattr(average(read(other.path)), kind))
    assert sorted(spectra_in(store.path)) == sorted(spectra_in(other.path)) == sorted(more.get("spectra", ()))
    for name in more.get("spectra", ()):
        ours, theirs = (read_spectra(each.path, "forecast", name) for each in (store, other))
        xr.testing.assert_equal(ours.power, theirs.power)
    assert scores_flaws(store) == []


def test_an_addition_that_was_killed_goes_on(tmp_path, usual_path, computed, monkeypatch):
    store = stored(tmp_path / "s", cases(3), shifted)
    score(store, PLAIN, usual_path)
    wanted = PLAIN.model_copy(update={"quantiles": (0.9,)})
    write, calls = ScoreStore.write, []

    def killed(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write(*args)

    monkeypatch.setattr(ScoreStore, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        score(store, wanted, usual_path)
    monkeypatch.setattr(ScoreStore, "write", write)
    done = len(computed)

    found = score(store, wanted, usual_path)

    assert [case.key for case in found.left] == ["2020-01-01T12", "2020-01-02T00"]
    assert [key for key, *_ in computed[done:]] == ["2020-01-01T12", "2020-01-02T00"]
    assert np.isfinite(read(store.path)[T].sel(statistic="truth_beyond@0.9")).all()


def test_a_new_case_is_scored_in_all_parts(tmp_path, usual_path):
    planned = cases(2)
    store = stored(tmp_path / "s", planned, shifted, filled=planned[:1])
    wanted = PLAIN.model_copy(update={"quantiles": (0.9,)})
    score(store, PLAIN, usual_path)
    score(store, wanted, usual_path)
    fill(store, planned[1], shifted, truth())

    assert [case.key for case in score(store, wanted, usual_path).left] == ["2020-01-01T12"]
    assert np.isfinite(read(store.path)[T]).all()


def test_a_changed_definition_or_less_than_there_is_is_refused(tmp_path, usual_path):
    store = stored(tmp_path / "s", cases(1), shifted)
    more = PLAIN.model_copy(update={"quantiles": (0.9,)})
    score(store, PLAIN, usual_path)
    score(store, more, usual_path)

    with pytest.raises(StoreMismatchError, match=r"climatology: there .*usual\.zarr, now None\n"):
        score(store, PLAIN)
    with pytest.raises(StoreMismatchError, match=r"regions: there .*tropics.*, now \{'global': 1\.0\}"):
        score(store, more.model_copy(update={"regions": ("global",)}), usual_path)
    with pytest.raises(StoreMismatchError, match=r"forecast\+1 holds .*\n  statistics: there .*truth_beyond@0\.9"):
        score(store, PLAIN, usual_path)


def test_a_damaged_addition_is_found_repaired_and_scored_again(tmp_path, usual_path):
    store = stored(tmp_path / "s", cases(2), shifted)
    wanted = PLAIN.model_copy(update={"quantiles": (0.9,)})
    score(store, PLAIN, usual_path)
    score(store, wanted, usual_path)
    before = files_of(store, "forecast+1")
    path = next(iter(before))
    path.write_bytes(b"damaged")

    assert scores_flaws(store) == [str(path.relative_to(store.path))]
    repair(store.path, verify(store.path, deep=True).flaws)

    assert [case.key for case in score(store, wanted, usual_path).left] == ["2020-01-01T00"]
    assert files_of(store, "forecast+1") == before


def test_scores_of_a_replaced_forecast_do_not_count(tmp_path, usual_path):
    store = stored(tmp_path / "s", cases(1), shifted)
    wanted = PLAIN.model_copy(update={"quantiles": (0.9,)})
    score(store, PLAIN, usual_path)
    score(store, wanted, usual_path)
    record = ScoreStore.at(store.path, "forecast").record_path("2020-01-01T00")
    forecast = ScoreRecord.read(record).forecast
    record.write_bytes(
        ScoreRecord.read(record).model_copy(update={"forecast": f"not {forecast}"}).model_dump_json().encode()
    )

    found = read(store.path)[T]

    assert np.isfinite(found.sel(statistic="error")).all()
    assert np.isnan(found.sel(statistic="truth_beyond@0.9")).all()


def test_an_evaluation_leaves_what_another_added_meanwhile_to_that_one(tmp_path, usual_path):
    store = stored(tmp_path / "s", cases(2), shifted)
    climatology = Climatology(usual_path, store.kept)
    identity = {"climatology": str(usual_path)}
    first = lay_out(store, "forecast", scoring_of(PLAIN, store, truth(), climatology), identity)
    more = PLAIN.model_copy(update={"quantiles": (0.9,), "derived": (SPEED,), "spectra": (T,)})
    second = lay_out(store, "forecast", scoring_of(more, store, truth(), climatology), identity)

    for case in first.left:  # as when its workers go on after the second was laid out
        score_stored(first.path, first.name, first.scoring, case)
    for case in second.left:
        score_stored(second.path, second.name, second.scoring, case)

    found = read(store.path)
    assert np.isfinite(found[T].sel(statistic="truth_beyond@0.9")).all()
    assert np.isfinite(found[SPEED].sel(statistic="squared_error")).all()


def test_additions_without_their_first_group_are_refused_with_what_to_remove(tmp_path, usual_path):
    store = stored(tmp_path / "s", cases(1), shifted)
    more = PLAIN.model_copy(update={"quantiles": (0.9,)})
    score(store, PLAIN, usual_path)
    score(store, more, usual_path)
    folder = ScoreStore.at(store.path, "forecast").folder
    shutil.rmtree(folder)

    with pytest.raises(StoreError, match=r"remove forecast\+\* to score again"):
        score(store, more, usual_path)
    shutil.rmtree(folder.with_name("forecast+1"))
    score(store, more, usual_path)
    assert np.isfinite(read(store.path)[T]).all()


def test_a_copy_of_a_group_under_another_name_is_no_addition(tmp_path, usual_path):
    store = stored(tmp_path / "s", cases(1), shifted)
    score(store, PLAIN, usual_path)
    folder = ScoreStore.at(store.path, "forecast").folder
    shutil.copytree(folder, folder.with_name("forecast+old"))

    assert [scores.name for scores in ScoreStore.groups(store.path, "forecast")] == ["forecast"]


def test_a_region_that_was_moved_is_another_region(tmp_path):
    def with_box(west):
        box = {"latitude": (30.0, 60.0), "longitude": (west, west + 30)}
        return ScoresConfig(regions=("global",), boxes={"box": box})

    one, other = (stored(tmp_path / name, cases(2), shifted) for name in "ab")
    score(one, with_box(0.0))
    score(other, with_box(60.0))

    with pytest.raises(StoreMismatchError, match=r"boxes: there .*\[0\.0, 30\.0\].*, now .*\[60\.0, 90\.0\]"):
        score(one, with_box(60.0))
    with pytest.raises(EvaluationError, match=r"box of .*\[0\.0, 30\.0\].* and that of .*\[60\.0, 90\.0\]"):
        compare((one.path, "forecast"), (other.path, "forecast"), "box")
    assert compare((one.path, "forecast"), (other.path, "forecast"), "global")
