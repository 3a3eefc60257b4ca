"""The benchmark of the driver, small: every Case is really handed out, and nothing is left behind."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from graphcast_batch.bench import dispatch_rate


@pytest.mark.slow
def test_hand_outs_are_no_faster_than_cases_sleep_and_each_part_of_the_driver_takes_its_time(tmp_path):
    # Ray forks when it starts, which a process must not that has used JAX in another test.
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        result = process.submit(dispatch_rate.measure, tmp_path, workers=(8,), cases=(100,)).result()
    found = {figure.name: figure for figure in result.figures}

    assert not list(tmp_path.iterdir())
    fastest = 8 * dispatch_rate.IN_FLIGHT / dispatch_rate._SLEEP_SECONDS
    assert 0 < found["hand-outs, 8 workers, 100 Cases"].median < fastest
    assert found["processor, 8 workers, 100 Cases"].median > 0
    for part in ("lease", "release", "choose", "send", "wait", "get", "journal"):
        assert found[f"{part}, 8 workers, under the profiler"].median > 0, part


def test_each_curve_goes_through_the_goal():
    points = dispatch_rate.curves((1, 64, 256), (1_000, 10_000, 100_000))
    assert points == [(64, 1_000), (1, 10_000), (64, 10_000), (256, 10_000), (64, 100_000)]


def test_the_goal_is_told_at_its_own_point_alone():
    points = [dispatch_rate._Point(workers, 10_000, 1.0, 0.0, 0.0, 0) for workers in (8, 64)]
    assert [point.figures[0].goal for point in points] == ["", "300 at least"]
