"""Copies of the launcher on this machine, as torchrun would start them on two nodes."""

import os
import signal
import stat
import subprocess
import sys
import time

import psutil
import pytest

from graphcast_batch.cluster.slurm.allocation import Allocation
from graphcast_batch.cluster.slurm.launch import launch
from graphcast_batch.cluster.slurm.rendezvous import Rendezvous
from graphcast_batch.errors import ClusterError

ASK = """
import os, pathlib, ray, stat, sys, time
ray.init(logging_level="ERROR")
print("nodes", sum(node["Alive"] for node in ray.nodes()), "cpus", ray.cluster_resources()["CPU"])
print("token", oct(stat.S_IMODE(os.stat(os.environ["RAY_AUTH_TOKEN_PATH"]).st_mode)), flush=True)
drain = pathlib.Path(os.environ["GRAPHCAST_BATCH_DRAIN"])
while "wait" in sys.argv and not drain.exists():
    (drain.parent.parent / "waits").touch()
    time.sleep(0.1)
print("drained" if drain.exists() else "done", ray.get(ray.remote(lambda: 6 * 7).remote()))
sys.exit(75 if drain.exists() else 3)
"""


class Copies:
    """Two copies of the launcher, which run `ASK`."""

    def __init__(self, folder, *arguments):
        self.folder = folder
        self.local = folder / "tmp"
        self.local.mkdir()
        command = [sys.executable, "-m", "graphcast_batch", "launch", "--folder", str(folder / "meet"), "--"]
        common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "TMPDIR": "/tmp"}
        self.processes = [
            subprocess.Popen(
                [*command, sys.executable, "-c", ASK, *arguments],
                env={**os.environ, **common, "RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in (0, 1)
        ]

    def below(self):
        """All processes that they have started."""
        return [each for process in self.processes for each in psutil.Process(process.pid).children(recursive=True)]

    def end(self):
        told = [process.communicate(timeout=120)[0] for process in self.processes]
        return told, [process.returncode for process in self.processes]


@pytest.fixture
def copies(tmp_path):
    started = []

    def start(*arguments):
        started.append(Copies(tmp_path, *arguments))
        return started[-1]

    yield start
    for each in started:
        for process in each.processes:
            if process.poll() is None:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()


@pytest.mark.slow
def test_a_command_runs_on_the_nodes_of_all_copies_and_nothing_is_left(copies):
    both = copies()
    seen = {}
    while any(process.poll() is None for process in both.processes):
        for process in both.processes:
            if process.poll() is None:
                seen |= {each.pid: each for each in psutil.Process(process.pid).children(recursive=True)}
        time.sleep(0.2)
    told, codes = both.end()
    assert codes == [3, 0]
    assert f"nodes 2 cpus {2.0 * len(os.sched_getaffinity(0))}" in told[0]
    assert "token 0o600" in told[0]
    assert "done 42" in told[0]
    assert "2 of 2 nodes are there" in told[0]
    left = [each for each in seen.values() if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    assert left == []
    assert not (both.folder / "meet" / "token").exists()
    assert stat.S_IMODE((both.folder / "meet").stat().st_mode) == 0o700


@pytest.mark.slow
def test_a_signal_to_all_processes_drains_the_command_and_spares_ray(copies):
    """As Slurm sends it when it preempts a job; Ray still works afterwards."""
    both = copies("wait")
    while not (both.folder / "waits").exists():
        assert both.processes[0].poll() is None, both.end()
        time.sleep(0.2)
    command = [each for each in both.below() if ASK in each.cmdline()]
    for process in [*both.below(), *(psutil.Process(process.pid) for process in both.processes)]:
        if process not in command:
            process.send_signal(signal.SIGTERM)
    told, codes = both.end()
    assert codes == [75, 0], told
    assert "drained 42" in told[0]


def quiet(_text):
    pass


def test_a_folder_that_was_used_before_is_refused(tmp_path):
    Rendezvous(tmp_path).open()
    with pytest.raises(ClusterError, match=r"must meet in a new folder on a shared disk, .*File exists.*--folder"):
        launch(["true"], tmp_path, Allocation(), quiet, wait_seconds=1, without_missing=False)


def test_a_copy_that_sees_no_address_asks_for_a_shared_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("graphcast_batch.cluster.slurm.launch.HEAD_SECONDS", 0.1)
    with pytest.raises(ClusterError, match="is the folder on a disk that all nodes share"):
        launch(["true"], tmp_path, Allocation(size=2, rank=1), quiet, wait_seconds=0.1, without_missing=False)


def test_a_node_without_a_short_local_folder_is_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr("graphcast_batch.cluster.ray_folder._LONGEST", 5)
    with pytest.raises(ClusterError, match=r"a path of at most 5 ASCII characters, .*set TMPDIR to a short path"):
        launch(["true"], tmp_path / "meet", Allocation(), quiet, wait_seconds=1, without_missing=False)
    assert (tmp_path / "meet" / "done").read_text() == "1"
