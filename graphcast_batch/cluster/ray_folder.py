"""Make a local folder for the sockets and logs of one Ray, and clean up after that Ray."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from graphcast_batch.errors import ClusterError

_LONGEST: Final = 40
"""Longest path of Ray's folder in bytes: its sockets below add 64, and Linux's limit is 107 (unix(7))."""
_INSIDE: Final = "r"
_CLEAR_SECONDS: Final = 30.0
_CLEARING: Final = """
import os, shutil, signal, stat, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
owner, folder = sys.argv[1:]
sys.stdin.buffer.read(1)

def is_ray(process):
    writes, there = False, f"/proc/{process}/fd/"
    for number in os.listdir(there):
        try:
            file, mode = os.readlink(there + number), os.lstat(there + number).st_mode
        except OSError:
            continue
        if file.startswith(folder + "/"):
            if "/python-core-driver-" in file and file.endswith(f"_{owner}.log"):
                return False
            writes = writes or bool(mode & stat.S_IWUSR)
    return writes

def rays():
    for name in os.listdir("/proc"):
        try:
            if name.isdecimal() and name != owner and is_ray(name):
                yield name
        except OSError:
            pass

for _ in range(50):
    left = list(rays())
    if not left:
        break
    for name in left:
        try:
            os.kill(int(name), signal.SIGKILL)
        except OSError:
            pass
    time.sleep(0.1)
shutil.rmtree(folder, ignore_errors=True)
"""
"""Waits for a byte or the end of its input, then kills all processes that write into the folder, and removes it.

All of Ray's processes write their logs there. They are not found by their environment, since some overwrite it with
the title of their process. A process that only reads a log is left alone, and so are those that the owner forked, which
have its log open.
"""


class RayFolder:
    """As a context, a new folder for one Ray, which only its owner can enter.

    When the context ends, and also when this process is killed, all processes that Ray has left running are killed, and
    the folder is removed. Ray's own agents stay for a minute or more if their node is killed (ray 2.60).

    Attributes:
        path: the folder to give to Ray as its temporary folder.
    """

    path: str

    def __enter__(self) -> "RayFolder":
        self._folder = _new_folder()
        # Ray makes the folder that it is given readable and writable for everybody.
        self.path = f"{self._folder}/{_INSIDE}"
        self._clearing = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _CLEARING, str(os.getpid()), self._folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
        # Ray within this process makes the folder again if it is removed before the process has disconnected.
        shutil.rmtree(self._folder, ignore_errors=True)

    def clear(self) -> None:
        """Kill Ray's processes and remove the folder; if that takes long, it goes on after this process."""
        asking = self._clearing.stdin
        with suppress(BrokenPipeError, subprocess.TimeoutExpired):
            if asking and not asking.closed:
                asking.write(b".")  # what this process has forked keeps the pipe open
                asking.close()
            self._clearing.wait(_CLEAR_SECONDS)


def candidates() -> list[str]:
    """Return the folders in which one for Ray may be made, in the order in which they are tried."""
    named = [os.environ.get(name) for name in ("RAY_TMPDIR", "TMPDIR")]
    return list(dict.fromkeys([*(folder for folder in named if folder), "/tmp", "/dev/shm"]))


def usable() -> str:
    """Return the first of the candidates in which a folder with a path that is short enough can be made.

    Raises:
        ClusterError: there is none.
    """
    folder = Path(_new_folder())
    folder.rmdir()
    return str(folder.parent)


def _new_folder() -> str:
    for parent in candidates():
        with suppress(OSError):
            folder = tempfile.mkdtemp(prefix="gb-", dir=parent)
            if len(os.fsencode(f"{folder}/{_INSIDE}")) <= _LONGEST and folder.isascii():
                return folder
            os.rmdir(folder)
    raise ClusterError(
        f"Ray needs a folder on {socket.gethostname()} that can be written and has a path of at most {_LONGEST} ASCII "
        f"characters, but none can be made in {', '.join(candidates())}; set TMPDIR to a short path on a local disk"
    )
