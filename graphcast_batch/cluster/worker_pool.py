"""A run's worker processes: started on nodes that are alive, as many as there is room for."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from graphcast_batch.cluster.dispatch_rules import in_flight
from graphcast_batch.cluster.reach import ANSWER_SECONDS, within
from graphcast_batch.cluster.visible_devices import visible_devices
from graphcast_batch.cluster.worker import OpenScorer, Worker
from graphcast_batch.config.run_config import WorkersConfig
from graphcast_batch.errors import ClusterError
from graphcast_batch.models.graphcast.device_memory import ALLOCATION
from graphcast_batch.plan import Case
from graphcast_batch.setup.resources import Precision, needed_bytes
from graphcast_batch.setup.run_setup import RunSetup
from graphcast_batch.stores.base import Lease, Store

_ASK_SECONDS: Final = 60.0
_END_SECONDS: Final = 10.0


@dataclass
class WorkerHandle:
    """A worker, and what it has under way.

    Attributes:
        actor: Ray's handle.
        name: what `Dispatch` knows it by.
        node: Ray's id of the node that it runs on; empty until it is known.
        under_way: its Cases with their claims, by the reference of the call.
        verdict: the Case that it is killed for, and why; None as long as it may live.
    """

    actor: Any
    name: str
    node: str
    under_way: dict[Any, tuple[Case, Lease]] = field(default_factory=dict)
    verdict: tuple[str, BaseException] | None = None


class Actor(Worker):
    """A worker that tells where it is."""

    def begin(self, arguments: Any) -> str:  # noqa: ANN401 - as `prepare` has them
        """Gets ready, and tells Ray's id of its node."""
        self.prepare(arguments)
        return str(ray.get_runtime_context().get_node_id())


class WorkerPool:
    """Starts workers, all alike, on nodes that are alive."""

    def __init__(
        self,
        run: RunSetup,
        store: Store,
        device: Literal["cpu", "gpu"],
        precision: Precision,
        open_scorer: OpenScorer | None = None,
    ) -> None:
        config = run.config.model_copy(update={"store": store.path})
        # Sent once, not with every worker: a source may know a hundred thousand times.
        needed = needed_bytes(run, precision, accelerated=device == "gpu")
        self._arguments = ray.put((config, run.source, precision, device, needed, open_scorer))
        self._workers, self._device = run.config.workers, device
        self._in_flight = in_flight(run.config.model.cases_per_call)
        self._count = 0

    @property
    def places(self) -> int:
        """How many workers there is room for now."""
        return places(self._workers, self._device)

    def start(self, others: Sequence[WorkerHandle]) -> tuple[WorkerHandle, Any]:
        """A new worker, and the reference that resolves when it is ready."""
        options = actor_options(self._workers, self._device) | {"max_concurrency": self._in_flight + 1}
        node = "" if self._device == "gpu" else _emptiest_node(others)
        if node:
            # A soft affinity of an actor without CPUs is ignored (ray 2.60): it lands on any node.
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=False)
        self._count += 1
        create = ray.remote(Actor).options(**options).remote
        member = WorkerHandle(within(ANSWER_SECONDS, "start a worker", create), f"worker {self._count}", node)
        return member, member.actor.begin.remote(self._arguments)

    def fault(self, member: WorkerHandle) -> str:
        """Why JAX cannot start where a worker has died, and what to do; empty if it can, or cannot be asked."""
        options = actor_options(self._workers, self._device)
        asked: dict[str, Any] = {
            name: options[name] for name in ("num_cpus", "num_gpus", "runtime_env") if name in options
        }
        if member.node:
            asked["scheduling_strategy"] = NodeAffinitySchedulingStrategy(member.node, soft=True)
        asking = ray.remote(visible_devices).options(max_retries=0, **asked).remote()
        try:
            _, fault = ray.get(asking, timeout=_ASK_SECONDS)
        except RayError:
            ray.cancel(asking, force=True)  # else it takes its GPU later, when a worker wants it
            return ""
        return str(fault) and f"JAX cannot start on its node: {fault}"


def end_all(members: Sequence[WorkerHandle]) -> None:
    """Ends workers, as far as Ray still answers; otherwise they end with it."""
    for member in members:
        try:
            within(_END_SECONDS, "end a worker", partial(ray.kill, member.actor))
        except (ClusterError, RayError):
            return


def device_of(workers: WorkersConfig) -> Literal["cpu", "gpu"]:
    """What the workers of a run compute on.

    Raises:
        ClusterError: GPUs are asked for that the cluster has not.
    """
    gpus = int(resources().get("GPU", 0))
    if workers.device == "gpu" and not gpus:
        raise ClusterError(
            "workers.device is gpu, but Ray sees no GPU; run where there is one, or set workers.device: cpu"
        )
    device: Literal["cpu", "gpu"] = "gpu" if gpus and workers.device != "cpu" else "cpu"
    if device == "gpu" and workers.count and workers.count > gpus:
        raise ClusterError(f"workers.count must be at most the number of GPUs, {gpus}, but is {workers.count}")
    return device


def most_on_a_node(workers: WorkersConfig) -> int:
    """Workers that the fullest of the nodes will have which are there now, if they are of one size."""
    nodes = len([node for node in alive_nodes() if node["Resources"].get("CPU", 0)])
    return math.ceil((workers.count or 1) / max(1, nodes))


def resources() -> dict[str, float]:
    """What the nodes that are there now have together, by Ray's names."""
    # Ray leaves it without types.
    return dict(within(ANSWER_SECONDS, "report its resources", lambda: ray.cluster_resources()))  # type: ignore[no-untyped-call]


def is_gone(node: str) -> bool:
    """Whether a node is known to be dead, by Ray's id; empty for one that is not known yet."""
    return bool(node) and node not in {known["NodeID"] for known in alive_nodes()}


def alive_nodes() -> list[dict[str, Any]]:
    """The nodes that are there now, as Ray describes them."""
    nodes = within(ANSWER_SECONDS, "report its nodes", lambda: ray.nodes())  # type: ignore[no-untyped-call] # as above
    return [node for node in nodes if node["Alive"]]


def places(workers: WorkersConfig, device: str) -> int:
    """How many workers there is room for on the nodes that are there now."""
    if device == "cpu":
        return workers.count or max(1, int(resources().get("CPU", 1)) // workers.threads)
    gpus = int(resources().get("GPU", 0))
    return min(workers.count or gpus, gpus)


def _emptiest_node(members: Sequence[WorkerHandle]) -> str:
    """The node with the fewest workers for its cores; empty if Ray knows of none."""
    load = Counter(member.node for member in members)
    cores = {node["NodeID"]: node["Resources"].get("CPU", 0) for node in alive_nodes()}
    able = [node for node, count in cores.items() if count]
    return min(able, key=lambda node: (load[node] + 1) / cores[node], default="")


def actor_options(workers: WorkersConfig, device: str) -> dict[str, Any]:
    """What Ray is told of a worker: its device, its cores, and that nobody but us starts it anew."""
    options: dict[str, Any] = {"max_restarts": 0, "max_task_retries": 0}
    environment = dict(ALLOCATION)
    if device == "gpu":
        return options | {"num_gpus": 1, "runtime_env": {"env_vars": environment}}
    threads = str(workers.threads)
    # XLA sizes its thread pool by NPROC. The count of workers is the config's own: Ray is not to hold it back.
    environment |= {"JAX_PLATFORMS": "cpu", "NPROC": threads, "OMP_NUM_THREADS": threads}
    return options | {"num_cpus": 0, "scheduling_strategy": "SPREAD", "runtime_env": {"env_vars": environment}}
