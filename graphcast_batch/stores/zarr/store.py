"""A Plan becomes one zarr store, and the frames of its Cases become files in it, one whole Case at a time.

``xarray.open_zarr(path)`` gives the forecasts: variables in float32 over initial time, lead time, level, latitude and
longitude, NaN where nothing was written. The root's ``zarr.json`` holds the metadata of all arrays and is the only
file that is believed: it is written last, so that whatever dies half-way leaves the store as it was.
"""

import json
import os
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import JsonValue

from graphcast_batch.errors import StoreError, StoreMismatchError
from graphcast_batch.files.durable import drop_left_over, explained
from graphcast_batch.files.leases import Lease, drop_abandoned
from graphcast_batch.files.staging import OWNER, STAGING
from graphcast_batch.plan import Case, Layout, OutputGrid, Plan
from graphcast_batch.spec import TASKS, Task
from graphcast_batch.stores.zarr.attempts import Attempt
from graphcast_batch.stores.zarr.ledger import Ledger
from graphcast_batch.stores.zarr.shards import Encoding
from graphcast_batch.stores.zarr.store_layout import (
    LEDGER,
    arrays_of,
    grow,
    growing,
    half_grown,
    identity_of,
    keep_config,
    lay_out,
    read_coordinates,
    read_root,
    unfinished,
)
from graphcast_batch.stores.zarr.store_path import check_place, is_laid_out

OUTPUTS: Final = "outputs"
"""The part of a store's identity that tells what it keeps of forecasts, where that is not their values."""
NONE: Final = "none"
"""Nothing but scores."""


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
    kept: OutputGrid

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
        cls.check_place(path)
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
    def check_place(path: Path) -> None:
        """Refuses a path where no store is and none can be made.

        Raises:
            StoreError: it is something else, or lies below something that is no folder.
        """
        with explained(f"looking for a place for {path}"):
            check_place(path)

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
            kept=OutputGrid(
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

    @cached_property
    def step_hours(self) -> int:
        """Hours of one of the model's steps: those of the task that the attributes name, else GraphCast's."""
        task = self.root["attributes"].get("task")
        return (Task.model_validate_json(task) if isinstance(task, str) else TASKS["GraphCast"]).step_hours

    @property
    def most_steps(self) -> int:
        """Steps of the longest forecast that there is room for."""
        return self.kept.lead_hours[-1] // self.step_hours

    def blocks_of(self, steps: int) -> int:
        """How many shards of each variable a forecast of so many steps has."""
        return 0 if self.only_scores else -(-self.kept.leads(self.step_hours * steps) // self.block_steps)

    def index_of(self, case: Case) -> int:
        """Where a Case stands on the time axis.

        Raises:
            StoreError: the store was not laid out for it.
        """
        index = self._index.get(case.key)
        if index is None or case.hours not in self.kept.lead_hours:
            raise StoreError(
                f"{case.key}: {self.path} must be laid out for it with {case.steps} steps, but holds "
                f"{len(self.kept.lead_hours)} lead times up to {self.kept.lead_hours[-1]} h of {len(self._index)} "
                "initial times; extend it first"
            )
        return index

    def attempt(self, case: Case) -> Attempt:
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
            left = [folder for folder in folders if drop_abandoned(folder, folder / OWNER)]
            left += [path for path in unfinished(self.path) if drop_left_over(path)]
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

    def _grow(self, plan: Plan, lock: Lease) -> None:
        new = sorted(case.init_time for case in plan.cases if case.key not in self._index)
        init_times = np.concatenate([self.init_times, np.array(new, "datetime64[h]")])
        lead_hours = max(self.kept.lead_hours, plan.layout.kept.lead_hours, key=len)
        grow(self.path, self.root, init_times, lead_hours, lock)


def _described(kept: OutputGrid, encodings: Mapping[str, Encoding]) -> dict[str, Any]:
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
