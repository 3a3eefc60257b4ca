"""Copy complete forecasts from one store into another that keeps the same of them."""

from typing import Literal

from graphcast_batch.plan import Case
from graphcast_batch.stores.base import Store
from graphcast_batch.stores.store_kinds import flaws_of

Copying = Literal["copied", "present", "damaged"]
"""What became of a Case: it may be complete in the other store, or be made there by another process."""

_LEASE_SECONDS = 600.0
"""Longer than it takes to read and write one block of lead times."""


def copy_case(source: Store, target: Store, case: Case) -> Copying:
    """Copy the values of one Case, and what its record says of how it was made; a function to send to processes.

    Its files are compared with their checksums first, and nothing is copied if one is damaged.

    Args:
        source: a store in which the Case is complete, to as many steps or more.
        target: a store that was laid out for the Case, with the same variables, levels, points and encoding.
        case: the Case.

    Raises:
        StoreError: the values cannot be read or written, or the lease was lost.
    """
    lease = target.ledger.lease(case, _LEASE_SECONDS)
    if lease is None:
        return "present"
    try:
        if flaws_of(source, case.key):
            return "damaged"
        record = source.ledger.record(case.key, case.steps)
        assert record is not None, "a Case without flaws has a record"
        forecast = source.forecasts().isel(source.place_of(case))
        leads, size = target.kept.leads(case.hours), target.block_steps
        with target.attempt(case) as attempt:
            for first in range(0, leads, size):
                block = forecast.isel(prediction_timedelta=slice(first, min(first + size, leads)))
                attempt.write(first, {name: block[name].values for name in target.kept.variables})
                lease.renew()
            attempt.commit(
                lease=lease,
                seconds=record.seconds,
                device=record.device,
                worker=record.worker,
                attempts=record.attempts,
                details={**record.details, "host": record.host, "copied_from": str(source.path)},
            )
    finally:
        lease.release()
    return "copied"
