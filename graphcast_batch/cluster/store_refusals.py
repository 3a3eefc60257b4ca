"""Tolerate a store that refuses reads or writes for a while, and print many refusals as a few lines."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from graphcast_batch.errors import StoreError, StoreUnwritableError

PATIENCE_SECONDS: Final = 60.0
"""How long a store may refuse every operation; a lease that is not renewed lasts for twice as long."""
REFUSAL_SECONDS: Final = 1.0
"""How long nothing is asked of a store after it has refused an operation."""
_SILENT_SECONDS: Final = 60.0
"""How long a message of one kind is counted instead of printed after it was printed."""

Found = TypeVar("Found")


class RateLimitedNotes:
    """Prints messages of each kind at most once a minute, with how many of them there were.

    Args:
        note: prints an event and its text.
    """

    def __init__(self, note: Callable[[str, str], None]) -> None:
        self._note = note
        self._silent: Counter[tuple[str, str]] = Counter()
        self._until: dict[tuple[str, str], float] = {}
        self._texts: dict[tuple[str, str], str] = {}

    def note(self, event: str, kind: str, text: str) -> None:
        """Print a message, or count it if one of its kind was printed within the last minute.

        Args:
            event: name of the event.
            kind: tells this message from others of the same event.
            text: the message.
        """
        now, which = time.monotonic(), (event, kind)
        self._silent[which] += 1
        self._texts[which] = text
        if now >= self._until.get(which, now):
            self._until[which] = now + _SILENT_SECONDS
            self._print(which)

    def is_first(self, event: str, kind: str) -> bool:
        """Return whether a message of this kind is the first within a minute; nothing is printed or counted."""
        now, which = time.monotonic(), (event, kind)
        first = now >= self._until.get(which, now)
        if first:
            self._until[which] = now + _SILENT_SECONDS
        return first

    def close(self) -> None:
        """Print the messages that were only counted so far."""
        for which in [which for which, count in self._silent.items() if count]:
            self._print(which)

    def _print(self, which: tuple[str, str]) -> None:
        count, text = self._silent.pop(which), self._texts[which]
        self._note(which[0], text if count == 1 else f"{text} ({count} times since this was last printed)")


class RefusalTolerance:
    """Lets a run go on while its store refuses operations, unless it refuses all of them for long.

    Args:
        notes: prints the refusals.
    """

    def __init__(self, notes: RateLimitedNotes) -> None:
        self._notes = notes
        self._refused_since: float | None = None
        self._pause_until = time.monotonic()

    @contextmanager
    def tolerating(self) -> Iterator[None]:
        """Ignore a refusal of the store within the context; see `refused`."""
        try:
            yield
        except StoreError as error:
            self.refused(error)
        else:
            self.succeeded()

    def refused(self, error: StoreError) -> None:
        """Record a refusal of the store, to which nothing is sent for a while.

        Raises:
            StoreError: the refusal is final, or the store has refused every operation for a minute.
        """
        now = time.monotonic()
        self._refused_since = now if self._refused_since is None else self._refused_since
        if isinstance(error, StoreUnwritableError) or now - self._refused_since > PATIENCE_SECONDS:
            raise error
        self._pause_until = now + REFUSAL_SECONDS
        self._notes.note("store refused", kind_of(error), str(error))

    def succeeded(self) -> None:
        """Record that the store has done what was asked of it."""
        self._refused_since = None

    def is_pausing(self, now: float) -> bool:
        """Return whether the store has refused something so recently that nothing is to be asked of it.

        Args:
            now: seconds, of ``time.monotonic``.
        """
        return now < self._pause_until


def kind_of(error: StoreError) -> str:
    """Return what tells a refusal from those of another kind: the system's error number, or the first 40 characters."""
    cause = error.__cause__
    return f"errno {cause.errno}" if isinstance(cause, OSError) else str(error)[:40]


def patiently(function: Callable[[], Found]) -> Found:
    """Call a function that asks a store, again and again while the store refuses for a passing reason.

    Returns:
        what the function returns.

    Raises:
        StoreError: the store refused for longer than a minute, or finally.
    """
    give_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return function()
        except StoreUnwritableError:
            raise
        except StoreError as error:
            # An error that no system call caused does not pass by waiting.
            if not isinstance(error.__cause__, OSError) or time.monotonic() > give_up:
                raise
        time.sleep(REFUSAL_SECONDS)
