"""The benchmark of trainings, small: what it measures is really trained."""

import pytest

from graphcast_batch.bench.training_speed import TrainedNetwork, measure


@pytest.mark.slow
def test_every_length_of_rollouts_and_number_of_workers_is_measured(on_ray):
    found = {figure.name: figure for figure in measure(1, TrainedNetwork(30, 0, 4, 1), (1, 2), (1, 2)).figures}

    assert {len(figure.samples) for figure in found.values()} == {1}
    assert "2 workers / 1" in found
    assert min(found["peak memory of a worker, rollouts of 1"].samples) > 0.1  # Python and JAX take more
    ratio = found["a step of 2 / a step of 1, with its gradient"]
    steps = [found[f"a step of {n}, with its gradient"].samples for n in (1, 2)]
    assert ratio.samples == [long / short for short, long in zip(*steps, strict=True)]
