"""A console that prints text literally, so that no text can control the terminal."""

import unicodedata
from collections.abc import Iterator
from typing import Any, Final

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook
from rich.segment import Segment

_REORDERING: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the order in which other characters are shown (Unicode Standard Annex 9)."""


class Screen(Console):
    r"""A console that prints square brackets as they are, and control characters as ``\x1b``.

    File names, config keys and attributes of data may hold either, and may come from an attacker.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - those of rich
        """Take the options of rich's own console."""
        super().__init__(markup=False, emoji=False, highlight=False, **options)
        self.push_render_hook(_EscapingHook())

    def on_broken_pipe(self) -> None:
        """Go on when the reader has closed the pipe, where rich would end the program."""


def visible(text: str) -> str:
    """Return a text with control characters written as escapes."""
    return "".join(map(_escaped, text)) if any(map(_is_control, text)) else text


class _EscapingHook(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Escaped(each) for each in renderables]


class _Escaped:
    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._inner, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def _is_control(character: str) -> bool:
    return character in _REORDERING or (character != "\n" and unicodedata.category(character) == "Cc")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii") if _is_control(character) else character
