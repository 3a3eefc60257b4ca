"""What is printed must not end what is computed: standard output and error that lose what they cannot write."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import UnsupportedOperation
from typing import Any, Final, TextIO

_GONE: Final = (errno.EPIPE, errno.EBADF, errno.EIO, errno.ENXIO)
"""Errors after which nothing can be written any more; after others, such as of a full disk, it is tried again."""


class Output:
    """A stream whose errors of writing are remembered, and raised nowhere.

    Attributes:
        lost: the first error; None if all was written.
    """

    def __init__(self, stream: TextIO | None, number: int) -> None:
        """Writes to a stream.

        Args:
            stream: to write to; None for one that was closed before the program began.
            number: its file descriptor, which is opened if it is closed, or the next file would get it.
        """
        self.lost: Exception | None = None
        self._stream = stream or _opened(number)
        if stream is None:
            self.lost = OSError(errno.EBADF, "it is closed")
        if hasattr(self._stream, "reconfigure"):  # else a name that the terminal's encoding lacks would be an error
            self._stream.reconfigure(errors="backslashreplace")

    @property
    def is_broken(self) -> bool:
        """Whether something was lost that a reader is waiting for: ``head`` has gone when it has read enough."""
        return self.lost is not None and getattr(self.lost, "errno", None) != errno.EPIPE

    def write(self, text: str) -> int:
        """Writes text, or loses it."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError) as error:  # the latter of a stream that was closed
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Hands on what was written, or loses it."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._lose(error)

    def writelines(self, lines: list[str]) -> None:
        """Writes lines, or loses them."""
        self.write("".join(lines))

    def end(self) -> None:
        """Makes sure that nothing is left which Python would fail to write at its end, and complain of."""
        self.flush()
        if self.lost is not None:
            self._silence()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever streams have
        return getattr(self._stream, name)

    def _lose(self, error: Exception) -> None:
        self.lost = self.lost or error
        if getattr(error, "errno", None) in _GONE:
            self._silence()

    def _silence(self) -> None:
        try:
            number = self._stream.fileno()
        except (UnsupportedOperation, ValueError):
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)


@contextmanager
def unfailing() -> Iterator[tuple[Output, Output]]:
    """Standard output and error that raise nothing, for as long as the block lasts."""
    if sys.stdin is None:
        _opened(0)  # or the next file would be everybody's standard input
    before = sys.stdout, sys.stderr
    streams = Output(sys.stdout, 1), Output(sys.stderr, 2)
    sys.stdout, sys.stderr = streams
    try:
        yield streams
    finally:
        for stream in streams:
            stream.end()
        sys.stdout, sys.stderr = before


def _opened(number: int) -> TextIO:
    """A stream to nowhere at a file descriptor that is closed."""
    place = os.open(os.devnull, os.O_WRONLY)
    if place != number:
        os.dup2(place, number)
        os.close(place)
    os.set_inheritable(number, True)
    return open(number, "w", encoding="utf-8", closefd=False)
