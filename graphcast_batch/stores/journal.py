"""What happens in a run becomes lines of JSON in the store's ``log``, a file for each driver.

The ledger says how things stand; a journal says how they came about, and is read by no part of a run.
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
from graphcast_batch.stores.zarr.ledger import CaseFailure, CaseRecord

LOG: Final = "log"


class Line(Entry):
    """One thing that happened.

    Attributes:
        at: when it was written, UTC, ISO 8601.
        event: what: ``started``, ``stage``, ``finished``, ``retried``, ``failed`` or whatever else was noted.
        host: where it happened.
        worker: that it happened to.
        device: of the worker.
        case: key of the Case.
        stage: of the Case.
        seconds: that it took.
        error: name of the exception.
        message: of the exception.
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
    """Keeps the journal of one driver; it watches a run, and never stands in its way.

    Args:
        store: the folder of the store, which must be there when the first line is written.
        tell: is told, once, if lines cannot be written.
    """

    def __init__(self, store: Path, tell: Callable[[str], None]) -> None:
        self._host = socket.gethostname()
        started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        self._path = store / LOG / f"{started}-{self._host}-{os.getpid()}.jsonl"
        self._tell = tell
        self._is_torn = self._was_told = False

    def started(self, workers: int, device: str, total: int, complete: int) -> None:
        """Workers are starting."""
        self.note("started", device=device, workers=workers, total=total, complete=complete)

    def finished(self, record: CaseRecord) -> None:
        """A Case is whole: a line for each of its stages, and one for all."""
        made = {"case": record.key, "host": record.host, "worker": record.worker, "device": record.device}
        stages = record.seconds.items()
        lines = [self._line("stage", **made, stage=stage, seconds=seconds) for stage, seconds in stages]
        end = self._line("finished", **made, steps=record.steps, bytes=record.bytes, attempts=record.attempts)
        self._write(b"".join([*lines, end]))

    def retried(self, case: Case, error: BaseException) -> None:
        """A Case failed and will be tried again."""
        self.note("retried", str(error), case=case.key, error=type(error).__name__)

    def failed(self, failure: CaseFailure) -> None:
        """A Case is set aside."""
        self.note("failed", failure.message, case=failure.key, error=failure.error, attempts=failure.attempts)

    def note(self, event: str, text: str | None = None, **fields: JsonValue) -> None:
        """Writes a line.

        Args:
            event: what happened.
            text: the message, if there is one.
            fields: others of `Line`, or whatever else is to be kept.
        """
        self._write(self._line(event, text, **fields))

    def _line(self, event: str, text: str | None = None, **fields: JsonValue) -> bytes:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        message = None if text is None else scrubbed(text)
        line = Line.model_validate({"at": at, "event": event, "host": self._host, "message": message} | fields)
        # As ASCII, a line also holds the halves of characters that file names may end in.
        return (json.dumps(line.model_dump(exclude_none=True)) + "\n").encode("ascii")

    def _write(self, lines: bytes) -> None:
        try:
            self._append(lines)
        except OSError as error:
            if not self._was_told:
                self._was_told = True
                self._tell(
                    f"the journal {self._path} misses what happens, because it cannot be written: {error}; the run "
                    "goes on without it"
                )

    def _append(self, lines: bytes) -> None:
        """Opened each time: there is nothing to be closed, and a network file system sends it off at once."""
        self._path.parent.mkdir(exist_ok=True)
        with self._path.open("ab", buffering=0) as file:
            complete = b"\n" * self._is_torn + lines
            self._is_torn = True
            if file.write(complete) < len(complete):
                raise OSError("no space left for the whole of a line")
            self._is_torn = False


def read_journal(store: Path) -> Iterator[Line]:
    """All that happened in the runs of a store, in order of time.

    A line that was cut off, by a full disk or the end of its writer, is passed over.

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
