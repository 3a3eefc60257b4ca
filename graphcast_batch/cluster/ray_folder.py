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
import os, shutil, signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
owner, folder = sys.argv[1:]
sys.stdin.buffer.read()

def uses_folder(process):
    try:
        files = [os.readlink(f"/proc/{process}/fd/{number}") for number in os.listdir(f"/proc/{process}/fd")]
    except OSError:
        return False
    return any(file.startswith(folder + "/") for file in files)

for _ in range(50):
    left = [name for name in os.listdir("/proc") if name.isdecimal() and name != owner and uses_folder(name)]
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
"""Waits until whoever has the other end of its input is gone, then ends all who have a file of the folder open.

All of Ray's processes have their logs open there. They are not known by their environment, since some write the title
of their process over it.
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
        with suppress(BrokenPipeError, subprocess.TimeoutExpired):
            self._clearing.communicate(timeout=_CLEAR_SECONDS)

    def last_words(self, lines: int = 12) -> str:
        """The end of what Ray's processes wrote to standard error; empty if nothing was written."""
        files = Path(self.path).glob("session_*/logs/*.err")
        texts = [file.read_text(encoding="utf-8", errors="replace") for file in sorted(files)]
        return "\n".join("\n".join(texts).strip().splitlines()[-lines:])


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
