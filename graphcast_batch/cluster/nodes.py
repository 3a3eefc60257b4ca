"""Ask a connected Ray cluster which nodes, cores and GPUs it has now, and how many workers there is room for."""

import math
from typing import Any, Literal

import ray

from graphcast_batch.cluster.reach import ANSWER_SECONDS, within
from graphcast_batch.config.run_config import WorkersConfig
from graphcast_batch.errors import ClusterError


def resources() -> dict[str, float]:
    """Return the sum of the resources of all living nodes, by Ray's names such as ``CPU`` and ``GPU``."""
    # Ray leaves it without types.
    return dict(within(ANSWER_SECONDS, "report its resources", lambda: ray.cluster_resources()))  # type: ignore[no-untyped-call]


def alive_nodes() -> list[dict[str, Any]]:
    """Return the living nodes of the cluster, as Ray describes them.

    Raises:
        ClusterError: the head of the cluster does not answer.
    """
    nodes = within(ANSWER_SECONDS, "report its nodes", lambda: ray.nodes())  # type: ignore[no-untyped-call] # as above
    return [node for node in nodes if node["Alive"]]


def is_gone(node: str) -> bool:
    """Return whether a node is known to be dead.

    Args:
        node: Ray's id of the node; empty if it is not known yet, which does not count as dead.
    """
    return bool(node) and node not in {known["NodeID"] for known in alive_nodes()}


def device_of(workers: WorkersConfig) -> Literal["cpu", "gpu"]:
    """Return the kind of device that the workers of a run compute on.

    Raises:
        ClusterError: the configuration asks for more GPUs than the cluster has.
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


def places(workers: WorkersConfig, device: str) -> int:
    """Return how many workers there is room for on the living nodes.

    Args:
        workers: the ``workers`` section of the configuration.
        device: ``cpu`` or ``gpu``.
    """
    if device == "cpu":
        return workers.count or max(1, int(resources().get("CPU", 1)) // workers.threads)
    gpus = int(resources().get("GPU", 0))
    return min(workers.count or gpus, gpus)


def most_on_a_node(workers: int, device: str) -> int:
    """Return how many workers the fullest node will have, if all living nodes that can have any are alike.

    Args:
        workers: number of workers on all nodes.
        device: ``cpu`` or ``gpu``.
    """
    able = [node for node in alive_nodes() if node["Resources"].get(device.upper(), 0)]
    return max(1, math.ceil(workers / max(1, len(able))))
