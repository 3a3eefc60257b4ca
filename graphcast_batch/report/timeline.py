"""Build a timeline of a run from the journal of its store: the Cases of each worker, and their rate."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from graphcast_batch.stores.journal import Line

MOST_BARS: Final = 2000
_GAP_SECONDS: Final = 3600.0
"""A pause of this length without any Case separates two periods of work."""


@dataclass(frozen=True)
class Bar:
    """The time that a worker spent on a Case.

    Attributes:
        case: key of the Case.
        worker: name of the worker.
        start: Unix time of the start: the end less the seconds of all stages, which is too early if stages overlapped.
        end: Unix time at which the Case was complete.
        steps: number of the model's steps.
        stages: seconds by stage.
    """

    case: str
    worker: str
    start: float
    end: float
    steps: int
    stages: tuple[tuple[str, float], ...]

    @property
    def text(self) -> str:
        """Key, worker, end and stages as text."""
        parts = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in self.stages)
        return f"{self.case} on {self.worker}, complete at {clock(self.end)}: {parts}"


@dataclass(frozen=True)
class RunTimeline:
    """The last period of work on a store.

    Attributes:
        rows: name of each worker with its lanes; bars of one lane do not overlap.
        bars: all bars, by their end.
        earlier: number of Cases that were made in earlier periods.
        retried: number of attempts that failed and were repeated, in the whole journal.
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
        """Steps per second over the period."""
        return sum(bar.steps for bar in self.bars) / max(self.end - self.start, 1e-3)

    @property
    def stages(self) -> list[tuple[str, float, float]]:
        """Name of each stage, its seconds in total, and its mean seconds for a Case."""
        seconds: defaultdict[str, float] = defaultdict(float)
        for bar in self.bars:
            for stage, spent in bar.stages:
                seconds[stage] += spent
        return [(stage, spent, spent / len(self.bars)) for stage, spent in seconds.items()]


def timeline(lines: Iterable[Line]) -> RunTimeline | None:
    """Return the timeline of a journal; None if no Case was completed.

    Args:
        lines: lines of the journal, in order of time.
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
    """Return a Unix time as date and time, UTC."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _bar(line: Line, stages: dict[str, float]) -> Bar:
    end = datetime.fromisoformat(line.at).timestamp()
    steps = line.model_extra.get("steps", 0) if line.model_extra else 0
    count = steps if isinstance(steps, int) else 0
    return Bar(line.case or "", line.worker or line.host, end - sum(stages.values()), end, count, tuple(stages.items()))


def _last_stretch(bars: Sequence[Bar]) -> list[Bar]:
    """Return the bars since the last long pause, up to `MOST_BARS`."""
    ordered = sorted(bars, key=lambda bar: bar.end)[-MOST_BARS:]
    began = max((n for n in range(1, len(ordered)) if ordered[n].start - ordered[n - 1].end > _GAP_SECONDS), default=0)
    return ordered[began:]


def _rows(bars: Sequence[Bar]) -> tuple[tuple[str, tuple[tuple[Bar, ...], ...]], ...]:
    workers = sorted({bar.worker for bar in bars})
    return tuple((worker, _lanes([bar for bar in bars if bar.worker == worker])) for worker in workers)


def _lanes(bars: Sequence[Bar]) -> tuple[tuple[Bar, ...], ...]:
    """Distribute bars over as few lanes as possible, so that those of a lane do not overlap."""
    lanes = list[list[Bar]]()
    for bar in sorted(bars, key=lambda bar: bar.start):
        free = next((lane for lane in lanes if lane[-1].end <= bar.start), None)
        if free is None:
            lanes.append([bar])
        else:
            free.append(bar)
    return tuple(map(tuple, lanes))
