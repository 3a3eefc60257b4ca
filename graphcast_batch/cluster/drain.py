"""Signals, a file or the end of an allocation become an orderly end: a run is asked to stop handing out work.

The second signal interrupts it.
"""

import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, Final

WORK_LEFT: Final = 75
"""Exit code of a run that was asked to stop, by which a batch script knows to requeue itself."""
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_MARGIN_SECONDS: Final = 300.0
"""How long before the end of an allocation nothing more is handed out."""
_LOOK_SECONDS: Final = 1.0


class Drain:
    """As a context it listens to SIGTERM, SIGINT and SIGUSR1; outside the main thread only the file and the end count.

    Args:
        file: whose appearance asks too; what a batch script can touch without signals to Ray's own processes.
        end: of the allocation, seconds since 1970, UTC; None where it is not known.
    """

    def __init__(self, file: Path | None = None, end: float | None = None) -> None:
        self._file = file
        self._end = end
        self._looked = 0.0
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
        """Whether to stop."""
        if not self._asked.is_set() and time.monotonic() - self._looked > _LOOK_SECONDS:
            self._looked = time.monotonic()
            ends = self._end is not None and time.time() > self._end - _MARGIN_SECONDS
            if ends or (self._file is not None and self._file.exists()):
                self._asked.set()
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


def allocation_end() -> float | None:
    """When the scheduler ends this process, seconds since 1970, UTC; None where it does not say.

    Slurm says so in SLURM_JOB_END_TIME (sbatch, "OUTPUT ENVIRONMENT VARIABLES").
    """
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    return float(end) if end.isdecimal() else None
