"""Bytes become a file that is whole or absent, and that outlasts a power failure.

A file appears in one step with its whole content, so that any number of processes on any number of hosts may share a
folder without talking to each other.
"""

import ctypes
import errno
import os
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
_READ_BYTES: Final = 2**20
_NO_LINKS: Final = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_NO_LINKS_ACROSS: Final = _NO_LINKS | {errno.EXDEV, errno.EMLINK}
"""Some file systems link within a folder only."""
_NO_FLAGS: Final = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1
"""Of renameat2(2)."""
_NO_SPACE: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_PERMISSION: Final = {errno.EROFS, errno.EACCES, errno.EPERM}


class Entry(BaseModel):
    """What one small file says."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """What a file says; None if there is no such file.

        Raises:
            StoreError: the file is damaged.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise StoreError(
                f"{path} must be a {cls.__name__.removeprefix('Case').lower()} as this program writes it, but is damaged; delete it and "
                f"run again: {first_fault(error)}"
            ) from error


def first_fault(error: BaseException | None) -> str:
    """What is wrong, in a line."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    more = f" and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return f"{where}: {first['msg']}{more}" if where else f"{first['msg']}{more}"


def publish(path: Path, content: bytes, *, durably: bool = True) -> None:
    """Writes a file that must not exist yet, with all of its content in one step.

    Args:
        path: of the file.
        content: of the file.
        durably: whether it must outlast a power failure; else it may be empty or gone after one.

    Raises:
        FileExistsError: it exists.
        OSError: it cannot be written.
    """
    temporary = _temporary(path)
    try:
        write_new(temporary, content, durably)
        os.link(temporary, path)
    except OSError as error:
        # A network file system may have made the link and lost the answer.
        if not (isinstance(error, FileExistsError) and _are_one(temporary, path)):
            if error.errno not in _NO_LINKS:
                raise
            _write_or_remove(path, content, durably)
    finally:
        with suppress(OSError):  # the file is published all the same, and `drop_left_over` takes the other name away
            temporary.unlink()
    if durably:
        sync_folder(path.parent)


def place(source: Path, target: Path) -> None:
    """Gives a file another place, where nothing may be yet; where there are hard links, it keeps its own as well.

    Raises:
        FileExistsError: something is at the other place.
        OSError: it cannot be moved there.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if isinstance(error, FileExistsError) and _are_one(source, target):
            return  # the answer was lost, as above
        if error.errno not in _NO_LINKS_ACROSS:
            raise
        _rename_without_replacing(source, target)


def replace(path: Path, content: bytes) -> None:
    """Writes a file, or puts another in its place: durably, and with all of its content in one step.

    Raises:
        OSError: it cannot be written.
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
    """Writes a file that is not there yet."""
    with path.open("xb") as file:
        file.write(content)
        if durably:
            file.flush()
            os.fsync(file.fileno())


@dataclass(frozen=True)
class Sealed:
    """What tells a file that outlasts a power failure from all others.

    Attributes:
        size: bytes.
        checksum: CRC-32, hexadecimal.
        device: number of its file system.
        inode: its number there.
    """

    size: int
    checksum: str
    device: int
    inode: int

    def is_at(self, path: Path) -> bool:
        """Whether it is this file that stands at a path.

        Some file systems in user space number a file by its name. There the content decides.

        Raises:
            OSError: it cannot be told.
        """
        found = path.stat()
        if (found.st_dev, found.st_ino) == (self.device, self.inode):
            return found.st_size == self.size
        return found.st_size == self.size and checksum_of(path) == self.checksum


def seal(file: Path) -> Sealed:
    """Makes a file outlast a power failure."""
    with file.open("rb") as content:
        os.fsync(content.fileno())
        found = os.fstat(content.fileno())
    return Sealed(found.st_size, checksum_of(file), found.st_dev, found.st_ino)


def checksum_of(path: Path) -> str:
    """CRC-32 of a file, hexadecimal."""
    checksum, buffer = 0, memoryview(bytearray(_READ_BYTES))
    with path.open("rb", buffering=0) as content:
        while count := content.readinto(buffer):
            checksum = zlib.crc32(buffer[:count], checksum)
    return f"{checksum:08x}"


def sync_folder(folder: Path) -> None:
    """Makes what was linked into a folder or renamed in it outlast a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Makes a folder with all that is in it outlast a power failure."""
    for parent, _, names in os.walk(folder):
        for name in names:
            seal(Path(parent) / name)
        sync_folder(Path(parent))


def drop_left_over(path: Path) -> bool:
    """Removes a file or folder that nobody touched for a day, or of a process that died beside this one.

    Returns:
        whether it did.
    """
    if not left_by_the_dead(path.name) and not untouched(path, folder_clock(path.parent)):
        return False
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return True


def untouched(path: Path, clock: float) -> bool:
    """Whether something is there that was not touched for a day.

    Args:
        path: a file or folder.
        clock: `folder_clock` of where it is.
    """
    try:
        return clock - path.stat().st_mtime > LEFT_OVER_SECONDS
    except FileNotFoundError:
        return False


def folder_clock(folder: Path) -> float:
    """Now, by the clock that stamps files in a folder: those of two hosts may differ."""
    probe = _temporary(folder / "clock")
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:  # someone who may only read, or has no space left
        return datetime.now(UTC).timestamp()
    finally:
        with suppress(OSError):
            probe.unlink()


def now() -> str:
    """UTC to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turns what the operating system says into an error that names what was done and what to do.

    Raises:
        StoreUnwritableError: an OSError came from inside that any other file would have met too.
        StoreError: another OSError came from inside.
    """
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        kind = StoreUnwritableError if error.errno in _NO_SPACE | _NO_PERMISSION else StoreError
        raise kind(f"{what} failed: {error}; {_remedy(error)} and run again: what is whole stays whole") from error


def _remedy(error: OSError) -> str:
    if error.errno in _NO_SPACE:
        return "mend the space, quota or limits of files"
    if error.errno in _NO_PERMISSION:
        return "mend the mount or the permissions"
    if isinstance(error, FileNotFoundError | NotADirectoryError) or error.errno == errno.ESTALE:
        return "put back what was removed or moved there"
    return "mend the disk or its connection"


def _temporary(path: Path) -> Path:
    return path.with_name(f".{mark()}.tmp")


def _are_one(temporary: Path, path: Path) -> bool:
    """Whether two names are of one file; not if the other, which was there, is gone by now."""
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
    # Nothing does it in one step here: whoever may be there was looked for before, and has lost its own folder.
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    os.rename(source, target)


def _write_or_remove(path: Path, content: bytes, durably: bool) -> None:
    """Writes a file that must not exist yet; half of one would pass for a whole one."""
    try:
        write_new(path, content, durably)
    except FileExistsError:
        raise
    except OSError:
        path.unlink(missing_ok=True)
        raise
