"""Plan a run from a config, without starting or writing anything."""

import os
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from graphcast_batch.app.any_path import AnyPath
from graphcast_batch.app.displays import as_html, as_text
from graphcast_batch.cluster.slurm.allocation import allocation
from graphcast_batch.cluster.usable_memory import usable_bytes
from graphcast_batch.config.documents import read_mapping
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.errors import ConfigError
from graphcast_batch.figures.store_figures import check_ensemble_figures, check_figures
from graphcast_batch.models.accelerators import ACCELERATORS, AcceleratorName
from graphcast_batch.models.model_kinds import MODELS
from graphcast_batch.plan import Case
from graphcast_batch.setup.resources import (
    MemoryUse,
    certain_bytes,
    check_memory,
    fitting_use,
    memory_uses,
)
from graphcast_batch.setup.run_setup import RunSetup, assemble
from graphcast_batch.setup.run_warnings import reading, run_warnings
from graphcast_batch.setup.store_identity import existing_store
from graphcast_batch.stores.base import Store
from graphcast_batch.stores.case_records import CaseState
from graphcast_batch.terminal import PlannedMemory, show_plan, show_warnings
from graphcast_batch.text import byte_size, counted

Config = RunConfig | Mapping[str, Any] | AnyPath
"""A checked config, a mapping with the content of a config, or the path of a YAML file."""


class PlannedRun:
    """A run that is planned and checked, but not started; `plan` returns it.

    A notebook shows what ``graphcast-batch plan`` prints.

    Attributes:
        config: of the run.
        assembled: the opened inputs and weights, and the Cases.
        figures: file names of the figures that will be drawn of each Case.
        ensemble_figures: file names of those that will be drawn of all members of each initial time together.
    """

    config: RunConfig
    assembled: RunSetup
    figures: tuple[str, ...]
    ensemble_figures: tuple[str, ...]

    def __init__(self, config: RunConfig) -> None:
        """Open inputs and weights.

        Args:
            config: of the run.

        Raises:
            GraphcastBatchError: something is missing, or one part does not fit another or the existing store.
        """
        self.config = config
        self.assembled = assemble(config)
        self.figures, self._store = fitting(self.assembled)
        wanted = self.config.figures
        self.ensemble_figures = tuple(check_ensemble_figures(wanted, self.assembled.plan.layout)) if wanted else ()

    @property
    def cases(self) -> tuple[Case, ...]:
        """All Cases of the run, including those that are complete already."""
        return self.assembled.plan.cases

    @property
    def init_times(self) -> NDArray[np.datetime64]:
        """(case,) datetime64[ns] initial times."""
        return np.array([case.init_time for case in self.cases], "datetime64[ns]")

    @property
    def skipped(self) -> dict[str, str]:
        """Cases that are skipped because the inputs do not fit: the reason by key of the Case."""
        return dict(self.assembled.plan.skipped)

    @property
    def case_bytes(self) -> int:
        """Number of bytes that one Case writes, before compression."""
        return self.assembled.plan.layout.case_bytes

    @property
    def store_bytes(self) -> int:
        """Number of bytes that all Cases and ensembles write, before compression."""
        return self.assembled.store_bytes

    @property
    def memory(self) -> dict[str, int]:
        """Bytes of memory needed on a worker's device, by the way in which the worker may use it."""
        return {str(use): use.device_bytes for use in self.memory_uses}

    @property
    def host_memory(self) -> dict[str, int]:
        """Bytes of memory needed on a worker's host, on a CPU with those of `memory`, by the same ways."""
        return {str(use): use.host_bytes for use in self.memory_uses}

    @cached_property
    def memory_uses(self) -> tuple[MemoryUse, ...]:
        """The ways in which workers may use memory: for each kind of device the fastest first, the leanest last."""
        return self._uses(1)

    def _uses(self, lanes: int) -> tuple[MemoryUse, ...]:
        """Return the ways in which workers may use memory, on accelerators that fill the last axis of arrays."""
        wanted = self.config.workers.device
        kinds = [accelerated for accelerated in (False, True) if wanted in ("auto", "gpu" if accelerated else "cpu")]
        workers = self.config.workers.count or 1
        every = (
            memory_uses(self.assembled, accelerated=kind, workers=workers, lanes=lanes if kind else 1) for kind in kinds
        )
        return tuple(use for uses in every for use in uses)

    @property
    def workers_here(self) -> int:
        """Number of workers that a run would start on the CPUs of this machine."""
        cores = allocation(os.environ).cpus or len(os.sched_getaffinity(0))
        workers = self.config.workers
        return min(len(self.cases), workers.count or max(1, cores // workers.threads))

    @property
    def states(self) -> dict[str, CaseState]:
        """State of each Case in the store, by key; empty without a store."""
        return self._store.ledger.states(self.cases) if self._store else {}

    @cached_property
    def warnings(self) -> list[str]:
        """What a user should know before a run, although it does not stop the run."""
        return run_warnings(self.assembled)

    def check_memory(self) -> None:
        """Refuse a run on CPUs that needs more memory than this machine has.

        Raises:
            ConfigError: the run needs more memory; the message gives both numbers.
        """
        if self.config.workers.device == "cpu":
            check_memory(self.assembled, self.memory_uses, self.workers_here, usable_bytes())

    def show(self, console: Console, device: AcceleratorName | None = None) -> None:
        """Print the plan without the warnings.

        Args:
            console: to print on.
            device: an accelerator of which to show how a worker would use its memory.

        Raises:
            ConfigError: an accelerator is named, but the workers of the run compute on CPUs.
        """
        if device and self.config.workers.device == "cpu":
            raise ConfigError(
                f"{device} can be shown for workers on accelerators, but workers.device is cpu; set it to auto or gpu, "
                "or leave --device out"
            )
        mesh_size = self.assembled.checkpoint.architecture.mesh_size
        exact = MODELS[self.config.model.implementation].predicts_memory
        uses = self._uses(ACCELERATORS[device].lanes) if device else self.memory_uses
        memory = PlannedMemory(uses, self._taken_here | _taken_on(device, uses), exact)
        run = self.assembled
        show_plan(console, run.plan, reading(run), self.states, mesh_size, memory, run.ensembles)

    @property
    def _taken_here(self) -> dict[MemoryUse, str]:
        """The way that workers on the CPUs of this machine take."""
        on_cpu = [use for use in self.memory_uses if not use.accelerated]
        if not on_cpu:
            return {}
        room = usable_bytes() // max(1, self.workers_here)
        fits = certain_bytes(on_cpu) <= room
        return {
            fitting_use(on_cpu, room): "taken here"
            if fits
            else f"too much for {counted(self.workers_here, 'worker')} here"
        }

    def __repr__(self) -> str:
        return as_text(self._show_all)

    def _repr_html_(self) -> str:
        return as_html(self._show_all)

    def _show_all(self, console: Console) -> None:
        self.show(console)
        show_warnings(console, self.warnings)


def _taken_on(device: AcceleratorName | None, every: Sequence[MemoryUse]) -> dict[MemoryUse, str]:
    """Return the way that a worker takes on an accelerator whose host has memory enough."""
    uses = [use for use in every if use.accelerated]
    if device is None or not uses:
        return {}
    room = ACCELERATORS[device].usable_bytes
    use = fitting_use(uses, sys.maxsize, room)
    if use.device_bytes > room:
        return {use: f"too much for {device}, of which JAX takes {byte_size(room)}"}
    # Ray names TPUs otherwise than GPUs, and no worker asks it for one.
    used = ", but runs do not use TPUs yet" if device.startswith("tpu") else ""
    return {use: f"taken on {device}{used}"}


def plan(config: Config, **changes: object) -> PlannedRun:
    """Plan a run and check all of it; nothing is started and nothing written.

    >>> planned = gb.plan("configs/demo.yaml", steps=40, model={"precision": "float32"})
    >>> len(planned.cases), planned.store_bytes
    (4, 98803200)

    Args:
        config: of the run: the path of a YAML file, a mapping with its content, or a checked config.
        changes: values or sections that replace those of the config. Of a section given as a mapping only the given
            keys are replaced, unless the mapping names its ``kind``: then it replaces the whole section.

    Raises:
        ConfigError: a key or value is not what it must be.
        GraphcastBatchError: something is missing, or one part does not fit another or the existing store.
    """
    return PlannedRun(checked(config, changes))


def fitting(run: RunSetup) -> tuple[tuple[str, ...], Store | None]:
    """Return the file names of the figures of each Case, and the store, if it exists.

    Raises:
        FigureError: the figures cannot be drawn from the forecasts that are kept.
        StoreMismatchError: the store was laid out by another config.
    """
    wanted = run.config.figures
    return tuple(check_figures(wanted, run.plan.layout)) if wanted else (), existing_store(run)


def checked(config: Config, changes: Mapping[str, object]) -> RunConfig:
    """Return the checked config of a run, with changes.

    Args:
        config: of the run.
        changes: as for `plan`.

    Raises:
        ConfigError: the config cannot be read, or a key or value is not what it must be.
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
