"""Bear a store that refuses something for a while, and print a storm of refusals as a few lines."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Final, TypeVar

from graphcast_batch.errors import StoreError, StoreUnwritableError

PATIENCE_SECONDS: Final = 60.0
"""How long a store may refuse all that is asked of it; a claim without heartbeats lasts for twice as long."""
REFUSAL_SECONDS: Final = 1.0
"""How long a store is left alone that has refused something."""
_SILENT_SECONDS: Final = 60.0

Found = TypeVar("Found")


class RateLimitedNotes:
    """Prints what happens often once a minute for each kind, with how many times it did.

    Args:
        note: prints an event and its text.
    """

    def __init__(self, note: Callable[[str, str], None]) -> None:
        self._note = note
        self._silent: Counter[tuple[str, str]] = Counter()
        self._until: dict[tuple[str, str], float] = {}
        self._texts: dict[tuple[str, str], str] = {}

    def note(self, event: str, kind: str, text: str) -> None:
        """Something happened: prints it, or counts it.

        Args:
            event: its name.
            kind: of those of that name, what tells it from others.
            text: of this one.
        """
        now, which = time.monotonic(), (event, kind)
        self._silent[which] += 1
        self._texts[which] = text
        if now >= self._until.get(which, now):
            self._until[which] = now + _SILENT_SECONDS
            self._print(which)

    def is_first(self, event: str, kind: str) -> bool:
        """Whether something happens for the first time in a minute; nothing is printed, and nothing counted."""
        now, which = time.monotonic(), (event, kind)
        first = now >= self._until.get(which, now)
        if first:
            self._until[which] = now + _SILENT_SECONDS
        return first

    def close(self) -> None:
        """Prints what was only counted so far."""
        for which in [which for which, count in self._silent.items() if count]:
            self._print(which)

    def _print(self, which: tuple[str, str]) -> None:
        count, text = self._silent.pop(which), self._texts[which]
        self._note(which[0], text if count == 1 else f"{text} ({count} times since this was last printed)")


def kind_of(error: StoreError) -> str:
    """What tells a refusal from those of another kind: the system's number for it, or its first words."""
    cause = error.__cause__
    return f"errno {cause.errno}" if isinstance(cause, OSError) else str(error)[:40]


def patiently(function: Callable[[], Found]) -> Found:
    """What a function gives that asks a store, which may refuse it for a while.

    Raises:
        StoreError: it refused it for longer, or for good.
    """
    give_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return function()
        except StoreUnwritableError:
            raise
        except StoreError as error:
            # What no call to the system caused does not go away by waiting.
            if not isinstance(error.__cause__, OSError) or time.monotonic() > give_up:
                raise
        time.sleep(REFUSAL_SECONDS)
