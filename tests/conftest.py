"""A small run on the synthetic planet, and the command that makes it, as a user would call it."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SMALL = {
    "inputs": {"kind": "synthetic", "resolution": 15},
    "times": {"first": "2020-01-01T00", "last": "2020-01-01T18", "every_hours": 6},
    "steps": 3,
    "model": {
        "weights": {
            "kind": "random",
            "architecture": {"mesh_size": 1, "latent_size": 8, "gnn_msg_steps": 1},
            "task": "GraphCast_small",
        },
        "statistics": str(ROOT / "stats" / "synthetic"),
    },
    "workers": {"device": "cpu", "threads": 1, "count": 2},
}


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keeps graphs and compiled programs of tests apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def small_config(tmp_path):
    """Writes a config; sections may be replaced."""

    def write(name="run", **changes):
        content = SMALL | {"store": str(tmp_path / name)} | changes
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
        return path

    return write


@pytest.fixture
def command(tmp_path):
    """Runs ``graphcast-batch`` in a process of its own, in an empty folder."""
    (tmp_path / "cwd").mkdir()

    def call(*arguments, **options):
        words = [sys.executable, "-m", "graphcast_batch", *map(str, arguments)]
        return subprocess.run(
            words, capture_output=True, text=True, cwd=tmp_path / "cwd", timeout=300, check=False, **options
        )

    return call
