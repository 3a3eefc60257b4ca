"""Cases that wait: in their order, but the members of one initial time with one worker where they can be."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from graphcast_batch.cluster.waiting_cases import WaitingCases
from graphcast_batch.plan import Case


def cases(times, members=0):
    made = [Case(np.datetime64("2020-01-01T00", "h") + np.timedelta64(6 * n, "h"), 1, 6) for n in range(times)]
    return [replace(case, member=number) for case in made for number in range(members) or [None]]


def taken(waiting, worker, count=1):
    return [waiting.take(worker, lambda case: True).key[8:] for _ in range(count)]


def test_without_members_cases_are_taken_in_their_order_by_whoever_comes():
    waiting = WaitingCases(cases(4))

    assert [*taken(waiting, "a"), *taken(waiting, "b", 2), *taken(waiting, "a")] == ["01T00", "01T06", "01T12", "01T18"]
    assert (len(waiting), waiting.take("a", lambda case: True)) == (0, None)


def test_a_worker_goes_on_with_the_initial_time_that_it_has_begun():
    waiting = WaitingCases(cases(3, members=3))

    assert taken(waiting, "a") + taken(waiting, "b") == ["01T00-m000", "01T06-m000"]
    assert taken(waiting, "a", 2) == ["01T00-m001", "01T00-m002"]
    assert taken(waiting, "b") == ["01T06-m001"]
    assert taken(waiting, "a") == ["01T12-m000"]


def test_a_worker_without_one_helps_with_the_initial_time_that_was_begun_last():
    waiting = WaitingCases(cases(2, members=4))
    taken(waiting, "a", 2)
    taken(waiting, "b")

    assert taken(waiting, "c", 2) == ["01T06-m001", "01T06-m002"]
    assert taken(waiting, "b") == ["01T06-m003"]
    assert taken(waiting, "b") == ["01T00-m002"]


def test_what_a_worker_that_is_gone_has_begun_comes_first():
    waiting = WaitingCases(cases(3, members=2))
    taken(waiting, "a")
    taken(waiting, "b")
    waiting.forget("b")
    waiting.forget("never seen")

    assert taken(waiting, "c") == ["01T06-m001"]
    assert taken(waiting, "c") == ["01T12-m000"]


def test_a_case_that_is_put_back_is_the_first_again():
    waiting = WaitingCases(cases(2, members=2))
    case = waiting.take("a", lambda case: True)
    waiting.appendleft(case)

    assert waiting.take("a", lambda case: True) == case
    waiting.appendleft(case)
    assert waiting.take("b", lambda case: True).init_time == np.datetime64("2020-01-01T06")


def test_a_worker_takes_the_first_case_that_it_may():
    waiting = WaitingCases(cases(2, members=2))

    assert waiting.take("a", lambda case: case.member == 1).key == "2020-01-01T00-m001"
    assert waiting.take("a", lambda case: False) is None
    assert taken(waiting, "a") == ["01T00-m000"]
    assert len(waiting) == 2


def test_members_of_one_time_in_different_files_do_not_start_from_one_state():
    one, other = (replace(case, source=source) for source in "xy" for case in cases(1, members=1))
    waiting = WaitingCases([one, replace(one, member=1), other])

    assert waiting.take("a", lambda case: True) == one
    assert waiting.take("b", lambda case: True) == other


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["take", "put", "again", "forget", "even"]))))
def test_each_case_waits_once_whatever_happens(steps):
    every = cases(3, members=3)
    waiting, out = WaitingCases(every), []
    for worker, what in steps:
        if what in ("take", "even"):
            case = waiting.take(worker, lambda case: case.member % 2 == 0 if what == "even" else True)  # noqa: B023
            out += [case] if case else []
            assert case or what == "even" or len(waiting) == 0
        elif what == "forget":
            waiting.forget(worker)
        elif out:
            (waiting.append if what == "again" else waiting.appendleft)(out.pop())
        assert len(waiting) == len(every) - len(out)
    while case := waiting.take("a", lambda case: True):
        out.append(case)
    assert sorted(out) == every
