"""Find the forecasts that belong to an ensemble: all of a store, or single members, of one store or of several."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from graphcast_batch.plan import Case, case_key, parse_key
from graphcast_batch.stores.base import Store
from graphcast_batch.stores.store_kinds import open_store

OpenedMember = tuple[Store, int | None]
"""A store, and the number of one of its members; None in a store without an ensemble."""


@dataclass(frozen=True)
class StoredMember:
    """One forecast of each initial time, in a store: all there is, or one member of an ensemble.

    Attributes:
        path: of the store.
        number: number of the member; None in a store without an ensemble.
    """

    path: Path
    number: int | None = None

    def __str__(self) -> str:
        return str(self.path) if self.number is None else f"member {self.number} in {self.path}"


def members_of(store: Store) -> tuple[StoredMember, ...]:
    """Return the members that a store has; a store without an ensemble is one."""
    numbers: list[int | None] = [member.number for member in store.members]
    numbers = numbers or [None]
    return tuple(StoredMember(store.path, number) for number in numbers)


def stores_of(store: Store, members: Sequence[StoredMember]) -> list[OpenedMember]:
    """Return the store and the number of each member, in an order that does not depend on the order given.

    Args:
        store: the one that the scores are written to.
        members: the members of an ensemble; none for the first of the store alone.
    """
    if not members:
        return [(store, members_of(store)[0].number)]
    opened = {member.path: open_store(member.path) for member in members if member.path != store.path}
    chosen = sorted(members, key=lambda each: (each.path != store.path, each.path.resolve(), each.number or 0))
    return [(opened.get(member.path, store), member.number) for member in chosen]


def complete_steps(members: Sequence[OpenedMember]) -> dict[str, int]:
    """Return how many steps are complete of each initial time at which all members are equally long, by its key."""
    steps_of: dict[tuple[Path, int | None], dict[str, int]] = {}
    for path, ledger in {store.path: store.ledger for store, _ in members}.items():
        for key, steps in ledger.complete_steps().items():
            init_time, number = parse_key(key)
            steps_of.setdefault((path, number), {})[case_key(init_time)] = steps
    first, *others = (steps_of.get((store.path, number), {}) for store, number in members)
    return {key: steps for key, steps in first.items() if all(other.get(key) == steps for other in others)}


def forecast_id(members: Sequence[OpenedMember], case: Case) -> str:
    """Identify the forecasts of a Case by the times at which they were made; made again, they have other times."""
    records = (store.ledger.record_of(case_key(case.init_time, number), case.steps) for store, number in members)
    return " ".join(record.finished_at if record else "" for record in records)
