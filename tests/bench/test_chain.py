"""Every command is measured, in processes of their own."""

import pytest

from graphcast_batch.bench.command_chain import measure


@pytest.mark.slow
def test_every_command_is_measured_and_nothing_is_left(tmp_path):
    result = measure(tmp_path / "disk", "tiny", "float32", cases=1, steps=1)

    found = {figure.name: figure.median for figure in result.figures}
    for name in ("archive", "check", "plan", "run", "status", "figures", "evaluate", "climatology", "report", "stats"):
        assert found[f"{name}, wall"] > 0
        assert found[f"{name}, processor"] > 0
        assert found[f"{name}, memory of all processes"] >= found[f"{name}, memory of the driver"] > 0.05
    # The worker with JAX beside the driver and Ray's own processes.
    assert found["run, memory of all processes"] > found["run, memory of another process"] > 0.1
    assert found["the store"] > 0
    assert not list((tmp_path / "disk").iterdir())
