"""Ask a run to stop handing out work when a signal or a file says so, or the job is about to end.

A signal is acknowledged on standard error at once. A second signal interrupts the run.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final

WORK_LEFT: Final = 75
"""Exit code of a run that was asked to stop, at which a batch script requeues itself."""
DRAIN_VARIABLE: Final = "GRAPHCAST_BATCH_DRAIN"
"""Environment variable with the path of the file whose appearance asks to stop, where no other is given."""
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
RESERVE_SECONDS: Final = 60.0
"""How long before the end of a job all work must be done: the rest is for records, figures and ending Ray."""
_LOOK_SECONDS: Final = 1.0


class Drain:
    """A request to stop; as a context it listens to SIGTERM, SIGINT and SIGUSR1.

    Outside the main thread only the file and the end of the job are looked at.

    Args:
        file: path whose appearance asks to stop, which a batch script can touch without sending signals to Ray's own
            processes; None for the one that the environment names.
        start: when the job began, seconds since 1970, UTC; None where it is not known.
        end: when the job will end, seconds since 1970, UTC; None where it is not known.

    Attributes:
        reason: what has asked to stop, such as the name of a signal; empty as long as nothing has.
        signalled: whether a signal has asked, which was acknowledged.
        finishing: returns what is still done after a request; the handler of signals calls it for the acknowledgment.
    """

    reason = ""
    signalled = False

    def __init__(self, file: Path | None = None, start: float | None = None, end: float | None = None) -> None:
        named = os.environ.get(DRAIN_VARIABLE)
        self._file = file or (Path(named) if named else None)
        self.start, self.end = start, end
        self._looked = 0.0
        self._asked = threading.Event()
        self.finishing: Callable[[], str] = whatever_is_begun
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Drain":
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def asked(self) -> bool:
        """Whether the run has been asked to stop."""
        if not self._asked.is_set() and time.monotonic() - self._looked > _LOOK_SECONDS:
            self._looked = time.monotonic()
            if self.end is not None and time.time() > self.end - RESERVE_SECONDS:
                self.ask("the job ends")
            if self._file is not None and self._file.exists():
                self.ask(f"{self._file} has appeared")
        return self._asked.is_set()

    def ask(self, reason: str) -> None:
        """Ask the run to stop.

        Args:
            reason: what asks.
        """
        self.reason = self.reason or reason
        self._asked.set()

    def listen(self) -> None:
        """Listen to the signals, again if a library has taken them over since."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            handler = signal.signal(number, self._ask)
            self._before.setdefault(number, handler)

    def heard(self, number: int) -> None:
        """Ask the run to stop because a signal came, and acknowledge the first on standard error."""
        if not self.signalled:
            name = signal.Signals(number).name
            self.signalled = True
            self.ask(name)
            _print(
                f"{name}: {self.finishing()}. A second signal ends the command at once; what is in progress is lost."
            )

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if self.signalled:
            raise KeyboardInterrupt
        self.heard(number)


def whatever_is_begun() -> str:
    """Return what work finishes after a request that does not say more about itself."""
    return "work in progress is finished, and no other is begun"


def _print(text: str) -> None:
    """Print on standard error within a handler of signals."""
    with suppress(OSError, ValueError):
        try:
            print(text, file=sys.stderr, flush=True)
        except RuntimeError:  # the signal has interrupted another print
            os.write(2, f"{text}\n".encode())


@contextmanager
def overheard(notify: Callable[[int], None]) -> Iterator[None]:
    """Call a function with the signal that came within the context, whoever handled it, at its end; main thread only.

    Ray answers SIGTERM with an exception while it starts, and one that is raised in a hook of fork, or where an object
    is finalized, is printed and lost.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard, hear = os.pipe()
    os.set_blocking(hear, False)
    os.set_blocking(heard, False)
    before = signal.set_wakeup_fd(hear)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        with suppress(BlockingIOError):
            if came := [number for number in os.read(heard, 1024) if number in _SIGNALS]:
                notify(came[0])
        os.close(heard)
        os.close(hear)
