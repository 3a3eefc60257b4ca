"""Ask a run to stop handing out work when a signal or a file says so, or the job is about to end.

A second signal interrupts the run.
"""

import os
import signal
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
    """

    def __init__(self, file: Path | None = None, start: float | None = None, end: float | None = None) -> None:
        named = os.environ.get(DRAIN_VARIABLE)
        self._file = file or (Path(named) if named else None)
        self.start, self.end = start, end
        self._looked = 0.0
        self._asked = threading.Event()
        self._signalled = False
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
            ends = self.end is not None and time.time() > self.end - RESERVE_SECONDS
            if ends or (self._file is not None and self._file.exists()):
                self._asked.set()
        return self._asked.is_set()

    def ask(self) -> None:
        """Ask the run to stop."""
        self._asked.set()

    def listen(self) -> None:
        """Listen to the signals, again if a library has taken them over since."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            handler = signal.signal(number, self._ask)
            self._before.setdefault(number, handler)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if self._signalled:
            raise KeyboardInterrupt
        self._signalled = True
        self.ask()


@contextmanager
def overheard(notify: Callable[[], None]) -> Iterator[None]:
    """Call a function at the end of the context if a signal came within it, whoever handled it; main thread only.

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
            if set(os.read(heard, 1024)) & set(_SIGNALS):
                notify()
        os.close(heard)
        os.close(hear)
