"""Make Cases on one device, a few at a time: the worker process of a run."""

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphcast_batch.cluster.usable_memory import usable_bytes
from graphcast_batch.config.run_config import RunConfig, TimeLimitsConfig
from graphcast_batch.errors import ClusterError, ConfigError
from graphcast_batch.inputs.sources.member_archives import MemberArchives
from graphcast_batch.models.devices import backend, device_bytes
from graphcast_batch.pipeline.ports import Scorer
from graphcast_batch.pipeline.stages import CaseStage
from graphcast_batch.pipeline.worker_context import CompletedCase, WorkerContext
from graphcast_batch.plan import Case
from graphcast_batch.setup.resources import MemoryUse, fitting_use, smaller_batch
from graphcast_batch.setup.run_source import AnySource
from graphcast_batch.setup.worker_setup import worker_context
from graphcast_batch.stores.base import Lease

OpenScorer = Callable[[RunConfig], Scorer]
"""Opens what scores the forecasts of a run online; its store has been laid out."""
Arguments = tuple[RunConfig, AnySource, MemberArchives | None, Sequence[MemoryUse], int, OpenScorer | None]


@dataclass(frozen=True)
class WorkerState:
    """What the Cases of a worker are doing.

    Attributes:
        worker: name of the worker, as in the records of its Cases; empty before it was prepared.
        stages: the stage of each of its Cases.
        late: the Case that exceeds the time limit of its stage; None if there is none.
    """

    worker: str = ""
    stages: tuple[CaseStage, ...] = ()
    late: CaseStage | None = None


class Worker:
    """Makes Cases on one device."""

    def __init__(self) -> None:
        self._context: WorkerContext | None = None

    def prepare(self, arguments: Arguments) -> None:
        """Load weights and graphs onto the device.

        Args:
            arguments: the run's configuration, the source of states, the members of an analysis ensemble or None, the
                ways to use memory, as `memory_uses` returns them, the number of workers on each node, and the function
                that opens the scorer or None.

        Raises:
            GraphcastBatchError: a part of the run is missing or does not fit.
        """
        config, source, members, uses, on_node, open_scorer = arguments
        accelerated, leanest = uses[-1].accelerated, uses[-1]
        if accelerated and backend() == "cpu":
            raise ClusterError(
                f"Ray gave a worker on {socket.gethostname()} a GPU, but JAX sees only the CPU there; install "
                "graphcast-batch[cuda13] or [cuda12] to fit the driver, or set workers.device: cpu"
            )
        device_room = device_bytes() if accelerated else 0
        if 0 < device_room < leanest.device_bytes:
            raise ConfigError(
                f"a Case on {source.grid} needs at least {leanest.device_bytes / 1e9:.3g} GB in {leanest.precision}, "
                f"but the GPU that a worker on {socket.gethostname()} was given has {device_room / 1e9:.3g} GB; take "
                f"{smaller_batch(leanest)}a coarser grid, a smaller model or a larger GPU"
            )
        scorer = open_scorer(config) if open_scorer else None
        host_room = usable_bytes() // on_node
        use = fitting_use(uses, host_room, device_room)
        name = f"{socket.gethostname()}:{os.getpid()}"
        self._context = worker_context(config, source, use, name, scorer, host_room, members)
        # The death of a worker can only be detected on its own host; its incomplete forecast takes up the disk.
        self._context.store.sweep()

    def report(self, limits: TimeLimitsConfig) -> WorkerState:
        """Return the stages of the worker's Cases, and the Case that exceeds a time limit, if there is one."""
        context = self._context
        return WorkerState(context.name, tuple(context.under_way()), context.late(limits)) if context else WorkerState()

    def run_case(self, case: Case, lease: Lease, attempts: int) -> CompletedCase:
        """Make one forecast; see `WorkerContext.run_case`.

        Raises:
            ClusterError: the worker was not prepared.
        """
        if self._context is None:
            raise ClusterError("a worker must be prepared before it is handed a Case; call prepare first")
        return self._context.run_case(case, lease, attempts)
