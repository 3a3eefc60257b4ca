"""Start one worker of a run as a Ray actor, with its device, its cores and its environment."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from graphcast_batch.cluster.dispatch_rules import in_flight
from graphcast_batch.cluster.finishing import WorkerPace
from graphcast_batch.cluster.nodes import alive_nodes, most_on_a_node, places
from graphcast_batch.cluster.reach import ANSWER_SECONDS, within
from graphcast_batch.cluster.visible_devices import visible_devices
from graphcast_batch.cluster.worker import OpenScorer, Worker
from graphcast_batch.config.run_config import WorkersConfig
from graphcast_batch.models.device_allocation import ALLOCATION
from graphcast_batch.plan import Case
from graphcast_batch.setup.resources import MemoryUse
from graphcast_batch.setup.run_setup import RunSetup
from graphcast_batch.stores.base import Store

_PROBE_SECONDS: Final = 60.0
"""How long a node may take to report which devices JAX sees there."""


@dataclass
class WorkerHandle:
    """The driver's view of one worker.

    Attributes:
        actor: Ray's handle of the worker.
        name: name of the worker in `Dispatch`.
        node: Ray's id of the node that the worker runs on; empty until it is known.
        in_progress: the Cases that the worker has, by the reference of the call that makes each.
        pace: the steps that the worker has made.
        killed_for: key of the Case because of which the driver killed the worker, and the error that this Case fails
            with; None if the driver did not kill it.
    """

    actor: Any
    name: str
    node: str
    in_progress: dict[Any, Case] = field(default_factory=dict)
    pace: WorkerPace = field(default_factory=WorkerPace)
    killed_for: tuple[str, BaseException] | None = None


class WorkerStarter(Protocol):
    """Starts workers; a `RayWorkerStarter` in a run.

    Attributes:
        in_flight: how many Cases a worker has at once.
    """

    in_flight: int

    @property
    def places(self) -> int:
        """How many workers there is room for now."""

    def start(self, others: Sequence[WorkerHandle]) -> tuple[WorkerHandle, Any]:
        """Start a worker.

        Args:
            others: the workers that are starting or ready.

        Returns:
            the new worker, and the reference that resolves to Ray's id of its node when the worker is ready.
        """

    def fault(self, worker: WorkerHandle) -> str:
        """Return why no worker can start where one has died, and what to do; empty if that cannot be found out."""


class RayWorkerStarter:
    """Starts the workers of a run, all alike, as Ray actors on living nodes.

    Args:
        run: the run to work for.
        store: the store to write into.
        device: the kind of device of each worker.
        uses: the ways in which a worker can use memory.
        count: number of workers that are started for the Cases left.
        open_scorer: called by each worker to score forecasts online; None if they are not scored.
    """

    def __init__(
        self,
        run: RunSetup,
        store: Store,
        device: Literal["cpu", "gpu"],
        uses: Sequence[MemoryUse],
        count: int,
        open_scorer: OpenScorer | None = None,
    ) -> None:
        config = run.config.model_copy(update={"store": store.path})
        # Sent once, not with every worker: a source may know a hundred thousand times.
        self._workers, self._device = run.config.workers, device
        # Ray may put all workers with GPUs on one node, those without are spread.
        on_node = most_on_a_node(self.places if device == "gpu" else count, device)
        self._arguments = ray.put((config, run.source, run.members, uses, on_node, open_scorer))
        self.in_flight = in_flight(max(use.batch_size for use in uses))
        self._count = 0

    @property
    def places(self) -> int:
        """How many workers there is room for now."""
        return places(self._workers, self._device)

    def start(self, others: Sequence[WorkerHandle]) -> tuple[WorkerHandle, Any]:
        """Start a worker; see `WorkerStarter.start`."""
        options = actor_options(self._workers, self._device) | {"max_concurrency": self.in_flight + 1}
        node = "" if self._device == "gpu" else _emptiest_node(others)
        if node:
            # A soft affinity of an actor without CPUs is ignored (ray 2.60): it lands on any node.
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=False)
        self._count += 1
        create = ray.remote(Actor).options(**options).remote
        worker = WorkerHandle(within(ANSWER_SECONDS, "start a worker", create), f"worker {self._count}", node)
        return worker, worker.actor.begin.remote(self._arguments)

    def fault(self, worker: WorkerHandle) -> str:
        """Return why JAX cannot start where a worker has died, and what to do; empty if it can, or is unknown."""
        options = actor_options(self._workers, self._device)
        wanted: dict[str, Any] = {
            name: options[name] for name in ("num_cpus", "num_gpus", "runtime_env") if name in options
        }
        if worker.node:
            wanted["scheduling_strategy"] = NodeAffinitySchedulingStrategy(worker.node, soft=True)
        probe = ray.remote(visible_devices).options(max_retries=0, **wanted).remote()
        try:
            _, fault = ray.get(probe, timeout=_PROBE_SECONDS)
        except RayError:
            ray.cancel(probe, force=True)  # else it takes its GPU later, when a worker wants it
            return ""
        return str(fault) and f"JAX cannot start on its node: {fault}"


class Actor(Worker):
    """A worker that reports which node it is on."""

    def begin(self, arguments: Any) -> str:  # noqa: ANN401 - as `prepare` has them
        """Prepare the worker, and return Ray's id of its node."""
        self.prepare(arguments)
        return str(ray.get_runtime_context().get_node_id())


def actor_options(workers: WorkersConfig, device: str) -> dict[str, Any]:
    """Return Ray's options for a worker: its device, its cores, its environment, and no restart by Ray itself.

    Args:
        workers: the ``workers`` section of the configuration.
        device: ``cpu`` or ``gpu``.
    """
    options: dict[str, Any] = {"max_restarts": 0, "max_task_retries": 0}
    environment = dict(ALLOCATION)
    if device == "gpu":
        return options | {"num_gpus": 1, "runtime_env": {"env_vars": environment}}
    threads = str(workers.threads)
    # XLA sizes its thread pool by NPROC. The config sets the number of workers: Ray must not limit it by cores.
    environment |= {"JAX_PLATFORMS": "cpu", "NPROC": threads, "OMP_NUM_THREADS": threads}
    return options | {"num_cpus": 0, "scheduling_strategy": "SPREAD", "runtime_env": {"env_vars": environment}}


def _emptiest_node(workers: Sequence[WorkerHandle]) -> str:
    """Return the node with the fewest workers for its cores; empty if Ray knows of no node with cores."""
    load = Counter(worker.node for worker in workers)
    cores = {node["NodeID"]: node["Resources"].get("CPU", 0) for node in alive_nodes()}
    able = [node for node, count in cores.items() if count]
    return min(able, key=lambda node: (load[node] + 1) / cores[node], default="")
