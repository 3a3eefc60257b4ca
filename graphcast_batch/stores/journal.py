"""Write what happens in a run as lines of JSON into the folder ``log`` of the store, one file for each driver.

The ledger has the state of each Case; a journal has what happened to it. Reports read journals, a run reads none.
"""

import json
import os
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import ConfigDict, JsonValue

from graphcast_batch.credentials import scrubbed
from graphcast_batch.files.durable import Entry, explained
from graphcast_batch.plan import Case
from graphcast_batch.stores.case_records import CaseFailure, CaseRecord

LOG: Final = "log"
"""Folder, in that of a store, with the journals of its runs."""


class Line(Entry):
    """One event of a run.

    Attributes:
        at: when the line was written, UTC, ISO 8601.
        event: kind of event: ``started``, ``stage``, ``finished``, ``retried``, ``failed`` or another one.
        host: name of the host on which the event happened.
        worker: name of the worker that the event happened to.
        device: device of the worker.
        case: key of the Case.
        stage: stage of the Case.
        seconds: duration in seconds.
        error: name of the exception.
        message: message of the exception.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    at: str
    event: str
    host: str
    worker: str | None = None
    device: str | None = None
    case: str | None = None
    stage: str | None = None
    seconds: float | None = None
    error: str | None = None
    message: str | None = None


class Journal:
    """Writes the journal of one driver; a journal that cannot be written does not end the run.

    Args:
        store: the folder of the store, which must exist when the first line is written.
        warn: called with a warning, once, if lines cannot be written.
    """

    def __init__(self, store: Path, warn: Callable[[str], None]) -> None:
        self._host = socket.gethostname()
        started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        self._path = store / LOG / f"{started}-{self._host}-{os.getpid()}.jsonl"
        self._warn = warn
        self._is_torn = self._has_warned = False

    def started(self, workers: int, device: str, total: int, complete: int) -> None:
        """Write that workers are being started."""
        self.note("started", device=device, workers=workers, total=total, complete=complete)

    def finished(self, record: CaseRecord) -> None:
        """Write that a Case is complete: a line for each of its stages, and one for the Case."""
        made = {"case": record.key, "host": record.host, "worker": record.worker, "device": record.device}
        stages = record.seconds.items()
        lines = [self._line("stage", **made, stage=stage, seconds=seconds) for stage, seconds in stages]
        end = self._line("finished", **made, steps=record.steps, bytes=record.bytes, attempts=record.attempts)
        self._write(b"".join([*lines, end]))

    def combined(self, record: CaseRecord) -> None:
        """Write that what is kept of all members of an initial time together is complete."""
        members, seconds = record.details.get("members"), sum(record.seconds.values())
        made: dict[str, JsonValue] = {"case": record.key, "worker": record.worker, "seconds": seconds}
        self._write(self._line("combined", None, **made, bytes=record.bytes, members=members))

    def retried(self, case: Case, error: BaseException) -> None:
        """Write that a Case failed and will be tried again."""
        self.note("retried", str(error), case=case.key, error=type(error).__name__)

    def failed(self, failure: CaseFailure) -> None:
        """Write that a Case failed and will not be tried again."""
        self.note("failed", failure.message, case=failure.key, error=failure.error, attempts=failure.attempts)

    def note(self, event: str, text: str | None = None, **fields: JsonValue) -> None:
        """Write a line.

        Args:
            event: kind of event.
            text: message of the event.
            fields: other fields of `Line`, or whatever else is to be kept.
        """
        self._write(self._line(event, text, **fields))

    def _line(self, event: str, text: str | None = None, **fields: JsonValue) -> bytes:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        message = None if text is None else scrubbed(text)
        line = Line.model_validate({"at": at, "event": event, "host": self._host, "message": message} | fields)
        # As ASCII, a line can also hold parts of characters, which file names may end in.
        return (json.dumps(line.model_dump(exclude_none=True)) + "\n").encode("ascii")

    def _write(self, lines: bytes) -> None:
        try:
            self._append(lines)
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                self._warn(
                    f"the journal {self._path} cannot be written: {error}; the run goes on, and what happens until the "
                    "journal can be written again is not in it"
                )

    def _append(self, lines: bytes) -> None:
        """Open, write and close the file, so that a network file system sends each line at once."""
        self._path.parent.mkdir(exist_ok=True)
        with self._path.open("ab", buffering=0) as file:
            complete = b"\n" * self._is_torn + lines
            self._is_torn = True
            if file.write(complete) < len(complete):
                raise OSError("no space left for a complete line")
            self._is_torn = False


def read_journal(store: Path) -> Iterator[Line]:
    """Read the events of all runs of a store, in order of time.

    Lines that were cut off, by a full disk or the death of their writer, are left out.

    Raises:
        StoreError: a journal cannot be read.
    """
    with explained(f"reading the journals in {store / LOG}"):
        contents = [path.read_bytes() for path in sorted((store / LOG).glob("*.jsonl"))]
    lines = [line for content in contents for line in map(_parsed, content.splitlines()) if line]
    yield from sorted(lines, key=lambda line: line.at)


def _parsed(text: bytes) -> Line | None:
    try:
        return Line.model_validate(json.loads(text))
    except ValueError:
        return None
