"""What becomes of each Case turns into small files: claimed, failed, or whole with all that was written.

Any number of processes on any number of hosts may share a ledger. Its folder holds ``<key>.claim``,
``<key>.failed.json`` and, by number of steps, ``steps-<steps>/<key>.json``: which Cases are whole, and how far they
reach, is known from names alone.
"""

import math
import os
import re
import socket
import traceback
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import Field, JsonValue

from graphcast_batch.credentials import scrubbed
from graphcast_batch.errors import StoreError
from graphcast_batch.files.durable import (
    LEFT_OVER_SECONDS,
    Entry,
    drop_left_over,
    explained,
    first_fault,
    folder_clock,
    now,
    publish,
    replace,
    sync_folder,
)
from graphcast_batch.files.leases import Lease, drop_expired, expired
from graphcast_batch.files.staging import Staging
from graphcast_batch.plan import CASE_KEY, Case

_FILE: Final = r"^[^./][^/]*/c(\.[0-9]+)+$"
"""A shard of a variable: whoever follows a record stays in its store."""
_CLAIM, _FAILED, _RECORD, _STEPS = ".claim", ".failed.json", ".json", "steps-"
_RECORD_FILE: Final = "record.json"
"""In a private folder."""


class CaseState(StrEnum):
    """What the ledger knows of a Case."""

    COMPLETE = "complete"
    RUNNING = "running"
    FAILED = "failed"
    MISSING = "missing"


class CaseRecord(Entry):
    """A whole Case: written last, after all that it speaks of is in the store.

    Attributes:
        key: of the Case.
        init_time: initial time, UTC, ISO 8601.
        steps: number of 6 h steps; all of their lead times that the store keeps are in it.
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
    files: dict[Annotated[str, Field(pattern=_FILE)], tuple[int, str]]
    seconds: dict[str, float]
    host: str
    device: str
    worker: str
    attempts: int
    finished_at: str
    details: dict[str, JsonValue]


class CaseFailure(Entry):
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
            message=scrubbed(str(error)),
            traceback=scrubbed("".join(traceback.format_exception(error))),
            attempts=attempts,
            host=socket.gethostname(),
            failed_at=now(),
        )

    @classmethod
    def unknown(cls, key: str, message: str) -> Self:
        """Something went wrong with a Case, but what is lost."""
        host = "an unknown host"
        return cls(
            key=key, error="StoreError", message=message, traceback="", attempts=0, host=host, failed_at="unknown"
        )


@dataclass(frozen=True)
class Ledger:
    """The states of the Cases of one store."""

    folder: Path

    def states(self, cases: Iterable[Case]) -> dict[str, CaseState]:
        """The state of each Case by its key, from one look at the folder.

        A Case of which fewer steps are whole than it has is missing.

        Raises:
            StoreError: the folder cannot be read.
        """
        with explained(f"the ledger {self.folder}"):
            # Claims are looked at before records, since a Case is recorded before its claim is released.
            names = os.listdir(self.folder)
            running = self._running(names)
            failed = {name.removesuffix(_FAILED) for name in names if name.endswith(_FAILED)}
            complete = self._complete_steps(names)
        return {case.key: _state(case, complete, running, failed) for case in cases}

    def complete(self, cases: Sequence[Case]) -> list[Case]:
        """Those Cases that are whole."""
        states = self.states(cases)
        return [case for case in cases if states[case.key] is CaseState.COMPLETE]

    def complete_steps(self) -> dict[str, int]:
        """How many steps of each Case are whole, by its key, from names alone.

        Raises:
            StoreError: the folder cannot be read.
        """
        with explained(f"the ledger {self.folder}"):
            steps_of = self._complete_steps(os.listdir(self.folder))
        return {key: steps for key, steps in steps_of.items() if CASE_KEY.fullmatch(key)}

    def running(self) -> set[str]:
        """Keys of the Cases that a live owner has claimed.

        Raises:
            StoreError: the folder cannot be read.
        """
        with explained(f"the ledger {self.folder}"):
            return self._running(os.listdir(self.folder))

    def lease(self, case: Case, lease_seconds: float) -> Lease | None:
        """Claims a Case for this process; None if it is whole or a live owner has claimed it.

        A claim without a heartbeat for its own lease, or whose process on this very host is dead, is taken over.

        Raises:
            StoreError: the ledger cannot be written.
        """
        with explained(f"{case.key}: its record in {self.folder}"):
            if self._record_path(case.key, case.steps).exists():
                return None
        lease = Lease.take(self._path(case.key, _CLAIM), lease_seconds)
        if lease and self.record(case.key, case.steps):  # it is whole to more steps, or became so since
            lease.release()
            return None
        return lease

    def hold(self, key: str, lease_seconds: float) -> Lease | None:
        """Claims a Case, whole or not, for this process; None if a live owner has claimed it.

        Raises:
            StoreError: the ledger cannot be written.
        """
        return Lease.take(self._path(key, _CLAIM), lease_seconds)

    def enter(self, record: CaseRecord, staging: Staging | None = None) -> CaseRecord:
        """Declares a Case whole; all that its record speaks of must be on disk.

        Args:
            record: of it.
            staging: the private folder that the record comes out of; without one, the caller knows that nobody else
                works on the Case.

        Returns:
            the record that stands: an earlier one if the Case was whole already.

        Raises:
            StoreError: the ledger cannot be written, or another attempt that has no private folder any more has
                recorded the Case.
        """
        with explained(f"{record.key}: recording it in {self.folder}"):
            path = self._record_path(record.key, record.steps)
            if not path.parent.exists():
                path.parent.mkdir(exist_ok=True)
                sync_folder(self.folder)
            content = record.model_dump_json(indent=1).encode()
            with suppress(FileExistsError):
                staging.enter(_RECORD_FILE, content, path) if staging else publish(path, content)
            self._drop_outdated(record, staging)
        stands = self.record(record.key, record.steps) or record
        if staging and stands != record:
            raise StoreError(
                f"{record.key}: the record in {self.folder} must be of the attempt whose files are in the store, but "
                f"is of {stands.worker} on {stands.host}; verify the store with --deep --repair and run again"
            )
        return stands

    def _drop_outdated(self, record: CaseRecord, staging: Staging | None) -> None:
        """Removes what a record makes outdated, which misleads nobody where it stays."""
        shorter = [steps for steps in _lengths(os.listdir(self.folder)) if steps < record.steps]
        paths = [self._record_path(record.key, steps) for steps in shorter] + [self._path(record.key, _FAILED)]
        for path in paths:
            with suppress(OSError):
                staging.take_away(path) if staging else path.unlink(missing_ok=True)

    def forget(self, key: str, staging: Staging) -> None:
        """Declares a Case missing, however long it was whole; its claim must be held.

        Args:
            key: of the Case.
            staging: the private folder that takes its records.

        Raises:
            StoreError: the ledger cannot be written.
        """
        with explained(f"{key}: forgetting it in {self.folder}"):
            # Shortest first: broken off, it leaves the Case as long as it was.
            for steps in self._steps_of(key):
                path = self._record_path(key, steps)
                staging.take_away(path)
                sync_folder(path.parent)

    def fail(self, failure: CaseFailure) -> None:
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
            failed = {key for name in names if CASE_KEY.fullmatch(key := name.removesuffix(_FAILED)) and key != name}
            freed = sorted(failed if keys is None else failed.intersection(keys))
            for key in freed:
                self._path(key, _FAILED).unlink(missing_ok=True)
        return freed

    def record(self, key: str, steps: int = 1) -> CaseRecord | None:
        """The longest record of a Case that is whole to at least so many steps.

        Raises:
            StoreError: the record is damaged.
        """
        with explained(f"{key}: its record in {self.folder}"):
            lengths = [length for length in _lengths(os.listdir(self.folder)) if length >= steps]
            for length in sorted(lengths, reverse=True):
                found = self.record_of(key, length)
                if found:
                    return found
        return None

    def record_of(self, key: str, steps: int) -> CaseRecord | None:
        """The record of a Case that is whole to exactly so many steps; None if there is none.

        Raises:
            StoreError: the record is damaged.
        """
        with explained(f"{key}: its record in {self.folder}"):
            return CaseRecord.read(self._record_path(key, steps))

    def steps_of(self, key: str) -> int:
        """How many steps of a Case are whole; 0 if it has no record.

        Raises:
            StoreError: the folder cannot be read.
        """
        with explained(f"{key}: its record in {self.folder}"):
            return max(self._steps_of(key), default=0)

    def failure(self, key: str) -> CaseFailure | None:
        """Why a Case was set aside, if only that the file which tells is damaged; None if it was not.

        Raises:
            StoreError: the file cannot be read.
        """
        path = self._path(key, _FAILED)
        with explained(f"{key}: its failure in {self.folder}"):
            try:
                return CaseFailure.read(path)
            except StoreError as error:
                fault = first_fault(error.__cause__)
        message = (
            f"why it failed is not known: {path} must be a failure as this program writes it, but is damaged "
            f"({fault}); free the Case with graphcast-batch retry-failed {self.folder.parent} {key}"
        )
        return CaseFailure.unknown(key, message)

    def sweep(self) -> list[Path]:
        """Removes void claims, and what writers that died half-way left behind a day ago; returns what it removed."""
        leases = [path for path in self.folder.glob(f"*{_CLAIM}") if drop_expired(path, LEFT_OVER_SECONDS)]
        found = [path for path in self.folder.rglob(".*") if path.suffix in (".tmp", ".aside")]
        return leases + [path for path in found if drop_left_over(path)]

    def _path(self, key: str, suffix: str) -> Path:
        if not CASE_KEY.fullmatch(key):
            raise StoreError(f"the key of a Case must look like 2020-01-01T06 or 2020-01-01T06-m007, but is {key!r}")
        return self.folder / f"{key}{suffix}"

    def _record_path(self, key: str, steps: int) -> Path:
        path = self._path(key, _RECORD)
        return path.parent / f"{_STEPS}{steps}" / path.name

    def _steps_of(self, key: str) -> list[int]:
        """Lengths of all records of a Case, ascending."""
        lengths = sorted(_lengths(os.listdir(self.folder)))
        return [steps for steps in lengths if self._record_path(key, steps).exists()]

    def _running(self, names: Iterable[str]) -> set[str]:
        leases = [name for name in names if name.endswith(_CLAIM)]
        clock = folder_clock(self.folder) if leases else 0.0
        return {name.removesuffix(_CLAIM) for name in leases if not expired(self.folder / name, math.inf, clock)}

    def _complete_steps(self, names: Iterable[str]) -> dict[str, int]:
        """Steps by key, the most where there are several records."""
        complete: dict[str, int] = {}
        for steps in sorted(_lengths(names)):
            records = os.listdir(self.folder / f"{_STEPS}{steps}")
            complete |= {name.removesuffix(_RECORD): steps for name in records if name.endswith(_RECORD)}
        return complete


def _lengths(names: Iterable[str]) -> list[int]:
    ends = (name.removeprefix(_STEPS) for name in names if name.startswith(_STEPS))
    return [int(end) for end in ends if re.fullmatch(r"[1-9][0-9]*", end)]


def _state(case: Case, complete: dict[str, int], running: set[str], failed: set[str]) -> CaseState:
    key = case.key
    if complete.get(key, 0) >= case.steps:
        return CaseState.COMPLETE
    if key in running:
        return CaseState.RUNNING
    return CaseState.FAILED if key in failed else CaseState.MISSING
