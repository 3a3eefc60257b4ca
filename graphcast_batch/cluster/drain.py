"""Signals become an orderly end: the first asks a run to stop handing out work, the second interrupts it."""

import signal
import threading
from types import FrameType
from typing import Any, Final

WORK_LEFT: Final = 75
"""Exit code of a run that was asked to stop, by which a batch script knows to requeue itself."""
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Drain:
    """As a context it listens to SIGTERM and SIGINT; outside the main thread it is never asked."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Drain":
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return self._asked.is_set()

    def listen(self) -> None:
        """Takes the signals, once more where a library has taken them since."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            handler = signal.signal(number, self._ask)
            self._before.setdefault(number, handler)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if self._asked.is_set():
            raise KeyboardInterrupt
        self._asked.set()
