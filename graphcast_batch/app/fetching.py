"""Download the files that DeepMind published with GraphCast: weights, statistics and sample datasets."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from graphcast_batch.app.any_path import AnyPath, text_or_none
from graphcast_batch.app.progress import ProgressChoice, chosen_progress
from graphcast_batch.inputs.downloads import catalog, published
from graphcast_batch.inputs.downloads.catalog import Kind, Published
from graphcast_batch.inputs.downloads.published import Fetched


@dataclass(frozen=True)
class FetchResult:
    """Files that were downloaded; `fetch` returns it.

    Attributes:
        files: paths of the files, each with the record of its origin, size and checksum.
        license: the terms that the files are published under.
    """

    files: tuple[tuple[Path, Fetched], ...]
    license: str


def fetch(
    kind: Kind,
    name: str = "all",
    folder: AnyPath = ".",
    *,
    mirror: AnyPath | None = None,
    progress: ProgressChoice = None,
) -> FetchResult:
    """Download published files into a folder, unless they are there already, and verify them.

    >>> gb.fetch("checkpoint", "small", "params").files[0][0]

    Args:
        kind: "checkpoint", "stats" or "sample".
        name: of the file, or parts of the name that no other file has; "all" for the three files of statistics.
        folder: for the files; made if it does not exist.
        mirror: folder, or address that begins with ``file://``, ``http://`` or ``https://``, with the files of the
            bucket in ``params``, ``stats`` and ``dataset``; without it the bucket itself.
        progress: as for `run`.

    Raises:
        InputNotFoundError: no file has the name.
        InputError: several files match the name, or the download fails or is not what was published.
    """
    mirror = text_or_none(mirror)
    shown, files = chosen_progress(progress), list[tuple[Path, Fetched]]()
    for file in published.find(kind, name, mirror):
        with shown.download(file.name, file.size_bytes) as update:
            record = published.fetch(file, Path(folder), update, mirror)
        files.append((Path(folder) / file.file, record))
    return FetchResult(tuple(files), catalog.license(kind))


def published_files(mirror: AnyPath | None = None) -> Sequence[Published]:
    """Return which files can be downloaded.

    >>> [file.name for file in gb.published_files() if file.kind == "checkpoint"]

    Args:
        mirror: as for `fetch`.
    """
    return published.listing(text_or_none(mirror))
