"""A config, as a file or as values, becomes what a run of it would do."""

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from graphcast_batch.app.displays import as_html, as_text
from graphcast_batch.config.documents import read_mapping
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.figures.store_figures import check_figures
from graphcast_batch.plan import Case
from graphcast_batch.setup.resources import check_memory, device_needs, machine_bytes, resolved_precision
from graphcast_batch.setup.run_setup import RunSetup, assemble
from graphcast_batch.setup.run_warnings import reading, run_warnings
from graphcast_batch.setup.store_identity import existing_store
from graphcast_batch.stores.base import Store
from graphcast_batch.stores.case_records import CaseState
from graphcast_batch.terminal import show_plan, show_warnings

Config = RunConfig | Mapping[str, Any] | str | os.PathLike[str]
"""A checked config, the content of one, or the path of a YAML file."""


class PlannedRun:
    """What a run would do, all of it checked; nothing is started and nothing written.

    >>> plan = Plan("configs/demo.yaml", steps=40, model={"precision": "float32"})
    >>> len(plan.cases), plan.store_bytes
    (4, 98803200)

    In a notebook it shows what ``graphcast-batch plan`` prints.

    Attributes:
        config: of the run.
        assembled: source, weights and Cases.
        figures: names of the figures that each Case will give.
    """

    config: RunConfig
    assembled: RunSetup
    figures: tuple[str, ...]

    def __init__(self, config: Config, **changes: object) -> None:
        """Opens inputs and weights.

        Args:
            config: of the run.
            changes: sections or values to take in place of those of the config. Of a section that is given as a
                mapping only its keys are changed, unless it names its ``kind``: then it takes the place of all.

        Raises:
            GraphcastBatchError: something is missing, or one part does not fit another, as the store that is there.
        """
        self.config = checked(config, changes)
        self.assembled = assemble(self.config)
        self.figures, self._store = fitting(self.assembled)

    @property
    def cases(self) -> tuple[Case, ...]:
        """All forecasts of the run, those that are whole already among them."""
        return self.assembled.plan.cases

    @property
    def init_times(self) -> NDArray[np.datetime64]:
        """(case,) datetime64[ns] initial times."""
        return np.array([case.init_time for case in self.cases], "datetime64[ns]")

    @property
    def skipped(self) -> dict[str, str]:
        """Cases that cannot be run, by key, each with the reason."""
        return dict(self.assembled.plan.skipped)

    @property
    def case_bytes(self) -> int:
        """Bytes that one Case writes, before compression."""
        return self.assembled.plan.layout.case_bytes

    @property
    def store_bytes(self) -> int:
        """Bytes that all Cases write, before compression."""
        return self.assembled.plan.store_bytes

    @cached_property
    def memory(self) -> dict[str, int]:
        """Bytes that a worker's device holds while it computes, by what it may turn out to compute on and how."""
        return device_needs(self.assembled)

    @property
    def states(self) -> dict[str, CaseState]:
        """What became of each Case so far, by key; empty without a store."""
        return self._store.ledger.states(self.cases) if self._store else {}

    @cached_property
    def warnings(self) -> list[str]:
        """What should be known before a run, although it does not stop it."""
        return run_warnings(self.assembled)

    def check_memory(self) -> None:
        """Refuses a run on CPUs that this machine has too little memory for.

        Raises:
            ConfigError: with the numbers.
        """
        workers = self.config.workers
        if workers.device == "cpu":
            precision = resolved_precision(self.config.model.precision, accelerated=False)
            check_memory(self.assembled, precision, workers.count or 1, machine_bytes())

    def show(self, console: Console) -> None:
        """Prints it, without the notices."""
        mesh_size = self.assembled.checkpoint.architecture.mesh_size
        show_plan(console, self.assembled.plan, reading(self.assembled), self.states, mesh_size, self.memory)

    def __repr__(self) -> str:
        return as_text(self._show_all)

    def _repr_html_(self) -> str:
        return as_html(self._show_all)

    def _show_all(self, console: Console) -> None:
        self.show(console)
        show_warnings(console, self.warnings)


def fitting(run: RunSetup) -> tuple[tuple[str, ...], Store | None]:
    """Names of the figures that each Case will give, and the store, if it is there.

    Raises:
        FigureError: the figures cannot be drawn of what is forecast.
        StoreMismatchError: the store was made by something else.
    """
    wanted = run.config.figures
    return tuple(check_figures(wanted, run.plan.layout)) if wanted else (), existing_store(run)


def checked(config: Config, changes: Mapping[str, object]) -> RunConfig:
    """The config of a run, with changes.

    Args:
        config: of the run.
        changes: as `PlannedRun` takes them.

    Raises:
        ConfigError: it cannot be read, or a key or value is not what it must be.
    """
    origin = "given" if isinstance(config, RunConfig | Mapping) else str(config)
    content = _content(config)
    return parse_config(_merged(content, changes), RunConfig, origin=f"{origin}, with changes" if changes else origin)


def _content(config: Config) -> Mapping[str, Any]:
    if isinstance(config, RunConfig):
        return config.model_dump(mode="json", exclude_none=True)
    return config if isinstance(config, Mapping) else read_mapping(Path(config))


def _merged(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(content)
    for key, value in changes.items():
        section = merged.get(key)
        if isinstance(section, Mapping) and isinstance(value, Mapping) and "kind" not in value:
            merged[key] = _merged(section, value)
        else:
            merged[key] = value
    return merged
