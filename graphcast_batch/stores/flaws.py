"""Describe what verification finds in a store, and what a repair does about it."""

import errno
import stat
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from graphcast_batch.files.durable import checksum_of


class FlawKind(StrEnum):
    """What is wrong with a part of a store."""

    MISSING = "missing"
    SIZE = "size"
    CHECKSUM = "checksum"
    RECORD = "record"
    UNRECORDED = "unrecorded"
    UNEXPECTED = "unexpected"
    METADATA = "metadata"
    COORDINATES = "coordinates"
    STATISTICS = "statistics"
    SCORES = "scores"


REPAIR: Final = "verify with --repair, so that the next run makes the Case again"
"""Remedy for a Case that is damaged."""


@dataclass(frozen=True)
class Flaw:
    """One thing in a store that is not as it should be.

    Attributes:
        kind: what is wrong.
        key: key of the Case that it belongs to; empty where it belongs to none.
        path: path of the file, in the store.
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
        """Whether it misleads no reader: a file that an attempt left behind, and that the next attempt replaces."""
        return self.kind is FlawKind.UNRECORDED

    def __str__(self) -> str:
        of = f" of {self.key}" if self.key else ""
        return f"{self.path}{of} must {self.expected}, but {self.found}; {self.remedy}"


@dataclass(frozen=True)
class CasesVerification:
    """Result of comparing the forecasts of a store with their records.

    Attributes:
        cases: keys of the complete Cases that were verified.
        left: keys of the complete Cases that were not, because the executor stopped early.
        bytes: size of the files of the verified Cases in bytes, as recorded.
        flaws: what was found, in the order of the keys, then what belongs to no complete Case.
    """

    cases: tuple[str, ...]
    left: tuple[str, ...]
    bytes: int
    flaws: tuple[Flaw, ...]


@dataclass(frozen=True)
class ForecastRepair:
    """What was done to the forecasts of a store.

    Attributes:
        forgotten: keys of the Cases that the next run makes again.
        removed: files that were removed, by their path in the store.
        busy: keys of the Cases that were left alone, since another process works on them.
    """

    forgotten: tuple[str, ...]
    removed: tuple[str, ...]
    busy: tuple[str, ...]


def file_fault(path: Path, size: int, checksum: str, *, deep: bool) -> tuple[FlawKind, str, str] | None:
    """Compare a file with what its record says.

    Args:
        path: path of the file.
        size: bytes, as recorded.
        checksum: CRC-32, hexadecimal, as recorded.
        deep: read the file and compare its checksum.

    Returns:
        Kind of flaw, what must hold, and what holds instead; None if the file is as recorded.

    Raises:
        OSError: the file cannot be read, other than because of a disk error.
    """
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
