"""Traces, read back as the Trace Event Format has them."""

import json
import re

import pytest

from graphcast_batch.errors import StoreError
from graphcast_batch.stores.case_records import CaseRecord
from graphcast_batch.stores.trace import write_trace
from graphcast_batch.timing import Span


def record(key, worker):
    return CaseRecord(
        key=key,
        init_time=f"{key}:00:00Z",
        steps=1,
        bytes=0,
        files={},
        seconds={},
        host="host",
        device="paper",
        worker=worker,
        attempts=1,
        finished_at="2026-01-01T00:00:00+00:00",
        details={},
    )


def traced(path, made):
    """The bars of a trace by the names of their process and thread, each as (cases, start, duration) in seconds."""
    write_trace(path, made)
    events = json.loads(path.read_text())["traceEvents"]
    names = {(e["name"], e["pid"], e["tid"]): e["args"]["name"] for e in events if e["ph"] == "M"}
    bars = {}
    for event in (event for event in events if event["ph"] == "X"):
        assert event["cat"] == names["thread_name", event["pid"], event["tid"]].split()[0]
        row = names["process_name", event["pid"], 0], names["thread_name", event["pid"], event["tid"]]
        bars.setdefault(row, []).append((event["name"], event["ts"] / 1e6, event["dur"] / 1e6))
    return bars


def test_a_worker_is_a_process_and_a_stage_a_thread(tmp_path):
    first = [Span("read", 1, 2, "t"), Span("compute", 2, 5, "u")]
    second = [Span("read", 2, 3.5, "t"), Span("compute", 5, 6, "u")]

    assert traced(tmp_path / "t.json", [(record("A", "h:1"), first), (record("B", "h:1"), second)]) == {
        ("h:1", "read"): [("A", 1, 1), ("B", 2, 1.5)],
        ("h:1", "compute"): [("A", 2, 3), ("B", 5, 1)],
    }


def test_workers_stay_apart(tmp_path):
    found = traced(
        tmp_path / "t.json",
        [(record("A", "h:1"), [Span("read", 1, 2, "t")]), (record("B", "h:2"), [Span("read", 1, 2, "t")])],
    )
    assert found == {("h:1", "read"): [("A", 1, 1)], ("h:2", "read"): [("B", 1, 1)]}


def test_what_overlaps_in_a_stage_is_side_by_side_and_cases_of_one_call_are_one_bar(tmp_path):
    shared = Span("compute", 0, 4, "u")
    made = [
        (record("A", "h:1"), [shared, Span("write", 1, 3, "v")]),
        (record("B", "h:1"), [shared, Span("write", 2, 5, "w")]),
        (record("C", "h:1"), [Span("write", 3, 4, "v")]),
    ]
    assert traced(tmp_path / "t.json", made) == {
        ("h:1", "compute"): [("A B", 0, 4)],
        ("h:1", "write"): [("A", 1, 2), ("C", 3, 1)],
        ("h:1", "write 2"): [("B", 2, 3)],
    }


def test_a_trace_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(StoreError, match=r"writing the trace .*t\.json failed: .*No such file"):
        write_trace(tmp_path / "nowhere" / "t.json", [])


def test_a_run_tells_where_its_time_went_and_writes_each_stage_of_each_case(finished):
    done = finished.told

    assert done.returncode == 0, done.stderr
    assert re.search(r"busy: .*read [\d.]+ s.*; [\d.]+ s .*, [\d.]+ times the slowest", done.stdout)
    events = [event for event in json.loads(finished.trace.read_text())["traceEvents"] if event["ph"] == "X"]
    keys = {f"2020-01-01T{hour:02d}" for hour in (0, 6, 12, 18)}
    for stage in ("read", "compute", "check", "write", "commit"):
        assert {event["name"] for event in events if event["cat"] == stage} == keys
    written = finished.trace.stat().st_mtime
    assert all(abs(event["ts"] / 1e6 - written) < 600 and event["dur"] >= 0 for event in events)
