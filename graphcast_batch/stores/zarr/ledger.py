"""Keep the state of each Case of a store in small files: a lease, a failure, or a record of all that was written.

Any number of processes on any number of hosts may share a ledger. Its folder holds ``<key>.claim`` (the lease),
``<key>.failed.json`` and, by number of steps, ``steps-<steps>/<key>.json``: which Cases are complete, and up to which
step, is known from names alone. Once the values of a Case are dropped, its record is in ``dropped-<steps>``.
"""

import math
import os
import re
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from graphcast_batch.errors import StoreError
from graphcast_batch.files.durable import (
    LEFT_OVER_SECONDS,
    drop_left_over,
    explained,
    first_fault,
    folder_clock,
    publish,
    replace,
    sync_folder,
)
from graphcast_batch.files.leases import FileLease, drop_expired, expired
from graphcast_batch.files.staging import Staging
from graphcast_batch.plan import CASE_KEY, Case
from graphcast_batch.stores.case_records import CaseFailure, CaseRecord, CaseState

_LEASE, _FAILED, _RECORD, _STEPS, _DROPPED = ".claim", ".failed.json", ".json", "steps-", "dropped-"
_RECORD_FILE: Final = "record.json"
"""Name of a record in the private folder in which it is written."""


@dataclass(frozen=True)
class FileLedger:
    """The states of the Cases of one store, in a folder; see the port `Ledger`."""

    folder: Path

    def states(self, cases: Iterable[Case]) -> dict[str, CaseState]:
        """Return the state of each Case by its key, from one listing of the folder.

        Raises:
            StoreError: the folder cannot be read.
        """
        with explained(f"the ledger {self.folder}"):
            # Leases are read before records, since a Case is recorded before its lease is released.
            names = os.listdir(self.folder)
            running = self._running(names)
            failed = {name.removesuffix(_FAILED) for name in names if name.endswith(_FAILED)}
            complete, dropped = (self._steps_by_key(names, kind) for kind in (_STEPS, _DROPPED))
        most = {key: max(complete.get(key, 0), dropped.get(key, 0)) for key in complete.keys() | dropped.keys()}
        return {case.key: _state(case, most, running, failed) for case in cases}

    def complete(self, cases: Sequence[Case]) -> list[Case]:
        """Return those Cases that are complete and whose values are in the store."""
        steps_of = self.complete_steps()
        return [case for case in cases if steps_of.get(case.key, 0) >= case.steps]

    def complete_steps(self) -> dict[str, int]:
        """Return how many steps of each Case are complete, by its key, from names alone; not of dropped ones.

        Raises:
            StoreError: the folder cannot be read.
        """
        with explained(f"the ledger {self.folder}"):
            names = os.listdir(self.folder)
            steps_of, dropped = (self._steps_by_key(names, kind) for kind in (_STEPS, _DROPPED))
        return {
            key: steps for key, steps in steps_of.items() if CASE_KEY.fullmatch(key) and steps > dropped.get(key, 0)
        }

    def dropped_steps(self) -> dict[str, int]:
        """Return how many steps were complete of each Case whose values were dropped since, by its key.

        Raises:
            StoreError: the folder cannot be read.
        """
        with explained(f"the ledger {self.folder}"):
            return self._steps_by_key(os.listdir(self.folder), _DROPPED)

    def running(self) -> set[str]:
        """Return the keys of the Cases that live processes hold a lease on.

        Raises:
            StoreError: the folder cannot be read.
        """
        with explained(f"the ledger {self.folder}"):
            return self._running(os.listdir(self.folder))

    def lease(self, case: Case, lease_seconds: float) -> FileLease | None:
        """Lease a Case to this process; return None if it is complete, or leased by a live process.

        A lease that was not renewed for its own duration, or whose process on this host is dead, is replaced.

        Raises:
            StoreError: the ledger cannot be written.
        """
        with explained(f"{case.key}: its record in {self.folder}"):
            if any(self._record_path(case.key, case.steps, kind).exists() for kind in (_STEPS, _DROPPED)):
                return None
        lease = FileLease.take(self._path(case.key, _LEASE), lease_seconds)
        if lease and max(self._lengths_of(case.key), default=0) >= case.steps:  # of more steps, or completed since
            lease.release()
            return None
        return lease

    def hold(self, key: str, lease_seconds: float) -> FileLease | None:
        """Lease a Case, complete or not, to this process; return None if it is leased by a live process.

        Raises:
            StoreError: the ledger cannot be written.
        """
        return FileLease.take(self._path(key, _LEASE), lease_seconds)

    def enter(self, record: CaseRecord, staging: Staging | None = None) -> CaseRecord:
        """Record a Case as complete; all files that the record lists must be on disk.

        Args:
            record: the record of the Case.
            staging: the private folder in which the record is written first; without one, the caller knows that
                nobody else works on the Case.

        Returns:
            The record that stands: an earlier one if the Case was complete already.

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
        """Remove the shorter records and the failure of a Case; one that cannot be removed misleads no reader."""
        names = os.listdir(self.folder)
        shorter = [(steps, kind) for kind in (_STEPS, _DROPPED) for steps in _lengths(names, kind)]
        paths = [self._record_path(record.key, *each) for each in shorter if each[0] < record.steps]
        paths.append(self._path(record.key, _FAILED))
        for path in paths:
            with suppress(OSError):
                staging.take_away(path) if staging else path.unlink(missing_ok=True)

    def forget(self, key: str, staging: Staging) -> None:
        """Record a Case as missing, however many steps were complete; the caller holds the lease on it.

        Args:
            key: key of the Case.
            staging: the private folder that the records are moved to.

        Raises:
            StoreError: the ledger cannot be written.
        """
        with explained(f"{key}: forgetting it in {self.folder}"):
            # Shortest first: if this breaks off, the Case stays as long as it was.
            for steps in self._lengths_of(key):
                for kind in (_STEPS, _DROPPED):
                    path = self._record_path(key, steps, kind)
                    if staging.take_away(path):
                        sync_folder(path.parent)

    def note_drop(self, key: str) -> CaseRecord | None:
        """Record that the values of a Case no longer count; the caller holds the lease, and removes the files then.

        Returns:
            The record of the Case, whose files are to be removed; None if they were.

        Raises:
            StoreError: the Case is not complete, or the ledger cannot be written.
        """
        with explained(f"{key}: dropping it in {self.folder}"):
            steps = max(self._lengths_of(key), default=0)
            record = CaseRecord.read(self._record_path(key, steps)) if steps else None
            path = self._record_path(key, steps, _DROPPED) if steps else None
            if path is None or (record is None and not path.exists()):
                raise StoreError(f"{key} must be complete in {self.folder} before its values are dropped, but is not")
            if record is not None and not path.exists():
                path.parent.mkdir(exist_ok=True)
                sync_folder(self.folder)
                with suppress(FileExistsError):
                    publish(path, record.model_dump_json(indent=1).encode())
            return record

    def end_drop(self, record: CaseRecord) -> None:
        """Record that the files of a Case are removed.

        Raises:
            StoreError: the ledger cannot be written.
        """
        path = self._record_path(record.key, record.steps)
        with explained(f"{record.key}: dropping it in {self.folder}"):
            path.unlink(missing_ok=True)
            sync_folder(path.parent)

    def fail(self, failure: CaseFailure) -> None:
        """Record that a Case failed.

        Raises:
            StoreError: the ledger cannot be written.
        """
        with explained(f"{failure.key}: recording its failure in {self.folder}"):
            replace(self._path(failure.key, _FAILED), failure.model_dump_json(indent=1).encode())

    def free_failed(self, keys: Collection[str] | None = None) -> list[str]:
        """Forget the failures of these Cases, or of all, so that the next run tries them again.

        Returns:
            Keys of the Cases that were freed, ascending.
        """
        with explained(f"freeing the failed Cases in {self.folder}"):
            names = os.listdir(self.folder)
            failed = {key for name in names if CASE_KEY.fullmatch(key := name.removesuffix(_FAILED)) and key != name}
            freed = sorted(failed if keys is None else failed.intersection(keys))
            for key in freed:
                self._path(key, _FAILED).unlink(missing_ok=True)
        return freed

    def record(self, key: str, steps: int = 1) -> CaseRecord | None:
        """Return the longest record of a Case that is complete to at least so many steps, or None.

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
        """Return the record of a Case that is complete to exactly so many steps, or None.

        Raises:
            StoreError: the record is damaged.
        """
        with explained(f"{key}: its record in {self.folder}"):
            return CaseRecord.read(self._record_path(key, steps))

    def steps_of(self, key: str) -> int:
        """Return how many steps of a Case are complete; 0 if it has no record.

        Raises:
            StoreError: the folder cannot be read.
        """
        with explained(f"{key}: its record in {self.folder}"):
            return max(self._lengths_of(key, _STEPS), default=0)

    def failure(self, key: str) -> CaseFailure | None:
        """Return why a Case failed, or None; if its file is damaged, a failure that says so.

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
            f"why it failed is not known: {path} must be a case failure that this program wrote, but is damaged "
            f"({fault}); free the Case with graphcast-batch retry-failed {self.folder.parent} {key}"
        )
        return CaseFailure.unknown(key, message)

    def sweep(self) -> list[Path]:
        """Remove expired leases, and files that dead writers left behind a day ago; return what was removed."""
        leases = [path for path in self.folder.glob(f"*{_LEASE}") if drop_expired(path, LEFT_OVER_SECONDS)]
        found = [path for path in self.folder.rglob(".*") if path.suffix in (".tmp", ".aside")]
        return leases + [path for path in found if drop_left_over(path)]

    def _path(self, key: str, suffix: str) -> Path:
        if not CASE_KEY.fullmatch(key):
            raise StoreError(f"the key of a Case must look like 2020-01-01T06 or 2020-01-01T06-m007, but is {key!r}")
        return self.folder / f"{key}{suffix}"

    def _record_path(self, key: str, steps: int, kind: str = _STEPS) -> Path:
        path = self._path(key, _RECORD)
        return path.parent / f"{kind}{steps}" / path.name

    def _lengths_of(self, key: str, *kinds: str) -> list[int]:
        """Return the numbers of steps of all records of a Case, ascending: of these kinds, or of any."""
        names, wanted = os.listdir(self.folder), kinds or (_STEPS, _DROPPED)
        lengths = sorted((steps, kind) for kind in wanted for steps in _lengths(names, kind))
        return [steps for steps, kind in lengths if self._record_path(key, steps, kind).exists()]

    def _running(self, names: Iterable[str]) -> set[str]:
        leases = [name for name in names if name.endswith(_LEASE)]
        clock = folder_clock(self.folder) if leases else 0.0
        return {name.removesuffix(_LEASE) for name in leases if not expired(self.folder / name, math.inf, clock)}

    def _steps_by_key(self, names: Iterable[str], kind: str) -> dict[str, int]:
        """Return the steps of each record of a kind by key, the most where there are several records of a Case."""
        complete: dict[str, int] = {}
        for steps in sorted(_lengths(names, kind)):
            records = os.listdir(self.folder / f"{kind}{steps}")
            complete |= {name.removesuffix(_RECORD): steps for name in records if name.endswith(_RECORD)}
        return complete


def _lengths(names: Iterable[str], kind: str = _STEPS) -> list[int]:
    """Return the numbers of steps for which a ledger has a folder of records, from the names in the ledger."""
    ends = (name.removeprefix(kind) for name in names if name.startswith(kind))
    return [int(end) for end in ends if re.fullmatch(r"[1-9][0-9]*", end)]


def _state(case: Case, complete: dict[str, int], running: set[str], failed: set[str]) -> CaseState:
    key = case.key
    if complete.get(key, 0) >= case.steps:
        return CaseState.COMPLETE
    if key in running:
        return CaseState.RUNNING
    return CaseState.FAILED if key in failed else CaseState.MISSING
