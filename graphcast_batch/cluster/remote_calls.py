"""Call a function many times over a connected Ray cluster, or once on each of its nodes."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from graphcast_batch.cluster.drain import Drain
from graphcast_batch.cluster.nodes import alive_nodes, resources
from graphcast_batch.cluster.ray_errors import explained, unwrapped
from graphcast_batch.cluster.reach import ANSWER_SECONDS, within
from graphcast_batch.errors import ClusterError

_ANSWER_SECONDS: Final = 240.0
"""How long nodes may take for a single call: a hanging disk must not make the caller hang."""


def each(function: Callable[..., Any], argument_lists: Sequence[tuple[Any, ...]], drain: Drain) -> Iterator[Any]:
    """Call a function over a connected cluster, once for each list of arguments, until the drain is asked to stop.

    Yields:
        Results in the order of the arguments; for a call that failed, its exception.
    """
    remote = ray.remote(num_cpus=1, max_retries=1)(function)
    left, in_progress = deque(argument_lists), deque[Any]()
    most = 2 * max(1, int(resources().get("CPU", 1)))
    while left or in_progress:
        while left and len(in_progress) < most and not drain.asked:
            in_progress.append(within(ANSWER_SECONDS, "accept a call", partial(remote.remote, *left.popleft())))
        if not in_progress:
            return
        try:
            yield _awaited(in_progress.popleft())
        except RayTaskError as error:
            yield unwrapped(error)
        except RayError as error:
            yield ClusterError(f"a call of {function.__name__} was lost: {explained(error)}")


def on_each_node(function: Callable[..., Any], *arguments: Any) -> list[Any]:  # noqa: ANN401 - of whatever it takes
    """Call a function on all nodes of a connected cluster at once, with the number of the node and further arguments.

    Returns:
        Results in the order of the numbers; for a call that failed, its exception.
    """
    remote = ray.remote(num_cpus=0, max_retries=0)(function)
    places = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in alive_nodes()]
    in_progress = [
        remote.options(scheduling_strategy=place).remote(number, *arguments) for number, place in enumerate(places)
    ]
    ray.wait(in_progress, num_returns=len(in_progress), timeout=_ANSWER_SECONDS)
    return [_answer(reference) for reference in in_progress]


def _awaited(reference: Any) -> Any:  # noqa: ANN401 - Ray's references have no public type
    """Wait for the result of a call, for as long as the head of the cluster answers."""
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
