"""Compute how many bytes a read must fetch, from the chunks of the stored variables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import xarray as xr
from numpy.typing import NDArray

Positions = Mapping[str, NDArray[np.intp]]
"""Indices that are read along each dimension, by its name; of other dimensions all indices are read."""


@dataclass(frozen=True)
class Stored:
    """Shape, chunks and item size of a variable in its file.

    Attributes:
        sizes: sizes of the dimensions by name, in the order of the dimensions.
        chunks: shape of a chunk, which is fetched and decompressed as one, in that order. All 1 where each value can
            be read alone (in contiguous netCDF variables and classic files) and where the chunks are unknown. For a
            sharded zarr array, the shape of the inner chunk and not of the shard.
        item_bytes: size of one value, before packed numbers are unpacked.
    """

    sizes: Mapping[str, int]
    chunks: tuple[int, ...]
    item_bytes: int

    @property
    def time_chunk(self) -> int:
        """Number of times in a chunk; 1 if the variable is not chunked or has no time."""
        return dict(zip(self.sizes, self.chunks, strict=True)).get("time", 1)

    def touched_bytes(self, positions: Positions) -> int:
        """Return the size of all chunks that hold at least one wanted value, in bytes.

        A chunk at the edge counts in full, because both zarr and HDF5 store it in full.
        """
        read = self._indices_read(positions)
        lengths = (np.unique(where // length).size * length for where, length in zip(read, self.chunks, strict=True))
        return prod(lengths, start=self.item_bytes)

    def wanted_bytes(self, positions: Positions) -> int:
        """Return the size of the wanted values, each counted once, in bytes."""
        return prod((np.unique(where).size for where in self._indices_read(positions)), start=self.item_bytes)

    def _indices_read(self, positions: Positions) -> list[NDArray[np.intp]]:
        return [positions.get(dim, np.arange(size)) for dim, size in self.sizes.items()]


@dataclass(frozen=True)
class ReadCost:
    """Bytes that a read of variables fetches and bytes that it needs, decompressed, before numbers are unpacked.

    Attributes:
        touched_bytes: size of all chunks that hold at least one wanted value.
        wanted_bytes: size of the wanted values themselves.
        worst: name of the variable for which the most bytes are fetched in vain.
        worst_chunks: chunk shape of that variable, in the order of its dimensions; all 1 if it is not chunked.
    """

    touched_bytes: int
    wanted_bytes: int
    worst: str
    worst_chunks: tuple[int, ...]

    @property
    def factor(self) -> float:
        """Touched over wanted bytes, 1 or more."""
        return self.touched_bytes / self.wanted_bytes if self.wanted_bytes else 1.0


def stored(variable: xr.Variable) -> Stored:
    """Return the shape, chunks and item size that a variable has in its file.

    Args:
        variable: a variable of an opened dataset, of which nothing has been selected: a selection loses the encoding.
    """
    encoding = variable.encoding
    chunks = encoding.get("chunks") or encoding.get("chunksizes")  # zarr's name, and netCDF's
    return Stored(
        sizes={str(dim): size for dim, size in variable.sizes.items()},
        chunks=tuple(map(int, chunks)) if chunks else (1,) * variable.ndim,
        item_bytes=int(np.dtype(encoding.get("dtype", variable.dtype)).itemsize),
    )


def read_cost(variables: Mapping[str, Stored], positions: Positions) -> ReadCost:
    """Return the bytes that a read of variables fetches and needs.

    Args:
        variables: one or more variables, by name.
        positions: wanted indices along dimensions, from 0, in any order; dimensions that a variable lacks are ignored.
    """
    touched = {name: variable.touched_bytes(positions) for name, variable in variables.items()}
    wanted = {name: variable.wanted_bytes(positions) for name, variable in variables.items()}
    worst = max(variables, key=lambda name: touched[name] - wanted[name])
    return ReadCost(
        touched_bytes=sum(touched.values()),
        wanted_bytes=sum(wanted.values()),
        worst=worst,
        worst_chunks=variables[worst].chunks,
    )


def total_cost(parts: Sequence[ReadCost]) -> ReadCost:
    """Return the sum of the costs of one or more reads."""
    worst = max(parts, key=lambda part: part.touched_bytes - part.wanted_bytes)
    return replace(
        worst,
        touched_bytes=sum(part.touched_bytes for part in parts),
        wanted_bytes=sum(part.wanted_bytes for part in parts),
    )
