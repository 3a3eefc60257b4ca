"""Write figures to files atomically, in the package's style and with alternative text."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import as_file, files
from io import BytesIO
from pathlib import Path
from typing import Final
from uuid import uuid4

from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from graphcast_batch.errors import FigureError

_SOFTWARE: Final = "graphcast-batch"
# Each format has names of its own for the same things; dates are left out, so that equal figures give equal bytes.
_METADATA: Final[Mapping[str, Callable[[str, str], dict[str, str | None]]]] = {
    ".png": lambda title, alt: {"Title": title, "Description": alt, "Software": _SOFTWARE},
    ".svg": lambda title, alt: {"Title": title, "Description": alt, "Creator": _SOFTWARE, "Date": None},
    ".pdf": lambda title, alt: {"Title": title, "Subject": alt, "Creator": _SOFTWARE, "CreationDate": None},
}
# matplotlib keeps its settings in one table for the whole process, so threads take turns with it.
_SETTINGS = threading.RLock()


@contextmanager
def package_style() -> Iterator[None]:
    """Use the package's style within the context, for one thread at a time."""
    sheet = files("graphcast_batch.figures") / "graphcast_batch.mplstyle"
    with _SETTINGS, as_file(sheet) as path, style.context(["default", path]):
        yield


def save(figure: Figure, path: Path, alt: str) -> None:
    """Write a figure as PNG, SVG or PDF, by the suffix of the path; equal figures give equal bytes.

    The folder is created if it is missing. A reader sees the old file or the new one, never a part. The first line of
    the figure's heading is its title in the file's metadata.

    Args:
        figure: drawn within `package_style`, and written within the same context.
        path: of the file.
        alt: alternative text: what the picture shows, for people who cannot see it.

    Raises:
        FigureError: the suffix is none of these.
    """
    if path.suffix not in _METADATA:
        raise FigureError(f"a figure is written as {', '.join(_METADATA)}, but {path} ends otherwise; rename it")
    heading = figure.get_suptitle().partition("\n")[0]
    content = BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(content, format=path.suffix[1:], metadata=_METADATA[path.suffix](heading, alt))
    write_complete(path, content.getvalue())


def write_complete(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part; create its folder if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
