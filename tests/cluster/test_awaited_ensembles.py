"""Ensembles wait for all of their members, whoever makes them, and are then combined before all else."""

from dataclasses import replace

import numpy as np

from graphcast_batch.cluster.awaited_ensembles import AwaitedEnsembles
from graphcast_batch.cluster.dispatch_rules import Dispatch
from graphcast_batch.plan import Case
from graphcast_batch.stores.case_records import CaseState

TIMES = [Case(np.datetime64("2020-01-01T00", "h") + np.timedelta64(6 * n, "h"), 1, 6) for n in range(3)]


def members(case, count=2):
    return [replace(case, member=number) for number in range(count)]


def dispatch_of(cases, awaited, workers=1):
    dispatch = Dispatch(cases, retries=0, awaited=awaited)
    for number in range(workers):
        dispatch.add_worker(f"w{number}")
    return dispatch


def handed_out(dispatch):
    worker, case = dispatch.choose(0.0)
    dispatch.assign(worker, case)
    return worker, case


def test_an_ensemble_is_ready_once_its_last_member_is_complete():
    first, second, third = TIMES
    awaited = AwaitedEnsembles(TIMES, [*members(first), members(second)[1]])

    assert awaited.take_ready() == [third]
    assert awaited.take_ready() == []
    assert awaited.complete(members(first)[0]) is None
    assert awaited.complete(members(first)[0]) is None  # as if reported twice
    assert awaited.complete(members(second)[1]) == second
    assert awaited.complete(members(first)[1]) == first
    assert len(awaited) == 0


def test_a_ready_ensemble_is_handed_out_before_further_members():
    cases = [*members(TIMES[0]), *members(TIMES[1], 4)]
    dispatch = dispatch_of(cases, AwaitedEnsembles(TIMES[:2], cases))
    begun = [handed_out(dispatch) for _ in range(3)]
    for worker, case in begun[:2]:
        dispatch.complete(worker, case)

    assert handed_out(dispatch)[1] == TIMES[0]
    assert handed_out(dispatch)[1] == members(TIMES[1], 4)[1]


def test_a_member_that_another_driver_completed_counts():
    cases = members(TIMES[0])
    dispatch = dispatch_of(cases, AwaitedEnsembles(TIMES[:1], cases))
    worker, ours = handed_out(dispatch)
    _, theirs = dispatch.choose(0.0)
    dispatch.leave_to_others(theirs)
    dispatch.complete(worker, ours)
    assert dispatch.choose(0.0) is None

    dispatch.update_elsewhere({theirs.key: CaseState.COMPLETE})

    assert dispatch.ours == 1
    assert handed_out(dispatch)[1] == TIMES[0]


def test_an_ensemble_with_a_failed_member_is_never_handed_out():
    cases = members(TIMES[0])
    dispatch = dispatch_of(cases, AwaitedEnsembles(TIMES[:1], cases))
    (worker, first), (_, second) = handed_out(dispatch), handed_out(dispatch)
    dispatch.complete(worker, first)
    assert dispatch.fail(worker, second, OSError("broken"), 0.0) == 1

    assert dispatch.choose(1e9) is None
    assert not dispatch.unfinished
