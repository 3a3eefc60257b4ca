"""A console on which text is what it says, and which no text can steer."""

import unicodedata
from collections.abc import Iterator
from typing import Any, Final

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook
from rich.segment import Segment

_TURNING: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the order in which others are shown (Unicode Standard Annex 9)."""


class Screen(Console):
    r"""A console that takes square brackets for themselves, and shows control characters as ``\x1b``.

    Names of files, keys of configs and attributes of data may hold either, and whoever wrote them need not be a friend.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - those of rich
        """Takes the options of rich's own console."""
        super().__init__(markup=False, emoji=False, highlight=False, **options)
        self.push_render_hook(_Visibly())

    def on_broken_pipe(self) -> None:
        """Goes on when nobody reads any more, where rich ends the program."""


def visible(text: str) -> str:
    """A text with what steers a terminal written out."""
    return "".join(map(_shown, text)) if any(map(_steers, text)) else text


class _Visibly(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Visible(each) for each in renderables]


class _Visible:
    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._inner, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def _steers(character: str) -> bool:
    return character in _TURNING or (character != "\n" and unicodedata.category(character) == "Cc")


def _shown(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii") if _steers(character) else character
