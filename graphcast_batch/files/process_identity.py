"""Identify processes, so that other processes on the same host can see the death of one."""

import hashlib
import os
import re
import socket
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

_MARK: Final = re.compile(r"([0-9a-f]{12})\.([0-9]+)\.([0-9]+)\.[0-9a-f]{32}")


@cache
def identity(pid: int) -> tuple[str, str, str]:
    """Return host, scope and start of this process, which never change; by process number, as a fork has another."""
    return socket.gethostname(), scope(), started(pid)


def scope() -> str:
    """Return boot, process namespace and user within which process numbers mean the same; empty where unknown."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        # A hidden /proc shows each user only its own processes.
        return f"{boot} {os.readlink('/proc/self/ns/pid')} uid:{os.getuid()}"
    return ""


def started(pid: int) -> str:
    """Return the start of a live process in the kernel's ticks; empty if there is none, or no way to know."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def mark() -> str:
    """Return a new part for file names, from which `left_by_the_dead` recognizes this process.

    A name is there as soon as its file is; the content of the file may be lost to a full disk.
    """
    pid = os.getpid()
    host, where, since = identity(pid)
    return f"{_place(host, where)}.{pid}.{since or 0}.{uuid.uuid4().hex}"


def left_by_the_dead(name: str) -> bool:
    """Return whether a file name has the mark of a process that ran on this host and no longer does."""
    found = _MARK.search(name)
    if not found or found[3] == "0":
        return False
    host, where, _ = identity(os.getpid())
    return found[1] == _place(host, where) and started(int(found[2])) != found[3]


def _place(host: str, where: str) -> str:
    return hashlib.blake2b(f"{host} {where}".encode(), digest_size=6).hexdigest()
