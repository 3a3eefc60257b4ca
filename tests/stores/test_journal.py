import json
import os
import re
import socket
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphcast_batch.errors import ForecastError, StoreError
from graphcast_batch.stores.case_records import CaseFailure
from graphcast_batch.stores.journal import Journal, Line, read_journal
from tests.forks import PROCESSES

from .made_stores import case_at, fill, kill, make, plan_of, small_disk

CASE = case_at(0, 2)


@pytest.fixture
def told():
    return []


def dicts(store):
    return [line.model_dump(exclude_none=True, exclude={"at", "host"}) for line in read_journal(store)]


def test_a_run_is_told_line_by_line(tmp_path, told):
    store = make(tmp_path / "s", plan_of([0], 2))
    fill(store, CASE)
    record = store.ledger.record(CASE.key)
    before = datetime.now(UTC) - timedelta(milliseconds=1)

    journal = Journal(store.path, told.append)
    journal.started(2, "cpu", 5, 1)
    journal.retried(CASE, ForecastError("not finite"))
    journal.finished(record)
    journal.note("worker lost", "worker 1 died", worker="h:1", exit=[9, None])
    try:
        raise ForecastError("not\nfinite again")
    except ForecastError as error:
        journal.failed(CaseFailure.of(CASE, error, 2))

    made = {"case": CASE.key, "worker": "w", "device": "cpu"}
    assert dicts(store.path) == [
        {"event": "started", "device": "cpu", "workers": 2, "total": 5, "complete": 1},
        {"event": "retried", "case": CASE.key, "error": "ForecastError", "message": "not finite"},
        {"event": "stage", **made, "stage": "compute", "seconds": 1.0},
        {"event": "finished", **made, "steps": 2, "bytes": record.bytes, "attempts": 1},
        {"event": "worker lost", "message": "worker 1 died", "worker": "h:1", "exit": [9, None]},
        {
            "event": "failed",
            "case": CASE.key,
            "error": "ForecastError",
            "message": "not\nfinite again",
            "attempts": 2,
        },
    ]
    for line in read_journal(store.path):
        assert line.host == socket.gethostname()
        assert before <= datetime.fromisoformat(line.at) <= datetime.now(UTC)
    assert not told


def test_a_journal_is_a_file_of_json_lines_named_after_its_driver(tmp_path, told):
    Journal(tmp_path, told.append).note("tried")

    (file,) = (tmp_path / "log").iterdir()
    assert re.fullmatch(rf"\d{{8}}T\d{{6}}-{re.escape(socket.gethostname())}-{os.getpid()}\.jsonl", file.name)
    assert json.loads(file.read_text())["event"] == "tried"


def written(at, event):
    return Line(at=at, event=event, host="h").model_dump_json(exclude_none=True) + "\n"


def test_lines_of_several_drivers_are_merged_by_time(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "a.jsonl").write_text(written("2020-01-01T00:00:01", "1") + written("2020-01-01T00:00:03", "3"))
    (tmp_path / "log" / "b.jsonl").write_text(written("2020-01-01T00:00:02", "2") + written("2020-01-01T00:00:04", "4"))

    assert [line.event for line in read_journal(tmp_path)] == ["1", "2", "3", "4"]


@given(cut=st.integers(min_value=1))
def test_a_torn_last_line_is_passed_over(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("store")
    (folder / "log").mkdir()
    last = written("2020-01-01T00:00:02", "torn")
    kept = last[: cut % (len(last) - 1)]
    (folder / "log" / "a.jsonl").write_text(written("2020-01-01T00:00:01", "whole") + kept)

    assert [line.event for line in read_journal(folder)] == ["whole"]


def test_a_store_without_a_journal_has_no_lines(tmp_path):
    assert list(read_journal(tmp_path)) == []


def test_a_journal_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "log" / "a.jsonl").mkdir(parents=True)

    with pytest.raises(StoreError, match=r"reading the journals in .*log failed: .*Is a directory"):
        list(read_journal(tmp_path))


@given(st.text(), st.dictionaries(st.text(min_size=1).filter(lambda name: name not in Line.model_fields), st.text()))
def test_whatever_a_message_holds_comes_back(tmp_path_factory, text, fields):
    fields.pop("text", None)
    fields.pop("self", None)
    store = tmp_path_factory.mktemp("store")
    Journal(store, pytest.fail).note("said", text, **fields)

    assert dicts(store) == [{"event": "said", "message": text, **fields}]


def test_half_a_character_of_a_file_name_is_written_too(tmp_path):
    Journal(tmp_path, pytest.fail).note("said", "\udcff")

    assert dicts(tmp_path) == [{"event": "said", "message": "\udcff"}]


def keep_on(folder, wrote):
    journal = Journal(folder, print)
    while True:
        journal.note("tick", "x" * 5000)
        wrote.set()


def test_a_writer_that_is_killed_leaves_lines_that_can_be_read(tmp_path):
    wrote = PROCESSES.Event()
    child = PROCESSES.Process(target=keep_on, args=(tmp_path, wrote))
    child.start()
    assert wrote.wait(60)
    kill(child)

    lines = list(read_journal(tmp_path))
    assert lines
    assert {len(line.message) for line in lines} == {5000}


def note_here(folder):
    Journal(folder, print).note("here")


def test_two_drivers_never_write_one_file(tmp_path):
    children = [PROCESSES.Process(target=note_here, args=(tmp_path,)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()

    assert [len(file.read_text().splitlines()) for file in (tmp_path / "log").iterdir()] == [1, 1]


def test_a_full_disk_is_told_once_and_what_fits_afterwards_is_kept(tmp_path, told):
    with small_disk(tmp_path / "disk") as disk:
        journal = Journal(disk, told.append)
        journal.note("first")
        (disk / "ballast").write_bytes(bytes(380_000))
        for _ in range(20):
            journal.note("lost", "x" * 10_000)
        (disk / "ballast").unlink()
        journal.note("last")

        events = [line.event for line in read_journal(disk)]
        assert (events[0], events[-1]) == ("first", "last")
        assert events.count("lost") < 20
    assert len(told) == 1
    assert re.search(r"the journal .*jsonl cannot be written: .*space", told[0])


def test_a_place_that_cannot_be_written_is_told_once_and_never_made(tmp_path, told):
    journal = Journal(tmp_path / "nowhere", told.append)

    journal.note("first")
    journal.note("second")

    assert len(told) == 1
    assert "nowhere" in told[0]
    assert not (tmp_path / "nowhere").exists()


def test_a_line_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Line(at="2020-01-01", event="e", host="h").event = "other"


def test_a_store_with_a_journal_is_opened_and_extended_as_one_without(tmp_path, told):
    plan = plan_of([0], 2)
    store = make(tmp_path / "s", plan)
    Journal(store.path, told.append).note("here")
    fill(make(store.path, plan_of([0, 1], 2)), CASE)

    assert store.open(store.path).forecasts().sizes["time"] == 2
    assert [line.event for line in read_journal(store.path)] == ["here"]
