"""Write the lead times of a variable, one after another, into one file: a shard of zarr's sharding codec.

zarr itself writes a shard in one piece, so that all of it must be in memory, copies it twice more, and leaves it to be
read again for its checksum. Here each lead time is encoded, added to the checksum and written as it comes, and the
index of all of them, https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/,
when the last one was written.
"""

import os
import re
import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import google_crc32c
import numpy as np
from numcodecs.blosc import Blosc  # type: ignore[import-untyped]  # shipped without types
from numpy.typing import NDArray
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, Crc32cCodec

from graphcast_batch.config.outputs_section import OutputsConfig
from graphcast_batch.errors import StoreError
from graphcast_batch.files.durable import Sealed
from graphcast_batch.stores.zarr.rounding import keep_bits

_KEEP_BITS: Final = "keep_bits"
"""Attribute of an array with the number of bits of the mantissa that its values keep, where not all."""
_SHUFFLES: Final = {"noshuffle": Blosc.NOSHUFFLE, "shuffle": Blosc.SHUFFLE, "bitshuffle": Blosc.BITSHUFFLE}
_LEVELS: Final = {"lz4": 5, "zstd": 1}
_LITTLE_ENDIAN: Final = {"name": "bytes", "configuration": {"endian": "little"}}
_CHECKSUM: Final = {"name": "crc32c"}
Place = tuple[int, ...]
"""Place of a Case: its index on the time axis, and in a store of an ensemble that on the axis of members."""

_CHUNK: Final = re.compile(r"c(\.(0|[1-9][0-9]{0,9}))+")
"""File name of a shard: for each axis the number of the shard."""
_ABSENT: Final = 2**64 - 1
"""Offset and size, in the index of a shard, of a lead time that is not in the shard."""


@dataclass(frozen=True)
class Encoding:
    """How the lead times of one variable are rounded and compressed.

    Attributes:
        block_steps: number of lead times in a shard.
        keep_bits: how many bits of the mantissa are kept; None for all.
        blosc: configuration of the compressor, as in zarr's metadata; None without a compressor.
        checked: whether each lead time ends with its checksum, so that every reader finds out whether it was damaged;
            not in stores of earlier versions.
    """

    block_steps: int
    keep_bits: int | None
    blosc: dict[str, Any] | None
    checked: bool = True

    @classmethod
    def wanted(cls, outputs: OutputsConfig, name: str, block_steps: int) -> Self:
        """Return the encoding of a variable that a config asks for."""
        bits, codec = outputs.bits_of(name), outputs.compression
        # Rounding leaves whole planes of zero bits, which only bitshuffle brings together.
        shuffle = "shuffle" if bits is None else "bitshuffle"
        blosc = {"typesize": 4, "cname": codec, "clevel": _LEVELS.get(codec), "shuffle": shuffle, "blocksize": 0}
        return cls(block_steps, bits, None if codec == "none" else blosc)

    @classmethod
    def of(cls, array: Mapping[str, Any]) -> Self:
        """Return the encoding that the metadata of an array ask for.

        Raises:
            StoreError: the encoding is none that this program writes.
        """
        try:
            lead = _lead_axis(array)
            block_steps = array["chunk_grid"]["configuration"]["chunk_shape"][lead]
            _, *codecs = array["codecs"][0]["configuration"]["codecs"]
            checked = codecs[-1:] == [_CHECKSUM]
            compressors = codecs[: len(codecs) - checked]
            blosc = compressors[0]["configuration"] if compressors else None
            found = cls(block_steps, array["attributes"].get(_KEEP_BITS), blosc, checked)
            if array != {**array, **found._metadata(array["shape"], lead)} or found.keep_bits not in (
                None,
                *range(1, 23),
            ):
                raise ValueError(f"{array['data_type']}, {array['codecs']}, {array['attributes']}")
            found.encode(np.zeros(1, np.float32))
        except (KeyError, IndexError, ValueError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
            raise StoreError(
                f"each variable must have an encoding that this program writes, but one has another: {error!r}; "
                "write with the version that made the store"
            ) from error
        return found

    @property
    def codecs(self) -> tuple[BytesBytesCodec, ...]:
        """What the bytes of a lead time go through, as objects of zarr."""
        compressor = (BloscCodec(**self.blosc),) if self.blosc else ()
        return (*compressor, *((Crc32cCodec(),) if self.checked else ()))

    @property
    def attributes(self) -> dict[str, int]:
        """Attributes of the variable that describe its encoding to readers."""
        return {} if self.keep_bits is None else {_KEEP_BITS: self.keep_bits}

    def __str__(self) -> str:
        kept = "" if self.keep_bits is None else f", {self.keep_bits} bits of the mantissa"
        named = self.blosc and "blosc {cname} {clevel} {shuffle}".format_map(self.blosc)
        return f"{named or 'no compression'}{kept}"

    def encode(self, values: NDArray[np.float32]) -> tuple[bytes, ...]:
        """Encode one lead time, as parts that follow each other; other threads run meanwhile."""
        plain = np.ascontiguousarray(values, "<f4")
        if self.keep_bits is not None:
            plain = keep_bits(plain, self.keep_bits)
        if self.blosc is None:
            content = plain.tobytes()
        else:
            content = Blosc(**self.blosc | {"shuffle": _SHUFFLES[self.blosc["shuffle"]]}).encode(plain)
        return (content, _checksum_of(content)) if self.checked else (content,)

    def _metadata(self, shape: Sequence[int], lead: int) -> dict[str, Any]:
        """Return those metadata of an array of that shape, with lead times on one of its axes, that describe this."""
        before, after = [1] * lead, shape[lead + 1 :]
        compressors = [{"name": "blosc", "configuration": self.blosc}] if self.blosc else []
        sharding = {
            "chunk_shape": [*before, 1, *after],
            "codecs": [_LITTLE_ENDIAN, *compressors, *([_CHECKSUM] if self.checked else [])],
            "index_codecs": [_LITTLE_ENDIAN, _CHECKSUM],
            "index_location": "end",
        }
        return {
            "data_type": "float32",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [*before, self.block_steps, *after]}},
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        }


class Shard:
    """One file to which lead times are appended, by any threads, in the order of the lead times."""

    def __init__(self, path: Path, encoding: Encoding, leads: int) -> None:
        """Create the file.

        Args:
            path: path of the file.
            encoding: encoding of the variable.
            leads: how many lead times will be appended, no more than fit into a shard.

        Raises:
            OSError: the file cannot be created.
        """
        self._name = f"{path.parent.name}/{path.name}"
        self._file = path.open("wb", buffering=0)
        self._encoding = encoding
        self._leads = leads
        self._lock = threading.Lock()
        self._index: list[int] = []
        self._size = self._checksum = 0
        self.sealed: Sealed | None = None
        """Size and checksum of the file, once all is written and outlasts a power failure."""

    def append(self, first: int, values: NDArray[np.float32]) -> None:
        """Write the next lead times.

        Args:
            first: the first of the lead times, counted from 0 in this shard.
            values: (k, [level], latitude, longitude).

        Raises:
            StoreError: the lead times do not come in order.
            OSError: the lead times cannot be written.
        """
        with self._lock:
            written = len(self._index) // 2
            if first != written:
                raise StoreError(
                    f"the lead times of {self._name} must be written in order, but after {written} of them number "
                    f"{first} came, counted from 0; write each once, and none before those that precede it"
                )
            for lead in values:
                parts = self._encoding.encode(lead)
                self._index += [self._size, sum(map(len, parts))]
                for part in parts:
                    self._write(part)
            if first + len(values) == self._leads:
                self._seal()

    def close(self) -> None:
        """Close the file; one that is not sealed is never used."""
        self._file.close()

    def _seal(self) -> None:
        absent = [_ABSENT] * (2 * self._encoding.block_steps - len(self._index))
        index = np.array(self._index + absent, "<u8").tobytes()
        self._write(index + _checksum_of(index))
        os.fsync(self._file.fileno())
        found = os.fstat(self._file.fileno())
        self._file.close()
        self.sealed = Sealed(self._size, f"{self._checksum:08x}", found.st_dev, found.st_ino)

    def _write(self, content: bytes) -> None:
        self._checksum = zlib.crc32(content, self._checksum)
        self._size += len(content)
        left = memoryview(content)
        while left:  # the system may take less than all at once
            left = left[self._file.write(left) :]


def _checksum_of(content: bytes) -> bytes:
    return int(google_crc32c.value(content)).to_bytes(4, "little")


def block_steps_of(array: Mapping[str, Any]) -> int:
    """Return how many lead times a shard has, from the metadata of an array."""
    return int(array["chunk_grid"]["configuration"]["chunk_shape"][_lead_axis(array)])


def file_of(name: str, levelled: bool, place: Place, block: int) -> str:
    """Return the path, in the store, of a shard of a variable.

    Args:
        name: name of the variable.
        levelled: whether the variable is on levels.
        place: place of the Case.
        block: number of the shard among those of the Case, counted from 0.
    """
    return f"{name}/c.{'.'.join(map(str, place))}.{block}{'.0' * (2 + levelled)}"


def shard_of(file_name: str, levelled: bool, axes: int) -> tuple[Place, int] | None:
    """Return the place and the number of a shard, from its file name without the folder; None if it is none.

    Args:
        file_name: such as ``c.0.3.0.0``.
        levelled: whether the variable is on levels.
        axes: number of axes of a place.
    """
    if not _CHUNK.fullmatch(file_name):
        return None
    numbers = [int(part) for part in file_name.split(".")[1:]]
    if len(numbers) != axes + 3 + levelled or any(numbers[axes + 1 :]):
        return None
    return tuple(numbers[:axes]), numbers[axes]


def files_of(place: Place, blocks: int, on_levels: tuple[tuple[str, bool], ...]) -> set[str]:
    """Return the paths, in the store, of the first shards of every variable of a Case.

    Args:
        place: place of the Case.
        blocks: how many shards of each variable.
        on_levels: for each variable, whether it is on levels.
    """
    return {file_of(name, levelled, place, block) for name, levelled in on_levels for block in range(blocks)}


def _lead_axis(array: Mapping[str, Any]) -> int:
    """Return the index of the axis of lead times, from the metadata of an array."""
    return list(array["dimension_names"]).index("prediction_timedelta")
