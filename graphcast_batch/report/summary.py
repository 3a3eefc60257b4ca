"""Summarize a store: its content, the software and configuration that made it, and its state."""

import glob
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from graphcast_batch.config.loading import dump_config, load_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.ensemble_statistics import statistic_text
from graphcast_batch.plan import Case
from graphcast_batch.setup.ensemble_store import ensembles_of, statistics_in
from graphcast_batch.stores import store_kinds
from graphcast_batch.stores.base import SUBMITTED, Store
from graphcast_batch.stores.case_records import CaseFailure, CaseState

MOST_FAILURES: Final = 50
"""Largest number of failures that are shown with their tracebacks."""
MOST_KEYS: Final = 100
"""Largest number of Cases of one state whose keys are shown."""
_MOST_TEXT: Final = 20_000
"""Largest number of characters of a message or traceback; the last ones are kept."""


@dataclass(frozen=True)
class Standing:
    """The state of the Cases of a store.

    Attributes:
        keys: keys of the Cases, by state.
        failures: records of the first failed Cases.
        to_combine: number of initial times whose members are complete, and are still to be combined.
    """

    keys: dict[CaseState, tuple[str, ...]]
    failures: tuple[CaseFailure, ...]
    to_combine: int = 0

    @property
    def total(self) -> int:
        """Number of Cases that the store was laid out for."""
        return sum(map(len, self.keys.values()))

    @property
    def is_over(self) -> bool:
        """Whether no Cases are left to make, and no members to combine."""
        return not self.keys[CaseState.RUNNING] and not self.keys[CaseState.MISSING] and not self.to_combine


@dataclass(frozen=True, eq=False)
class Opened:
    """A store that is laid out, with its configuration.

    Attributes:
        name: name of the store in the page.
        store: the store.
        config: configuration of its last run.
        cases: all Cases, in order of time.
        ensembles: store of what is computed of all members of an initial time; None if there is none.
    """

    name: str
    store: Store
    config: RunConfig
    cases: tuple[Case, ...]
    ensembles: Store | None = None


def open_store(path: Path) -> Opened | None:
    """Open a store; return None if it is still to be laid out.

    Raises:
        StoreError: the path is not a store, and there is no sign of a run that will lay one out.
        ConfigError: its configuration cannot be read.
    """
    if not store_kinds.store_exists(path) and _is_awaited(path):
        return None
    store = store_kinds.open_store(path)
    config = load_config(store.config_path).model_copy(update={"store": store.path})
    cases = tuple(sorted(store.cases(config.steps)))
    return Opened(store.path.name, store, config, cases, ensembles_of(store))


def standing(opened: Opened) -> Standing:
    """Return the state of the Cases of a store, from its ledger and that of the statistics of its members.

    Raises:
        StoreError: a ledger cannot be read.
    """
    ledger = opened.store.ledger
    states = ledger.states(opened.cases)
    keys = {state: tuple(key for key, found in states.items() if found is state) for state in CaseState}
    found = (ledger.failure(key) for key in keys[CaseState.FAILED][:MOST_FAILURES])
    return Standing(keys, tuple(_shortened(failure) for failure in found if failure), _to_combine(opened, states))


def _to_combine(opened: Opened, states: Mapping[str, CaseState]) -> int:
    """Return at how many initial times all members are complete, but not what is computed of them."""
    if opened.ensembles is None or not opened.config.combines_members:
        return 0
    unready = {case.init_time for case in opened.cases if states[case.key] is not CaseState.COMPLETE}
    ready = dict.fromkeys(replace(case, member=None) for case in opened.cases if case.init_time not in unready)
    left = (CaseState.RUNNING, CaseState.MISSING)
    return sum(state in left for state in opened.ensembles.ledger.states(ready).values())


def facts(opened: Opened) -> list[tuple[str, str]]:
    """Return the content and origin of a store, as rows of label and text."""
    store, attributes, steps = opened.store, opened.store.attributes, opened.config.steps
    kept, times = store.kept, store.init_times
    surface = [name for name, levelled in kept.on_levels if not levelled]
    levelled = [name for name, on_levels in kept.on_levels if on_levels]
    rows = {
        "Initial times": f"{_time(times.min())} to {_time(times.max())} ({times.size})" if times.size else "none",
        "Members": _members(store),
        "Statistics of members": _statistics(opened),
        "Steps": f"{steps} of {store.step_hours} h, to {store.step_hours * steps} h",
        "Kept": "only scores (outputs: none)" if store.only_scores else f"{len(kept.lead_hours)} lead times",
        "Grid": f"{kept.latitude.size} × {kept.longitude.size} points",
        "At the surface": ", ".join(surface),
        "On levels": ", ".join(levelled),
        "Levels": f"{', '.join(map(str, kept.levels))} hPa" if kept.levels else "",
        "Model": attributes.get("source"),
        "Weights": attributes.get("weights_sha256"),
        "License of the weights": attributes.get("weights_license"),
        "Precision": attributes.get("precision"),
        "Implementation": attributes.get("implementation"),
        "Store": str(store.path),
    }
    return [(label, str(text)) for label, text in rows.items() if text]


def _members(store: Store) -> str:
    names = ", ".join(dict.fromkeys(member.checkpoint for member in store.members if member.checkpoint))
    return f"{len(store.members)} of each initial time{f', of {names}' if names else ''}" if store.members else ""


def _statistics(opened: Opened) -> str:
    ensembles = opened.ensembles
    return ", ".join(map(statistic_text, statistics_in(ensembles))) if ensembles else ""


def versions(opened: Opened) -> list[tuple[str, str]]:
    """Return names and versions of the software that laid out a store."""
    return sorted(json.loads(str(opened.store.attributes.get("versions", "{}"))).items())


def config_text(opened: Opened) -> str:
    """Return the configuration of a store's last run, as YAML."""
    return dump_config(opened.config)


def listed(keys: Sequence[str]) -> str:
    """Return keys of Cases as text, with the number of those that are left out."""
    rest = f" and {len(keys) - MOST_KEYS} more" if len(keys) > MOST_KEYS else ""
    return " ".join(keys[:MOST_KEYS]) + rest


def _is_awaited(path: Path) -> bool:
    """Return whether jobs were submitted for a store, or there is a draft of it, or an empty folder at its path."""
    drafts = path.absolute().parent.glob(f".{glob.escape(path.name)}.*.partial")
    is_empty = path.is_dir() and not any(path.iterdir())
    return is_empty or (path / SUBMITTED).is_dir() or any(drafts)


def _shortened(failure: CaseFailure) -> CaseFailure:
    texts = {"message": failure.message[-_MOST_TEXT:], "traceback": failure.traceback[-_MOST_TEXT:]}
    return failure.model_copy(update=texts)


def _time(time: object) -> str:
    return f"{str(time)[:13].replace('T', ' ')} UTC"
