"""Unpack a file of a zip so that it vanishes with the process that reads it."""

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
    """A file that stays readable under a path of this process after it was removed, until nobody refers to this."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        self.path = Path(f"/dev/fd/{descriptor}")
        weakref.finalize(self, os.close, descriptor)


def zip_of(address: str) -> tuple[Path, str] | None:
    """The zip and the name in it that an address such as ``a.zip/b.nc`` means; None if it means something else."""
    path = Path(address)
    if path.exists():
        return None
    packed = next((parent for parent in path.parents if parent.is_file()), None)
    return (packed, path.relative_to(packed).as_posix()) if packed and zipfile.is_zipfile(packed) else None


@contextmanager
def unpacked(packed: Path, name: str) -> Iterator[Path]:
    """The path of a copy of a file in a zip, which is removed at the end of the block.

    Raises:
        InputError: there is no such file, the zip is damaged, or there is no room to unpack it.
    """
    with tempfile.NamedTemporaryFile(prefix="graphcast-batch-") as copy:
        try:
            with zipfile.ZipFile(packed) as zipped, zipped.open(name) as content:
                shutil.copyfileobj(content, copy, _PIECE)
                copy.flush()
        except (OSError, zipfile.BadZipFile, KeyError, RuntimeError) as error:  # RuntimeError if it wants a password
            folder = Path(copy.name).parent
            raise InputError(
                f"the file {name} in {packed} must be unpacked to be read, which failed in {folder} with "
                f"{shutil.disk_usage(folder).free / 1e9:.3g} GB free: {error}; run: unzip {packed} -d FOLDER, and give "
                "FOLDER"
            ) from error
        yield Path(copy.name)
