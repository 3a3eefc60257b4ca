"""Compute the size in bytes that a classic netCDF file must have, from its header.

The netCDF library reads zeros where a classic file (CDF-1, CDF-2, CDF-5) was cut off, so that a copy that stopped
half-way looks complete: the check protects a user whose download was cut off from forecasts that start from zeros.
Format: NetCDF Users Guide, "File Format Specifications".
"""

import math
import os
from pathlib import Path
from typing import BinaryIO, Final

_MOST_DIMENSIONS: Final = 1024
"""NC_MAX_VAR_DIMS of netcdf.h: the netCDF library refuses a variable of more dimensions."""
_MOST_BYTES: Final = 2**63 - 1
"""Largest size of a file whose offsets have 64 bits."""
_CUT: Final = "it ends inside its header"
_TYPE_BYTES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}


def is_classic(path: Path) -> bool:
    """Return whether a file begins with the magic bytes of a classic netCDF file."""
    with path.open("rb") as file:
        magic = file.read(4)
    return magic[:3] == b"CDF" and magic[3:] in (b"\x01", b"\x02", b"\x05")


def needed_bytes(path: Path) -> int:
    """Return the least size that a classic netCDF file must have to hold all variables of its header.

    Raises:
        ValueError: the header is cut off or invalid.
    """
    with path.open("rb") as file:
        return _Header(file).needed_bytes()


class _Header:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        version = self._take(4)[3]
        self._count_bytes = 8 if version == 5 else 4
        self._offset_bytes = 4 if version == 1 else 8

    def needed_bytes(self) -> int:
        records = self._count()
        streaming = records == 256**self._count_bytes - 1  # all bits set: the writer did not record the count
        sizes = self._dimensions()
        self._skip_attributes()
        variables = [self._variable(sizes) for _ in range(self._list_length())]
        kept = [(begin, size) for begin, size, is_record in variables if not is_record]
        recorded = [(begin, size) for begin, size, is_record in variables if is_record]
        padded = recorded if len(recorded) == 1 else [(begin, _padded(size)) for begin, size in recorded]
        stride = sum(size for _, size in padded)
        ends = [begin + size for begin, size in kept]
        if records and not streaming:
            ends += [begin + (records - 1) * stride + size for begin, size in recorded]
        needed = max(ends, default=self._file.tell())
        if needed > _MOST_BYTES:
            raise ValueError("its header promises more bytes than any file has")
        return needed

    def _dimensions(self) -> list[int]:
        """Read the length of each dimension; 0 stands for the record dimension."""
        lengths = []
        for _ in range(self._list_length()):
            self._skip_name()
            lengths.append(self._count())
        return lengths

    def _variable(self, dimensions: list[int]) -> tuple[int, int, bool]:
        """Return the offset of a variable, its bytes (of one record if it has records) and whether it has records."""
        self._skip_name()
        lengths = self._lengths(dimensions)
        self._skip_attributes()
        item = self._type_bytes()
        self._count()  # vsize, which is wrong for large variables: the size is computed from the lengths instead
        begin = int.from_bytes(self._take(self._offset_bytes), "big")
        is_record = bool(lengths) and lengths[0] == 0
        return begin, item * math.prod(lengths[1:] if is_record else lengths), is_record

    def _lengths(self, dimensions: list[int]) -> list[int]:
        count = self._count()
        if count > _MOST_DIMENSIONS:
            raise ValueError(
                f"its header names a variable of {count} dimensions, where {_MOST_DIMENSIONS} are possible"
            )
        numbers = [self._count() for _ in range(count)]
        if any(number >= len(dimensions) for number in numbers):
            raise ValueError("its header names a variable along a dimension that it does not have")
        return [dimensions[number] for number in numbers]

    def _skip_attributes(self) -> None:
        for _ in range(self._list_length()):
            self._skip_name()
            item = self._type_bytes()
            self._skip(_padded(item * self._count()))

    def _skip_name(self) -> None:
        self._skip(_padded(self._count()))

    def _list_length(self) -> int:
        self._take(4)  # tag of the list, zero for an absent one
        return self._count()

    def _type_bytes(self) -> int:
        code = int.from_bytes(self._take(4), "big")
        if code not in _TYPE_BYTES:
            raise ValueError(f"its header names the unknown data type {code}")
        return _TYPE_BYTES[code]

    def _count(self) -> int:
        return int.from_bytes(self._take(self._count_bytes), "big")

    def _skip(self, size: int) -> None:
        if size > self._size - self._file.tell():
            raise ValueError(_CUT)
        self._file.seek(size, os.SEEK_CUR)

    def _take(self, size: int) -> bytes:
        content = self._file.read(size)
        if len(content) < size:
            raise ValueError(_CUT)
        return content


def _padded(size: int) -> int:
    return -(-size // 4) * 4
