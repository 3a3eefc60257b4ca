"""What is usual at each hour of the day and day of the year becomes a zarr group in WeatherBench 2's layout.

Dimensions (hour, dayofyear, [level], latitude, longitude); of a variable its mean, and as NAME_std its standard
deviation. Laid out as a draft, filled by independent writers, a shard by one of them, and moved into its place.
"""

import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec
from zarr.errors import ZarrUserWarning

from graphcast_batch.errors import StoreError
from graphcast_batch.grid import Grid
from graphcast_batch.outputs.durable import explained, sync_folder, sync_tree
from graphcast_batch.variables import attributes

DAYS: Final = 366
BLOCK: Final = 32
"""Days in a shard, which one writer fills."""
SPREAD: Final = "_std"
_CODEC: Final = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")


def lay_out(
    path: Path,
    on_levels: Mapping[str, bool],
    hours: Sequence[int],
    levels: Sequence[int],
    grid: Grid,
    described: Mapping[str, str],
) -> Path:
    """Makes a draft without values; replaces an older one.

    Args:
        path: the folder to be.
        on_levels: for each variable, whether it is on levels.
        hours: of the day, ascending.
        levels: hPa, ascending.
        grid: the points.
        described: root attributes.

    Returns:
        where the draft is: give it to `fill` and `publish`.

    Raises:
        StoreError: something is at ``path``, or the disk fails.
    """
    draft = path.with_name(f".{path.name}.draft")
    _refuse_existing(path)
    coordinates: dict[str, NDArray[Any]] = {
        "hour": np.asarray(hours, np.int64),
        "dayofyear": np.arange(1, DAYS + 1),
        **({"level": np.asarray(levels, np.int32)} if levels else {}),
        "latitude": grid.latitude,
        "longitude": grid.longitude,
    }
    with explained(f"laying out {draft}"):
        shutil.rmtree(draft, ignore_errors=True)
        group = zarr.create_group(draft, attributes={"Conventions": "CF-1.11", **described})
        for dim, values in coordinates.items():
            _create(group, dim, (dim,), values.shape, values.shape, None, values.dtype, {})[...] = values
        for name, levelled in on_levels.items():
            dims = tuple(dim for dim in coordinates if levelled or dim != "level")
            shape = tuple(coordinates[dim].size for dim in dims)
            ones = (1,) * (len(dims) - 3)
            chunks, shards = (1, 1, *ones[1:], *shape[-2:]), (1, BLOCK, *ones[1:], *shape[-2:])
            for kind, what in (("", "mean"), (SPREAD, "standard deviation")):
                of_array = attributes(name) | {"cell_methods": f"time: {what} over years"}
                _create(group, name + kind, dims, shape, chunks, shards, np.dtype(np.float32), of_array)
        with warnings.catch_warnings():
            # zarr warns that the specification of version 3 does not yet have what xarray and zarr both read.
            warnings.simplefilter("ignore", ZarrUserWarning)
            zarr.consolidate_metadata(draft)
    return draft


def fill(
    draft: Path,
    name: str,
    hour: int,
    days: slice,
    levels: slice,
    mean: NDArray[np.floating],
    spread: NDArray[np.floating],
) -> None:
    """Writes some whole shards.

    Args:
        draft: from `lay_out`.
        name: of the variable.
        hour: which of the hours, counted from 0.
        days: which days, counted from 0; a whole block.
        levels: which levels; all for a variable that has none.
        mean: (day, [level], latitude, longitude).
        spread: standard deviation, the same.

    Raises:
        StoreError: the disk fails.
    """
    with explained(f"filling {draft}"):
        for array, values in ((name, mean), (name + SPREAD, spread)):
            stored = zarr.open_array(draft / array, mode="r+").with_config({"write_empty_chunks": True})
            place = (hour, days, levels) if stored.ndim == 5 else (hour, days)
            stored[place] = values.astype(np.float32)


def publish(draft: Path, path: Path) -> None:
    """Moves a draft that is filled into its place.

    Raises:
        StoreError: something is at ``path``, or the disk fails.
    """
    with explained(f"publishing {path}"):
        _refuse_existing(path)
        sync_tree(draft)
        os.rename(draft, path)
        sync_folder(path.parent)


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise StoreError(f"{path} must not exist yet, but does; remove it, or write the climatology elsewhere")


def _create(
    group: zarr.Group,
    name: str,
    dims: tuple[str, ...],
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    shards: tuple[int, ...] | None,
    dtype: np.dtype[Any],
    of_array: Mapping[str, str],
) -> zarr.Array[Any]:
    return group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        shards=shards,
        dtype=dtype,
        compressors=_CODEC,
        fill_value=np.nan if dtype == np.float32 else 0,
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=dims,
        attributes=dict(of_array),
    )
