"""Start a Ray cluster over the nodes of a job, and run a command on it.

A copy of this program runs on each node; the copies meet in a folder on a shared disk. Why not ``ray symmetric-run``
(ray 2.60): it ends with ``ray stop``, which kills every Ray of the user on the node, it refuses to run beside another,
and it loses the command's exit code.
"""

import logging
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from graphcast_batch.cluster.drain import WORK_LEFT, overheard
from graphcast_batch.cluster.reach import ANSWER_SECONDS, within
from graphcast_batch.cluster.slurm.allocation import Allocation
from graphcast_batch.cluster.slurm.ray_node import HEAD_OPTIONS, HEAD_SECONDS, POLL_SECONDS, RayNode, label
from graphcast_batch.cluster.slurm.rendezvous import Asked, Rendezvous
from graphcast_batch.errors import ClusterError

_MOST_JOINS: Final = 3
"""How often a node starts Ray before it gives up."""


def launch(
    command: Sequence[str],
    folder: Path,
    here: Allocation,
    report: Callable[[str], None],
    *,
    wait_seconds: float,
    without_missing: bool,
) -> int:
    """Start a Ray cluster together with the copies on the other nodes; the first node runs the command on it.

    Args:
        command: words of the command, which gets RAY_ADDRESS, the token and a drain file in its environment.
        folder: folder on a shared disk, the same for all copies and for no other job.
        here: the job and this node's place in it.
        report: called with each line of progress.
        wait_seconds: how long to wait for the other nodes.
        without_missing: whether to go on without nodes that have not joined by then.

    Returns:
        on the first node the command's exit code, 75 if it was ended by a signal; on others 0.

    Raises:
        ClusterError: the cluster does not come up, or a node is missing.
    """
    meeting = Rendezvous(folder.absolute())
    asked = Asked(meeting)
    with asked.listening():
        if here.rank:
            return _follow(meeting, here, report, asked, wait_seconds)
        meeting.open()
        code = 1
        try:
            code = _lead(command, meeting, here, report, asked, wait_seconds, without_missing=without_missing)
        finally:
            meeting.put("done", str(code))
            meeting.token.unlink(missing_ok=True)
        return code


def _lead(
    command: Sequence[str],
    meeting: Rendezvous,
    here: Allocation,
    report: Callable[[str], None],
    asked: Asked,
    wait_seconds: float,
    *,
    without_missing: bool,
) -> int:
    start = time.perf_counter()
    with RayNode([*HEAD_OPTIONS, *_client_options()], here, meeting) as node:
        address = node.address(asked)
        if asked.stop:
            return WORK_LEFT
        meeting.put("address", address)
        report(f"{time.perf_counter() - start:.1f} s: Ray's head is up on {socket.gethostname()} at {address}")
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
            report(f"{text}; going on without them")
        report(f"{time.perf_counter() - start:.1f} s: {here.size - len(missing)} of {here.size} nodes are there")
        return _run(command, node.environment | {"RAY_ADDRESS": address}, asked)


def _missing(address: str, node: RayNode, here: Allocation, asked: Asked, wait_seconds: float) -> list[int]:
    """Return the ranks of nodes that have not joined after some time, or when a signal comes."""
    if here.size == 1:
        return []
    with _as_environment(node.environment):
        import ray  # which reads the environment when it is imported

        # How Ray itself answers a SIGTERM while it starts; it keeps the signal also at its end.
        try:
            with suppress(SystemExit), overheard(lambda _: asked.ask()):
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
                asked.listen()
        except Exception as error:  # Ray raises exceptions of any class
            raise ClusterError(
                f"the first node must reach Ray's head at {address}, but cannot: {error}; the end of its output:\n"
                f"{node.last_words}"
            ) from error
    asked.listen()
    if not ray.is_initialized():
        return []
    try:
        until = time.monotonic() + wait_seconds
        missing = list(range(here.size))
        while missing and not asked.stop and time.monotonic() <= until:
            time.sleep(POLL_SECONDS)
            # Ray leaves it without types.
            alive = within(ANSWER_SECONDS, "report its nodes", lambda: ray.nodes())  # type: ignore[no-untyped-call]
            there = {name for known in alive if known["Alive"] for name in known["Resources"]}
            missing = [rank for rank in missing if label(rank) not in there]
        return missing
    finally:
        ray.shutdown()
        asked.listen()


def _run(command: Sequence[str], environment: Mapping[str, str], asked: Asked) -> int:
    try:
        process = subprocess.Popen(command, env=environment)
    except OSError as error:
        raise ClusterError(f"{command[0]} must be run on the cluster, but cannot be started: {error}") from error
    code = process.wait()
    code = code if code >= 0 else 128 - code
    # Whatever signal ended it, the ledger has recorded its progress, and the next start resumes there.
    return WORK_LEFT if asked.stop and code > 128 else code


def _follow(
    meeting: Rendezvous, here: Allocation, report: Callable[[str], None], asked: Asked, wait_seconds: float
) -> int:
    """Run Ray on this node as a part of the cluster until the command has ended."""
    address, until = None, time.monotonic() + HEAD_SECONDS + wait_seconds
    while address is None:
        if meeting.get("done") is not None or asked.stop:
            return 0
        if time.monotonic() > until:
            raise ClusterError(
                f"the first node must make its address known in {meeting.folder}, but {socket.gethostname()} has seen "
                "none; is the folder on a disk that all nodes share?"
            )
        address = meeting.get("address")
        time.sleep(POLL_SECONDS)
    for _ in range(_MOST_JOINS):
        with RayNode([f"--address={address}"], here, meeting, address) as node:
            while not node.ended:
                if meeting.get("done") is not None:
                    return 0
                time.sleep(POLL_SECONDS)
            words = node.last_words
        report(f"Ray has ended on {socket.gethostname()}, and is started again")
    raise ClusterError(f"Ray on {socket.gethostname()} ended {_MOST_JOINS} times; the end of its output:\n{words}")


@contextmanager
def _as_environment(environment: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _client_options() -> list[str]:
    """Return the option that gives Ray's client server a free port; it exists only where ray[client] is installed."""
    if not find_spec("grpc"):
        return []
    with socket.socket() as listener:
        listener.bind(("", 0))
        return [f"--ray-client-server-port={listener.getsockname()[1]}"]
