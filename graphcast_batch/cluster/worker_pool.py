"""Keep as many workers running as there are places and Cases for: start them, replace them and end them."""

import time
from collections.abc import Callable, KeysView, Sequence
from functools import partial
from typing import Any, Final

import ray
from ray.exceptions import RayError, RayTaskError

from graphcast_batch.cluster.nodes import alive_nodes, is_gone
from graphcast_batch.cluster.ray_errors import LESS_MEMORY, explained, unwrapped
from graphcast_batch.cluster.reach import within
from graphcast_batch.cluster.worker_start import WorkerHandle, WorkerStarter
from graphcast_batch.errors import ClusterError

_PAUSE_SECONDS: Final = 5.0
"""How long no worker is started after one failed to start: a node that has just died is still offered workers."""
_MOST_FAILED_STARTS: Final = 3
"""Workers that may fail to start one after another; one more ends the run."""
_END_SECONDS: Final = 10.0
"""How long Ray may take to end a worker."""


class WorkerPool:
    """The workers of a run that are starting or ready.

    Args:
        starter: starts each worker.
        note: called with an event and its text when a worker failed to start.

    Attributes:
        ready: the workers that take Cases, by name.
    """

    def __init__(self, starter: WorkerStarter, note: Callable[[str, str], None]) -> None:
        self.ready: dict[str, WorkerHandle] = {}
        self._starter = starter
        self._note = note
        self._starting: dict[Any, WorkerHandle] = {}
        self._failed_starts = 0
        self._start_from = time.monotonic()

    @property
    def starting(self) -> KeysView[Any]:
        """References of the workers that are starting; see `finish_start`."""
        return self._starting.keys()

    def check_head(self) -> None:
        """Check that the head of the cluster answers, if workers are starting, none of which would come without it.

        Raises:
            ClusterError: the head of the cluster does not answer.
        """
        if self._starting:
            alive_nodes()

    def fill(self, wanted: int, now: float) -> None:
        """Start as many workers as there are places for, except shortly after one has failed to start.

        Args:
            wanted: how many workers there is work for.
            now: seconds, of ``time.monotonic``.

        Raises:
            ClusterError: Ray does not start a worker.
        """
        if now < self._start_from:
            return
        workers = [*self.ready.values(), *self._starting.values()]
        for _ in range(min(self._starter.places, wanted) - len(workers)):
            worker, reference = self._starter.start(workers)
            self._starting[reference] = worker
            workers.append(worker)

    def finish_start(self, reference: Any) -> WorkerHandle | None:  # noqa: ANN401 - Ray's references have no public type
        """Return the worker whose start has ended, which is ready now; None if it has died.

        Args:
            reference: one of `starting` that has resolved.

        Raises:
            ClusterError: no worker can be started, so that the run cannot go on.
            GraphcastBatchError: the worker could not prepare itself.
        """
        worker = self._starting.pop(reference)
        try:
            worker.node = ray.get(reference)
        except RayTaskError as error:
            raise unwrapped(error) from error
        except RayError as error:
            self._failed_to_start(worker, error)
            return None
        self._failed_starts = 0
        self.ready[worker.name] = worker
        return worker

    def remove(self, worker: WorkerHandle) -> None:
        """End a ready worker, or forget one that is dead; `fill` starts another in its place."""
        ray.kill(worker.actor)
        del self.ready[worker.name]

    def end(self) -> None:
        """End all workers."""
        _end_all([*self.ready.values(), *self._starting.values()])

    def _failed_to_start(self, worker: WorkerHandle, error: RayError) -> None:
        """Note that a worker died before it was ready; raise if another would do no better."""
        ray.kill(worker.actor)
        if not is_gone(worker.node):
            self._failed_starts += 1
            # Where others are at work, the fault is that of one node.
            if self._failed_starts == 1 and not self.ready and (fault := self._starter.fault(worker)):
                raise ClusterError(f"a worker died before its first Case: {fault}") from error
        if self._failed_starts > _MOST_FAILED_STARTS:
            raise ClusterError(
                f"{self._failed_starts} workers died one after another before their first Case, the last: "
                f"{explained(error)}. Where no other cause is named, look for a lack of memory: {LESS_MEMORY}, or run "
                "on a machine that has more"
            ) from error
        self._note("worker lost", f"a worker died before its first Case: {explained(error)}")
        self._start_from = time.monotonic() + _PAUSE_SECONDS


def _end_all(workers: Sequence[WorkerHandle]) -> None:
    """End workers as long as Ray answers; otherwise they end with Ray."""
    for worker in workers:
        try:
            within(_END_SECONDS, "end a worker", partial(ray.kill, worker.actor))
        except (ClusterError, RayError):
            return
