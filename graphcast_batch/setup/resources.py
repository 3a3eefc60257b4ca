"""Predict the memory that the workers of a run need, and compare it with what there is."""

import os
from pathlib import Path
from typing import Final, Literal

from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.errors import ConfigError
from graphcast_batch.grid import Grid
from graphcast_batch.models.base import CallSize, MemoryMode, Precision, steps_in_call
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.disk_cache import Cache, users_folder
from graphcast_batch.models.model_kinds import MODELS
from graphcast_batch.setup.run_setup import RunSetup
from graphcast_batch.spec import Architecture

_ROOM: Final = 0.7
"""Share of a device's memory that may be planned with; the rest is for what is not counted."""


def resolved_precision(precision: Literal["auto", "float32", "bfloat16"], *, accelerated: bool) -> Precision:
    """Return the precision that a config asks for; ``auto`` is bfloat16 on an accelerator and float32 on a CPU."""
    if precision != "auto":
        return precision
    return "bfloat16" if accelerated else "float32"


def configured_cache(config: RunConfig) -> Cache | None:
    """Return the cache of graphs and compiled programs that a config chooses; None if there is none."""
    folder = users_folder() if config.cache is None else config.cache
    return Cache(folder).check() if isinstance(folder, Path) else None


def needed_bytes(
    run: RunSetup, precision: Precision, mode: MemoryMode | None = None, *, accelerated: bool = False
) -> int:
    """Return the number of bytes that a worker's device must have at least while it computes.

    Args:
        run: the run.
        precision: precision of the network.
        mode: how the network uses the memory; None for the mode of the config, or for ``auto`` the one of least memory.
        accelerated: whether the device is an accelerator.
    """
    model, memory = MODELS[run.config.model.implementation], run.config.model.memory
    call = call_size(run.config, run.checkpoint.architecture, run.source.grid, run.channels, precision, accelerated)
    return model.predicted_bytes(call, mode or (model.memory_modes[-1] if memory == "auto" else memory))


def device_needs(run: RunSetup) -> dict[str, int]:
    """Return the number of bytes that a worker's device must have, by what the run may turn out to compute on."""
    chosen, wanted = run.config.model, run.config.workers.device
    modes = MODELS[chosen.implementation].memory_modes if chosen.memory == "auto" else (chosen.memory,)
    found = {}
    for device, accelerated in (("cpu", False), ("gpu", True)):
        precision = resolved_precision(chosen.precision, accelerated=accelerated)
        for mode in modes if wanted in (device, "auto") else ():
            needed = needed_bytes(run, precision, mode, accelerated=accelerated)
            found[f"{precision} on {device.upper()}, {mode}"] = needed
    return found


def call_size(
    config: RunConfig,
    architecture: Architecture,
    grid: Grid,
    channels: Channels,
    precision: Precision,
    accelerated: bool,
) -> CallSize:
    """Return the sizes of one call of the model of a run, from which its memory follows."""
    steps = steps_in_call(config.steps, config.model.steps_per_call)
    return CallSize(architecture, grid, channels, precision, accelerated, steps, config.model.batch_size)


def check_memory(run: RunSetup, precision: Precision, workers: int, available: int) -> None:
    """Refuse a run whose workers cannot have the memory that a Case needs.

    Args:
        run: the run.
        precision: precision of the network.
        workers: number of workers that share the memory.
        available: memory of the device or the machine, in bytes.

    Raises:
        ConfigError: there is too little memory; the message gives both numbers.
    """
    needed = needed_bytes(run, precision)
    if needed * workers <= available:
        return
    remedy = "take fewer workers" if needed <= available else "take a coarser grid, a smaller model or a larger machine"
    raise ConfigError(
        f"{workers} workers must have {needed / 1e9:.3g} GB each, as a Case on {run.plan.layout.grid} needs at least "
        f"in {precision}, but there are {available / 1e9:.3g} GB for all; {remedy}"
    )


def machine_bytes() -> int:
    """Return the memory of this machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_mode(
    config: RunConfig, architecture: Architecture, grid: Grid, channels: Channels, precision: Precision
) -> MemoryMode:
    """Return the memory mode that a config asks for; ``auto`` is the fastest that fits the device of this process."""
    from graphcast_batch.models.devices import backend, device_bytes

    if config.model.memory != "auto":
        return config.model.memory
    model = MODELS[config.model.implementation]
    accelerated = backend() != "cpu"
    room = max(1, len(os.sched_getaffinity(0)) // config.workers.threads)
    workers = min(config.workers.count or room, room)  # on this machine: the others of the count may be elsewhere
    available = device_bytes() if accelerated else machine_bytes() // workers
    call = call_size(config, architecture, grid, channels, precision, accelerated)
    *faster, leanest = model.memory_modes
    fitting = (mode for mode in faster if model.predicted_bytes(call, mode) <= _ROOM * available or not available)
    return next(fitting, leanest)
