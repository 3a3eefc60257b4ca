"""A Ray of a process's own: who can reach it, and what is left of it."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from graphcast_batch.cluster import ray_folder
from graphcast_batch.cluster.ray_folder import RayFolder
from graphcast_batch.errors import ClusterError
from tests.conftest import SMALL, run_command

OWNER = """
import sys
import ray
from graphcast_batch.cluster.drain import Drain
from graphcast_batch.cluster.driver import connected

with connected(None, Drain()):
    assert ray.get(ray.remote(lambda: 6 * 7).remote()) == 42
    print(ray.get_runtime_context().gcs_address, ray._private.worker._global_node.get_temp_dir_path(), flush=True)
    sys.stdin.read()
"""
STRANGER = """
import os, pathlib, sys
import ray
from ray._private import services

address, pids, folder, home = sys.argv[1], sys.argv[2].split(), pathlib.Path(sys.argv[3]), pathlib.Path(sys.argv[4])
os.setgroups([]), os.setgid(65534), os.setuid(65534)
found = []
for file in [*(pathlib.Path(f"/proc/{pid}/environ") for pid in pids), home / ".ray" / "auth_token"]:
    try:
        found.append(file.read_bytes())
    except OSError:
        continue
print("read", len(found))
try:
    print("listed", list(folder.iterdir()))
except PermissionError:
    print("refused")
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
try:
    ray._raylet.Config.initialize("")
    ray._raylet.GcsClient(address=address).internal_kv_keys(b"", None, 5)
    print("joined")
except Exception as error:
    print("kept out", type(error).__name__)
"""


class Owner:
    """A process that has a Ray of its own, in a home that others can read and with a long TMPDIR."""

    def __init__(self, folder):
        self.home, temporary = folder / "home", folder / ("long" * 15)
        temporary.mkdir()
        self.home.mkdir(mode=0o755)
        environment = os.environ | {"HOME": str(self.home), "TMPDIR": str(temporary), "RAY_AUTH_MODE": "disabled"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER],
            env={name: value for name, value in environment.items() if name not in ("RAY_ADDRESS", "RAY_AUTH_TOKEN")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address, path = self.process.stdout.readline().split()
        self.folder = Path(path).parent

    def below(self):
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture
def owner(tmp_path):
    started = Owner(tmp_path)
    yield started
    started.process.kill()
    started.process.communicate()


def test_others_cannot_reach_a_ray_of_ones_own_and_nothing_is_left_after_it_is_killed(owner):
    assert owner.address.startswith("127.0.0.1:")
    assert len(str(owner.folder)) < 40
    assert stat.S_IMODE(owner.folder.stat().st_mode) == 0o700
    assert not (owner.home / ".ray").exists()
    processes = [psutil.Process(owner.process.pid), *owner.below()]
    listening = [each for one in processes for each in one.net_connections("inet") if each.status == "LISTEN"]
    assert listening
    assert {each.laddr.ip.removeprefix("::ffff:") for each in listening} == {"127.0.0.1"}
    assert {"gcs_server", "raylet"} <= {one.name() for one in processes}

    owner.process.send_signal(signal.SIGKILL)

    owner.process.wait()
    _, left = psutil.wait_procs(processes[1:], timeout=30)
    until = time.monotonic() + 30
    while owner.folder.exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert left == []
    assert not owner.folder.exists()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="another user's processes are started by root alone")
def test_another_user_finds_no_token_and_is_kept_out(owner):
    pids = " ".join(str(one.pid) for one in [psutil.Process(owner.process.pid), *owner.below()])
    told = subprocess.run(
        [sys.executable, "-c", STRANGER, owner.address, pids, owner.folder, owner.home],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    assert told.splitlines() == ["read 0", "refused", "kept out AuthenticationError"]


def sleeping(code):
    """A process that sleeps once it has done something."""
    words = [sys.executable, "-c", f"import time; {code}; print(flush=True); time.sleep(1000)"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


def test_who_writes_into_the_folder_ends_with_it_and_who_only_reads_stays(monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    with RayFolder() as folder:
        log, own = (Path(folder.path) / name for name in ("raylet.out", f"python-core-driver-01_{os.getpid()}.log"))
        log.parent.mkdir()
        with (
            sleeping(f"kept = open({str(log)!r}, 'w')") as ray,
            sleeping(f"kept = open({str(log)!r})") as reader,
            sleeping(f"kept = open({str(own)!r}, 'a')") as forked,
        ):
            ray.send_signal(signal.SIGSTOP)
            folder.clear()
            assert ray.wait(30) == -signal.SIGKILL
            assert (reader.poll(), forked.poll()) == (None, None)
            reader.kill()
            forked.kill()
    assert not Path(folder.path).parent.exists()


def test_what_its_owner_has_forked_does_not_hold_the_folder(monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    with RayFolder() as folder:
        writing = folder._clearing.stdin.fileno()
        with subprocess.Popen(["sleep", "1000"], pass_fds=[writing]) as forked:
            folder.clear()
            assert not Path(folder.path).parent.exists()
            forked.kill()


def test_a_machine_without_a_short_folder_is_refused_with_what_to_set(monkeypatch):
    monkeypatch.setattr(ray_folder, "_LONGEST", 5)
    with pytest.raises(ClusterError, match="set TMPDIR to a short path on a local disk"):
        RayFolder().__enter__()


@pytest.mark.slow
def test_flags_that_crash_xla_are_named_at_the_first_worker_that_dies_of_them(small_config):
    told = run_command("run", small_config(), env=os.environ | {"XLA_FLAGS": "--xla_nonsense=1"})
    assert told.returncode == 1
    assert "JAX cannot start on its node: Unknown flag in XLA_FLAGS: --xla_nonsense=1; correct or unset" in told.stderr
    assert "lack of memory" not in told.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("count", "code"), [(2, 0), (None, 1)])
def test_a_head_that_is_stopped_holds_no_run_and_nothing_of_ray_is_left(small_config, count, code):
    """Workers that are there go on without it; that there is room for more can no longer be asked."""
    times = {"first": "2020-01-01T00", "last": "2020-03-31T18" if count is None else "2020-01-03T18", "every_hours": 6}
    config = small_config(times=times, workers=SMALL["workers"] | {"count": count})
    words = [sys.executable, "-m", "graphcast_batch", "run", str(config)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        while " complete (" not in run.stdout.readline():
            assert run.poll() is None
        below = psutil.Process(run.pid).children(recursive=True)
        next(one for one in below if one.name() == "gcs_server").suspend()
        told = run.communicate(timeout=300)[0]
    assert run.returncode == code, told
    assert ("but has not answered; it is stopped, hung or out of reach" in told) == bool(code)
    assert psutil.wait_procs(below, timeout=30)[1] == []
