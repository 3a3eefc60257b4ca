import json
from pathlib import Path

import pytest

from graphcast_batch.bench import forcing_speed
from graphcast_batch.bench.records import BenchmarkFigure, BenchmarkResult, read_result, replaced, table
from graphcast_batch.errors import ConfigError


def made():
    figures = [
        BenchmarkFigure("ours", "frames/s", [3.0, 1.0, 2.0], limit=4.0, goal=">= 1.8"),
        BenchmarkFigure("peak", "MB", [512.0]),
    ]
    return BenchmarkResult("model", "Frames", "graphcast-batch bench model", figures, {"steps": 4})


def test_a_result_is_kept_under_what_ran_where_and_when_and_read_back(tmp_path):
    result = made()

    path = result.write(tmp_path / "results")

    assert path.name.startswith("bench-model-")
    assert path.stem.endswith(result.date)
    assert read_result(path) == result
    content = json.loads(path.read_text())
    assert content["figures"][0]["median"] == 2.0
    assert {"jax", "ray", "zarr"} <= set(content["versions"])
    assert content["machine"]["cores"] >= 1


def test_a_table_shows_median_spread_limit_and_goal():
    rows = [line for line in table([made()]).splitlines() if line.startswith(("| ours", "| peak"))]

    assert rows == ["| ours | 2 frames/s (1 to 3, 3 rounds) | 4 frames/s | >= 1.8 |", "| peak | 512 MB (once) |  |  |"]


def test_a_short_table_shows_only_what_has_a_goal():
    assert "| ours" in table([made()], all_figures=False)
    assert "| peak" not in table([made()], all_figures=False)


def test_a_page_gets_its_table_between_its_marks_again_and_again():
    marks = "<!-- benchmarks: made by graphcast-batch bench table -->", "<!-- benchmarks end -->"
    page = f"before\n{marks[0]}\nold\n{marks[1]}\nafter"

    once = replaced(page, "new")

    assert once == f"before\n{marks[0]}\nnew\n{marks[1]}\nafter"
    assert replaced(once, "new") == once
    with pytest.raises(ConfigError, match="add them on lines of their own"):
        replaced("no marks", "new")


@pytest.mark.parametrize("content", ["", "[]", '{"bench": "model"}', '{"figures": [{"name": 1}]}'])
def test_a_file_that_is_no_result_is_named(tmp_path, content):
    (tmp_path / "x.json").write_text(content)

    with pytest.raises(ConfigError, match=r"x\.json must hold the result of a benchmark"):
        read_result(tmp_path / "x.json")


def test_forcings_are_timed_on_a_small_grid():
    result = forcing_speed.measure(resolution=30.0, steps=4, steps_per_call=2, rounds=2)

    assert [len(figure.samples) for figure in result.figures] == [2, 2]
    assert all(sample > 0 for figure in result.figures for sample in figure.samples)


def test_the_tables_of_the_documentation_are_those_of_the_results():
    root = Path(__file__).parents[2]
    page = (root / "docs" / "benchmarks.md").read_text()

    kept = [read_result(path) for path in sorted((root / "benchmarks-results").glob("bench-*.json"))]

    assert kept
    assert replaced(page, table(kept, all_figures=False)) == page
