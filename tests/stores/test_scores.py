import numpy as np
import pytest
import xarray as xr

from graphcast_batch.errors import StoreError, StoreMismatchError
from graphcast_batch.evaluation.score_layout import ScoreLayout
from graphcast_batch.evaluation.score_store import ScoreStore
from graphcast_batch.stores.store_kinds import open_store
from tests.forks import PROCESSES
from tests.stores.made_stores import case_at, make, plan_of


def by(**changes):
    values = {
        "statistics": ("error", "squared_error"),
        "on_levels": (("2m_temperature", False), ("temperature", True)),
        "levels": (500, 850),
        "regions": ("global", "tropics", "land"),
        "areas": np.array([1, 0.35, 0.3]),
        "identity": {"truth": "era5"},
    }
    return ScoreLayout(**(values | changes))


def means_of(seed, leads=4):
    random = np.random.default_rng(seed)
    return {"2m_temperature": random.normal(size=(2, leads, 3)), "temperature": random.normal(size=(2, leads, 2, 3))}


def put(scores, store, index, leads=4):
    case = case_at(index, leads)
    return scores.write(
        store.place_of(case)["time"], case, means_of(index, leads), 2 * leads, "made once", {"read": 1.0}
    )


def test_scores_open_in_xarray_with_their_axes_and_gaps(tmp_path):
    store = make(tmp_path / "s", plan_of(range(3), 4))
    scores = ScoreStore.lay_out(store.path, "forecast", by())
    put(scores, store, 1)

    opened = xr.open_zarr(tmp_path / "s" / "scores" / "forecast", chunks=None)

    assert opened["temperature"].dims == ("statistic", "time", "prediction_timedelta", "level", "region")
    assert opened["2m_temperature"].dims == ("statistic", "time", "prediction_timedelta", "region")
    assert opened["temperature"].dtype == np.float64
    assert opened["region"].values.tolist() == ["global", "tropics", "land"]
    assert opened["statistic"].values.tolist() == ["error", "squared_error"]
    np.testing.assert_array_equal(opened["time"].values.astype("datetime64[h]"), store.init_times)
    assert (opened["prediction_timedelta"].values / np.timedelta64(1, "h")).tolist() == [6, 12, 18, 24]
    np.testing.assert_array_equal(opened["temperature"][:, 1], means_of(1)["temperature"])
    assert np.isnan(opened["temperature"][:, [0, 2]]).all()
    np.testing.assert_array_equal(opened["area"], [1, 0.35, 0.3])


def test_the_forecasts_open_as_before(tmp_path):
    store = make(tmp_path / "s", plan_of(range(3), 4))
    before = xr.open_zarr(store.path, chunks=None)

    put(ScoreStore.lay_out(store.path, "forecast", by()), store, 0)

    xr.testing.assert_identical(xr.open_zarr(store.path, chunks=None), before)


def test_a_record_tells_what_was_written(tmp_path):
    store = make(tmp_path / "s", plan_of(range(2), 4))
    scores = ScoreStore.lay_out(store.path, "forecast", by())
    record = put(scores, store, 1)

    assert scores.records() == {"2020-01-01T06": record}
    assert set(record.files) == {"2m_temperature/c.0.1.0.0", "temperature/c.0.1.0.0.0"}
    assert all((scores.folder / name).stat().st_size == size for name, (size, _) in record.files.items())
    assert (record.fields, record.forecast) == (8, "made once")


def test_more_initial_and_lead_times_leave_what_was_scored(tmp_path):
    store = make(tmp_path / "s", plan_of([0], 2))
    put(ScoreStore.lay_out(store.path, "forecast", by()), store, 0, leads=2)

    longer = make(tmp_path / "s", plan_of(range(3), 50))
    scores = ScoreStore.lay_out(longer.path, "forecast", by())
    put(scores, longer, 2, leads=50)

    opened = scores.dataset()
    assert opened.sizes["time"] == 3
    assert opened.sizes["prediction_timedelta"] == 50
    np.testing.assert_array_equal(opened["temperature"][:, 0, :2], means_of(0, 2)["temperature"])
    assert np.isnan(opened["temperature"][:, 0, 2:]).all()
    np.testing.assert_array_equal(opened["temperature"][:, 2], means_of(2, 50)["temperature"])
    assert set(scores.records()) == {"2020-01-01T00", "2020-01-01T12"}


def test_scores_of_another_kind_are_refused_with_the_difference(tmp_path):
    store = make(tmp_path / "s", plan_of([0], 2))
    ScoreStore.lay_out(store.path, "forecast", by())

    with pytest.raises(StoreMismatchError, match=r"levels: there \[500, 850\], now \[500\]"):
        ScoreStore.lay_out(store.path, "forecast", by(levels=(500,)))
    with pytest.raises(StoreMismatchError, match="truth: there era5, now hres"):
        ScoreStore.lay_out(store.path, "forecast", by(identity={"truth": "hres"}))
    assert ScoreStore.lay_out(store.path, "persistence", by(levels=(500,))).exists


def test_scores_that_do_not_fit_are_refused_and_not_recorded(tmp_path):
    store = make(tmp_path / "s", plan_of([0], 2))
    scores = ScoreStore.lay_out(store.path, "forecast", by())

    with pytest.raises(StoreError, match=r"scores of 2m_temperature must be .*, but are \(2, 3, 3\)"):
        scores.write(0, case_at(0, 2), means_of(0, 3), 6, "", {})
    assert scores.records() == {}


def test_a_damaged_record_is_named(tmp_path):
    store = make(tmp_path / "s", plan_of([0], 2))
    scores = ScoreStore.lay_out(store.path, "forecast", by())
    put(scores, store, 0, leads=2)
    (scores.folder / "records" / "2020-01-01T00.json").write_text("{")

    with pytest.raises(StoreError, match=r"2020-01-01T00.json must be a score record .*damaged"):
        scores.records()


def test_what_is_no_group_of_scores_is_named(tmp_path):
    store = make(tmp_path / "s", plan_of([0], 2))
    folder = ScoreStore.at(store.path, "forecast").folder
    folder.mkdir(parents=True)

    with pytest.raises(StoreError, match="there are no scores"):
        ScoreStore.at(store.path, "forecast").dataset()
    (folder / "zarr.json").write_text('{"attributes": {}}')
    with pytest.raises(StoreError, match="must hold scores that this program wrote"):
        ScoreStore.at(store.path, "forecast").dataset()


def lay_out_and_put(path, index):
    store = open_store(path)
    put(ScoreStore.lay_out(path, "forecast", by()), store, index)


def test_several_processes_lay_out_and_write_at_once(tmp_path):
    store = make(tmp_path / "s", plan_of(range(4), 4))
    writers = [PROCESSES.Process(target=lay_out_and_put, args=(store.path, index)) for index in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert [writer.exitcode for writer in writers] == [0] * 4
    scores = ScoreStore.at(store.path, "forecast")
    assert len(scores.records()) == 4
    for index in range(4):
        np.testing.assert_array_equal(scores.dataset()["temperature"][:, index], means_of(index)["temperature"])
    assert not list(scores.folder.parent.glob(".*"))
