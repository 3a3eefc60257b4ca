"""Write a report on a store as one HTML file, which needs no other files and no network."""

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
from jinja2 import Environment, FunctionLoader, StrictUndefined

from graphcast_batch.coastlines import coastlines
from graphcast_batch.figures.conventions import DIFFERENCES
from graphcast_batch.figures.palette import palette
from graphcast_batch.files.durable import explained, replace
from graphcast_batch.report.field_pictures import Browsable, browsable
from graphcast_batch.report.skill import skill
from graphcast_batch.report.summary import Opened, Standing, config_text, facts, listed, open_store, standing, versions
from graphcast_batch.report.timeline import RunTimeline, clock, timeline
from graphcast_batch.report.views import views_of
from graphcast_batch.stores.case_records import CaseState
from graphcast_batch.stores.journal import read_journal

MOST_BYTES: Final = 15_000_000
"""Largest size of a page: mail servers accept it as an attachment, and phones open it quickly."""
_MOST_MAPS: Final = 11_000_000
_MARGIN: Final = 100_000
"""Bytes for colors, numbers and texts of the maps, besides their pictures."""
_EVERY_SECONDS: Final = 20.0
_SHARE: Final = 4.0
"""The pause between two pages is at least this many times the time that writing one takes."""


def write_page(
    path: Path, out: Path, against: Path | None = None, region: str | None = None, reload_seconds: float | None = None
) -> bool:
    """Write the page of a store; an existing file is replaced in one step.

    Args:
        path: folder of the store.
        out: path of the page.
        against: folder of another store, to compare with.
        region: region of the scores; None for the globe.
        reload_seconds: interval at which the page reloads itself while Cases are left to make; None for never.

    Returns:
        Whether no Cases are left to make in the store.

    Raises:
        StoreError: a store cannot be read, or the page cannot be written.
        ConfigError: the configuration of a store cannot be read.
        EvaluationError: there are no scores of the region.
    """
    opened = open_store(path)
    found = standing(opened) if opened else None
    is_over = found is not None and found.is_over
    often = None if is_over else reload_seconds
    if opened and found:
        text = _page(opened, found, against, region, often)
    else:
        text = _rendered("waiting.html.j2", {}, name=path.absolute().name, reload_seconds=often)
    with explained(f"writing the report {out}"):
        replace(out, text.encode())
    return is_over


def watch(
    path: Path,
    out: Path,
    against: Path | None = None,
    region: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Write the page again and again until no Cases are left to make, or the program is interrupted.

    Args:
        path: folder of the store.
        out: path of the page.
        against: folder of another store, to compare with.
        region: region of the scores; None for the globe.
        sleep: waits between two pages.
    """
    began = time.monotonic()
    try:
        while not write_page(path, out, against, region, _EVERY_SECONDS):
            sleep(max(_EVERY_SECONDS, _SHARE * (time.monotonic() - began)))
            began = time.monotonic()
    except KeyboardInterrupt:
        write_page(path, out, against, region)


def _page(
    opened: Opened, found: Standing, against: Path | None, region: str | None, reload_seconds: float | None
) -> str:
    """Return the page; the maps get the space that the other parts leave."""
    other = _other(opened, against)
    line, scores = timeline(read_journal(opened.store.path)), skill(opened, other, region)
    charts = scores.charts if scores else []
    shown: dict[str, Any] = {
        "name": opened.name,
        "other": other.name if other else against,
        "facts": facts(opened),
        "other_facts": facts(other) if other else [],
        "versions": versions(opened),
        "config": config_text(opened),
        "standing": found,
        "states": [(state.value, found.keys[state], listed(found.keys[state])) for state in CaseState],
        "timeline": line,
        "clock": clock,
        "skill": scores,
        "reload_seconds": reload_seconds,
    }
    data = {"charts": charts, "speed": _speed(line) if line else None}
    bare = _rendered("page.html.j2", data | _drawing([]), sides=[], **shown)
    room = min(_MOST_MAPS, MOST_BYTES - _MARGIN - len(bare.encode()))
    sides = _sides(opened, other, room)
    data["sides"] = [side.content for side in sides]
    return _rendered("page.html.j2", data | _drawing(sides), sides=sides, **shown)


def _other(opened: Opened, against: Path | None) -> Opened | None:
    """Open the store to compare with, under a different name; return None if it is not laid out yet."""
    other = open_store(against) if against else None
    same = other is not None and other.name == opened.name
    return dataclasses.replace(other, name=str(other.store.path)) if other and same else other


def _sides(opened: Opened, other: Opened | None, room: int) -> list[Browsable]:
    """Return the maps of the store, and those of the same initial times, members and statistics of the other store."""
    if other is None:
        return [browsable(opened, views_of(opened), room)]
    ours, theirs = browsable(opened, views_of(opened), room // 2), views_of(other)
    keys = {view["key"] for view in ours.content.get("views", ())}
    return [ours, browsable(other, [view for view in theirs if not keys or view.key in keys], room // 2)]


def _speed(line: RunTimeline) -> dict[str, Any]:
    """Return the number of complete Cases by the seconds since the start."""
    ends = [round(bar.end - line.start, 1) for bar in line.bars]
    return {"seconds": [0.0, *ends], "cases": list(range(len(ends) + 1))}


def _drawing(sides: Sequence[Browsable]) -> dict[str, Any]:
    """Return the color tables (red, green, blue) and the coastlines (in tenths of degrees) of the maps."""
    fields = [field for side in sides for field in side.content.get("fields", ())]
    of_spreads = (field["spread"]["colors"] for field in fields if field["spread"])
    names = {DIFFERENCES, *(field["colors"] for field in fields), *of_spreads}
    colors = {name: palette(name).ravel().tolist() for name in sorted(names)}
    coasts = [np.round(10 * line).astype(int).ravel().tolist() for line in coastlines()]
    return {"colors": colors, "differences": DIFFERENCES, "coasts": coasts}


def _rendered(template: str, data: dict[str, Any], **values: Any) -> str:  # noqa: ANN401
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    parts = {"css": _part("page.css"), "script": _part("page.js"), "data": _json(data)}
    return _environment().get_template(template).render(written=written, **parts, **values)


def _json(content: dict[str, Any]) -> str:
    """Return JSON for a script element, in which no text can contain ``</script``, which would end the element."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


@cache
def _environment() -> Environment:
    loader = FunctionLoader(lambda name: _part(f"templates/{name}"))
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


@cache
def _part(name: str) -> str:
    return (files("graphcast_batch.report") / name).read_text(encoding="utf-8")
