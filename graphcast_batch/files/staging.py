"""Give each process a private folder; once the folder is removed, calls of the process that come late change nothing.

A call to a file system may be carried out long after it was made: its server did not answer, or the process was
stopped just before the call. Checking the lease cannot prevent that. So every file that is published, replaced or
removed is moved out of such a folder or into it, and a process that takes over the same work removes the folders of all
others first: their late calls find nothing to move, or nowhere to move it to.
"""

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, Self

from graphcast_batch.errors import StoreError
from graphcast_batch.files.durable import (
    LEFT_OVER_SECONDS,
    drop_left_over,
    folder_clock,
    place,
    sync_folder,
    untouched,
    write_new,
)
from graphcast_batch.files.leases import Owner, owner_in
from graphcast_batch.files.process_identity import left_by_the_dead, mark

STAGING: Final = ".staging"
"""Folder, in that of a store, with the private folders."""
OWNER: Final = "owner.json"
_ASIDE: Final = "aside"
_DROPPED: Final = "dropped"
_TRIES: Final = 5
_HELD_OPEN: Final = ".nfs"
"""Beginning of the name that an NFS client gives to a file that was removed while it is open."""


@dataclass(frozen=True)
class Staging:
    """A private folder for work on one subject, such as a Case.

    Attributes:
        folder: the folder; its name has the subject and the mark of its process.
        subject: what the work is on, such as the key of a Case; all folders of one subject are rivals.
    """

    folder: Path
    subject: str

    @classmethod
    def beside(cls, parent: Path, subject: str) -> Self:
        """Return a private folder in a parent folder, which is still to be made."""
        return cls(parent / f"{subject}-{mark()}", subject)

    def make(self) -> None:
        """Make the folder.

        Raises:
            OSError: the folder cannot be made.
        """
        # An empty folder is easily lost when a store is copied.
        self.folder.parent.mkdir(exist_ok=True)
        self.folder.mkdir()
        (self.folder / OWNER).write_bytes(Owner.here(LEFT_OVER_SECONDS).model_dump_json().encode())
        (self.folder / _ASIDE).mkdir()

    def touch(self) -> None:
        """Show other processes that the work goes on.

        Raises:
            OSError: the folder was removed.
        """
        os.utime(self.folder / OWNER)

    def remove(self) -> None:
        """Remove the folder, as far as the disk allows; a later sweep removes the rest."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def fence(self) -> None:
        """Remove the folders of all rivals, so that their late calls have no effect.

        The caller holds the lease on the subject, and has checked it since `make`.

        Raises:
            StoreError: one of them cannot be removed.
            OSError: the parent cannot be read.
        """
        rival = re.compile(re.escape(self.subject) + r"-[0-9a-f.]+")
        for name in os.listdir(self.folder.parent):
            if rival.fullmatch(name) and name != self.folder.name:
                _remove(self.folder.parent / name, self.subject)

    def publish(self, file: str, target: Path) -> None:
        """Move a file of this folder to its path, at which nothing may be yet.

        Raises:
            FileExistsError: something is there.
            OSError: the file cannot be moved.
        """
        place(self.folder / file, target)
        with suppress(OSError):  # some file systems count a name as a file, of which there may not be twice as many
            (self.folder / file).unlink()

    def replace(self, file: str, target: Path) -> None:
        """Move a file of this folder to its path, in one step with the removal of what is there.

        Raises:
            OSError: the file cannot be moved.
        """
        os.replace(self.folder / file, target)

    def write(self, file: str, content: bytes) -> None:
        """Write a new file into this folder durably, and make the folders above it.

        Raises:
            OSError: the file cannot be written.
        """
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        write_new(path, content)

    def enter(self, file: str, content: bytes, target: Path) -> None:
        """Write a file and move it to its path, at which nothing may be yet: durably.

        Raises:
            FileExistsError: something is there.
            OSError: the file cannot be written.
        """
        self.write(file, content)
        self.publish(file, target)
        sync_folder(target.parent)

    def take_away(self, target: Path) -> bool:
        """Move a file away from its path, into this folder; return whether there was one.

        Raises:
            IsADirectoryError: a folder is there, which no attempt has made.
            OSError: the file cannot be moved.
        """
        try:
            mode = target.lstat().st_mode
        except FileNotFoundError:
            return False
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        # Unlinking would take whatever is there when the call is carried out, even after this folder was removed.
        os.rename(target, self.folder / _ASIDE / target.name)
        return True

    def take_folder_away(self, target: Path) -> None:
        """Move a folder or a file, if it is there, away from its path into this folder.

        Raises:
            OSError: it cannot be moved.
        """
        if os.path.lexists(target):
            os.rename(target, self.folder / _ASIDE / target.name)

    def drop_taken(self) -> None:
        """Remove what was taken away, together with the folder that it was moved into.

        So a network that delivers a call twice cannot take away what is published after this.

        Raises:
            OSError: the folder cannot be removed.
        """
        aside, dropped = self.folder / _ASIDE, self.folder / _DROPPED
        # On NFS a file that is being read keeps a name in the folder it is removed from, which would keep the folder.
        if taken := os.listdir(aside):
            dropped.mkdir()
            for name in taken:
                (aside / name).rename(dropped / name)
        aside.rmdir()
        aside.mkdir()
        shutil.rmtree(dropped, ignore_errors=True)


class HeldLease(Protocol):
    """A lease that can be checked."""

    def held(self) -> bool:
        """Return whether the lease is still its owner's."""


@contextmanager
def alone(parent: Path, subject: str, lease: HeldLease | None) -> Iterator[Staging]:
    """Return a context with a private folder, after the folders of all rivals were removed.

    Args:
        parent: folder of the private folders.
        subject: what the work is on.
        lease: lease on the work; without one, rivals may remove the folders of each other, and at most one
            gets through.

    Raises:
        StoreError: the lease was lost, or a folder cannot be removed.
        OSError: the folder cannot be made.
    """
    staging = Staging.beside(parent, subject)
    try:
        staging.make()
        if lease and not lease.held():
            raise StoreError(
                f"{lease}: the lease must be held until the work is done, but was lost to another process or "
                "removed; run again"
            )
        staging.fence()
        yield staging
    finally:
        staging.remove()


def drop_abandoned(parent: Path) -> list[Path]:
    """Remove the private folders whose owner died, on this host at once and on others after a day.

    Args:
        parent: folder of the private folders.

    Returns:
        What was removed.

    Raises:
        OSError: the parent cannot be read.
    """
    # Files are there for a moment, whenever a process looks at the clock of the disk: another that sweeps does.
    return [each for each in parent.glob("*") if (_drop_if_dead(each) if each.is_dir() else drop_left_over(each))]


def _drop_if_dead(folder: Path) -> bool:
    owner = owner_in(folder / OWNER)
    gone = left_by_the_dead(folder.name) or (owner is not None and owner.gone)
    if not gone and not untouched(folder / OWNER if owner else folder, folder_clock(folder.parent)):
        return False
    shutil.rmtree(folder, ignore_errors=True)
    return True


def _remove(folder: Path, subject: str) -> None:
    """Remove a folder that another process may still be writing into."""
    for _ in range(_TRIES):
        gone = folder.with_name(f"{subject}-{mark()}")
        with suppress(FileNotFoundError):
            folder.rename(gone)  # so that nothing more is put into it by name
            folder = gone
        shutil.rmtree(folder, ignore_errors=True)
        if not _is_of_use(folder):
            return
    raise StoreError(
        f"{folder} must be removed before another attempt may publish, but cannot be; remove it and run again"
    )


def _is_of_use(folder: Path) -> bool:
    """Return whether anything can still be moved out of a private folder or into it."""
    files = (name for _, _, names in os.walk(folder) for name in names)
    return (folder / _ASIDE).exists() or any(not name.startswith(_HELD_OPEN) for name in files)
