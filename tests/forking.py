"""Fork processes from one that has imported what commands and Ray's workers import, which takes longer than most runs.

``python -m tests.forking serve SOCKET`` is the server. A client connects to one of its two sockets, and sends its three
standard streams and a line of JSON: what to run, with which arguments, where, and in which environment. The client
gets the number of the forked process and, when that process has ended, its exit code, each as text of a fixed length.
The server ends when its standard input does.

Ray starts this file in place of its own ``setup_worker.py`` (see `SETUP_WORKER`); started so, it asks the server for a
worker and ends when the worker does. Workers are forked before Ray is imported, and all else afterwards: importing Ray
reads which job a worker is for from the environment (ray 2.60).
"""

import argparse
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

SETUP_WORKER = os.path.abspath(__file__)
ADDRESS = "GRAPHCAST_BATCH_TESTS_FORKING"
"""Variable that holds the path of the sockets without their ending."""
_BY_RAY = ("attr", "google.protobuf.internal.builder", "google.protobuf.reflection", "jsonschema", "requests")
PRELOADED = ("haiku", "matplotlib.backends.backend_agg", "matplotlib.pyplot", "optax", "pandas", "pint", *_BY_RAY)
"""Modules to import beside all modules of the package; among them those that xarray and Ray import later."""
WITHOUT_THREADS = {"OMP_NUM_THREADS": "1"}
"""Environment of the server: threads that a library starts when it is imported would be missing in a fork."""
_STREAMS, _LENGTH = 3, 8


def ask(address: str, request: Mapping[str, object], streams: Sequence[int]) -> socket.socket:
    """Ask the server for a fork; return the socket on which the two answers come."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(f"{address}-worker" if request["kind"] == "worker" else f"{address}-rest")
    socket.send_fds(client, [b"."], list(streams))
    client.sendall(json.dumps(request).encode() + b"\n")
    return client


def answer(client: socket.socket) -> int:
    """Return the next answer: first the number of the process, then its exit code."""
    return int(client.recv(_LENGTH, socket.MSG_WAITALL))


def run_command(arguments: list[str]) -> None:
    """Run ``graphcast-batch``."""
    sys.argv = ["graphcast-batch", *arguments]

    from graphcast_batch.cli import main

    main(arguments)


def run_python(arguments: list[str]) -> None:
    """Run Python code with arguments, as ``python -c`` does."""
    code, *words = arguments
    sys.argv = ["-c", *words]
    sys.path.insert(0, "")
    exec(compile(code, "<string>", "exec"), vars(sys.modules["__main__"]))


def run_worker(arguments: list[str]) -> None:
    """Run a worker of Ray as Ray's ``setup_worker.py`` does (ray 2.60), without two starts of Python."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--serialized-runtime-env-context", default="{}")
    parser.add_argument("--language")
    ours, sys.argv = parser.parse_known_args(arguments)
    os.environ.update(json.loads(ours.serialized_runtime_env_context).get("env_vars") or {})
    _choose_platform()
    runpy.run_path(sys.argv[0], run_name="__main__")


KINDS: Mapping[str, Callable[[list[str]], None]] = {
    "command": run_command,
    "python": run_python,
    "worker": run_worker,
}


def serve(address: str) -> None:
    """Fork for every client until standard input ends: workers at one socket, all else at another."""
    sys.modules["ray"] = None  # so that importing it fails
    _preload()
    del sys.modules["ray"]
    if os.fork() == 0:
        _preload()
        _serve(f"{address}-rest")
    else:
        _serve(f"{address}-worker")


def _preload() -> None:
    import graphcast_batch

    every = (module.name for module in pkgutil.walk_packages(graphcast_batch.__path__, "graphcast_batch."))
    for name in (*PRELOADED, *every):
        if not name.endswith(".__main__"):
            with suppress(ModuleNotFoundError):
                importlib.import_module(name)
    gc.collect()
    gc.freeze()  # or the garbage collector would write to, and so copy, the memory that forks share


def _serve(address: str) -> None:
    if os.getcwd() in sys.path:
        sys.path.remove(os.getcwd())
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the processes of _stand_between are not waited for
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(address)
        server.listen(64)
        print("ready", flush=True)
        while server in select.select([server, sys.stdin], [], [])[0]:
            client, _ = server.accept()
            if os.fork() == 0:
                server.close()
                _stand_between(client)
            client.close()


def _stand_between(client: socket.socket) -> None:
    """Fork the process that a client asks for, and send how it ended; does not return."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, streams, _, _ = socket.recv_fds(client, 1, _STREAMS)
    with client.makefile("r", encoding="utf-8") as lines:
        request = json.loads(lines.readline())
    child = os.fork()
    if child == 0:
        client.close()
        _become(request, streams)
    for stream in (*streams, 0, 1, 2):
        os.close(stream)
    with suppress(BrokenPipeError):
        client.sendall(b"%*d" % (_LENGTH, child))
        client.sendall(b"%*d" % (_LENGTH, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
    os._exit(0)


def _become(request: Mapping[str, object], streams: Sequence[int]) -> None:
    """Run what a client asked for in this process; does not return."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - open until the process ends
        for number, mode in enumerate("rww")
    )
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    _choose_platform()
    KINDS[request["kind"]](request["arguments"])
    sys.exit(0)


def _choose_platform() -> None:
    """Have JAX take the platform that the environment names, which it reads only when it is imported."""
    import jax

    jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS") or None)


def _start_worker() -> int:
    """Ask the server for the worker that Ray wants to start; return its exit code."""
    request = {"kind": "worker", "arguments": sys.argv[1:], "cwd": os.getcwd(), "environment": dict(os.environ)}
    with ask(os.environ[ADDRESS], request, range(_STREAMS)) as client:
        answer(client)
        return answer(client)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        os._exit(_start_worker() % 256)
