"""Turn what a command would print into text and HTML, so that a notebook can show it as the value of a cell."""

from collections.abc import Callable
from io import StringIO
from typing import Final

from rich.console import Console

from graphcast_batch.screen import Screen

_WIDTH: Final = 110
"""Characters in a line; the notebook wraps longer lines."""
_HTML: Final = '<pre style="line-height:normal;white-space:pre-wrap;overflow-wrap:anywhere">{code}</pre>'
"""Sets no color of its own, so that it is legible in light and dark notebooks."""


def as_text(show: Callable[[Console], None]) -> str:
    """Return what a function prints on a console, without colors."""
    lines = _recorded(show).export_text().splitlines()
    return "\n".join(line.rstrip() for line in lines)


def as_html(show: Callable[[Console], None]) -> str:
    """Return what a function prints on a console as an HTML element, in colors and escaped."""
    return _recorded(show).export_html(code_format=_HTML, inline_styles=True)


def _recorded(show: Callable[[Console], None]) -> Console:
    # In a notebook rich would print at once, and elsewhere it would adapt to a terminal that is not meant.
    console = Screen(file=StringIO(), record=True, width=_WIDTH, force_jupyter=False, force_terminal=True)
    show(console)
    return console
