"""Find the files and stores that a path, glob, folder or address names."""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from graphcast_batch.errors import InputNotFoundError
from graphcast_batch.inputs.formats.file_formats import SUFFIXES, data_in_zip, format_of, is_zipped_zarr, special_kind

_INDEX: Final = ".idx"
"""Suffix of the index files that cfgrib and NCEP write beside GRIB files."""
_LISTED: Final = 5


@dataclass(frozen=True)
class NamedFiles:
    """The data that a path names.

    Attributes:
        found: files, stores and addresses that are to be opened; ``ZIP/NAME`` is a file in a zip.
        passed_over: other files and folders that a folder holds or a glob matches, each with its kind.
        chosen: whether the path names the data explicitly, so that an unusable file is an error.
    """

    found: tuple[str, ...]
    passed_over: tuple[str, ...] = ()
    chosen: bool = True


def named_files(path: str) -> NamedFiles:
    """Return the data that a path, glob, folder or address names.

    Raises:
        InputNotFoundError: a folder or glob holds no data.
    """
    if "://" in path or os.path.isfile(path) or format_of(Path(path)) == "zarr":
        return NamedFiles(_opened_up(path))
    if os.path.isdir(path):
        every = [os.path.join(path, name) for name in sorted(os.listdir(path)) if not name.startswith(".")]
        return _sorted_out(every, f"the folder {path} must hold netCDF, GRIB or zarr")
    if glob.has_magic(path) and not os.path.exists(path):
        every = sorted(glob.glob(path, recursive=True))
        return _sorted_out(every, f"the pattern {path} must match netCDF, GRIB or zarr")
    return NamedFiles((path,))


def passed_over(found: NamedFiles) -> str:
    """Return the warning about files and folders that were passed over."""
    return f"passed over, as neither netCDF, GRIB nor zarr: {_listed(found.passed_over)}"


def _sorted_out(every: Sequence[str], expected: str) -> NamedFiles:
    data = [path for path in every if _is_data(Path(path))]
    beside = [path for path in every if path not in data and not path.endswith(_INDEX)]
    if not data:
        what = f"only {_listed([_described(Path(path)) for path in beside])}" if beside else "nothing"
        verb = "matches" if "pattern" in expected else "holds"
        raise InputNotFoundError(
            f"{expected}, but {verb} {what} (working directory: {os.getcwd()}); correct inputs.path"
        )
    found = tuple(place for path in data for place in _opened_up(path))
    return NamedFiles(found, tuple(_described(Path(path)) for path in beside), chosen=False)


def _is_data(path: Path) -> bool:
    """Return whether a path is data by its content, or must be by its name, so that a damaged file is reported."""
    named = path.name.lower().endswith(SUFFIXES) and (path.is_file() or not path.exists())
    return named or format_of(path) != ""


def _described(path: Path) -> str:
    kind = special_kind(path) or ("a folder" if path.is_dir() else "")
    return f"{path} ({kind})" if kind else str(path)


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def _opened_up(path: str) -> tuple[str, ...]:
    """Return a path, or the paths of the data files in it if it is a zip of data files."""
    if "://" in path or format_of(Path(path)) != "zip" or is_zipped_zarr(Path(path)):
        return (path,)
    return tuple(f"{path}/{name}" for name in data_in_zip(Path(path))) or (path,)
