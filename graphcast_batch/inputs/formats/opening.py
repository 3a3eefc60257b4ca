"""Open zarr, netCDF and GRIB data at a local path or a remote address.

HDF5 is not safe with threads: whoever opens a netCDF file reads what is needed and closes it.
"""

import functools
import os
import string
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, TypedDict

import xarray as xr
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import ZipStore

from graphcast_batch.credentials import telling
from graphcast_batch.errors import GraphcastBatchError, InputError, InputNotFoundError
from graphcast_batch.inputs.formats.classic_netcdf import is_classic, needed_bytes
from graphcast_batch.inputs.formats.extras import extra_module
from graphcast_batch.inputs.formats.file_formats import GRIB_SUFFIXES, check_ordinary, format_of, hint, is_zipped_zarr
from graphcast_batch.inputs.formats.grib import read_headers
from graphcast_batch.inputs.formats.remote import DEFAULT, Access, brief, netcdf_file, remedy, zarr_store
from graphcast_batch.inputs.formats.zipped import Nameless, unpacked, zip_of

_NETCDF: Final = (".nc", ".nc4", ".h5")
_UNPACKED: Final = 16
"""Files of zips that are kept open, each of which takes room on the disk."""
_TEXT: Final = frozenset(string.printable.encode())
_LONGEST: Final = 5_000_000
"""Hours of 570 years: more than any coordinate has that is not damaged."""


class _AsStored(TypedDict):
    decode_times: bool
    create_default_indexes: bool


_AS_STORED: Final = _AsStored(decode_times=False, create_default_indexes=False)
"""Reads no coordinates, which `_dated` does once it knows that they are not too long."""


@contextmanager
def open_data(address: str, access: Access = DEFAULT) -> Iterator[xr.Dataset]:
    """Opens a zarr store, netCDF file or GRIB file for as long as the block lasts; nothing but coordinates is read.

    A folder, ``*.zarr`` and ``*.zarr.zip`` are zarr; a file that begins with ``GRIB``, or is named so, is GRIB; other
    files are netCDF. Of addresses with a scheme, those that end in .nc, .nc4 or .h5 are netCDF, others are zarr.

    A server that sends nothing for 15 s is asked again, three times in all; one that trickles is given up after
    10 minutes a request.

    Args:
        address: a path, or an address such as ``s3://bucket/store.zarr``, ``gs://bucket/store.zarr``,
            ``az://account/container/store.zarr`` or ``https://host/file.nc``. A classic netCDF file on another
            machine is read whole.
        access: how to reach it, if it is on another machine.

    Raises:
        InputNotFoundError: there is no such data.
        InputError: the data cannot be read, or a package to read them is not installed.
    """
    with _opened(address, access) as dataset:
        yield dataset


@contextmanager
def open_netcdf(path: Path) -> Iterator[xr.Dataset]:
    """Opens a netCDF file for as long as the block lasts; nothing but coordinates is read.

    Raises:
        InputNotFoundError: there is no such file.
        InputError: the file is not netCDF, or is cut off or damaged.
    """
    check_ordinary(path)
    with _naming(str(path), "a whole netCDF file"):
        _check_complete(path)
        undated = xr.open_dataset(path, engine="netcdf4", cache=False, **_AS_STORED)
    with undated:
        yield _dated(undated, str(path))


@contextmanager
def open_zarr(path: str, access: Access = DEFAULT) -> Iterator[xr.Dataset]:
    """Opens a zarr store for as long as the block lasts; nothing but coordinates is read.

    Args:
        path: a folder, a ``.zip`` of one, or an address such as ``s3://bucket/store.zarr``.
        access: how to reach it, if it is on another machine.

    Raises:
        InputNotFoundError: there is no such store.
        InputError: the store is not zarr, is damaged or cannot be reached.
    """
    with _zarr_store(path, access) as store:
        with _naming(path, "a zarr store"):
            undated = _open_zarr(path, store)
        with undated:
            yield _dated(undated, path)


@contextmanager
def open_grib(path: Path) -> Iterator[xr.Dataset]:
    """Opens a GRIB file of regular latitudes and longitudes, with ecCodes' names (t, z, t2m, msl, tp ...).

    The dimensions are valid_time, isobaricInhPa, latitude and longitude; fields on several levels of another type have
    a dimension named by that type. What holds on one other level has no level, and a name such as ``z_surface`` where
    the plain name is taken by pressure levels. The land-sea mask and ``z_surface`` are constant, without time. A field
    that the file lacks, at a time or on a level that it has otherwise, is NaN.

    Precipitation (tp) has the dimension window, a place for each message, with when its sum begins and ends and its
    forecast began. Of other accumulated and averaged variables ``attrs["step_lengths"]`` has over how many hours they
    are so. What is there twice for a time and level, or both at a moment and over a period, is left out with a warning.

    Raises:
        InputNotFoundError: there is no such file.
        InputError: the file is not GRIB, is cut off, or has several members or another grid.
    """
    check_ordinary(path)
    with _naming(str(path), "a whole GRIB file"):
        found = path.stat()
        dataset = read_headers(path.absolute(), found.st_mtime_ns, found.st_size, str(path))
    yield dataset.copy()


def load(dataset: xr.Dataset, origin: str) -> xr.Dataset:
    """Reads a lazily opened dataset into memory, of zarr all variables at once, else one after the other.

    Of each variable in zarr as many chunks are fetched at once as ``async.concurrency`` of zarr's configuration allows.

    Raises:
        InputError: the data cannot be read.
    """
    with _naming(origin, "whole"):
        try:
            # zarr's own loop, because clients of some file systems are bound to the loop that opened them, and because
            # a notebook's thread has a running loop, in which asyncio.run refuses to work.
            return sync(dataset.load_async())
        except NotImplementedError as error:  # neither netCDF nor GRIB can
            # zarr's loop keeps the error, and by its traceback all that was read: hundreds of MB for a while.
            error.__traceback__ = None
        return dataset.load()


def _opened(address: str, access: Access) -> AbstractContextManager[xr.Dataset]:
    path, name = Path(address), address.partition("?")[0]  # whose query may sign an address
    if "://" in address and name.endswith((*GRIB_SUFFIXES, ".zip")):
        raise InputError(
            f"the input {address} must be zarr or netCDF to be read over the network, but is not by its name; "
            "copy it to this machine first, and give the path of the copy"
        )
    if "://" in address and name.endswith(_NETCDF):
        return _open_far_netcdf(address, access)
    if "://" in address or path.is_dir() or address.endswith((".zarr", ".zarr.zip")):
        return open_zarr(address, access)
    zipped = zip_of(address)
    if zipped:
        return _open_zipped(address, *zipped)
    if format_of(path) == "zip" and is_zipped_zarr(path):
        return open_zarr(address, access)
    return open_grib(path) if _is_grib(path) else open_netcdf(path)


@contextmanager
def _open_zipped(address: str, packed: Path, name: str) -> Iterator[xr.Dataset]:
    found = packed.stat()
    yield _from_zip(address, packed.absolute(), name, found.st_mtime_ns, found.st_size).copy()


@functools.lru_cache(maxsize=_UNPACKED)
def _from_zip(address: str, packed: Path, name: str, modified_ns: int, size: int) -> xr.Dataset:
    """A file of a zip, opened; kept open, because it takes long to unpack, and nameless, so that nothing is left."""
    with unpacked(packed, name) as path, _naming(address, "a whole netCDF or GRIB file"):
        if not _is_grib(path):
            _check_complete(path)
            return _dated(xr.open_dataset(path, engine="netcdf4", cache=False, **_AS_STORED), address)
        copy = Nameless(path)
        dataset = read_headers.__wrapped__(copy.path, 0, 0, address)
        dataset.encoding["copy"] = copy
        return dataset


@contextmanager
def _zarr_store(path: str, access: Access) -> Iterator[Store | str]:
    if "://" not in path:
        check_ordinary(Path(path))
    if path.endswith(".zip") or ("://" not in path and format_of(Path(path)) == "zip"):
        with _naming(path, "a zarr store"):
            zipped = sync(ZipStore.open(path, mode="r"))
        with zipped:
            yield zipped
    elif "://" in path:
        with _naming(path, "a zarr store"):
            store = zarr_store(path, access)
        yield store
    else:
        yield path


def _open_zarr(path: str, store: Store | str) -> xr.Dataset:
    def opened(*, consolidated: bool) -> xr.Dataset:
        return xr.open_dataset(
            store,  # type: ignore[arg-type]  # xarray takes stores of zarr, but does not declare it
            engine="zarr",
            consolidated=consolidated,
            chunks=None,
            cache=False,
            **_AS_STORED,
        )

    try:
        return opened(consolidated=True)
    except FileNotFoundError:
        raise
    except ValueError as error:  # no consolidated metadata, or worse, which the second try will tell
        if path.startswith(("http://", "https://")):
            raise InputError(
                f"the zarr store {path} must have consolidated metadata, because HTTP servers do not list files, but "
                f"{brief(error)}; run zarr.consolidate_metadata on it, or copy it here"
            ) from telling(error)
        return opened(consolidated=False)


@contextmanager
def _open_far_netcdf(address: str, access: Access) -> Iterator[xr.Dataset]:
    extra_module("h5netcdf", "remote")
    with _naming(address, "a whole netCDF file"):
        file = netcdf_file(address, access)
        engine = "h5netcdf" if file.peek(4).startswith(b"\x89HDF") else "scipy"
        undated = xr.open_dataset(file, engine=engine, cache=False, **_AS_STORED)
    with undated:
        yield _dated(undated, address)


def _is_grib(path: Path) -> bool:
    if path.suffix in GRIB_SUFFIXES:
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"GRIB"


def _dated(undated: xr.Dataset, origin: str) -> xr.Dataset:
    """With its coordinates read, and dates where they are times, unless damage has made their lengths absurd.

    Raises:
        InputError: a coordinate is too long or cannot be read, or times are no dates.
    """
    long = [f"{size} values of {dim}" for dim, size in undated.sizes.items() if dim in undated and size > _LONGEST]
    if long:
        raise InputError(
            f"the coordinates of {origin} must have at most {_LONGEST} values each, but it declares {', '.join(long)}; "
            "copy or download it again"
        )
    with _naming(origin, "whole"):
        try:
            return xr.decode_cf(undated, decode_timedelta=False, mask_and_scale=False, concat_characters=False)
        except ValueError as error:
            if "time" not in str(error):
                raise
            found = brief(error).partition(". Try")[0]
            raise InputError(
                f"the times of {origin} must be dates, but cannot be read as such: {found}; "
                'give time units such as "hours since 1900-01-01"'
            ) from error


def _check_complete(path: Path) -> None:
    if not path.is_file():
        return
    with path.open("rb") as file:
        start = file.read(20)
    packed = hint(path)
    if packed:
        raise InputError(f"the input {path} must be a whole netCDF file, but {packed}")
    if _TEXT.issuperset(start):
        raise ValueError(f"it is text that begins with {start.decode()!r}" if start else "it is empty")
    if not is_classic(path):
        return  # an HDF5 file that was cut off does not open
    needed, found = needed_bytes(path), path.stat().st_size
    if found < needed:
        raise ValueError(f"it has {found} of the {needed} bytes that its header promises")


@contextmanager
def _naming(origin: str, expected: str) -> Iterator[None]:
    try:
        yield
    except GraphcastBatchError:
        raise
    except FileNotFoundError as error:
        where = "" if "://" in origin else f" (working directory: {os.getcwd()})"
        raise InputNotFoundError(
            f"the input {origin} must be {expected}, but there is none{where}; give the path of existing data"
        ) from telling(error)
    except Exception as error:  # HDF5, zarr, object stores and each of their codecs raise errors of their own
        raise InputError(
            f"the input {origin} must be {expected}, but cannot be read: {brief(error)}; {remedy(origin, error)}"
        ) from telling(error)
