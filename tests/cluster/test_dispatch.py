"""Decisions about Cases and workers: every Case ends once, and failures are attributed to what caused them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from graphcast_batch.cluster.dispatch_rules import IN_FLIGHT, Dispatch, in_flight
from graphcast_batch.errors import ForecastError, InputError
from graphcast_batch.plan import Case
from graphcast_batch.stores.case_records import CaseState

LATER = 1e6


def cases(count):
    return [Case(np.datetime64("2020-01-01T00") + np.timedelta64(6 * n, "h"), 1, 6) for n in range(count)]


def pool(dispatch, *names):
    for name in names:
        dispatch.add_worker(name)
    return dispatch


def take(dispatch, now=0.0):
    """Hands out what is chosen; who got it, and what."""
    choice = dispatch.choose(now)
    if choice:
        dispatch.assign(*choice)
    return choice


def test_a_case_goes_to_the_worker_with_the_fewest_as_long_as_any_has_room():
    dispatch = pool(Dispatch(cases(9), 0, in_flight=4), "a", "b")
    assert [take(dispatch)[0] for _ in range(8)] == ["a", "b"] * 4
    assert take(dispatch) is None


@pytest.mark.parametrize("together", [1, 2, 5])
def test_a_worker_has_enough_for_each_stage_and_one_more(together):
    dispatch = pool(Dispatch(cases(30), 0, in_flight(together)), "a")
    count = 0
    while take(dispatch):
        count += 1
    assert count == 3 * together + 1


def test_no_worker_takes_more_than_an_even_share_of_the_cases_left():
    dispatch = pool(Dispatch(cases(5), 0, in_flight=4), "a")

    def taken(expected):
        while choice := dispatch.choose(0.0, expected):
            dispatch.assign(*choice)
        return dispatch.ours - len(dispatch._waiting)

    assert taken(expected=4) == 1
    assert taken(expected=2) == 2
    assert taken(expected=1) == 3
    pool(dispatch, "b")
    assert taken(expected=0) == 5


def test_what_is_put_back_is_first_in_line_again_and_no_attempt():
    dispatch = pool(Dispatch(cases(2), 0), "a")
    worker, case = dispatch.choose(0.0)
    dispatch.put_back(case)
    assert dispatch.ours == 2
    assert dispatch.choose(0.0) == (worker, case)
    assert dispatch.assign(worker, case) == 1


def test_an_error_of_the_input_is_never_tried_again():
    dispatch = pool(Dispatch(cases(1), 5), "a")
    _, case = take(dispatch)
    assert dispatch.fail("a", case, InputError("gap"), 0.0) == 1
    assert not dispatch.unfinished


def test_a_failed_case_pauses_and_is_tried_on_another_worker():
    dispatch = pool(Dispatch(cases(1), 2), "a", "b")
    worker, case = take(dispatch)
    assert dispatch.fail(worker, case, OSError("stale"), 10.0) == 0
    assert take(dispatch, 10.5) is None
    other, _ = take(dispatch, 11.0)
    assert other != worker
    assert dispatch.fail(other, case, OSError("stale"), 11.0) == 0
    assert take(dispatch, 14.0) is None  # each pause is four times the one before
    assert take(dispatch, 15.0) is not None


def test_a_lone_worker_gets_the_case_again():
    dispatch = pool(Dispatch(cases(1), 1), "a")
    _, case = take(dispatch)
    dispatch.fail("a", case, OSError("stale"), 0.0)
    assert take(dispatch, LATER) == ("a", case)


def test_a_death_is_attributed_to_neither_of_two_cases_but_each_is_made_alone():
    dispatch = pool(Dispatch(cases(3), 0), "a")
    take(dispatch)
    take(dispatch)
    assert dispatch.die("a", 0.0) is None
    pool(dispatch, "b")
    first, _, third = cases(3)
    assert take(dispatch) == ("b", third)
    assert take(dispatch) is None
    dispatch.complete("b", third)
    assert take(dispatch) == ("b", first)
    assert take(dispatch) is None
    assert dispatch.die("b", 0.0) == (first, 1)


def test_a_death_is_attributed_to_the_only_case_of_a_worker():
    dispatch = pool(Dispatch(cases(1), 0), "a")
    _, case = take(dispatch)
    assert dispatch.die("a", 0.0) == (case, 1)


def test_a_death_is_attributed_to_the_case_that_is_known_to_be_the_cause():
    dispatch = pool(Dispatch(cases(2), 0), "a")
    (_, first), (_, second) = take(dispatch), take(dispatch)
    assert dispatch.die("a", 0.0, second.key) == (second, 1)
    pool(dispatch, "b")
    assert take(dispatch) == ("b", first)


def test_a_lost_node_costs_no_attempt():
    dispatch = pool(Dispatch(cases(1), 0), "a")
    _, case = take(dispatch)
    dispatch.lose_node("a")
    pool(dispatch, "b")
    assert dispatch.choose(0.0) == ("b", case)
    assert dispatch.assign("b", case) == 1


def test_a_case_that_another_driver_took_over_costs_no_attempt():
    dispatch = pool(Dispatch(cases(1), 0), "a")
    worker, case = take(dispatch)
    dispatch.lose_lease(worker, case)
    assert dispatch.elsewhere == (case,)
    dispatch.update_elsewhere({case.key: CaseState.MISSING})
    assert dispatch.choose(0.0) == ("a", case)
    assert dispatch.assign("a", case) == 1


def test_a_case_that_the_store_refuses_pauses_and_fails_in_the_end_without_breaking_a_worker():
    dispatch = pool(Dispatch(cases(1), 1), "a")
    _, case = dispatch.choose(0.0)
    assert dispatch.refuse_lease(case, 0.0) == 0
    assert dispatch.choose(0.5) is None
    assert dispatch.choose(1.0) == ("a", case)
    assert dispatch.refuse_lease(case, 1.0) == 2
    assert not dispatch.unfinished
    assert dispatch.broken() is None


def test_a_worker_that_has_a_suspect_gets_no_other_case_until_it_is_complete():
    dispatch = pool(Dispatch(cases(3), 0, in_flight=3), "a")
    for _ in range(2):
        take(dispatch)
    dispatch.die("a", 0.0)
    pool(dispatch, "b")
    first, second, third = cases(3)
    assert dispatch.choose(0.0) == ("b", third)
    dispatch.leave_to_others(third)
    assert take(dispatch) == ("b", first)
    dispatch.update_elsewhere({third.key: CaseState.MISSING})
    assert take(dispatch) is None
    dispatch.complete("b", first)
    assert take(dispatch) == ("b", second)
    assert take(dispatch) is None


def test_workers_with_as_many_cases_take_turns():
    dispatch = pool(Dispatch(cases(9), 0, in_flight=2), "a", "b", "c")
    handed = [take(dispatch) for _ in range(6)]
    assert [worker for worker, _ in handed] == ["a", "b", "c"] * 2
    for worker, case in (handed[1], handed[3], handed[4]):
        dispatch.complete(worker, case)
    assert [take(dispatch)[0] for _ in range(3)] == ["b", "a", "b"]


def test_a_worker_whose_failed_cases_others_complete_is_broken():
    dispatch = pool(Dispatch(cases(2), 3), "a", "b")
    for case in cases(2):
        assert dispatch._waiting.take("a", case.__eq__) == case
        dispatch.assign("a", case)
        dispatch.fail("a", case, ForecastError("NaN"), 0.0)
    assert dispatch.broken() is None
    for _ in range(2):
        worker, case = take(dispatch, LATER)
        assert worker == "b"
        dispatch.complete("b", case)
    assert dispatch.broken() == "a"
    assert dispatch.retire("a") == []


def test_errors_of_the_machine_one_after_another_retire_a_worker_and_are_not_attributed_to_cases():
    dispatch = pool(Dispatch(cases(3), 0), "a")
    for _ in range(3):
        _, case = take(dispatch)
        assert dispatch.fail("a", case, RuntimeError("illegal memory access"), 0.0) == 1
    assert dispatch.broken() == "a"
    assert sorted(dispatch.retire("a")) == [case.key for case in cases(3)]
    pool(dispatch, "b")
    worker, case = take(dispatch)
    assert worker == "b"
    dispatch.complete("b", case)
    assert not dispatch.losses


def test_forecasts_that_leave_physics_retire_nobody():
    """Weights that give NaN do so on every device."""
    dispatch = pool(Dispatch(cases(5), 0), "a")
    for _ in range(5):
        _, case = take(dispatch)
        dispatch.fail("a", case, ForecastError("NaN"), 0.0)
    assert dispatch.broken() is None


def test_workers_killed_by_different_cases_with_none_completed_in_between_are_losses():
    dispatch = Dispatch(cases(9), 0)
    for number in range(4):
        assert not dispatch.losses
        pool(dispatch, f"worker {number}")
        take(dispatch)
        dispatch.die(f"worker {number}", 0.0)
    assert len(dispatch.losses) == 4


def test_one_case_that_kills_every_worker_is_no_sign_of_a_broken_machine():
    dispatch = Dispatch(cases(1), 9)
    for number in range(9):
        pool(dispatch, f"worker {number}")
        take(dispatch, LATER * (number + 1))
        dispatch.die(f"worker {number}", LATER * (number + 1))
    assert not dispatch.losses


@pytest.mark.parametrize(
    ("state", "waits", "ours"),
    [
        (CaseState.RUNNING, True, 0),
        (CaseState.COMPLETE, False, 0),
        (CaseState.FAILED, False, 0),
        (CaseState.MISSING, True, 1),
    ],
)
def test_cases_of_other_drivers_are_waited_for_and_taken_over_when_released(state, waits, ours):
    dispatch = pool(Dispatch(cases(1), 0), "a")
    _, case = dispatch.choose(0.0)
    dispatch.leave_to_others(case)
    assert dispatch.elsewhere == (case,)
    dispatch.update_elsewhere({case.key: state})
    assert (dispatch.unfinished, dispatch.ours) == (waits, ours)


class Run(RuleBasedStateMachine):
    """Workers start, end, die and fail in any order; no Case is lost or made twice."""

    def __init__(self):
        super().__init__()
        self.every = self.made()
        self.dispatch = Dispatch(self.every, 2)
        self.clock, self.number = 0.0, 0
        self.workers: dict[str, dict] = {}
        self.ended: dict[str, str] = {}

    def made(self):
        return cases(8)

    def end(self, case, how):
        assert case.key not in self.ended
        self.ended[case.key] = how

    @rule()
    def join(self):
        self.number += 1
        self.workers[f"w{self.number}"] = {}
        self.dispatch.add_worker(f"w{self.number}")

    @rule(seconds=st.floats(0, 100))
    def hand_out(self, seconds):
        self.clock += seconds
        choice = self.dispatch.choose(self.clock)
        if choice is None:
            return
        worker, case = choice
        if not self.dispatch._failed_on and not self.dispatch._suspects:
            assert len(self.workers[worker]) == min(map(len, self.workers.values()))
        assert case.key not in self.ended
        assert all(case.key not in held for held in self.workers.values())
        assert self.dispatch.assign(worker, case) >= 1
        self.workers[worker][case.key] = case

    @rule()
    def refused(self):
        choice = self.dispatch.choose(self.clock)
        if choice and self.dispatch.refuse_lease(choice[1], self.clock):
            self.end(choice[1], "refused")

    def busy(self):
        return sorted(worker for worker, held in self.workers.items() if held)

    @precondition(busy)
    @rule(data=st.data(), kind=st.sampled_from(["complete", "input", "physics", "machine"]))
    def finish(self, data, kind):
        worker = data.draw(st.sampled_from(self.busy()))
        case = self.workers[worker].pop(data.draw(st.sampled_from(sorted(self.workers[worker]))))
        if kind == "complete":
            self.dispatch.complete(worker, case)
            self.end(case, kind)
            return
        error = {"input": InputError("x"), "physics": ForecastError("x"), "machine": OSError("x")}[kind]
        if self.dispatch.fail(worker, case, error, self.clock):
            self.end(case, kind)

    @precondition(busy)
    @rule(data=st.data(), lost=st.booleans())
    def vanish(self, data, lost):
        worker = data.draw(st.sampled_from(self.busy()))
        del self.workers[worker]
        if lost:
            self.dispatch.lose_node(worker)
            return
        attributed = self.dispatch.die(worker, self.clock)
        if attributed and attributed[1]:
            self.end(attributed[0], "death")

    @rule()
    def retire(self):
        worker = self.dispatch.broken()
        if worker:
            del self.workers[worker]
            for key in self.dispatch.retire(worker):
                assert self.ended.pop(key) in ("physics", "machine")

    @invariant()
    def every_case_is_ended_or_ours(self):
        assert self.dispatch.ours == len(self.every) - len(self.ended)
        assert all(len(held) <= IN_FLIGHT for held in self.workers.values())


class RunOfMembers(Run):
    """The same with members of few initial times."""

    def made(self):
        return [replace(case, member=number) for case in cases(3) for number in range(3)]


TestRun, TestRunOfMembers = Run.TestCase, RunOfMembers.TestCase
TestRunOfMembers.settings = settings(max_examples=75, stateful_step_count=40, deadline=None)
TestRun.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
