"""Run commands in forks of a process that has imported what they import; see `tests.forking`."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.forking import ADDRESS, KINDS, WITHOUT_THREADS, ask

_SECONDS = 300
_ROOT = Path(__file__).parents[1]


@contextmanager
def forking(environment) -> Iterator[dict[str, str]]:
    """The process that forks; the environment with which Ray finds it.

    Args:
        environment: that it starts in, some of which is looked at only once by what it imports.
    """
    with TemporaryDirectory(prefix="gb-") as folder:
        address = f"{folder}/forking"
        words = [sys.executable, "-m", "tests.forking", "serve", address]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(words, env=environment | WITHOUT_THREADS, cwd=_ROOT, **pipes) as process:
            ready = [process.stdout.readline() for _ in KINDS]
            assert set(ready) == {"ready\n"}, "the process that forks could not be started"
            yield environment | {ADDRESS: address}


def run(*arguments, cwd, env):
    """Runs ``graphcast-batch`` in a fork, in a folder and an environment that `forking` has given.

    Returns:
        What `subprocess.run` does.

    Raises:
        subprocess.TimeoutExpired: it took too long, and was killed.
    """
    words = list(map(str, arguments))
    request = {"kind": "command", "arguments": words, "cwd": str(cwd), "environment": env}
    with TemporaryDirectory() as folder, open(os.devnull) as nothing:
        out, err = Path(folder, "out"), Path(folder, "err")
        with out.open("w") as to_out, err.open("w") as to_err:
            client = ask(env[ADDRESS], request, [file.fileno() for file in (nothing, to_out, to_err)])
        with client, client.makefile() as answers:
            pid = int(answers.readline())
            client.settimeout(_SECONDS)
            try:
                code = int(answers.readline())
            except TimeoutError as error:
                os.kill(pid, 9)
                raise subprocess.TimeoutExpired(words, _SECONDS) from error
        return subprocess.CompletedProcess(words, code, out.read_text(), err.read_text())
