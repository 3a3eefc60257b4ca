"""Signals, a file or the end of a job become an orderly end: a run is asked to stop handing out work.

The second signal interrupts it.
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
"""Exit code of a run that was asked to stop, by which a batch script knows to requeue itself."""
DRAIN_VARIABLE: Final = "GRAPHCAST_BATCH_DRAIN"
"""Names the file whose appearance asks to stop, where no other is given."""
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
RESERVE_SECONDS: Final = 60.0
"""How long before the end of a job all work is to be done: the rest is for records, figures and Ray's end."""
_LOOK_SECONDS: Final = 1.0


class Drain:
    """As a context it listens to SIGTERM, SIGINT and SIGUSR1; outside the main thread only the file and the end count.

    Args:
        file: whose appearance asks too; what a batch script can touch without signals to Ray's own processes. Without
            it the one that the environment names.
        start: of the job, seconds since 1970, UTC; None where it is not known.
        end: of the job, as its start.
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
        """Whether to stop."""
        if not self._asked.is_set() and time.monotonic() - self._looked > _LOOK_SECONDS:
            self._looked = time.monotonic()
            ends = self.end is not None and time.time() > self.end - RESERVE_SECONDS
            if ends or (self._file is not None and self._file.exists()):
                self._asked.set()
        return self._asked.is_set()

    def ask(self) -> None:
        """Asks to stop."""
        self._asked.set()

    def listen(self) -> None:
        """Takes the signals, once more where a library has taken them since."""
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
def overheard(tell: Callable[[], None]) -> Iterator[None]:
    """Tells at its end of a signal that came meanwhile, whoever took it; only in the main thread.

    Ray answers SIGTERM with an exception while it starts, and one that is raised in a hook of fork, or where an object
    is finalised, is printed and lost.
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
                tell()
        os.close(heard)
        os.close(hear)
