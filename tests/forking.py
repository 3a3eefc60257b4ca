"""Fork processes that have imported what commands and Ray's workers import, which takes longer than most of them do.

``python -m tests.forking serve SOCKET`` is the program that forks. A client connects to the socket and sends its three
standard streams and a line of JSON that says what to run. It gets the number of the forked process and, when that has
ended, its exit code, each as text of a fixed length. The program ends when its standard input does.

Ray takes this file in place of its own ``setup_worker.py`` (see `SETUP_WORKER`): started so by Ray, it asks the program
for a worker, and ends with it. Workers are forked before Ray is imported, because Ray reads the job that a worker is
for from its environment when it is imported, and all else afterwards (ray 2.60).
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
"""Variable with the socket's path, for Ray."""
PRELOADED = ("haiku", "matplotlib.backends.backend_agg", "matplotlib.pyplot", "optax", "pandas")
"""Beside all modules of the package."""
WITHOUT_THREADS = {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
"""For the environment of the program: the threads of a library that is loaded in it would not be there in a fork."""
_STREAMS, _LENGTH = 3, 8


def ask(address: str, request: Mapping[str, object], streams: Sequence[int]) -> socket.socket:
    """Asks for a fork; the answers come on the socket that is returned."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(f"{address}-worker" if request["kind"] == "worker" else f"{address}-rest")
    socket.send_fds(client, [b"."], list(streams))
    client.sendall(json.dumps(request).encode() + b"\n")
    return client


def answer(client: socket.socket) -> int:
    """The next of the two numbers that come."""
    return int(client.recv(_LENGTH, socket.MSG_WAITALL))


def run_command(arguments: list[str]) -> None:
    """Runs ``graphcast-batch``."""
    sys.argv = ["graphcast-batch", *arguments]

    from graphcast_batch.cli import main

    main(arguments)


def run_python(arguments: list[str]) -> None:
    """Runs Python code with arguments, as ``python -c`` does."""
    code, *words = arguments
    sys.argv = ["-c", *words]
    sys.path.insert(0, "")
    exec(compile(code, "<string>", "exec"), vars(sys.modules["__main__"]))


def run_worker(arguments: list[str]) -> None:
    """Does what Ray's ``setup_worker.py`` does, without two starts of Python (ray 2.60)."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--serialized-runtime-env-context", default="{}")
    parser.add_argument("--language")
    ours, sys.argv = parser.parse_known_args(arguments)
    os.environ.update(json.loads(ours.serialized_runtime_env_context).get("env_vars") or {})
    runpy.run_path(sys.argv[0], run_name="__main__")


KINDS: Mapping[str, Callable[[list[str]], None]] = {
    "command": run_command,
    "python": run_python,
    "worker": run_worker,
}


def serve(address: str) -> None:
    """Forks for whoever asks, until standard input ends: workers at one socket, all else at another."""
    sys.modules["ray"] = None  # it cannot be imported
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
    gc.freeze()  # else the collector would touch, and so copy, all that forks share


def _serve(address: str) -> None:
    if os.getcwd() in sys.path:
        sys.path.remove(os.getcwd())
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes between
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
    """Forks, and tells the client how that ended; does not return."""
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
    """Is the process that was asked for; does not return."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - to the end
        for number, mode in enumerate("rww")
    )
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    KINDS[request["kind"]](request["arguments"])
    sys.exit(0)


def _start_worker() -> int:
    """What Ray has started instead of a worker."""
    request = {"kind": "worker", "arguments": sys.argv[1:], "cwd": os.getcwd(), "environment": dict(os.environ)}
    with ask(os.environ[ADDRESS], request, range(_STREAMS)) as client:
        answer(client)
        return answer(client)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        os._exit(_start_worker() % 256)
