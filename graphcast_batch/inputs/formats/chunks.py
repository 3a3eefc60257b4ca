"""Compute how many bytes a read must fetch, from the chunks of the stored variables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import xarray as xr
from numpy.typing import NDArray

Positions = Mapping[str, NDArray[np.intp]]
"""For dimensions by name, which places are read; of other dimensions all are."""


@dataclass(frozen=True)
class Stored:
    """How a variable lies in its file.

    Attributes:
        sizes: of its dimensions, by name, in their order.
        chunks: shape of what is fetched and decompressed as one, in that order. All 1 where each value can be read
            alone: in contiguous netCDF variables and classic files, and where nothing is known. Of a sharded zarr
            array it is the inner chunk, not the shard.
        item_bytes: of one value, before packed numbers are unpacked.
    """

    sizes: Mapping[str, int]
    chunks: tuple[int, ...]
    item_bytes: int

    @property
    def time_chunk(self) -> int:
        """How many times are fetched together; 1 where the variable is not chunked or has no time."""
        return dict(zip(self.sizes, self.chunks, strict=True)).get("time", 1)

    def touched_bytes(self, positions: Positions) -> int:
        """Bytes of all chunks that hold at least one wanted value.

        A chunk at the edge counts whole, as both zarr and HDF5 store it whole.
        """
        read = self._places_read(positions)
        places = (np.unique(where // length).size * length for where, length in zip(read, self.chunks, strict=True))
        return prod(places, start=self.item_bytes)

    def wanted_bytes(self, positions: Positions) -> int:
        """Bytes of the wanted values alone, each counted once."""
        return prod((np.unique(where).size for where in self._places_read(positions)), start=self.item_bytes)

    def _places_read(self, positions: Positions) -> list[NDArray[np.intp]]:
        return [positions.get(dim, np.arange(size)) for dim, size in self.sizes.items()]


@dataclass(frozen=True)
class ReadCost:
    """What a read of some variables fetches, decompressed and as stored, so before packed numbers are unpacked.

    Attributes:
        touched_bytes: of all chunks that hold at least one wanted value.
        wanted_bytes: of the wanted values themselves.
        worst: the variable that wastes the most bytes.
        worst_factor: its touched over its wanted bytes, 1 or more.
        worst_chunks: its chunk shape, in the order of its dimensions; all 1 where it is not chunked.
    """

    touched_bytes: int
    wanted_bytes: int
    worst: str
    worst_factor: float
    worst_chunks: tuple[int, ...]

    @property
    def factor(self) -> float:
        """Touched over wanted bytes, 1 or more."""
        return _factor(self.touched_bytes, self.wanted_bytes)


def stored(variable: xr.Variable) -> Stored:
    """How a variable of a dataset lies in its file, which is told as long as nothing has been selected of it."""
    encoding = variable.encoding
    chunks = encoding.get("chunks") or encoding.get("chunksizes")  # zarr's name, and netCDF's
    return Stored(
        sizes={str(dim): size for dim, size in variable.sizes.items()},
        chunks=tuple(map(int, chunks)) if chunks else (1,) * variable.ndim,
        item_bytes=int(np.dtype(encoding.get("dtype", variable.dtype)).itemsize),
    )


def read_cost(variables: Mapping[str, Stored], positions: Positions) -> ReadCost:
    """What it costs to read some places of some variables.

    Args:
        variables: one or more, by name.
        positions: along dimensions, indices from 0, in any order; those that a variable lacks are ignored.
    """
    touched = {name: variable.touched_bytes(positions) for name, variable in variables.items()}
    wanted = {name: variable.wanted_bytes(positions) for name, variable in variables.items()}
    worst = max(variables, key=lambda name: touched[name] - wanted[name])
    return ReadCost(
        touched_bytes=sum(touched.values()),
        wanted_bytes=sum(wanted.values()),
        worst=worst,
        worst_factor=_factor(touched[worst], wanted[worst]),
        worst_chunks=variables[worst].chunks,
    )


def total_cost(parts: Sequence[ReadCost]) -> ReadCost:
    """What several reads, one or more, cost together."""
    worst = max(parts, key=lambda part: part.touched_bytes - part.wanted_bytes)
    return replace(
        worst,
        touched_bytes=sum(part.touched_bytes for part in parts),
        wanted_bytes=sum(part.wanted_bytes for part in parts),
    )


def _factor(touched: int, wanted: int) -> float:
    return touched / wanted if wanted else 1.0
