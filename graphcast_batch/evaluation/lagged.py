"""Make a lagged ensemble of stored forecasts: those valid at the same times from earlier initial times.

Hoffman and Kalnay 1983, https://doi.org/10.1111/j.1600-0870.1983.tb00189.x. Its member with the lag h is, at the lead
time L, the forecast from h earlier at the lead time L + h. The forecasts are read where they are stored.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation.stored_members import StoredMember, members_of
from graphcast_batch.stores.base import Store
from graphcast_batch.variables import HOUR

LAGGED: Final = "lagged"
"""Name of the scores of a lagged ensemble, in the store of its forecasts."""
_MOST_NAMED: Final = 12
"""The most values that a message lists."""


def lagged_members(store: Store, lags: Sequence[int]) -> tuple[StoredMember, ...]:
    """Return the members of a lagged ensemble: the forecast without a lag, then one for each lag.

    In a store of an ensemble they are the forecasts of its first member.

    Args:
        store: of the forecasts.
        lags: hours, each above 0 and named once.

    Raises:
        EvaluationError: the store keeps no forecasts, or lacks the initial or lead times that a lag needs.
    """
    if store.only_scores:
        raise EvaluationError(
            f"a lagged ensemble is made of stored forecasts, but {store.path} keeps only scores (outputs: none); leave "
            "out --lagged and scores.lagged, or run again into a store that keeps forecasts"
        )
    for lag in lags:
        expected = _expected(store, lag)
        if expected:
            raise EvaluationError(f"a lag of an ensemble must be {expected}, but {lag} h is not; {_hint(store)}")
    if not _leads(store, lags):
        raise EvaluationError(
            f"a lagged ensemble needs a lead time of which the store also keeps those that are longer by "
            f"{_listed(lags)}, but of the lead times {_listed(store.kept.lead_hours)} there is none; leave out some of "
            "the lags"
        )
    first = members_of(store)[0]
    return tuple(StoredMember(first.path, first.number, lag) for lag in (0, *lags))


def _expected(store: Store, lag: int) -> str | None:
    """Return what a lag of a store's forecasts should be, in words; None if it is that."""
    kept = store.kept.lead_hours
    if lag % store.step_hours:
        return f"a multiple of {store.step_hours} h, the model's step"
    if lag > kept[-1] - kept[0]:
        return f"shorter than the forecasts, of which {store.path} keeps lead times from {kept[0]} to {kept[-1]} h"
    if not _leads(store, (lag,)):
        return f"the difference of two lead times that {store.path} keeps, {_listed(kept)}"
    times = store.init_times
    if not np.isin(times - lag * HOUR, times).any():
        return f"the difference of two initial times in {store.path}"
    return None


def _hint(store: Store) -> str:
    """Return an advice: the lags that are possible."""
    step = store.step_hours
    possible = [lag for lag in range(step, store.kept.lead_hours[-1], step) if _expected(store, lag) is None]
    return f"choose some of {_listed(possible)}" if possible else "no lag is possible with this store, leave it out"


def _leads(store: Store, lags: Sequence[int]) -> list[int]:
    """Return the lead times, h, of which the store keeps those that are longer by each lag too."""
    kept = set(store.kept.lead_hours)
    return [hours for hours in store.kept.lead_hours if all(hours + lag in kept for lag in lags)]


def _listed(hours: Sequence[int]) -> str:
    named = ", ".join(map(str, hours[:_MOST_NAMED]))
    return f"{named} ... {hours[-1]} h" if len(hours) > _MOST_NAMED else f"{named} h"
