"""Find out whether a store is or can be at a path, and move one that was laid out beside it there."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from graphcast_batch.errors import StoreError
from graphcast_batch.files.durable import sync_folder
from graphcast_batch.files.leases import FileLease
from graphcast_batch.files.staging import alone
from graphcast_batch.stores.base import SUBMITTED

ROOT: Final = "zarr.json"
"""File with the metadata of a store and of all its arrays; a folder without it is no store."""
LAYING_OUT: Final = ".laying-out"
"""Subject of the private folders of drivers that lay out a store."""
_HALF: Final = f".half{ROOT}"
_LOCK_SECONDS: Final = 60.0


def is_laid_out(path: Path) -> bool:
    """Return whether a store was laid out at a path."""
    return (path / ROOT).exists()


def check_place(path: Path) -> None:
    """Refuse a path at which there is no store and none can be laid out.

    Raises:
        StoreError: the path is something else, or lies below something that is not a folder.
        OSError: the path cannot be read.
    """
    remedy = "choose another `store` path"
    if path == Path(path.root):
        raise StoreError(f"{path} must be a folder for a store, but is the root of the file system; {remedy}")
    for parent in (path, *path.parents):
        if not os.path.lexists(parent):
            continue
        if parent.is_symlink() and not parent.exists():
            found = f"a link to {os.readlink(parent)}, which is not there"
            raise StoreError(f"{path} must lie in a folder, but {parent} is {found}; correct the link, or {remedy}")
        if not parent.is_dir():
            kind = "a file" if parent.is_file() else "neither a file nor a folder"
            raise StoreError(f"{path} must be a folder or not exist yet, but {parent} is {kind}; {remedy}")
        break
    if parent == path and not is_laid_out(path) and (names := _unexpected(path)):
        raise _something_else(path, f"it holds {', '.join(names[:5])}")


def move_into_place(draft: Path, path: Path) -> None:
    """Move a store that was laid out beside its path to the path, unless a store is there by then.

    Raises:
        StoreError: something else is there.
        OSError: the store cannot be moved.
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
def held(path: Path) -> Iterator[FileLease]:
    """Hold the lease on what only one driver may do at a time, once no other driver holds it.

    Raises:
        StoreError: another driver keeps the lease.
    """
    lock = _wait_for(path)
    try:
        yield lock
    finally:
        lock.release()


def _unexpected(path: Path) -> list[str]:
    """Return the names in a folder that keep it from being laid out as a store."""
    names = {each.name for each in path.iterdir()}
    return [] if _HALF in names else sorted(names - {SUBMITTED})


def _something_else(path: Path, found: object) -> StoreError:
    return StoreError(
        f"{path} must be a store that this program made, or not exist yet, but is something else ({found}); "
        f"choose another `store` path, or put its {ROOT} back if it was a store"
    )


def _awaits(path: Path) -> bool:
    """Return whether jobs were submitted for a store that is not laid out yet."""
    return (path / SUBMITTED).is_dir() and not is_laid_out(path)


def _fill(path: Path, draft: Path) -> None:
    """Move a store that was laid out around the files of its jobs, which are in use by now.

    The metadata of the root come first under another name, by which a later driver knows that it found a store which is
    half laid out, and not one that has lost its root; they get their own name last, which makes the folder a store.
    """
    half = path / _HALF
    with held(path / SUBMITTED / ".lay-out") as lock, alone(path / SUBMITTED, LAYING_OUT, lock) as staging:
        if is_laid_out(path):
            return
        ours = {each.name for each in draft.iterdir()} if half.exists() else set()
        unexpected = {each.name for each in path.iterdir()} - ours - {SUBMITTED, half.name}
        if unexpected:
            raise FileExistsError(f"it holds {', '.join(sorted(unexpected))}")
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


def _wait_for(lock: Path) -> FileLease:
    deadline = time.monotonic() + 2 * _LOCK_SECONDS
    while time.monotonic() < deadline:
        lease = FileLease.take(lock, _LOCK_SECONDS)
        if lease:
            return lease
        time.sleep(0.1)
    raise StoreError(f"{lock} must be released by the driver that extends the store, but is still held; run again")
