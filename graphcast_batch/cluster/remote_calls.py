"""Call a function many times over a connected Ray cluster, or once on each of its nodes."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from graphcast_batch.cluster.drain import Drain
from graphcast_batch.cluster.ray_errors import explained, unwrapped
from graphcast_batch.cluster.reach import ANSWER_SECONDS, within
from graphcast_batch.cluster.worker_pool import alive_nodes, resources
from graphcast_batch.errors import ClusterError

_ANSWER_SECONDS: Final = 240.0
"""How long nodes may take for a single call: a hung disk must not hang whoever looks at it."""


def each(function: Callable[..., Any], argument_lists: Sequence[tuple[Any, ...]], drain: Drain) -> Iterator[Any]:
    """Calls a function over a connected cluster, a call for each list of arguments, until it is asked to stop.

    Yields:
        Results in the order of the arguments; for a call that failed, its exception.
    """
    remote = ray.remote(num_cpus=1, max_retries=1)(function)
    left, under_way = deque(argument_lists), deque[Any]()
    most = 2 * max(1, int(resources().get("CPU", 1)))
    while left or under_way:
        while left and len(under_way) < most and not drain.asked:
            under_way.append(within(ANSWER_SECONDS, "take in a call", partial(remote.remote, *left.popleft())))
        if not under_way:
            return
        try:
            yield _awaited(under_way.popleft())
        except RayTaskError as error:
            yield unwrapped(error)
        except RayError as error:
            yield ClusterError(f"a call of {function.__name__} was lost: {explained(error)}")


def on_each_node(function: Callable[..., Any], *arguments: Any) -> list[Any]:  # noqa: ANN401 - of whatever it takes
    """Calls a function on every node of a connected cluster at the same time: with the node's number, and arguments.

    Returns:
        Results in the order of the numbers; for a call that failed, its exception.
    """
    remote = ray.remote(num_cpus=0, max_retries=0)(function)
    places = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in alive_nodes()]
    under_way = [
        remote.options(scheduling_strategy=place).remote(number, *arguments) for number, place in enumerate(places)
    ]
    ray.wait(under_way, num_returns=len(under_way), timeout=_ANSWER_SECONDS)
    return [_answer(reference) for reference in under_way]


def _awaited(reference: Any) -> Any:  # noqa: ANN401 - Ray's references have no public type
    """The result of a call, for as long as the head of the cluster answers."""
    while True:
        try:
            return ray.get(reference, timeout=ANSWER_SECONDS)
        except GetTimeoutError as error:
            if isinstance(error, RayTaskError):  # which the function has raised
                raise
            alive_nodes()


def _answer(reference: Any) -> Any:  # noqa: ANN401 - Ray's references have no public type
    try:
        return ray.get(reference, timeout=0)
    except RayTaskError as error:
        return unwrapped(error)
    except RayError as error:
        return ClusterError(f"it must answer within {_ANSWER_SECONDS:.0f} s, but has not: {explained(error)}")
