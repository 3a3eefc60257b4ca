"""Whether Cases fit into what is left of a job: a reserve of 60 s, a last half minute, and what was measured."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphcast_batch.cluster.walltime import Walltime
from graphcast_batch.plan import Case

START, END = 1000.0, 5000.0


def case(number, steps=10):
    return Case(np.datetime64("2020-01-01T00") + np.timedelta64(6 * number, "h"), steps, 6)


def walltime(*seconds, now=START, start=START, end=END):
    """After Cases that took so long."""
    found = Walltime(now, start, end)
    for number, took in enumerate(seconds):
        found.begin(case(number), now)
        found.end(case(number), now + took, complete=True)
    return found


def test_before_anything_was_measured_cases_fit_until_the_reserve():
    assert walltime().fits(case(0), END - 61)
    assert not walltime().fits(case(0), END - 60)


def test_the_slowest_of_the_last_cases_counts():
    found = walltime(5.0, 100.0, 20.0)
    assert found.expected(case(9)) == pytest.approx(100.0)
    assert found.fits(case(9), END - 161)
    assert not found.fits(case(9), END - 159)


def test_what_was_slow_long_ago_is_forgotten():
    assert walltime(900.0, *[20.0] * 32).expected(case(99)) == pytest.approx(20.0)


def test_a_case_with_more_steps_takes_longer_in_proportion():
    assert walltime(20.0).expected(case(9, steps=40)) == pytest.approx(80.0)


def test_what_did_not_become_whole_tells_nothing():
    found = walltime()
    found.begin(case(0), START)
    found.end(case(0), START + 1000, complete=False)
    assert found.expected(case(1)) == 0


def test_what_is_under_way_is_dropped_half_a_minute_before_the_end():
    assert not walltime().over(END - 31)
    assert walltime().over(END - 30)


def test_without_an_end_everything_fits_and_nothing_is_over():
    found = walltime(1e9, end=None)
    assert found.fits(case(0), 1e12)
    assert not found.over(1e12)
    assert found.too_short(1e12) == ""


def test_a_job_too_short_for_a_single_case_is_reported():
    found = walltime()
    found.begin(case(0), START + 100)
    found.begin(case(1), START + 200)
    assert "in 3970 s of its 4000 s none was completed" in found.too_short(END - 30)
    assert "in progress has been so for 3870 s" in found.too_short(END - 30)


@pytest.mark.parametrize(
    ("found", "now"),
    [
        (walltime(50.0), END - 30),  # one Case is whole
        (walltime(), END - 600),  # stopped early: preempted
        (walltime(now=END - 1000), END - 30),  # it had only the last quarter
    ],
)
def test_a_job_is_not_too_short_if_another_could_make_more(found, now):
    assert found.too_short(now) == ""


def test_a_job_whose_start_is_not_known_began_with_the_run():
    assert "in 970 s of its 1000 s" in walltime(now=END - 1000, start=None).too_short(END - 30)


@given(st.lists(st.floats(0, 1e5), max_size=40), st.floats(START, 2 * END), st.floats(0, 1e4))
def test_what_does_not_fit_now_does_not_fit_later(seconds, now, later):
    found = walltime(*seconds)
    assert found.fits(case(99), now) or not found.fits(case(99), now + later)
