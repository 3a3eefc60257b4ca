"""Predict the memory that the workers of a run need, compare it with what there is, and choose how they use it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Final, Literal

from graphcast_batch.config.model_section import ModelConfig
from graphcast_batch.config.perturbations_section import BredPerturbations
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.errors import ConfigError
from graphcast_batch.models.base import CallSize, Checkpoint, MemoryMode, ModelKind, Precision, steps_in_call
from graphcast_batch.models.disk_cache import Cache, users_folder
from graphcast_batch.models.model_kinds import MODELS
from graphcast_batch.pipeline.case_frames import MOST_WAITING_BYTES
from graphcast_batch.pipeline.ensemble_cases import MEMBERS_BYTES
from graphcast_batch.setup.host_memory import HostLoad, host_bytes
from graphcast_batch.setup.run_setup import RunSetup
from graphcast_batch.text import counted

_DEVICE_SHARE: Final = 0.85
"""Share of an accelerator's memory that may be planned with: the prediction may be a tenth too low, and some is lost in
pieces."""
_HOST_SHARE: Final = 0.8
"""Share of a worker's part of the host's memory that may be planned with; the rest is for what is not counted."""
_CERTAIN: Final = 0.8
"""Share of the predicted bytes on a host that is surely needed: the prediction may be a fifth too high."""
_STEPS_ON_ACCELERATOR: Final = (4, 2, 1)
"""Steps of a call that are tried on an accelerator, which waits for its host between calls; a CPU gains nothing."""


@dataclass(frozen=True)
class MemoryUse:
    """One way in which the workers of a run can use memory, and how much each then needs.

    Attributes:
        precision: precision of the network.
        accelerated: whether the device is an accelerator.
        mode: how the network uses the memory of the device.
        steps: number of steps that a call of the program computes.
        batch_size: number of Cases that a call computes.
        device_bytes: what a worker needs on its device.
        host_bytes: what a worker needs on its host, on a CPU with that of its device.
    """

    precision: Precision
    accelerated: bool
    mode: MemoryMode
    steps: int
    batch_size: int
    device_bytes: int
    host_bytes: int

    def __str__(self) -> str:
        device, plural = "accelerator" if self.accelerated else "CPU", "" if self.steps == 1 else "s"
        batch = f" of {self.batch_size} Cases" if self.batch_size > 1 else ""
        return f"{self.precision} on {device}, {self.mode}, {self.steps} step{plural}{batch} a call"


def resolved_precision(precision: Literal["auto", "float32", "bfloat16"], *, accelerated: bool) -> Precision:
    """Return the precision that a config asks for; ``auto`` is bfloat16 on an accelerator and float32 on a CPU."""
    if precision != "auto":
        return precision
    return "bfloat16" if accelerated else "float32"


def configured_cache(config: RunConfig) -> Cache | None:
    """Return the cache of graphs and compiled programs that a config chooses; None if there is none."""
    folder = users_folder() if config.cache is None else config.cache
    return Cache(folder).check() if isinstance(folder, Path) else None


def memory_uses(run: RunSetup, *, accelerated: bool, workers: int = 1, lanes: int = 1) -> tuple[MemoryUse, ...]:
    """Return the ways in which the workers of a run can use memory: the fastest first, the leanest last.

    Args:
        run: the run.
        accelerated: whether the workers compute on accelerators.
        workers: number of workers that share the Cases of the run.
        lanes: see `CallSize`.
    """
    chosen, load = run.config.model, _host_load(run)
    model = MODELS[chosen.implementation]
    precision = resolved_precision(chosen.precision, accelerated=accelerated)
    one = CallSize(run.checkpoint.architecture, run.source.grid, run.channels, precision, accelerated, lanes=lanes)
    modes = model.memory_modes if chosen.memory == "auto" else (chosen.memory,)
    every_steps = _steps(chosen, run.config.steps, accelerated=accelerated)
    found = []
    for batch, mode, steps in product(_batches(run, one, workers), modes, every_steps):
        call = replace(one, steps=steps, cases=batch)
        device = model.predicted_bytes(call, mode)
        use = MemoryUse(precision, accelerated, mode, steps, batch, device, host_bytes(call, device, load))
        found.append(use)
    return tuple(found)


def fitting_use(uses: Sequence[MemoryUse], host_room: int, device_room: int = 0) -> MemoryUse:
    """Return the fastest way to use memory that fits, or the leanest if none does.

    Args:
        uses: the ways, as `memory_uses` returns them.
        host_room: memory of the host for each worker, in bytes.
        device_room: memory of an accelerator in bytes; 0 for a CPU, or where it is not known.
    """
    for use in uses:
        on_device = not device_room or use.device_bytes <= _DEVICE_SHARE * device_room
        if on_device and use.host_bytes <= _HOST_SHARE * host_room:
            return use
    return uses[-1]


def fitting_mode(model: ModelKind, call: CallSize, room: int) -> MemoryMode:
    """Return the fastest way in which one forecast can use the memory where it is computed.

    Args:
        model: the model.
        call: sizes of a call.
        room: memory of the accelerator, or of the host, in bytes; 0 where it is not known.

    Raises:
        ConfigError: there is too little memory for any; the message gives both numbers.
    """
    share = _DEVICE_SHARE if call.accelerated else _HOST_SHARE
    for mode in model.memory_modes:
        if not room or model.predicted_bytes(call, mode) <= share * room:
            return mode
    needed = int(_CERTAIN * model.predicted_bytes(call, mode))
    if needed > room:
        raise ConfigError(
            f"a forecast on {call.grid} needs at least {needed / 1e9:.3g} GB in {call.precision}, but the "
            f"{'device' if call.accelerated else 'machine'} has {room / 1e9:.3g} GB; take a coarser grid, a smaller "
            "model or one with more memory"
        )
    return mode


def kept_checkpoints(use: MemoryUse, checkpoint: Checkpoint, host_room: int) -> int:
    """Return how many checkpoints of an ensemble a worker may keep on its host: at least that in use and the next.

    Args:
        use: how the worker uses memory, two checkpoints included.
        checkpoint: one of the checkpoints.
        host_room: memory of the host for each worker, in bytes.
    """
    return 2 + max(0, int(_HOST_SHARE * host_room) - use.host_bytes) // max(1, parameter_bytes(checkpoint))


def parameter_bytes(checkpoint: Checkpoint) -> int:
    """Return the size of the weights of a checkpoint in bytes."""
    return sum(values.nbytes for named in checkpoint.parameters.values() for values in named.values())


def comfortable_bytes(use: MemoryUse) -> int:
    """Return the memory of a host with which a worker may be planned."""
    return int(use.host_bytes / _HOST_SHARE)


def certain_bytes(uses: Sequence[MemoryUse]) -> int:
    """Return the memory of a host that a worker surely needs, in its leanest way."""
    return int(_CERTAIN * uses[-1].host_bytes)


def smaller_batch(use: MemoryUse) -> str:
    """Return the first remedy for too little memory, to stand before others; empty where a call has one Case."""
    return "a smaller model.batch_size, " if use.batch_size > 1 else ""


def check_memory(run: RunSetup, uses: Sequence[MemoryUse], workers: int, available: int) -> None:
    """Refuse a run whose workers cannot have the memory that a Case needs on their host.

    Args:
        run: the run.
        uses: the ways to use memory, as `memory_uses` returns them.
        workers: number of workers that share the memory.
        available: memory of the host in bytes.

    Raises:
        ConfigError: there is too little memory; the message gives both numbers.
    """
    needed = certain_bytes(uses)
    if needed * workers <= available:
        return
    fit = available // needed
    remedy = (
        f"take fewer workers (workers.count: {fit} for each node)"
        if fit
        else f"take {smaller_batch(uses[-1])}a coarser grid, a smaller model or a larger machine"
    )
    raise ConfigError(
        f"{counted(workers, 'worker')} must have {needed / 1e9:.3g} GB each, as a Case on {run.plan.layout.grid} needs "
        f"at least in {uses[-1].precision}, but there are {available / 1e9:.3g} GB for all; {remedy}"
    )


def _steps(chosen: ModelConfig, steps: int, *, accelerated: bool) -> tuple[int, ...]:
    """Return how many steps a call may have, most first."""
    most = (chosen.steps_per_call,) if chosen.steps_per_call != "auto" else _STEPS_ON_ACCELERATOR
    if chosen.steps_per_call == "auto" and not accelerated:
        most = (1,)
    return tuple(dict.fromkeys(steps_in_call(steps, limit) for limit in most))


def _batches(run: RunSetup, one: CallSize, workers: int) -> tuple[int, ...]:
    """Return the batch sizes that a call may have, largest first; a worker need not have more Cases than its share."""
    chosen, cases, ensemble = run.config.model, len(run.plan.cases), run.config.ensemble
    if chosen.batch_size != "auto":
        return (min(chosen.batch_size, cases),)
    if not one.accelerated:
        return (1,)
    # Cases of one call have one checkpoint; of other initial times a worker seldom has some of the same.
    alike = cases if ensemble is None or not ensemble.checkpoints else ensemble.size // len(ensemble.checkpoints)
    share = min(cases // workers, alike)
    most = max(1, min(MODELS[chosen.implementation].worthwhile_batch(one), share))
    return tuple(2**power for power in reversed(range(most.bit_length())))


def _host_load(run: RunSetup) -> HostLoad:
    layout, outputs, ensemble = run.plan.layout, run.config.outputs, run.config.ensemble
    several = ensemble is not None and len(ensemble.checkpoints) > 1
    first = run.plan.cases[0]
    costs = run.source.cost(first, run.checkpoint.task), run.members and run.members.cost(0, first.init_time)
    return HostLoad(
        read_factor=max((cost.factor for cost in costs if cost), default=1.0),
        kept_bytes=layout.kept.frame_bytes if layout.kept.frame_bytes < layout.frame_bytes else 0,
        rounded=any(outputs.bits_of(name) is not None for name in layout.kept.variables),
        waiting_bytes=MOST_WAITING_BYTES,
        kept_states=_kept_states(run.config) if run.plan.members else 0,
        weights_bytes=2 * parameter_bytes(run.checkpoint) if several else 0,
        members_bytes=_members_bytes(run),
    )


def _kept_states(config: RunConfig) -> int:
    """Return how many states a worker keeps for further members, in numbers of input frames of a Case."""
    bred = config.ensemble is not None and isinstance(config.ensemble.perturbations, BredPerturbations)
    # While a vector is bred, also inputs of an earlier time, perturbed twice, and twice the vector, in float64 at last.
    return 7 if bred else 1


def _members_bytes(run: RunSetup) -> int:
    """Return the bytes of the members that are combined at once: one lead time of a variable, or a few of a small one.

    The components of a vector are scored together. While a piece is scored, the next one is read.
    """
    if run.ensembles is None:
        return 0
    kept = run.plan.layout.kept
    sizes = {name: 4 * math.prod(kept.frame_shape(levelled)) for name, levelled in kept.on_levels}
    largest, scores = max(sizes.values()), run.config.scores
    if scores.online:
        vectors = (sum(sizes.get(part, 0) for part in parts) for parts in scores.vectors.values())
        largest = max(largest, *vectors) if scores.vectors else largest
    return max(MEMBERS_BYTES, len(run.plan.members) * largest) * (2 if scores.online else 1)
