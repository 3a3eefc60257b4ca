"""Hold the leases of the Cases that a driver has handed out: take, renew and release them."""

import time
from collections import OrderedDict
from contextlib import suppress
from typing import Final

from graphcast_batch.cluster.run_ledger import DispatchLedger
from graphcast_batch.cluster.store_refusals import RefusalTolerance
from graphcast_batch.errors import StoreError
from graphcast_batch.plan import Case
from graphcast_batch.stores.base import Lease

_LEASE_SECONDS: Final = 120.0
"""How long a lease lasts that is not renewed."""
_RENEW_SECONDS: Final = 10.0
"""How often a lease is renewed."""


class HeldLeases:
    """The leases of the Cases in progress, one for each.

    Args:
        ledger: grants the leases.
        tolerance: tolerates a store that refuses to renew or release a lease for a while.
    """

    def __init__(self, ledger: DispatchLedger, tolerance: RefusalTolerance) -> None:
        self._ledger = ledger
        self._tolerance = tolerance
        # By the key of a Case, the one first that has not been renewed for longest.
        self._leases: OrderedDict[str, tuple[float, Lease]] = OrderedDict()

    def take(self, case: Case) -> Lease | None:
        """Take the lease of a Case; return None if another driver holds it, or the Case is complete or failed.

        Raises:
            StoreError: the store refused.
        """
        lease = self._ledger.lease(case, _LEASE_SECONDS)
        self._tolerance.succeeded()
        if lease is not None:
            self._leases[case.key] = time.monotonic(), lease
        return lease

    def is_held(self, case: Case) -> bool:
        """Return whether the lease of a Case in progress has not been lost; True if the store refuses to answer."""
        with self._tolerance.tolerating():
            return self._leases[case.key][1].held()
        return True

    def renew(self) -> None:
        """Renew the leases that are due, unless the store has just refused something."""
        now = time.monotonic()
        while self._leases and not self._tolerance.is_pausing(now):
            key, (since, lease) = next(iter(self._leases.items()))
            if now - since < _RENEW_SECONDS:
                return
            self._leases[key] = now, lease
            self._leases.move_to_end(key)
            with self._tolerance.tolerating():
                lease.renew()

    def release(self, case: Case) -> None:
        """Release the lease of a Case; one that the store refuses to release expires, since it is not renewed."""
        _, lease = self._leases.pop(case.key)
        with self._tolerance.tolerating():
            lease.release()

    def release_all(self) -> None:
        """Release all leases at the end of a run, whatever the store refuses: it must not hide what ended the run."""
        for _, lease in self._leases.values():
            with suppress(StoreError):
                lease.release()
