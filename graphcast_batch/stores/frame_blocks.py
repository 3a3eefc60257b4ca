"""Cut the frames that a model computes down to the blocks that a store keeps of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graphcast_batch.grid import Grid
from graphcast_batch.plan import Case
from graphcast_batch.stores.base import Store


@dataclass(frozen=True, eq=False)
class Block:
    """Some lead times of a Case, for `Attempt.write`, or by variable for `Attempt.write_variable`.

    Attributes:
        first: the first of the lead times, counted from 0 among those that the store keeps.
        values: by variable, float32 (k, [level], latitude, longitude); may be views of the frames.
    """

    first: int
    values: Mapping[str, NDArray[np.float32]]


class Blocks:
    """Cuts what a store keeps out of the frames of one Case; for one thread at a time.

    Frames are not collected: the store writes each block as it comes, so that only the frames of the last call are in
    memory, however long the forecast is.
    """

    def __init__(self, case: Case, store: Store, grid: Grid, levels: Sequence[int]) -> None:
        """Begin with the first frame.

        Args:
            case: the Case that the frames belong to.
            store: the store that the blocks are for, laid out for the Case.
            grid: the points of a frame.
            levels: the levels of a frame, hPa, ascending.
        """
        kept = store.kept
        self._on_levels = kept.on_levels
        self._places = {lead: place for place, lead in enumerate(kept.lead_hours)}
        # The first frames of a forecast with a lag are at lead times that no store keeps.
        self._hours = range(case.hours - case.step_hours * (case.computed.steps - 1), case.hours + 1, case.step_hours)
        self._steps = 0
        self._levels = _index([levels.index(level) for level in kept.levels])
        self._rows = _index(np.searchsorted(grid.latitude, kept.latitude))
        self._columns = _index(_columns(kept.longitude, grid))

    def add(self, frames: Mapping[str, NDArray[np.float32]]) -> list[Block]:
        """Cut what the store keeps out of the next frames, which must not change until the block is written.

        Args:
            frames: by variable, float32 (step, [level], latitude, longitude).

        Returns:
            One block, or none if the store keeps none of these frames.
        """
        count = next(iter(frames.values())).shape[0]
        hours = self._hours[self._steps : self._steps + count]
        self._steps += count
        wanted = [step for step, lead in enumerate(hours) if lead in self._places]
        if not wanted:
            return []
        steps, first = _index(wanted), self._places[hours[wanted[0]]]
        return [Block(first, {name: self._cut(frames[name][steps], levelled) for name, levelled in self._on_levels})]

    def _cut(self, values: NDArray[np.float32], levelled: bool) -> NDArray[np.float32]:
        at_levels = values[:, self._levels] if levelled else values
        return at_levels[..., self._rows, :][..., self._columns]


def _columns(longitude: NDArray[np.float32], grid: Grid) -> NDArray[np.intp]:
    """Return the index of each longitude, which may be negative, on a grid."""
    beyond = longitude.astype(np.float64) - float(grid.longitude[0])
    return np.rint(beyond / grid.resolution).astype(np.intp) % grid.longitude.size


def _index(places: ArrayLike) -> slice | NDArray[np.intp]:
    """Return an index for these positions of an axis: a slice, which copies nothing, if they are consecutive."""
    found = np.asarray(places, np.intp)
    consecutive = found.size > 0 and bool(np.all(np.diff(found) == 1))
    return slice(int(found[0]), int(found[-1]) + 1) if consecutive else found
