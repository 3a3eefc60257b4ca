"""The journal of a store becomes a timeline: which worker made which Case when, and how fast they came."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from graphcast_batch.stores.journal import Line

MOST_BARS: Final = 2000
_GAP_SECONDS: Final = 3600.0
"""Without any Case, after which another stretch of work begins."""


@dataclass(frozen=True)
class Bar:
    """A Case in the hands of a worker.

    Attributes:
        case: its key.
        worker: who made it.
        start: Unix time: its end less the seconds of all its stages, which is too early where these overlapped.
        end: Unix time at which it was whole.
        steps: of 6 h.
        stages: seconds by stage.
    """

    case: str
    worker: str
    start: float
    end: float
    steps: int
    stages: tuple[tuple[str, float], ...]

    @property
    def told(self) -> str:
        """The same in words."""
        parts = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in self.stages)
        return f"{self.case} on {self.worker}, whole at {clock(self.end)}: {parts}"


@dataclass(frozen=True)
class RunTimeline:
    """The last stretch of work on a store.

    Attributes:
        rows: for each worker its lanes, in which bars stand side by side.
        bars: all of these, by their end.
        earlier: how many Cases were made before.
        retried: how many attempts failed and were made again, in all of the journal.
    """

    rows: tuple[tuple[str, tuple[tuple[Bar, ...], ...]], ...]
    bars: tuple[Bar, ...]
    earlier: int
    retried: int

    @property
    def start(self) -> float:
        """Unix time of the first bar's start."""
        return min(bar.start for bar in self.bars)

    @property
    def end(self) -> float:
        """Unix time of the last bar's end."""
        return self.bars[-1].end

    @property
    def steps_per_second(self) -> float:
        """Over the whole stretch."""
        return sum(bar.steps for bar in self.bars) / max(self.end - self.start, 1e-3)

    @property
    def stages(self) -> list[tuple[str, float, float]]:
        """For each stage its name, its seconds in all, and those of a Case."""
        seconds: defaultdict[str, float] = defaultdict(float)
        for bar in self.bars:
            for stage, spent in bar.stages:
                seconds[stage] += spent
        return [(stage, spent, spent / len(self.bars)) for stage, spent in seconds.items()]


def timeline(lines: Iterable[Line]) -> RunTimeline | None:
    """What a journal tells; None if no Case ever ended.

    Args:
        lines: in order of time.
    """
    stages: defaultdict[str, dict[str, float]] = defaultdict(dict)
    bars, retried = list[Bar](), 0
    for line in lines:
        if line.event == "stage" and line.case and line.stage:
            stages[line.case][line.stage] = line.seconds or 0.0
        elif line.event == "finished" and line.case:
            bars.append(_bar(line, stages.pop(line.case, {})))
        retried += line.event == "retried"
    last = _last_stretch(bars)
    return RunTimeline(_rows(last), tuple(last), len(bars) - len(last), retried) if bars else None


def clock(time: float) -> str:
    """A Unix time as a person reads it."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _bar(line: Line, stages: dict[str, float]) -> Bar:
    end = datetime.fromisoformat(line.at).timestamp()
    steps = line.model_extra.get("steps", 0) if line.model_extra else 0
    count = steps if isinstance(steps, int) else 0
    return Bar(line.case or "", line.worker or line.host, end - sum(stages.values()), end, count, tuple(stages.items()))


def _last_stretch(bars: Sequence[Bar]) -> list[Bar]:
    """The newest bars, back to where for long nothing was made."""
    ordered = sorted(bars, key=lambda bar: bar.end)[-MOST_BARS:]
    began = max((n for n in range(1, len(ordered)) if ordered[n].start - ordered[n - 1].end > _GAP_SECONDS), default=0)
    return ordered[began:]


def _rows(bars: Sequence[Bar]) -> tuple[tuple[str, tuple[tuple[Bar, ...], ...]], ...]:
    workers = sorted({bar.worker for bar in bars})
    return tuple((worker, _lanes([bar for bar in bars if bar.worker == worker])) for worker in workers)


def _lanes(bars: Sequence[Bar]) -> tuple[tuple[Bar, ...], ...]:
    """Bars in as few lanes as hold them side by side."""
    lanes = list[list[Bar]]()
    for bar in sorted(bars, key=lambda bar: bar.start):
        free = next((lane for lane in lanes if lane[-1].end <= bar.start), None)
        if free is None:
            lanes.append([bar])
        else:
            free.append(bar)
    return tuple(map(tuple, lanes))
