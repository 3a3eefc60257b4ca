"""A Plan becomes one zarr store, and the frames of its Cases become files in it, one whole Case at a time.

``xarray.open_zarr(path)`` gives the forecasts: variables in float32 over initial time, lead time, level, latitude and
longitude, NaN where nothing was written. The root's ``zarr.json`` holds the metadata of all arrays and is the only
file that is believed: it is written last, so that whatever dies half-way leaves the store as it was.
"""

import json
import os
import shutil
import socket
import threading
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
from numpy.typing import NDArray
from pydantic import JsonValue

from graphcast_batch.config import STEP_HOURS
from graphcast_batch.errors import StoreError, StoreMismatchError
from graphcast_batch.outputs.claims import Claim, Owner, drop_abandoned
from graphcast_batch.outputs.durable import LEFT_OVER_SECONDS, explained, now, sync_folder
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
    read_coordinates,
    read_root,
)
from graphcast_batch.outputs.ledger import Ledger, Record
from graphcast_batch.outputs.shards import Encoding, Shard
from graphcast_batch.plan import Case, Kept, Layout, Plan

OUTPUTS: Final = "outputs"
"""The part of a store's identity that tells what it keeps of forecasts, where that is not their values."""
NONE: Final = "none"
"""Nothing but scores."""
_OWNER: Final = "owner.json"


@dataclass(frozen=True, eq=False)
class Store:
    """One run's forecasts and ledger, in one folder.

    Attributes:
        path: the folder, without symbolic links.
        root: the group's metadata, with that of all arrays.
        init_times: (time,) datetime64[h] initial times, in the order of the store.
        kept: what it holds of each forecast.
        block_steps: how many lead times are one shard; set when the store was first laid out and never changed, so
            that a Layout of today may say otherwise.
    """

    path: Path
    root: dict[str, Any]
    init_times: NDArray[np.datetime64]
    kept: Kept

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
            return store._extended(plan, identity, config_text)

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
            kept=Kept(
                on_levels=_on_levels(arrays_of(root)),
                levels=tuple(coordinates.get("level", np.empty(0, int)).tolist()),
                lead_hours=tuple(coordinates["prediction_timedelta"].tolist()),
                latitude=coordinates["latitude"],
                longitude=coordinates["longitude"],
            ),
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

    @cached_property
    def only_scores(self) -> bool:
        """Whether nothing is written of the forecasts but their scores."""
        return self.identity.get(OUTPUTS) == NONE

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables, in ASCII order."""
        return self.kept.variables

    @property
    def block_steps(self) -> int:
        """How many lead times are one shard."""
        return int(self._arrays[self.variables[0]]["chunk_grid"]["configuration"]["chunk_shape"][1])

    @property
    def encodings(self) -> dict[str, Encoding]:
        """How each variable becomes bytes.

        Raises:
            StoreError: in a way that this program does not write.
        """
        return {name: Encoding.of(self._arrays[name]) for name in self.variables}

    def blocks_of(self, steps: int) -> int:
        """How many shards of each variable a forecast of so many steps has."""
        return 0 if self.only_scores else -(-self.kept.leads(steps) // self.block_steps)

    def index_of(self, case: Case) -> int:
        """Where a Case stands on the time axis.

        Raises:
            StoreError: the store was not laid out for it.
        """
        index = self._index.get(case.key)
        if index is None or STEP_HOURS * case.steps not in self.kept.lead_hours:
            raise StoreError(
                f"{case.key}: {self.path} must be laid out for it with {case.steps} steps, but holds "
                f"{len(self.kept.lead_hours)} lead times up to {self.kept.lead_hours[-1]} h of {len(self._index)} "
                "initial times; extend it first"
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
        wanted = {name: Encoding.wanted(layout.outputs, name, self.block_steps) for name in layout.kept.variables}
        ours = self.identity | _described(self.kept, self.encodings)
        theirs = json.loads(json.dumps(dict(identity))) | _described(layout.kept, wanted)
        both = slice(min(len(self.kept.lead_hours), len(layout.kept.lead_hours)))  # one may go on after the other
        ours["lead hours"], theirs["lead hours"] = self.kept.lead_hours[both], layout.kept.lead_hours[both]
        most = layout.outputs.max_files
        files = len(self.variables) * -(-len(layout.kept.lead_hours) // self.block_steps)
        if most is not None and files > most:
            ours["files"], theirs["files"] = f"{files} a Case", f"at most {most}"
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

    def _extended(self, plan: Plan, identity: Mapping[str, JsonValue], config_text: str) -> Self:
        if self._holds(plan):
            keep_config(self.path, config_text)
            return self
        with growing(self.path) as lock:
            store = self.open(self.path)
            # Another driver may have added other lead times since this one looked.
            store.refuse_other(plan.layout, identity)
            store._grow(plan, lock)
            keep_config(self.path, config_text)
        return self.open(self.path)

    def _holds(self, plan: Plan) -> bool:
        """Whether every Case has its place, and no extension was left half-done."""
        longer = len(plan.layout.kept.lead_hours) > len(self.kept.lead_hours)
        placed = not longer and all(case.key in self._index for case in plan.cases)
        return placed and not half_grown(self.path, self.root)

    def _grow(self, plan: Plan, lock: Claim) -> None:
        new = sorted(case.init_time for case in plan.cases if case.key not in self._index)
        init_times = np.concatenate([self.init_times, np.array(new, "datetime64[h]")])
        lead_hours = max(self.kept.lead_hours, plan.layout.kept.lead_hours, key=len)
        grow(self.path, self.root, init_times, lead_hours, lock)


class Attempt:
    """One try at writing a Case, in a folder of its own until all of it is there.

    As a context it leaves nothing behind unless it was committed. Any threads may write at once, as long as the lead
    times of each variable come in order.
    """

    def __init__(self, store: Store, case: Case) -> None:
        self._store = store
        self._case = case
        self._index = store.index_of(case)
        self._folder = store.path / STAGING / f"{case.key}-{uuid.uuid4().hex}"
        self._leads = store.kept.leads(case.steps)
        self._encodings = store.encodings
        self._shards: dict[str, Shard] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        try:
            with self._explained():
                # An empty folder is easily lost when a store is copied.
                self._folder.parent.mkdir(exist_ok=True)
                self._folder.mkdir()
                (self._folder / _OWNER).write_bytes(Owner.here(LEFT_OVER_SECONDS).model_dump_json().encode())
                for name in self._store.variables:
                    (self._folder / name).mkdir()
        except StoreError:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for shard in self._shards.values():
            shard.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def write(self, first: int, frames: Mapping[str, NDArray[np.float32]]) -> None:
        """Writes some lead times of every variable; see `write_variable`.

        Args:
            first: the first of them, counted from 0 among those that the store keeps.
            frames: by variable, float32 (k, [level], latitude, longitude) in its units, of what the store keeps.

        Raises:
            StoreError: the frames do not fit, or cannot be written.
        """
        store, key = self._store, self._case.key
        if sorted(frames) != list(store.variables):
            raise StoreError(f"{key}: frames must hold {list(store.variables)}, but hold {sorted(frames)}")
        for name, values in frames.items():
            self._check(name, first, values)
        for name, values in frames.items():
            self.write_variable(name, first, values)

    def write_variable(self, name: str, first: int, values: NDArray[np.float32]) -> None:
        """Encodes and writes some lead times of one variable; different variables in different threads at once.

        Args:
            name: of the variable.
            first: the first lead time, counted from 0 among those that the store keeps; within a shard they must
                come in order.
            values: float32 (k, [level], latitude, longitude) in its units, of what the store keeps.

        Raises:
            StoreError: the values do not fit, do not come in order, or cannot be written.
        """
        self._check(name, first, values)
        with self._explained():
            os.utime(self._folder / _OWNER)
            last, size = first + len(values), self._store.block_steps
            for start in range(first - first % size, last, size):
                begin, end = max(first, start), min(last, start + size)
                self._shard(name, start).append(begin - start, values[begin - first : end - first])

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
        files = {file: shard.sealed for file, shard in self._shards.items() if shard.sealed}
        blocks = self._store.blocks_of(case.steps)
        missing = sorted(files_of(self._index, blocks, self._store.kept.on_levels) - files.keys())
        if missing:
            raise StoreError(f"{case.key}: all {case.steps} steps must be written first, but {missing[0]} was not")
        with self._explained():
            for file in files:
                self._check_claim(claim)
                os.replace(self._folder / file, self._store.path / file)
            for name in self._store.variables:
                sync_folder(self._store.path / name)
        record = Record(
            key=case.key,
            init_time=f"{case.init_time.astype('datetime64[s]')}Z",
            steps=case.steps,
            bytes=sum(size for size, _ in files.values()),
            files=files,
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

    def _check(self, name: str, first: int, values: NDArray[np.float32]) -> None:
        kept, key = self._store.kept, self._case.key
        if not 0 <= first < first + len(values) <= self._leads:
            raise StoreError(
                f"{key}: {name} must have lead times 0 to {self._leads}, but was given {first} to {first + len(values)}"
            )
        expected = (len(values), *kept.frame_shape(dict(kept.on_levels)[name]))
        if values.shape != expected or values.dtype != np.float32:
            raise StoreError(f"{key}: {name} must be float32 {expected}, but is {values.dtype} {values.shape}")

    def _shard(self, name: str, start: int) -> Shard:
        """The file that a lead time begins, begun if it is not yet."""
        levelled, size = dict(self._store.kept.on_levels)[name], self._store.block_steps
        file = file_of(name, levelled, self._index, start // size)
        with self._lock:
            if file not in self._shards:
                encoding, leads = self._encodings[name], min(size, self._leads - start)
                self._shards[file] = Shard(self._folder / file, encoding, leads)
            return self._shards[file]

    def _explained(self) -> AbstractContextManager[None]:
        return explained(f"{self._case.key}: writing it to {self._store.path}")


def file_of(name: str, levelled: bool, index: int, block: int) -> str:
    """A shard of a variable, by its path in the store.

    Args:
        name: of the variable.
        levelled: whether it is on levels.
        index: of the Case on the time axis.
        block: which of its shards, counted from 0.
    """
    return f"{name}/c.{index}.{block}{'.0' * (2 + levelled)}"


def files_of(index: int, blocks: int, on_levels: tuple[tuple[str, bool], ...]) -> set[str]:
    """The first shards of every variable of a Case, by their path in the store.

    Args:
        index: of the Case on the time axis.
        blocks: how many of each variable.
        on_levels: for each variable whether it is on levels.
    """
    return {file_of(name, levelled, index, block) for name, levelled in on_levels for block in range(blocks)}


def _described(kept: Kept, encodings: Mapping[str, Encoding]) -> dict[str, Any]:
    rows, columns = kept.latitude, kept.longitude
    checksum = zlib.crc32(rows.astype("<f4").tobytes() + columns.astype("<f4").tobytes())
    return {
        "grid": f"{rows.size} x {columns.size} at latitudes {rows[0]:g} to {rows[-1]:g}, longitudes {columns[0]:g} to "
        f"{columns[-1]:g} (coordinates {checksum:08x})",
        "levels": list(kept.levels),
        "variables": [f"{name} (on levels)" if levelled else name for name, levelled in kept.on_levels],
    } | {f"encoding of {name}": str(encoding) for name, encoding in encodings.items()}


def _on_levels(arrays: Mapping[str, dict[str, Any]]) -> tuple[tuple[str, bool], ...]:
    fields = {name: array for name, array in arrays.items() if len(array["shape"]) > 1}
    return tuple((name, "level" in fields[name]["dimension_names"]) for name in sorted(fields))
