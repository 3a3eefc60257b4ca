"""Costs agree with chunks counted one by one, and with what a real store is asked for."""

from itertools import product
from math import prod

import netCDF4
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from zarr.abc.store import RangeByteRequest
from zarr.storage import LocalStore, WrapperStore

from graphcast_batch.inputs.formats.chunks import read_cost, stored, total_cost

DIMS = ("time", "level", "latitude", "longitude")
SHAPE = (10, 3, 7, 8)
FIELD = xr.Dataset({"value": (DIMS, np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE))})
READS = [
    {},
    {"time": np.array([3])},
    {"time": np.array([8, 1]), "level": np.array([2])},
    {"time": np.array([0, 9]), "latitude": np.arange(2, 6), "longitude": np.array([0, 7])},
]


def laid_out(shape, chunks):
    """A variable as it comes from a zarr store of such chunks."""
    variable = xr.Variable(DIMS[: len(shape)], np.zeros(shape, np.float32))
    variable.encoding["chunks"] = chunks
    return stored(variable)


@given(data=st.data(), shape=st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_costs_are_those_of_the_chunks_counted_one_by_one(data, shape):
    chunks = tuple(data.draw(st.integers(1, 11)) for _ in shape)
    wanted = [data.draw(st.lists(st.integers(0, size - 1), min_size=0, max_size=size)) for size in shape]
    positions = {dim: np.array(where, np.intp) for dim, where in zip(DIMS, wanted, strict=False)}

    variable = laid_out(tuple(shape), chunks)

    values = set(product(*wanted))
    held = {tuple(place // length for place, length in zip(value, chunks, strict=True)) for value in values}
    assert variable.touched_bytes(positions) == 4 * len(held) * prod(chunks)
    assert variable.wanted_bytes(positions) == 4 * len(values)


def test_dimensions_that_are_not_named_are_read_whole_and_foreign_ones_are_ignored():
    variable = laid_out((4, 6), (1, 4))

    positions = {"time": np.array([2]), "longitude": np.array([0])}

    assert variable.touched_bytes(positions) == 4 * 2 * 4
    assert variable.wanted_bytes(positions) == 4 * 6


def test_sizes_beyond_64_bits_are_counted():
    variable = xr.Variable(DIMS, np.broadcast_to(np.float32(0), (2, 2, 2, 2)))
    variable.encoding["chunks"] = (2**20,) * 4

    assert stored(variable).touched_bytes({}) == 4 * 2**80


def test_the_worst_variable_is_the_one_that_wastes_the_most_bytes():
    variables = {"thin": laid_out((40,), (40,)), "wide": laid_out((40, 13, 6), (20, 13, 6))}

    cost = read_cost(variables, {"time": np.array([3, 4])})

    assert (cost.wanted_bytes, cost.touched_bytes) == (4 * 2 * (13 * 6 + 1), 4 * (20 * 13 * 6 + 40))
    assert (cost.worst, cost.worst_chunks) == ("wide", (20, 13, 6))
    assert cost.factor == cost.touched_bytes / cost.wanted_bytes


def test_reading_nothing_wastes_nothing():
    cost = read_cost({"value": laid_out((4,), (2,))}, {"time": np.zeros(0, np.intp)})
    assert (cost.touched_bytes, cost.wanted_bytes, cost.factor) == (0, 0, 1.0)


class CountingStore(WrapperStore):
    """A folder that remembers what was asked of it."""

    def __init__(self, store):
        super().__init__(store)
        self.asked = []

    async def get(self, key, prototype, byte_range=None):
        self.asked.append((key, byte_range))
        return await super().get(key, prototype, byte_range)


def opened(folder):
    """The dataset, and the list in which everything that is read from then on will be."""
    store = CountingStore(LocalStore(folder, read_only=True))
    dataset = xr.open_dataset(store, engine="zarr", consolidated=False, chunks=None, cache=False)
    store.asked.clear()
    return dataset, store.asked


@pytest.mark.parametrize("positions", READS)
@pytest.mark.parametrize("chunks", [(1, 3, 7, 8), (4, 1, 3, 5), (12, 3, 7, 8)])
@pytest.mark.parametrize("version", [2, 3])
def test_a_zarr_store_is_asked_for_as_many_chunks_as_were_counted(tmp_path, version, chunks, positions):
    FIELD.to_zarr(tmp_path, zarr_format=version, consolidated=False, encoding={"value": {"chunks": chunks}})
    dataset, asked = opened(tmp_path)

    cost = read_cost({"value": stored(dataset["value"].variable)}, positions)
    assert not asked
    read = dataset["value"].isel(positions).load()

    xr.testing.assert_equal(read, FIELD["value"].isel(positions))
    assert cost.touched_bytes == 4 * prod(chunks) * len(asked)
    assert cost.wanted_bytes == read.nbytes
    assert stored(dataset["value"].variable).time_chunk == chunks[0]


@pytest.mark.parametrize("positions", READS[1:])  # all of a shard would come in one piece, with its index
def test_of_a_sharded_array_the_inner_chunks_are_read(tmp_path, positions):
    layout = {"chunks": (2, 1, 7, 4), "shards": (8, 3, 7, 8), "compressors": None}
    FIELD.to_zarr(tmp_path, zarr_format=3, consolidated=False, encoding={"value": layout})
    dataset, asked = opened(tmp_path)

    cost = read_cost({"value": stored(dataset["value"].variable)}, positions)
    dataset["value"].isel(positions).load()

    pieces = [piece.end - piece.start for _, piece in asked if isinstance(piece, RangeByteRequest)]
    assert cost.touched_bytes == sum(pieces)
    assert cost.worst_chunks == (2, 1, 7, 4)
    assert stored(dataset["value"].variable).time_chunk == 2


@pytest.mark.parametrize(
    ("layout", "encoding", "chunks", "touched"),
    [
        ("NETCDF4", {"chunksizes": (4, 1, 7, 8), "zlib": True}, (4, 1, 7, 8), 4 * 4 * 3 * 7 * 8),
        ("NETCDF4", {"chunksizes": (4, 1, 7, 8), "dtype": "i2", "_FillValue": -1}, (4, 1, 7, 8), 2 * 4 * 3 * 7 * 8),
        ("NETCDF4", {"contiguous": True}, (1, 1, 1, 1), 4 * 3 * 7 * 8),
        ("NETCDF3_64BIT", {}, (1, 1, 1, 1), 4 * 3 * 7 * 8),
    ],
)
def test_netcdf_files_are_read_in_their_chunks_or_value_by_value(tmp_path, layout, encoding, chunks, touched):
    FIELD.to_netcdf(tmp_path / "a.nc", engine="netcdf4", format=layout, encoding={"value": encoding})
    with xr.open_dataset(tmp_path / "a.nc", engine="netcdf4") as dataset:
        variable = stored(dataset.rename(latitude="lat")["value"].variable)
    assert (variable.chunks, variable.time_chunk) == (chunks, chunks[0])
    assert variable.touched_bytes({"time": np.array([5])}) == touched


def test_the_chunk_of_a_dimension_that_grows_may_be_longer_than_it(tmp_path):
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        file.createDimension("time", None)
        file.createDimension("longitude", 5)
        file.createVariable("value", "f4", ("time", "longitude"), chunksizes=(512, 5))[:2] = 1
    with xr.open_dataset(tmp_path / "a.nc", engine="netcdf4") as dataset:
        cost = read_cost({"value": stored(dataset["value"].variable)}, {"time": np.array([1])})
    assert (cost.touched_bytes, cost.wanted_bytes) == (4 * 512 * 5, 4 * 5)


def test_a_variable_without_time_or_layout_has_a_time_chunk_of_one():
    assert stored(xr.Variable("latitude", np.zeros(3))).time_chunk == 1
    assert stored(xr.Variable((), np.zeros(()))).time_chunk == 1


def test_costs_add_up_and_the_worst_of_all_is_told():
    parts = [
        read_cost({name: laid_out((40,), (size,))}, {"time": np.array([3])}) for name, size in (("a", 8), ("b", 20))
    ]

    cost = total_cost(parts)

    assert (cost.touched_bytes, cost.wanted_bytes, cost.worst) == (4 * 28, 8, "b")
