"""Frames stream through a worker: what it needs does not grow with the number of steps."""

import json

import pytest

from tests.conftest import SMALL


@pytest.fixture
def measure(small_config, command, tmp_path):
    def peak(steps):
        """Peak memory of the worker that made one forecast at 2.5°, and the size of its frames, bytes."""
        name = f"steps{steps}"
        config = small_config(
            name,
            inputs={"kind": "synthetic", "resolution": 2.5},
            times={"list": ["2020-01-01T00"]},
            steps=steps,
            model=SMALL["model"] | {"steps_per_call": 2},
            limits="off",  # random weights leave physics after some days
        )
        done = command("run", config)
        assert done.returncode == 0, done.stderr
        (record,) = (tmp_path / name / "ledger").rglob("2020*.json")
        frame_bytes = 83 * 73 * 144 * 4
        return json.loads(record.read_text())["details"]["peak_memory_bytes"], steps * frame_bytes

    return peak


def test_memory_levels_off_once_the_pipeline_is_full(measure):
    four, sixteen, sixty = (measure(steps) for steps in (4, 16, 60))

    print(*(f"{peak / 1e6:.0f} MB for {frames / 1e6:.0f} MB of frames" for peak, frames in (four, sixteen, sixty)))
    # Beside those of 4 steps there is room for a shard of 8 steps in place of one of 4, and for the calls under way.
    assert sixty[0] - four[0] < 0.5 * (sixty[1] - four[1])
    assert sixty[0] - sixteen[0] < 0.25 * (sixty[1] - sixteen[1])
