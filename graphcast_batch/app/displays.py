"""What a command would print becomes the text and the HTML of a value in a notebook."""

from collections.abc import Callable
from io import StringIO
from typing import Final

from rich.console import Console

from graphcast_batch.screen import Screen

_WIDTH: Final = 110
"""Characters; what is longer is wrapped by whoever shows it."""
_HTML: Final = '<pre style="line-height:normal;white-space:pre-wrap;overflow-wrap:anywhere">{code}</pre>'
"""Without a colour of its own, so that it is legible in light and dark notebooks."""


def as_text(show: Callable[[Console], None]) -> str:
    """What is printed, without colours."""
    lines = _shown(show).export_text().splitlines()
    return "\n".join(line.rstrip() for line in lines)


def as_html(show: Callable[[Console], None]) -> str:
    """The same with colours, as an element of HTML; all that is printed is escaped."""
    return _shown(show).export_html(code_format=_HTML, inline_styles=True)


def _shown(show: Callable[[Console], None]) -> Console:
    # In a notebook rich would print at once, and elsewhere it would heed a terminal that is not meant.
    console = Screen(file=StringIO(), record=True, width=_WIDTH, force_jupyter=False, force_terminal=True)
    show(console)
    return console
