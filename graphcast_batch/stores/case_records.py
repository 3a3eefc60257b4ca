"""Describe the state of a Case in a store: complete with a record, failed with an error, running or missing."""

import socket
import traceback
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import Field, JsonValue

from graphcast_batch.credentials import scrubbed
from graphcast_batch.files.durable import Entry, now
from graphcast_batch.plan import Case

_FILE: Final = r"^[^./][^/]*/c(\.[0-9]+)+$"
"""File of a variable, by its path in the store; the pattern keeps a record from naming files outside of the store."""


class CaseState(StrEnum):
    """The state of a Case, as the ledger of its store has it."""

    COMPLETE = "complete"
    RUNNING = "running"
    FAILED = "failed"
    MISSING = "missing"


class CaseRecord(Entry):
    """The record of a complete Case, which is written after all the files that it lists.

    Attributes:
        key: key of the Case.
        init_time: initial time, UTC, ISO 8601.
        steps: number of model steps; all of their lead times that the store keeps are in the store.
        bytes: size of the files in bytes.
        files: size in bytes and CRC-32 (hexadecimal) of each file, by its path in the store.
        seconds: time spent, by stage.
        host: name of the host on which the forecast was made.
        device: what the forecast was computed on.
        worker: name of the worker that made the forecast.
        attempts: how many attempts the Case took.
        finished_at: UTC, ISO 8601.
        details: whatever else the run keeps of the Case.
    """

    key: str
    init_time: str
    steps: int
    bytes: int
    files: dict[Annotated[str, Field(pattern=_FILE)], tuple[int, str]]
    seconds: dict[str, float]
    host: str
    device: str
    worker: str
    attempts: int
    finished_at: str
    details: dict[str, JsonValue]


class CaseFailure(Entry):
    """The failure of a Case whose last attempt failed.

    Attributes:
        key: key of the Case.
        error: name of the exception.
        message: message of the exception.
        traceback: traceback of the exception.
        attempts: how many attempts were made.
        host: name of the host on which the failure was recorded.
        failed_at: UTC, ISO 8601.
    """

    key: str
    error: str
    message: str
    traceback: str
    attempts: int
    host: str
    failed_at: str

    @classmethod
    def of(cls, case: Case, error: BaseException, attempts: int) -> Self:
        """Return the failure of a Case by an exception, on this host, now."""
        return cls(
            key=case.key,
            error=type(error).__name__,
            message=scrubbed(str(error)),
            traceback=scrubbed("".join(traceback.format_exception(error))),
            attempts=attempts,
            host=socket.gethostname(),
            failed_at=now(),
        )

    @classmethod
    def unknown(cls, key: str, message: str) -> Self:
        """Return the failure of a Case whose exception is not known any more."""
        host = "an unknown host"
        return cls(
            key=key, error="StoreError", message=message, traceback="", attempts=0, host=host, failed_at="unknown"
        )
