"""Write fields as a zarr archive with the names of WeatherBench 2.

The archive is laid out once as a draft beside its path, with metadata and coordinates only; independent writers fill
blocks of times in any order; then the draft is renamed to the path. So an archive is complete or absent.
"""

import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec
from zarr.errors import ZarrUserWarning

from graphcast_batch.errors import StoreError
from graphcast_batch.files.durable import explained, sync_folder, sync_tree
from graphcast_batch.grid import Grid
from graphcast_batch.variables import DIMS, attributes

_CODEC: Final = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")
_EPOCH: Final = np.datetime64("1970-01-01", "s")
_ATTRIBUTES: Final = {
    "time": {
        "standard_name": "time",
        "long_name": "time",
        "units": "seconds since 1970-01-01",
        "calendar": "proleptic_gregorian",
        "axis": "T",
    },
    "level": {
        "standard_name": "air_pressure",
        "long_name": "pressure level",
        "units": "hPa",
        "positive": "down",
        "axis": "Z",
    },
    "latitude": {"standard_name": "latitude", "long_name": "latitude", "units": "degrees_north", "axis": "Y"},
    "longitude": {"standard_name": "longitude", "long_name": "longitude", "units": "degrees_east", "axis": "X"},
}


def lay_out(
    path: Path,
    dims: Mapping[str, Sequence[str]],
    grid: Grid,
    levels: Sequence[int],
    times: NDArray[np.datetime64],
) -> Path:
    """Make a draft of an archive, with coordinates and without fields; replace an older draft.

    Args:
        path: path of the archive, a folder.
        dims: dimensions of each variable: some of time, level, latitude and longitude in this order, without time if
            it is static.
        grid: grid of the fields.
        levels: levels in hPa; may be empty if no variable is on levels.
        times: (time,) valid times, UTC, strictly ascending, in whole seconds.

    Returns:
        The path of the draft, for `fill` and `publish`.

    Raises:
        StoreError: ``path`` exists, a variable has other dimensions, times do not ascend, or the disk fails.
    """
    draft = path.with_name(f".{path.name}.draft")
    _refuse_existing(path)
    seconds = _seconds(times)
    coordinates: dict[str, NDArray[Any]] = {"time": seconds, "level": np.asarray(levels, np.int32)}
    coordinates |= {"latitude": grid.latitude, "longitude": grid.longitude}
    used = _used(dims, coordinates)
    with explained(f"laying out {draft}"):
        shutil.rmtree(draft, ignore_errors=True)
        group = zarr.create_group(draft, attributes={"Conventions": "CF-1.11"})
        for dim in used:
            values = coordinates[dim]
            _create(group, dim, {dim: values.size}, values.size, values.dtype, _ATTRIBUTES[dim])[...] = values
        for name, of_variable in dims.items():
            shape = {dim: coordinates[dim].size for dim in of_variable}
            _create(group, name, shape, 1, np.dtype(np.float32), _of_valid_time(name))
        _consolidate(draft)
    return draft


def fill(draft: Path, first_index: int, block: xr.Dataset) -> None:
    """Write the fields of some times, one chunk each; static fields are written with the first time.

    Several processes may fill a draft at once, in any order, and may write a time more than once.

    Args:
        draft: path of the draft, from `lay_out`.
        first_index: index of the block's first time among the archive's times.
        block: all variables of the archive, float32, on its points and levels, for consecutive times.

    Raises:
        StoreError: the block does not fit into the draft, or the disk fails.
    """
    with explained(f"filling {draft}"):
        _check_block(draft, first_index, block)
        for name, values in block.data_vars.items():
            # Without write_empty_chunks a chunk of NaN would not be written, and look as if it had not been filled.
            array = zarr.open_array(draft / str(name), mode="r+").with_config({"write_empty_chunks": True})
            if "time" in values.dims:
                array[first_index : first_index + values.sizes["time"]] = values.values
            elif first_index == 0:
                array[...] = values.values


def publish(draft: Path, path: Path) -> None:
    """Rename a complete draft to the path of the archive.

    Raises:
        StoreError: fields of a time are missing, ``path`` exists, or the disk fails.
    """
    with explained(f"publishing {path}"):
        group = zarr.open_group(draft, mode="r")
        for name, array in group.arrays():
            if array.nchunks_initialized < array.nchunks:
                raise StoreError(
                    f"{draft}: all {array.nchunks} chunks of {name} must be filled first, but "
                    f"{array.nchunks_initialized} are; fill the other times"
                )
        _refuse_existing(path)
        sync_tree(draft)
        os.rename(draft, path)
        sync_folder(path.parent)


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise StoreError(f"{path} must not exist yet, but does; remove it, or write the archive elsewhere")


def _seconds(times: NDArray[np.datetime64]) -> NDArray[np.int64]:
    seconds = ((times.astype("datetime64[s]")) - _EPOCH).astype(np.int64)
    if seconds.size == 0 or np.any(np.diff(seconds) <= 0):
        raise StoreError(f"an archive's times must ascend, one or more, but are {seconds.size} that do not")
    return seconds


def _used(dims: Mapping[str, Sequence[str]], coordinates: Mapping[str, NDArray[Any]]) -> list[str]:
    """Return the dimensions that variables have."""
    for name, found in dims.items():
        if list(found) != [dim for dim in DIMS if dim in found] or any(not coordinates[dim].size for dim in found):
            raise StoreError(
                f"{name} must have some of the dimensions {', '.join(DIMS)} in this order, each with values, but has "
                f"({', '.join(found)})"
            )
    return [dim for dim in DIMS if any(dim in found for found in dims.values())]


def _create(
    group: zarr.Group,
    name: str,
    shape: Mapping[str, int],
    times_a_chunk: int,
    dtype: np.dtype[Any],
    of_array: Mapping[str, str],
) -> zarr.Array[Any]:
    return group.create_array(
        name,
        shape=tuple(shape.values()),
        chunks=tuple(times_a_chunk if dim == "time" else size for dim, size in shape.items()),
        dtype=dtype,
        compressors=_CODEC,
        fill_value=np.nan if dtype == np.float32 else 0,
        # All files of a variable in one folder: with "/" each would sit in folders of its own.
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=tuple(shape),
        attributes=dict(of_array),
    )


def _of_valid_time(name: str) -> dict[str, str]:
    """Return the CF attributes of a variable, with cell methods over time in place of lead time."""
    found = attributes(name)
    return {key: value.replace("prediction_timedelta:", "time:") for key, value in found.items()}


def _consolidate(folder: Path) -> None:
    with warnings.catch_warnings():
        # zarr warns that consolidated metadata, which xarray and zarr read, are not in the specification of version 3.
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(folder)


def _check_block(draft: Path, first_index: int, block: xr.Dataset) -> None:
    with xr.open_zarr(draft, chunks=None) as archive:
        place = archive.isel(time=slice(first_index, first_index + block.sizes["time"]))
        expected, found = _described(place), _described(block)
        if found != expected:
            raise StoreError(f"{draft}: a block must hold {expected}, but holds {found}")
        for dim in place.dims:
            if not np.array_equal(block[dim], place[dim]):
                raise StoreError(
                    f"{draft}: a block's {dim} must be the archive's, {_ends(place[dim])} from time {first_index} on, "
                    f"but is {_ends(block[dim])}"
                )


def _described(dataset: xr.Dataset) -> dict[str, str]:
    """Return type and dimensions of each variable, as text."""
    return {str(name): f"{dataset[name].dtype} {dataset[name].dims}" for name in sorted(map(str, dataset.data_vars))}


def _ends(values: xr.DataArray) -> str:
    return f"{values.values[0]} to {values.values[-1]} ({values.size})" if values.size else "none"
