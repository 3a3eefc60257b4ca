"""Write files that are complete or absent, and that outlast a power failure.

A file appears in one step with all of its content, so that any number of processes on any number of hosts may share a
folder without other means of communication.
"""

import ctypes
import errno
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from graphcast_batch.errors import StoreError, StoreUnwritableError
from graphcast_batch.files.process_identity import left_by_the_dead, mark

LEFT_OVER_SECONDS: Final = 86400.0
"""How long a file or folder of a process on another host must be untouched before it counts as abandoned."""
_READ_BYTES: Final = 2**20
_NO_LINKS: Final = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_NO_LINKS_ACROSS: Final = _NO_LINKS | {errno.EXDEV, errno.EMLINK}
"""Errors of linking between folders: some file systems link within a folder only."""
_NO_FLAGS: Final = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1
"""Arguments of renameat2(2)."""
_NO_SPACE: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_PERMISSION: Final = {errno.EROFS, errno.EACCES, errno.EPERM}


class Entry(BaseModel):
    """The content of one small JSON file."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read the content of a file; return None if there is no such file.

        Raises:
            StoreError: the file is damaged.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise StoreError(
                f"{path} must be a {_words_of(cls.__name__)} that this program wrote, but is damaged; delete it and "
                f"run again: {first_fault(error)}"
            ) from error


def first_fault(error: BaseException | None) -> str:
    """Return the first fault that a validation found, in one line; for other errors their message."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    more = f" and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return f"{where}: {first['msg']}{more}" if where else f"{first['msg']}{more}"


def publish(path: Path, content: bytes, *, durably: bool = True) -> None:
    """Write a file that must not exist yet, with all of its content in one step.

    Args:
        path: path of the file.
        content: content of the file.
        durably: whether the file must outlast a power failure; else it may be empty or gone after one.

    Raises:
        FileExistsError: the file exists.
        OSError: the file cannot be written.
    """
    temporary = _temporary(path)
    try:
        write_new(temporary, content, durably)
        os.link(temporary, path)
    except OSError as error:
        # A network file system may have made the link and lost its reply.
        if not (isinstance(error, FileExistsError) and _are_one(temporary, path)):
            if error.errno not in _NO_LINKS:
                raise
            _write_or_remove(path, content, durably)
    finally:
        with suppress(OSError):  # the file is published all the same, and `drop_left_over` removes the other name
            temporary.unlink()
    if durably:
        sync_folder(path.parent)


def place(source: Path, target: Path) -> None:
    """Move a file to another path, at which nothing may be yet; with hard links it keeps the old path as well.

    Raises:
        FileExistsError: something is at the other path.
        OSError: the file cannot be moved.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if isinstance(error, FileExistsError) and _are_one(source, target):
            return  # the reply was lost, as above
        if error.errno not in _NO_LINKS_ACROSS:
            raise
        _rename_without_replacing(source, target)


def replace(path: Path, content: bytes) -> None:
    """Write a file, or replace the one that is there: durably, and with all of its content in one step.

    Raises:
        OSError: the file cannot be written.
    """
    temporary = _temporary(path)
    try:
        write_new(temporary, content)
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()
    sync_folder(path.parent)


def write_new(path: Path, content: bytes, durably: bool = True) -> None:
    """Write a file that must not exist yet, in several steps."""
    with path.open("xb") as file:
        file.write(content)
        if durably:
            file.flush()
            os.fsync(file.fileno())


@dataclass(frozen=True)
class Sealed:
    """What identifies a file that outlasts a power failure.

    Attributes:
        size: size in bytes.
        checksum: CRC-32, hexadecimal.
        device: number of the file system.
        inode: number of the file in the file system.
    """

    size: int
    checksum: str
    device: int
    inode: int

    def is_at(self, path: Path) -> bool:
        """Return whether this file is the one at a path.

        Some file systems in user space number a file by its name. There the content decides.

        Raises:
            OSError: the path cannot be read.
        """
        found = path.stat()
        if (found.st_dev, found.st_ino) == (self.device, self.inode):
            return found.st_size == self.size
        return found.st_size == self.size and checksum_of(path) == self.checksum


def seal(file: Path) -> Sealed:
    """Make a file outlast a power failure."""
    with file.open("rb") as content:
        os.fsync(content.fileno())
        found = os.fstat(content.fileno())
    return Sealed(found.st_size, checksum_of(file), found.st_dev, found.st_ino)


def checksum_of(path: Path) -> str:
    """Return the CRC-32 of a file, hexadecimal."""
    checksum, buffer = 0, memoryview(bytearray(_READ_BYTES))
    with path.open("rb", buffering=0) as content:
        while count := content.readinto(buffer):
            checksum = zlib.crc32(buffer[:count], checksum)
    return f"{checksum:08x}"


def sync_folder(folder: Path) -> None:
    """Make the names in a folder outlast a power failure, after files were linked, renamed or removed in it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Make a folder with everything in it outlast a power failure."""
    for parent, _, names in os.walk(folder):
        for name in names:
            seal(Path(parent) / name)
        sync_folder(Path(parent))


def drop_left_over(path: Path) -> bool:
    """Remove a file or folder that was not touched for a day, or whose process died on this host.

    Returns:
        Whether it was removed.
    """
    if not left_by_the_dead(path.name) and not untouched(path, folder_clock(path.parent)):
        return False
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return True


def untouched(path: Path, clock: float) -> bool:
    """Return whether a file or folder exists and was not touched for a day.

    Args:
        path: the file or folder.
        clock: `folder_clock` of the folder that it is in.
    """
    try:
        return clock - path.stat().st_mtime > LEFT_OVER_SECONDS
    except FileNotFoundError:
        return False


def folder_clock(folder: Path) -> float:
    """Return the time in seconds by the clock that stamps files in a folder; the clocks of two hosts may differ."""
    probe = _temporary(folder / "clock")
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:  # no permission to write, or no space left
        return datetime.now(UTC).timestamp()
    finally:
        with suppress(OSError):
            probe.unlink()


def now() -> str:
    """Return the time as UTC to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Return a context that turns an OSError into an error that names what was done and what to do.

    Args:
        what: what is done in the context.

    Raises:
        StoreUnwritableError: an OSError that would have happened with any other file too.
        StoreError: another OSError.
    """
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        kind = StoreUnwritableError if error.errno in _NO_SPACE | _NO_PERMISSION else StoreError
        raise kind(
            f"{what} failed: {error}; {_remedy(error)} and run again: what is complete stays complete"
        ) from error


def _remedy(error: OSError) -> str:
    if error.errno in _NO_SPACE:
        return "free space, or raise the quota or the limits of files"
    if error.errno in _NO_PERMISSION:
        return "correct the mount or the permissions"
    if isinstance(error, FileNotFoundError | NotADirectoryError) or error.errno == errno.ESTALE:
        return "put back what was removed or moved there"
    return "repair the disk or its connection"


def _words_of(name: str) -> str:
    """Return the name of a class as words, like ``case record``."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower()


def _temporary(path: Path) -> Path:
    return path.with_name(f".{mark()}.tmp")


def _are_one(temporary: Path, path: Path) -> bool:
    """Return whether two paths are of one file; False if the second file is gone by now."""
    try:
        return os.path.samefile(temporary, path)
    except FileNotFoundError:
        return False


def _rename_without_replacing(source: Path, target: Path) -> None:
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call:
        names = os.fsencode(source), os.fsencode(target)
        if call(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE) == 0:
            return
        if (code := ctypes.get_errno()) not in _NO_FLAGS:
            raise OSError(code, os.strerror(code), str(source), None, str(target))
    # This file system cannot do it in one step. The folders of rivals were removed before, so that none is faster.
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    os.rename(source, target)


def _write_or_remove(path: Path, content: bytes, durably: bool) -> None:
    """Write a file that must not exist yet; remove it if it is not complete, as it would pass for a complete one."""
    try:
        write_new(path, content, durably)
    except FileExistsError:
        raise
    except OSError:
        path.unlink(missing_ok=True)
        raise
