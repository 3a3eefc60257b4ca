"""Give each process a private folder, without which nothing that it still does reaches what others read.

A call to a file system may be carried out long after it was made: its server did not answer, or the process was
stopped just before it. No look at a claim can prevent that. So whatever is published, replaced or taken away is moved
out of such a folder or into it, and whoever takes the same work over removes the folders of all others first: what
they had under way finds nothing to move, or nowhere to move it to.
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
from typing import Final, Self

from graphcast_batch.errors import StoreError
from graphcast_batch.files.durable import LEFT_OVER_SECONDS, place, sync_folder, write_new
from graphcast_batch.files.leases import Lease, Owner
from graphcast_batch.files.process_identity import mark

STAGING: Final = ".staging"
"""The folder of a store that holds those of attempts."""
OWNER: Final = "owner.json"
_ASIDE: Final = "aside"
_DROPPED: Final = "dropped"
_TRIES: Final = 5
_HELD_OPEN: Final = ".nfs"
"""How the name begins that an NFS client gives to a file that was removed while it is open."""


@dataclass(frozen=True)
class Staging:
    """A private folder for work on one subject, as the key of a Case.

    Attributes:
        folder: it is called by the subject and the mark of its process.
        subject: all folders of which are rivals.
    """

    folder: Path
    subject: str

    @classmethod
    def beside(cls, parent: Path, subject: str) -> Self:
        """One that is still to be made, among those of a parent folder."""
        return cls(parent / f"{subject}-{mark()}", subject)

    def make(self) -> None:
        """Makes the folder.

        Raises:
            OSError: it cannot be made.
        """
        # An empty folder is easily lost when a store is copied.
        self.folder.parent.mkdir(exist_ok=True)
        self.folder.mkdir()
        (self.folder / OWNER).write_bytes(Owner.here(LEFT_OVER_SECONDS).model_dump_json().encode())
        (self.folder / _ASIDE).mkdir()

    def touch(self) -> None:
        """Shows that the work goes on.

        Raises:
            OSError: the folder was removed.
        """
        os.utime(self.folder / OWNER)

    def remove(self) -> None:
        """Removes the folder, as far as the disk allows; the rest is swept up later."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def fence(self) -> None:
        """Removes the folders of all rivals, so that nothing they still do has an effect.

        The caller holds the claim on the subject, and has looked at it since `make`.

        Raises:
            StoreError: one of them cannot be removed.
            OSError: the parent cannot be read.
        """
        rival = re.compile(re.escape(self.subject) + r"-[0-9a-f.]+")
        for name in os.listdir(self.folder.parent):
            if rival.fullmatch(name) and name != self.folder.name:
                _remove(self.folder.parent / name, self.subject)

    def publish(self, file: str, target: Path) -> None:
        """Gives a file of this folder its place, where nothing may be.

        Raises:
            FileExistsError: something is there.
            OSError: it cannot be moved there.
        """
        place(self.folder / file, target)
        with suppress(OSError):  # some file systems count a name as a file, of which there may not be twice as many
            (self.folder / file).unlink()

    def replace(self, file: str, target: Path) -> None:
        """Gives a file of this folder its place, in one step with the removal of what is there.

        Raises:
            OSError: it cannot be moved there.
        """
        os.replace(self.folder / file, target)

    def write(self, file: str, content: bytes) -> None:
        """Writes a new file into this folder, and the folders above it: durably.

        Raises:
            OSError: it cannot be written.
        """
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        write_new(path, content)

    def enter(self, file: str, content: bytes, target: Path) -> None:
        """Writes a file and gives it its place, where nothing may be: durably.

        Raises:
            FileExistsError: something is there.
            OSError: it cannot be written.
        """
        self.write(file, content)
        self.publish(file, target)
        sync_folder(target.parent)

    def take_away(self, target: Path) -> bool:
        """Takes a file from its place; returns whether there was one.

        Raises:
            IsADirectoryError: it is a folder, which no attempt has made.
            OSError: it cannot be moved.
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
        """Takes a folder, if it is there, or a file from its place.

        Raises:
            OSError: it cannot be moved.
        """
        if os.path.lexists(target):
            os.rename(target, self.folder / _ASIDE / target.name)

    def drop_taken(self) -> None:
        """Removes what was taken away, together with the place it went to.

        So a network that delivers a call twice cannot take away what is published after this.

        Raises:
            OSError: it cannot be removed.
        """
        aside, dropped = self.folder / _ASIDE, self.folder / _DROPPED
        # On NFS what somebody reads keeps a name in the folder that it is removed from, which so could not be removed.
        if taken := os.listdir(aside):
            dropped.mkdir()
            for name in taken:
                (aside / name).rename(dropped / name)
        aside.rmdir()
        aside.mkdir()
        shutil.rmtree(dropped, ignore_errors=True)


@contextmanager
def alone(parent: Path, subject: str, lease: Lease | None) -> Iterator[Staging]:
    """Gives a private folder, after those of all rivals were removed; it goes with the context.

    Args:
        parent: of the folders.
        subject: of the work.
        lease: on it; without one, rivals may remove the folders of each other, and at most one of them gets through.

    Raises:
        StoreError: the claim was lost, or a folder cannot be removed.
        OSError: the folder cannot be made.
    """
    staging = Staging.beside(parent, subject)
    try:
        staging.make()
        if lease and not lease.held():
            raise StoreError(
                f"{lease.path}: the claim must be held until the work is done, but was lost to another process or "
                "removed; run again"
            )
        staging.fence()
        yield staging
    finally:
        staging.remove()


def _remove(folder: Path, subject: str) -> None:
    """Removes a folder that someone may still be writing into."""
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
    """Whether anything can still be moved out of a folder or aside into it."""
    files = (name for _, _, names in os.walk(folder) for name in names)
    return (folder / _ASIDE).exists() or any(not name.startswith(_HELD_OPEN) for name in files)
