import os
import re
import time

import numpy as np
import pytest
import xarray as xr

from graphcast_batch.config.inputs_section import ArchiveInputs
from graphcast_batch.config.scores_section import ScoresConfig
from graphcast_batch.errors import EvaluationError, InputError, StoreMismatchError
from graphcast_batch.evaluation.score_results import average, read
from graphcast_batch.evaluation.score_store import ScoreStore
from graphcast_batch.evaluation.store_scoring import evaluations, lay_out, score_stored, scoring_of, truth_of
from graphcast_batch.inputs.sources import archive_writer
from graphcast_batch.inputs.sources.archive import Archive
from graphcast_batch.integrity.repair import repair
from graphcast_batch.integrity.verify import verify
from graphcast_batch.stores.flaws import FlawKind
from graphcast_batch.stores.store_kinds import open_store
from tests.evaluation.made import START, VARIABLES, cases, config_for, fill, stored, truth


def shifted(name, hours, values):
    return values + 2


def score(store, source=None, name="forecast", wanted=None):
    """Scores all that is left; returns what there was to do."""
    found = lay_out(store, name, scoring_of(wanted or ScoresConfig(), store, source or truth()), {})
    for case in found.left:
        score_stored(found.path, found.name, found.scoring, case)
    return found


def written(path, times, *, lacking=()):
    """The wave planet's weather as an archive; some variables are absent."""
    source = truth()
    dims = {name: source.dims[name] for name, _ in VARIABLES if name not in lacking}
    draft = archive_writer.lay_out(path, dims, source.grid, source.levels, times)
    archive_writer.fill(draft, 0, source.fields(list(dims), times, source.levels))
    archive_writer.publish(draft, path)
    return Archive(path)


def times(count):
    return START + np.arange(count) * np.timedelta64(6, "h")


def test_scoring_is_taken_up_where_it_stopped_and_old_scores_stay_to_the_byte(tmp_path):
    planned = cases(3)
    store = stored(tmp_path / "s", planned, shifted, filled=planned[:2])
    first = score(store)
    files = {path: path.read_bytes() for path in ScoreStore.at(store.path, "forecast").folder.rglob("c.0.[01].*")}

    fill(store, planned[2], shifted, truth())
    second = score(store)

    assert [case.key for case in first.left] == ["2020-01-01T00", "2020-01-01T12"]
    assert (first.incomplete, second.incomplete) == (("2020-01-02T00",), ())
    assert [case.key for case in second.left] == ["2020-01-02T00"]
    assert second.done == ("2020-01-01T00", "2020-01-01T12")
    assert len(files) == 6
    assert all(path.read_bytes() == content for path, content in files.items())
    assert score(store).left == ()
    assert read(store.path).sizes["time"] == 3


def test_a_store_that_grows_takes_its_scores_along(tmp_path):
    stored(tmp_path / "s", cases(1, steps=2), shifted)
    score(open_store(tmp_path / "s"))
    store = stored(tmp_path / "s", cases(3, steps=4), shifted, filled=cases(3, steps=4)[1:])

    found = score(store)

    assert [case.key for case in found.left] == ["2020-01-01T12", "2020-01-02T00"]
    bias = read(store.path)["temperature"].sel(statistic="error", level=500, region="global")
    np.testing.assert_allclose(bias, [[2, 2, np.nan, np.nan], [2, 2, 2, 2], [2, 2, 2, 2]], rtol=1e-6)
    counts = average(read(store.path)).counts["temperature"].sel(metric="rmse", level=500, region="global")
    assert counts.values.tolist() == [3, 3, 2, 2]


def test_where_truth_is_missing_nothing_is_scored_until_it_is_there(tmp_path):
    store = stored(tmp_path / "s", cases(3), shifted)

    found = score(store, written(tmp_path / "short.zarr", times(4)))

    assert found.without_truth == ("2020-01-02T00",)
    assert found.partly == ("2020-01-01T00", "2020-01-01T12")
    means = read(store.path)["10m_u_component_of_wind"].sel(statistic="error", region="global")
    np.testing.assert_allclose(means, [[2, 2, 2, np.nan], [2, np.nan, np.nan, np.nan]], rtol=1e-6)

    later = score(store, written(tmp_path / "longer.zarr", times(9)))

    assert len(later.left) == 3
    assert later.without_truth == later.partly == ()
    np.testing.assert_allclose(read(store.path)["temperature"].sel(statistic="error"), 2, rtol=1e-6)


def test_variables_that_the_truth_lacks_are_left_out_unless_they_are_named(tmp_path):
    store = stored(tmp_path / "s", cases(1), shifted)
    source = written(tmp_path / "dry.zarr", times(9), lacking=("temperature",))

    score(store, source)

    assert "temperature" not in read(store.path)
    with pytest.raises(
        EvaluationError, match="temperature must be in the forecasts and in the truth, but the truth lack"
    ):
        scoring_of(ScoresConfig(variables=("temperature",)), store, source)


def test_levels_that_the_truth_lacks_are_named_with_those_that_would_do(tmp_path):
    store = stored(tmp_path / "s", cases(1), shifted)

    with pytest.raises(
        EvaluationError, match=r"lack \[850\] hPa and have \[500\]; set scores.levels to some of \[500\]"
    ):
        scoring_of(ScoresConfig(), store, truth(levels=(500,)))
    assert scoring_of(ScoresConfig(levels=(500,)), store, truth(levels=(500,))).levels == (500,)


def test_a_case_that_was_made_again_is_scored_again(tmp_path):
    store = stored(tmp_path / "s", cases(1), shifted)
    score(store)
    record = next((store.path / "ledger").rglob("2020-01-01T00.json"))
    record.write_text(record.read_text().replace('"finished_at": "20', '"finished_at": "21'))

    assert len(score(store).left) == 1
    assert score(store).left == ()


def test_a_case_that_another_process_is_scoring_is_left_to_it(tmp_path):
    store = stored(tmp_path / "s", cases(1), shifted)
    scoring = scoring_of(ScoresConfig(), store, truth())
    found = lay_out(store, "forecast", scoring, {})
    lease = ScoreStore.at(store.path, "forecast").lease(found.left[0])

    assert lease is not None
    assert score_stored(store.path, "forecast", scoring, found.left[0]) is None
    lease.release()
    assert score_stored(store.path, "forecast", scoring, found.left[0]) is not None


def test_scores_against_another_truth_are_not_mixed_in(tmp_path):
    store = stored(tmp_path / "s", cases(1), shifted)
    scoring = scoring_of(ScoresConfig(), store, truth())
    lay_out(store, "forecast", scoring, {"truth": "era5"})

    with pytest.raises(StoreMismatchError, match=r"truth: there era5, now hres\nremove forecast and"):
        lay_out(store, "forecast", scoring, {"truth": "hres"})
    with pytest.raises(StoreMismatchError, match="regions: there"):
        lay_out(store, "forecast", scoring_of(ScoresConfig(regions=("global",)), store, truth()), {"truth": "era5"})


def test_scores_are_no_flaw_of_a_store(tmp_path):
    store = stored(tmp_path / "s", cases(2), shifted)
    before = [str(flaw) for flaw in verify(store.path, deep=True).flaws]

    score(store)

    assert [str(flaw) for flaw in verify(store.path, deep=True).flaws] == before


def damaged(store):
    return [flaw for flaw in verify(store.path, deep=True).flaws if flaw.kind is FlawKind.SCORES]


@pytest.mark.parametrize(
    ("damage", "deep", "text"),
    [
        (lambda path: path.unlink(), False, "must be there with .* bytes, but is not there"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), False, "must have .* bytes, but has"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"), True, "must have the CRC-32 .*, but has"),
    ],
)
def test_damaged_scores_are_found_freed_and_scored_again_to_the_same_numbers(tmp_path, damage, deep, text):
    store = stored(tmp_path / "s", cases(2), shifted)
    score(store)
    before = ScoreStore.at(store.path, "forecast").dataset().load()
    damage(store.path / "scores/forecast/temperature/c.0.1.0.0.0")

    found = [flaw for flaw in verify(store.path, deep=deep).flaws if flaw.kind is FlawKind.SCORES]
    done = repair(store.path, found)

    assert [(flaw.key, flaw.path) for flaw in found] == [("2020-01-01T12", "scores/forecast/temperature/c.0.1.0.0.0")]
    assert re.search(f"{text}.*verify with --repair, so that the next evaluation scores the Case again", str(found[0]))
    assert (done.unscored, done.forgotten, done.busy) == (("2020-01-01T12",), (), ())
    assert damaged(store) == []
    assert len(store.ledger.complete(cases(2))) == 2
    assert [case.key for case in score(store).left] == ["2020-01-01T12"]
    xr.testing.assert_identical(ScoreStore.at(store.path, "forecast").dataset().load(), before)


def test_a_damaged_record_of_scores_is_found_and_freed(tmp_path):
    store = stored(tmp_path / "s", cases(1), shifted)
    score(store)
    ScoreStore.at(store.path, "forecast").record_path("2020-01-01T00").write_text("{")

    (found,) = damaged(store)
    assert "records/2020-01-01T00.json of 2020-01-01T00 must be readable as a record" in str(found)
    assert repair(store.path, [found]).unscored == ("2020-01-01T00",)
    assert len(score(store).left) == 1


def test_scores_that_are_being_written_are_no_flaw_and_not_touched(tmp_path):
    store = stored(tmp_path / "s", cases(1), shifted)
    score(store)
    (store.path / "scores/forecast/temperature/c.0.0.0.0.0").unlink()
    (found,) = damaged(store)

    lease = ScoreStore.at(store.path, "forecast").lease(cases(1)[0])
    assert damaged(store) == []
    assert repair(store.path, [found]).busy == ("2020-01-01T00",)
    lease.release()
    assert damaged(store) == [found]


def test_a_case_is_free_again_two_minutes_after_its_evaluator_fell_silent_and_not_while_it_works(tmp_path, monkeypatch):
    store = stored(tmp_path / "s", cases(1), shifted)
    score(store)
    scores = ScoreStore.at(store.path, "forecast")
    monkeypatch.setattr("graphcast_batch.evaluation.score_store._BEAT_SECONDS", 0.01)

    def silent_for(seconds):
        past = time.time() - seconds
        os.utime(lease.path, (past, past))

    lease = scores.lease(cases(1)[0])
    silent_for(110)
    assert scores.is_held("2020-01-01T00")
    silent_for(130)
    assert not scores.is_held("2020-01-01T00")
    with scores.keeping(lease):
        while lease.path.stat().st_mtime < time.time() - 60:
            time.sleep(0.01)
        assert scores.lease(cases(1)[0]) is None
    assert not lease.path.exists()


def test_remedies_for_the_truth_name_its_own_keys(tmp_path):
    store = stored(tmp_path / "s", cases(1), shifted)
    (tmp_path / "inputs.names").mkdir()
    path = tmp_path / "inputs.names" / "odd.nc"
    xr.Dataset({"temperatur": ("latitude", [1.0])}, {"latitude": [0.0]}).to_netcdf(path)
    config = config_for(store.path, truth=ArchiveInputs(kind="archive", path=str(path)))
    with pytest.raises(InputError, match=r"/inputs\.names/odd\.nc must .* such as scores\.truth\.names \{temperatur: "):
        truth_of(config, store.kept)


def test_a_finer_truth_is_regridded_as_configured(tmp_path):
    store = stored(tmp_path / "s", cases(1), shifted)
    source = truth(5.0)
    dims = {"temperature": source.dims["temperature"]}
    draft = archive_writer.lay_out(tmp_path / "fine.zarr", dims, source.grid, source.levels, times(9))
    archive_writer.fill(draft, 0, source.fields(["temperature"], times(9), source.levels))
    archive_writer.publish(draft, tmp_path / "fine.zarr")
    inputs = ArchiveInputs(kind="archive", path=str(tmp_path / "fine.zarr"), regrid="subsample")
    config = config_for(store.path, truth=inputs)

    assert truth_of(config, store.kept).grid.shape == (19, 36)
    (found,) = evaluations(config)
    score_stored(found.path, found.name, found.scoring, found.left[0])
    np.testing.assert_allclose(read(store.path)["temperature"].sel(statistic="error"), 2, rtol=1e-5)
