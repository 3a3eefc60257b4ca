"""What is wrong in a store is undone: damaged Cases are forgotten, so that the next run makes them again."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from graphcast_batch.errors import StoreError
from graphcast_batch.evaluation.score_store import FORECAST, ScoreStore
from graphcast_batch.files.durable import explained, sync_folder
from graphcast_batch.files.leases import Lease
from graphcast_batch.files.staging import STAGING, alone
from graphcast_batch.integrity.verify import (
    CompleteCase,
    Flaw,
    FlawKind,
    look_at,
    look_at_scores,
    open_with_cases,
    place_in,
)
from graphcast_batch.stores.zarr.store import Store
from graphcast_batch.stores.zarr.store_layout import growing

_LEASE_SECONDS: Final = 600.0
"""Longer than it takes to read a Case again; whoever loses the claim all the same removes nothing more."""
_OF_CASES: Final = (FlawKind.MISSING, FlawKind.SIZE, FlawKind.CHECKSUM, FlawKind.RECORD)


@dataclass(frozen=True)
class Repair:
    """What was done to a store.

    Attributes:
        forgotten: keys of Cases that the next run makes again.
        removed: files, by their path in the store.
        busy: keys of Cases left alone, since someone works on them.
        unscored: keys of Cases that the next evaluation scores again.
    """

    forgotten: tuple[str, ...]
    removed: tuple[str, ...]
    busy: tuple[str, ...]
    unscored: tuple[str, ...] = ()


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
    removed += _remove_unexpected(store.path, [flaw.path for flaw in flaws if flaw.kind is FlawKind.FOREIGN])
    unscored = list[str]()
    for name, key in sorted({(flaw.path.split("/")[1], flaw.key) for flaw in flaws if flaw.kind is FlawKind.SCORES}):
        scores = ScoreStore.at(store.path, name)
        files = _forget_scores(store, scores, key)
        removed += files or []
        if files is None:
            busy.append(key)
        elif not scores.record_path(key).exists():  # else they were mended since
            (forgotten if store.only_scores and name == FORECAST else unscored).append(key)
    return Repair(tuple(forgotten), tuple(removed), tuple(busy), tuple(unscored))


def _forget(case: CompleteCase, lease: Lease, *, deep: bool) -> list[str] | None:
    """Removes the damaged files of a Case, then its record; None if it is damaged no more.

    Files first: broken off, it leaves a record of files that are missing, which the next repair finds.
    """
    with explained(f"{case.key}: repairing it in {case.path}"):
        flaws = [flaw for flaw in look_at(case, deep=deep)[1] if flaw.kind in _OF_CASES]
        if not flaws or case.ledger.steps_of(case.key) != case.steps:
            return None
        _check_held(case, lease)
        with alone(case.path / STAGING, case.key, lease) as staging:
            removed = [flaw.path for flaw in flaws if flaw.kind in (FlawKind.SIZE, FlawKind.CHECKSUM)]
            removed = [file for file in removed if staging.take_away(case.path / file)]
            _sync_folders(case.path, removed)
            case.ledger.forget(case.key, staging)
        return removed


def _forget_scores(store: Store, scores: ScoreStore, key: str) -> list[str] | None:
    """Forgets the damaged scores of a Case, and with them the Case if nothing else is kept of it; None if it is busy.

    The ledger's record goes last: broken off, it is a whole Case without scores, which the next repair finds.
    """
    all_there_is = store.only_scores and scores.name == FORECAST
    with ExitStack() as held:
        leases = [scores.hold(key)] if scores.exists else []
        if all_there_is:
            leases.append(store.ledger.hold(key, _LEASE_SECONDS))
        for lease in filter(None, leases):
            held.callback(lease.release)
        if not all(leases):
            return None
        flaws = look_at_scores(store, scores, key, deep=True, leased=True)
        paths = [store.path / flaw.path for flaw in flaws]
        damaged = [path for path in paths if path != scores.record_path(key) and path.exists()]
        if flaws:
            scores.forget(key, [str(path.relative_to(scores.folder)) for path in damaged], leases[0])
        if all_there_is and not scores.record_path(key).exists():
            with alone(store.path / STAGING, key, leases[-1]) as staging:
                store.ledger.forget(key, staging)
        return [str(path.relative_to(store.path)) for path in damaged]


def _check_held(case: CompleteCase, lease: Lease) -> None:
    if not lease.held():
        raise StoreError(
            f"{case.key}: the claim must be held until the Case is forgotten, but was lost to another process; "
            "verify again"
        )


def _remove_unexpected(path: Path, files: Sequence[str]) -> list[str]:
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
    _sync_folders(path, removed)
    return removed


def _sync_folders(path: Path, files: Sequence[str]) -> None:
    for folder in {(path / file).parent for file in files}:
        sync_folder(folder)
