"""A small run on the synthetic planet, and the command that makes it, as a user would call it."""

import os
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import yaml
from hypothesis import settings

from tests import forks
from tests.forking import SETUP_WORKER

settings.register_profile("tests", deadline=None)  # a busy machine makes no example wrong
settings.load_profile("tests")

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
    "workers": {"device": "cpu", "threads": 1, "count": 1},
}
TWO_WORKERS = {"workers": SMALL["workers"] | {"count": 2}}
"""For what one cannot show: each takes some seconds to start."""
FIGURES = {"variables": ["2m_temperature", "geopotential"], "levels": [500], "lead_hours": [12]}
"""Two for each Case of the small run."""

RAY = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(
    initialize_head=True,
    head_node_args={
        "num_cpus": 2,
        "include_dashboard": False,
        "object_store_memory": 2**28,
        "setup_worker_path": sys.argv[1],
    },
)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def pytest_addoption(parser):
    parser.addoption("--part", metavar="K/N", help="run only each N-th of the tests chosen otherwise, from the K-th on")


@pytest.hookimpl(trylast=True)  # once markers have chosen
def pytest_collection_modifyitems(config, items):
    if part := config.getoption("--part"):
        first, parts = map(int, part.split("/"))
        chosen = items[first - 1 :: parts]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keeps graphs and compiled programs of tests apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("RAY_worker_niceness", "0")  # else tests in other processes leave Ray's workers hardly any time
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


@pytest.fixture(scope="session")
def on_ray(own_cache, tmp_path_factory):
    """The environment of commands that share one Ray, whose start takes longer than most of what they do.

    It has a process of its own: Ray forks when it starts, which a process must not that has used JAX in another test.
    """
    token = tmp_path_factory.mktemp("ray") / "token"
    token.touch(0o600)
    token.write_text(secrets.token_hex(32))
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    words = [sys.executable, "-c", RAY, SETUP_WORKER]
    with forks.forking(environment) as found, subprocess.Popen(words, env=found, text=True, **pipes) as head:
        address = head.stdout.readline().strip()
        assert address, "no Ray could be started for the tests"
        yield found | {"RAY_ADDRESS": address}


@pytest.fixture(scope="session")
def run_on_ray(on_ray):
    """Runs ``graphcast-batch`` in a fork, in the folder ``cwd``, on the Ray that the tests share."""
    return partial(forks.run, env=on_ray)


def run_command(*arguments, **options):
    """Runs ``graphcast-batch`` in a process of its own, as a user does; without other environment on its own Ray."""
    words = [sys.executable, "-m", "graphcast_batch", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, **options)


@pytest.fixture
def command(tmp_path, run_on_ray):
    """Runs ``graphcast-batch`` in an empty folder, on the Ray that the tests share.

    With ``env=os.environ`` it is a process that starts its own Ray, as for a user.
    """
    (tmp_path / "cwd").mkdir()

    def call(*arguments, cwd=tmp_path / "cwd", env=None):
        return run_command(*arguments, cwd=cwd, env=env) if env else run_on_ray(*arguments, cwd=cwd)

    return call


@dataclass(frozen=True)
class Finished:
    """A small run with figures, whole; not to be changed, but to be copied.

    Attributes:
        told: how the command ended.
        store: of the run.
        trace: of the run.
    """

    told: subprocess.CompletedProcess[str]
    store: Path
    trace: Path

    def copy(self, store):
        shutil.copytree(self.store, store)


@pytest.fixture(scope="session")
def finished(own_cache, tmp_path_factory):
    """Made once, by the command with a Ray of its own."""
    folder = tmp_path_factory.mktemp("finished")
    store, config, trace = folder / "run", folder / "run.yaml", folder / "trace.json"
    config.write_text(yaml.safe_dump(SMALL | TWO_WORKERS | {"store": str(store), "figures": FIGURES}))
    return Finished(run_command("run", config, "--trace", trace, cwd=folder), store, trace)
