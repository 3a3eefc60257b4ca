"""A drawn figure becomes a PNG file: in the package's style, with its alternative text, whole or not at all."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from io import BytesIO
from pathlib import Path
from uuid import uuid4

from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# matplotlib keeps its settings in one table for the whole process, so threads take turns with it.
_SETTINGS = threading.RLock()


@contextmanager
def package_style() -> Iterator[None]:
    """Within it, figures are made and written in the package's style, and by one thread at a time."""
    sheet = files("graphcast_batch.figures") / "graphcast_batch.mplstyle"
    with _SETTINGS, as_file(sheet) as path, style.context(["default", path]):
        yield


def write_png(figure: Figure, path: Path, *, title: str, description: str) -> None:
    """Writes a figure; equal figures give equal bytes.

    The folder is made where it is missing. A reader sees the old file or the new one, never a part.

    Args:
        figure: made within `package_style`, and written within the same.
        path: of the file.
        title: what the picture is about, for its metadata.
        description: what the picture shows, in words, for its metadata.
    """
    content = BytesIO()
    metadata = {"Title": title, "Description": description, "Software": "graphcast-batch"}
    FigureCanvasAgg(figure)
    figure.savefig(content, format="png", metadata=metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        part.write_bytes(content.getvalue())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
