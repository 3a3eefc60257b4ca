"""Lay out and open stores of any kind: the one table of the kinds of stores, and functions that choose from it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from pydantic import JsonValue

from graphcast_batch.stores.base import CaseExecutor, Store
from graphcast_batch.stores.flaws import CasesVerification, Flaw, ForecastRepair
from graphcast_batch.stores.layout import Plan
from graphcast_batch.stores.zarr.zarr_kind import ZarrKind


class StoreKind(Protocol):
    """One way to keep forecasts: how stores of this kind are laid out, opened, verified and repaired."""

    def exists(self, path: Path) -> bool:
        """Return whether a store of this kind is at a path.

        Raises:
            StoreError: the path cannot be read.
        """

    def check_place(self, path: Path) -> None:
        """Refuse a path at which there is no store and none can be laid out.

        Raises:
            StoreError: the path is something else, or lies below something that is not a folder.
        """

    def create_or_extend(
        self,
        path: Path,
        plan: Plan,
        *,
        identity: Mapping[str, JsonValue],
        provenance: Mapping[str, JsonValue],
        config_text: str,
    ) -> Store:
        """Lay out the store of a plan, or open the one that is there, extended where the plan asks for more.

        Nothing that was written is moved, shrunk or rewritten. Any number of drivers may call this at once.

        Args:
            path: the folder of the store.
            plan: the Cases that will be written, and their layout.
            identity: what the forecasts have in common, such as the checksum of the weights; kept in the store.
            provenance: root attributes of a new store. A store that is extended keeps its own.
            config_text: config of the run; kept in the store.

        Raises:
            StoreMismatchError: the store that is there has another identity, grid, levels or variables, or an initial
                time is new and not later than all that it has.
            StoreError: the path is something else, or cannot be written.
        """

    def open(self, path: Path) -> Store:
        """Open a store that was laid out before.

        Raises:
            StoreError: there is no store at the path, or something else.
        """

    def verify(self, path: Path, *, deep: bool, executor: CaseExecutor) -> CasesVerification:
        """Compare the forecasts of a store with their records; write nothing that others can see.

        Other processes may be writing into the store.

        Args:
            path: the folder of the store.
            deep: read every file and compare its checksum; else compare names and sizes only.
            executor: runs the reading of files, if ``deep``.

        Raises:
            StoreError: there is no store, or it cannot be opened or read.
            GridError: the latitudes or longitudes of the store are damaged.
        """

    def flaws_of(self, store: Store, key: str) -> Sequence[Flaw]:
        """Compare every file of one complete Case with its record, by checksum.

        Args:
            store: a store of this kind.
            key: key of the Case.

        Raises:
            StoreError: the Case is not complete, or the store cannot be read.
        """

    def repair(self, path: Path, flaws: Sequence[Flaw]) -> ForecastRepair:
        """Forget damaged Cases, so that the next run makes them again, and remove unexpected files.

        Other processes may be writing into the store. A repair that broke off can be repeated.

        Args:
            path: the folder of the store.
            flaws: what `verify` found.

        Raises:
            StoreError: something cannot be removed, or coordinates are damaged, so that the place of no Case is known.
        """


STORES: Final[Mapping[str, StoreKind]] = {"zarr": ZarrKind()}
"""The kinds of stores by name; the first is that of new stores."""


def kind_at(path: Path) -> StoreKind:
    """Return the kind of the store at a path, and where there is no store the kind of new stores.

    Raises:
        StoreError: the path cannot be read.
    """
    first, *others = STORES.values()
    return next((kind for kind in others if kind.exists(path)), first)


def store_exists(path: Path) -> bool:
    """Return whether a store is at a path.

    Raises:
        StoreError: the path cannot be read.
    """
    return any(kind.exists(path) for kind in STORES.values())


def open_store(path: Path) -> Store:
    """Open the store at a path.

    Raises:
        StoreError: there is no store at the path, or something else.
        GridError: the latitudes or longitudes of the store are damaged.
    """
    return kind_at(path).open(path)


def flaws_of(store: Store, key: str) -> Sequence[Flaw]:
    """Compare every file of one complete Case of a store with its record, by checksum.

    Raises:
        StoreError: the Case is not complete, or the store cannot be read.
    """
    return kind_at(store.path).flaws_of(store, key)


def check_place(path: Path) -> None:
    """Refuse a path at which there is no store and none can be laid out.

    Raises:
        StoreError: the path is something else, or lies below something that is not a folder.
    """
    kind_at(path).check_place(path)


def create_or_extend(
    path: Path,
    plan: Plan,
    *,
    identity: Mapping[str, JsonValue],
    provenance: Mapping[str, JsonValue],
    config_text: str,
) -> Store:
    """Lay out the store of a plan, or open the one that is there, extended where the plan asks for more.

    See `StoreKind.create_or_extend` for what it promises.

    Args:
        path: the folder of the store.
        plan: the Cases that will be written, and their layout.
        identity: what the forecasts have in common, such as the checksum of the weights; kept in the store.
        provenance: root attributes of a new store. A store that is extended keeps its own.
        config_text: config of the run; kept in the store.

    Raises:
        StoreMismatchError: the store that is there has another identity, grid, levels or variables, or an initial time
            is new and not later than all that it has.
        StoreError: the path is something else, or cannot be written.
    """
    return kind_at(path).create_or_extend(path, plan, identity=identity, provenance=provenance, config_text=config_text)
