"""Write and read the metadata and coordinates of a zarr store, and extend its time and lead time axes."""

import glob
import json
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray
from pydantic import JsonValue
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec
from zarr.errors import ZarrUserWarning

from graphcast_batch.credentials import bare
from graphcast_batch.errors import StoreError
from graphcast_batch.files.durable import drop_left_over, replace, sync_folder, sync_tree
from graphcast_batch.files.leases import FileLease
from graphcast_batch.files.process_identity import mark
from graphcast_batch.files.staging import STAGING, alone
from graphcast_batch.members import Member
from graphcast_batch.stores.base import SUBMITTED
from graphcast_batch.stores.layout import OutputGrid, Plan
from graphcast_batch.stores.zarr.member_axis import COORDINATES, NUMBER, member_arrays
from graphcast_batch.stores.zarr.shards import Encoding
from graphcast_batch.stores.zarr.store_path import LAYING_OUT, ROOT, held, is_laid_out, move_into_place
from graphcast_batch.variables import attributes

LEDGER: Final = "ledger"
EXTENSION_LOCK: Final = ".extending"
"""File, in the ledger, with the lease on extending the store."""
RUN_CONFIG: Final = "run.yaml"
_FORMAT, _IDENTITY = "graphcast_batch_format", "graphcast_batch_identity"
_OF_CASES: Final = ("time", NUMBER)
"""Dimensions along which each index belongs to other Cases."""
_GROWING: Final = (*_OF_CASES, "prediction_timedelta")
_AXIS_CODEC: Final = BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")
_GROWTH: Final = "growth"
"""Subject of the private folders of drivers that extend a store."""
_NAME: Final = re.compile(r"[^\s./\\][^\0-\x1f/\\]{0,99}")
_LONGEST: Final = 2**23
"""Values along any axis: every hour of the years 1678 to 2261, which are all that fit, makes 5.1 million."""


def lay_out(
    path: Path,
    plan: Plan,
    identity: Mapping[str, JsonValue],
    provenance: Mapping[str, JsonValue],
    config_text: str,
) -> None:
    """Lay out a store beside its path and move it there, unless there is one by then.

    Args:
        path: the folder of the store.
        plan: the Cases that will be written, and their layout.
        identity: what the forecasts have in common.
        provenance: root attributes; what is neither text nor number is kept as JSON text.
        config_text: config of the run; kept as ``run.yaml``.

    Raises:
        StoreError: the path is something else.
        OSError: the store cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        drop_left_over(left)
    if is_laid_out(path):
        return
    draft = path.with_name(f".{path.name}.{mark()}.partial")
    try:
        _create_arrays(draft, plan, _root_attributes(identity, provenance, with_members=bool(plan.members)))
        for folder in (STAGING, LEDGER):
            (draft / folder).mkdir()
        (draft / RUN_CONFIG).write_text(config_text, encoding="utf-8")
        sync_tree(draft)
        move_into_place(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def unfinished(path: Path) -> list[Path]:
    """Return the unfinished files of writers in a store, except those of its ledger and of attempts."""
    # Folders of variables, which may hold a million files, have none of these.
    found = [each for pattern in (".*", f"{SUBMITTED}/.*", "scores/*/records/.*") for each in path.glob(pattern)]
    return [each for each in found if each.suffix in (".tmp", ".aside") or each.name.startswith(f"{LAYING_OUT}-")]


def read_root(path: Path) -> dict[str, Any]:
    """Read the metadata of the group, with those of all arrays.

    Raises:
        StoreError: there is no store at the path, or something else.
        OSError: the metadata cannot be read.
    """
    try:
        root = json.loads((path / ROOT).read_bytes())
        ours = root["attributes"][_FORMAT] == 1
        if ours:
            _check_root(root)
    except FileNotFoundError as error:
        raise StoreError(f"there is no store at {path}; give the path of one, or run first") from error
    except (NotADirectoryError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(
            f"{path} must be a store that this program made, but cannot be read as one ({error}); put its {ROOT} "
            "back from a copy"
        ) from error
    if not ours:
        raise StoreError(f"{path} must be a store of format 1, but has another format; use the version that made it")
    return dict(root)


def read_coordinates(path: Path) -> dict[str, NDArray[Any]]:
    """Read the values of each array of one dimension: the axes, and what is said of each member.

    Raises:
        StoreError: values are missing or damaged.
        OSError: the values cannot be read.
    """
    group = zarr.open_group(path, mode="r", use_consolidated=True)
    return {name: _complete(path / name, array) for name, array in group.arrays() if array.ndim == 1}


def identity_of(root: dict[str, Any]) -> dict[str, JsonValue]:
    """Return the identity of a store from its metadata, without secrets, which earlier versions may have kept in it."""
    return {key: bare(part) for key, part in json.loads(root["attributes"][_IDENTITY]).items()}


def arrays_of(root: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the metadata of each array by its name, from those of the root."""
    return dict(root["consolidated_metadata"]["metadata"])


def keep_config(path: Path, text: str) -> None:
    """Write the config text of a run into the ``run.yaml`` of a store."""
    config = path / RUN_CONFIG
    if not config.exists() or config.read_bytes() != text.encode():
        replace(config, text.encode())


def half_grown(path: Path, root: dict[str, Any]) -> bool:
    """Return whether the metadata of an array differ from those of the root, as when a driver died in `grow`."""
    return any(_metadata(path / name) != array for name, array in arrays_of(root).items())


@contextmanager
def extension_lock(path: Path) -> Iterator[FileLease]:
    """Hold the lease on extending a store, once no other driver holds it.

    Raises:
        StoreError: another driver keeps the lease.
    """
    with held(path / LEDGER / EXTENSION_LOCK) as lock:
        yield lock


def grow(
    path: Path,
    root: dict[str, Any],
    init_times: NDArray[np.datetime64],
    members: Sequence[Member],
    lead_hours: tuple[int, ...],
    lock: FileLease,
) -> None:
    """Extend the axes of times, members and lead times: first the arrays, one by one, then in one step the root.

    Args:
        path: the folder of the store.
        root: the metadata of the store, read since the lock was taken.
        init_times: (time,) datetime64[h], those that are there and then the new ones.
        members: those that are there and then the new ones; none in a store without an ensemble.
        lead_hours: lead times in hours, those that are there and then the new ones.
        lock: from `extension_lock`.

    Raises:
        StoreError: another driver replaced this one, or the store is too old for lags.
        OSError: the store cannot be written.
    """
    coordinates = {"time": init_times.astype(np.int64), "prediction_timedelta": np.array(lead_hours, np.int64)}
    held = arrays_of(root)
    if "lag" not in held and any(member.lag for member in members):
        raise StoreError(
            f"{path} was laid out before stores had lags, and cannot take members with a lag; choose another store, or "
            "leave out ensemble.lagged"
        )
    coordinates |= {name: values for name, (values, _) in member_arrays(members).items() if name in held}
    sizes: dict[str, int] = {dim: coordinates[dim].size for dim in _GROWING if dim in coordinates}
    grown = {name: _resized(array, sizes) for name, array in held.items()}
    consolidated = root["consolidated_metadata"] | {"metadata": grown}
    with alone(path / STAGING, _GROWTH, lock) as staging:
        draft = staging.folder / _GROWTH
        for name, array in grown.items():
            staging.write(f"{_GROWTH}/{name}/{ROOT}", _json(array))
        for name, values in coordinates.items():
            zarr.open_array(draft / name, mode="r+").with_config({"write_empty_chunks": True})[...] = values
        staging.write(f"{_GROWTH}/{ROOT}", _json(root | {"consolidated_metadata": consolidated}))
        sync_tree(draft)
        for name in grown:
            # The metadata of an array first: values beyond the end of an array are not read.
            for each in sorted((draft / name).iterdir(), key=lambda each: each.name != ROOT):
                staging.replace(f"{_GROWTH}/{name}/{each.name}", path / name / each.name)
            sync_folder(path / name)
        staging.replace(f"{_GROWTH}/{ROOT}", path / ROOT)
        sync_folder(path)


def _check_root(root: dict[str, Any]) -> None:
    """Raise ValueError, KeyError or TypeError unless the arrays have plain names and possible sizes."""
    identity_of(root)
    arrays = arrays_of(root)
    for name, array in arrays.items():
        shape, chunks = array["shape"], array["chunk_grid"]["configuration"]["chunk_shape"]
        if not _NAME.fullmatch(name) or not len(array["dimension_names"]) == len(shape) == len(chunks) > 0:
            raise ValueError(f"the array {name!r} is none that this program writes")
        of_cases = [chunk for dim, chunk in zip(array["dimension_names"], chunks, strict=True) if dim in _OF_CASES]
        shared = len(shape) > 1 and any(chunk != 1 for chunk in of_cases)
        if not all(0 < size <= _LONGEST for size in (*shape, *chunks)) or shared:
            raise ValueError(f"the array {name!r} cannot have the shape {shape} in shards of {chunks}")
    if not {"time", "prediction_timedelta", "latitude", "longitude"} < arrays.keys() or all(
        len(a["shape"]) == 1 for a in arrays.values()
    ):
        raise ValueError(f"it holds only {', '.join(arrays)}")


def _complete(folder: Path, array: zarr.Array[Any]) -> NDArray[Any]:
    """Read the values of an array; zarr would read missing files as the fill value."""
    try:
        if array.nchunks_initialized < array.nchunks:
            raise FileNotFoundError("a file is missing")
        return np.asarray(array[...])
    except (FileNotFoundError, RuntimeError, ValueError) as error:  # of the system, of the codec and of zarr
        raise StoreError(
            f"{folder} must hold the {folder.name} of all forecasts, but cannot be read ({error}); put its files back "
            "from a copy: nothing is written until then"
        ) from error


def _metadata(folder: Path) -> object:
    """Read the metadata of one array from its own file; None if the file is lost, since the root has them too."""
    try:
        return json.loads((folder / ROOT).read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def _create_arrays(folder: Path, plan: Plan, root_attributes: dict[str, Any]) -> None:
    layout = plan.layout
    group = zarr.create_group(folder, attributes=root_attributes)
    hours = np.array(sorted({case.init_time for case in plan.cases}), "datetime64[h]").astype(np.int64)
    of_members = member_arrays(plan.members)
    coordinates = _coordinates(layout.kept, hours, of_members)
    for name, (values, of_axis) in (coordinates | of_members).items():
        dim = NUMBER if name in of_members else name
        length = 4096 if dim in _GROWING else values.size
        array = _create(group, name, (dim,), values.shape, values.dtype, (length,), None, (_AXIS_CODEC,), of_axis)
        # Without write_empty_chunks the one initial time 1970-01-01T00 would be left out, as if it had been lost.
        array.with_config({"write_empty_chunks": True})[...] = values
    for name, levelled in layout.kept.on_levels:
        dims = tuple(dim for dim in coordinates if levelled or dim != "level")
        shape = tuple(coordinates[dim][0].size for dim in dims)
        lead = dims.index("prediction_timedelta")
        of_case, fields = (1,) * lead, shape[lead + 1 :]
        chunks, shards = (*of_case, 1, *fields), (*of_case, layout.block_steps, *fields)
        encoding = Encoding.wanted(layout.outputs, name, layout.block_steps)
        of_array: dict[str, str | int] = {**layout.attributes.get(name, attributes(name)), **encoding.attributes}
        _create(group, name, dims, shape, np.dtype(np.float32), chunks, shards, encoding.codecs, of_array)
    with warnings.catch_warnings():
        # zarr warns that the specification of version 3 does not yet have what xarray and zarr both read.
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(folder)


def _create(
    group: zarr.Group,
    name: str,
    dims: tuple[str, ...],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    chunks: tuple[int, ...],
    shards: tuple[int, ...] | None,
    codecs: tuple[BytesBytesCodec, ...],
    of_array: Mapping[str, str | int],
) -> zarr.Array[Any]:
    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        shards=shards,
        compressors=codecs,
        fill_value=np.nan if dtype == np.float32 else "" if dtype.kind == "T" else 0,
        # All files of a variable in one folder: with "/" each would sit in three folders of its own.
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=dims,
        attributes=dict(of_array),
    )


def _coordinates(
    kept: OutputGrid, hours: NDArray[np.int64], of_members: Mapping[str, tuple[NDArray[Any], dict[str, str]]]
) -> dict[str, tuple[NDArray[Any], dict[str, str]]]:
    """Return the values and CF attributes of each dimension, in the order in which the variables have them."""
    time_of = {"standard_name": "forecast_reference_time", "long_name": "initial time", "axis": "T"}
    time_of |= {"units": "hours since 1970-01-01", "calendar": "proleptic_gregorian"}
    # xarray decodes lead times as such only with this dtype; units alone leave them numbers.
    lead_of = {"standard_name": "forecast_period", "long_name": "lead time"}
    lead_of |= {"units": "hours", "dtype": "timedelta64[ns]"}
    level_of = {"standard_name": "air_pressure", "long_name": "pressure level", "units": "hPa"}
    level_of |= {"positive": "down", "axis": "Z"}
    latitude_of = {"standard_name": "latitude", "long_name": "latitude", "units": "degrees_north", "axis": "Y"}
    longitude_of = {"standard_name": "longitude", "long_name": "longitude", "units": "degrees_east", "axis": "X"}
    level = {"level": (np.array(kept.levels, np.int32), level_of)} if kept.levels else {}
    return {
        "time": (hours, time_of),
        **({NUMBER: of_members[NUMBER]} if of_members else {}),
        "prediction_timedelta": (np.array(kept.lead_hours, np.int64), lead_of),
        **level,
        "latitude": (kept.latitude.astype(np.float32), latitude_of),
        "longitude": (kept.longitude.astype(np.float32), longitude_of),
    }


def _root_attributes(
    identity: Mapping[str, JsonValue], provenance: Mapping[str, JsonValue], *, with_members: bool
) -> dict[str, Any]:
    """Return attributes that netCDF can hold too, so that xarray can write what it read."""
    plain = {
        key: value if isinstance(value, str | int | float) and not isinstance(value, bool) else json.dumps(value)
        for key, value in provenance.items()
    }
    kept = {"Conventions": "CF-1.11", _FORMAT: 1, _IDENTITY: json.dumps(dict(identity), sort_keys=True)}
    return plain | kept | ({"coordinates": COORDINATES} if with_members else {})


def _resized(array: dict[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    present = zip(array["dimension_names"], array["shape"], strict=True)
    return array | {"shape": [sizes.get(dim, size) for dim, size in present]}


def _json(metadata: Mapping[str, Any]) -> bytes:
    return json.dumps(metadata, indent=1).encode()
