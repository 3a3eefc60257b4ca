"""Define the command that writes an HTML page about a store."""

from pathlib import Path
from typing import Annotated

import typer

from graphcast_batch.cli.application import SCORES, StorePath, app, examples, print_line


@app.command(rich_help_panel=SCORES, epilog=examples("graphcast-batch report runs/hindcast --out report.html"))
def report(
    store: StorePath,
    out: Annotated[Path, typer.Option(help="HTML file to write; an existing file is replaced.", metavar="FILE")],
    against: Annotated[
        Path | None,
        typer.Option(
            help="Folder of another store, whose forecasts and scores are shown beside those of STORE. Default: none.",
            metavar="STORE",
        ),
    ] = None,
    region: Annotated[
        str | None, typer.Option(help="Name of the region whose scores are shown. Default: the globe.")
    ] = None,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Write the page again and again until no Case is left to be made, or Ctrl-C."),
    ] = False,
) -> None:
    """Write one HTML page about STORE: its state, its forecasts as maps, scores, timeline and failures.

    The page opens from disk, without a network, and may be written while a run is in progress.
    """
    from graphcast_batch.app import reporting

    if watch:
        print_line(f"report: {out} (Ctrl-C ends)")
    reporting.report(store, out, against=against, region=region, watch=watch)
    print_line(f"report: {out}, {out.stat().st_size / 1e6:.2g} MB")
