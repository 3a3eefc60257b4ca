"""Compute the size in bytes that a classic netCDF file must have, from its header.

The netCDF library reads zeros where a classic file (CDF-1, CDF-2, CDF-5) was cut off, so that a copy which stopped
half-way looks complete: this check protects a user who would start forecasts from those zeros.
Layout: NetCDF Users Guide, "File Format Specifications".
"""

import math
import os
from pathlib import Path
from typing import BinaryIO, Final

_MOST_DIMENSIONS: Final = 1024
"""NC_MAX_VAR_DIMS of netcdf.h, which the netCDF library refuses to exceed."""
_MOST_BYTES: Final = 2**63 - 1
"""The longest file that offsets of 64 bits reach."""
_CUT: Final = "it ends inside its header"
_TYPE_BYTES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}


def is_classic(path: Path) -> bool:
    """Whether the file opens with the magic bytes of a classic netCDF file."""
    with path.open("rb") as file:
        magic = file.read(4)
    return magic[:3] == b"CDF" and magic[3:] in (b"\x01", b"\x02", b"\x05")


def needed_bytes(path: Path) -> int:
    """The least size of a classic netCDF file that holds all that its header promises.

    Raises:
        ValueError: the header itself is cut off or is none.
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
        streaming = records == 256**self._count_bytes - 1  # the count was never written
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
        """Length of each dimension; 0 marks the one that counts records."""
        lengths = []
        for _ in range(self._list_length()):
            self._skip_name()
            lengths.append(self._count())
        return lengths

    def _variable(self, dimensions: list[int]) -> tuple[int, int, bool]:
        """Where a variable begins, its bytes (of one record, for those that grow) and whether it grows."""
        self._skip_name()
        lengths = self._lengths(dimensions)
        self._skip_attributes()
        item = self._type_bytes()
        self._count()  # vsize, which is wrong for large variables: computed from the lengths instead
        begin = int.from_bytes(self._take(self._offset_bytes), "big")
        grows = bool(lengths) and lengths[0] == 0
        return begin, item * math.prod(lengths[1:] if grows else lengths), grows

    def _lengths(self, dimensions: list[int]) -> list[int]:
        count = self._count()
        if count > _MOST_DIMENSIONS:
            raise ValueError(
                f"its header names a variable of {count} dimensions, where {_MOST_DIMENSIONS} are possible"
            )
        places = [self._count() for _ in range(count)]
        if any(place >= len(dimensions) for place in places):
            raise ValueError("its header names a variable along a dimension that it does not have")
        return [dimensions[place] for place in places]

    def _skip_attributes(self) -> None:
        for _ in range(self._list_length()):
            self._skip_name()
            item = self._type_bytes()
            self._skip(_padded(item * self._count()))

    def _skip_name(self) -> None:
        self._skip(_padded(self._count()))

    def _list_length(self) -> int:
        self._take(4)  # a tag, zero for an absent list
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
