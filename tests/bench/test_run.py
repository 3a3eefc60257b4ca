"""The benchmark of whole runs, small: what it measures is really made, and nothing is left behind."""

import pytest

from graphcast_batch.bench import stage_overlap


@pytest.mark.parametrize("bound", ["read", "compute", "write"])
def test_stages_overlap_and_the_store_is_removed(tmp_path, bound):
    ratio = stage_overlap.overlap(tmp_path, bound, 3, resolution=30)

    assert ratio >= 1  # a run cannot be shorter than one of its stages
    assert list(tmp_path.iterdir()) == []


def test_what_sleeps_is_as_busy_as_it_was_told(tmp_path):
    found = stage_overlap._balance(tmp_path, 3, 0.01, 0.1, 30)

    assert set(found.busy) == {"read", "compute", "check", "write", "commit"}
    assert found.busy["read"] >= 3 * 0.01
    # The device's clock runs from when a call is asked for: on busy cores the host begins to wait for it later.
    assert found.busy["compute"] >= 3 * 0.1 / 2
