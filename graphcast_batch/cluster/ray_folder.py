"""A folder of this node's own for the sockets and logs of one Ray, and the process that clears up after that Ray."""

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
"""Bytes of Ray's folder: its sockets below add 64, and Linux's limit is 107 (unix(7))."""
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
"""Waits for a byte, or until nobody has the other end of its input, then ends all who write into the folder.

All of Ray's processes write their logs there. They are not known by their environment, since some write the title of
their process over it. Who only reads a log is left alone, and so is what the owner forked, which has its log open.
"""


class RayFolder:
    """As a context, a new folder for one Ray; only its owner can enter it.

    When the context ends, and also when this process is killed, all that Ray has left running is ended, and the
    folder is removed. Ray's own agents stay for a minute or more if their node is killed (ray 2.60).

    Attributes:
        path: what to give Ray as its temporary folder.
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
        # Ray within this process makes the folder anew if it is cleared before Ray has been left.
        shutil.rmtree(self._folder, ignore_errors=True)

    def clear(self) -> None:
        """Ends Ray's processes, and removes the folder; what takes long goes on after this process."""
        asking = self._clearing.stdin
        with suppress(BrokenPipeError, subprocess.TimeoutExpired):
            if asking and not asking.closed:
                asking.write(b".")  # what this process has forked keeps the pipe open
                asking.close()
            self._clearing.wait(_CLEAR_SECONDS)


def candidates() -> list[str]:
    """Where a folder for Ray is made, the first of them that will do."""
    named = [os.environ.get(name) for name in ("RAY_TMPDIR", "TMPDIR")]
    return list(dict.fromkeys([*(folder for folder in named if folder), "/tmp", "/dev/shm"]))


def usable() -> str:
    """The first of the candidates in which a folder can be made with a path that is short enough.

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
