"""Keep the states of all Cases of a run in the ledgers of its two stores: of the members, and of their ensembles."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from graphcast_batch.plan import Case, parse_key
from graphcast_batch.stores.base import Lease, Ledger
from graphcast_batch.stores.case_records import CaseFailure, CaseState


class DispatchLedger(Protocol):
    """What a dispatch loop uses of a ledger; see the port `Ledger`."""

    def states(self, cases: Iterable[Case]) -> dict[str, CaseState]:
        """Return the state of each Case by its key."""

    def lease(self, case: Case, lease_seconds: float) -> Lease | None:
        """Lease a Case to this process; return None if it is complete, or leased by a live process."""

    def fail(self, failure: CaseFailure) -> None:
        """Record that a Case failed."""

    def free_failed(self, keys: Collection[str] | None = None) -> list[str]:
        """Forget the failures of these Cases, or of all."""


@dataclass(frozen=True)
class RunLedger:
    """The ledger of a run with ensembles: a Case without a member is an ensemble.

    Attributes:
        members: ledger of the forecasts.
        ensembles: ledger of what is computed of all members together.
    """

    members: Ledger
    ensembles: Ledger

    def states(self, cases: Iterable[Case]) -> dict[str, CaseState]:
        """Return the state of each Case by its key."""
        listed = list(cases)
        members, ensembles = ([case for case in listed if (case.member is None) is each] for each in (False, True))
        return self.members.states(members) | self.ensembles.states(ensembles)

    def lease(self, case: Case, lease_seconds: float) -> Lease | None:
        """Lease a Case to this process; return None if it is complete, or leased by a live process."""
        return self._of(case.key).lease(case, lease_seconds)

    def fail(self, failure: CaseFailure) -> None:
        """Record that a Case failed."""
        self._of(failure.key).fail(failure)

    def free_failed(self, keys: Collection[str] | None = None) -> list[str]:
        """Forget the failures of these Cases, or of all."""
        found = list[str]()
        for ledger in (self.members, self.ensembles):
            of = None if keys is None else [key for key in keys if self._of(key) is ledger]
            found += ledger.free_failed(of)
        return sorted(found)

    def _of(self, key: str) -> Ledger:
        return self.ensembles if parse_key(key)[1] is None else self.members
