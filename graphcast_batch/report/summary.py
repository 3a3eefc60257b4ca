"""A store becomes what a person asks of it first: what it holds, who made it, and how far it is."""

import glob
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from graphcast_batch.config.loading import dump_config, load_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.plan import Case
from graphcast_batch.stores import store_kinds
from graphcast_batch.stores.base import SUBMITTED, Store
from graphcast_batch.stores.case_records import CaseFailure, CaseState

MOST_FAILURES: Final = 50
"""Told with their tracebacks; of a run of which all fail, these say enough."""
MOST_KEYS: Final = 100
"""Cases of one state that are named."""
_MOST_TEXT: Final = 20_000
"""Characters of a message or traceback, the last of which say most."""


@dataclass(frozen=True)
class Standing:
    """How far a store is.

    Attributes:
        keys: of Cases, by their state.
        failures: the first of those that were set aside.
    """

    keys: dict[CaseState, tuple[str, ...]]
    failures: tuple[CaseFailure, ...]

    @property
    def total(self) -> int:
        """All Cases that the store was laid out for."""
        return sum(map(len, self.keys.values()))

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to be made."""
        return not self.keys[CaseState.RUNNING] and not self.keys[CaseState.MISSING]


@dataclass(frozen=True, eq=False)
class Opened:
    """A store that was laid out.

    Attributes:
        name: what a person calls it.
        store: itself.
        config: of its last run.
        cases: all, in order of time.
    """

    name: str
    store: Store
    config: RunConfig
    cases: tuple[Case, ...]


def open_store(path: Path) -> Opened | None:
    """Opens a store; None if it is still to be laid out.

    Raises:
        StoreError: it is something else, or there is none and none is on its way.
        ConfigError: its configuration cannot be read.
    """
    if not store_kinds.store_exists(path) and _is_awaited(path):
        return None
    store = store_kinds.open_store(path)
    config = load_config(store.config_path).model_copy(update={"store": store.path})
    cases = tuple(Case(time, config.steps, store.step_hours) for time in sorted(store.init_times))
    return Opened(store.path.name, store, config, cases)


def standing(opened: Opened) -> Standing:
    """How far a store is, by its ledger.

    Raises:
        StoreError: it cannot be read.
    """
    ledger = opened.store.ledger
    states = ledger.states(opened.cases)
    keys = {state: tuple(key for key, found in states.items() if found is state) for state in CaseState}
    found = (ledger.failure(key) for key in keys[CaseState.FAILED][:MOST_FAILURES])
    return Standing(keys, tuple(_shortened(failure) for failure in found if failure))


def facts(opened: Opened) -> list[tuple[str, str]]:
    """What a store holds and what made it: labels and texts."""
    store, attributes, steps = opened.store, opened.store.attributes, opened.config.steps
    kept, times = store.kept, store.init_times
    surface = [name for name, levelled in kept.on_levels if not levelled]
    levelled = [name for name, on_levels in kept.on_levels if on_levels]
    rows = {
        "Initial times": f"{_time(times.min())} to {_time(times.max())} ({times.size})" if times.size else "none",
        "Steps": f"{steps} of {store.step_hours} h, to {store.step_hours * steps} h",
        "Kept": "only scores (outputs: none)" if store.only_scores else f"{len(kept.lead_hours)} lead times",
        "Grid": f"{kept.latitude.size} × {kept.longitude.size} points",
        "At the surface": ", ".join(surface),
        "On levels": ", ".join(levelled),
        "Levels": f"{', '.join(map(str, kept.levels))} hPa" if kept.levels else "",
        "Model": attributes.get("source"),
        "Weights": attributes.get("weights_sha256"),
        "Licence of the weights": attributes.get("weights_license"),
        "Precision": attributes.get("precision"),
        "Implementation": attributes.get("implementation"),
        "Store": str(store.path),
    }
    return [(label, str(text)) for label, text in rows.items() if text]


def versions(opened: Opened) -> list[tuple[str, str]]:
    """Names and versions of the software that laid a store out."""
    return sorted(json.loads(str(opened.store.attributes.get("versions", "{}"))).items())


def config_text(opened: Opened) -> str:
    """The configuration of a store's last run, as YAML."""
    return dump_config(opened.config)


def listed(keys: Sequence[str]) -> str:
    """Keys of Cases, and how many more there are."""
    rest = f" and {len(keys) - MOST_KEYS} more" if len(keys) > MOST_KEYS else ""
    return " ".join(keys[:MOST_KEYS]) + rest


def _is_awaited(path: Path) -> bool:
    """Whether jobs were submitted for a store, or its draft is there, or a folder that it may be laid out in."""
    drafts = path.absolute().parent.glob(f".{glob.escape(path.name)}.*.partial")
    is_empty = path.is_dir() and not any(path.iterdir())
    return is_empty or (path / SUBMITTED).is_dir() or any(drafts)


def _shortened(failure: CaseFailure) -> CaseFailure:
    texts = {"message": failure.message[-_MOST_TEXT:], "traceback": failure.traceback[-_MOST_TEXT:]}
    return failure.model_copy(update=texts)


def _time(time: object) -> str:
    return f"{str(time)[:13].replace('T', ' ')} UTC"
