"""A path becomes an open dataset, or an error that names it.

HDF5 is not safe with threads: whoever opens a netCDF file reads what is needed and closes it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xarray as xr

from graphcast_batch.errors import InputError, InputNotFoundError
from graphcast_batch.inputs.classic import is_classic, needed_bytes


@contextmanager
def open_netcdf(path: Path) -> Iterator[xr.Dataset]:
    """Opens a netCDF file for as long as the block lasts; nothing but coordinates is read.

    Raises:
        InputNotFoundError: there is no such file.
        InputError: the file is not netCDF, or is cut off or damaged.
    """
    with _naming(str(path), "a whole netCDF file"):
        _check_whole(path)
        dataset = xr.open_dataset(path, engine="netcdf4", decode_timedelta=False, cache=False)
    with dataset:
        yield dataset


@contextmanager
def open_zarr(path: str) -> Iterator[xr.Dataset]:
    """Opens a zarr store for as long as the block lasts; nothing but coordinates is read.

    Args:
        path: a folder, or an address such as ``s3://bucket/store.zarr``.

    Raises:
        InputNotFoundError: there is no such store.
        InputError: the store is not zarr or is damaged.
    """
    with _naming(path, "a zarr store"):
        dataset = _open_zarr(path)
    with dataset:
        yield dataset


def load(dataset: xr.Dataset, origin: str) -> xr.Dataset:
    """Reads a lazily opened dataset into memory.

    Raises:
        InputError: the data cannot be read.
    """
    with _naming(origin, "whole"):
        return dataset.load()


def _open_zarr(path: str) -> xr.Dataset:
    def opened(*, consolidated: bool) -> xr.Dataset:
        return xr.open_dataset(
            path, engine="zarr", consolidated=consolidated, chunks=None, decode_timedelta=False, cache=False
        )

    try:
        return opened(consolidated=True)
    except ValueError:  # no consolidated metadata, or worse, which the second try will tell
        return opened(consolidated=False)


def _check_whole(path: Path) -> None:
    if not path.is_file() or not is_classic(path):
        return  # an HDF5 file that was cut off does not open
    needed, found = needed_bytes(path), path.stat().st_size
    if found < needed:
        raise ValueError(f"it has {found} of the {needed} bytes that its header promises")


@contextmanager
def _naming(origin: str, expected: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise InputNotFoundError(
            f"the input {origin} must be {expected}, but there is none (working directory: {os.getcwd()}); "
            "give the path of existing data"
        ) from error
    except Exception as error:  # HDF5, zarr and each of their codecs raise errors of their own
        raise InputError(
            f"the input {origin} must be {expected}, but cannot be read: {error}; copy or download it again"
        ) from error
