import csv
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import xarray as xr
from rich.console import Console

from graphcast_batch.errors import EvaluationError, StoreError
from graphcast_batch.evaluation import score_results as module
from graphcast_batch.evaluation.score_export import check_table, write_table
from graphcast_batch.evaluation.score_headlines import headlines, read_headlines, shown_hours, skill_of
from graphcast_batch.evaluation.score_results import average, average_pieces, pieces, read, scored
from graphcast_batch.terminal import show_scores
from tests.evaluation.made import cases, stored
from tests.evaluation.test_stored import score, times, written

ERRORS = (1.0, 3.0, 5.0, 2.0, 4.0)
"""Of one Case after another, 12 h apart from 2020-01-01T00 on."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "s"
    errors = iter(ERRORS)
    current = {}

    def change(name, hours, values):
        if (name, hours) == ("10m_u_component_of_wind", 6):
            current["error"] = next(errors)
        return values + current["error"]

    found = stored(path, cases(5), change)
    score(found)
    return path


def t500(dataset, metric):
    return dataset["temperature"].sel(metric=metric, level=500, region="global").isel(prediction_timedelta=0)


def test_the_root_is_taken_after_the_mean_over_initial_times(store):
    found = average(read(store))

    assert t500(found.values, "rmse") == pytest.approx(np.sqrt(np.mean(np.square(ERRORS))), rel=1e-6)
    assert t500(found.values, "mae") == pytest.approx(np.mean(ERRORS), rel=1e-6)
    assert t500(found.counts, "rmse") == 5


def test_each_initial_time_has_its_own_scores(store):
    found = average(read(store), "each")

    np.testing.assert_allclose(t500(found.values, "rmse"), ERRORS, rtol=1e-6)


def test_initial_hours_are_averaged_apart(store):
    found = average(read(store), "hour")

    at_0, at_12 = ERRORS[::2], ERRORS[1::2]
    expected = [np.sqrt(np.mean(np.square(at_0))), np.sqrt(np.mean(np.square(at_12)))]
    np.testing.assert_allclose(t500(found.values, "rmse"), expected, rtol=1e-6)
    assert t500(found.counts, "rmse").values.tolist() == [3, 2]
    assert found.values["hour"].values.tolist() == [0, 12]


def test_months_and_seasons_are_averaged_apart(store):
    assert average(read(store), "month").values["month"].values.tolist() == [1]
    assert average(read(store), "season").values["season"].values.tolist() == ["DJF"]


def test_what_is_read_can_be_narrowed(store):
    found = read(store, variables=["10m_wind_vector"], regions=["tropics", "europe"])

    assert list(found.data_vars) == ["10m_wind_vector"]
    assert found["region"].values.tolist() == ["tropics", "europe"]
    squares = 2 * np.square(ERRORS)
    np.testing.assert_allclose(found["10m_wind_vector"].sel(statistic="squared_error")[:, 0, 0], squares, rtol=1e-6)


def test_the_table_shows_headline_variables_with_the_skill_over_a_baseline(store):
    found = average(read(store, regions=["global"]))

    hours = shown_hours(found)
    temperature, wind = headlines(found, hours)

    assert hours == [24]
    assert (temperature.label, temperature.unit, temperature.cases) == ("temperature 850", "K", "5")
    assert wind.label == "10m_wind_vector"
    assert wind.values == pytest.approx([np.sqrt(2) * temperature.values[0]], rel=1e-6)
    assert skill_of(temperature, found, hours) == [0]
    assert skill_of(wind, found, hours) == [0]


def test_lead_times_that_were_not_scored_are_left_out_of_the_table(tmp_path, capsys):
    """Forecasts of 72 h, truth of 36 h: those from the second initial time are scored up to 24 h."""
    found = stored(tmp_path / "s", cases(2, steps=12), lambda _name, _hours, values: values + 1)
    score(found, written(tmp_path / "truth.zarr", times(7)))
    results = average(read_headlines(found.path, "forecast", "global"))

    assert shown_hours(results) == [24, 36]
    show_scores(Console(width=140), {"forecast": results, "persistence": results}, "global")
    shown = capsys.readouterr().out
    assert "nan" not in shown
    assert [line.label for line in headlines(results, [72])] == ["temperature 850", "10m_wind_vector"]
    assert "3 d" not in shown


def test_a_score_that_a_baseline_lacks_is_left_blank(tmp_path, capsys):
    planned = cases(1, steps=8)
    found = stored(tmp_path / "s", planned, lambda _name, _hours, values: values + 1)
    score(found)
    score(found, written(tmp_path / "truth.zarr", times(5)), "persistence")
    both = {name: average(read_headlines(found.path, name, "global")) for name in ("forecast", "persistence")}

    show_scores(Console(width=140), both, "global")

    shown = capsys.readouterr().out
    assert "nan" not in shown
    assert "+0.00" in shown
    assert "2 d" in shown


def test_a_csv_has_a_row_for_each_score(store, tmp_path):
    count = write_table(store, tmp_path / "scores.csv")

    with (tmp_path / "scores.csv").open() as file:
        table = list(csv.DictReader(file))
    # 4 lead times in 13 regions: of temperature 4 metrics on 2 levels, of two winds 4, of their vector rmse and mse.
    assert count == len(table) == 4 * 13 * (4 * 2 + 2 * 4 + 2)
    keys = ("variable", "metric", "level", "region", "lead_hours")
    row = next(row for row in table if [row[key] for key in keys] == ["temperature", "bias", "500", "global", "6"])
    assert float(row["value"]) == pytest.approx(np.mean(ERRORS), rel=1e-6)
    assert row["cases"] == "5"
    write_table(store, tmp_path / "each.csv", over="each")
    assert (tmp_path / "each.csv").read_text().splitlines()[1].split(",")[4] == "2020-01-01T00"


def test_a_parquet_file_has_the_rows_of_the_csv_in_their_types(store, tmp_path, monkeypatch):
    monkeypatch.setattr("graphcast_batch.evaluation.score_export._ROWS_AT_ONCE", 1000)

    assert write_table(store, tmp_path / "scores.csv") == write_table(store, tmp_path / "scores.parquet")

    table = pq.read_table(tmp_path / "scores.parquet")
    kinds = {"level": "int32", "lead_hours": "int32", "value": "double", "cases": "int64"}
    assert {field.name: str(field.type) for field in table.schema if field.type != "string"} == kinds
    assert table.column_names == ["variable", "level", "region", "lead_hours", "metric", "value", "cases"]
    listed = [{**row, "level": "" if row["level"] is None else row["level"]} for row in table.to_pylist()]
    with (tmp_path / "scores.csv").open() as file:
        assert list(csv.DictReader(file)) == [{key: str(value) for key, value in row.items()} for row in listed]
    write_table(store, tmp_path / "each.parquet", over="each")
    times = pq.read_table(tmp_path / "each.parquet")["time"].unique().to_pylist()
    assert times == ["2020-01-01T00", "2020-01-01T12", "2020-01-02T00", "2020-01-02T12", "2020-01-03T00"]


@pytest.mark.parametrize("over", ["all", "each", "hour", "month", "season"])
def test_initial_times_that_are_read_in_pieces_have_the_scores_of_all_together(store, monkeypatch, over):
    together = average(read(store), over)
    monkeypatch.setattr(module, "_CASES_AT_ONCE", 2)

    found = average_pieces(pieces(store), over)

    xr.testing.assert_allclose(found.values, together.values, rtol=1e-12)
    xr.testing.assert_equal(found.counts, together.counts)
    xr.testing.assert_equal(found.held, together.held)


def test_of_the_scores_of_a_variable_no_more_initial_times_are_read_at_once_than_go_into_a_piece(store, monkeypatch):
    monkeypatch.setattr(module, "_CASES_AT_ONCE", 2)

    assert [part.sizes["time"] for part in pieces(store, variables=["temperature"])] == [2, 2, 1]


def test_a_table_that_could_not_be_written_is_refused_at_once(tmp_path, monkeypatch):
    check_table(tmp_path / "scores.parquet")
    with pytest.raises(EvaluationError, match="must be in a folder that exists"):
        check_table(tmp_path / "absent" / "scores.csv")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    check_table(tmp_path / "scores.csv")
    with pytest.raises(EvaluationError, match=r"pyarrow must be installed .* pip install 'graphcast-batch\[parquet\]'"):
        check_table(tmp_path / "scores.parquet")


def test_what_the_table_shows_is_read_alone(store):
    found = read_headlines(store, "forecast", "tropics")

    assert sorted(map(str, found.data_vars)) == ["10m_wind_vector", "temperature"]
    assert (found["level"].values.tolist(), found["region"].values.tolist()) == ([500, 850], ["tropics"])


def test_scores_that_are_not_there_are_asked_for_in_vain(store, tmp_path):
    with pytest.raises(EvaluationError, match="must have the region nowhere, but has global, tropics"):
        read(store, regions=["nowhere"])
    with pytest.raises(EvaluationError, match="must hold geopotential, but hold 10m_u_component_of_wind"):
        read(store, variables=["geopotential"])
    with pytest.raises(StoreError, match=r"no scores at .*; run graphcast-batch evaluate first"):
        read(tmp_path)
    assert not scored(tmp_path)
    with pytest.raises(EvaluationError, match="must be writable"):
        write_table(store, tmp_path / "absent" / "scores.csv")
