"""A folder on a shared disk becomes the place where the nodes of one cluster find each other, and are told to stop."""

import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

from graphcast_batch.errors import ClusterError

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""They ask to stop."""


@dataclass(frozen=True)
class Rendezvous:
    """A folder on a shared disk where the nodes of one cluster meet.

    Whoever can read it can join the cluster and run code in it, so that only its owner may.
    """

    folder: Path

    def open(self) -> None:
        """Makes the folder, with a fresh token.

        Raises:
            ClusterError: it cannot be made, or has been used before.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise ClusterError(
                f"the nodes of a cluster must meet in a new folder on a shared disk, but {self.folder} cannot be it "
                f"({error}); name another with --folder"
            ) from error
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))

    def put(self, name: str, text: str) -> None:
        """Makes something known to all nodes."""
        draft = self.folder / f".{name}"
        draft.write_text(text, encoding="utf-8")
        draft.rename(self.folder / name)

    def get(self, name: str) -> str | None:
        """What was made known; None if nothing was yet."""
        try:
            # NFS believes for a while that a file is still missing that it looked for before; a listing is asked anew.
            return (self.folder / name).read_text(encoding="utf-8") if name in os.listdir(self.folder) else None
        except FileNotFoundError:
            return None

    @property
    def token(self) -> Path:
        """The file that lets one into the cluster."""
        return self.folder / "token"

    @property
    def drain(self) -> Path:
        """The file whose appearance asks the command to stop."""
        return self.folder / "drain"


@dataclass
class Asked:
    """Whether a signal asked to stop; the command is asked through the drain file, as it may have had the same signal.

    Slurm signals all processes of a step at once, and a second signal would interrupt the command.
    """

    meeting: Rendezvous
    stop: bool = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Takes signals for as long as the context lasts."""
        before = self.listen()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def listen(self) -> dict[signal.Signals, Any]:
        """Takes signals, from whoever has taken them since; returns what was there before."""
        return {number: signal.signal(number, self._ask) for number in SIGNALS}

    def ask(self) -> None:
        """Asks to stop."""
        self.stop = True
        with suppress(OSError):
            self.meeting.drain.touch()

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.ask()
