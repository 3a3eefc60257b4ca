"""Transfer one file from a server or a folder, and resume a transfer that was interrupted.

Resuming protects a user on a slow or unstable connection, or with a short job, from starting a large download again.
"""

import base64
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from io import BufferedReader
from pathlib import Path
from typing import Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from pydantic import BaseModel, ConfigDict, ValidationError

from graphcast_batch.credentials import scrubbed
from graphcast_batch.errors import InputError, InputNotFoundError

Progress = Callable[[int, int], None]
"""Receives the number of bytes that have arrived, and the size of the file in bytes."""
NO_NETWORK: Final = "without network, fetch on a login node or copy from a folder with --mirror"

_TIMEOUT_SECONDS: Final = 30.0
_ATTEMPTS: Final = 4
_PAUSE_SECONDS: Final = 1.0


class Version(BaseModel):
    """A version of a file at its origin, to which a partly transferred file belongs.

    Attributes:
        url: address of the file.
        bytes: size of the complete file in bytes.
        tag: strong ETag; empty if the server sends none, so that a transfer cannot be resumed.
        md5: MD5, hexadecimal; empty if the server does not send it.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    url: str
    bytes: int
    tag: str
    md5: str


@dataclass(frozen=True)
class _Reply:
    """An open file at its origin; ``stream`` begins at byte ``start`` of ``version``."""

    stream: HTTPResponse | BufferedReader
    start: int
    version: Version


class CutError(Exception):
    """A transfer failed or was cut off for a reason that may be temporary."""


def transfer(origin: str | Path, size_bytes: int | None, part: Path, progress: Progress) -> Version:
    """Complete a partly transferred file; retry after interruptions as long as each attempt transfers some bytes.

    Args:
        origin: address of the file, or its path in a mirror.
        size_bytes: expected size of the file; None if it is unknown.
        part: path of the partly transferred file; its version is recorded in a file beside it.
        progress: receives the number of bytes that have arrived.

    Raises:
        InputNotFoundError: there is no such file.
        InputError: the file cannot be transferred, or has another size.
    """
    failures = 0
    while True:
        before = _size(part)
        try:
            return _attempt(origin, size_bytes, part, progress)
        except CutError as error:
            failures = 1 if _size(part) > before else failures + 1
            if failures == _ATTEMPTS:
                raise InputError(
                    f"{address(origin)} could not be transferred in {_ATTEMPTS} attempts: {error}; the "
                    f"{_size(part)} bytes that arrived are kept: run again to resume, or, {NO_NETWORK}"
                ) from error
            time.sleep(_PAUSE_SECONDS * 2 ** (failures - 1))


def _attempt(origin: str | Path, size_bytes: int | None, part: Path, progress: Progress) -> Version:
    note, at = _read_note(part, address(origin)), _size(part)
    if note and at == note.bytes:
        return note
    with _open(origin, at, note.tag if note and 0 < at < note.bytes else "") as reply:
        version = reply.version
        if size_bytes not in (None, version.bytes):
            raise InputError(
                f"{version.url} must have {size_bytes} bytes, as published, but has {version.bytes}; another file is "
                "in its place"
            )
        with part.open("ab") as out:
            out.truncate(reply.start)
            # Recorded only now: after a crash, the record of a new version beside bytes of an old one would join both.
            replace(note_of(part), version.model_dump_json().encode())
            for at, piece in _pieces(reply):
                out.write(piece)
                progress(at, version.bytes)
    if _size(part) < version.bytes:
        raise CutError(f"it broke off after {_size(part)} of {version.bytes} bytes")
    return version


def _pieces(reply: _Reply) -> Iterator[tuple[int, bytes]]:
    """Yield the pieces of a reply, each with the position in the file at which it ends."""
    at = reply.start
    try:
        while piece := reply.stream.read1(2**20):
            at += len(piece)
            yield at, piece
    except (OSError, HTTPException) as error:
        raise CutError(f"it broke off after {at} bytes: {error}") from error


@contextmanager
def _open(origin: str | Path, at: int, tag: str) -> Iterator[_Reply]:
    """Open a file from byte ``at`` if it is still the version of ``tag``, else from its beginning."""
    if isinstance(origin, Path):
        with _open_file(origin) as stream:
            state = os.fstat(stream.fileno())
            version = Version(
                url=address(origin), bytes=state.st_size, tag=f"{state.st_mtime_ns}-{state.st_ino}", md5=""
            )
            start = stream.seek(at if tag == version.tag else 0)
            yield _Reply(stream, start, version)
        return
    with ask(origin, at, tag) as answer:
        if answer.status != 206 or _continues(answer, at, tag):
            yield _reply(origin, answer)
            return
    # The server heeds Range but not If-Range, and has another version by now.
    with ask(origin) as answer:
        yield _reply(origin, answer)


def _open_file(path: Path) -> BufferedReader:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise InputNotFoundError(
            f"the mirror must hold {path}, but does not; copy it there, in the folders of the bucket (params, stats, "
            "dataset)"
        ) from error
    except OSError as error:
        raise InputError(f"{path} of the mirror cannot be read: {error}") from error


def ask(url: str, at: int = 0, tag: str = "") -> HTTPResponse:
    """Request a file from a server, from byte ``at`` on if it is still the version of ``tag``.

    Raises:
        CutError: the server did not answer, or answered with an error that may be temporary.
        InputError: the server refuses the request, or answers with a web page.
    """
    # If-Range requests the rest of this version, and the complete file if the version has changed (RFC 9110, 13.1.5).
    headers = {"Range": f"bytes={at}-", "If-Range": tag} if tag else {}
    try:
        answer: HTTPResponse = urlopen(Request(url, headers=headers), timeout=_TIMEOUT_SECONDS)
    except HTTPError as error:
        with error:
            raise _refusal(url, error) from error
    except (OSError, HTTPException) as error:
        raise CutError(f"no connection: {error}") from error
    if answer.headers.get_content_type() == "text/html":
        with answer:
            raise InputError(
                f"{address(url)} must be a file, but {address(answer.url)} answered with a web page, as the log-in "
                "pages of networks and proxies do; log in there, set https_proxy or use --mirror, and run again"
            )
    return answer


def _refusal(url: str, error: HTTPError) -> Exception:
    match error.code:
        case 404 | 410:
            return InputNotFoundError(
                f"there is no {address(url)} (HTTP {error.code}); list the published files, or correct --mirror"
            )
        case 408 | 429 | 500 | 502 | 503 | 504:
            return CutError(f"HTTP {error.code} {error.reason}")
        case _:
            return InputError(
                f"{address(url)} is refused (HTTP {error.code} {error.reason}); the bucket is public, so check whether "
                "a proxy refuses the request or --mirror requires a login"
            )


def _continues(answer: HTTPResponse, at: int, tag: str) -> bool:
    return answer.headers.get("ETag") == tag and _span(answer)[0] <= at


def _reply(url: str, answer: HTTPResponse) -> _Reply:
    start, size = _span(answer)
    if size < 0:
        raise InputError(f"{address(url)} must be sent with its size (Content-Length), but is not; use another mirror")
    tag = answer.headers.get("ETag", "")
    strong = tag if tag.startswith('"') else ""  # a weak ETag need not change with the bytes (RFC 9110, 8.8.1)
    version = Version(url=address(url), bytes=size, tag=strong, md5=_md5(answer.headers.get_all("x-goog-hash", [])))
    return _Reply(answer, start, version)


def _span(answer: HTTPResponse) -> tuple[int, int]:
    """Return the position in the file at which an answer begins, and the size of the file; -1 if it is not given."""
    if answer.status != 206:
        return 0, -1 if answer.length is None else answer.length
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
    return (int(span[1]), int(span[2])) if span else (sys.maxsize, -1)


def _md5(hashes: Iterable[str]) -> str:
    """Return the MD5 of an object from its headers, hexadecimal; empty if they do not give it.

    See https://cloud.google.com/storage/docs/xml-api/reference-headers#xgooghash.
    """
    pairs = (pair.strip().partition("=") for line in hashes for pair in line.split(","))
    return next((base64.b64decode(value).hex() for key, _, value in pairs if key == "md5"), "")


def note_of(part: Path) -> Path:
    """Return the path of the record of the version that a partly transferred file belongs to."""
    return part.with_name(f"{part.name}.json")


def _read_note(part: Path, url: str) -> Version | None:
    try:
        note = Version.model_validate_json(note_of(part).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return note if note.url == url else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def address(origin: str | Path) -> str:
    """Return an origin as a URL, without secrets."""
    return scrubbed(origin) if isinstance(origin, str) else origin.resolve().as_uri()


def replace(path: Path, content: bytes) -> None:
    """Write a file durably, with all of its content in one step."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    sync(temporary)
    os.replace(temporary, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
