"""Verify and repair the scores in a store: compare their files with their records, and forget those that differ."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from graphcast_batch.errors import StoreError
from graphcast_batch.evaluation.score_remaking import Remaking, ScoreRemaking
from graphcast_batch.evaluation.score_store import FORECAST, ScoreRecord, ScoreStore
from graphcast_batch.files.durable import explained, first_fault
from graphcast_batch.stores.base import Store
from graphcast_batch.stores.flaws import REPAIR, Flaw, FlawKind, file_fault

_LEASE_SECONDS: Final = 600.0
"""Longer than it takes to read the scores of a Case again."""


@dataclass(frozen=True)
class ScoreRepair:
    """What was done to the scores in a store.

    Attributes:
        forgotten: keys of the Cases that the next run makes again, since the values to score were not kept.
        unscored: keys of the Cases that the next evaluation scores again.
        removed: files that were removed, by their path in the store.
        busy: keys of the Cases that were left alone, since another process works on them.
        lost: keys of the Cases whose damaged scores were left as they are, since nothing can make them again.
    """

    forgotten: tuple[str, ...]
    unscored: tuple[str, ...]
    removed: tuple[str, ...]
    busy: tuple[str, ...]
    lost: tuple[str, ...]


def verify_scores(store: Store, complete: Sequence[str], *, deep: bool) -> list[Flaw]:
    """Return the scores that are not as their records say, unless they are being written, or were since.

    Args:
        store: the store that the scores are in.
        complete: keys of the Cases that were complete before.
        deep: read the files and compare their checksums; else compare sizes only.

    Raises:
        StoreError: a folder cannot be read.
    """
    found, remaking = list[Flaw](), ScoreRemaking(store)
    for scores in ScoreStore.all_of(store.path):
        for key in scores.keys():  # noqa: SIM118 - no mapping
            found += _verify_case(remaking, scores, key, deep=deep)
    if store.only_scores:
        forecast = ScoreStore.at(store.path, FORECAST)
        for key in sorted(set(complete) - set(forecast.keys())):
            path = str(forecast.record_path(key).relative_to(store.path))
            expected = "be there, as nothing but scores is kept of the Case"
            found.append(Flaw(FlawKind.SCORES, key, path, expected, "is not there", REPAIR))
    return found


def repair_scores(store: Store, flaws: Sequence[Flaw]) -> ScoreRepair:
    """Forget the damaged scores of Cases, so that they are scored again, or made again if their values are not kept.

    Scores that nothing can make again are left as they are.

    Args:
        store: the store that the scores are in.
        flaws: from `verify_scores`; flaws of other kinds are ignored.

    Raises:
        StoreError: something cannot be removed.
    """
    forgotten, unscored, removed, busy, lost = list[str](), list[str](), list[str](), list[str](), list[str]()
    remaking = ScoreRemaking(store)
    for name, key in sorted({(flaw.path.split("/")[1], flaw.key) for flaw in flaws if flaw.kind is FlawKind.SCORES}):
        scores = ScoreStore.at(store.path, name)
        by = remaking.of(scores, key)
        if by is Remaking.NOTHING:
            lost.append(key)
            continue
        files = _forget(remaking, scores, key)
        removed += files or []
        if files is None:
            busy.append(key)
        elif not scores.record_path(key).exists():  # else the scores were written again since
            (forgotten if by is Remaking.RUN else unscored).append(key)
    # A Case of which several scores are damaged is named once.
    return ScoreRepair(*(tuple(dict.fromkeys(each)) for each in (forgotten, unscored, removed, busy, lost)))


def _verify_case(
    remaking: ScoreRemaking, scores: ScoreStore, key: str, *, deep: bool, leased: bool = False
) -> list[Flaw]:
    """Return what is wrong with the scores of one Case, unless they are being written.

    Args:
        remaking: what can make the scores again.
        scores: the scores.
        key: key of the Case.
        deep: read the files and compare their checksums; else compare sizes only.
        leased: whether the caller holds the lease, so that nobody else writes.

    Raises:
        StoreError: a folder cannot be read.
    """
    path, place = scores.record_path(key), remaking.store.path

    def flaw(file: Path, expected: str, found: str) -> Flaw:
        remedy = remaking.remedy(scores, key)
        return Flaw(FlawKind.SCORES, key, str(file.relative_to(place)), expected, found, remedy)

    with explained(f"{key}: verifying its scores in {scores.folder}"):
        try:
            record = ScoreRecord.read(path)
        except StoreError as error:
            if isinstance(error.__cause__, OSError):
                raise
            return [flaw(path, "be readable as a record", f"is not: {first_fault(error.__cause__)}")]
        if record is None:
            return []
        if record.key != key:
            return [flaw(path, f"be of {key}", f"is of {record.key}")]
        faults = {
            file: file_fault(scores.folder / file, *record.files[file], deep=deep) for file in sorted(record.files)
        }
        found = [flaw(scores.folder / file, *fault[1:]) for file, fault in faults.items() if fault]
        # Whoever writes holds the lease until the record names what was written.
        written = found and not leased and (scores.is_held(key) or ScoreRecord.read(path) != record)
        return [] if written else found


def _forget(remaking: ScoreRemaking, scores: ScoreStore, key: str) -> list[str] | None:
    """Forget the damaged scores of a Case, and the Case too if a run must make it again; return None if it is busy.

    Where only scores are kept, the record in the ledger goes last: if this breaks off, it leaves a complete Case
    without scores, which the next repair finds. Where members were removed, the record of what is kept of all of them
    goes first: the next run then makes them again, whatever is left of their scores.
    """
    store, last = remaking.store, remaking.is_all_there_is(scores)
    again = store if last else remaking.ensembles if remaking.of(scores, key) is Remaking.RUN else None
    with ExitStack() as held:
        of_scores = scores.hold(key) if scores.exists else None
        of_case = again.ledger.hold(key, _LEASE_SECONDS) if again else None
        for lease in filter(None, (of_scores, of_case)):
            held.callback(lease.release)
        if (scores.exists and not of_scores) or (again and not of_case):
            return None
        flaws = _verify_case(remaking, scores, key, deep=True, leased=True)
        paths = [store.path / flaw.path for flaw in flaws]
        damaged = [path for path in paths if path != scores.record_path(key) and path.exists()]
        if again and of_case and flaws and not last:
            again.forget(key, of_case)
        if flaws:
            scores.forget(key, [str(path.relative_to(scores.folder)) for path in damaged], of_scores)
        if again and of_case and last and not scores.record_path(key).exists():
            again.forget(key, of_case)
        return [str(path.relative_to(store.path)) for path in damaged]
