"""Let the nodes of one cluster exchange messages, and ask the command to stop, through a folder on a shared disk."""

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
"""The signals that ask to stop."""


@dataclass(frozen=True)
class Rendezvous:
    """A folder on a shared disk where the nodes of one cluster meet.

    Whoever can read the folder can join the cluster and run code in it, so only its owner may read it.
    """

    folder: Path

    def open(self) -> None:
        """Make the folder, with a new token.

        Raises:
            ClusterError: the folder cannot be made, or has been used before.
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
        """Write a message under a name, for all nodes to read."""
        draft = self.folder / f".{name}"
        draft.write_text(text, encoding="utf-8")
        draft.rename(self.folder / name)

    def get(self, name: str) -> str | None:
        """Return the message under a name; None if there is none yet."""
        try:
            # NFS remembers for a while that a file was missing; a listing of the folder is always new.
            return (self.folder / name).read_text(encoding="utf-8") if name in os.listdir(self.folder) else None
        except FileNotFoundError:
            return None

    @property
    def token(self) -> Path:
        """Path of the file with the token of the cluster."""
        return self.folder / "token"

    @property
    def drain(self) -> Path:
        """Path of the file whose appearance asks the command to stop."""
        return self.folder / "drain"


@dataclass
class Asked:
    """A request to stop by a signal, which is passed on to the command through the drain file.

    The signal itself is not passed on: Slurm signals all processes of a step at once, and a second signal would
    interrupt the command.
    """

    meeting: Rendezvous
    stop: bool = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals for as long as the context lasts."""
        before = self.listen()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def listen(self) -> dict[signal.Signals, Any]:
        """Handle the signals, also after a library has taken them over; return the handlers from before."""
        return {number: signal.signal(number, self._ask) for number in SIGNALS}

    def ask(self) -> None:
        """Record a request to stop, and pass it on to the command."""
        self.stop = True
        with suppress(OSError):
            self.meeting.drain.touch()

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.ask()
