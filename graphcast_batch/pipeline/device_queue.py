"""Compute the Cases of one worker on its device, by a queue and a thread that has the device for all of them."""

import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager

import numpy as np

from graphcast_batch.errors import ClusterError
from graphcast_batch.inputs.case_inputs import CaseInputs
from graphcast_batch.models.base import Frames, Model
from graphcast_batch.pipeline.case_frames import CaseFrames, steps_of
from graphcast_batch.pipeline.member_weights import MemberWeights
from graphcast_batch.timing import clock

_Group = list[tuple[CaseFrames, CaseInputs]]
"""Cases that are computed together, each with what it starts from."""


class DeviceQueue:
    """Computes Cases that were read, one group after another, in a thread that lasts while there are any.

    The results of a call are fetched to the host only when the next call has been started, of the same Cases or of
    others, so that the device always has work. At most two groups are between their first call and their last block,
    which bounds the memory for frames.
    """

    def __init__(self, model: Model, size: int, weights: MemberWeights | None = None) -> None:
        """Start no thread yet.

        Args:
            model: the model on the device.
            size: number of Cases that are computed together, where there are so many.
            weights: weights of the Cases; None if all have those of the model.
        """
        self._weights = weights
        self._model = model
        self._size = size
        self._changed = threading.Condition()
        self._expected = 0
        self._waiting: deque[tuple[CaseFrames, CaseInputs]] = deque()
        self._first: set[CaseFrames] = set()
        self._open: set[CaseFrames] = set()
        self._is_at_work = False
        self._under_way: tuple[list[CaseFrames], Sequence[Frames]] | None = None

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Announce within the context that a Case will be queued: those that could share its calls wait for it."""
        with self._changed:
            self._expected += 1
        try:
            yield
        finally:
            with self._changed:
                self._expected -= 1
                self._changed.notify_all()

    def wait_for_room(self) -> None:
        """Wait until less than a full group is waiting for the device."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < self._size)

    def queue(self, frames: CaseFrames, inputs: CaseInputs, *, first: bool = False) -> None:
        """Queue a Case to be computed.

        Args:
            frames: take the frames of the Case.
            inputs: what it starts from.
            first: whether it is computed before the others, and does not wait for any that could share its calls.

        Raises:
            ClusterError: the process can start no thread to compute it.
        """
        with self._changed:
            if first:
                self._first.add(frames)
                self._waiting.appendleft((frames, inputs))
            else:
                self._waiting.append((frames, inputs))
            self._changed.notify_all()
            if not self._is_at_work:
                try:
                    threading.Thread(target=self._work, name="compute", daemon=True).start()
                except (RuntimeError, MemoryError) as error:
                    self._waiting.remove((frames, inputs))
                    raise ClusterError(
                        f"a worker must be able to start a thread for its device, but cannot: {error}; raise the "
                        "limits of its processes (ulimit -v and -u), or take fewer workers"
                    ) from error
                self._is_at_work = True

    @contextmanager
    def giving(self, frames: CaseFrames) -> Iterator[None]:
        """Compute the frames of a queued Case within the context, and drop the Case at its end."""
        try:
            yield
        finally:
            frames.refuse()
            with self._changed:
                self._open.discard(frames)
                self._first.discard(frames)
                self._waiting = deque(start for start in self._waiting if start[0] is not frames)
                self._changed.notify_all()

    def _work(self) -> None:
        try:
            while self._has_work():
                group = self._next_group()
                if group:
                    self._compute(group)
                else:
                    self._hand_on()
        except BaseException as error:  # such as a lack of memory between two calls
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        """Fail all Cases that wait for the device; the next one that is queued starts another thread."""
        with self._changed:
            self._is_at_work = False
            self._under_way = None
            members = {*self._open, *(frames for frames, _ in self._waiting)}
            self._waiting.clear()
            self._changed.notify_all()
        for frames in members:
            frames.fail(error)

    def _has_work(self) -> bool:
        """Return whether there is work; wait for it while more Cases are expected."""
        with self._changed:
            if not self._under_way:
                self._changed.wait_for(lambda: self._may_start() or not self._waiting)
            self._is_at_work = bool(self._under_way or self._waiting)
            return self._is_at_work

    def _may_start(self) -> bool:
        if not self._waiting or len(self._open) > self._size:
            return False
        return len(self._waiting) >= self._size or not self._expected or self._waiting[0][0] in self._first

    def _next_group(self) -> _Group:
        """Return Cases of one program and one checkpoint, to be computed together; none if there is no room yet."""
        with self._changed:
            if not self._may_start():
                return []
            first = self._kind_of(self._waiting[0][0])
            alike = [start for start in self._waiting if self._kind_of(start[0]) == first]
            group = alike[: self._size]
            for start in group:
                self._waiting.remove(start)
                self._open.add(start[0])
            self._changed.notify_all()
            return group

    def _kind_of(self, frames: CaseFrames) -> tuple[int, int]:
        """Return what Cases must have in common to be computed together: number of steps and checkpoint."""
        return frames.steps, self._weights.checkpoint_of(frames.case) if self._weights else 0

    def _compute(self, group: _Group) -> None:
        members = [frames for frames, _ in group]
        for frames in members:
            frames.reached("compute")
        others = self._weights is not None and self._weights.wants_others(members[0].case)
        if others or self._model.device == "cpu":
            # The arrays of a start would add to those of the last call, and gain no time from the same cores; and a
            # device need not have room for two sets of weights.
            self._hand_on()
        try:
            if self._weights and others:
                with _timed(members):
                    self._weights.put_into(self._model, members[0].case)
            self._roll_out(group, members)
        except BaseException as error:
            self._hand_on()
            if len(members) == 1:
                members[0].fail(error)
                return
            # One of them may be the cause: each is tried alone, so that the others do not fail with it.
            for start in group:
                self._compute([start])

    def _roll_out(self, group: _Group, members: list[CaseFrames]) -> None:
        made = 0
        with closing(self._calls(group)) as calls:
            while made < members[0].steps and not all(frames.refused for frames in members):
                with _timed(members):
                    computed = next(calls)
                made += steps_of(computed[0])
                self._hand_on()
                if made > members[0].given:  # else it was given before the group broke up
                    self._under_way = members, computed

    def _calls(self, group: _Group) -> Generator[Sequence[Frames], None, None]:
        """Yield the results of each call. The program has one size: a smaller group is filled up.

        The inputs of a Case that is computed alone are dropped once they are on the device; those of several are kept
        for the case that each is to be tried alone.
        """
        starts, steps = [(inputs.frames, inputs.forcings) for _, inputs in group], group[0][0].steps
        if self._size == 1:
            group.clear()
            yield from ([frames] for frames in self._model.forecast(*starts.pop(), steps))
        else:
            full = starts + starts[-1:] * (self._size - len(starts))
            yield from self._model.forecast_many(full, steps)

    def _hand_on(self) -> None:
        """Fetch the results of the last call to the host, and give them to their Cases."""
        if self._under_way is None:
            return
        (members, computed), self._under_way = self._under_way, None
        try:
            with _timed(members):
                found = [
                    {name: np.asarray(values) for name, values in frames.items()} for frames in computed[: len(members)]
                ]
        except BaseException as error:
            for frames in members:
                frames.fail(error)
            return
        for frames, values in zip(members, found, strict=True):
            frames.give(values)


@contextmanager
def _timed(members: Sequence[CaseFrames]) -> Iterator[None]:
    """Add the time spent within the context to the stage ``compute`` of each Case."""
    start = clock()
    try:
        yield
    finally:
        end = clock()
        for frames in members:
            frames.watch.add("compute", start, end)
