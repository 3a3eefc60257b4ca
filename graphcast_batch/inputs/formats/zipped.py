"""Unpack a file of a zip, so that the copy is removed when the process ends."""

import os
import shutil
import tempfile
import weakref
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from graphcast_batch.errors import InputError

_PIECE: Final = 2**20


class Nameless:
    """Keeps a file readable at ``path`` after it was removed, as long as this object exists."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        self.path = Path(f"/dev/fd/{descriptor}")
        weakref.finalize(self, os.close, descriptor)


def zip_of(address: str) -> tuple[Path, str] | None:
    """Return the zip and the name of the file in it for an address such as ``a.zip/b.nc``; None for other addresses."""
    path = Path(address)
    if path.exists():
        return None
    packed = next((parent for parent in path.parents if parent.is_file()), None)
    return (packed, path.relative_to(packed).as_posix()) if packed and zipfile.is_zipfile(packed) else None


@contextmanager
def unpacked(packed: Path, name: str) -> Iterator[Path]:
    """Return a context with the path of an unpacked copy of a file in a zip, which is removed at its end.

    Raises:
        InputError: there is no such file, the zip is damaged, or the disk is full.
    """
    with tempfile.NamedTemporaryFile(prefix="graphcast-batch-") as copy:
        try:
            with zipfile.ZipFile(packed) as zipped, zipped.open(name) as content:
                shutil.copyfileobj(content, copy, _PIECE)
                copy.flush()
        except (OSError, zipfile.BadZipFile, KeyError, RuntimeError) as error:  # RuntimeError: password
            folder = Path(copy.name).parent
            raise InputError(
                f"the file {name} in {packed} must be unpacked to be read, which failed in {folder} with "
                f"{shutil.disk_usage(folder).free / 1e9:.3g} GB free: {error}; run: unzip {packed} -d FOLDER, and give "
                "FOLDER"
            ) from error
        yield Path(copy.name)
