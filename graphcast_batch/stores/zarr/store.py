"""Lay out, extend and open a zarr store of forecasts, into which each Case is written as files of its own.

``xarray.open_zarr(path)`` gives the forecasts: variables in float32 over initial time, lead time, level, latitude and
longitude, NaN where nothing was written. The root's ``zarr.json`` holds the metadata of all arrays and is the only
file with metadata that is relied on: it is written last, so that a process that dies half-way leaves the store as it
was.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import JsonValue

from graphcast_batch.errors import StoreError, StoreMismatchError
from graphcast_batch.files.durable import drop_left_over, explained
from graphcast_batch.files.leases import FileLease
from graphcast_batch.files.staging import STAGING, alone, drop_abandoned
from graphcast_batch.members import Member
from graphcast_batch.plan import Case, case_key
from graphcast_batch.spec import TASKS, Task
from graphcast_batch.stores.base import NONE, OUTPUTS, Lease
from graphcast_batch.stores.layout import OutputGrid, Plan
from graphcast_batch.stores.time_axis import check_appended
from graphcast_batch.stores.zarr.attempts import ZarrAttempt
from graphcast_batch.stores.zarr.differences import differences_from
from graphcast_batch.stores.zarr.ledger import FileLedger
from graphcast_batch.stores.zarr.member_axis import NUMBER, members_in
from graphcast_batch.stores.zarr.rounding import keep_bits
from graphcast_batch.stores.zarr.shards import Encoding, Place, block_steps_of
from graphcast_batch.stores.zarr.store_layout import (
    LEDGER,
    RUN_CONFIG,
    arrays_of,
    extension_lock,
    grow,
    half_grown,
    identity_of,
    keep_config,
    lay_out,
    read_coordinates,
    read_root,
    unfinished,
)
from graphcast_batch.stores.zarr.store_path import check_place, is_laid_out


@dataclass(frozen=True, eq=False)
class ZarrStore:
    """The forecasts of one run and the ledger of its Cases, in one folder; see the port `Store`.

    Attributes:
        path: the folder, without symbolic links.
        root: metadata of the group, with those of all arrays.
        init_times: (time,) datetime64[h] initial times, in the order of the store.
        kept: what the store keeps of each forecast.
        members: the members of each initial time, by number; empty without an ensemble.
    """

    path: Path
    root: dict[str, Any]
    init_times: NDArray[np.datetime64]
    kept: OutputGrid
    members: tuple[Member, ...] = ()

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
        """Lay out the store of a plan, or open the one that is there, extended where the plan asks for more.

        Nothing that was written is moved, shrunk or rewritten. New initial times go to the end of the time axis, so
        they must be later than all that are there. Any number of drivers may call this at once.

        Args:
            path: the folder of the store.
            plan: the Cases that will be written, and their layout.
            identity: what the forecasts have in common, such as the checksum of the weights; kept in the store.
            provenance: root attributes of a new store; what is neither text nor number is kept as JSON text. A store
                that is extended keeps its own, and the record of each Case has what the Case was made by.
            config_text: config of the run; kept as ``run.yaml``.

        Raises:
            StoreMismatchError: the store that is there has another identity, grid, levels or variables, or an initial
                time is new and not later than all that it has.
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
            store.refuse_other(plan, identity)
            return store._extended(plan, identity, config_text)

    @staticmethod
    def check_place(path: Path) -> None:
        """Refuse a path at which there is no store and none can be laid out.

        Raises:
            StoreError: the path is something else, or lies below something that is not a folder.
        """
        with explained(f"looking for a place for {path}"):
            check_place(path)

    @staticmethod
    def exists(path: Path) -> bool:
        """Return whether a store was laid out at a path.

        Raises:
            StoreError: the path cannot be read.
        """
        with explained(f"looking for a store at {path}"):
            return is_laid_out(path)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a store that was laid out before.

        Raises:
            StoreError: there is no store at the path, or something else.
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
            members=members_in(coordinates),
        )

    def __post_init__(self) -> None:
        for name in self.variables:
            if (NUMBER in self._arrays[name]["dimension_names"]) != bool(self.members):
                raise StoreError(
                    f"{self.path}: {name} must have the dimension {NUMBER} just as the axis of members is there, but "
                    "one of them is missing; restore the root's zarr.json from a copy of the store"
                )
            chunks = self._arrays[name]["chunk_grid"]["configuration"]["chunk_shape"]
            assert chunks[: self.place_axes] == [1] * self.place_axes, (
                f"{self.path}: a shard of {name} belongs to several Cases"
            )

    @property
    def ledger(self) -> FileLedger:
        """The states of the Cases."""
        return FileLedger(self.path / LEDGER)

    @property
    def config_path(self) -> Path:
        """The file with the config text of the last run."""
        return self.path / RUN_CONFIG

    @property
    def attributes(self) -> dict[str, JsonValue]:
        """The root attributes of the store: what its first run was made by."""
        return dict(self.root["attributes"])

    @property
    def identity(self) -> dict[str, JsonValue]:
        """What all forecasts in the store have in common, such as the checksum of the weights."""
        return identity_of(self.root)

    @cached_property
    def only_scores(self) -> bool:
        """Whether the store keeps the scores of the forecasts only."""
        return self.identity.get(OUTPUTS) == NONE

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables, in ASCII order."""
        return self.kept.variables

    @property
    def block_steps(self) -> int:
        """How many lead times of a variable are one shard; set when the store was laid out, and never changed."""
        return block_steps_of(self._arrays[self.variables[0]])

    @property
    def encodings(self) -> dict[str, Encoding]:
        """The encoding of each variable.

        Raises:
            StoreError: an encoding is none that this program writes.
        """
        return {name: Encoding.of(self._arrays[name]) for name in self.variables}

    @cached_property
    def step_hours(self) -> int:
        """Length in hours of one step: of the task that the attributes hold, else of GraphCast."""
        task = self.root["attributes"].get("task")
        return (Task.model_validate_json(task) if isinstance(task, str) else TASKS["GraphCast"]).step_hours

    @property
    def most_steps(self) -> int:
        """Steps of the longest forecast that the store has room for."""
        return self.kept.lead_hours[-1] // self.step_hours

    def blocks_of(self, steps: int) -> int:
        """Return how many shards of each variable a forecast of so many steps has."""
        return 0 if self.only_scores else -(-self.kept.leads(self.step_hours * steps) // self.block_steps)

    @property
    def place_axes(self) -> int:
        """Number of axes of a place: that of the initial times, and with an ensemble that of its members."""
        return 2 if self.members else 1

    @cached_property
    def places(self) -> dict[str, Place]:
        """The place of each Case that the store was laid out for, by its key."""
        return {self.key_at(place): place for place in self._all_places()}

    def key_at(self, place: Place) -> str:
        """Return the key of the Case at a place, also where damaged axes hold it twice."""
        return case_key(self.init_times[place[0]], *place[1:])

    def cases(self, steps: int) -> list[Case]:
        """Return the Cases of so many steps at all initial times, and with members of all of them, in their order."""
        hours, times = self.step_hours, self.init_times
        return [Case(times[index], steps, hours, "", *number) for index, *number in self._all_places()]

    def place_of(self, case: Case) -> dict[str, int]:
        """Return the place of a Case, by dimension; see the port.

        Raises:
            StoreError: the store was not laid out for the Case.
        """
        place = self.places.get(case.key)
        if place is None or case.hours not in self.kept.lead_hours:
            members = f" with {len(self.members)} members" if self.members else ""
            raise StoreError(
                f"{case.key}: {self.path} must be laid out for it with {case.steps} steps, but holds "
                f"{len(self.kept.lead_hours)} lead times up to {self.kept.lead_hours[-1]} h of {self.init_times.size} "
                f"initial times{members}; extend it first"
            )
        return dict(zip(("time", NUMBER), place, strict=False))

    def attempt(self, case: Case) -> ZarrAttempt:
        """Return an attempt at writing a Case, to be used as a context.

        Raises:
            StoreError: the store was not laid out for the Case.
        """
        return ZarrAttempt(self, case)

    def as_stored(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return values as they will be read from the store once they were written.

        Args:
            name: name of the variable.
            values: float32 of any shape, contiguous.

        Returns:
            The values themselves, or values of that shape with as many bits of the mantissa as the store keeps.
        """
        bits = self._keep_bits[name]
        return values if bits is None else keep_bits(values, bits)

    def forecasts(self) -> xr.Dataset:
        """Open the forecasts, whose values are read when they are asked for.

        Returns:
            float32 (time, [number], prediction_timedelta, [level], latitude, longitude), NaN where nothing was
            written.
        """
        opened: xr.Dataset = xr.open_zarr(self.path, chunks=None, consolidated=True)
        return opened

    def sweep(self) -> list[Path]:
        """Remove what dead attempts left behind: attempts of this host at once, those of other hosts after a day.

        Returns:
            What was removed.
        """
        with explained(f"sweeping {self.path}"):
            left = [path for path in unfinished(self.path) if drop_left_over(path)]
            return drop_abandoned(self.path / STAGING) + left + self.ledger.sweep()

    def extension_lock(self) -> AbstractContextManager[FileLease]:
        """Return a context in which no other process extends the store, entered once no other process holds it.

        Raises:
            StoreError: another process keeps the lock.
        """
        return extension_lock(self.path)

    def forget(self, key: str, lease: Lease) -> None:
        """Record a Case as missing, however many steps of it were complete.

        Args:
            key: key of the Case.
            lease: the lease on the Case.

        Raises:
            StoreError: the lease was lost, or the store cannot be written.
        """
        with explained(f"{key}: forgetting it in {self.path}"), alone(self.path / STAGING, key, lease) as staging:
            self.ledger.forget(key, staging)

    def drop_values(self, key: str, lease: Lease) -> None:
        """Remove the values of a complete Case, which stays complete; see the port.

        Raises:
            StoreError: the Case is not complete, the lease was lost, or the store cannot be written.
        """
        with explained(f"{key}: dropping its values in {self.path}"), alone(self.path / STAGING, key, lease) as staging:
            record = self.ledger.note_drop(key)
            if record:
                for file in record.files:
                    staging.take_away(self.path / file)
                self.ledger.end_drop(record)

    def _all_places(self) -> Iterator[Place]:
        sizes = (self.init_times.size, len(self.members))[: self.place_axes]
        return product(*map(range, sizes))

    @property
    def _arrays(self) -> dict[str, dict[str, Any]]:
        return arrays_of(self.root)

    @cached_property
    def _keep_bits(self) -> dict[str, int | None]:
        return {name: encoding.keep_bits for name, encoding in self.encodings.items()}

    def refuse_other(self, plan: Plan, identity: Mapping[str, JsonValue]) -> None:
        """Refuse to write forecasts into the store that differ from those that are in it; see the port.

        Raises:
            StoreMismatchError: they differ; the message names every difference.
        """
        differences = differences_from(self, plan, identity)
        if differences:
            raise StoreMismatchError(
                f"{self.path} was laid out for other forecasts:\n" + "\n".join(differences) + "\n"
                "choose another `store` path, or change the config to agree with the store"
            )

    def _extended(self, plan: Plan, identity: Mapping[str, JsonValue], config_text: str) -> Self:
        if self._holds(plan):
            keep_config(self.path, config_text)
            return self
        with extension_lock(self.path) as lock:
            store = self.open(self.path)
            # Another driver may have added other lead times since this one looked.
            store.refuse_other(plan, identity)
            store._grow(plan, lock)
            keep_config(self.path, config_text)
        return self.open(self.path)

    def _holds(self, plan: Plan) -> bool:
        """Return whether every Case is on the time axis, and no extension broke off."""
        longer = len(plan.layout.kept.lead_hours) > len(self.kept.lead_hours)
        longer |= len(plan.members) > len(self.members)
        placed = not longer and all(case.key in self.places for case in plan.cases)
        return placed and not half_grown(self.path, self.root)

    def _grow(self, plan: Plan, lock: FileLease) -> None:
        if not self.only_scores:
            check_appended(self.path, self.init_times, plan)
        known = set(self.init_times)
        new = sorted({case.init_time for case in plan.cases} - known)
        init_times = np.concatenate([self.init_times, np.array(new, "datetime64[h]")])
        lead_hours = max(self.kept.lead_hours, plan.layout.kept.lead_hours, key=len)
        members = max(self.members, plan.members, key=len)
        grow(self.path, self.root, init_times, members, lead_hours, lock)


def _on_levels(arrays: Mapping[str, dict[str, Any]]) -> tuple[tuple[str, bool], ...]:
    fields = {name: array for name, array in arrays.items() if len(array["shape"]) > 1}
    return tuple((name, "level" in fields[name]["dimension_names"]) for name in sorted(fields))
