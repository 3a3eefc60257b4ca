"""Download published GraphCast files, verify them and record their origin."""

import difflib
import fcntl
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import url2pathname

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from graphcast_batch.credentials import scrubbed
from graphcast_batch.errors import GraphcastBatchError, InputError, InputNotFoundError
from graphcast_batch.inputs.downloads.catalog import KNOWN, LICENSE, Kind, Published, published_at
from graphcast_batch.inputs.downloads.transfer import (
    NO_NETWORK,
    CutError,
    Progress,
    address,
    ask,
    note_of,
    replace,
    sync,
    transfer,
)

BUCKET: Final = "https://storage.googleapis.com/dm_graphcast/graphcast"
RECORD: Final = "fetched.json"

_LISTING: Final = "https://storage.googleapis.com/storage/v1/b/dm_graphcast/o"


class Fetched(BaseModel):
    """Record of a downloaded file.

    Attributes:
        url: address that the file was downloaded from.
        bytes: size of the file.
        sha256: SHA-256, hexadecimal.
        date: time at which the file was verified, UTC, ISO 8601.
        license: SPDX identifier of the license.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    url: str
    bytes: int
    sha256: str
    date: str
    license: str


def listing(mirror: str | None = None) -> tuple[Published, ...]:
    """Return the files that can be downloaded now.

    Args:
        mirror: as for `fetch`. For a folder, those `KNOWN` files that it holds; for a mirror on the web, all `KNOWN`
            files; None for what the bucket lists.

    Raises:
        InputError: the bucket cannot be reached, or its listing cannot be read.
    """
    if mirror is None:
        return tuple(_in_bucket())
    folder = _local(mirror)
    if folder is None:
        return KNOWN
    return tuple(file for file in KNOWN if (folder / file.place).is_file())


def find(kind: Kind, name: str = "all", mirror: str | None = None) -> tuple[Published, ...]:
    """Return the published files of a name.

    Args:
        kind: kind of the files.
        name: name of a checkpoint, as in ``GraphCast_small``; name of a sample, or as many parts of it as make it
            unique, as in ``era5_res-1.0_levels-13_steps-04``; name of a file; ``all`` for the three files of
            statistics.
        mirror: as for `fetch`.

    Raises:
        InputNotFoundError: no file has that name.
        InputError: the name matches several samples.
    """
    offered = [file for file in KNOWN if file.kind == kind]
    chosen = [file for file in offered if _is_meant(file, name)]
    if not chosen:
        with suppress(InputError):  # without network the error message lists the known files
            listed = [file for file in listing(mirror) if file.kind == kind]
            chosen = [file for file in listed if _is_meant(file, name)]
            offered += listed
    if not chosen:
        raise InputNotFoundError(_unknown(kind, name, [file.name for file in offered]))
    if len(chosen) > 1 and kind != "stats":
        several = "\n  ".join(file.name for file in chosen)
        raise InputError(
            f"the name {name!r} must match one {kind}, but matches {len(chosen)}; give the name of one of them:\n"
            f"  {several}"
        )
    return tuple(chosen)


def fetch(file: Published, folder: Path, progress: Progress, mirror: str | None = None) -> Fetched:
    """Download one file into a folder, unless it is complete there already, and record it in ``fetched.json``.

    An interrupted download is resumed. Of several processes that download into a folder, one works at a time.

    Args:
        file: file to download.
        folder: folder to download into; it is made if it does not exist.
        progress: receives, again and again, the number of bytes that have arrived and the size of the file.
        mirror: a folder, or an address that begins with ``file://``, ``http://`` or ``https://``, with the folders of
            the bucket: ``params``, ``stats`` and ``dataset``; None for the bucket itself.

    Raises:
        InputNotFoundError: the bucket or the mirror does not hold the file.
        InputError: the file cannot be downloaded or written, or has another size or checksum than published.
    """
    origin = _origin(file, mirror)
    target = folder / file.file
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            records = _read_records(folder / RECORD)
            record = records.get(file.file)
            sha256 = file.sha256 or (record.sha256 if record else "")
            complete = target.is_file() and _digests(target)[0] == sha256
            if complete and record and record.sha256 == sha256:
                return record
            if not complete:
                sha256 = _bring(origin, file, target, progress)
            fetched = Fetched(
                url=address(origin), bytes=target.stat().st_size, sha256=sha256, date=_now(), license=LICENSE
            )
            replace(folder / RECORD, _RECORDS.dump_json({**records, file.file: fetched}, indent=2) + b"\n")
    return fetched


def _in_bucket() -> Iterator[Published]:
    """Yield the files of the three folders that the bucket lists; one page of the listing holds them all."""
    query = urlencode({"prefix": "graphcast/", "fields": "items(name,size)", "maxResults": 1000})
    try:
        with ask(f"{_LISTING}?{query}") as answer:
            page = _Page.model_validate_json(answer.read())
    except (CutError, OSError, HTTPException) as error:
        raise InputError(f"the listing of {BUCKET} could not be downloaded: {error}; {NO_NETWORK}") from error
    except ValidationError as error:
        raise InputError(
            f"the listing of {BUCKET} must be JSON with names and sizes, but is not: {error}; try again later, or use "
            "--mirror"
        ) from error
    for item in page.items:
        file = published_at(item.name.removeprefix("graphcast/"), item.size)
        if file:
            yield file


class _Item(BaseModel):
    name: str
    size: int


class _Page(BaseModel):
    items: list[_Item] = []


def _is_meant(file: Published, name: str) -> bool:
    if name.lower() in (file.file.lower(), file.name.lower()):
        return True
    match file.kind:
        case "checkpoint":
            return False
        case "stats":
            return name == "all"
        case "sample":
            parts = file.name.lower().split("_")
            offered = {_plain(part) for part in parts} | {part.partition("-")[2] for part in parts}
            asked = re.split("[_, ]+", name.lower().removesuffix(".nc"))
            return all(part in offered or _plain(part) in offered for part in asked)


def _plain(part: str) -> str:
    """Return a part of a sample's name in one spelling: ``steps-4`` for ``steps-04``, ``res-1`` for ``res-1.0``."""
    return re.sub(r"(?<=-)0*(\d+)(\.0*)?$", r"\1", part)


def _unknown(kind: Kind, name: str, names: Iterable[str]) -> str:
    shown = {known.lower(): known for known in names}
    nearest = difflib.get_close_matches(name.lower(), shown, 1, 0.5)
    hint = f"the nearest is {shown[nearest[0]]!r}; " if nearest else ""
    return f"there is no published {kind} {name!r}; {hint}the published names are:\n  " + "\n  ".join(shown.values())


def _origin(file: Published, mirror: str | None) -> str | Path:
    base = mirror or BUCKET
    folder = _local(base)
    return folder / file.place if folder else f"{base.rstrip('/')}/{quote(file.place)}"


def _local(mirror: str) -> Path | None:
    """Return the folder of a mirror; None for an address on the web."""
    parts = urlsplit(mirror)
    match parts.scheme:
        case "http" | "https":
            return None
        case "file":
            return Path(url2pathname(parts.path))
        case _ if "://" in mirror:
            raise InputError(
                f"a mirror must be a folder or begin with file://, http:// or https://, not {scrubbed(mirror)!r}"
            )
        case _:
            return Path(mirror).expanduser()


def _bring(origin: str | Path, file: Published, target: Path, progress: Progress) -> str:
    """Transfer and verify one file; return its SHA-256, hexadecimal."""
    part = target.with_name(f"{target.name}.part")
    version = transfer(origin, file.size_bytes, part, progress)
    sha256, md5 = _digests(part)
    found, expected = (sha256, file.sha256) if file.sha256 else (md5, version.md5 or md5)
    if found != expected:
        part.unlink()
        raise InputError(
            f"{version.url} must have the checksum {expected}, but the downloaded file has {found} and was removed; "
            "run again; if that does not help, the file was damaged or replaced at its origin"
        )
    sync(part)
    os.replace(part, target)
    sync(target.parent)
    note_of(part).unlink(missing_ok=True)
    return sha256


_RECORDS: Final = TypeAdapter(dict[str, Fetched])


def _read_records(path: Path) -> dict[str, Fetched]:
    try:
        return _RECORDS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValidationError as error:
        raise InputError(f"{path} must be as this program writes it, but is not; delete it: {error}") from error


def _digests(path: Path) -> tuple[str, str]:
    """Return the SHA-256 and the MD5 of a file, hexadecimal."""
    sums = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as content:
        while piece := content.read(2**20):
            for each in sums:
                each.update(piece)
    return sums[0].hexdigest(), sums[1].hexdigest()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Return a context that is entered once no other process downloads into a folder, if its file system has locks."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except GraphcastBatchError:
        raise
    except OSError as error:
        raise InputError(
            f"files cannot be downloaded into {folder}: {error}; check space, quota and permissions, and run again: "
            "what has arrived is kept"
        ) from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
