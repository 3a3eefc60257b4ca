"""A Plan becomes one zarr store, and the frames of its Cases become files in it, one whole Case at a time.

``xarray.open_zarr(path)`` gives the forecasts: variables in float32 over initial time, lead time, level, latitude and
longitude, NaN where nothing was written. The root's ``zarr.json`` holds the metadata of all arrays and is the only
file that is believed: it is written last, so that whatever dies half-way leaves the store as it was.
"""

import json
import os
import shutil
import socket
import uuid
import zlib
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from pydantic import JsonValue

from graphcast_batch.errors import StoreError, StoreMismatchError
from graphcast_batch.grid import Grid
from graphcast_batch.outputs.claims import Claim, Owner, drop_abandoned
from graphcast_batch.outputs.durable import LEFT_OVER_SECONDS, explained, now, seal, sync_folder
from graphcast_batch.outputs.layout import (
    LEDGER,
    STAGING,
    arrays_of,
    grow,
    growing,
    half_grown,
    identity_of,
    is_laid_out,
    keep_config,
    lay_out,
    lay_out_again,
    read_coordinates,
    read_root,
)
from graphcast_batch.outputs.ledger import Ledger, Record
from graphcast_batch.plan import Case, Layout, Plan

_OWNER: Final = "owner.json"


@dataclass(frozen=True, eq=False)
class Store:
    """One run's forecasts and ledger, in one folder.

    Attributes:
        path: the folder, without symbolic links.
        root: the group's metadata, with that of all arrays.
        init_times: (time,) datetime64[h] initial times, in the order of the store.
        grid: the points.
        levels: hPa, ascending; empty without any variable on levels.
        steps: number of lead times.
        on_levels: for each variable, in ASCII order, whether it is on levels.
        block_steps: how many lead times are one shard, which is written at once; set when the store was first laid
            out and never changed, so that a Layout of today may say otherwise.
    """

    path: Path
    root: dict[str, Any]
    init_times: NDArray[np.datetime64]
    grid: Grid
    levels: tuple[int, ...]
    steps: int

    @classmethod
    def create_or_extend(
        cls,
        path: Path,
        plan: Plan,
        *,
        identity: Mapping[str, JsonValue],
        provenance: Mapping[str, JsonValue],
        config_text: str,
    ) -> Self:
        """Lays out the store of a plan, or takes up the one that is there, made longer where the plan asks for it.

        Nothing that was written is moved, shrunk or rewritten. New initial times go to the end of the time axis, so
        an earlier one added later leaves it unsorted. Any number of drivers may call this at once.

        Args:
            path: the folder to be.
            plan: what will be written.
            identity: what makes forecasts belong together, like the checksum of the weights; kept in the store.
            provenance: root attributes of a new store; what is neither text nor number is kept as JSON text. A store
                that is extended keeps its own, and each record tells what made its Case.
            config_text: kept as ``run.yaml``.

        Raises:
            StoreMismatchError: the store that is there has another identity, grid, levels or variables.
            StoreError: the folder is something else, or cannot be written.
        """
        path = Path(os.path.realpath(path))
        twice = [key for key, count in Counter(case.key for case in plan.cases).items() if count > 1]
        if twice:
            raise StoreError(f"{path}: each initial time must be one Case, but {', '.join(twice)} is several")
        with explained(f"laying out {path}"):
            lay_out(path, plan, identity, provenance, config_text)
            store = cls.open(path)
            store.refuse_other(plan.layout, identity)
            return store._extended(plan, config_text)

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether something was laid out at a path.

        Raises:
            StoreError: it cannot be told.
        """
        with explained(f"looking for a store at {path}"):
            return is_laid_out(path)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Opens a store that was laid out before.

        Raises:
            StoreError: there is none, or something else.
        """
        path = Path(os.path.realpath(path))
        with explained(f"opening {path}"):
            root = read_root(path)
            coordinates = read_coordinates(path)
        return cls(
            path=path,
            root=root,
            init_times=coordinates["time"].astype("datetime64[h]"),
            grid=Grid(coordinates["latitude"], coordinates["longitude"]),
            levels=tuple(int(level) for level in coordinates.get("level", ())),
            steps=coordinates["prediction_timedelta"].size,
        )

    def __post_init__(self) -> None:
        for name in self.variables:
            assert self._arrays[name]["chunk_grid"]["configuration"]["chunk_shape"][0] == 1, (
                f"{self.path}: a shard of {name} belongs to several Cases"
            )

    @property
    def ledger(self) -> Ledger:
        """Which Cases are claimed, failed, whole."""
        return Ledger(self.path / LEDGER)

    @property
    def identity(self) -> dict[str, JsonValue]:
        """What makes forecasts belong into this store."""
        return identity_of(self.root)

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables, in ASCII order."""
        return tuple(name for name, _ in self.on_levels)

    @cached_property
    def on_levels(self) -> tuple[tuple[str, bool], ...]:
        """For each variable, in ASCII order, whether it is on levels."""
        fields = {name: array for name, array in self._arrays.items() if len(array["shape"]) > 1}
        return tuple((name, "level" in fields[name]["dimension_names"]) for name in sorted(fields))

    @property
    def block_steps(self) -> int:
        """How many lead times are one shard."""
        return int(self._arrays[self.variables[0]]["chunk_grid"]["configuration"]["chunk_shape"][1])

    def index_of(self, case: Case) -> int:
        """Where a Case stands on the time axis.

        Raises:
            StoreError: the store was not laid out for it.
        """
        index = self._index.get(case.key)
        if index is None or case.steps > self.steps:
            raise StoreError(
                f"{case.key}: {self.path} must be laid out for it with {case.steps} steps, but holds {self.steps} "
                f"steps of {len(self._index)} initial times; extend it first"
            )
        return index

    def attempt(self, case: Case) -> "Attempt":
        """One try at writing a Case, to be used as a context.

        Raises:
            StoreError: the store was not laid out for it.
        """
        return Attempt(self, case)

    def forecasts(self) -> xr.Dataset:
        """The forecasts, read when their values are asked for.

        Returns:
            float32 (time, prediction_timedelta, [level], latitude, longitude), NaN where nothing was written.
        """
        opened: xr.Dataset = xr.open_zarr(self.path, chunks=None, consolidated=True)
        return opened

    def sweep(self) -> list[Path]:
        """Removes what dead attempts left behind, of this host at once and of others after a day.

        Returns:
            what was removed.
        """
        with explained(f"sweeping {self.path}"):
            folders = list((self.path / STAGING).glob("*"))
            left = [folder for folder in folders if drop_abandoned(folder, folder / _OWNER)]
            return left + self.ledger.sweep()

    @property
    def _arrays(self) -> dict[str, dict[str, Any]]:
        return arrays_of(self.root)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {str(init_time): index for index, init_time in enumerate(self.init_times)}

    def refuse_other(self, layout: Layout, identity: Mapping[str, JsonValue]) -> None:
        """Compares the store with what is to be written into it.

        Args:
            layout: of that.
            identity: of that.

        Raises:
            StoreMismatchError: naming every difference.
        """
        ours = self.identity | _described(self.grid, self.levels, self.on_levels)
        theirs = json.loads(json.dumps(dict(identity))) | _described(layout.grid, layout.levels, layout.on_levels)
        absent = "(absent)"
        differences = [
            f"  {key}: the store has {ours.get(key, absent)}, this run has {theirs.get(key, absent)}"
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key, absent) != theirs.get(key, absent)
        ]
        if differences:
            raise StoreMismatchError(
                f"{self.path} was laid out for something else:\n" + "\n".join(differences) + "\n"
                "choose another `store` path, or mend the config to agree with the store"
            )

    def _extended(self, plan: Plan, config_text: str) -> Self:
        if self._holds(plan):
            keep_config(self.path, config_text)
            return self
        with growing(self.path) as lock:
            self.open(self.path)._grow(plan, lock)
            keep_config(self.path, config_text)
        return self.open(self.path)

    def _holds(self, plan: Plan) -> bool:
        """Whether every Case has its place, and no extension was left half-done."""
        placed = plan.layout.steps <= self.steps and all(case.key in self._index for case in plan.cases)
        return placed and not half_grown(self.path, self.root)

    def _grow(self, plan: Plan, lock: Claim) -> None:
        new = sorted(case.init_time for case in plan.cases if case.key not in self._index)
        init_times = np.concatenate([self.init_times, np.array(new, "datetime64[h]")])
        grow(self.path, self.root, init_times, max(self.steps, plan.layout.steps), lock)


class Attempt:
    """One try at writing a Case, in a folder of its own until all of it is there.

    As a context it leaves nothing behind unless it was committed. Threads may write at once.
    """

    def __init__(self, store: Store, case: Case) -> None:
        self._store = store
        self._case = case
        self._index = store.index_of(case)
        self._folder = store.path / STAGING / f"{case.key}-{uuid.uuid4().hex}"
        self._files: dict[str, tuple[int, str]] = {}

    def __enter__(self) -> Self:
        try:
            with self._explained():
                # An empty folder is easily lost when a store is copied.
                self._folder.parent.mkdir(exist_ok=True)
                self._folder.mkdir()
                (self._folder / _OWNER).write_bytes(Owner.here(LEFT_OVER_SECONDS).model_dump_json().encode())
                lay_out_again(self._folder, self._store.root, self._store.variables)
        except StoreError:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def write(self, first_step: int, frames: Mapping[str, NDArray[np.float32]]) -> None:
        """Writes a few steps of every variable: whole blocks, of which the last may end with the Case.

        Args:
            first_step: counted from 0, a multiple of the store's ``block_steps``.
            frames: by variable, float32 (k, [level], latitude, longitude) in its units.

        Raises:
            StoreError: the frames do not fit, or cannot be written.
        """
        steps = self._check_frames(first_step, frames)
        with self._explained():
            os.utime(self._folder / _OWNER)
            for name, values in frames.items():
                # Without write_empty_chunks a chunk of NaN would be left out, as if it had been lost.
                array = zarr.open_array(self._folder / name, mode="r+").with_config({"write_empty_chunks": True})
                array[self._index : self._index + 1, first_step : first_step + steps] = values[np.newaxis]
            for file in self._files_of(first_step, first_step + steps):
                self._files[file] = seal(self._folder / file)

    def commit(
        self,
        *,
        claim: Claim | None,
        seconds: Mapping[str, float],
        device: str,
        worker: str,
        attempts: int,
        details: Mapping[str, JsonValue],
    ) -> Record:
        """Puts the files into the store and declares the Case whole; drops them if it was whole already.

        Args:
            claim: on the Case; without one, the caller knows that nobody else works on it.
            seconds: time spent, by stage.
            device: what it was computed on.
            worker: which worker made it.
            attempts: how many it took, this one included.
            details: whatever else is to be kept.

        Returns:
            the record that stands.

        Raises:
            StoreError: steps were not written, the claim was lost, or the files cannot be moved.
        """
        ledger, case = self._store.ledger, self._case
        standing = ledger.record(case.key, case.steps)
        if standing:
            return standing
        missing = [file for file in self._files_of(0, case.steps) if file not in self._files]
        if missing:
            raise StoreError(f"{case.key}: all {case.steps} steps must be written first, but {missing[0]} was not")
        with self._explained():
            for file in self._files:
                self._check_claim(claim)
                os.replace(self._folder / file, self._store.path / file)
            for name in self._store.variables:
                sync_folder(self._store.path / name)
        record = Record(
            key=case.key,
            init_time=f"{case.init_time.astype('datetime64[s]')}Z",
            steps=case.steps,
            bytes=sum(size for size, _ in self._files.values()),
            files=self._files,
            seconds=dict(seconds),
            host=socket.gethostname(),
            device=device,
            worker=worker,
            attempts=attempts,
            finished_at=now(),
            details=dict(details),
        )
        self._check_claim(claim)
        return ledger.enter(record)

    def _check_claim(self, claim: Claim | None) -> None:
        if claim and not claim.held():
            raise StoreError(
                f"{self._case.key}: the claim must be held until the Case is recorded in {self._store.path}, but was "
                "lost to another process or removed; this attempt is dropped: run again"
            )

    def _check_frames(self, first_step: int, frames: Mapping[str, NDArray[np.float32]]) -> int:
        store, key = self._store, self._case.key
        if sorted(frames) != list(store.variables):
            raise StoreError(f"{key}: frames must hold {list(store.variables)}, but hold {sorted(frames)}")
        steps: int = frames[store.variables[0]].shape[0]
        last = first_step + steps
        whole = first_step % store.block_steps == 0 and (last % store.block_steps == 0 or last == self._case.steps)
        if not (whole and 0 <= first_step < last <= self._case.steps):
            raise StoreError(
                f"{key}: steps must be written in whole blocks of {store.block_steps} of its {self._case.steps}, "
                f"but are {first_step} to {last}"
            )
        for name, levelled in store.on_levels:
            expected = (steps, *((len(store.levels),) if levelled else ()), *store.grid.shape)
            if frames[name].shape != expected or frames[name].dtype != np.float32:
                found = f"{frames[name].dtype} {frames[name].shape}"
                raise StoreError(f"{key}: {name} must be float32 {expected}, but is {found}")
        return steps

    def _files_of(self, first_step: int, last_step: int) -> list[str]:
        """The files that hold some steps, by their path in the store."""
        return files_of(self._index, first_step, last_step, self._store.on_levels, self._store.block_steps)

    def _explained(self) -> AbstractContextManager[None]:
        return explained(f"{self._case.key}: writing it to {self._store.path}")


def files_of(
    index: int, first_step: int, last_step: int, on_levels: tuple[tuple[str, bool], ...], block_steps: int
) -> list[str]:
    """The files that hold some steps of a Case, by their path in the store.

    Args:
        index: of the Case on the time axis.
        first_step: counted from 0.
        last_step: the first that they need not hold.
        on_levels: for each variable whether it is on levels.
        block_steps: how many lead times are one file.
    """
    blocks = range(first_step // block_steps, -(-last_step // block_steps))
    return [f"{name}/c.{index}.{block}{'.0' * (2 + levelled)}" for name, levelled in on_levels for block in blocks]


def _described(grid: Grid, levels: tuple[int, ...], on_levels: tuple[tuple[str, bool], ...]) -> dict[str, Any]:
    checksum = zlib.crc32(grid.latitude.astype("<f4").tobytes() + grid.longitude.astype("<f4").tobytes())
    return {
        "grid": f"{grid}, coordinates {checksum:08x}",
        "levels": list(levels),
        "variables": [f"{name} (on levels)" if levelled else name for name, levelled in sorted(on_levels)],
    }
