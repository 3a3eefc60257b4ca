"""Write one HTML page about a store."""

from pathlib import Path

from graphcast_batch.app.any_path import AnyPath
from graphcast_batch.report import page


def report(
    store: AnyPath,
    out: AnyPath,
    *,
    against: AnyPath | None = None,
    region: str | None = None,
    watch: bool = False,
) -> Path:
    """Write an HTML page about a store: its state, forecasts as maps, scores, timeline and failures.

    The page opens from disk, without a network. It may be written while a run is in progress.

    >>> gb.report("runs/demo", "report.html")

    Args:
        store: folder of the store.
        out: HTML file to write; an existing file is replaced.
        against: folder of another store, whose forecasts and scores are shown beside those of the first.
        region: name of the region of the scores; without it the globe.
        watch: whether to write the page again and again until no Case is left to be made, or Ctrl-C.

    Returns:
        The path of the file.

    Raises:
        StoreError: there is no store, or the file cannot be written.
    """
    write = page.watch if watch else page.write_page
    write(Path(store), Path(out), None if against is None else Path(against), region)
    return Path(out)
