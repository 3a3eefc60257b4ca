"""A store becomes a list of what in it is not as its ledger says, and a repaired one forgets the Cases that are not.

Others may be at work in the store. What looks wrong is looked at again, after the claims: whoever moves files holds
the Case's claim, and releases it only when the record speaks of them.
"""

import errno
import json
import math
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise, starmap
from pathlib import Path
from typing import Final

import numpy as np
import xarray as xr

from graphcast_batch.errors import GraphcastBatchError, StoreError
from graphcast_batch.evaluation.score_store import FORECAST, ScoreRecord, ScoreStore
from graphcast_batch.files.durable import checksum_of, explained, first_fault, folder_clock
from graphcast_batch.files.leases import expired
from graphcast_batch.stores.zarr.ledger import CaseRecord, Ledger
from graphcast_batch.stores.zarr.shards import files_of
from graphcast_batch.stores.zarr.store import Store
from graphcast_batch.stores.zarr.store_layout import LEDGER, arrays_of, read_coordinates, read_root

_METADATA: Final = "zarr.json"
_CHUNK: Final = re.compile(r"c\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)((?:\.0)+)")
_STATISTICS: Final = tuple(f"statistics/{kind}_by_level.nc" for kind in ("mean", "stddev", "diffs_stddev"))


class FlawKind(StrEnum):
    """What is wrong."""

    MISSING = "missing"
    SIZE = "size"
    CHECKSUM = "checksum"
    RECORD = "record"
    UNRECORDED = "unrecorded"
    FOREIGN = "foreign"
    METADATA = "metadata"
    COORDINATES = "coordinates"
    STATISTICS = "statistics"
    SCORES = "scores"


_REPAIR: Final = "verify with --repair, so that the next run makes the Case again"
_RESCORE: Final = "verify with --repair, so that the next evaluation scores the Case again"


@dataclass(frozen=True)
class Flaw:
    """One thing in a store that is not as it should be.

    Attributes:
        kind: what is wrong.
        key: of the Case it belongs to; empty where it belongs to none.
        path: of the file, in the store.
        expected: what must hold, after "must".
        found: what holds instead, after "but".
        remedy: what to do.
    """

    kind: FlawKind
    key: str
    path: str
    expected: str
    found: str
    remedy: str

    @property
    def harmless(self) -> bool:
        """Whether nobody is misled by it: the rest of an attempt that the next one replaces."""
        return self.kind is FlawKind.UNRECORDED

    def __str__(self) -> str:
        of = f" of {self.key}" if self.key else ""
        return f"{self.path}{of} must {self.expected}, but {self.found}; {self.remedy}"


@dataclass(frozen=True)
class Verification:
    """What was looked at, and what was found.

    Attributes:
        cases: whole Cases that were looked at.
        left: whole Cases that were not, since the spread stopped early.
        bytes: size of the files of the former, as recorded.
        seconds: that it took.
        flaws: in the order of the ledger's keys, then what belongs to no whole Case.
    """

    cases: int
    left: int
    bytes: int
    seconds: float
    flaws: tuple[Flaw, ...]

    @property
    def damaged(self) -> bool:
        """Whether any flaw is more than a harmless rest."""
        return not all(flaw.harmless for flaw in self.flaws)


@dataclass(frozen=True)
class CompleteCase:
    """A Case that the ledger lists as whole, with what tells which files it has; small, to be sent to where it is read.

    Attributes:
        path: of the store.
        key: of the Case.
        steps: that the name of its record tells.
        index: on the time axis; None if it is not there.
        blocks: how many shards it has of each variable.
        on_levels: for each variable of the store, whether it is on levels.
    """

    path: Path
    key: str
    steps: int
    index: int | None
    blocks: int
    on_levels: tuple[tuple[str, bool], ...]

    @property
    def ledger(self) -> Ledger:
        """Of the store."""
        return Ledger(self.path / LEDGER)

    @property
    def record_path(self) -> str:
        """In the store."""
        return f"{LEDGER}/steps-{self.steps}/{self.key}.json"

    def files(self, index: int) -> set[str]:
        """Those that it has if it stands there on the time axis."""
        return files_of(index, self.blocks, self.on_levels)

    def flaw(self, kind: FlawKind, path: str, expected: str, found: str, remedy: str = _REPAIR) -> Flaw:
        """One of this Case."""
        return Flaw(kind, self.key, path, expected, found, remedy)


Looked = tuple[int, tuple[Flaw, ...]]
"""Bytes that were looked at, as recorded, and what is wrong with them."""
Executor = Callable[[Callable[[CompleteCase], Looked], Sequence[tuple[CompleteCase]]], Iterable[Looked | BaseException]]
"""Calls a function with each tuple of arguments; results in their order, and for a call that failed its exception."""


def verify(path: Path, *, deep: bool, executor: Executor = starmap) -> Verification:
    """Compares a store with its ledger; writes nothing into it but the moment's file that tells its clock.

    Args:
        path: of the store.
        deep: read every file and compare its checksum; else names and sizes only.
        executor: where files are read.

    Raises:
        StoreError: there is no store, it cannot be opened, or its folders cannot be read.
        GridError: its latitudes or longitudes are damaged.
    """
    start = time.perf_counter()
    try:
        first = Store.open(path)
        listing = {name: _sizes(first.path / name) for name in first.variables}
        running = first.ledger.running()
        store, complete = open_with_cases(path)
    except GraphcastBatchError:
        raise
    except Exception as error:  # whatever zarr makes of metadata that are no longer a store's
        raise StoreError(
            f"{path} must be a whole store, but cannot be opened: {error!r}; restore its {_METADATA} from a copy"
        ) from error
    results = list(_look_at_all(complete, executor) if deep else _filtered(complete, listing))
    flaws = [flaw for _, found in results for flaw in found]
    with explained(f"verifying {store.path}"):
        flaws += _rest(store, complete, running, listing) + _layout_flaws(store)
    # A store that is being made has none yet.
    flaws += _statistics_flaws(store.path) if complete else []
    flaws += _scores_flaws(store, [case.key for case in complete], deep=deep)
    size = sum(size for size, _ in results)
    return Verification(len(results), len(complete) - len(results), size, time.perf_counter() - start, tuple(flaws))


def look(case: CompleteCase, *, deep: bool) -> Looked:
    """Looks at all files of a Case, and at its record before.

    Args:
        case: to look at.
        deep: read them, and compare their checksums.

    Raises:
        StoreError: a folder cannot be read.
    """
    with explained(f"{case.key}: verifying it in {case.path}"):
        size, flaws = look_at(case, deep=deep)
        # A longer forecast may be taking its place, or has just done so.
        if flaws and (case.key in case.ledger.running() or case.ledger.steps_of(case.key) != case.steps):
            return size, ()
        return size, flaws


def look_deep(case: CompleteCase) -> Looked:
    """The same, reading all; a function of a module can be sent to other processes."""
    return look(case, deep=True)


def _sizes(folder: Path) -> dict[str, int]:
    """Size of everything in a folder but its metadata, by name; none if it is not there."""
    with explained(f"listing {folder}"):
        if not folder.exists():
            return {}
        sizes = {}
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    sizes[entry.name] = entry.stat(follow_symlinks=False).st_size
                except FileNotFoundError:  # removed since it was listed
                    continue
        sizes.pop(_METADATA, None)
        return sizes


def open_with_cases(path: Path) -> tuple[Store, list[CompleteCase]]:
    """The store, and what its ledger says is whole, by key."""
    steps_of = Ledger(path / LEDGER).complete_steps()
    # Only now, so that an axis that is growing has every Case that was listed.
    store = Store.open(path)
    indices = {str(init_time): index for index, init_time in enumerate(store.init_times)}
    return store, [
        CompleteCase(store.path, key, steps, indices.get(key), store.blocks_of(steps), store.kept.on_levels)
        for key, steps in sorted(steps_of.items())
    ]


def _look_at_all(complete: Sequence[CompleteCase], executor: Executor) -> Iterator[Looked]:
    for result in executor(look_deep, [(case,) for case in complete]):
        if isinstance(result, BaseException):
            raise result
        yield result


def _filtered(complete: Iterable[CompleteCase], listing: dict[str, dict[str, int]]) -> Iterator[Looked]:
    """Looks closely at those Cases only that are not as listed: a listing is faster than each file by itself."""
    for case in complete:
        size = _size_as_listed(case, listing)
        yield look(case, deep=False) if size is None else (size, ())


def _size_as_listed(case: CompleteCase, listing: dict[str, dict[str, int]]) -> int | None:
    """Bytes of a Case, if all is well with it."""
    try:
        record = case.ledger.record_of(case.key, case.steps)
    except StoreError:
        return None
    if record is None or _record_flaw(case, record):
        return None
    places = ((file.partition("/"), size) for file, (size, _) in record.files.items())
    if any(listing[folder].get(name) != size for (folder, _, name), size in places):
        return None
    return _size(record)


def look_at(case: CompleteCase, *, deep: bool) -> Looked:
    """As `look`, for who holds the Case's claim."""
    try:
        record = case.ledger.record_of(case.key, case.steps)
    except StoreError as error:
        if isinstance(error.__cause__, OSError):
            raise
        return 0, (
            case.flaw(
                FlawKind.RECORD, case.record_path, "be readable as a record", f"is not: {first_fault(error.__cause__)}"
            ),
        )
    if record is None:
        return 0, ()
    wrong = _record_flaw(case, record)
    if wrong:
        return 0, (wrong,)
    flaws = (_file_flaw(case, file, *record.files[file], deep=deep) for file in sorted(record.files))
    return _size(record), tuple(flaw for flaw in flaws if flaw)


def _size(record: CaseRecord) -> int:
    return sum(size for size, _ in record.files.values())


def _record_flaw(case: CompleteCase, record: CaseRecord) -> Flaw | None:
    """What is wrong with a record that can be read."""
    if (record.key, record.steps) != (case.key, case.steps):
        found = f"is of {record.key} with {record.steps} steps"
        return case.flaw(FlawKind.RECORD, case.record_path, f"be of {case.key} with {case.steps} steps", found)
    files = set(record.files)
    if case.index is not None and files == case.files(case.index):
        return None
    place = _place_of(case, files)
    if place is not None:
        expected = f"be {case.key} at index {place}, where its files are"
        remedy = "restore the time axis from a copy of the store, and verify again"
        found = "the axis does not have it" if case.index is None else f"it is at index {case.index}"
        return case.flaw(FlawKind.COORDINATES, "time", expected, found, remedy)
    own = set() if case.index is None else case.files(case.index)
    found = f"it lists {len(files - own)} others and lacks {len(own - files)}"
    return case.flaw(FlawKind.RECORD, case.record_path, "list the files that the layout gives the Case", found)


def _place_of(case: CompleteCase, files: set[str]) -> int | None:
    """Where on the time axis a Case stands if just these are its files: then the axis is wrong, and not the record."""
    match = _CHUNK.fullmatch(min(files, default="").partition("/")[2])
    return int(match[1]) if match and files == case.files(int(match[1])) else None


def _file_flaw(case: CompleteCase, file: str, size: int, checksum: str, *, deep: bool) -> Flaw | None:
    fault = _fault(case.path / file, size, checksum, deep=deep)
    return case.flaw(fault[0], file, *fault[1:]) if fault else None


def _fault(path: Path, size: int, checksum: str, *, deep: bool) -> tuple[FlawKind, str, str] | None:
    """What is wrong with a file: kind, what must hold, and what holds instead."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return FlawKind.MISSING, f"be there with {size} bytes", "is not there"
    if found.st_size != size or not stat.S_ISREG(found.st_mode):
        return FlawKind.SIZE, f"have {size} bytes", f"has {found.st_size}"
    if not deep:
        return None
    try:
        read = checksum_of(path)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        # What the disk cannot read is lost.
        return FlawKind.CHECKSUM, "be readable", f"is not: {error}"
    if read != checksum:
        return FlawKind.CHECKSUM, f"have the CRC-32 {checksum}", f"has {read}"
    return None


def _rest(
    store: Store, complete: Iterable[CompleteCase], running: set[str], listing: dict[str, dict[str, int]]
) -> list[Flaw]:
    """Files that no record names: of attempts that died, or that nothing here has made.

    Args:
        store: opened after they were listed.
        complete: looked at after that.
        running: keys of the Cases that someone was at work on between the two.
        listing: names in the folder of each variable.
    """
    blocks = {case.index: case.blocks for case in complete}
    foreign, rest = list[Flaw](), list[Flaw]()
    for variable, levelled in store.kept.on_levels:
        for name in sorted(listing[variable]):
            file, place = f"{variable}/{name}", place_in(store, name, levelled)
            if place is None:
                foreign.append(_unexpected_flaw(file))
            elif place[1] >= blocks.get(place[0], 0) and (key := str(store.init_times[place[0]])) not in running:
                expected, remedy = "be spoken of by a record", "leave it: it is replaced when the Case is made"
                rest.append(Flaw(FlawKind.UNRECORDED, key, file, expected, "an attempt that died has left it", remedy))
    if foreign and _growing(store.path):  # whose files come and go beside the metadata
        foreign = []
    return rest + [flaw for flaw in foreign if os.path.lexists(store.path / flaw.path)]


def place_in(store: Store, name: str, levelled: bool) -> tuple[int, int] | None:
    """Index on the time axis and block of a file of a variable; None if the store has none of that name."""
    match = _CHUNK.fullmatch(name)
    if not match or len(match[3]) != len(".0") * (2 + levelled):
        return None
    index, block = int(match[1]), int(match[2])
    fits = index < store.init_times.size and block < math.ceil(len(store.kept.lead_hours) / store.block_steps)
    return (index, block) if fits else None


def _unexpected_flaw(file: str) -> Flaw:
    expected, found = "be a file of a Case that the store was laid out for", "no Case has a file of this name"
    return Flaw(
        FlawKind.FOREIGN, "", file, expected, found, "verify with --repair, which removes it; a folder remove yourself"
    )


def _layout_flaws(store: Store) -> list[Flaw]:
    """What is wrong with metadata and coordinates, unless they are being replaced, or were since they were read."""
    found = _metadata_flaws(store) + _coordinate_flaws(store)
    return [] if found and (_growing(store.path) or read_root(store.path) != store.root) else found


def _metadata_flaws(store: Store) -> list[Flaw]:
    """Arrays that say of themselves something else than the root, which alone is believed."""
    found = {}
    for name, array in arrays_of(store.root).items():
        try:
            if json.loads((store.path / name / _METADATA).read_bytes()) != array:
                found[name] = "does not"
        except (FileNotFoundError, ValueError) as error:
            found[name] = f"cannot be read: {error}"
    expected, remedy = "agree with the metadata of the root", "run again: a run writes it anew as the root has it"
    return [Flaw(FlawKind.METADATA, "", f"{name}/{_METADATA}", expected, what, remedy) for name, what in found.items()]


def _growing(path: Path) -> bool:
    """Whether a driver is making the store longer now."""
    lock = path / LEDGER / ".extending"
    return lock.exists() and not expired(lock, math.inf, folder_clock(lock.parent))


def _coordinate_flaws(store: Store) -> list[Flaw]:
    """What can be told of coordinates by themselves; the grid was checked when the store was opened."""
    coordinates, kept = read_coordinates(store.path), store.kept
    complete_steps = all(lead % store.step_hours == 0 for lead in kept.lead_hours)
    leads = f"ascend in multiples of {store.step_hours} h"
    checks = [
        ("time", "hold each initial time once", np.unique(store.init_times).size == store.init_times.size),
        ("prediction_timedelta", leads, _ascend(kept.lead_hours) and complete_steps),
        ("level", "ascend from above 0 hPa", _ascend(kept.levels)),
    ]
    for name in store.variables:
        array = arrays_of(store.root)[name]
        shape = [coordinates[dim].size for dim in array["dimension_names"]]
        checks.append((name, f"have the shape {shape}, as the coordinates have", array["shape"] == shape))
    remedy = "restore it from a copy of the store, and verify again"
    return [Flaw(FlawKind.COORDINATES, "", name, what, "does not", remedy) for name, what, holds in checks if not holds]


def _ascend(numbers: Iterable[int]) -> bool:
    return all(low < high for low, high in pairwise((0, *numbers)))


def _scores_flaws(store: Store, complete: Sequence[str], *, deep: bool) -> list[Flaw]:
    """Scores that are not as their records say, unless they are being written, or were since.

    Args:
        store: that they are in.
        complete: keys of the Cases that were whole before.
        deep: read their files, and compare checksums.
    """
    found = list[Flaw]()
    for scores in ScoreStore.all_of(store.path):
        for key in scores.keys():  # noqa: SIM118 - no mapping
            found += look_at_scores(store, scores, key, deep=deep)
    if store.only_scores:
        forecast = ScoreStore.at(store.path, FORECAST)
        for key in sorted(set(complete) - set(forecast.keys())):
            path = str(forecast.record_path(key).relative_to(store.path))
            expected = "be there, as nothing but scores is kept of the Case"
            found.append(Flaw(FlawKind.SCORES, key, path, expected, "is not there", _REPAIR))
    return found


def look_at_scores(store: Store, scores: ScoreStore, key: str, *, deep: bool, leased: bool = False) -> list[Flaw]:
    """What is wrong with the scores of one Case, as far as they are not being written.

    Args:
        store: that they are in.
        scores: which.
        key: of the Case.
        deep: read their files, and compare checksums.
        leased: whether the caller holds the claim, so that nobody else writes.

    Raises:
        StoreError: a folder cannot be read.
    """
    remedy = _REPAIR if store.only_scores and scores.name == FORECAST else _RESCORE
    path = scores.record_path(key)

    def flaw(place: Path, expected: str, found: str) -> Flaw:
        return Flaw(FlawKind.SCORES, key, str(place.relative_to(store.path)), expected, found, remedy)

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
        faults = {file: _fault(scores.folder / file, *record.files[file], deep=deep) for file in sorted(record.files)}
        found = [flaw(scores.folder / file, *fault[1:]) for file, fault in faults.items() if fault]
        # Who writes holds the claim until the record speaks of what was written.
        written = found and not leased and (scores.is_held(key) or ScoreRecord.read(path) != record)
        return [] if written else found


def _statistics_flaws(path: Path) -> list[Flaw]:
    """Workers read them from the store."""
    found = {}
    for file in _STATISTICS:
        try:
            with xr.open_dataset(path / file, engine="netcdf4") as statistics:
                statistics.load()
        except (OSError, RuntimeError, ValueError) as error:
            found[file] = "is not there" if isinstance(error, FileNotFoundError) else f"is not: {error}"
    remedy = "remove the folder statistics, so that the next run makes it again"
    return [Flaw(FlawKind.STATISTICS, "", file, "be readable as netCDF", what, remedy) for file, what in found.items()]
