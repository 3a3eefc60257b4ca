import pytest

from graphcast_batch.bench.scoring_speed import measure


@pytest.mark.slow
def test_scoring_is_measured_beside_reading_and_agrees_with_the_library(tmp_path):
    pytest.importorskip("scores")
    result = measure(tmp_path, rounds=1, resolution=15.0, steps=9, cases=2)

    found = {figure.name: figure for figure in result.figures}
    assert found["largest relative difference from it"].median < 1e-6
    assert all(len(found[f"time to {name}"].samples) == 1 for name in ("score", "read and sum"))
    assert not list(tmp_path.iterdir())
