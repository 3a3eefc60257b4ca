from graphcast_batch.report.timeline import timeline
from graphcast_batch.stores.journal import Line


def made(case, worker, at, **stages):
    """Lines of a Case that was whole at some minute and second."""
    told = {"at": f"2026-01-01T{at}.000+00:00", "host": "h", "worker": worker, "case": case}
    lines = [Line(event="stage", stage=stage, seconds=seconds, **told) for stage, seconds in stages.items()]
    return [*lines, Line(event="finished", steps=4, **told)]


def test_a_journal_without_a_whole_case_has_no_timeline():
    assert timeline([]) is None
    assert timeline([Line(at="2026-01-01T00:00:00+00:00", event="started", host="h")]) is None


def test_a_bar_ends_when_its_case_was_whole_and_is_as_long_as_its_stages():
    found = timeline(made("a", "w", "00:00:10", read=1.0, compute=3.0))

    (bar,) = found.bars
    assert bar.end - bar.start == 4.0
    assert bar.text == "a on w, complete at 2026-01-01 00:00:10 UTC: read 1.0 s, compute 3.0 s"
    assert found.steps_per_second == 1.0


def test_bars_that_overlap_stand_in_lanes_of_their_own():
    lines = made("a", "w", "00:00:10", compute=4.0) + made("b", "w", "00:00:12", compute=4.0)
    lines += made("c", "w", "00:00:15", compute=4.0) + made("d", "v", "00:00:15", compute=1.0)

    rows = dict(timeline(lines).rows)

    assert [[bar.case for bar in lane] for lane in rows["w"]] == [["a", "c"], ["b"]]
    assert [[bar.case for bar in lane] for lane in rows["v"]] == [["d"]]


def test_work_of_another_day_is_counted_but_not_shown():
    lines = made("a", "w", "00:00:10", compute=4.0)
    lines += made("b", "w", "05:00:10", compute=4.0) + made("c", "w", "05:00:20", compute=2.0)

    found = timeline(lines)

    assert [bar.case for bar in found.bars] == ["b", "c"]
    assert found.earlier == 1
    assert found.stages == [("compute", 6.0, 3.0)]


def test_attempts_that_were_made_again_are_counted():
    retried = Line(at="2026-01-01T00:00:00+00:00", event="retried", host="h", case="a")

    assert timeline([retried, *made("a", "w", "00:00:10", compute=4.0)]).retried == 1
