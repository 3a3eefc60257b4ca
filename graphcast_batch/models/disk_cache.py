"""Keep results that take long to compute in a folder, from which later processes read them.

Each result is an entry: a file that is complete once it is visible, as it is renamed, and that begins with a digest of
its content. An entry that was truncated by a crash or a full disk, or that was damaged later, is removed and computed
again. Any number of processes on any number of hosts may share a folder. If the folder cannot be read or written,
everything is computed as if it were empty.
"""

import fcntl
import grp
import hashlib
import logging
import os
import pwd
import re
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Self

from graphcast_batch.errors import ConfigError

_LOG: Final = logging.getLogger(__name__)
_DIGEST_BYTES: Final = 16
_MOST_BYTES: Final = 8 * 10**9
_PATIENCE_SECONDS: Final = 600.0
"""How long to wait for another process that computes an entry, before this one computes it too."""
_LOOK_SECONDS: Final = 0.1
_OURS: Final = re.compile(r"[a-z]+-[0-9a-f]{32}(-[0-9a-f]{32})?\.(entry|lock|tmp)")
"""Names of files that may be removed from a folder that may hold other files too."""


@dataclass(frozen=True)
class Cache:
    """A folder of entries; when it is full, those that were used least recently are removed.

    Attributes:
        folder: the folder; it is made when it is needed. Whoever may write there may run code here, as compiled
            programs are among the entries.
        most_bytes: largest size of all entries together.
        patience: seconds to wait for another process that computes an entry.
    """

    folder: Path
    most_bytes: int = _MOST_BYTES
    patience: float = _PATIENCE_SECONDS

    @property
    def writable(self) -> bool:
        """Whether permissions allow entries to be written."""
        there = next(folder for folder in (self.folder, *self.folder.parents) if folder.exists())
        return there.is_dir() and os.access(there, os.W_OK | os.X_OK)

    @property
    def fault(self) -> str:
        """Why other users may have put programs into the folder, which must not be run here; empty if they cannot have.

        The folder may belong to root, or to this user with a group that has no other members, as many systems make one
        for each user.
        """
        try:
            found = self.folder.stat()
        except OSError:
            return ""
        if found.st_uid not in (os.geteuid(), 0):
            return f"belongs to {_user(found.st_uid)}"
        if found.st_mode & stat.S_IWOTH:
            return f"may be written by everybody (mode {stat.S_IMODE(found.st_mode):04o})"
        if found.st_mode & stat.S_IWGRP and not _is_private(found.st_gid):
            return f"may be written by the group {_group(found.st_gid)} (mode {stat.S_IMODE(found.st_mode):04o})"
        return ""

    def check(self) -> Self:
        """Return the cache itself, if the programs in its folder may be run here.

        Raises:
            ConfigError: other users may have put them there.
        """
        if self.fault:
            raise ConfigError(
                f"the cache {self.folder} must be writable by its owner alone, you or root, since the programs in it "
                f"are executed, but it {self.fault}; if you trust what it holds: chown it or chmod go-w it, else name "
                "another folder (cache: FOLDER), or do without one (cache: off)"
            )
        return self

    @contextmanager
    def turn(self, name: str, read: Callable[[bytes], object] = len) -> Iterator[bytes | None]:
        """Give the entry of a name; None to the one process that must compute it, while all others wait.

        If that process dies, or leaves without `put`, another one gets None. If it takes too long, the others do not
        wait any more, so that an entry may be computed twice.

        Args:
            name: name of the entry, by `entry_name`.
            read: takes the content of the entry; it raises if that is not what it should be, although its digest fits.
        """
        kept = self.get(name, read)
        if kept is not None:
            yield kept
            return
        with self._lock_file(name) as lock:
            yield self._wait(name, lock, read) if lock else None

    def get(self, name: str, read: Callable[[bytes], object] = len) -> bytes | None:
        """Return the entry of a name; None if there is none that can be read; see `turn`."""
        path = self._entry(name)
        try:
            with path.open("rb") as file:
                digest, content = file.read(_DIGEST_BYTES), file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            _LOG.warning("%s cannot be read and is computed again: %s", path, error)
            return None
        try:
            sound = digest == _digest(content)
            if sound:
                read(content)
        except Exception as error:  # whatever a library makes of bytes that are not what it writes
            _LOG.warning("%s does not hold what this program keeps there: %r", path, error)
            sound = False
        if not sound:
            _LOG.warning("%s is damaged, so it is removed and computed again", path)
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)  # file systems are often mounted such that reading leaves no trace
        return content

    def put(self, name: str, content: bytes) -> None:
        """Write an entry, if the folder can be written."""
        temporary = self.folder / f"{name}-{uuid.uuid4().hex}.tmp"
        try:
            self._make_folder()
            self._make_room(len(content))
            with temporary.open("xb") as file:
                file.write(_digest(content))
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._entry(name))
        except OSError as error:
            _LOG.warning("no entry can be written to %s, so each process computes its own: %s", self.folder, error)
            with suppress(OSError):
                temporary.unlink()

    def _entry(self, name: str) -> Path:
        return self.folder / f"{name}.entry"

    def _make_folder(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def _lock_file(self, name: str) -> Iterator[BinaryIO | None]:
        try:
            self._make_folder()
            lock = (self.folder / f"{name}.lock").open("ab")
        except OSError:
            yield None  # nobody could publish there either
            return
        with lock:
            yield lock

    def _wait(self, name: str, lock: BinaryIO, read: Callable[[bytes], object]) -> bytes | None:
        give_up = time.monotonic() + self.patience
        while not _locked(lock) and time.monotonic() < give_up:
            time.sleep(_LOOK_SECONDS)
            kept = self.get(name, read)
            if kept is not None:
                return kept
        return self.get(name, read)  # it may have come just before the lock was free

    def _make_room(self, size: int) -> None:
        # Entries are read whole, so that nobody needs the file of one that is in use.
        files = [(stat.st_mtime, stat.st_size, path) for path, stat in self._files()]
        excess = size + sum(size for _, size, _ in files) - self.most_bytes
        for _, freed, path in sorted(files):
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= freed

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        with os.scandir(self.folder) as found:
            for file in found:
                if _OURS.fullmatch(file.name):
                    with suppress(FileNotFoundError):  # someone else makes room
                        yield Path(file.path), file.stat()


def entry_name(kind: str, *key: object) -> str:
    """Return the name of an entry.

    Args:
        kind: kind of the entry, in lower-case letters.
        key: everything that the entry depends on; parts that differ must differ in their repr.
    """
    return f"{kind}-{hashlib.blake2b(repr(key).encode(), digest_size=16).hexdigest()}"


def digest_of_source(*files: Path) -> str:
    """Return a digest of some source files, by which entries of changed code are not found any more."""
    return hashlib.blake2b(b"\0".join(file.read_bytes() for file in files), digest_size=16).hexdigest()


def users_folder() -> Path | None:
    """Return the folder for a user's caches (XDG Base Directory Specification 0.8); None if there is none."""
    caches = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(caches):
        caches = os.path.expanduser("~/.cache")
    return Path(caches) / "graphcast-batch" if os.path.isabs(caches) else None


def _is_private(group: int) -> bool:
    """Return whether a group is this user's own, judged by its name and members."""
    try:
        user, found = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(group)
    except KeyError:
        return False
    return found.gr_name == user and set(found.gr_mem) <= {user}


def _user(number: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(number).pw_name
    return f"user {number}"


def _group(number: int) -> str:
    with suppress(KeyError):
        return grp.getgrgid(number).gr_name
    return str(number)


def _locked(file: BinaryIO) -> bool:
    """Return whether this process has the lock of a file, or nobody can: some network file systems have no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()
