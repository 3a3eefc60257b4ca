"""Read the forecasts of a store for scoring."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import xarray as xr

from graphcast_batch.evaluation.scoring_setup import Fields
from graphcast_batch.evaluation.stored_members import StoredMember
from graphcast_batch.plan import Case
from graphcast_batch.stores.base import Store
from graphcast_batch.stores.store_kinds import open_store


@dataclass(frozen=True, eq=False)
class OpenedStore:
    """A store that is opened once, when it is first read, for all members in it.

    Attributes:
        path: folder of the store.
    """

    path: Path

    @cached_property
    def forecasts(self) -> tuple[Store, xr.Dataset]:
        """The store, and its forecasts."""
        store = open_store(self.path)
        return store, store.forecasts()


@dataclass(frozen=True, eq=False)
class StoredForecasts:
    """Reader of the forecasts of one member.

    Attributes:
        of: the member.
        opened: the store of the member.
    """

    of: StoredMember
    opened: OpenedStore

    def fields(self, case: Case, names: Sequence[str], lead_hours: Sequence[int], levels: Sequence[int]) -> Fields:
        """Read variables of one Case; NaN where nothing was written."""
        store, opened = self.opened.forecasts
        kept = store.kept
        leads = _as_slice([kept.lead_hours.index(hours + self.of.lag_hours) for hours in lead_hours])
        place = store.place_of(self.of.case_of(case, max(lead_hours)))
        here = opened[list(names)].isel(place | {"prediction_timedelta": leads})
        places = _as_slice([kept.levels.index(level) for level in levels])
        return {name: here[name].isel(level=places, missing_dims="ignore").values for name in names}


def readers_of(members: Sequence[StoredMember]) -> list[StoredForecasts]:
    """Return a reader of each member; those in one store share what is opened."""
    opened = {member.path: OpenedStore(member.path) for member in members}
    return [StoredForecasts(member, opened[member.path]) for member in members]


def _as_slice(indices: Sequence[int]) -> slice | list[int]:
    """Convert consecutive indices to a slice, which is read several times faster than a list of them."""
    consecutive = list(indices) == list(range(indices[0], indices[0] + len(indices))) if indices else False
    return slice(indices[0], indices[-1] + 1) if consecutive else list(indices)
