"""Verify the forecasts of a zarr store: complete Cases, metadata, coordinates, and files that no record names.

Other processes may be writing into the store; nothing that they are at work on is reported.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from graphcast_batch.errors import GraphcastBatchError, StoreError
from graphcast_batch.files.durable import explained, folder_clock
from graphcast_batch.files.leases import expired
from graphcast_batch.stores.base import CaseExecutor
from graphcast_batch.stores.flaws import CasesVerification, Flaw, FlawKind
from graphcast_batch.stores.zarr.complete_case import (
    CaseVerification,
    CompleteCase,
    open_with_cases,
    size_as_listed,
    verify_case,
    verify_deep,
)
from graphcast_batch.stores.zarr.shards import Place, shard_of
from graphcast_batch.stores.zarr.store import ZarrStore
from graphcast_batch.stores.zarr.store_layout import EXTENSION_LOCK, LEDGER, arrays_of, read_coordinates, read_root

_METADATA: Final = "zarr.json"


def verify_cases(path: Path, *, deep: bool, executor: CaseExecutor) -> CasesVerification:
    """Compare the forecasts of a store with its ledger.

    Nothing is written into the store, except for a moment the file that shows the clock of its file system.

    Args:
        path: the folder of the store.
        deep: read every file and compare its checksum; else compare names and sizes only.
        executor: runs the reading of files, if ``deep``.

    Raises:
        StoreError: there is no store, it cannot be opened, or its folders cannot be read.
        GridError: the latitudes or longitudes of the store are damaged.
    """
    try:
        first = ZarrStore.open(path)
        listing = {name: _sizes(first.path / name) for name in first.variables}
        running = first.ledger.running()
        store, complete = open_with_cases(path)
    except GraphcastBatchError:
        raise
    except Exception as error:  # zarr raises anything for metadata that are no longer those of a store
        raise StoreError(
            f"{path} must be an undamaged store, but cannot be opened: {error!r}; restore its {_METADATA} from a copy"
        ) from error
    results = list(_verify_deep(complete, executor) if deep else _verify_listed(complete, listing))
    flaws = [flaw for _, found in results for flaw in found]
    with explained(f"verifying {store.path}"):
        flaws += _unrecorded(store, complete, running, listing) + _layout_flaws(store)
    keys, size = tuple(case.key for case in complete), sum(size for size, _ in results)
    return CasesVerification(keys[: len(results)], keys[len(results) :], size, tuple(flaws))


def is_unexpected(store: ZarrStore, name: str, levelled: bool) -> bool:
    """Return whether a file in the folder of a variable belongs to no Case that the store was laid out for.

    Args:
        store: the store.
        name: name of the file.
        levelled: whether the variable is on levels.
    """
    return _position(store, name, levelled) is None


def _sizes(folder: Path) -> dict[str, int]:
    """Return the size of everything in a folder but its metadata, by name; nothing if there is no folder."""
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


def _verify_deep(complete: Sequence[CompleteCase], executor: CaseExecutor) -> Iterator[CaseVerification]:
    for result in executor(verify_deep, [(case,) for case in complete]):
        if isinstance(result, BaseException):
            raise result
        yield result


def _verify_listed(complete: Iterable[CompleteCase], listing: dict[str, dict[str, int]]) -> Iterator[CaseVerification]:
    """Verify file by file only those Cases that differ from the listing, which is faster than each file by itself."""
    for case in complete:
        size = size_as_listed(case, listing)
        yield verify_case(case, deep=False) if size is None else (size, ())


def _unrecorded(
    store: ZarrStore, complete: Iterable[CompleteCase], running: set[str], listing: dict[str, dict[str, int]]
) -> list[Flaw]:
    """Return the files that no record names: left by attempts that died, or unexpected.

    Args:
        store: opened after the files were listed.
        complete: the complete Cases, verified after that.
        running: keys of the Cases that were being written when the files had been listed.
        listing: for each variable, the sizes of the files in its folder by name.
    """
    blocks = {case.place: case.blocks for case in complete}
    unexpected, left = list[Flaw](), list[Flaw]()
    for variable, levelled in store.kept.on_levels:
        for name in sorted(listing[variable]):
            file, position = f"{variable}/{name}", _position(store, name, levelled)
            if position is None:
                unexpected.append(_unexpected_flaw(file))
            elif position[1] >= blocks.get(position[0], 0) and (key := store.key_at(position[0])) not in running:
                expected, remedy = "be listed by a record", "leave it: it is replaced when the Case is made"
                left.append(Flaw(FlawKind.UNRECORDED, key, file, expected, "an attempt that died has left it", remedy))
    if unexpected and _is_being_extended(store.path):  # files come and go beside the metadata of the arrays
        unexpected = []
    return left + [flaw for flaw in unexpected if os.path.lexists(store.path / flaw.path)]


def _position(store: ZarrStore, name: str, levelled: bool) -> tuple[Place, int] | None:
    """Return the place and the number of a shard by its file name; None if there is no such shard."""
    shard = shard_of(name, levelled, store.place_axes)
    if shard is None:
        return None
    place, block = shard
    sizes = (store.init_times.size, len(store.members))
    fits = all(index < size for index, size in zip(place, sizes, strict=False))
    return shard if fits and block < math.ceil(len(store.kept.lead_hours) / store.block_steps) else None


def _unexpected_flaw(file: str) -> Flaw:
    expected, found = "be a file of a Case that the store was laid out for", "no Case has a file of this name"
    remedy = "verify with --repair, which removes it; a folder remove yourself"
    return Flaw(FlawKind.UNEXPECTED, "", file, expected, found, remedy)


def _layout_flaws(store: ZarrStore) -> list[Flaw]:
    """Return what is wrong with metadata and coordinates, unless they are being, or have been, replaced."""
    found = _metadata_flaws(store) + _coordinate_flaws(store)
    return [] if found and (_is_being_extended(store.path) or read_root(store.path) != store.root) else found


def _metadata_flaws(store: ZarrStore) -> list[Flaw]:
    """Return the arrays whose own metadata differ from those of the root, which alone are relied on."""
    found = {}
    for name, array in arrays_of(store.root).items():
        try:
            if json.loads((store.path / name / _METADATA).read_bytes()) != array:
                found[name] = "does not"
        except (FileNotFoundError, ValueError) as error:
            found[name] = f"cannot be read: {error}"
    expected, remedy = "agree with the metadata of the root", "run again: a run writes it again as the root has it"
    return [Flaw(FlawKind.METADATA, "", f"{name}/{_METADATA}", expected, what, remedy) for name, what in found.items()]


def _is_being_extended(path: Path) -> bool:
    """Return whether a driver is extending the store now."""
    lock = path / LEDGER / EXTENSION_LOCK
    return lock.exists() and not expired(lock, math.inf, folder_clock(lock.parent))


def _coordinate_flaws(store: ZarrStore) -> list[Flaw]:
    """Return what is wrong with coordinates by themselves; the grid was checked when the store was opened."""
    coordinates, kept = read_coordinates(store.path), store.kept
    of_steps = all(lead % store.step_hours == 0 for lead in kept.lead_hours)
    leads = f"ascend in multiples of {store.step_hours} h"
    checks = [
        ("time", "hold each initial time once", np.unique(store.init_times).size == store.init_times.size),
        ("prediction_timedelta", leads, _ascend(kept.lead_hours) and of_steps),
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
