"""Call the head of a Ray cluster with a limit of time: Ray's own calls have no limit, or one of minutes."""

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from graphcast_batch.errors import ClusterError

_Answer = TypeVar("_Answer")
_HEAD_SECONDS: Final = 10.0
"""How long a head may take to answer at its address; it may have only just been started."""
_POLL_SECONDS: Final = 0.5
ANSWER_SECONDS: Final = 60.0
"""How long the head of a connected cluster may take to answer, which may be under great load."""
_GREETING: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""The first bytes of an HTTP/2 client, with empty settings (RFC 9113, 3.4 and 6.5); the server answers with its own."""
_SETTINGS: Final = 4


def check_head(address: str, seconds: float = _HEAD_SECONDS) -> None:
    """Wait until a server with Ray's protocol answers at an address.

    A stopped process still accepts connections, so the server must also answer a request.

    Args:
        address: HOST:PORT, or ray://HOST:PORT.
        seconds: how long to try.

    Raises:
        ClusterError: no such server answers in time.
    """
    host, _, port = address.partition("://")[2 if "://" in address else 0].rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ClusterError(f"the address of a Ray cluster must be HOST:PORT, but is {address!r}")
    until = time.monotonic() + seconds
    while fault := _fault(host.strip("[]"), int(port), max(1.0, until - time.monotonic())):
        if time.monotonic() > until:
            raise ClusterError(
                f"a Ray cluster must answer at {address} within {seconds:.0f} s, but {fault}; see that its head is "
                "running and can be reached from here, or leave RAY_ADDRESS and --address out to start Ray on this "
                "machine"
            )
        time.sleep(_POLL_SECONDS)


def is_answering(address: str) -> bool:
    """Return whether a head that has been running at HOST:PORT still answers."""
    host, _, port = address.rpartition(":")
    return not _fault(host.strip("[]"), int(port), _HEAD_SECONDS)


def within(seconds: float, what: str, call: Callable[[], _Answer]) -> _Answer:
    """Call Ray, and wait for its answer for a limited time; a call that hangs is abandoned.

    The call is made in a thread, although threads belong to `pipeline`: Ray gives these calls no limit of time, and a
    signal could not interrupt them, as they wait in compiled code.

    Args:
        seconds: how long to wait.
        what: what the head must do, for the message of an error.
        call: calls Ray.

    Raises:
        ClusterError: no answer came in time.
    """
    answers: list[_Answer] = []
    faults: list[BaseException] = []

    def answer() -> None:
        try:
            answers.append(call())
        except BaseException as error:
            faults.append(error)

    calling = threading.Thread(target=answer, name=what, daemon=True)
    calling.start()
    calling.join(seconds)
    if faults:
        raise faults[0]
    if not answers:
        raise ClusterError(
            f"the head of the Ray cluster must {what} within {seconds:.0f} s, but has not answered; it is stopped, "
            "hung or out of reach. Start the command again: only missing Cases are made"
        )
    return answers[0]


def _fault(host: str, port: int, seconds: float) -> str:
    """Return why no head answers; empty if one does."""
    try:
        with socket.create_connection((host, port), timeout=min(seconds, _HEAD_SECONDS)) as connection:
            if os.environ.get("RAY_USE_TLS", "0") not in ("0", ""):
                return ""
            connection.sendall(_GREETING)
            answer = connection.recv(9, socket.MSG_WAITALL)
    except TimeoutError:
        return "nothing answers there"
    except OSError as error:
        return f"there is none ({error.strerror or error})"
    return "" if answer[3:4] == bytes([_SETTINGS]) else "what answers there is not Ray"
