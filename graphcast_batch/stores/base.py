"""Define the port between a run and the store of its forecasts: what every kind of store promises its callers.

A `Store` holds the forecasts of a run, an `Attempt` writes one Case into it, and a `Ledger` keeps the state of each
Case. `store_kinds` has the table of the kinds of stores, and how stores of one kind are laid out and opened.
tests/stores/test_store_contract.py tries the promises on each of them.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import JsonValue

from graphcast_batch.members import Member
from graphcast_batch.plan import Case
from graphcast_batch.stores.case_records import CaseFailure, CaseRecord, CaseState
from graphcast_batch.stores.layout import OutputGrid, Plan

OUTPUTS: Final = "outputs"
"""Key of a store's identity that says which part of the forecasts the store keeps, if not their values."""
NONE: Final = "none"
"""Value of the key `OUTPUTS` for a store that keeps the scores of the forecasts only."""
SUBMITTED: Final = "slurm"
"""Folder, in that of a store, with the jobs submitted for the store, which may not be laid out yet."""

OF_ENSEMBLES: Final = "ensemble"
"""Folder, in that of a store with members, with the store of what is computed of all members together."""

CaseExecutor = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], Iterable[Any]]
"""Calls a function with each tuple of arguments, maybe in other processes.

It gives the results in the order of the arguments, and for a call that failed its exception. It may stop early.
"""


class Lease(Protocol):
    """The right of one process to do what only one process may do at a time, such as to write a Case.

    It lasts while its owner renews it; a lease whose owner died or fell silent expires, and others may take it. A lease
    can be pickled and renewed or released in another process.
    """

    def held(self) -> bool:
        """Return whether the lease is still its owner's.

        Raises:
            StoreError: the store cannot be read.
        """

    def renew(self) -> bool:
        """Prolong the lease; return False if it was lost to another process.

        Raises:
            StoreError: the store cannot be read or written.
        """

    def release(self) -> None:
        """Give the lease back, if it is still its owner's.

        Raises:
            StoreError: the store cannot be written.
        """


class Ledger(Protocol):
    """The states of the Cases of one store, shared by any number of processes on any number of hosts."""

    def states(self, cases: Iterable[Case]) -> dict[str, CaseState]:
        """Return the state of each Case by its key.

        A Case of which fewer steps are complete than it asks for is missing, or whatever else holds for it. A Case
        whose values were dropped once they had served is complete.

        Raises:
            StoreError: the ledger cannot be read.
        """

    def complete(self, cases: Sequence[Case]) -> list[Case]:
        """Return those Cases that are complete and whose values are in the store, in their order.

        Raises:
            StoreError: the ledger cannot be read.
        """

    def complete_steps(self) -> dict[str, int]:
        """Return how many steps of each Case are complete, by the key of the Case; not of those that were dropped.

        Raises:
            StoreError: the ledger cannot be read.
        """

    def dropped_steps(self) -> dict[str, int]:
        """Return how many steps were complete of each Case whose values were dropped since, by the key of the Case.

        Raises:
            StoreError: the ledger cannot be read.
        """

    def lease(self, case: Case, lease_seconds: float) -> Lease | None:
        """Lease a Case to this process; return None if it is complete, or leased by a live process.

        Two processes never hold the lease of one Case at once. A lease that was not renewed for its own
        ``lease_seconds``, or whose owner is known to be dead, is replaced.

        Args:
            case: the Case.
            lease_seconds: how long the lease lasts without being renewed.

        Raises:
            StoreError: the ledger cannot be written.
        """

    def hold(self, key: str, lease_seconds: float) -> Lease | None:
        """Lease a Case, complete or not, to this process; return None if it is leased by a live process.

        Raises:
            StoreError: the ledger cannot be written.
        """

    def fail(self, failure: CaseFailure) -> None:
        """Record that a Case failed, so that no run tries it again until it is freed.

        Raises:
            StoreError: the ledger cannot be written.
        """

    def free_failed(self, keys: Collection[str] | None = None) -> list[str]:
        """Forget the failures of these Cases, or of all, so that the next run tries them again.

        Returns:
            Keys of the Cases that were freed, ascending.

        Raises:
            StoreError: the ledger cannot be written.
        """

    def failure(self, key: str) -> CaseFailure | None:
        """Return why a Case failed; None if it did not fail. A damaged entry gives a failure that says so.

        Raises:
            StoreError: the ledger cannot be read.
        """

    def record(self, key: str, steps: int = 1) -> CaseRecord | None:
        """Return the longest record of a Case that is complete to at least so many steps, or None.

        Raises:
            StoreError: the record is damaged, or cannot be read.
        """

    def record_of(self, key: str, steps: int) -> CaseRecord | None:
        """Return the record of a Case that is complete to exactly so many steps, or None.

        Raises:
            StoreError: the record is damaged, or cannot be read.
        """


class Attempt(Protocol):
    """One try at writing a Case, to be used as a context.

    Nothing that it writes can be read from the store before `commit`, and an attempt that is not committed leaves
    nothing behind that can be read: the Case stays NaN, or as long as it was.
    """

    def __enter__(self) -> Self:
        """Begin to write.

        Raises:
            StoreError: the store cannot be written.
        """

    def __exit__(self, *_: object) -> None:
        """Drop whatever was not committed."""

    def write(self, first: int, frames: Mapping[str, NDArray[np.float32]]) -> None:
        """Write some lead times of every variable; see `write_variable`.

        Args:
            first: the first of the lead times, counted from 0 among those that the store keeps.
            frames: by variable, float32 (k, [level], latitude, longitude) in the units of the variable, at the points
                and levels that the store keeps.

        Raises:
            StoreError: the frames do not fit, or cannot be written.
        """

    def write_variable(self, name: str, first: int, values: NDArray[np.float32]) -> None:
        """Write some lead times of one variable. Several threads may write different variables at once.

        Args:
            name: name of the variable.
            first: the first of the lead times, counted from 0 among those that the store keeps. The lead times of a
                variable are written in order, each of them once.
            values: float32 (k, [level], latitude, longitude) in the units of the variable, at the points and levels
                that the store keeps.

        Raises:
            StoreError: the values do not fit, do not come in order, or cannot be written.
        """

    def commit(
        self,
        *,
        lease: Lease | None,
        seconds: Mapping[str, float],
        device: str,
        worker: str,
        attempts: int,
        details: Mapping[str, JsonValue],
    ) -> CaseRecord:
        """Put the Case into the store, and record it as complete: once, and in one step for whoever asks the ledger.

        If the Case is complete already, to as many steps or more, nothing is changed. A longer forecast replaces a
        shorter one of the same Case.

        Args:
            lease: the lease on the Case; without one, the caller knows that nobody else works on the Case.
            seconds: time spent, by stage.
            device: what the forecast was computed on.
            worker: name of the worker that made the forecast.
            attempts: how many attempts the Case took, this one included.
            details: whatever else is to be kept in the record.

        Returns:
            The record that stands: an earlier one if the Case was complete already.

        Raises:
            StoreError: lead times were not written, the lease was lost, or the store cannot be written.
        """


class Store(Protocol):
    """The forecasts of one run, with the ledger of its Cases.

    Each Case is written exactly once, by whichever of any number of drivers has its lease, and no two Cases share what
    has to be written in one piece. What was never written is NaN. A store can be pickled.
    """

    @property
    def path(self) -> Path:
        """The folder of the store, absolute and without symbolic links.

        Beside the forecasts it may hold folders of others: scores, figures, log, statistics and `SUBMITTED`.
        """

    @property
    def config_path(self) -> Path:
        """The file with the config text of the last run."""

    @property
    def attributes(self) -> Mapping[str, JsonValue]:
        """The root attributes of the store: what its first run was made by."""

    @property
    def identity(self) -> dict[str, JsonValue]:
        """What all forecasts in the store have in common, such as the checksum of the weights."""

    @property
    def only_scores(self) -> bool:
        """Whether the store keeps the scores of the forecasts only; then no values are written."""

    @property
    def init_times(self) -> NDArray[np.datetime64]:
        """(time,) datetime64[h] initial times, in the order of the store."""

    @property
    def kept(self) -> OutputGrid:
        """The variables, levels, lead times and points that the store keeps of each forecast."""

    @property
    def step_hours(self) -> int:
        """Length in hours of one step of the model that made the forecasts."""

    @property
    def block_steps(self) -> int:
        """How many lead times of a variable are best written and read at once."""

    @property
    def ledger(self) -> Ledger:
        """The states of the Cases."""

    @property
    def members(self) -> tuple[Member, ...]:
        """The members that the store has room for at each initial time, by number; empty without an ensemble."""

    def cases(self, steps: int) -> list[Case]:
        """Return the Cases of so many steps at all initial times, and with members of all of them, in their order."""

    def place_of(self, case: Case) -> dict[str, int]:
        """Return the place of a Case, by dimension: its index along ``time``, and with members that along ``number``.

        Raises:
            StoreError: the store was not laid out for the Case.
        """

    def attempt(self, case: Case) -> Attempt:
        """Return an attempt at writing a Case, to be used as a context.

        Raises:
            StoreError: the store was not laid out for the Case.
        """

    def as_stored(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return values as they will be read from the store once they were written.

        Args:
            name: name of the variable.
            values: float32 of any shape, contiguous.

        Returns:
            The values themselves, or values of that shape with as many bits of the mantissa as the store keeps.
        """

    def forecasts(self) -> xr.Dataset:
        """Open the forecasts, whose values are read when they are asked for.

        Returns:
            float32 (time, [number], prediction_timedelta, [level], latitude, longitude), NaN where nothing was
            written. Coordinates along ``number`` say what each member is.
        """

    def refuse_other(self, plan: Plan, identity: Mapping[str, JsonValue]) -> None:
        """Refuse to write forecasts into the store that differ from those that are in it.

        More initial times, lead times and members do not count as differences, nor do fewer initial or lead times.

        Args:
            plan: the layout and the members of the forecasts that are to be written.
            identity: identity of the forecasts that are to be written.

        Raises:
            StoreMismatchError: they differ; the message names every difference.
        """

    def extension_lock(self) -> AbstractContextManager[Lease]:
        """Return a context in which no other process extends the store, entered once no other process holds it.

        Raises:
            StoreError: another process keeps the lock.
        """

    def forget(self, key: str, lease: Lease) -> None:
        """Record a Case as missing, however many steps of it were complete.

        Args:
            key: key of the Case.
            lease: the lease on the Case.

        Raises:
            StoreError: the lease was lost, or the store cannot be written.
        """

    def drop_values(self, key: str, lease: Lease) -> None:
        """Remove the values of a complete Case, which stays complete; if this breaks off, it can be repeated.

        Args:
            key: key of the Case.
            lease: the lease on the Case.

        Raises:
            StoreError: the Case is not complete, the lease was lost, or the store cannot be written.
        """

    def sweep(self) -> list[Path]:
        """Remove what dead attempts left behind: attempts of this host at once, those of other hosts after a day.

        Returns:
            What was removed.

        Raises:
            StoreError: the store cannot be read.
        """
