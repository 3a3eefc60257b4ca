"""Start and call the workers of a training, which all make the same update at the same time."""

import math
import socket
import time
from collections.abc import Sequence
from typing import Any, Final

import ray
from ray.exceptions import RayError, RayTaskError

from graphcast_batch.cluster.nodes import alive_nodes, device_of, places
from graphcast_batch.cluster.ray_errors import explained, unwrapped
from graphcast_batch.cluster.reach import ANSWER_SECONDS
from graphcast_batch.cluster.usable_memory import usable_bytes
from graphcast_batch.cluster.worker_start import actor_options
from graphcast_batch.errors import ClusterError, ConfigError, GraphcastBatchError, WorkersLostError
from graphcast_batch.models.devices import backend
from graphcast_batch.models.process_group import join
from graphcast_batch.recipe import TrainingRecipe
from graphcast_batch.setup.resources import resolved_precision
from graphcast_batch.training.training_loop import Line
from graphcast_batch.training.training_setup import TrainingSetup
from graphcast_batch.training.training_worker import TrainingWorker

_KEPT: Final = 0.25
"""Fraction of a machine's memory for fields that were read and may be used again."""
_START_SECONDS: Final = 300.0
"""How long Ray may take to find a place for a worker and to start it."""
_REST_SECONDS: Final = 5.0
"""Pause before workers are started again: a node that has just died is still offered workers."""
_DEATH_SECONDS: Final = 30.0
"""How long after other workers failed Ray may take to report the death that made them fail."""


class _Actor:
    """Ray actor of one training worker."""

    def __init__(self) -> None:
        self._worker: TrainingWorker | None = None

    def address(self) -> str:
        """Return HOST:PORT at which the other workers can connect to this one."""
        with socket.socket() as free:
            free.bind(("", 0))
            host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call] # Ray leaves it without types
            return f"{host}:{free.getsockname()[1]}"

    def prepare(self, setup: TrainingSetup, device: str, rank: int, workers: int, address: str, on_node: int) -> int:
        """Prepare the worker, one of ``on_node`` workers on its node; return how many updates have been made before."""
        if workers > 1:
            join(address, rank, workers)
        if device == "gpu" and backend() == "cpu":
            raise ClusterError(
                f"Ray gave a worker on {socket.gethostname()} a GPU, but JAX sees only the CPU there; install "
                "graphcast-batch[cuda13] or [cuda12] to fit the driver, or set workers.device: cpu"
            )
        precision = resolved_precision(setup.recipe.model.precision, accelerated=device == "gpu")
        self._worker = TrainingWorker(setup, precision, rank, workers, int(_KEPT * usable_bytes() / on_node))
        return self._worker.update

    def call(self, what: str, *arguments: object) -> Any:  # noqa: ANN401 - what it returns
        """Call a method of the training worker by name, and return its result."""
        return getattr(self._worker, what)(*arguments)


class TrainingGroup:
    """The workers of a training.

    Attributes:
        update: how many updates have been made.
    """

    update: int

    def __init__(self, setup: TrainingSetup) -> None:
        """Start the workers.

        Args:
            setup: the training.

        Raises:
            ConfigError: the batch cannot be divided among the workers.
            WorkersLostError: a worker died.
            ClusterError: the workers cannot be started.
        """
        self._setup, self._actors = setup, list[Any]()
        self._device = device_of(setup.recipe.workers)
        self._start()

    def restart(self) -> None:
        """Start all workers again, as many as there is room for now, from the last checkpoint."""
        self.stop()
        time.sleep(_REST_SECONDS)
        self._start()

    def stop(self) -> None:
        """End all workers."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []

    def advance(self, updates: int) -> Sequence[Line]:
        """Make updates; return a line of the record for each."""
        lines: Sequence[Line] = self._all("advance", updates)[0]
        self.update += len(lines)
        return lines

    def validate(self) -> tuple[float, float]:
        """Return the mean loss of the validation samples, and that of persistence."""
        losses, persistence = zip(*self._all("validate"), strict=True)
        count = self._setup.validation.size
        return sum(losses) / count, sum(persistence) / count

    def save(self) -> None:
        """Write a checkpoint."""
        self._all("save")

    def _start(self) -> None:
        workers = self._setup.recipe.workers
        count = places(workers, self._device)
        _check_batch(self._setup.recipe, count)
        options = actor_options(workers, self._device)
        self._actors = [ray.remote(_Actor).options(**options).remote() for _ in range(count)]
        address = self._each([actor.address.remote() for actor in self._actors], _START_SECONDS)[0]
        on_node = math.ceil(count / max(1, len(alive_nodes())))
        setup = ray.put(self._setup)
        updates = self._each(
            [
                actor.prepare.remote(setup, self._device, rank, count, address, on_node)
                for rank, actor in enumerate(self._actors)
            ]
        )
        if len(set(updates)) > 1:
            raise ClusterError(
                f"all workers must see the same {self._setup.recipe.folder}, but find trainings of "
                f"{sorted(set(updates))} updates there; put it on a disk that all nodes share"
            )
        self.update = updates[0]

    def _all(self, what: str, *arguments: object) -> list[Any]:
        return self._each([actor.call.remote(what, *arguments) for actor in self._actors])

    def _each(self, references: Sequence[Any], seconds: float | None = None) -> list[Any]:
        """Return the results of all calls; raise at the first error, since the other workers wait for that one."""
        left = list(references)
        while left:
            done, left = ray.wait(left, timeout=seconds or ANSWER_SECONDS)
            if not done and seconds is None:
                alive_nodes()  # raises if the head of the cluster no longer answers
                continue
            if not done:
                raise ClusterError(
                    f"Ray must start {len(references)} workers, but {len(left)} of them are not ready after "
                    f"{seconds:.0f} s; free room for them, or set workers.count"
                )
            try:
                ray.get(done)
            except RayTaskError as error:
                cause = unwrapped(error)
                if not isinstance(cause, GraphcastBatchError):
                    _check_for_dead(left)
                raise _explained(cause) from error
            except RayError as error:
                raise _lost(error) from error
        try:
            return list(ray.get(list(references)))
        except RayError as error:  # a result may be lost with its node after it was there
            raise _lost(error) from error


def _check_batch(recipe: TrainingRecipe, workers: int) -> None:
    share = workers * recipe.samples_per_call
    if recipe.batch % share:
        raise ConfigError(
            f"batch must be a multiple of the {workers} workers times {recipe.samples_per_call} samples of a call, but "
            f"is {recipe.batch}; take a multiple of {share}, or set workers.count"
        )


def _check_for_dead(references: Sequence[Any]) -> None:
    """Raise if a worker has died: its death may make others fail, whose errors may arrive first."""
    done, _ = (
        ray.wait(list(references), num_returns=len(references), timeout=_DEATH_SECONDS) if references else ([], [])
    )
    for reference in done:
        try:
            ray.get(reference)
        except RayTaskError:
            continue
        except RayError as error:
            raise _lost(error) from error


def _lost(error: RayError) -> WorkersLostError:
    return WorkersLostError(f"a worker of the training died: {explained(error)}")


def _explained(error: BaseException) -> BaseException:
    if "RESOURCE_EXHAUSTED" in str(error):  # how XLA reports it
        return ClusterError(
            "the device of a worker must have room for an update, but has too little; set samples_per_call lower, or "
            f"take a smaller model, shorter rollouts or a larger device ({str(error).partition(chr(10))[0]})"
        )
    return error
