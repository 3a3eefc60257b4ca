"""Run Ray on a node with the resources that the scheduler gave, and end it with the process that started it."""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil

from graphcast_batch.cluster.drain import DRAIN_VARIABLE
from graphcast_batch.cluster.ray_folder import RayFolder
from graphcast_batch.cluster.slurm.addresses import LOOPBACK, own_address
from graphcast_batch.cluster.slurm.allocation import Allocation
from graphcast_batch.cluster.slurm.rendezvous import SIGNALS, Asked, Rendezvous
from graphcast_batch.errors import ClusterError

HEAD_SECONDS: Final = 120.0
"""How long Ray's head may take to start on a busy node."""
HEAD_OPTIONS: Final = ("--head", "--port=0", "--dashboard-agent-listen-port=0", "--include-dashboard=false")
POLL_SECONDS: Final = 0.2
_OBJECT_STORE_BYTES: Final = 2**29
"""Size of Ray's object store, which holds only small records."""
_LEAST_STORE_BYTES: Final = 80 * 2**20
"""The smallest object store that Ray accepts."""
_SUBREAPER: Final = 36
"""PR_SET_CHILD_SUBREAPER of prctl(2)."""


_ALONE: Final = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Without it Ray replaces a loopback address by that of the default route (ray 2.60, services.get_node_ip_address)."""


class RayNode:
    """Ray's processes on this node; they end with the context, and no other Ray on the node is touched.

    Args:
        options: further options of ``ray start``.
        here: the job and the resources of this node.
        meeting: the folder with the cluster's token, which also receives Ray's output.
        head: HOST:PORT of the cluster that this node joins; empty on the node that runs the head.

    Raises:
        ClusterError: this node has no address that others can reach.
    """

    def __init__(self, options: Sequence[str], here: Allocation, meeting: Rendezvous, head: str = "") -> None:
        address = own_address(here, head)
        self._options = [*options, *_resources(here), *([f"--node-ip-address={address}"] if address else [])]
        self._log = meeting.folder / f"ray-{here.rank}.log"
        self.environment = _environment(meeting) | (_ALONE if address == LOOPBACK else {})

    def __enter__(self) -> "RayNode":
        # Ray's daemons outlive the processes that started them; this process adopts them, and so can find them.
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
        self._folder = RayFolder()
        self.folder = self._folder.__enter__().path
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--temp-dir", self.folder]
        with self._log.open("ab") as log, _signals_blocked():
            self._process = subprocess.Popen(
                [*command, *self._options], env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.clear()
        # They leave their parent's session, and it does not always end them, but they stay descendants of this process.
        _kill(psutil.Process().children(recursive=True))
        self._process.wait()

    @property
    def ended(self) -> bool:
        """Whether Ray has ended on this node: when one of its processes ends, all do."""
        return self._process.poll() is not None

    def address(self, asked: Asked) -> str:
        """Wait for the head on this node; return its HOST:PORT, or an empty string if a signal came first.

        Raises:
            ClusterError: the head did not start.
        """
        file = Path(self.folder) / "ray_current_cluster"
        until = time.monotonic() + HEAD_SECONDS
        while not file.exists() or not file.read_text(encoding="utf-8").strip():
            if asked.stop:
                return ""
            if self.ended or time.monotonic() > until:
                raise ClusterError(
                    f"Ray's head on {socket.gethostname()} must be up within {HEAD_SECONDS:.0f} s, but is not; the "
                    f"end of its output:\n{self.last_words}"
                )
            time.sleep(POLL_SECONDS)
        return file.read_text(encoding="utf-8").strip()

    @property
    def last_words(self) -> str:
        """The last lines that ``ray start`` printed."""
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:])


def label(rank: int) -> str:
    """Return the name of the resource that identifies a node in the cluster."""
    return f"graphcast-batch-rank-{rank}"


def _resources(here: Allocation) -> list[str]:
    """Return options that limit Ray to what the scheduler gave; by itself Ray uses the whole node."""
    room = shutil.disk_usage("/dev/shm").free // 2
    options = [
        f"--num-cpus={here.cpus or len(os.sched_getaffinity(0))}",
        f"--object-store-memory={max(_LEAST_STORE_BYTES, min(_OBJECT_STORE_BYTES, room))}",
        f"--resources={json.dumps({label(here.rank): 1})}",
        "--min-worker-port=0",
        "--max-worker-port=0",
    ]
    if here.scheduler == "slurm" or here.gpus is not None:
        options.append(f"--num-gpus={here.gpus or 0}")
    return options


def _environment(meeting: Rendezvous) -> dict[str, str]:
    own = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(meeting.token),
        "RAY_USAGE_STATS_ENABLED": "0",
        # The monitor looks at the memory of the whole node, and would kill workers for what other jobs take.
        "RAY_memory_monitor_refresh_ms": "0",
        DRAIN_VARIABLE: str(meeting.drain),
    }
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | own


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Let processes that are started within ignore the signals to stop, which Slurm also sends to Ray's daemons."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)
