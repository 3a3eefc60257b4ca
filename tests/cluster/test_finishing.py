"""What a run that was asked to stop still does, and for how long."""

import math

import numpy as np
import pytest

from graphcast_batch.cluster.finishing import WorkerPace, finishing
from graphcast_batch.plan import Case

CASES = [Case(np.datetime64("2020-01-01T00") + 6 * n, 40, 6) for n in range(6)]


def test_the_time_left_is_that_of_the_slowest_worker_for_all_its_cases():
    fast = WorkerPace(1000.0, made=40, steps={CASES[0].key: 20})  # 60 steps in 600 s, 20 are left
    slow = WorkerPace(1300.0, steps={CASES[1].key: 10})  # 10 steps in 300 s, 30 and 40 are left

    assert fast.seconds_left([CASES[0]], 1600.0) == 200
    assert slow.seconds_left([CASES[1], CASES[2]], 1600.0) == 2100
    assert finishing([(fast, [CASES[0]]), (slow, CASES[1:3]), (WorkerPace(), [])], 1600.0, math.inf) == (
        "no other Case is begun, and 3 in progress are finished, which takes 0:35:00 at most: 2020-01-01T00 (20 of 40 "
        "steps), 2020-01-01T06 (10 of 40 steps), 2020-01-01T12 (0 of 40 steps)"
    )


@pytest.mark.parametrize(("ends_in", "takes"), [(math.inf, "for how long is not known"), (90, "which takes 0:01:30")])
def test_before_the_first_step_only_the_end_of_the_job_bounds_it(ends_in, takes):
    assert takes in finishing([(WorkerPace(1000.0), CASES[:1])], 1600.0, ends_in)


def test_few_of_many_cases_are_named_and_none_if_there_is_none():
    assert finishing([(WorkerPace(1000.0), CASES)], 1600.0, 60).endswith("T18 (0 of 40 steps) and 2 more")
    assert finishing([(WorkerPace(), [])], 0.0, math.inf) == "no Case is in progress, and none is begun"
