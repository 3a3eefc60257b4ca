import json
import re
from importlib.resources import files

import numpy as np
import pytest

from graphcast_batch.cli import main
from graphcast_batch.config.loading import dump_config
from graphcast_batch.config.outputs_section import OutputsConfig
from graphcast_batch.errors import StoreError
from graphcast_batch.grid import regular_grid
from graphcast_batch.report.page import MOST_BYTES, watch, write_page
from graphcast_batch.stores.case_records import CaseState
from graphcast_batch.stores.layout import Layout, Plan
from graphcast_batch.stores.store_kinds import create_or_extend, open_store
from tests.evaluation.made import cases, fill, truth
from tests.report.made import better, config_of, fail, journal, run

RELOADS = "data-reload"


def page_of(path, out, **options):
    write_page(path, out, **options)
    return out.read_text()


def data_of(text):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_the_command_writes_a_page_and_says_how_large_it_is(tmp_path, capsys):
    store = run(tmp_path / "s", count=1)

    with pytest.raises(SystemExit, match="0"):
        main(["report", str(store.path), "--out", str(tmp_path / "r.html")])

    assert re.search(r"r\.html, 0\.\d+ MB", capsys.readouterr().out)
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")


def test_a_page_of_whole_cases_has_their_maps_and_their_timeline(tmp_path):
    store = run(tmp_path / "s", count=2)
    journal(store)

    text = page_of(store.path, tmp_path / "r.html")

    data = data_of(text)
    assert [view["key"] for view in data["sides"][0]["views"]] == ["2020-01-01T00", "2020-01-01T12"]
    assert data["speed"]["cases"] == [0, 1, 2]
    assert "2 of 2 Cases are complete; no Cases are left to make" in text
    assert text.count("<rect") == 2
    assert "The forecasts were not scored" in text
    assert RELOADS not in text


def test_nothing_in_a_page_is_fetched_from_elsewhere(tmp_path):
    text = page_of(run(tmp_path / "s", count=1).path, tmp_path / "r.html")

    assert "default-src 'none'" in text
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", text)


def test_what_failed_is_told_and_cannot_become_part_of_the_page(tmp_path):
    store = run(tmp_path / "s", complete=0)
    fail(store, cases(4)[0], "</pre><script>alert('taken')</script>")

    text = page_of(store.path, tmp_path / "r.html")

    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert 'id="failure-2020-01-01T00"' in text
    assert "No forecast is complete yet" in text
    assert "The journal of this store has no completed Case" in text


def test_a_name_cannot_end_the_data_of_a_page(tmp_path):
    store = run(tmp_path / "<!--<script>", count=1)

    text = page_of(store.path, tmp_path / "r.html")

    assert data_of(text)["sides"][0]["name"] == "<!--<script>"
    assert "<!--" not in text


def test_a_store_that_keeps_only_scores_says_so(tmp_path):
    kept = {"outputs": "none", "scores": {"online": True}}
    store = run(tmp_path / "s", complete=0, identity={"outputs": "none"}, **kept)

    text = page_of(store.path, tmp_path / "r.html")

    assert "only scores (outputs: none)" in text
    assert "no maps to show" in text


def test_a_store_that_is_not_laid_out_says_so_and_one_that_never_was_is_refused(tmp_path):
    (tmp_path / "s").mkdir()

    assert "Not laid out yet" in page_of(tmp_path / "s", tmp_path / "r.html")
    with pytest.raises(StoreError, match="there is no store"):
        write_page(tmp_path / "nothing", tmp_path / "other.html")
    assert not (tmp_path / "other.html").exists()


def test_another_store_stands_beside_under_a_name_of_its_own(tmp_path):
    ours = run(tmp_path / "a" / "s", count=3)
    theirs = run(tmp_path / "b" / "s", lambda name, hours, values: values + 4, count=4, complete=2)

    data = data_of(page_of(ours.path, tmp_path / "r.html", against=theirs.path))

    assert [side["name"] for side in data["sides"]] == ["s", str(theirs.path)]
    assert [len(side["views"]) for side in data["sides"]] == [3, 2]


def test_another_store_that_is_not_laid_out_is_told_of(tmp_path):
    (tmp_path / "later").mkdir()

    text = page_of(run(tmp_path / "s", count=1).path, tmp_path / "r.html", against=tmp_path / "later")

    assert "to compare with, is not laid out yet" in text


def test_a_page_is_written_anew_until_nothing_is_left_to_be_made(tmp_path):
    store, out, seen = run(tmp_path / "s", count=2, complete=0), tmp_path / "r.html", []

    def sleep(seconds):
        seen.append(out.read_text())
        fill(open_store(store.path), cases(2)[len(seen) - 1], better, truth())

    watch(store.path, out, sleep=sleep)

    assert [re.search(r"(\d) of 2 Cases", text)[1] for text in seen] == ["0", "1"]
    assert all(RELOADS in text for text in seen)
    assert "2 of 2 Cases are complete" in out.read_text()
    assert RELOADS not in out.read_text()
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("s", "truth.zarr")] == ["r.html"]


def test_a_person_who_has_seen_enough_keeps_a_page_that_stays_as_it_is(tmp_path):
    store, out = run(tmp_path / "s", count=1, complete=0), tmp_path / "r.html"

    def interrupted(seconds):
        raise KeyboardInterrupt

    watch(store.path, out, sleep=interrupted)

    assert "0 of 1 Cases" in out.read_text()
    assert RELOADS not in out.read_text()


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StoreError, match="writing the report"):
        write_page(run(tmp_path / "s", count=1).path, tmp_path / "nowhere" / "r.html")


def test_the_page_of_a_large_store_stays_small_and_says_what_it_leaves_out(tmp_path):
    levels, steps, grid = tuple(range(50, 700, 50)), 40, regular_grid(2)
    planned = cases(2, steps=steps)
    plan = Plan(tuple(planned), Layout(grid, levels, (("temperature", True),), steps, 6, OutputsConfig()))
    text = dump_config(config_of(tmp_path / "s", steps=steps))
    store = create_or_extend(tmp_path / "s", plan, identity={}, provenance={}, config_text=text)
    # No picture makes noise any smaller.
    noise = np.random.default_rng(0).random((steps, len(levels), *grid.shape), np.float32)
    for case in planned:
        with store.attempt(case) as attempt:
            attempt.write(0, {"temperature": noise})
            attempt.commit(lease=None, seconds={}, device="cpu", worker="w", attempts=1, details={})

    text = page_of(store.path, tmp_path / "r.html")

    assert len(planned) * noise.size > MOST_BYTES
    assert 0.3 * MOST_BYTES < len(text.encode()) < MOST_BYTES
    assert re.search(r"To keep this page small it shows \d+ of 40 lead times, 10 of 13 fields", text)


def test_every_state_of_a_case_has_a_color():
    style = (files("graphcast_batch.report") / "page.css").read_text()
    assert [state for state in CaseState if not re.search(rf"^.*\.{state} {{ background", style, re.M)] == []
