"""Take, renew and release leases: files that let one process at a time do something, until it dies or falls silent."""

import os
import socket
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from graphcast_batch.errors import StoreError
from graphcast_batch.files import process_identity
from graphcast_batch.files.durable import Entry, explained, folder_clock, now, publish


class Owner(Entry):
    """The process that holds something, described so exactly that others on its host can see its death.

    Attributes:
        host: its host name.
        scope: boot, process namespace and user within which process numbers mean the same.
        pid: its process number.
        started: when it started, in the kernel's ticks; a process number used again differs in it.
        job: job of a batch scheduler that it belongs to; empty where there is none.
        restarts: how often the job had been started before.
        token: unique to each thing that is held.
        lease_seconds: how long the owner counts as alive without renewing.
        since: when it began to hold, UTC, ISO 8601.
    """

    host: str
    scope: str
    pid: int
    started: str
    token: str
    lease_seconds: float
    since: str
    job: str = ""
    restarts: int = 0

    @classmethod
    def here(cls, lease_seconds: float) -> Self:
        """Return an owner that is this process, with a new token."""
        pid = os.getpid()
        host, scope, started = process_identity.identity(pid)
        return cls(
            host=host,
            scope=scope,
            pid=pid,
            started=started,
            token=uuid.uuid4().hex,
            lease_seconds=lease_seconds,
            since=now(),
            job=_job(),
            restarts=_restarts(),
        )

    @property
    def gone(self) -> bool:
        """Whether it surely died: it ran on this host and no longer does, or before this job was started again."""
        if self.job and self.job == _job() and self.restarts < _restarts():
            return True
        beside = self.started != "" and (self.host, self.scope) == (socket.gethostname(), process_identity.scope())
        return beside and process_identity.started(self.pid) != self.started


@dataclass(frozen=True)
class FileLease:
    """A lease on something that only one process may do at a time.

    It lasts while its owner calls `renew` more often than every ``lease_seconds``; then any process may take it.

    Attributes:
        path: the file that stands for the lease.
        owner: the process that took the lease.
    """

    path: Path
    owner: Owner

    def __str__(self) -> str:
        return str(self.path)

    @classmethod
    def take(cls, path: Path, lease_seconds: float) -> Self | None:
        """Take the lease that a file stands for; return None if a live process has it.

        Raises:
            StoreError: the file cannot be written.
        """
        lease = cls(path, Owner.here(lease_seconds))
        with explained(f"the lease {path}"):
            drop_expired(path, lease_seconds)
            try:
                # A power failure ends owners as well: a lease need not outlast one, and a torn lease expires.
                publish(path, lease.owner.model_dump_json().encode(), durably=False)
            except FileExistsError:
                return None
            except OSError:
                with suppress(StoreError):  # it may be there all the same, and would last for the lease
                    lease.release()
                raise
        return lease

    def held(self) -> bool:
        """Return whether the lease is still this owner's."""
        with explained(f"the lease {self.path}"):
            owner = owner_in(self.path)
        return owner is not None and owner.token == self.owner.token

    def renew(self) -> bool:
        """Prolong the lease; return False if it was lost to another process."""
        held = self.held()
        if held:
            with explained(f"the lease {self.path}"), suppress(FileNotFoundError):
                os.utime(self.path)
        return held

    def release(self) -> None:
        """Give the lease back, if it is still this owner's.

        Raises:
            StoreError: the file cannot be removed.
        """
        if self.held():
            with explained(f"the lease {self.path}"):
                _unlink_or_rename(self.path)


def owner_in(path: Path) -> Owner | None:
    """Read the owner, dead or alive, from the file of a lease; None if there is no file, or it is damaged."""
    try:
        return Owner.read(path)
    except StoreError:  # written in several steps, where there are no links, and not yet complete
        return None


def expired(path: Path, lease_seconds: float, clock: float) -> bool:
    """Return whether there is a lease, and it has expired.

    Args:
        path: file of the lease.
        lease_seconds: how long the lease lasts if its file names no owner, whose own duration counts otherwise.
        clock: `folder_clock` of the folder of the file.
    """
    try:
        owner = owner_in(path)
        if owner and owner.gone:
            return True
        return clock - path.stat().st_mtime > (owner.lease_seconds if owner else lease_seconds)
    except FileNotFoundError:
        return False


def drop_expired(path: Path, lease_seconds: float) -> bool:
    """Remove a lease that has expired; return whether it was removed.

    Args:
        path: file of the lease.
        lease_seconds: how long the lease lasts if its file names no owner, whose own duration counts otherwise.
    """
    renamed = _unused_name(path)
    with suppress(FileNotFoundError):
        expired_content = path.read_bytes()
        if not expired(path, lease_seconds, folder_clock(path.parent)):
            return False
        os.rename(path, renamed)
        if renamed.read_bytes() != expired_content:  # another process was faster, and this is its new lease
            with suppress(FileExistsError):
                publish(path, renamed.read_bytes())
        with suppress(OSError):  # a later sweep of the ledger removes it
            renamed.unlink()
        return True
    return False


def _unlink_or_rename(path: Path) -> None:
    """Remove a file from its path, also on a disk that refuses to delete but not to rename."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        path.rename(_unused_name(path))


def _unused_name(path: Path) -> Path:
    return path.with_name(f".{process_identity.mark()}.aside")


def _job() -> str:
    job = os.environ.get("SLURM_JOB_ID", "")
    return f"{os.environ.get('SLURM_CLUSTER_NAME', '')}/{job}" if job else ""


def _restarts() -> int:
    count = os.environ.get("SLURM_RESTART_COUNT", "")
    return int(count) if count.isdecimal() else 0
