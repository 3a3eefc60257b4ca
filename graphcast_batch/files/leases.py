"""A file becomes a lease on what only one process may do at a time; it ends when its owner dies or falls silent."""

import os
import shutil
import socket
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from graphcast_batch.errors import StoreError
from graphcast_batch.files import process_identity
from graphcast_batch.files.durable import Entry, explained, folder_clock, now, publish, untouched


class Owner(Entry):
    """The process that holds something, told so exactly that its death can be seen from beside it.

    Attributes:
        host: its host name.
        scope: boot, process namespace and user within which process numbers mean the same.
        pid: its process number.
        started: when it started, in the kernel's ticks; a process number used again differs in it.
        job: that it belongs to, of a batch scheduler; empty where there is none.
        restarts: how often the job had been begun before.
        token: differs for everything held.
        lease_seconds: how long without a heartbeat it may be believed alive.
        since: UTC, ISO 8601.
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
        """This process, holding something new."""
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
        """Whether it surely died: it ran beside this process and no longer does, or before this job was begun anew."""
        if self.job and self.job == _job() and self.restarts < _restarts():
            return True
        beside = self.started != "" and (self.host, self.scope) == (socket.gethostname(), process_identity.scope())
        return beside and process_identity.started(self.pid) != self.started


@dataclass(frozen=True)
class Lease:
    """A lease on something that only one process may do at a time.

    It lasts while its owner calls `renew` more often than every ``lease_seconds``; then anyone may take it over.
    """

    path: Path
    owner: Owner

    @classmethod
    def take(cls, path: Path, lease_seconds: float) -> Self | None:
        """Takes the lease that a file stands for, unless a live owner has it.

        Raises:
            StoreError: the file cannot be written.
        """
        lease = cls(path, Owner.here(lease_seconds))
        with explained(f"the claim {path}"):
            drop_expired(path, lease_seconds)
            try:
                # A power failure ends owners as well: a claim need not outlast one, and one that is torn lapses.
                publish(path, lease.owner.model_dump_json().encode(), durably=False)
            except FileExistsError:
                return None
            except OSError:
                with suppress(StoreError):  # it may be there all the same, and would last for the lease
                    lease.release()
                raise
        return lease

    def held(self) -> bool:
        """Whether the lease is still this owner's."""
        with explained(f"the claim {self.path}"):
            owner = owner_in(self.path)
        return owner is not None and owner.token == self.owner.token

    def renew(self) -> bool:
        """Prolongs the lease; False if it was lost to someone else."""
        held = self.held()
        if held:
            with explained(f"the claim {self.path}"), suppress(FileNotFoundError):
                os.utime(self.path)
        return held

    def release(self) -> None:
        """Gives the lease back, if it is still this owner's.

        Raises:
            StoreError: the file cannot be removed.
        """
        if self.held():
            with explained(f"the claim {self.path}"):
                _unlink_or_rename(self.path)


def owner_in(path: Path) -> Owner | None:
    """Who a file says holds it, dead or alive; None if there is no file, or it cannot be told."""
    try:
        return Owner.read(path)
    except StoreError:  # written in several steps, where there are no links, and not yet whole
        return None


def expired(path: Path, lease_seconds: float, clock: float) -> bool:
    """Whether a claim is there, and void.

    Args:
        path: of the claim.
        lease_seconds: counts if the file names no owner, whose own lease counts otherwise.
        clock: `folder_clock` of its folder.
    """
    try:
        owner = owner_in(path)
        if owner and owner.gone:
            return True
        return clock - path.stat().st_mtime > (owner.lease_seconds if owner else lease_seconds)
    except FileNotFoundError:
        return False


def drop_expired(path: Path, lease_seconds: float) -> bool:
    """Removes a claim that is void; returns whether it did.

    Args:
        path: of the claim.
        lease_seconds: counts if the file names no owner, whose own lease counts otherwise.
    """
    aside = _aside(path)
    with suppress(FileNotFoundError):
        judged = path.read_bytes()
        if not expired(path, lease_seconds, folder_clock(path.parent)):
            return False
        os.rename(path, aside)
        if aside.read_bytes() != judged:  # another taker was faster, and this is its fresh claim
            with suppress(FileExistsError):
                publish(path, aside.read_bytes())
        with suppress(OSError):  # `Ledger.sweep` takes it away
            aside.unlink()
        return True
    return False


def drop_abandoned(folder: Path, owner_file: Path) -> bool:
    """Removes a folder whose owner died, here at once and elsewhere after a day; returns whether it did.

    Args:
        folder: what may be abandoned.
        owner_file: tells who made it; it is touched while the work goes on.
    """
    owner = owner_in(owner_file)
    gone = process_identity.left_by_the_dead(folder.name) or (owner is not None and owner.gone)
    if not gone and not untouched(owner_file if owner else folder, folder_clock(folder.parent)):
        return False
    shutil.rmtree(folder, ignore_errors=True)
    return True


def _unlink_or_rename(path: Path) -> None:
    """Removes a file from its place, also on a disk that refuses to delete but not to rename."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        path.rename(_aside(path))


def _aside(path: Path) -> Path:
    return path.with_name(f".{process_identity.mark()}.aside")


def _job() -> str:
    job = os.environ.get("SLURM_JOB_ID", "")
    return f"{os.environ.get('SLURM_CLUSTER_NAME', '')}/{job}" if job else ""


def _restarts() -> int:
    count = os.environ.get("SLURM_RESTART_COUNT", "")
    return int(count) if count.isdecimal() else 0
