"""A small run on the synthetic planet, and the command that makes it, as a user would call it."""

import fcntl
import os
import pickle
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from hypothesis import settings
from packaging.version import Version

from tests import forks, parts
from tests.forking import SETUP_WORKER

settings.register_profile("tests", deadline=None)  # a busy machine makes no example wrong
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tests"))

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

PLAIN_EMITTERS = (
    {"xla_cpu_use_fusion_emitters": "False", "xla_cpu_parallel_codegen_split_count": "1"}
    if Version(version("jax")) < Version("0.11")
    else {}
)
"""With jax 0.10 these compile a gradient in a third of the time; jax 0.11 does not know the first."""
_UNOPTIMIZED = {"xla_backend_optimization_level": "0", "xla_llvm_disable_expensive_passes": "True"}
HASTY = " ".join(f"--{name}={value}" for name, value in (_UNOPTIMIZED | PLAIN_EMITTERS).items())
"""Options of XLA for programs that take longer to compile than to run; see `tests.models.conftest.hasty`."""
RAY = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(
    initialize_head=True,
    head_node_args={
        "num_cpus": 2,
        "include_dashboard": False,
        "include_log_monitor": False,
        "no_monitor": True,
        "object_store_memory": 2**28,
        "setup_worker_path": sys.argv[1],
    },
)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


PART = pytest.StashKey[list[str]]()
"""The tests of a part."""


def pytest_addoption(parser):
    parser.addoption("--part", metavar="K/N", help="run an N-th of the tests chosen otherwise, another for each K")


@pytest.hookimpl(trylast=True)  # once markers have chosen
def pytest_collection_modifyitems(config, items):
    if part := config.getoption("--part"):
        kept = parts.chosen(items, part)
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = kept
        config.stash[PART] = [item.nodeid for item in kept]


def pytest_terminal_summary(terminalreporter, config):
    """Name the tests of a part that there was no time for."""
    reports = [report for several in terminalreporter.stats.values() for report in several]
    tried = {getattr(report, "nodeid", "") for report in reports}
    for name in () if config.option.collectonly else config.stash.get(PART, ()):
        if name not in tried:
            terminalreporter.line(f"NOT TRIED {name}")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """Return a folder that all processes of this test run share."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(shared_folder):
    """Keep graphs and compiled programs apart from the user's; all processes of the test run share them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(shared_folder / "cache"))
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
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "XLA_FLAGS": HASTY}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    words = [sys.executable, "-c", RAY, SETUP_WORKER]
    with forks.forking(environment) as found, subprocess.Popen(words, env=found, text=True, **pipes) as head:
        address = head.stdout.readline().strip()
        assert address, "no Ray could be started for the tests"
        yield found | {"RAY_ADDRESS": address}


@pytest.fixture(scope="session")
def begin_on_ray(on_ray):
    """Start ``graphcast-batch`` in a fork, in the folder ``cwd``, on the Ray that the tests share.

    ``also`` are further variables of its environment. With ``kind="python"`` the arguments are code and its arguments.
    """

    def begin(*arguments, cwd, also=None, kind="command"):
        return forks.Fork(*arguments, cwd=cwd, env=on_ray | (also or {}), kind=kind)

    return begin


@pytest.fixture(scope="session")
def run_on_ray(begin_on_ray):
    """Run a command to its end; see `begin_on_ray`."""
    return lambda *arguments, **options: begin_on_ray(*arguments, **options).end()


def run_command(*arguments, **options):
    """Runs ``graphcast-batch`` in a process of its own, as a user does; without other environment on its own Ray."""
    words = [sys.executable, "-m", "graphcast_batch", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, **options)


@pytest.fixture
def command(tmp_path, run_on_ray):
    """Run ``graphcast-batch`` in an empty folder, in a fork, on the Ray that the tests share.

    With ``env`` it is a new process in that environment; with ``env=os.environ`` it starts its own Ray, as for a user.
    """
    (tmp_path / "cwd").mkdir()

    def call(*arguments, cwd=tmp_path / "cwd", env=None, also=None):
        return run_command(*arguments, cwd=cwd, env=env) if env else run_on_ray(*arguments, cwd=cwd, also=also)

    return call


def made_once(folder, make):
    """Return what a function returns that fills a folder, called only in the first process that needs the folder."""
    returned = folder.with_suffix(".pickle")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not returned.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            returned.write_bytes(pickle.dumps(make(folder)))
        return pickle.loads(returned.read_bytes())


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
def finished(run_on_ray, shared_folder):
    """Make the run once, by the command."""

    def make(folder):
        store, config, trace = folder / "run", folder / "run.yaml", folder / "trace.json"
        config.write_text(yaml.safe_dump(SMALL | TWO_WORKERS | {"store": str(store), "figures": FIGURES}))
        return Finished(run_on_ray("run", config, "--trace", trace, cwd=folder), store, trace)

    return made_once(shared_folder / "finished", make)
