"""Measure the time of Cases by stage, and how the stages of a run overlap."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

_EPOCH: Final = time.time() - time.perf_counter()
"""Difference of Unix time and this process's monotonic clock, taken once, so that a wall clock that is set later
distorts no span. Spans of two hosts agree as well as their wall clocks did when the workers started."""
_PAUSE_SECONDS: Final = 1e-3
"""A shorter pause does not divide a span."""
_OPEN: Final = 64
"""Intervals of a stage of a worker that are kept to find overlaps: more than the worker has Cases in progress."""


class Span(NamedTuple):
    """A time during which a thread was in a stage.

    Attributes:
        stage: name of the stage.
        start: begin of the span, seconds since 1970.
        end: end of the span, seconds since 1970.
        thread: name of the thread.
    """

    stage: str
    start: float
    end: float
    thread: str


class Stopwatch:
    """Records the spans of one Case; any thread may add to them.

    >>> watch = Stopwatch()
    >>> with watch.stage("read"):
    ...     pass
    >>> list(watch.seconds)
    ['read']
    """

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._adding = threading.Lock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent within the context to a stage."""
        start = clock()
        try:
            yield
        finally:
            self.add(name, start, clock())

    def add(self, stage: str, start: float, end: float) -> None:
        """Add a time that this thread spent in a stage, from start to end by `clock`."""
        thread = threading.current_thread().name
        with self._adding:
            for index in reversed(range(len(self._spans))):
                span = self._spans[index]
                if (span.stage, span.thread) == (stage, thread):
                    if start - span.end < _PAUSE_SECONDS:
                        self._spans[index] = span._replace(end=end)
                        return
                    break
            self._spans.append(Span(stage, start, end, thread))

    @property
    def spans(self) -> tuple[Span, ...]:
        """All spans so far."""
        with self._adding:
            return tuple(self._spans)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by stage so far, summed over threads, to the millisecond."""
        sums: defaultdict[str, float] = defaultdict(float)
        for span in self.spans:
            sums[span.stage] += span.end - span.start
        return {stage: round(seconds, 3) for stage, seconds in sums.items()}


@dataclass(frozen=True)
class Balance:
    """How well the stages of a run overlapped.

    Attributes:
        busy: seconds by stage in which at least one Case was in it, summed over workers.
        wall: seconds from each worker's first span to the last end of the run, summed over workers; the start of the
            workers is not in it.
    """

    busy: Mapping[str, float]
    wall: float

    @property
    def slowest(self) -> str:
        """The stage that was busy for longest."""
        return max(self.busy, key=lambda stage: self.busy[stage])

    @property
    def ratio(self) -> float:
        """The wall time over the time of the slowest stage: 1 if no other stage delayed it."""
        return self.wall / self.busy[self.slowest]


def clock() -> float:
    """Return the seconds since 1970, by a clock that only rises."""
    return _EPOCH + time.perf_counter()


def balance(spans_of: Mapping[str, Sequence[Span]]) -> Balance | None:
    """Return how well the stages overlapped; None without any span.

    Args:
        spans_of: all spans of each worker, by the name of the worker.
    """
    overlap = StageOverlap()
    for worker, spans in spans_of.items():
        overlap.add(worker, spans)
    return overlap.balance


class StageOverlap:
    """Computes the balance of a run from the spans of its Cases, in memory that does not grow with their number."""

    def __init__(self) -> None:
        self._starts: dict[str, float] = {}
        self._end = float("-inf")
        self._stages: defaultdict[str, defaultdict[str, _Union]] = defaultdict(lambda: defaultdict(_Union))

    def add(self, worker: str, spans: Sequence[Span]) -> None:
        """Add spans of a worker, which must not be much older than those added before."""
        if not spans:
            return
        start, end = min(span.start for span in spans), max(span.end for span in spans)
        self._starts[worker] = min(start, self._starts.get(worker, start))
        self._end = max(end, self._end)
        for stage in dict.fromkeys(span.stage for span in spans):
            self._stages[stage][worker].add((span.start, span.end) for span in spans if span.stage == stage)

    @property
    def balance(self) -> Balance | None:
        """Balance of all spans so far; None without any span."""
        if not self._starts:
            return None
        busy = {stage: sum(union.seconds for union in found.values()) for stage, found in self._stages.items()}
        return Balance(busy, sum(self._end - start for start in self._starts.values()))


class _Union:
    """Counts the seconds that lie in at least one of some intervals; only the latest intervals are kept."""

    def __init__(self) -> None:
        self._settled, self._reached = 0.0, float("-inf")
        self._open: list[tuple[float, float]] = []

    def add(self, intervals: Iterable[tuple[float, float]]) -> None:
        self._open.extend(intervals)
        if len(self._open) > 2 * _OPEN:
            stretches = _merged(self._open)
            old, self._open = stretches[:-_OPEN], stretches[-_OPEN:]
            self._settled += covered(old, self._reached)
            self._reached = max([self._reached, *(end for _, end in old)])

    @property
    def seconds(self) -> float:
        return self._settled + covered(self._open, self._reached)


def covered(intervals: Iterable[tuple[float, float]], reached: float = float("-inf")) -> float:
    """Return the seconds after a time that lie in at least one of some intervals.

    >>> covered([(0, 2), (1, 3), (5, 6)])
    4.0
    """
    return sum(max(0.0, end - max(start, reached)) for start, end in _merged(intervals))


def _merged(intervals: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Merge intervals into those that they cover together, ascending and with gaps between them."""
    stretches: list[tuple[float, float]] = []
    for start, end in sorted(intervals):
        if stretches and start <= stretches[-1][1]:
            stretches[-1] = stretches[-1][0], max(end, stretches[-1][1])
        else:
            stretches.append((start, end))
    return stretches
