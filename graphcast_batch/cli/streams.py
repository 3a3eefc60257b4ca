"""Keep printing from ending a command: standard output and error that drop what they cannot write."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import UnsupportedOperation
from typing import Any, Final, TextIO

_GONE: Final = (errno.EPIPE, errno.EBADF, errno.EIO, errno.ENXIO)
"""Errors after which nothing can be written any more; after others, such as a full disk, writing is tried again."""


class Output:
    """A stream that raises no errors when writing fails, and remembers the first.

    Attributes:
        lost: the first error; None if all was written.
    """

    def __init__(self, stream: TextIO | None, number: int) -> None:
        """Write to a stream.

        Args:
            stream: to write to; None if it was closed before the program began.
            number: file descriptor of the stream, which is opened if it is closed, or the next file would get it.
        """
        self.lost: Exception | None = None
        self._stream = stream or _opened(number)
        if stream is None:
            self.lost = OSError(errno.EBADF, "it is closed")
        if hasattr(self._stream, "reconfigure"):  # else a character that the terminal's encoding lacks would raise
            self._stream.reconfigure(errors="backslashreplace")

    @property
    def is_broken(self) -> bool:
        """Whether output was lost that somebody wants: a closed pipe, as after ``head``, does not count."""
        return self.lost is not None and getattr(self.lost, "errno", None) != errno.EPIPE

    def write(self, text: str) -> int:
        """Write text, or drop it if that fails."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, or drop what cannot be written."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._lose(error)

    def writelines(self, lines: list[str]) -> None:
        """Write lines, or drop them if that fails."""
        self.write("".join(lines))

    def end(self) -> None:
        """Flush, so that nothing is left which Python would try to write when it exits, and complain about."""
        self.flush()
        if self.lost is not None:
            self._silence()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of a stream
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
        null_device = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null_device, number)
        os.close(null_device)


@contextmanager
def unfailing() -> Iterator[tuple[Output, Output]]:
    """Replace standard output and error, for as long as the context lasts, by streams that raise nothing."""
    if sys.stdin is None:
        _opened(0)  # or the next file that is opened would become standard input
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
    """Return a stream to the null device, at a file descriptor that is closed."""
    place = os.open(os.devnull, os.O_WRONLY)
    if place != number:
        os.dup2(place, number)
        os.close(place)
    os.set_inheritable(number, True)
    return open(number, "w", encoding="utf-8", closefd=False)
