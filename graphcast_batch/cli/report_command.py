"""The command that turns a store into a page to look at."""

from pathlib import Path
from typing import Annotated

import typer

from graphcast_batch.cli.application import SCORES, StorePath, app, examples, say


@app.command(rich_help_panel=SCORES, epilog=examples("graphcast-batch report runs/hindcast --out report.html"))
def report(
    store: StorePath,
    out: Annotated[Path, typer.Option(help="HTML file to write; one that is there is replaced.", metavar="FILE")],
    against: Annotated[
        Path | None, typer.Option(help="Another store, whose forecasts and scores are shown beside.", metavar="STORE")
    ] = None,
    region: Annotated[str | None, typer.Option(help="Region of the scores; without it the globe.")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write it anew until nothing is left to be made, or Ctrl-C.")
    ] = False,
) -> None:
    """Writes one HTML file about STORE: how far it is, its forecasts as maps, scores, timeline and failures.

    It opens from disk, without a network, and may be written while a run goes on.
    """
    from graphcast_batch.report import page

    if watch:
        say(f"report: {out} (Ctrl-C ends)")
        page.watch(store, out, against, region)
    else:
        page.write_page(store, out, against, region)
    say(f"report: {out}, {out.stat().st_size / 1e6:.2g} MB")
