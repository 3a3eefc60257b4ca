"""What is wrong in a store is undone: damaged Cases are forgotten, so that the next run makes them again."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from graphcast_batch.errors import StoreError
from graphcast_batch.outputs.claims import Claim
from graphcast_batch.outputs.durable import explained, sync_folder
from graphcast_batch.outputs.layout import growing
from graphcast_batch.outputs.store import Store
from graphcast_batch.outputs.verify import Flaw, Kind, WholeCase, look_at, open_with_cases, place_in

_LEASE_SECONDS: Final = 600.0
"""Longer than it takes to read a Case again; whoever loses the claim all the same removes nothing more."""
_OF_CASES: Final = (Kind.MISSING, Kind.SIZE, Kind.CHECKSUM, Kind.RECORD)


@dataclass(frozen=True)
class Repair:
    """What was done to a store.

    Attributes:
        forgotten: keys of Cases that the next run makes again.
        removed: files, by their path in the store.
        busy: keys of Cases left alone, since someone works on them.
    """

    forgotten: tuple[str, ...]
    removed: tuple[str, ...]
    busy: tuple[str, ...]


def repair(path: Path, flaws: Sequence[Flaw]) -> Repair:
    """Forgets damaged Cases, with the files that are damaged, and removes foreign files; nothing else is touched.

    Each Case is claimed and looked at once more first, so that it may be done while others are at work, and again
    after it broke off.

    Args:
        path: of the store.
        flaws: from `verify`.

    Raises:
        StoreError: the coordinates are damaged, so that no Case is known to be where it belongs, or something cannot
            be removed.
    """
    for flaw in flaws:
        if flaw.kind is Kind.COORDINATES:
            raise StoreError(f"nothing was repaired in {path}: {flaw}")
    damaged = {flaw.key for flaw in flaws if flaw.kind in _OF_CASES}
    to_read = {flaw.key for flaw in flaws if flaw.kind is Kind.CHECKSUM}
    store, whole = open_with_cases(path)
    forgotten, removed, busy = list[str](), list[str](), list[str]()
    for case in (case for case in whole if case.key in damaged):
        claim = store.ledger.hold(case.key, _LEASE_SECONDS)
        if not claim:
            busy.append(case.key)
            continue
        try:
            files = _forget(case, claim, deep=case.key in to_read)
        finally:
            claim.release()
        if files is not None:
            forgotten.append(case.key)
            removed += files
    removed += _remove_foreign(store.path, [flaw.path for flaw in flaws if flaw.kind is Kind.FOREIGN])
    return Repair(tuple(forgotten), tuple(removed), tuple(busy))


def _forget(case: WholeCase, claim: Claim, *, deep: bool) -> list[str] | None:
    """Removes the damaged files of a Case, then its record; None if it is damaged no more.

    Files first: broken off, it leaves a record of files that are missing, which the next repair finds.
    """
    with explained(f"{case.key}: repairing it in {case.path}"):
        flaws = [flaw for flaw in look_at(case, deep=deep)[1] if flaw.kind in _OF_CASES]
        if not flaws or case.ledger.steps_of(case.key) != case.steps:
            return None
        _check_held(case, claim)
        removed = _remove(case.path, [flaw.path for flaw in flaws if flaw.kind in (Kind.SIZE, Kind.CHECKSUM)])
        _check_held(case, claim)
        case.ledger.forget(case.key)
        return removed


def _check_held(case: WholeCase, claim: Claim) -> None:
    if not claim.held():
        raise StoreError(
            f"{case.key}: the claim must be held until the Case is forgotten, but was lost to another process; "
            "verify again"
        )


def _remove_foreign(path: Path, files: Sequence[str]) -> list[str]:
    """Removes files that no Case has a place for, while no Case can be given a new one."""
    if not files:
        return []
    with explained(f"removing foreign files from {path}"), growing(path):
        store = Store.open(path)
        on_levels = dict(store.kept.on_levels)
        foreign = [
            file
            for folder, name, file in ((*file.split("/"), file) for file in files)
            if place_in(store, name, on_levels[folder]) is None and not (store.path / file).is_dir()
        ]
        return _remove(store.path, foreign)


def _remove(path: Path, files: Sequence[str]) -> list[str]:
    """Removes files durably; those that were there."""
    removed = [file for file in files if os.path.lexists(path / file)]
    for file in removed:
        (path / file).unlink(missing_ok=True)
    for folder in {(path / file).parent for file in removed}:
        sync_folder(folder)
    return removed
