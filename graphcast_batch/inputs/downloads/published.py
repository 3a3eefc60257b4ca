"""Download published GraphCast files, verify them and record their origin.

What is published, and its terms:
https://github.com/google-deepmind/weathernext/blob/main/docs/weathernext1_graph/README.md
"""

import difflib
import fcntl
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import url2pathname

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from graphcast_batch.credentials import scrubbed
from graphcast_batch.errors import GraphcastBatchError, InputError, InputNotFoundError
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

Kind = Literal["checkpoint", "stats", "sample"]

BUCKET: Final = "https://storage.googleapis.com/dm_graphcast/graphcast"
RECORD: Final = "fetched.json"

_LISTING: Final = "https://storage.googleapis.com/storage/v1/b/dm_graphcast/o"
_FOLDERS: Final[dict[Kind, str]] = {"checkpoint": "params", "stats": "stats", "sample": "dataset"}
_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._<>=+-]*\.(npz|nc)")


@dataclass(frozen=True)
class Published:
    """One file that can be fetched.

    Attributes:
        kind: what it is.
        file: its name, without folders.
        size_bytes: None where only the server knows.
        sha256: hexadecimal; empty where nobody has told.

    Raises:
        InputError: ``file`` is not a plain name.
    """

    kind: Kind
    file: str
    size_bytes: int | None = None
    sha256: str = ""

    def __post_init__(self) -> None:
        if not _FILE.fullmatch(self.file):
            raise InputError(f"a published file must have a plain name that ends in .npz or .nc, not {self.file!r}")

    @property
    def name(self) -> str:
        """What people call it."""
        return self.file.split(" - ")[0] if self.kind == "checkpoint" else self.file.removesuffix(".nc")

    @property
    def place(self) -> str:
        """Where it is in the bucket and in mirrors."""
        return f"{_FOLDERS[self.kind]}/{self.file}"


class Fetched(BaseModel):
    """What is kept about a fetched file.

    Attributes:
        url: where it came from.
        bytes: its size.
        sha256: hexadecimal.
        date: when it was verified, UTC, ISO 8601.
        license: SPDX identifier.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    url: str
    bytes: int
    sha256: str
    date: str
    license: str


def _samples() -> Iterator[Published]:
    few, many = ("01", "04", "12"), ("01", "04", "12", "20", "40")
    for source, resolution, levels, lengths in (
        ("era5_date-2022-01-01", "0.25", (13, 37), few),
        ("era5_date-2022-01-01", "1.0", (13, 37), many),
        ("fake_date-2000-01-01", "6.0", (13, 37), many),
        ("hres_date-2022-01-01", "0.25", (13,), few),
    ):
        for level in levels:
            for steps in lengths:
                yield Published("sample", f"source-{source}_res-{resolution}_levels-{level}_steps-{steps}.nc")


KNOWN: Final = (
    # Sizes and sums of the checkpoints: https://huggingface.co/shermansiu, which copied the bucket in December 2023.
    Published(
        "checkpoint",
        "GraphCast - ERA5 1979-2017 - resolution 0.25 - pressure levels 37 - mesh 2to6 - "
        "precipitation input and output.npz",
        145_990_258,
        "4e8cf600f3f402ebb430483e782b94648cef57bb757dec24dd7b11760d3fbacc",
    ),
    Published(
        "checkpoint",
        "GraphCast_operational - ERA5-HRES 1979-2021 - resolution 0.25 - pressure levels 13 - mesh 2to6 - "
        "precipitation output only.npz",
        144_203_874,
        "8f485e84343072785522f6d0696c198c7712e9f0f14070a88c26a9ff35db75a9",
    ),
    Published(
        "checkpoint",
        "GraphCast_small - ERA5 1979-2015 - resolution 1.0 - pressure levels 13 - mesh 2to5 - "
        "precipitation input and output.npz",
        144_041_078,
        "e9438d8ad31ca6e1d3397a33b2508f4bbb6ec16aed84629f9a64712bf756bc29",
    ),
    # stats/README.md
    Published(
        "stats", "diffs_stddev_by_level.nc", 4416, "e688fc51fe72e1dc897678ef5ce9889add64e28e13f3cec4758d8e47d429c1ce"
    ),
    Published("stats", "mean_by_level.nc", 5776, "e6e724b94cd27707903cdc5cf5784d420bab306f722e631f4455e25c96da9931"),
    Published("stats", "stddev_by_level.nc", 5776, "29f941d8c34906b87a1745f93b2308d1e169ec9bbdc4c5491479c771fe92c3cb"),
    *_samples(),
)

LICENSE: Final = "CC-BY-4.0"
_TERMS: Final = "CC BY 4.0, https://creativecommons.org/licenses/by/4.0/"
_ECMWF: Final = (
    "Made with data of ECMWF and modified Copernicus Climate Change Service information 2023; neither the European "
    "Commission nor ECMWF is responsible for any use of them."
)


def license(kind: Kind) -> str:
    """The terms of a kind of files, for people, as their publisher stated them in August 2026."""
    match kind:
        case "checkpoint":
            return (
                f"GraphCast's weights: Google LLC, {_TERMS}. This holds since 6 August 2026, also for copies from "
                "before; the text inside a file may still name the former license, CC BY-NC-SA 4.0. Name the source, "
                f"https://doi.org/10.1126/science.adi2336. {_ECMWF}"
            )
        case "stats":
            return f"GraphCast's normalisation statistics: Google LLC, {_TERMS}. {_ECMWF}"
        case "sample":
            return (
                f"GraphCast's sample datasets: Google LLC, {_TERMS}. {_ECMWF} Those from HRES: copyright 2023 European "
                f"Centre for Medium-Range Weather Forecasts (ECMWF), www.ecmwf.int, CC BY 4.0; ECMWF accepts no "
                "liability for errors in them, their availability, or loss from their use."
            )


def listing(mirror: str | None = None) -> tuple[Published, ...]:
    """What can be fetched now.

    Args:
        mirror: as for `fetch`; of one, only files that are `KNOWN`, and all of them if it is on the web.

    Raises:
        InputError: the bucket cannot be asked, or its answer not be read.
    """
    if mirror is None:
        return tuple(_in_bucket())
    folder = _local(mirror)
    if folder is None:
        return KNOWN
    return tuple(file for file in KNOWN if (folder / file.place).is_file())


def find(kind: Kind, name: str = "all", mirror: str | None = None) -> tuple[Published, ...]:
    """The files that a name means.

    Args:
        kind: what is wanted.
        name: of a checkpoint, as in ``GraphCast_small``; of a sample, or as many of its parts as make it unique, as in
            ``era5_res-1.0_levels-13_steps-04``; a file's whole name; ``all`` for the three files of statistics.
        mirror: as for `fetch`.

    Raises:
        InputNotFoundError: nothing has that name.
        InputError: the name means several samples.
    """
    offered = [file for file in KNOWN if file.kind == kind]
    chosen = [file for file in offered if _is_meant(file, name)]
    if not chosen:
        with suppress(InputError):  # no network: the known files must do for the answer
            listed = [file for file in listing(mirror) if file.kind == kind]
            chosen = [file for file in listed if _is_meant(file, name)]
            offered += listed
    if not chosen:
        raise InputNotFoundError(_unknown(kind, name, [file.name for file in offered]))
    if len(chosen) > 1 and kind != "stats":
        several = "\n  ".join(file.name for file in chosen)
        raise InputError(f"the {kind} {name!r} must be one file, but means {len(chosen)}; say which:\n  {several}")
    return tuple(chosen)


def fetch(file: Published, folder: Path, progress: Progress, mirror: str | None = None) -> Fetched:
    """Brings one file into a folder, unless it is there whole already, and records it in ``fetched.json``.

    What an interrupted transfer left is taken up again. Whoever fetches into the same folder at the same time waits.

    Args:
        file: what to fetch.
        folder: where to; made if need be.
        progress: is told, again and again, how many bytes are here, and of how many.
        mirror: a folder, or an address that begins with ``file://``, ``http://`` or ``https://``, laid out as the
            bucket: ``params``, ``stats`` and ``dataset``; without it the bucket itself.

    Raises:
        InputNotFoundError: it is not there.
        InputError: it cannot be had or written, or is not what was published.
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
    """What the bucket's public listing has in our three folders; a page holds more than there is."""
    query = urlencode({"prefix": "graphcast/", "fields": "items(name,size)", "maxResults": 1000})
    try:
        with ask(f"{_LISTING}?{query}") as answer:
            page = _Page.model_validate_json(answer.read())
    except (CutError, OSError, HTTPException) as error:
        raise InputError(f"the listing of {BUCKET} could not be had: {error}; {NO_NETWORK}") from error
    except ValidationError as error:
        raise InputError(f"the listing of {BUCKET} must be JSON with names and sizes, but is not: {error}") from error
    known = {file.place: file for file in KNOWN if file.sha256}
    for item in page.items:
        place = item.name.removeprefix("graphcast/")
        for kind, sub in _FOLDERS.items():
            file = place.removeprefix(f"{sub}/")
            if file != place and _FILE.fullmatch(file):
                yield known.get(place, Published(kind, file, item.size))


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
    """One spelling of a part of a sample's name: ``steps-04`` is ``steps-4``, and ``res-1.0`` is ``res-1``."""
    return re.sub(r"(?<=-)0*(\d+)(\.0*)?$", r"\1", part)


def _unknown(kind: Kind, name: str, names: Iterable[str]) -> str:
    shown = {known.lower(): known for known in names}
    nearest = difflib.get_close_matches(name.lower(), shown, 1, 0.5)
    hint = f"the nearest is {shown[nearest[0]]!r}; " if nearest else ""
    return f"there is no published {kind} {name!r}; {hint}what there is:\n  " + "\n  ".join(shown.values())


def _origin(file: Published, mirror: str | None) -> str | Path:
    base = mirror or BUCKET
    folder = _local(base)
    return folder / file.place if folder else f"{base.rstrip('/')}/{quote(file.place)}"


def _local(mirror: str) -> Path | None:
    """The folder that a mirror is; None if it is an address on the web."""
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
    """Transfers and verifies one file; returns its SHA-256, hexadecimal."""
    part = target.with_name(f"{target.name}.part")
    version = transfer(origin, file.size_bytes, part, progress)
    sha256, md5 = _digests(part)
    found, expected = (sha256, file.sha256) if file.sha256 else (md5, version.md5 or md5)
    if found != expected:
        part.unlink()
        raise InputError(
            f"{version.url} must have the checksum {expected}, but what arrived has {found} and was thrown away; run "
            "again, and if that does not help the file was damaged or replaced at its origin"
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
    """SHA-256 and MD5 of a file, hexadecimal."""
    sums = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as content:
        while piece := content.read(2**20):
            for each in sums:
                each.update(piece)
    return sums[0].hexdigest(), sums[1].hexdigest()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits until no other process fetches into a folder, where its file system has locks."""
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
            f"files cannot be fetched into {folder}: {error}; mend the space, quota or permissions and run again: "
            "what arrived is kept"
        ) from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
