"""A dimension of one place more, of variables that are read when they are wanted."""

import numpy as np
import pytest
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from graphcast_batch.inputs.layouts.expanding import expanded

DIMS = ("t", "y", "x")
VALUES = np.arange(24.0).reshape(2, 3, 4)


class Recorded(BackendArray):
    """An array that remembers how many values were read."""

    def __init__(self):
        self.shape, self.dtype, self.read = VALUES.shape, VALUES.dtype, 0

    def __getitem__(self, key):
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key):
        part = xr.Variable(DIMS, VALUES).isel(dict(zip(DIMS, key, strict=True))).values
        self.read += part.size
        return part


@pytest.fixture
def lazy():
    array = Recorded()
    variable = xr.Variable(DIMS, indexing.LazilyIndexedArray(array), {"units": "K"})
    return array, expanded(xr.Dataset({"a": variable}, {"level": 500}), ["a"], "level")


def test_nothing_is_read_until_it_is_wanted_and_then_no_more(lazy):
    array, dataset = lazy
    assert dataset.sizes == {"level": 1, "t": 2, "y": 3, "x": 4}
    assert array.read == 0
    assert dataset["a"].isel(t=[1], y=slice(0, 2)).values.tolist() == VALUES[np.newaxis, [1], :2].tolist()
    assert array.read == 8


@pytest.mark.parametrize("level", [0, [0], slice(None), slice(0, 0)])
@pytest.mark.parametrize("rows", [0, [2, 0], slice(None, None, -1)])
def test_it_is_indexed_as_numpy_does(lazy, level, rows):
    _, dataset = lazy
    expected = xr.DataArray(VALUES[np.newaxis], dims=("level", *DIMS)).isel(level=level, y=rows)
    assert np.array_equal(dataset["a"].isel(level=level, y=rows).values, expected.values)
    assert dataset["a"].attrs == {"units": "K"}
    assert dataset["level"].values.tolist() == [500]
