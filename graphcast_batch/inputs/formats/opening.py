"""Open zarr, netCDF and GRIB data at a local path or a remote address.

HDF5 is not thread-safe: a netCDF file is opened, read as far as needed and closed by one thread.
"""

import functools
import os
import string
from collections.abc import Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, TypedDict

import xarray as xr
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import ZipStore

from graphcast_batch.credentials import printable_cause
from graphcast_batch.errors import GraphcastBatchError, InputError, InputNotFoundError
from graphcast_batch.inputs.formats.classic_netcdf import is_classic, needed_bytes
from graphcast_batch.inputs.formats.extras import extra_module
from graphcast_batch.inputs.formats.file_formats import GRIB_SUFFIXES, check_ordinary, format_of, hint, is_zipped_zarr
from graphcast_batch.inputs.formats.grib import Member, read_headers, read_headers_once
from graphcast_batch.inputs.formats.remote import DEFAULT, Access, brief, netcdf_file, remedy, zarr_store
from graphcast_batch.inputs.formats.zipped import Nameless, unpacked, zip_of

_NETCDF: Final = (".nc", ".nc4", ".h5")
_UNPACKED: Final = 16
"""Largest number of unpacked files of zips that are kept open; each takes space on the disk."""
_TOGETHER_BYTES: Final = 2**26
"""Most bytes of several variables that are read at once. One that is larger has chunks enough to be read fast."""
_TEXT: Final = frozenset(string.printable.encode())
_LONGEST: Final = 5_000_000
"""Largest length of a coordinate: the hours of 570 years. A longer one is a sign of damage."""


class _AsStored(TypedDict):
    decode_times: bool
    create_default_indexes: bool


_AS_STORED: Final = _AsStored(decode_times=False, create_default_indexes=False)
"""Options of xarray with which it reads no coordinates; `_dated` reads them after it has checked their lengths."""


@contextmanager
def open_data(address: str, access: Access = DEFAULT, member: Member = None) -> Iterator[xr.Dataset]:
    """Return a context with a zarr store, netCDF file or GRIB file as a dataset, of which only coordinates are read.

    A folder, ``*.zarr`` and ``*.zarr.zip`` are zarr; a file that begins with ``GRIB`` or has a suffix of GRIB is GRIB;
    other files are netCDF. Addresses with a scheme are netCDF if they end in .nc, .nc4 or .h5, and zarr otherwise.

    A request to a server is sent up to three times if no data arrive for 15 s, and fails after 10 minutes.

    Args:
        address: a path, or an address such as ``s3://bucket/store.zarr``, ``gs://bucket/store.zarr``,
            ``az://account/container/store.zarr`` or ``https://host/file.nc``. A classic netCDF file on another
            machine is transferred completely.
        access: credentials and options for an address on another machine.
        member: member of an ensemble whose messages of a GRIB file are read; netCDF and zarr have all members.

    Raises:
        InputNotFoundError: there are no data at the address.
        InputError: the data cannot be read, or a package to read them is not installed.
    """
    with _opened(address, access, member) as dataset:
        yield dataset


@contextmanager
def open_netcdf(path: Path) -> Iterator[xr.Dataset]:
    """Return a context with a netCDF file as a dataset, of which only coordinates are read.

    Raises:
        InputNotFoundError: there is no such file.
        InputError: the file is not netCDF, or is cut off or damaged.
    """
    check_ordinary(path)
    with _naming(str(path), "a complete netCDF file"):
        _check_complete(path)
        undated = xr.open_dataset(path, engine="netcdf4", cache=False, **_AS_STORED)
    with undated:
        yield _dated(undated, str(path))


@contextmanager
def open_zarr(path: str, access: Access = DEFAULT) -> Iterator[xr.Dataset]:
    """Return a context with a zarr store as a dataset, of which only coordinates are read.

    Args:
        path: a folder, a ``.zip`` of one, or an address such as ``s3://bucket/store.zarr``.
        access: credentials and options for an address on another machine.

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
def open_grib(path: Path, member: Member = None) -> Iterator[xr.Dataset]:
    """Return a context with a GRIB file as a dataset with the names of ecCodes (t, z, t2m, msl, tp ...).

    The grid must have regular latitudes and longitudes. The dimensions are valid_time, isobaricInhPa, latitude and
    longitude; fields on several levels of another type have a dimension named by that type. Fields on one level of
    another type have no level dimension, and a name such as ``z_surface`` if there is a variable of the plain name on
    pressure levels. The land-sea mask and ``z_surface`` are constant, without time. A field that is missing in the
    file, at a time or on a level that the variable has otherwise, is NaN.

    Precipitation (tp) has the dimension window, one position for each message, with the begin and end of the sum and
    the initial time of the forecast. For other accumulated and averaged variables, ``attrs["step_lengths"]`` holds the
    lengths of their windows in hours. A variable that has two fields for one time and level, or both instantaneous and
    accumulated fields, is left out with a warning.

    Args:
        path: path of the file.
        member: member of an ensemble whose messages are read.

    Raises:
        InputNotFoundError: there is no such file.
        InputError: the file is not GRIB, is cut off, has several members and none is chosen, or has another grid.
    """
    check_ordinary(path)
    with _naming(str(path), "a complete GRIB file"):
        found = path.stat()
        dataset = read_headers(path.absolute(), found.st_mtime_ns, found.st_size, str(path), member)
    yield dataset.copy()


def load(dataset: xr.Dataset, origin: str) -> xr.Dataset:
    """Read a lazily opened dataset into memory: small variables of zarr concurrently, others one after the other.

    For each variable of zarr, as many chunks are fetched at once as ``async.concurrency`` of zarr's configuration.
    While a variable is read its compressed and its decoded chunks are in memory as well, so that only variables that
    are small together are read together.

    Raises:
        InputError: the data cannot be read.
    """
    with _naming(origin, "complete"):
        try:
            # In zarr's own event loop, because clients of some file systems are bound to the loop that opened them,
            # and because the thread of a notebook has a running loop, in which asyncio.run refuses to work.
            for names in _read_together(dataset):
                sync(dataset[names].load_async())  # which loads the variables that both datasets refer to
        except NotImplementedError as error:  # netCDF and GRIB cannot be read asynchronously
            # zarr's loop keeps the error, whose traceback refers to all data read so far: hundreds of MB for a while.
            error.__traceback__ = None
        return dataset.load()


def _read_together(dataset: xr.Dataset) -> Iterator[list[Hashable]]:
    """Yield the names of variables in groups, each of them one variable or a few that are small together."""
    names: list[Hashable] = []
    size = 0
    for name, array in dataset.data_vars.items():
        if names and size + array.nbytes > _TOGETHER_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += array.nbytes
    yield names


def _opened(address: str, access: Access, member: Member) -> AbstractContextManager[xr.Dataset]:
    path, name = Path(address), address.partition("?")[0]  # the query may be a signature
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
        return _open_zipped(address, *zipped, member if name.endswith(GRIB_SUFFIXES) else None)
    if format_of(path) == "zip" and is_zipped_zarr(path):
        return open_zarr(address, access)
    return open_grib(path, member) if _is_grib(path) else open_netcdf(path)


@contextmanager
def _open_zipped(address: str, packed: Path, name: str, member: Member) -> Iterator[xr.Dataset]:
    found = packed.stat()
    yield _from_zip(address, packed.absolute(), name, found.st_mtime_ns, found.st_size, member).copy()


@functools.lru_cache(maxsize=_UNPACKED)
def _from_zip(address: str, packed: Path, name: str, modified_ns: int, size: int, member: Member) -> xr.Dataset:
    """Open a file of a zip from a copy, which is cached because unpacking takes long, and removed from its folder."""
    with unpacked(packed, name) as path, _naming(address, "a complete netCDF or GRIB file"):
        if not _is_grib(path):
            _check_complete(path)
            return _dated(xr.open_dataset(path, engine="netcdf4", cache=False, **_AS_STORED), address)
        copy = Nameless(path)
        dataset = read_headers_once(copy.path, address, member)
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
    except ValueError as error:  # no consolidated metadata, or another fault, which the second attempt raises
        if path.startswith(("http://", "https://")):
            raise InputError(
                f"the zarr store {path} must have consolidated metadata, because HTTP servers do not list files, but "
                f"{brief(error)}; run zarr.consolidate_metadata on it, or copy it here"
            ) from printable_cause(error)
        return opened(consolidated=False)


@contextmanager
def _open_far_netcdf(address: str, access: Access) -> Iterator[xr.Dataset]:
    extra_module("h5netcdf", "remote")
    with _naming(address, "a complete netCDF file"):
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
    """Read the coordinates of a dataset, and decode times to dates; refuse absurd lengths, which are a sign of damage.

    Raises:
        InputError: a coordinate is too long or cannot be read, or times cannot be decoded to dates.
    """
    long = [f"{size} values of {dim}" for dim, size in undated.sizes.items() if dim in undated and size > _LONGEST]
    if long:
        raise InputError(
            f"the coordinates of {origin} must have at most {_LONGEST} values each, but it declares {', '.join(long)}; "
            "copy or download it again"
        )
    with _naming(origin, "complete"):
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
        raise InputError(f"the input {path} must be a complete netCDF file, but {packed}")
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
        ) from printable_cause(error)
    except Exception as error:  # HDF5, zarr, object stores and each of their codecs raise errors of their own
        raise InputError(
            f"the input {origin} must be {expected}, but cannot be read: {brief(error)}; {remedy(origin, error)}"
        ) from printable_cause(error)
