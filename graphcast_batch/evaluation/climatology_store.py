"""Write a climatology as a zarr group in WeatherBench 2's layout.

The dimensions are (hour, dayofyear, [level], latitude, longitude). NAME is the mean of a variable and NAME_std its
standard deviation; precipitation also has what SEEPS needs. The group is laid out as a draft, filled by independent
writers, each shard by one of them, and moved into place. The statistics of single days are kept beside the draft until
the windows around them are done.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec
from zarr.errors import ZarrUserWarning

from graphcast_batch.errors import StoreError
from graphcast_batch.files.durable import explained, replace, sync_folder, sync_tree
from graphcast_batch.files.process_identity import mark
from graphcast_batch.grid import Grid
from graphcast_batch.text import byte_size
from graphcast_batch.variables import attributes

DAYS: Final = 366
BLOCK: Final = 32
"""Days in a shard, which one writer fills."""
DEVIATION: Final = "_std"
DRY: Final = "_seeps_dry_fraction"
HEAVY: Final = "_seeps_threshold"
_KINDS: Final = {"": "mean", DEVIATION: "standard deviation", DRY: "share of dry ones", HEAVY: "least that is heavy"}
_CODEC: Final = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")
_IDENTITY: Final = "identity"


_CHUNK_BYTES: Final = 2**22
"""Bytes of a chunk of fields on several levels: smaller chunks take longer to find than to read."""


def levels_together(levels: int, grid: Grid) -> int:
    """Return the number of levels in one chunk, for a variable on so many levels."""
    return max(1, min(levels, _CHUNK_BYTES // (4 * grid.size)))


@dataclass(frozen=True, eq=False)
class ClimatologyContents:
    """What a climatology consists of, from which its size follows.

    Attributes:
        on_levels: for each variable, whether it is on levels.
        units: of derived variables.
        seeps_variables: variables for which SEEPS is prepared.
        hours: of the day, ascending.
        levels: hPa, ascending.
        grid: the points.
        times: (time,) that the climatology is made of.
        described: root attributes.
    """

    on_levels: Mapping[str, bool]
    units: Mapping[str, str]
    seeps_variables: Sequence[str]
    hours: Sequence[int]
    levels: Sequence[int]
    grid: Grid
    times: NDArray[np.datetime64]
    described: Mapping[str, str]

    def levels_of(self, name: str) -> int:
        """Return the number of levels of a variable; 1 if it is not on levels."""
        return len(self.levels) if self.on_levels[name] else 1

    def arrays_of(self, name: str) -> dict[str, str]:
        """Return the kind of each array of a variable, by the name of the array."""
        kinds = _KINDS if name in self.seeps_variables else ("", DEVIATION)
        return {name + kind: kind for kind in kinds}

    def bytes_of(self, name: str) -> int:
        """Return the size of all arrays of a variable before compression."""
        return len(self.arrays_of(name)) * len(self.hours) * DAYS * self._level_bytes(name)

    def days_bytes_of(self, name: str) -> int:
        """Return the most bytes that are kept of single days of a variable while its arrays are made."""
        values = self.times.size * self._level_bytes(name) if name in self.seeps_variables else 0
        return 2 * len(self.hours) * DAYS * self._level_bytes(name) + values

    @property
    def bytes(self) -> int:
        """Size of all arrays before compression."""
        return sum(map(self.bytes_of, self.on_levels))

    @property
    def most_days_bytes(self) -> int:
        """Most bytes that are kept of single days at any time; one variable is made after another."""
        return max(map(self.days_bytes_of, self.on_levels))

    @property
    def files(self) -> int:
        """Number of files of the finished climatology."""
        shards = {
            name: len(self.hours) * -(-DAYS // BLOCK) * -(-levels // levels_together(levels, self.grid))
            for name, levels in ((name, self.levels_of(name)) for name in self.on_levels)
        }
        axes = 5 if self.levels else 4
        return 1 + 2 * axes + sum(len(self.arrays_of(name)) * (1 + count) for name, count in shards.items())

    def _level_bytes(self, name: str) -> int:
        """Return the size of one field, on all levels."""
        return 4 * self.levels_of(name) * self.grid.size


@dataclass(frozen=True)
class ClimatologyDraft:
    """A climatology that is being made.

    Attributes:
        path: of the finished climatology.
    """

    path: Path

    @classmethod
    def lay_out(cls, path: Path, contents: ClimatologyContents) -> Self:
        """Create a draft without values, in place of a different draft; resume a draft of the same climatology.

        Args:
            path: of the finished climatology.
            contents: of the climatology.

        Raises:
            StoreError: ``path`` exists, the disk has no room for what is not made yet, or fails.
        """
        draft = cls(path)
        _refuse_existing(path)
        coordinates: dict[str, NDArray[Any]] = {
            "hour": np.asarray(contents.hours, np.int64),
            "dayofyear": np.arange(1, DAYS + 1),
            **({"level": np.asarray(contents.levels, np.int32)} if contents.levels else {}),
            "latitude": contents.grid.latitude,
            "longitude": contents.grid.longitude,
        }
        known = [dict(contents.on_levels), list(contents.seeps_variables), dict(contents.described)]
        known += [hashlib.sha256(axis.tobytes()).hexdigest() for axis in (*coordinates.values(), contents.times)]
        identity = json.dumps(known, sort_keys=True).encode()
        resumed = draft._is(identity)
        if not resumed:
            shutil.rmtree(draft._days, ignore_errors=True)
            shutil.rmtree(draft._group, ignore_errors=True)
        draft._check_room(contents)
        if not resumed:
            with explained(f"laying out {draft._group}"):
                _create_group(draft._group, coordinates, contents)
                sync_tree(draft._group)
                draft._days.mkdir()
                replace(draft._days / _IDENTITY, identity)
        return draft

    def keep(self, name: str, hour: int, day: int, values: NDArray[np.float32], what: str = "") -> None:
        """Keep the statistics or values of a single day until `finish`.

        Args:
            name: of the variable.
            hour: index of the hour, counted from 0.
            day: of the year, counted from 0.
            values: of any shape.
            what: suffix that tells several arrays of one day apart.

        Raises:
            StoreError: the disk fails.
        """
        file = self._file(name, hour, day, what)
        with explained(f"keeping {file}"):
            file.parent.mkdir(exist_ok=True)
            partial = file.with_suffix(f".{mark()}.npy")
            np.save(partial, values)
            partial.rename(file)

    def keeps(self, name: str, hour: int, day: int) -> bool:
        """Whether a day's array was kept."""
        return self._file(name, hour, day).exists()

    def kept(self, name: str, hour: int, day: int, what: str = "") -> NDArray[np.float32]:
        """Open a day's array that was kept; its values are read lazily.

        Raises:
            StoreError: the file is missing or damaged.
        """
        file = self._file(name, hour, day, what)
        try:
            found: NDArray[np.float32] = np.load(file, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{file} must hold an array, but cannot be read as one ({error}); remove {self._days} and make the "
                "climatology again"
            ) from error
        return found

    def fill(self, name: str, hour: int, days: slice, levels: slice, values: NDArray[np.floating]) -> None:
        """Write a complete shard.

        Args:
            name: of the array.
            hour: index of the hour, counted from 0.
            days: of the year, counted from 0; a complete block, or the last days of the year.
            levels: indices of the levels of a chunk; the first for a variable that is not on levels.
            values: (day, level, latitude, longitude).

        Raises:
            StoreError: the disk fails.
        """
        with explained(f"filling {self._group}"):
            stored = zarr.open_array(self._group / name, mode="r+").with_config({"write_empty_chunks": True})
            if stored.ndim == 5:
                stored[hour, days, levels] = values.astype(np.float32)
            else:
                stored[hour, days] = values[:, 0].astype(np.float32)

    def finish(self, name: str) -> None:
        """Mark a variable as finished and remove the arrays that were kept for it.

        Raises:
            StoreError: the disk fails.
        """
        with explained(f"finishing {name} of {self._group}"):
            for kind in _KINDS:
                sync_tree(self._group / (name + kind))
            replace(self._days / f"{name}.finished", b"")
            shutil.rmtree(self._days / name, ignore_errors=True)

    def finished(self, name: str) -> bool:
        """Whether a variable is finished."""
        return (self._days / f"{name}.finished").exists()

    def publish(self) -> None:
        """Move the draft into place; all its variables must be finished.

        Raises:
            StoreError: the path exists, or the disk fails.
        """
        with explained(f"publishing {self.path}"):
            _refuse_existing(self.path)
            os.rename(self._group, self.path)
            sync_folder(self.path.parent)
            shutil.rmtree(self._days, ignore_errors=True)

    def _check_room(self, contents: ClimatologyContents) -> None:
        """Compare the room on the disk with what the variables need that are not finished.

        Raises:
            StoreError: there is too little.
        """
        left = [name for name in contents.on_levels if not self.finished(name)]
        days = max((contents.days_bytes_of(name) - self._kept_bytes(name) for name in left), default=0)
        needed = sum(map(contents.bytes_of, left)) + days
        place = next(folder for folder in self.path.absolute().parents if folder.exists())
        free = shutil.disk_usage(place).free
        if needed > free:
            raise StoreError(
                f"the climatology {self.path} needs up to {byte_size(needed)} ({byte_size(days)} of them only while it "
                f"is made), but {byte_size(free)} are free at {place}; make room, write it to another disk (--to), or "
                "choose fewer variables (--variable), levels (--levels) or hours of the day (--every-hours)"
            )

    def _kept_bytes(self, name: str) -> int:
        """Return how many bytes of single days of a variable were kept before."""
        folder = self._days / name
        return sum(file.stat().st_size for file in folder.iterdir()) if folder.exists() else 0

    @property
    def _group(self) -> Path:
        return self.path.with_name(f".{self.path.name}.draft")

    @property
    def _days(self) -> Path:
        return self.path.with_name(f".{self.path.name}.days")

    def _file(self, name: str, hour: int, day: int, what: str = "") -> Path:
        return self._days / name / f"{hour}-{day}{what}.npy"

    def _is(self, identity: bytes) -> bool:
        known = self._days / _IDENTITY
        return self._group.exists() and known.exists() and known.read_bytes() == identity


def _create_group(folder: Path, coordinates: Mapping[str, NDArray[Any]], contents: ClimatologyContents) -> None:
    group = zarr.create_group(folder, attributes={"Conventions": "CF-1.11", **contents.described})
    for dim, values in coordinates.items():
        _create(group, dim, (dim,), values.shape, values.shape, None, values.dtype, {})[...] = values
    for name, levelled in contents.on_levels.items():
        dims = tuple(dim for dim in coordinates if levelled or dim != "level")
        shape = tuple(coordinates[dim].size for dim in dims)
        together = (levels_together(len(contents.levels), contents.grid),) if levelled else ()
        chunks, shards = (1, 1, *together, *shape[-2:]), (1, BLOCK, *together, *shape[-2:])
        for array, kind in contents.arrays_of(name).items():
            of_array = _described(name, kind, contents.units)
            _create(group, array, dims, shape, chunks, shards, np.dtype(np.float32), of_array)
    with warnings.catch_warnings():
        # zarr warns that the specification of version 3 does not yet have what xarray and zarr both read.
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(folder)


def _described(name: str, kind: str, units: Mapping[str, str]) -> dict[str, str]:
    """Return the attributes of an array; CF has no cell method for the arrays that SEEPS needs."""
    of_variable = attributes(name) | ({"units": units[name]} if name in units else {})
    if kind not in (DRY, HEAVY):
        return of_variable | {"cell_methods": f"time: {_KINDS[kind]} over years"}
    return {"units": "1" if kind == DRY else "m", "long_name": f"{of_variable['long_name']}: {_KINDS[kind]}"}


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise StoreError(f"{path} must not exist, but does; remove it, or write the climatology to another path")


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
