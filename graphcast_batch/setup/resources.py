"""Predict the memory that the workers of a run need, and compare it with what there is."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.errors import ConfigError
from graphcast_batch.grid import Grid
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.disk_cache import Cache, users_folder
from graphcast_batch.models.graphcast.device_memory import Call, MemoryMode, steps_in_call
from graphcast_batch.setup.run_setup import RunSetup
from graphcast_batch.spec import Architecture

Precision = Literal["float32", "bfloat16"]


_ROOM: Final = 0.7
"""Share of a device's memory that may be planned with; the rest is for what is not counted."""


_ITEM_BYTES: Final[Mapping[Precision, int]] = {"float32": 4, "bfloat16": 2}


def resolved_precision(precision: Literal["auto", "float32", "bfloat16"], *, accelerated: bool) -> Precision:
    """The precision that ``auto`` stands for: bfloat16, the published one, on an accelerator; float32 on CPU."""
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
    """What a worker's device holds while it computes; see `Call`.

    Args:
        run: what to make.
        precision: of the network.
        mode: of the network; without it that which the config asks for, or the leaner one.
        accelerated: whether the device is an accelerator.
    """
    memory = run.config.model.memory
    call = model_call(run.config, run.checkpoint.architecture, run.source.grid, run.channels, precision, accelerated)
    return call.bytes(mode or ("lean" if memory == "auto" else memory))


def device_needs(run: RunSetup) -> dict[str, int]:
    """What a worker's device holds while it computes, by what the run may turn out to compute on."""
    model, wanted = run.config.model, run.config.workers.device
    modes: tuple[MemoryMode, ...] = ("fast", "lean") if model.memory == "auto" else (model.memory,)
    found = {}
    for device, accelerated in (("cpu", False), ("gpu", True)):
        precision = resolved_precision(model.precision, accelerated=accelerated)
        for mode in modes if wanted in (device, "auto") else ():
            needed = needed_bytes(run, precision, mode, accelerated=accelerated)
            found[f"{precision} on {device.upper()}, {mode}"] = needed
    return found


def model_call(
    config: RunConfig,
    architecture: Architecture,
    grid: Grid,
    channels: Channels,
    precision: Precision,
    accelerated: bool,
) -> Call:
    """Return the sizes of one call of the model, from which its memory follows."""
    return Call(
        architecture,
        grid,
        channels.inputs,
        channels.outputs,
        item_bytes=_ITEM_BYTES[precision],
        accelerated=accelerated,
        steps=steps_in_call(config.steps, config.model.steps_per_call),
        cases=config.model.cases_per_call,
    )


def check_memory(run: RunSetup, precision: Precision, workers: int, available: int) -> None:
    """Refuses a run whose workers cannot have the memory that a Case needs.

    Args:
        run: what to make.
        precision: of the network.
        workers: how many share the memory.
        available: bytes, of a device or a machine.

    Raises:
        ConfigError: with the numbers.
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
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_mode(
    config: RunConfig, architecture: Architecture, grid: Grid, channels: Channels, precision: Precision
) -> MemoryMode:
    """What ``auto`` stands for on the device of this process."""
    from graphcast_batch.models.graphcast.forecaster import backend, device_bytes

    if config.model.memory != "auto":
        return config.model.memory
    accelerated = backend() != "cpu"
    room = max(1, len(os.sched_getaffinity(0)) // config.workers.threads)
    workers = min(config.workers.count or room, room)  # on this machine: the others of the count may be elsewhere
    available = device_bytes() if accelerated else machine_bytes() // workers
    needed = model_call(config, architecture, grid, channels, precision, accelerated).bytes("fast")
    return "fast" if needed <= _ROOM * available or not available else "lean"
