"""Give the model of a worker the weights of each Case: those of one checkpoint after another, or always the same."""

import threading
from collections import OrderedDict
from collections.abc import Callable

from graphcast_batch.models.base import Model, Parameters
from graphcast_batch.plan import Case


class MemberWeights:
    """The checkpoints of an ensemble, of which the model has one at a time.

    The numbers of the checkpoints that were used last are kept in memory.
    """

    def __init__(
        self, checkpoint_of: Callable[[Case], int], read: Callable[[int], Parameters], kept: int, first: Parameters
    ) -> None:
        """Read no more than the first checkpoint, which the model has at first.

        Args:
            checkpoint_of: returns the number of the checkpoint that makes a Case.
            read: reads the weights of a checkpoint.
            kept: number of checkpoints that are kept in memory, at least 1.
            first: weights of the checkpoint number 0.
        """
        self.checkpoint_of = checkpoint_of
        self._read = read
        self._kept = kept
        self._loaded: int | None = 0
        self._held: OrderedDict[int, Parameters] = OrderedDict({0: first})
        self._lock = threading.Lock()

    def fetch(self, case: Case) -> Parameters:
        """Return the weights of a Case, from memory or from their file; several threads may call this.

        Raises:
            CheckpointError: the file cannot be read, or holds other weights than when the run began.
        """
        number = self.checkpoint_of(case)
        with self._lock:
            if number not in self._held:
                while len(self._held) >= self._kept:
                    self._held.popitem(last=False)
                self._held[number] = self._read(number)
            self._held.move_to_end(number)
            return self._held[number]

    def holds(self, case: Case) -> bool:
        """Return whether the weights of a Case are in memory."""
        return self.checkpoint_of(case) in self._held

    def wants_others(self, case: Case) -> bool:
        """Return whether the model has other weights than those of a Case."""
        return self.checkpoint_of(case) != self._loaded

    def put_into(self, model: Model, case: Case) -> None:
        """Replace the weights of the model by those of a Case; called by the thread that has the device.

        Raises:
            CheckpointError: as of `fetch`.
        """
        parameters = self.fetch(case)
        self._loaded = None  # if the device runs out of memory, it has none
        model.replace_weights(parameters)
        self._loaded = self.checkpoint_of(case)
