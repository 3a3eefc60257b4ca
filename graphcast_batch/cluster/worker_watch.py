"""Ask each worker of a run what its Cases are doing, and kill the workers that hang."""

import time
from collections.abc import KeysView
from typing import Any, Final

import ray
from ray.exceptions import RayError

from graphcast_batch.cluster.outcome import RunProgress
from graphcast_batch.cluster.worker import WorkerState
from graphcast_batch.cluster.worker_pool import WorkerPool
from graphcast_batch.cluster.worker_start import WorkerHandle
from graphcast_batch.config.run_config import TimeLimitsConfig
from graphcast_batch.errors import StageTimeoutError
from graphcast_batch.pipeline.stages import CaseStage

_SHORTEST_PAUSE_SECONDS: Final = 2.0
"""Between two questions to a worker, whose answers a person may be watching."""
_LONGEST_PAUSE_SECONDS: Final = 10.0
_ASKED_A_SECOND: Final = 50
"""Workers that are asked in a second at most: hundreds of workers are asked less often."""


class WorkerWatch:
    """Shows the state of all workers, and kills those in which a Case exceeds a time limit.

    Args:
        pool: the workers.
        limits: seconds that a Case may be in each stage without progress.
        progress: receives the states.
    """

    def __init__(self, pool: WorkerPool, limits: TimeLimitsConfig, progress: RunProgress) -> None:
        self._pool = pool
        self._limits = limits
        self._progress = progress
        self._asked: dict[Any, tuple[WorkerHandle, float]] = {}
        self._asked_at = time.monotonic()

    @property
    def asked(self) -> KeysView[Any]:
        """References of the questions that are not answered yet; see `take_answer`."""
        return self._asked.keys()

    def ask(self) -> None:
        """Ask each worker for its state, now and then; kill a worker that does not answer for too long."""
        workers = self._pool.ready.values()
        pause = min(_LONGEST_PAUSE_SECONDS, max(_SHORTEST_PAUSE_SECONDS, len(workers) / _ASKED_A_SECOND))
        if time.monotonic() - self._asked_at < pause:
            return
        self._asked_at = time.monotonic()
        waiting = {worker.name: since for worker, since in self._asked.values()}
        for worker in workers:
            since = waiting.get(worker.name)
            if since is None and worker.in_progress:
                self._asked[worker.actor.report.remote(self._limits)] = worker, self._asked_at
            elif since is not None and self._asked_at - since > max(self._limits.model_dump().values()):
                # A hanging library call may hold Python's lock, so that the worker cannot report which Case it is.
                self._progress.note("worker lost", f"{worker.name} has not answered for longer than any stage may take")
                ray.kill(worker.actor)

    def take_answer(self, reference: Any) -> None:  # noqa: ANN401 - Ray's references have no public type
        """Show the state that a worker has reported; kill the worker if one of its Cases exceeds a time limit.

        Args:
            reference: one of `asked` that has resolved.
        """
        worker, _ = self._asked.pop(reference)
        try:
            state: WorkerState = ray.get(reference)
        except RayError:
            return  # the calls that make its Cases fail as well, and are handled there
        worker.pace.steps = {stage.key: stage.steps for stage in state.stages}
        self._progress.under_way(state.worker, state.stages)
        if state.late is not None and worker.name in self._pool.ready:
            worker.killed_for = state.late.key, _timed_out(state.late)
            ray.kill(worker.actor)


def _timed_out(late: CaseStage) -> StageTimeoutError:
    if late.name == "wait":
        return StageTimeoutError(
            f"{late.key} must not wait while its worker reads, computes and writes nothing, but does so for "
            f"{late.seconds:.0f} s: a thread of the worker has died or could not start; look at the limits of its "
            "memory and threads (ulimit -v and -u)"
        )
    if late.name == "compute":
        return StageTimeoutError(
            f"{late.key} must not wait for a call of the program for longer than time_limits.compute for each step and "
            "Case in the call, and an hour more for the first call of a worker, but has waited for "
            f"{late.seconds:.0f} s; look at what else uses the device, or raise the limit"
        )
    return StageTimeoutError(
        f"{late.key} must not be in the stage {late.name} for longer than time_limits.{late.name} without progress, "
        f"but has been for {late.seconds:.0f} s; look at what it waits for, or raise the limit"
    )
