"""Repair a zarr store: forget damaged Cases, so that the next run makes them again, and remove unexpected files."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from graphcast_batch.errors import StoreError
from graphcast_batch.files.durable import explained, sync_folder
from graphcast_batch.files.leases import FileLease
from graphcast_batch.files.staging import STAGING, alone
from graphcast_batch.stores.flaws import Flaw, FlawKind, ForecastRepair
from graphcast_batch.stores.zarr.case_verification import is_unexpected
from graphcast_batch.stores.zarr.complete_case import CompleteCase, open_with_cases, verify_leased
from graphcast_batch.stores.zarr.store import ZarrStore
from graphcast_batch.stores.zarr.store_layout import extension_lock

_LEASE_SECONDS: Final = 600.0
"""Longer than it takes to read a Case again; a repair that loses the lease all the same removes nothing more."""
_OF_CASES: Final = (FlawKind.MISSING, FlawKind.SIZE, FlawKind.CHECKSUM, FlawKind.RECORD)


def repair_cases(path: Path, flaws: Sequence[Flaw]) -> ForecastRepair:
    """Forget damaged Cases, with the files that are damaged, and remove unexpected files; touch nothing else.

    Each Case is leased and verified once more first, so that others may be at work, and a repair that broke off can be
    repeated.

    Args:
        path: the folder of the store.
        flaws: from `verify_cases`.

    Raises:
        StoreError: coordinates are damaged, so that the place of no Case is known, or something cannot be removed.
    """
    for flaw in flaws:
        if flaw.kind is FlawKind.COORDINATES:
            raise StoreError(f"nothing was repaired in {path}: {flaw}")
    damaged = {flaw.key for flaw in flaws if flaw.kind in _OF_CASES}
    to_read = {flaw.key for flaw in flaws if flaw.kind is FlawKind.CHECKSUM}
    store, complete = open_with_cases(path)
    forgotten, removed, busy = list[str](), list[str](), list[str]()
    for case in (case for case in complete if case.key in damaged):
        lease = store.ledger.hold(case.key, _LEASE_SECONDS)
        if not lease:
            busy.append(case.key)
            continue
        try:
            files = _forget(case, lease, deep=case.key in to_read)
        finally:
            lease.release()
        if files is not None:
            forgotten.append(case.key)
            removed += files
    removed += _remove_unexpected(store.path, [flaw.path for flaw in flaws if flaw.kind is FlawKind.UNEXPECTED])
    return ForecastRepair(tuple(forgotten), tuple(removed), tuple(busy))


def _forget(case: CompleteCase, lease: FileLease, *, deep: bool) -> list[str] | None:
    """Remove the damaged files of a Case, then its record; return None if the Case is no longer damaged.

    Files first: if this breaks off, it leaves a record of files that are missing, which the next repair finds.
    """
    with explained(f"{case.key}: repairing it in {case.path}"):
        flaws = [flaw for flaw in verify_leased(case, deep=deep)[1] if flaw.kind in _OF_CASES]
        if not flaws or case.ledger.steps_of(case.key) != case.steps:
            return None
        _check_held(case, lease)
        with alone(case.path / STAGING, case.key, lease) as staging:
            removed = [flaw.path for flaw in flaws if flaw.kind in (FlawKind.SIZE, FlawKind.CHECKSUM)]
            removed = [file for file in removed if staging.take_away(case.path / file)]
            _sync_folders(case.path, removed)
            case.ledger.forget(case.key, staging)
        return removed


def _check_held(case: CompleteCase, lease: FileLease) -> None:
    if not lease.held():
        raise StoreError(
            f"{case.key}: the lease must be held until the Case is forgotten, but was lost to another process; "
            "verify again"
        )


def _remove_unexpected(path: Path, files: Sequence[str]) -> list[str]:
    """Remove files that belong to no Case, while no driver can extend the store by a Case that they might belong to."""
    if not files:
        return []
    with explained(f"removing unexpected files from {path}"), extension_lock(path):
        store = ZarrStore.open(path)
        on_levels = dict(store.kept.on_levels)
        unexpected = [
            file
            for folder, name, file in ((*file.split("/"), file) for file in files)
            if is_unexpected(store, name, on_levels[folder]) and not (store.path / file).is_dir()
        ]
        return _remove(store.path, unexpected)


def _remove(path: Path, files: Sequence[str]) -> list[str]:
    """Remove files durably; return those that were there."""
    removed = [file for file in files if os.path.lexists(path / file)]
    for file in removed:
        (path / file).unlink(missing_ok=True)
    _sync_folders(path, removed)
    return removed


def _sync_folders(path: Path, files: Sequence[str]) -> None:
    for folder in {(path / file).parent for file in files}:
        sync_folder(folder)
