"""Start processes as forks of one that has imported what they import; see `tests.forking`."""

import multiprocessing
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.forking import ADDRESS, WITHOUT_THREADS, answer, ask

PROCESSES = multiprocessing.get_context("forkserver")
"""Runs functions of tests in processes of their own."""
PROCESSES.set_forkserver_preload(["netCDF4", "pandas", "pydantic", "xarray", "zarr"])  # without threads
_SECONDS = 300
_ROOT = Path(__file__).parents[1]


@contextmanager
def forking(environment) -> Iterator[dict[str, str]]:
    """Start the server of forks; give the environment in which Ray and `Fork` find it.

    Args:
        environment: of the server; libraries read some of it when they are imported.
    """
    with TemporaryDirectory(prefix="gb-") as folder:
        address = f"{folder}/forking"
        words = [sys.executable, "-m", "tests.forking", "serve", address]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(words, env=environment | WITHOUT_THREADS, cwd=_ROOT, **pipes) as process:
            ready = [process.stdout.readline() for _ in ("workers", "all else")]
            assert set(ready) == {"ready\n"}, "the server of forks did not start"
            yield environment | {ADDRESS: address}


class Fork:
    """A forked process that runs ``graphcast-batch``, or Python code with arguments.

    Args:
        arguments: of the command; or the code and its arguments.
        cwd: working directory.
        env: environment, which `forking` has given.
        kind: ``command`` or ``python``.

    Attributes:
        pid: number of the process.
    """

    def __init__(self, *arguments, cwd, env, kind="command"):
        self._words = list(map(str, arguments))
        self._folder = TemporaryDirectory()
        self._streams = [Path(self._folder.name, name) for name in ("out", "err")]
        request = {"kind": kind, "arguments": self._words, "cwd": str(cwd), "environment": dict(env)}
        with open(os.devnull) as nothing, self._streams[0].open("w") as out, self._streams[1].open("w") as err:
            self._answers = ask(env[ADDRESS], request, [file.fileno() for file in (nothing, out, err)])
        self._answers.settimeout(_SECONDS)
        self.pid = answer(self._answers)

    @property
    def is_running(self):
        """Whether the process has not ended yet."""
        return not select.select([self._answers], [], [], 0)[0]

    def end(self):
        """Wait until the process has ended; return what `subprocess.run` does.

        Raises:
            subprocess.TimeoutExpired: the process took too long, and was killed.
        """
        with self._answers, self._folder:
            try:
                code = answer(self._answers)
            except TimeoutError as error:
                os.kill(self.pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(self._words, _SECONDS) from error
            return subprocess.CompletedProcess(self._words, code, *(stream.read_text() for stream in self._streams))
