"""Add a dimension of size 1 to lazily read variables, without reading them."""

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing


def expanded(dataset: xr.Dataset, names: Iterable[Hashable], dim: str) -> xr.Dataset:
    """Return a dataset in which some variables have an additional dimension, whose one value is a scalar coordinate.

    ``expand_dims`` of xarray reads complete variables, which may be larger than the memory.

    Args:
        dataset: an open dataset.
        names: variables without the dimension.
        dim: name of the scalar coordinate and of the dimension.
    """
    wider = {name: _wider(dataset[name].variable, dim) for name in names}
    place = xr.Variable(dim, dataset[dim].values[np.newaxis], dataset[dim].attrs)
    return dataset.drop_vars([*wider, dim]).assign(wider).assign_coords({dim: place})


def _wider(variable: xr.Variable, dim: str) -> xr.Variable:
    return xr.Variable(
        (dim, *variable.dims), indexing.LazilyIndexedArray(_Wider(variable)), variable.attrs, variable.encoding
    )


class _Wider(BackendArray):
    """An array with an additional first dimension of size 1, read when it is needed."""

    def __init__(self, variable: xr.Variable) -> None:
        self._variable = variable
        self.shape = (1, *variable.shape)
        self.dtype = variable.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray[Any]:
        found: NDArray[Any] = indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )
        return found

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        place, *rest = key
        part = self._variable.isel(dict(zip(self._variable.dims, rest, strict=True)))
        return np.asarray(part.values[np.newaxis][place])
