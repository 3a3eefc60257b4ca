"""Run commands in forks of a process that has imported what they import, which takes longer than most of them do."""

import multiprocessing
import os
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path
from tempfile import TemporaryDirectory

PRELOADED = [
    "graphcast_batch.cli",
    "graphcast_batch.app",
    "graphcast_batch.setup.worker_setup",
    "graphcast_batch.cluster.driver",
    "graphcast_batch.report",
    "matplotlib.backends.backend_agg",
    "haiku",
    "optax",
]
_SECONDS = 300
_CONTEXT = multiprocessing.get_context("forkserver")


def start(env):
    """Starts the process that forks, in an environment: some of what it imports looks at it no more than once."""
    _CONTEXT.set_forkserver_preload(PRELOADED)
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(env)
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


def run(*arguments, cwd):
    """Runs ``graphcast-batch`` in a fork, in a folder, in the environment that the forking process was started in.

    Returns:
        What `subprocess.run` does.

    Raises:
        subprocess.TimeoutExpired: it took too long, and was killed.
    """
    words = list(map(str, arguments))
    with TemporaryDirectory() as folder:
        process = _CONTEXT.Process(target=_become, args=(words, str(cwd), folder))
        process.start()
        process.join(_SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(words, _SECONDS)
        printed = (Path(folder, name).read_text() for name in ("out", "err"))
        return subprocess.CompletedProcess(words, process.exitcode, *printed)


def _become(words, cwd, folder):
    for number, name in enumerate(("out", "err"), start=1):
        file = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    os.chdir(cwd)
    sys.argv = ["graphcast-batch", *words]
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115 - to the end

    from graphcast_batch.cli import main

    main(words)
