"""Bytes become a file that is whole or absent, and that outlasts a power failure.

A file appears in one step with its whole content, so that any number of processes on any number of hosts may share a
folder without talking to each other.
"""

import errno
import os
import shutil
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from graphcast_batch.errors import StoreError, StoreUnwritableError

LEFT_OVER_SECONDS: Final = 86400.0
_NO_LINKS: Final = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
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
                f"{path} must be a {cls.__name__.lower()} as this program writes it, but is damaged; delete it and "
                f"run again: {error}"
            ) from error


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
        _write(temporary, content, durably)
        os.link(temporary, path)
    except OSError as error:
        # A network file system may have made the link and lost the answer.
        if not (isinstance(error, FileExistsError) and _are_one(temporary, path)):
            if error.errno not in _NO_LINKS:
                raise
            _write_or_remove(path, content, durably)
    finally:
        temporary.unlink(missing_ok=True)
    if durably:
        sync_folder(path.parent)


def replace(path: Path, content: bytes) -> None:
    """Writes a file, or puts another in its place: durably, and with all of its content in one step.

    Raises:
        OSError: it cannot be written.
    """
    temporary = _temporary(path)
    try:
        _write(temporary, content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def seal(file: Path) -> tuple[int, str]:
    """Makes a file outlast a power failure; its size in bytes and CRC-32 (hexadecimal)."""
    checksum = 0
    with file.open("rb") as content:
        os.fsync(content.fileno())
        while part := content.read(2**20):
            checksum = zlib.crc32(part, checksum)
        return content.tell(), f"{checksum:08x}"


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
    """Removes a file or folder that nobody touched for a day; returns whether it did."""
    if not untouched(path, folder_clock(path.parent)):
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
    return path.with_name(f".{uuid.uuid4().hex}.tmp")


def _are_one(temporary: Path, path: Path) -> bool:
    """Whether two names are of one file; not if the other, which was there, is gone by now."""
    try:
        return os.path.samefile(temporary, path)
    except FileNotFoundError:
        return False


def _write_or_remove(path: Path, content: bytes, durably: bool) -> None:
    """Writes a file that must not exist yet; half of one would pass for a whole one."""
    try:
        _write(path, content, durably)
    except FileExistsError:
        raise
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _write(path: Path, content: bytes, durably: bool = True) -> None:
    with path.open("xb") as file:
        file.write(content)
        if durably:
            file.flush()
            os.fsync(file.fileno())
