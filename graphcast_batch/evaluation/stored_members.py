"""Find the forecasts that belong to an ensemble: members of one store or of several, and forecasts from before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from graphcast_batch.plan import Case, case_key, parse_key
from graphcast_batch.stores.base import Store
from graphcast_batch.stores.store_kinds import open_store
from graphcast_batch.variables import HOUR


@dataclass(frozen=True)
class StoredMember:
    """One forecast of each initial time, in a store: all there is, or one member of an ensemble.

    Attributes:
        path: of the store.
        number: number of the member; None in a store without an ensemble.
        lag_hours: hours by which the forecast begins before the initial time that it is a member of.
    """

    path: Path
    number: int | None = None
    lag_hours: int = 0

    def __str__(self) -> str:
        place = str(self.path) if self.number is None else f"member {self.number} in {self.path}"
        return f"{place} from {self.lag_hours} h before" if self.lag_hours else place

    def case_of(self, case: Case, hours: int) -> Case:
        """Return the Case that holds this member of another Case.

        Args:
            case: of the initial time that the forecast is a member of.
            hours: lead time of that Case which must be reached, h.
        """
        start, steps = case.init_time - self.lag_hours * HOUR, (hours + self.lag_hours) // case.step_hours
        return replace(case, init_time=start, steps=steps, member=self.number)


@dataclass(frozen=True)
class PastYear:
    """The truth of another year, as a member of an ensemble that is in no store.

    Attributes:
        year: whose weather it is.
    """

    year: int
    lag_hours: ClassVar[int] = 0

    def __str__(self) -> str:
        return f"the weather of {self.year}"


OpenedMember = tuple[Store, StoredMember]
"""The store of a member, and the member."""


def members_of(store: Store) -> tuple[StoredMember, ...]:
    """Return the members that a store has; a store without an ensemble is one."""
    numbers: list[int | None] = [member.number for member in store.members]
    numbers = numbers or [None]
    return tuple(StoredMember(store.path, number) for number in numbers)


def stores_of(store: Store, members: Sequence[StoredMember | PastYear]) -> list[OpenedMember]:
    """Return each member with its store, in an order that does not depend on the order given.

    Args:
        store: the one that the scores are written to.
        members: the members of an ensemble; none, or past years, for the first of the store alone.
    """
    stored = stored_of(members)
    if not stored:
        return [(store, members_of(store)[0])]
    opened = {member.path: open_store(member.path) for member in stored if member.path != store.path}
    chosen = sorted(
        stored, key=lambda each: (each.path != store.path, each.path.resolve(), each.number or 0, each.lag_hours)
    )
    return [(opened.get(member.path, store), member) for member in chosen]


def stored_of(members: Sequence[StoredMember | PastYear]) -> list[StoredMember]:
    """Return the members that are in a store."""
    return [member for member in members if isinstance(member, StoredMember)]


def complete_steps(members: Sequence[OpenedMember]) -> dict[str, int]:
    """Return how many steps of each initial time can be scored of all members, by its key.

    Members from the same initial time must be equally long, since a shorter one is about to be extended. Forecasts from
    earlier times count as far as the shortest of them reaches, to a lead time that its store keeps.
    """
    steps_of: dict[tuple[Path, int | None], dict[str, int]] = {}
    for path, ledger in {store.path: store.ledger for store, _ in members}.items():
        for key, steps in ledger.complete_steps().items():
            init_time, number = parse_key(key)
            steps_of.setdefault((path, number), {})[case_key(init_time)] = steps
    by_lag: dict[int, list[Mapping[str, int]]] = {}
    for store, member in members:
        complete = steps_of.get((store.path, member.number), {})
        by_lag.setdefault(member.lag_hours, []).append(_lagged(store, complete, member.lag_hours))
    first, *others = (_equal(found) for found in by_lag.values())
    common = {key: min([steps, *(each.get(key, 0) for each in others)]) for key, steps in first.items()}
    return {key: steps for key, steps in common.items() if steps}


def forecast_id(members: Sequence[OpenedMember], case: Case) -> str:
    """Identify the forecasts of a Case by the times at which they were made; made again, they have other times."""
    lagged = any(member.lag_hours for _, member in members)
    found = list[str]()
    for store, member in members:
        needed = member.case_of(case, case.hours)
        # Of lagged forecasts all but the shortest are longer than what is scored of them.
        record = (store.ledger.record if lagged else store.ledger.record_of)(needed.key, needed.steps)
        found.append(record.finished_at if record else "")
    return " ".join(found)


def _lagged(store: Store, steps_of: Mapping[str, int], lag_hours: int) -> Mapping[str, int]:
    """Return how many steps remain after a lag, by the key of the initial time that much later; 0 steps are left out.

    The last of the steps is at a lead time that the store keeps.
    """
    if not lag_hours:
        return steps_of
    found = {}
    for key, steps in steps_of.items():
        kept = store.kept.lead_hours[: store.kept.leads(steps * store.step_hours - lag_hours)]
        if kept:
            found[case_key(parse_key(key)[0] + lag_hours * HOUR)] = kept[-1] // store.step_hours
    return found


def _equal(steps_of: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Return the steps of the initial times at which all members are equally long, by key."""
    first, *others = steps_of
    return {key: steps for key, steps in first.items() if all(other.get(key) == steps for other in others)}
