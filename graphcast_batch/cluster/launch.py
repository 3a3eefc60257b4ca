"""Copies of this program, one on each node of an allocation, become a Ray cluster on which the first runs a command.

They meet in a folder on a shared disk. Why not ``ray symmetric-run`` (ray 2.60): it ends with ``ray stop``, which kills
every Ray of the user on the node, it refuses to run beside another, and it loses the command's exit code.
"""

import ctypes
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

import psutil

from graphcast_batch.cluster.allocation import Allocation
from graphcast_batch.cluster.drain import DRAIN_VARIABLE, WORK_LEFT
from graphcast_batch.errors import ClusterError

_POLL_SECONDS: Final = 0.2
_HEAD_SECONDS: Final = 120.0
"""How long Ray's head may take on a busy node."""
_MOST_JOINS: Final = 3
"""How often a node starts its part of Ray before it gives up."""
_OBJECT_STORE_BYTES: Final = 2**29
"""Nothing large passes through it."""
_LEAST_STORE_BYTES: Final = 80 * 2**20
"""Ray takes no less."""
_LONGEST_FOLDER: Final = 40
"""Characters of Ray's folder: its sockets below add 64, and Linux's limit is 107 (unix(7))."""
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_SUBREAPER: Final = 36
"""PR_SET_CHILD_SUBREAPER of prctl(2)."""
_RANK: Final = "graphcast-batch-rank-"


@dataclass(frozen=True)
class Meeting:
    """A folder on a shared disk where the nodes of one cluster meet.

    Whoever can read it can join the cluster and run code in it, so that only its owner may.
    """

    folder: Path

    def open(self) -> None:
        """Makes the folder, with a fresh token.

        Raises:
            ClusterError: it cannot be made, or has been used before.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise ClusterError(
                f"the nodes of a cluster must meet in a new folder on a shared disk, but {self.folder} cannot be it "
                f"({error}); name another with --folder"
            ) from error
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))

    def put(self, name: str, text: str) -> None:
        """Makes something known to all nodes."""
        draft = self.folder / f".{name}"
        draft.write_text(text, encoding="utf-8")
        draft.rename(self.folder / name)

    def get(self, name: str) -> str | None:
        """What was made known; None if nothing was yet."""
        try:
            # NFS believes for a while that a file is still missing that it looked for before; a listing is asked anew.
            return (self.folder / name).read_text(encoding="utf-8") if name in os.listdir(self.folder) else None
        except FileNotFoundError:
            return None

    @property
    def token(self) -> Path:
        """The file that lets one into the cluster."""
        return self.folder / "token"

    @property
    def drain(self) -> Path:
        """The file whose appearance asks the command to stop."""
        return self.folder / "drain"


@dataclass
class Asked:
    """Whether a signal asked to stop; the command is asked through the drain file, as it may have had the same signal.

    Slurm signals all processes of a step at once, and a second signal would interrupt the command.
    """

    meeting: Meeting
    stop: bool = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Takes signals for as long as the context lasts."""
        before = self.listen()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def listen(self) -> dict[signal.Signals, Any]:
        """Takes signals, from whoever has taken them since; returns what was there before."""
        return {number: signal.signal(number, self._ask) for number in _SIGNALS}

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.stop = True
        with suppress(OSError):
            self.meeting.drain.touch()


class RayNode:
    """Ray's processes on this node; they end with the context, and no other Ray on the node is touched.

    Args:
        options: of ``ray start``.
        here: what of the node they may use.
        meeting: where the cluster's token is, and what they print goes.
    """

    def __init__(self, options: Sequence[str], here: Allocation, meeting: Meeting) -> None:
        self._options = [*options, *_resources(here)]
        self._told = meeting.folder / f"ray-{here.rank}.log"
        self.environment = _environment(meeting)

    def __enter__(self) -> "RayNode":
        self.folder = _local_folder()
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--temp-dir", self.folder]
        with self._told.open("ab") as told, _signals_blocked():
            self._process = subprocess.Popen(
                [*command, *self._options], env=self.environment, stdin=subprocess.DEVNULL, stdout=told, stderr=told
            )
        return self

    def __exit__(self, *_: object) -> None:
        # They leave the session of their parent, and their parent does not always end them, but they stay below here.
        _kill(psutil.Process().children(recursive=True))
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def ended(self) -> bool:
        """Whether one of its processes has ended, upon which all do."""
        return self._process.poll() is not None

    def address(self, asked: Asked) -> str:
        """Where the cluster is that this node heads, once it is there; empty if a signal came first.

        Raises:
            ClusterError: it did not start.
        """
        file = Path(self.folder) / "ray_current_cluster"
        until = time.monotonic() + _HEAD_SECONDS
        while not file.exists() or not file.read_text(encoding="utf-8").strip():
            if asked.stop:
                return ""
            if self.ended or time.monotonic() > until:
                raise ClusterError(
                    f"Ray's head on {socket.gethostname()} must be up within {_HEAD_SECONDS:.0f} s, but is not; what "
                    f"it said last:\n{self.last_words}"
                )
            time.sleep(_POLL_SECONDS)
        return file.read_text(encoding="utf-8").strip()

    @property
    def last_words(self) -> str:
        """The end of what ``ray start`` printed."""
        return "\n".join(self._told.read_text(encoding="utf-8", errors="replace").splitlines()[-12:])


def launch(
    command: Sequence[str],
    folder: Path,
    here: Allocation,
    tell: Callable[[str], None],
    *,
    wait_seconds: float,
    without_missing: bool,
) -> int:
    """Brings up a Ray cluster together with the copies on the other nodes; the first runs the command on it.

    Args:
        command: to run, with RAY_ADDRESS, the token, and a drain file in its environment.
        folder: on a shared disk, the same for all copies and for nobody else.
        here: what the scheduler gave, and which of the copies this is.
        tell: is told how it goes, a line at a time.
        wait_seconds: how long to wait for the other nodes.
        without_missing: whether to go on without nodes that have not joined by then.

    Returns:
        on the first node the command's exit code, 75 if it was ended by a signal; on others 0.

    Raises:
        ClusterError: the cluster does not come up, or a node is missing.
    """
    # Ray's daemons outlive those who started them; they become children of this process, and so can be found.
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    meeting = Meeting(folder.absolute())
    asked = Asked(meeting)
    with asked.listening():
        if here.rank:
            return _follow(meeting, here, tell, asked, wait_seconds)
        meeting.open()
        code = 1
        try:
            code = _lead(command, meeting, here, tell, asked, wait_seconds, without_missing=without_missing)
        finally:
            meeting.put("done", str(code))
            meeting.token.unlink(missing_ok=True)
        return code


def _lead(
    command: Sequence[str],
    meeting: Meeting,
    here: Allocation,
    tell: Callable[[str], None],
    asked: Asked,
    wait_seconds: float,
    *,
    without_missing: bool,
) -> int:
    start = time.perf_counter()
    head = ["--head", "--port=0", f"--ray-client-server-port={_free_port()}", "--dashboard-agent-listen-port=0"]
    with RayNode([*head, "--include-dashboard=false"], here, meeting) as node:
        address = node.address(asked)
        if asked.stop:
            return WORK_LEFT
        meeting.put("address", address)
        tell(f"{time.perf_counter() - start:.1f} s: Ray's head is up on {socket.gethostname()} at {address}")
        missing = _missing(address, node, here, asked, wait_seconds)
        if asked.stop:
            return WORK_LEFT
        if missing:
            names = ", ".join(here.nodes[rank] if here.nodes else f"number {rank}" for rank in missing)
            text = f"{len(missing)} of {here.size} nodes have not joined Ray within {wait_seconds:.0f} s: {names}"
            if not without_missing:
                raise ClusterError(
                    f"{text}; look into {meeting.folder}/ray-*.log, wait longer with --wait, or go on without "
                    "them with --without-missing"
                )
            tell(f"{text}; going on without them")
        tell(f"{time.perf_counter() - start:.1f} s: {here.size - len(missing)} of {here.size} nodes are there")
        return _run(command, node.environment | {"RAY_ADDRESS": address}, asked)


def _missing(address: str, node: RayNode, here: Allocation, asked: Asked, wait_seconds: float) -> list[int]:
    """Ranks that have not joined after some time, or when a signal comes."""
    if here.size == 1:
        return []
    with _as_environment(node.environment):
        import ray  # which reads the environment when it is imported

        with suppress(SystemExit):  # how Ray itself answers a SIGTERM while it starts
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    asked.stop = asked.stop or not ray.is_initialized()
    asked.listen()  # Ray has taken SIGTERM, and gives it to nobody at its end
    try:
        until = time.monotonic() + wait_seconds
        missing = list(range(here.size))
        while missing and not asked.stop and time.monotonic() <= until:
            time.sleep(_POLL_SECONDS)
            alive: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call] # Ray leaves it without types
            there = {name for known in alive if known["Alive"] for name in known["Resources"]}
            missing = [rank for rank in missing if f"{_RANK}{rank}" not in there]
        return missing
    finally:
        ray.shutdown()
        asked.listen()


def _run(command: Sequence[str], environment: Mapping[str, str], asked: Asked) -> int:
    try:
        process = subprocess.Popen(command, env=environment)
    except OSError as error:
        raise ClusterError(f"{command[0]} was to be run on the cluster, but cannot be: {error}") from error
    code = process.wait()
    code = code if code >= 0 else 128 - code
    # Whatever signal ended it, its work is as far as the ledger says, and another start takes it up.
    return WORK_LEFT if asked.stop and code > 128 else code


def _follow(meeting: Meeting, here: Allocation, tell: Callable[[str], None], asked: Asked, wait_seconds: float) -> int:
    """Lends this node to the cluster until the command has ended."""
    address, until = None, time.monotonic() + _HEAD_SECONDS + wait_seconds
    while address is None:
        if meeting.get("done") is not None or asked.stop:
            return 0
        if time.monotonic() > until:
            raise ClusterError(
                f"the first node must make its address known in {meeting.folder}, but {socket.gethostname()} has seen "
                "none; is the folder on a disk that all nodes share?"
            )
        address = meeting.get("address")
        time.sleep(_POLL_SECONDS)
    for _ in range(_MOST_JOINS):
        with RayNode([f"--address={address}"], here, meeting) as node:
            while not node.ended:
                if meeting.get("done") is not None:
                    return 0
                time.sleep(_POLL_SECONDS)
            words = node.last_words
        tell(f"Ray has ended on {socket.gethostname()}, and is started again")
    raise ClusterError(f"Ray on {socket.gethostname()} ended {_MOST_JOINS} times; what it said last:\n{words}")


def _resources(here: Allocation) -> list[str]:
    """What Ray may hand out; by itself it takes the whole node, whatever the scheduler gave."""
    room = shutil.disk_usage("/dev/shm").free // 2
    options = [
        f"--num-cpus={here.cpus or len(os.sched_getaffinity(0))}",
        f"--object-store-memory={max(_LEAST_STORE_BYTES, min(_OBJECT_STORE_BYTES, room))}",
        f"--resources={json.dumps({f'{_RANK}{here.rank}': 1})}",
        "--min-worker-port=0",
        "--max-worker-port=0",
    ]
    if here.scheduler == "slurm" or here.gpus is not None:
        options.append(f"--num-gpus={here.gpus or 0}")
    return options


def _environment(meeting: Meeting) -> dict[str, str]:
    own = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(meeting.token),
        "RAY_USAGE_STATS_ENABLED": "0",
        # It looks at the memory of the whole node, and would kill workers for what other jobs take.
        "RAY_memory_monitor_refresh_ms": "0",
        DRAIN_VARIABLE: str(meeting.drain),
    }
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | own


@contextmanager
def _as_environment(environment: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Processes started within never get the signals that ask to stop: Slurm sends them to Ray's daemons as well."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _local_folder() -> str:
    """A new folder of this node's own for Ray's sockets and logs.

    Raises:
        ClusterError: none can be made, or only such with too long a path.
    """
    for parent in (tempfile.gettempdir(), "/tmp", "/dev/shm"):
        with suppress(OSError):
            folder = tempfile.mkdtemp(prefix="gb-", dir=parent)
            if len(folder) <= _LONGEST_FOLDER:
                return folder
            os.rmdir(folder)
    raise ClusterError(
        f"Ray needs a folder on {socket.gethostname()} that can be written and has a path of at most {_LONGEST_FOLDER} "
        "characters, but neither TMPDIR nor /tmp nor /dev/shm is one; set TMPDIR to a short path on a local disk"
    )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)
