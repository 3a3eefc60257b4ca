"""Spans and their sums: overlaps count once in what a stage was busy, and the rest is arithmetic."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphcast_batch import timing
from graphcast_batch.timing import Balance, Span, StageOverlap, Stopwatch, balance, clock, covered

TENTHS = st.integers(0, 60).map(lambda number: number / 10)


@pytest.fixture
def watch_at(monkeypatch):
    """A stopwatch, and what sets the clock."""
    now = [100.0]
    monkeypatch.setattr(timing, "clock", lambda: now[0])

    def at(seconds):
        now[0] = seconds

    return Stopwatch(), at


def test_a_stage_is_a_span_of_the_thread_that_was_in_it(watch_at):
    watch, at = watch_at
    with watch.stage("read"):
        at(101.5)

    assert watch.spans == (Span("read", 100.0, 101.5, threading.current_thread().name),)
    assert watch.seconds == {"read": 1.5}


def test_an_error_ends_a_span_as_well(watch_at):
    watch, at = watch_at

    def fails():
        at(103)
        raise ValueError("gap")

    with pytest.raises(ValueError, match="gap"), watch.stage("read"):
        fails()
    assert watch.seconds == {"read": 3}


def test_spans_with_no_pause_between_are_one_and_stages_and_threads_stay_apart(watch_at):
    watch, _ = watch_at
    watch.add("compute", 0, 1)
    watch.add("check", 0.5, 0.6)
    watch.add("compute", 1.0005, 2)
    other = threading.Thread(target=watch.add, args=("compute", 2, 3), name="other")
    other.start()
    other.join()
    watch.add("compute", 2.1, 3)

    assert [(span.stage, span.start, span.end) for span in watch.spans] == [
        ("compute", 0, 2),
        ("check", 0.5, 0.6),
        ("compute", 2, 3),
        ("compute", 2.1, 3),
    ]


def test_the_clock_tells_unix_time():
    before = time.time()
    assert before - 1 < clock() < time.time() + 1


@given(st.lists(st.tuples(TENTHS, TENTHS).map(sorted)))
def test_covered_time_is_that_of_the_tenths_that_lie_in_any_interval(intervals):
    tenths = {tenth for start, end in intervals for tenth in range(round(10 * start), round(10 * end))}
    assert covered(map(tuple, intervals)) == pytest.approx(len(tenths) / 10)


def test_workers_are_summed_each_from_its_own_start_to_the_end_of_the_run():
    spans_of = {
        "a": [Span("read", 10, 11, "x"), Span("compute", 11, 15, "y"), Span("compute", 14, 16, "z")],
        "b": [Span("read", 12, 14, "x"), Span("compute", 14, 20, "y")],
        "late": [],
    }
    found = balance(spans_of)

    assert found == Balance(busy={"read": 3, "compute": 11}, wall=10 + 8)
    assert (found.slowest, found.ratio) == ("compute", 18 / 11)


def test_nothing_made_has_no_balance():
    assert balance({}) is None
    assert balance({"a": []}) is None


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["read", "write"]), TENTHS, TENTHS), max_size=9),
    st.integers(1, 99),
)
def test_spans_that_come_case_by_case_give_the_balance_of_all_of_them(drawn, cases):
    """Each Case begins 3 s after the one before, and lasts for up to 12 s: they overlap, and leave gaps."""
    overlap, every = StageOverlap(), {"a": [], "b": []}
    for number in range(cases):
        for worker in every:
            spans = [
                Span(stage, 3.0 * number + start, 3.0 * number + start + length, "thread")
                for who, stage, start, length in drawn
                if who == worker
            ]
            overlap.add(worker, spans)
            every[worker] += spans

    found = overlap.balance
    if not drawn:
        assert found is None
        return
    for stage, seconds in found.busy.items():
        spans = ([span for span in held if span.stage == stage] for held in every.values())
        assert seconds == pytest.approx(sum(covered((span.start, span.end) for span in held) for held in spans))
    end = max(span.end for held in every.values() for span in held)
    assert found.wall == pytest.approx(sum(end - min(s.start for s in held) for held in every.values() if held))


def test_what_is_kept_of_spans_does_not_grow_with_their_number():
    overlap = StageOverlap()
    for number in range(10_000):
        overlap.add("a", [Span("read", 2.0 * number, 2.0 * number + 1, "thread")])
    (union,) = overlap._stages["read"].values()
    assert len(union._open) < 200
    assert overlap.balance == Balance({"read": 10_000.0}, 19_999.0)
