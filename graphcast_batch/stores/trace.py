"""Write when each Case of a run was in which stage, as a file that chrome://tracing and Perfetto show.

The file shows stages as bars over time. It is JSON in the Trace Event Format of Chrome: a process for each worker, in
it a thread for each stage, and a bar for each time that Cases were in the stage. A stage that several Cases were in at
once has as many threads.
https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from graphcast_batch.files.durable import explained, replace
from graphcast_batch.stores.case_records import CaseRecord
from graphcast_batch.timing import Span

Bar = tuple[Span, list[str]]


def write_trace(path: Path, made: Iterable[tuple[CaseRecord, Sequence[Span]]]) -> None:
    """Write when each Case was in which stage.

    Args:
        path: path of the file; a file that is there is replaced.
        made: records of Cases, with their spans.

    Raises:
        StoreError: the file cannot be written.
    """
    of_worker: dict[str, list[tuple[str, Span]]] = {}
    for record, spans in made:
        of_worker.setdefault(record.worker, []).extend((record.key, span) for span in spans)
    events = [
        event
        for number, (worker, found) in enumerate(sorted(of_worker.items()), 1)
        for event in _process(number, worker, found)
    ]
    with explained(f"writing the trace {path}"):
        replace(path, json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}).encode())


def _process(number: int, worker: str, found: Sequence[tuple[str, Span]]) -> list[dict[str, Any]]:
    """Return the events of one worker."""
    events = [_name("process_name", number, 0, worker)]
    thread = 0
    for stage in dict.fromkeys(span.stage for _, span in sorted(found, key=lambda each: each[1].start)):
        for place, row in enumerate(_rows(_bars(stage, found)), 1):
            thread += 1
            events.append(_name("thread_name", number, thread, stage if place == 1 else f"{stage} {place}"))
            events += [_complete(number, thread, bar) for bar in row]
    return events


def _bars(stage: str, found: Sequence[tuple[str, Span]]) -> list[Bar]:
    """Return the spans of a stage by their start, with their Cases; Cases that were computed together are one bar."""
    cases_of: dict[Span, list[str]] = {}
    for key, span in found:
        if span.stage == stage:
            cases_of.setdefault(span, []).append(key)
    return sorted(cases_of.items())


def _rows(bars: Sequence[Bar]) -> list[list[Bar]]:
    """Distribute bars over as few rows as hold them without overlap."""
    rows: list[list[Bar]] = []
    for bar in bars:
        free = next((row for row in rows if row[-1][0].end <= bar[0].start), None)
        if free is None:
            rows.append([bar])
        else:
            free.append(bar)
    return rows


def _name(kind: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": process, "tid": thread, "args": {"name": name}}


def _complete(process: int, thread: int, bar: Bar) -> dict[str, Any]:
    span, cases = bar
    return {
        "ph": "X",
        "name": " ".join(cases),
        "cat": span.stage,
        "ts": round(1e6 * span.start),
        "dur": round(1e6 * span.end) - round(1e6 * span.start),
        "pid": process,
        "tid": thread,
        "args": {"thread": span.thread},
    }
