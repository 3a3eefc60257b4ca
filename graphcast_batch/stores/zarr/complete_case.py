"""Verify one complete Case of a zarr store: compare its record with the layout, and its files with its record.

Other processes may be writing into the store. What looks wrong is checked again, after the leases: whoever moves files
of a Case holds the lease on it, and releases it only when the record names them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from graphcast_batch.errors import StoreError
from graphcast_batch.files.durable import explained, first_fault
from graphcast_batch.stores.case_records import CaseRecord
from graphcast_batch.stores.flaws import REPAIR, Flaw, FlawKind, file_fault
from graphcast_batch.stores.zarr.ledger import FileLedger
from graphcast_batch.stores.zarr.shards import Place, files_of, shard_of
from graphcast_batch.stores.zarr.store import ZarrStore
from graphcast_batch.stores.zarr.store_layout import LEDGER

CaseVerification = tuple[int, tuple[Flaw, ...]]
"""Bytes of the files of a Case, as recorded, and what is wrong with the Case."""


@dataclass(frozen=True)
class CompleteCase:
    """A Case that the ledger lists as complete, with what determines its files; small, to be sent between processes.

    Attributes:
        path: the folder of the store.
        key: key of the Case.
        steps: number of steps, as the path of the record says.
        place: place in the store; None if the store has none for the Case.
        axes: number of axes of a place.
        blocks: how many shards the Case has of each variable.
        on_levels: for each variable of the store, whether it is on levels.
    """

    path: Path
    key: str
    steps: int
    place: Place | None
    axes: int
    blocks: int
    on_levels: tuple[tuple[str, bool], ...]

    @property
    def ledger(self) -> FileLedger:
        """The ledger of the store."""
        return FileLedger(self.path / LEDGER)

    @property
    def record_path(self) -> str:
        """Path of the record, in the store."""
        return f"{LEDGER}/steps-{self.steps}/{self.key}.json"

    def files(self, place: Place) -> set[str]:
        """Return the files that the Case has if it is at a place."""
        return files_of(place, self.blocks, self.on_levels)

    def flaw(self, kind: FlawKind, path: str, expected: str, found: str, remedy: str = REPAIR) -> Flaw:
        """Return a flaw of this Case."""
        return Flaw(kind, self.key, path, expected, found, remedy)


def open_with_cases(path: Path) -> tuple[ZarrStore, list[CompleteCase]]:
    """Open a store, and list its complete Cases by key.

    Raises:
        StoreError: there is no store, or its ledger cannot be read.
    """
    steps_of = FileLedger(path / LEDGER).complete_steps()
    # Opened after the ledger was read, so that an axis that is being extended has every Case that was listed.
    store = ZarrStore.open(path)
    return store, [_complete(store, key, steps) for key, steps in sorted(steps_of.items())]


def flaws_of(store: ZarrStore, key: str) -> tuple[Flaw, ...]:
    """Read and verify all files of one complete Case.

    Raises:
        StoreError: the Case is not complete, or a folder cannot be read.
    """
    steps = store.ledger.steps_of(key)
    if not steps:
        raise StoreError(f"{key} must be complete in {store.path} to be verified, but is not; run again")
    return verify_case(_complete(store, key, steps), deep=True)[1]


def _complete(store: ZarrStore, key: str, steps: int) -> CompleteCase:
    place, blocks = store.places.get(key), store.blocks_of(steps)
    return CompleteCase(store.path, key, steps, place, store.place_axes, blocks, store.kept.on_levels)


def verify_case(case: CompleteCase, *, deep: bool) -> CaseVerification:
    """Verify all files of a Case, while other processes may be writing it.

    Args:
        case: the Case.
        deep: read the files and compare their checksums; else compare sizes only.

    Raises:
        StoreError: a folder cannot be read.
    """
    with explained(f"{case.key}: verifying it in {case.path}"):
        size, flaws = verify_leased(case, deep=deep)
        # A longer forecast may be replacing it, or has just replaced it.
        if flaws and (case.key in case.ledger.running() or case.ledger.steps_of(case.key) != case.steps):
            return size, ()
        return size, flaws


def verify_deep(case: CompleteCase) -> CaseVerification:
    """Read and verify all files of a Case; a function of a module can be sent to other processes."""
    return verify_case(case, deep=True)


def verify_leased(case: CompleteCase, *, deep: bool) -> CaseVerification:
    """Verify all files of a Case on which the caller holds the lease; see `verify_case`."""
    try:
        record = case.ledger.record_of(case.key, case.steps)
    except StoreError as error:
        if isinstance(error.__cause__, OSError):
            raise
        found = f"is not: {first_fault(error.__cause__)}"
        return 0, (case.flaw(FlawKind.RECORD, case.record_path, "be readable as a record", found),)
    if record is None:
        return 0, ()
    wrong = _record_flaw(case, record)
    if wrong:
        return 0, (wrong,)
    flaws = (_file_flaw(case, file, *record.files[file], deep=deep) for file in sorted(record.files))
    return _size(record), tuple(flaw for flaw in flaws if flaw)


def size_as_listed(case: CompleteCase, listing: Mapping[str, Mapping[str, int]]) -> int | None:
    """Return the bytes of a Case whose record and files are as a listing of the store says; else None.

    Args:
        case: the Case.
        listing: for each variable, the sizes of the files in its folder by name.
    """
    try:
        record = case.ledger.record_of(case.key, case.steps)
    except StoreError:
        return None
    if record is None or _record_flaw(case, record):
        return None
    names = ((file.partition("/"), size) for file, (size, _) in record.files.items())
    if any(listing[folder].get(name) != size for (folder, _, name), size in names):
        return None
    return _size(record)


def _size(record: CaseRecord) -> int:
    return sum(size for size, _ in record.files.values())


def _record_flaw(case: CompleteCase, record: CaseRecord) -> Flaw | None:
    """Return what is wrong with a record that can be read, or None."""
    if (record.key, record.steps) != (case.key, case.steps):
        found = f"is of {record.key} with {record.steps} steps"
        return case.flaw(FlawKind.RECORD, case.record_path, f"be of {case.key} with {case.steps} steps", found)
    files = set(record.files)
    if case.place is not None and files == case.files(case.place):
        return None
    place = _place_of_files(case, files)
    if place is not None:
        axes = "time" if case.axes == 1 else "time and number"
        expected = f"be {case.key} at index {_listed(place)}, where its files are"
        remedy = f"restore {axes} from a copy of the store, and verify again"
        found = "the axis does not have it" if case.place is None else f"it is at index {_listed(case.place)}"
        return case.flaw(FlawKind.COORDINATES, axes, expected, found, remedy)
    own = set() if case.place is None else case.files(case.place)
    found = f"it lists {len(files - own)} others and lacks {len(own - files)}"
    return case.flaw(FlawKind.RECORD, case.record_path, "list the files that the layout gives the Case", found)


def _place_of_files(case: CompleteCase, files: set[str]) -> Place | None:
    """Return the place at which a Case has just these files; then an axis is wrong."""
    folder, _, name = min(files, default="").partition("/")
    shard = shard_of(name, dict(case.on_levels).get(folder, False), case.axes)
    return shard[0] if shard and files == case.files(shard[0]) else None


def _listed(place: Place) -> str:
    return ", ".join(map(str, place))


def _file_flaw(case: CompleteCase, file: str, size: int, checksum: str, *, deep: bool) -> Flaw | None:
    fault = file_fault(case.path / file, size, checksum, deep=deep)
    return case.flaw(fault[0], file, *fault[1:]) if fault else None
