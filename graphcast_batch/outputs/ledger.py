"""What becomes of each Case turns into small files: claimed, failed, or whole with all that was written.

Every file appears in one step with its whole content, so that any number of processes on any number of hosts may
share a ledger without talking to each other. The folder holds ``<key>.claim``, ``<key>.failed.json`` and, by number
of steps, ``steps-<steps>/<key>.json``: which Cases are whole, and how far they reach, is known from names alone.
"""

import errno
import math
import os
import re
import shutil
import socket
import traceback
import uuid
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final, Self, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from graphcast_batch.errors import StoreError
from graphcast_batch.plan import Case

_KEY: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}")
_CLAIM, _FAILED, _RECORD, _STEPS = ".claim", ".failed.json", ".json", "steps-"
_LEFT_OVER_SECONDS: Final = 86400.0
_NO_LINKS: Final = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


class State(StrEnum):
    """What the ledger knows of a Case."""

    WHOLE = "whole"
    RUNNING = "running"
    FAILED = "failed"
    MISSING = "missing"


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


Entry = TypeVar("Entry", bound=_Entry)


class Record(_Entry):
    """A whole Case: written last, after all that it speaks of is in the store.

    Attributes:
        key: of the Case.
        init_time: initial time, UTC, ISO 8601.
        steps: number of 6 h steps that are in the store.
        bytes: size of the files.
        files: size in bytes and CRC-32 (hexadecimal) of each file, by its path in the store.
        seconds: time spent, by stage.
        host: where it was made.
        device: what it was computed on.
        worker: which worker made it.
        attempts: how many it took, this one included.
        finished_at: UTC, ISO 8601.
        details: whatever else the run wants to keep.
    """

    key: str
    init_time: str
    steps: int
    bytes: int
    files: dict[str, tuple[int, str]]
    seconds: dict[str, float]
    host: str
    device: str
    worker: str
    attempts: int
    finished_at: str
    details: dict[str, JsonValue]


class Failure(_Entry):
    """A Case set aside after its last attempt failed."""

    key: str
    error: str
    message: str
    traceback: str
    attempts: int
    host: str
    failed_at: str

    @classmethod
    def of(cls, case: Case, error: BaseException, attempts: int) -> Self:
        """What went wrong with a Case, on this host, now."""
        return cls(
            key=case.key,
            error=type(error).__name__,
            message=str(error),
            traceback="".join(traceback.format_exception(error)),
            attempts=attempts,
            host=socket.gethostname(),
            failed_at=now(),
        )


class Owner(_Entry):
    """The process that holds something, told so exactly that its death can be seen from beside it.

    Attributes:
        host: its host name.
        scope: boot, process namespace and user within which process numbers mean the same.
        pid: its process number.
        started: when it started, in the kernel's ticks; a process number used again differs in it.
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

    @classmethod
    def here(cls, lease_seconds: float) -> Self:
        """This process, holding something new."""
        return cls(
            host=socket.gethostname(),
            scope=_scope(),
            pid=os.getpid(),
            started=_started(os.getpid()),
            token=uuid.uuid4().hex,
            lease_seconds=lease_seconds,
            since=now(),
        )

    @property
    def gone(self) -> bool:
        """Whether it surely died: it ran beside this process, and no longer does."""
        beside = self.started != "" and (self.host, self.scope) == (socket.gethostname(), _scope())
        return beside and _started(self.pid) != self.started


@dataclass(frozen=True)
class Claim:
    """A lease on something that only one process may do at a time.

    It lasts while its owner calls `beat` more often than every ``lease_seconds``; then anyone may take it over.
    """

    path: Path
    owner: Owner

    @classmethod
    def take(cls, path: Path, lease_seconds: float) -> Self | None:
        """Takes the lease that a file stands for, unless a live owner has it.

        Raises:
            StoreError: the file cannot be written.
        """
        claim = cls(path, Owner.here(lease_seconds))
        with explained(f"the claim {path}"):
            _drop_expired(path, lease_seconds)
            try:
                publish(path, claim.owner.model_dump_json().encode())
            except FileExistsError:
                return None
        return claim

    def held(self) -> bool:
        """Whether the lease is still this owner's."""
        with explained(f"the claim {self.path}"):
            owner = _owner(self.path)
        return owner is not None and owner.token == self.owner.token

    def beat(self) -> bool:
        """Prolongs the lease; False if it was lost to someone else."""
        held = self.held()
        if held:
            with explained(f"the claim {self.path}"), suppress(FileNotFoundError):
                os.utime(self.path)
        return held

    def release(self) -> None:
        """Gives the lease back, if it is still this owner's."""
        if self.held():
            self.path.unlink(missing_ok=True)


class Ledger:
    """The states of the Cases of one store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def states(self, cases: Iterable[Case]) -> dict[str, State]:
        """The state of each Case by its key, from one look at the folder.

        A Case of which fewer steps are whole than it has is missing.

        Raises:
            StoreError: the folder cannot be read.
        """
        with explained(f"the ledger {self.folder}"):
            # Claims are looked at before records, since a Case is recorded before its claim is released.
            names = os.listdir(self.folder)
            claims = [name for name in names if name.endswith(_CLAIM)]
            clock = _clock(self.folder) if claims else 0.0
            running = {
                name.removesuffix(_CLAIM) for name in claims if not _expired(self.folder / name, math.inf, clock)
            }
            failed = {name.removesuffix(_FAILED) for name in names if name.endswith(_FAILED)}
            whole = self._whole_steps(names)
        return {case.key: _state(case, whole, running, failed) for case in cases}

    def claim(self, case: Case, lease_seconds: float) -> Claim | None:
        """Claims a Case for this process; None if it is whole or a live owner has claimed it.

        A claim without a heartbeat for its own lease, or whose process on this very host is dead, is taken over.

        Raises:
            StoreError: the ledger cannot be written.
        """
        if self.record(case.key, case.steps):
            return None
        claim = Claim.take(self._path(case.key, _CLAIM), lease_seconds)
        if claim and self.record(case.key, case.steps):  # became whole between the look and the claim
            claim.release()
            return None
        return claim

    def enter(self, record: Record) -> Record:
        """Declares a Case whole; all that its record speaks of must be on disk.

        Returns:
            the record that stands: an earlier one if the Case was whole already.

        Raises:
            StoreError: the ledger cannot be written.
        """
        with explained(f"{record.key}: recording it in {self.folder}"):
            path = self._record_path(record.key, record.steps)
            if not path.parent.exists():
                path.parent.mkdir(exist_ok=True)
                sync_folder(self.folder)
            with suppress(FileExistsError):
                publish(path, record.model_dump_json(indent=1).encode())
            for steps in self._lengths(os.listdir(self.folder)):
                if steps < record.steps:
                    self._record_path(record.key, steps).unlink(missing_ok=True)
            self._path(record.key, _FAILED).unlink(missing_ok=True)
        return self.record(record.key, record.steps) or record

    def fail(self, failure: Failure) -> None:
        """Sets a Case aside.

        Raises:
            StoreError: the ledger cannot be written.
        """
        with explained(f"{failure.key}: setting it aside in {self.folder}"):
            replace(self._path(failure.key, _FAILED), failure.model_dump_json(indent=1).encode())

    def free_failed(self, keys: Collection[str] | None = None) -> list[str]:
        """Forgets the failures of these Cases, or of all, so that they are tried again.

        Returns:
            the keys that were freed, in order.
        """
        with explained(f"freeing the failed Cases in {self.folder}"):
            names = os.listdir(self.folder)
            failed = {name.removesuffix(_FAILED) for name in names if name.endswith(_FAILED)}
            freed = sorted(failed if keys is None else failed.intersection(keys))
            for key in freed:
                self._path(key, _FAILED).unlink(missing_ok=True)
        return freed

    def record(self, key: str, steps: int = 1) -> Record | None:
        """The longest record of a Case that is whole to at least so many steps.

        Raises:
            StoreError: the record is damaged.
        """
        with explained(f"{key}: its record in {self.folder}"):
            lengths = [length for length in self._lengths(os.listdir(self.folder)) if length >= steps]
        for length in sorted(lengths, reverse=True):
            found = _read(self._record_path(key, length), Record)
            if found:
                return found
        return None

    def failure(self, key: str) -> Failure | None:
        """Why a Case was set aside; None if it was not.

        Raises:
            StoreError: the file is damaged.
        """
        return _read(self._path(key, _FAILED), Failure)

    def claim_owner(self, key: str) -> Owner | None:
        """Who has claimed a Case, dead or alive."""
        return _owner(self._path(key, _CLAIM))

    def sweep(self) -> list[Path]:
        """Removes what writers that died half-way left behind a day or more ago; returns what it removed."""
        found = [path for path in self.folder.rglob(".*") if path.suffix in (".tmp", ".aside")]
        return [path for path in found if drop_left_over(path)]

    def _path(self, key: str, suffix: str) -> Path:
        if not _KEY.fullmatch(key):
            raise StoreError(f"the key of a Case must look like 2020-01-01T06, but is {key!r}")
        return self.folder / f"{key}{suffix}"

    def _record_path(self, key: str, steps: int) -> Path:
        path = self._path(key, _RECORD)
        return path.parent / f"{_STEPS}{steps}" / path.name

    def _lengths(self, names: Iterable[str]) -> list[int]:
        return [int(name.removeprefix(_STEPS)) for name in names if re.fullmatch(rf"{_STEPS}\d+", name)]

    def _whole_steps(self, names: Iterable[str]) -> dict[str, int]:
        """Steps by key, the most where there are several records."""
        whole: dict[str, int] = {}
        for steps in sorted(self._lengths(names)):
            records = os.listdir(self.folder / f"{_STEPS}{steps}")
            whole |= {name.removesuffix(_RECORD): steps for name in records if name.endswith(_RECORD)}
        return whole


def now() -> str:
    """UTC to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def publish(path: Path, content: bytes) -> None:
    """Writes a file that must not exist yet: durably, and with all of its content in one step.

    Raises:
        FileExistsError: it exists.
        OSError: it cannot be written.
    """
    temporary = _temporary(path)
    try:
        _write(temporary, content)
        os.link(temporary, path)
    except OSError as error:
        # A network file system may have made the link and lost the answer.
        if not (isinstance(error, FileExistsError) and os.path.samefile(temporary, path)):
            if error.errno not in _NO_LINKS:
                raise
            _write(path, content)
    finally:
        temporary.unlink(missing_ok=True)
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


def sync_folder(folder: Path) -> None:
    """Makes what was linked into a folder or renamed in it outlast a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def drop_left_over(path: Path, owner: Path | None = None) -> bool:
    """Removes a file or folder that nobody works on any more; returns whether it did.

    Args:
        path: what may be left over.
        owner: file that tells who made it; it is touched while the work goes on.
    """
    try:
        known = _owner(owner) if owner else None
        touched = (owner if owner and known else path).stat().st_mtime
        if not (known and known.gone) and _clock(path.parent) - touched <= _LEFT_OVER_SECONDS:
            return False
    except FileNotFoundError:
        return False
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return True


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turns what the operating system says into an error that names what was done and what to do.

    Raises:
        StoreError: an OSError came from inside.
    """
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(
            f"{what} failed: {error}; mend the space, quota or permissions and run again: what is whole stays whole"
        ) from error


def _state(case: Case, whole: dict[str, int], running: set[str], failed: set[str]) -> State:
    key = case.key
    if whole.get(key, 0) >= case.steps:
        return State.WHOLE
    if key in running:
        return State.RUNNING
    return State.FAILED if key in failed else State.MISSING


def _drop_expired(path: Path, lease_seconds: float) -> None:
    aside = path.with_name(f".{uuid.uuid4().hex}.aside")
    with suppress(FileNotFoundError):
        judged = path.read_bytes()
        if not _expired(path, lease_seconds, _clock(path.parent)):
            return
        os.rename(path, aside)
        if aside.read_bytes() != judged:  # another taker was faster, and this is its fresh claim
            with suppress(FileExistsError):
                publish(path, aside.read_bytes())
        aside.unlink()


def _expired(path: Path, lease_seconds: float, clock: float) -> bool:
    """Whether a claim is there, and void; its owner's lease counts, the given one if the file names none."""
    try:
        owner = _owner(path)
        if owner and owner.gone:
            return True
        return clock - path.stat().st_mtime > (owner.lease_seconds if owner else lease_seconds)
    except FileNotFoundError:
        return False


def _clock(folder: Path) -> float:
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


def _owner(path: Path) -> Owner | None:
    try:
        return _read(path, Owner)
    except StoreError:  # written in several steps, where there are no links, and not yet whole
        return None


def _read(path: Path, kind: type[Entry]) -> Entry | None:
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise StoreError(
            f"{path} must be a {kind.__name__.lower()} as this program writes it, but is damaged; delete it and run "
            f"again: {error}"
        ) from error


def _temporary(path: Path) -> Path:
    return path.with_name(f".{uuid.uuid4().hex}.tmp")


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _scope() -> str:
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        # A hidden /proc shows each user only its own processes.
        return f"{boot} {os.readlink('/proc/self/ns/pid')} uid:{os.getuid()}"
    return ""


def _started(pid: int) -> str:
    """Start of a live process in the kernel's ticks; empty if there is none, or no way to know."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]
