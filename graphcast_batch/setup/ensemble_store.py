"""Lay out the store of what is computed of all members of an initial time together, in a folder of the run's store.

It is a store like any other, whose Cases have no member: `STORE/ensemble` can be opened, verified and read by itself.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from pydantic import JsonValue, TypeAdapter

from graphcast_batch.config.loading import dump_config
from graphcast_batch.config.outputs_section import OutputsConfig, Statistic
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.ensemble_statistics import statistic_attributes, statistic_name
from graphcast_batch.errors import StoreError, StoreMismatchError
from graphcast_batch.members import Member
from graphcast_batch.plan import Case
from graphcast_batch.stores.base import NONE, OF_ENSEMBLES, OUTPUTS, Store
from graphcast_batch.stores.layout import Layout, Plan
from graphcast_batch.stores.store_kinds import create_or_extend, open_store, store_exists

_MEMBERS, _STATISTICS, _KEPT = "members", "ensemble_statistics", "kept_members"
"""Keys of the identity of a store of ensembles."""
_STATED: Final = TypeAdapter(tuple[Statistic, ...])
_LEASE_SECONDS: Final = 600.0
"""Longer than it takes to remove the files of a Case."""


def ensemble_plan(plan: Plan, config: RunConfig) -> Plan | None:
    """Return the Cases of the initial times of a plan, and the layout of their statistics; None if there are none.

    Args:
        plan: of the members.
        config: of the run.

    Raises:
        ConfigError: ``outputs`` does not fit the statistics.
    """
    if not config.combines_members:
        return None
    cases = tuple(dict.fromkeys(replace(case, member=None, lag_steps=0) for case in plan.cases))
    return Plan(cases, _layout(plan.layout))


def lay_out_ensembles(store: Store, plan: Plan, members: tuple[Member, ...], config: RunConfig) -> Store:
    """Lay out the store of statistics beside the members, or open the one that is there.

    What was computed of fewer members is kept under another name, ``ensemble-7``, and everything is computed again.

    Args:
        store: of the members.
        plan: from `ensemble_plan`.
        members: of each initial time.
        config: of the run.

    Raises:
        StoreMismatchError: the store that is there has other statistics.
        StoreError: the store cannot be written.
    """
    path, identity = store.path / OF_ENSEMBLES, ensemble_identity(members, config)
    if store_exists(path):
        _refuse_others(open_store(path), identity)
    if store_exists(path) and _fewer(open_store(path), identity):
        with store.extension_lock():
            _set_aside(path, identity)
    plan = _at_all_times_of(store, plan)
    task = store.attributes.get("task")
    provenance: dict[str, JsonValue] = {"title": "Statistics of GraphCast ensembles"}
    provenance |= {"task": task} if task is not None else {}
    return create_or_extend(path, plan, identity=identity, provenance=provenance, config_text=dump_config(config))


def check_ensembles(store: Store, plan: Plan, members: tuple[Member, ...], config: RunConfig) -> None:
    """Check that a run may go on with the statistics that its store has; for the arguments see `lay_out_ensembles`.

    Raises:
        StoreMismatchError: it may not.
        StoreError: they cannot be read.
    """
    path, identity = store.path / OF_ENSEMBLES, ensemble_identity(members, config)
    if store_exists(path):
        _refuse_others(open_store(path), identity)
        if not _fewer(open_store(path), identity):
            open_store(path).refuse_other(plan, identity)


def ensembles_of(store: Store) -> Store | None:
    """Open the store of the statistics over the members of a store; None if it has none.

    Raises:
        StoreError: it cannot be read.
    """
    path = store.path / OF_ENSEMBLES
    return open_store(path) if store.members and store_exists(path) else None


def is_of_ensembles(store: Store) -> bool:
    """Return whether a store is one of ensembles, to which no model writes."""
    return _STATISTICS in store.identity


def statistics_in(store: Store) -> tuple[Statistic, ...]:
    """Return which statistics of each variable a store of ensembles keeps, in their order; empty for scores alone."""
    return _STATED.validate_python(store.identity.get(_STATISTICS, []))


def ensemble_identity(members: tuple[Member, ...], config: RunConfig) -> Mapping[str, JsonValue]:
    """Return what decides the statistics beside the forecasts: the members, and which statistics are kept."""
    described: list[JsonValue] = [
        f"{each.number} {each.weights_sha256} {each.perturbation} {each.seed}" + (f" {each.lag} h" if each.lag else "")
        for each in members
    ]
    statistics: list[JsonValue] = [*config.outputs.ensemble]
    kept = config.outputs.members
    return {
        _MEMBERS: described,
        _STATISTICS: statistics,
        **({} if kept == "all" else {_KEPT: kept if kept == "none" else [*kept]}),
        **({} if statistics else {OUTPUTS: NONE}),
    }


def _at_all_times_of(store: Store, plan: Plan) -> Plan:
    """Return a plan with the initial times of the members' store too, since none can be put between others later."""
    steps, planned = plan.layout.steps, {case.init_time.astype("datetime64[h]").item() for case in plan.cases}
    others = (Case(time, steps, store.step_hours) for time in store.init_times if time.item() not in planned)
    return replace(plan, cases=(*plan.cases, *others))


def _refuse_others(store: Store, identity: Mapping[str, JsonValue]) -> None:
    """Refuse other statistics than those of a store, other kept members, and more members if some were dropped."""
    kept, chosen = (_listed(each.get(_KEPT, "all")) for each in (store.identity, identity))
    if kept != chosen:
        raise StoreMismatchError(
            f"outputs.members must be {kept} as in {store.path}, but is {chosen}; change it back, or choose "
            "another store"
        )
    known, wanted = (_listed(each.get(_STATISTICS)) for each in (store.identity, identity))
    if _fewer(store, identity):
        if kept != "all":
            raise StoreMismatchError(
                f"members can be added only where all are kept, but {store.path} keeps {kept} of them "
                "(outputs.members); choose another store for a larger ensemble"
            )
        return
    if known != wanted:
        raise StoreMismatchError(
            f"outputs.ensemble must be {known} as in {store.path}, but is {wanted}; change it back, or remove "
            f"{store.path}: a run makes it again from the members"
        )


def _listed(statistics: JsonValue) -> str:
    return f"[{', '.join(map(str, statistics))}]" if isinstance(statistics, list) else str(statistics)


def _fewer(store: Store, identity: Mapping[str, JsonValue]) -> bool:
    """Return whether a store has statistics of the first of the members, but not of all."""
    known, wanted = (each.get(_MEMBERS) for each in (store.identity, identity))
    return isinstance(known, list) and isinstance(wanted, list) and known != wanted and known == wanted[: len(known)]


def make_again(store: Store, cases: Sequence[Case]) -> None:
    """Record as missing those members that are dropped although what is kept of all members is not complete.

    Args:
        store: of the members.
        cases: members of the initial times at which it is not.

    Raises:
        StoreError: the store cannot be read or written.
    """
    dropped = store.ledger.dropped_steps()
    for case in cases:
        if dropped.get(case.key, 0) >= case.steps and (lease := store.ledger.hold(case.key, _LEASE_SECONDS)):
            try:
                store.forget(case.key, lease)
            finally:
                lease.release()


def drop_members(store: Store, cases: Sequence[Case], config: RunConfig) -> None:
    """Remove the values of those members that are not to be kept; one that another process works on stays.

    Args:
        store: of the members.
        cases: members of the initial times of which what is kept of all members is complete.
        config: of the run.

    Raises:
        StoreError: the store cannot be read or written.
    """
    unwanted = [case for case in cases if case.member is not None and not config.outputs.keeps_member(case.member)]
    for case in store.ledger.complete(unwanted):
        lease = store.ledger.hold(case.key, _LEASE_SECONDS)
        if lease:
            try:
                store.drop_values(case.key, lease)
            finally:
                lease.release()


def _set_aside(path: Path, identity: Mapping[str, JsonValue]) -> None:
    store = open_store(path)
    known = store.identity.get(_MEMBERS)
    if _fewer(store, identity) and isinstance(known, list):  # else another driver has just set it aside
        with suppress(FileNotFoundError):
            try:
                path.rename(path.with_name(f"{path.name}-{len(known)}"))
            except OSError as error:
                raise StoreError(f"{path} cannot be renamed: {error}") from error


def _layout(layout: Layout) -> Layout:
    """Return the layout of the statistics of what a layout keeps."""
    outputs, kept = layout.outputs, layout.kept
    if not outputs.ensemble:
        return replace(layout, outputs=outputs.model_copy(update={"forecasts": False}))
    of_names = {
        statistic_name(name, statistic): (name, levelled, statistic)
        for name, levelled in kept.on_levels
        for statistic in outputs.ensemble
    }
    bits = {derived: outputs.bits_of(name) for derived, (name, *_) in of_names.items()}
    kept_bits = {name: most for name, most in bits.items() if most is not None}
    changed = {"variables": None, "keep_bits": kept_bits or None, "ensemble": ()}
    chosen = OutputsConfig.model_validate(outputs.model_dump() | changed)
    return replace(
        layout,
        on_levels=tuple((name, of_names[name][1]) for name in sorted(of_names)),
        outputs=chosen,
        attributes={name: statistic_attributes(of, statistic) for name, (of, _, statistic) in of_names.items()},
    )
