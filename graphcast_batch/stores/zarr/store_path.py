"""Find out whether a store is or can be at a path, and move one that was laid out beside it there."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from graphcast_batch.errors import StoreError
from graphcast_batch.files.durable import sync_folder
from graphcast_batch.files.leases import Lease
from graphcast_batch.files.staging import alone

ROOT: Final = "zarr.json"
"""Metadata of a store with those of all arrays, without which it is none."""
SUBMITTED: Final = "slurm"
"""Holds the jobs that were submitted for a store, maybe before it was laid out."""
LAYING_OUT: Final = ".laying-out"
"""What private folders for that are called."""
_HALF: Final = f".half{ROOT}"
_LOCK_SECONDS: Final = 60.0


def is_laid_out(path: Path) -> bool:
    """Whether a store was laid out at a path."""
    return (path / ROOT).exists()


def check_place(path: Path) -> None:
    """Refuses a path where no store can be laid out; one that is laid out there is none of its business.

    Raises:
        StoreError: the path is something else, or lies below something that is no folder.
        OSError: it cannot be told.
    """
    remedy = "choose another `store` path"
    if path == Path(path.root):
        raise StoreError(f"{path} must be a folder for a store, but is the root of the file system; {remedy}")
    for parent in (path, *path.parents):
        if not os.path.lexists(parent):
            continue
        if parent.is_symlink() and not parent.exists():
            found = f"a link to {os.readlink(parent)}, which is not there"
            raise StoreError(f"{path} must lie in a folder, but {parent} is {found}; mend the link, or {remedy}")
        if not parent.is_dir():
            kind = "a file" if parent.is_file() else "neither a file nor a folder"
            raise StoreError(f"{path} must be a folder or not exist yet, but {parent} is {kind}; {remedy}")
        break
    if parent == path and not is_laid_out(path) and (names := _unexpected(path)):
        raise _something_else(path, f"it holds {', '.join(names[:5])}")


def move_into_place(draft: Path, path: Path) -> None:
    """Moves what was laid out into its place, unless a store is there by then.

    Raises:
        StoreError: something else is there.
        OSError: it cannot be moved.
    """
    try:
        if _awaits(path):
            _fill(path, draft)
        else:
            draft.rename(path)
    except OSError as error:
        if not os.path.lexists(path):
            raise
        if not is_laid_out(path):
            raise _something_else(path, error) from error
    sync_folder(path.parent)


@contextmanager
def held(path: Path) -> Iterator[Lease]:
    """A claim on what only one driver may do at a time, once no other has it.

    Raises:
        StoreError: another driver keeps it.
    """
    lock = _wait_for(path)
    try:
        yield lock
    finally:
        lock.release()


def _unexpected(path: Path) -> list[str]:
    """What is in a folder that becomes no store, as far as names tell."""
    names = {each.name for each in path.iterdir()}
    return [] if _HALF in names else sorted(names - {SUBMITTED})


def _something_else(path: Path, found: object) -> StoreError:
    return StoreError(
        f"{path} must be a store that this program made, or not exist yet, but is something else ({found}); "
        f"choose another `store` path, or put its {ROOT} back if it was a store"
    )


def _awaits(path: Path) -> bool:
    """Whether jobs were submitted for a store that is not there yet."""
    return (path / SUBMITTED).is_dir() and not is_laid_out(path)


def _fill(path: Path, draft: Path) -> None:
    """Lays out a store around the files of its jobs, which are in use by now.

    The root's metadata come first under another name, by which a later attempt knows that what it finds is no store
    that has lost its root, but the half of one; they get their own name last, which makes it a store.
    """
    half = path / _HALF
    with held(path / SUBMITTED / ".lay-out") as lock, alone(path / SUBMITTED, LAYING_OUT, lock) as staging:
        if is_laid_out(path):
            return
        ours = {each.name for each in draft.iterdir()} if half.exists() else set()
        foreign = {each.name for each in path.iterdir()} - ours - {SUBMITTED, half.name}
        if foreign:
            raise FileExistsError(f"it holds {', '.join(sorted(foreign))}")
        staging.write(half.name, (draft / ROOT).read_bytes())
        staging.replace(half.name, half)
        root = staging.folder / ROOT
        draft.rename(staging.folder / "draft")
        (staging.folder / "draft" / ROOT).rename(root)
        for each in (staging.folder / "draft").iterdir():
            staging.take_folder_away(path / each.name)
            each.rename(path / each.name)
        sync_folder(path)
        staging.replace(root.name, path / ROOT)
        staging.take_away(half)
        sync_folder(path)


def _wait_for(lock: Path) -> Lease:
    deadline = time.monotonic() + 2 * _LOCK_SECONDS
    while time.monotonic() < deadline:
        lease = Lease.take(lock, _LOCK_SECONDS)
        if lease:
            return lease
        time.sleep(0.1)
    raise StoreError(f"{lock} must be released by the driver that extends the store, but is still held; run again")
