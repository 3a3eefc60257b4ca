"""Copy complete forecasts from one store into another that keeps the same of them."""

from graphcast_batch.plan import Case
from graphcast_batch.stores.base import Store

_LEASE_SECONDS = 600.0
"""Longer than it takes to read and write one block of lead times."""


def copy_case(source: Store, target: Store, case: Case) -> bool:
    """Copy the values of one Case, and what its record says of how it was made; a function to send to processes.

    Args:
        source: a store in which the Case is complete, to as many steps or more.
        target: a store that was laid out for the Case, with the same variables, levels, points and encoding.
        case: the Case.

    Returns:
        Whether it was copied; not if it is complete in ``target``, or another process has its lease.

    Raises:
        StoreError: the values cannot be read or written, or the lease was lost.
    """
    record = source.ledger.record(case.key, case.steps)
    lease = target.ledger.lease(case, _LEASE_SECONDS) if record else None
    if record is None or lease is None:
        return False
    try:
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
    return True
