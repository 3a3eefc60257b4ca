"""Identify the format of a file by its first bytes, before a library opens it."""

import os
import stat
import zipfile
from pathlib import Path
from typing import Final, Literal

from graphcast_batch.errors import InputError

Format = Literal["zarr", "netCDF", "GRIB", "zip", ""]

SUFFIXES: Final = (".nc", ".nc4", ".h5", ".grib", ".grb", ".grib2", ".grb2", ".zarr")
"""Suffixes of data files: a file with one of them is an error if it cannot be read."""
GRIB_SUFFIXES: Final = (".grib", ".grb", ".grib2", ".grb2")

_SIGNS: Final[tuple[tuple[bytes, Format], ...]] = (
    (b"CDF\x01", "netCDF"),
    (b"CDF\x02", "netCDF"),
    (b"CDF\x05", "netCDF"),
    (b"\x89HDF\r\n\x1a\n", "netCDF"),
    (b"GRIB", "GRIB"),
    (b"PK\x03\x04", "zip"),
)
_ZARR: Final = ("zarr.json", ".zgroup", ".zmetadata")
"""Files of metadata, one of which every zarr store holds."""
_PACKED: Final = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
"""Commands that decompress a file, by its first bytes."""
_SPECIAL: Final = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def format_of(path: Path) -> Format:
    """Return the format of the data at a path; empty if nothing is there or it cannot be read as data."""
    if path.is_dir():
        return "zarr" if is_zarr(path) else ""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        start = file.read(8)
    return next((found for sign, found in _SIGNS if start.startswith(sign)), "")


def is_zarr(folder: Path) -> bool:
    """Return whether a folder is a zarr store, by its name or by the metadata in it."""
    return folder.name.endswith(".zarr") or any((folder / name).is_file() for name in _ZARR)


def is_zipped_zarr(path: Path) -> bool:
    """Return whether a file is a zip of a zarr store."""
    return any(name in _ZARR for name in _names(path))


def data_in_zip(path: Path) -> list[str]:
    """Return the names of the data files in a zip, such as the CDS sends; empty if the zip cannot be read."""
    return [name for name in _names(path) if name.endswith(SUFFIXES) and not name.startswith("__MACOSX/")]


def check_ordinary(path: Path) -> None:
    """Check that a path, and the metadata of a zarr store there, can be opened without waiting for ever.

    Raises:
        InputError: it is a FIFO, a socket or a device.
    """
    kind = special_kind(path)
    if kind:
        raise InputError(
            f"the input {path} must be a file or a folder, but is {kind}; write its content to a file, and give the "
            "path of that file"
        )
    for name in _ZARR if path.is_dir() else ():
        check_ordinary(path / name)


def special_kind(path: Path) -> str:
    """Return the kind of a path that is neither file nor folder, as text; empty if it is either or does not exist."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return ""
    return next((kind for is_kind, kind in _SPECIAL if is_kind(mode)), "")


def hint(path: Path) -> str:
    """Return how to unpack a file that is compressed or a zip, as text; empty if it is neither."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(b"PK\x03\x04"):
        held = ", ".join(_names(path)[:4]) or "nothing that can be listed"
        return f"it is a zip that holds {held}; unpack it with: unzip {path}"
    command = next((command for sign, command in _PACKED.items() if start.startswith(sign)), "")
    return f"it is compressed; unpack it with: {command} {path}" if command else ""


def _names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as zipped:
            return zipped.namelist()
    except (OSError, zipfile.BadZipFile):
        return []
