"""Train on one device, in step with the other workers of a training."""

import math
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import numpy as np

from graphcast_batch.errors import TrainingError
from graphcast_batch.models.base import Precision
from graphcast_batch.models.disk_cache import Cache, users_folder
from graphcast_batch.models.graphcast.loss import persistence_loss
from graphcast_batch.models.graphcast.trainer import Trainer, arrays_of
from graphcast_batch.models.graphcast.training_program import Samples
from graphcast_batch.models.graphs import cached_graphs
from graphcast_batch.models.normalization import normalization
from graphcast_batch.models.programs import compiled_once
from graphcast_batch.pipeline.peak_memory import peak_memory_bytes
from graphcast_batch.training.sample_order import drawn, share
from graphcast_batch.training.samples import SampleReader
from graphcast_batch.training.training_folder import TrainingFolder, TrainingState
from graphcast_batch.training.training_setup import TrainingSetup

_AHEAD: Final = 3
"""Number of later updates whose samples are read ahead."""


class TrainingWorker:
    """Trains on one device, in step with the others; what an update does depends on its number alone.

    Attributes:
        update: how many updates have been made.
    """

    update: int

    def __init__(self, setup: TrainingSetup, precision: Precision, rank: int, workers: int, keep_bytes: int) -> None:
        """Load weights and graphs onto the device, and resume from the folder's state if there is one.

        Args:
            setup: the training.
            precision: precision of the network.
            rank: number of this worker, from 0.
            workers: how many workers train together.
            keep_bytes: bytes of fields that may be kept in memory.

        Raises:
            TrainingError: the folder holds another training.
            GraphcastBatchError: a part is missing or does not fit.
        """
        recipe, checkpoint, kept_in = setup.recipe, setup.checkpoint, users_folder()
        cache = Cache(kept_in).check() if kept_in else None
        self._setup, self._rank, self._workers = setup, rank, workers
        self._reader = SampleReader(setup.source, setup.channels, checkpoint.task, keep_bytes)
        self._trainer = Trainer(
            checkpoint,
            setup.statistics.by_kind,
            setup.source.grid,
            setup.channels,
            setup.static,
            cached_graphs(checkpoint.architecture, setup.source.grid, cache),
            precision,
            weight_decay=recipe.weight_decay,
            clip=recipe.clip,
            average=recipe.average,
            frozen=setup.frozen,
            together=recipe.samples_per_call,
        )
        self._folder = TrainingFolder(recipe.folder)
        self._training, self.update = self._trainer.begin(), 0
        state = self._folder.state()
        if state:
            self._training, self.update = self._trainer.restored(self._training, state.arrays), state.update
        self._ahead: dict[int, Future[Samples]] = {}
        self._pool = ThreadPoolExecutor(1, "samples")
        # JAX keeps what the first of several processes compiles only, and on GPUs all must compile at once, as each
        # tries out a share of what is fast: none of them may wait for another.
        self._cache = cache if workers == 1 else None
        self._ready: set[tuple[object, ...]] = set()

    def advance(self, updates: int) -> list[dict[str, float]]:
        """Make updates of one phase, up to one that cannot be made.

        Returns:
            A line of the record for each update that was made.

        Raises:
            TrainingError: in the first of the updates the loss or its gradient is not finite any more; the weights stay
                as they were.
            GraphcastBatchError: samples cannot be read.
        """
        lines: list[dict[str, float]] = []
        for _ in range(min(updates, self._setup.recipe.updates - self.update)):
            phase, within = self._setup.recipe.phase_of(self.update)
            rate = phase.rate(within)
            begun = time.perf_counter()
            samples = self._samples()
            waited = time.perf_counter() - begun
            compiling = self._compile(samples)
            self._training, update = self._trainer.update(self._training, samples, rate)
            loss, norm = float(update.loss), float(update.gradient_norm)
            if not np.isfinite([loss, norm]).all():
                if lines:  # the next call fails in the same way, and these lines are not lost
                    break
                raise self._diverged(loss, norm, rate)
            del self._ahead[self.update]
            self.update += 1
            seconds = time.perf_counter() - begun - compiling
            line = {"update": self.update, "rollout": phase.rollout, "rate": rate, "loss": loss, "gradient_norm": norm}
            parts = {f"loss {name}": float(part) for name, part in update.parts.items()}
            lines.append(line | {"seconds": seconds, "waited": waited, "peak_bytes": peak_memory_bytes()} | parts)
        return lines

    def validate(self) -> tuple[float, float]:
        """Return the sums of the losses of this worker's validation samples, and of persistence for them."""
        setup, rollout = self._setup, self._setup.recipe.validation.rollout
        scales = normalization(setup.channels, setup.statistics.by_kind)
        times, losses, persistence = setup.validation, 0.0, 0.0
        # All workers compute equally often: one that has no sample left computes the last one again, uncounted.
        rounds = math.ceil(times.size / self._workers)
        for place in range(self._rank, rounds * self._workers, self._workers):
            last = min(place, times.size - 1)
            samples = self._pool.submit(self._reader.read, times[last : last + 1], rollout).result()
            with self._once("validation", rollout):
                (loss,) = self._trainer.losses(self._training, samples)
            if place < times.size:
                losses += float(loss)
                persistence += persistence_loss(
                    setup.channels, setup.source.grid, scales, samples.frames[0, -1], samples.targets[0]
                )
        return losses, persistence

    def save(self) -> None:
        """Write a checkpoint, if this is the first of the workers."""
        if self._rank == 0:
            begun, recipe = self._setup.checkpoint, self._setup.recipe
            state = TrainingState(self.update, arrays_of(self._training), recipe.model_dump(mode="json"), begun.sha256)
            description = f"trained by graphcast-batch for {self.update} updates, from: {begun.description}"
            parameters = self._trainer.result(self._training)
            of_grid = {"resolution": self._setup.source.grid.square_step}
            architecture = begun.architecture.model_copy(update=of_grid)
            trained = replace(begun, parameters=parameters, architecture=architecture)
            self._folder.save(state, replace(trained, description=description, sha256=""))

    def _samples(self) -> Samples:
        """Return the samples of the next update; those of later updates are read ahead."""
        last = min(self.update + _AHEAD, self._setup.recipe.updates - 1)
        for update in range(self.update, last + 1):
            if update not in self._ahead:
                self._ahead[update] = self._pool.submit(self._read, update)
        return self._ahead[self.update].result()

    def _read(self, update: int) -> Samples:
        recipe = self._setup.recipe
        phase, _ = recipe.phase_of(update)
        times = self._setup.times[phase.rollout]
        own = share(drawn(recipe.seed, times.size, recipe.batch, update), self._rank, self._workers)
        return self._reader.read(times[own], phase.rollout)

    def _compile(self, samples: Samples) -> float:
        """Compile the program of an update; return the seconds that it took, which do not count for the update."""
        begun = time.perf_counter()
        with self._once("update", samples.targets.shape[:2], self._setup.recipe.samples_per_call):
            self._trainer.compile(self._training, samples)
        return time.perf_counter() - begun

    @contextmanager
    def _once(self, *key: object) -> Iterator[None]:
        """Let the context compile a program, or take it from the cache, the first time that the program is used."""
        if key in self._ready:
            yield
            return
        begun = self._setup.checkpoint
        with compiled_once(self._cache, *key, begun.architecture, begun.task, self._setup.source.grid.shape):
            yield
        self._ready.add(key)

    def _diverged(self, loss: float, norm: float, rate: float) -> TrainingError:
        return TrainingError(
            f"the loss and its gradient must stay finite, but are {loss} and of norm {norm} at update "
            f"{self.update + 1} (learning rate {rate:.3g}); {self._folder.weights} is of the last checkpoint: lower "
            "the peak, warm up for longer, or look at the samples"
        )
