"""Explain errors of Ray: what happened to a worker, and what to do about it."""

import re
from typing import Final

from ray.exceptions import (
    ActorUnavailableError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfDiskError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
)

from graphcast_batch.errors import ClusterError

LESS_MEMORY: Final = "take fewer workers (workers.count) or fewer model.steps_per_call"
_OF_THE_NODE: Final = (ActorUnavailableError, LocalRayletDiedError, NodeDiedError, ObjectLostError)
"""Errors that mean that a node, or the connection to it, was lost."""
_USED: Final = re.compile(r"was ([\d.]+ ?[kKMGT]?i?B) ?/ ?([\d.]+ ?[kKMGT]?i?B)")
"""The used and total memory of a node in the text of ``OutOfMemoryError`` (ray 2.60)."""


def is_of_the_node(error: RayError) -> bool:
    """Return whether an error means that a node was lost, and not a single worker."""
    return isinstance(error, _OF_THE_NODE)


def explained(error: RayError) -> str:
    """Return a sentence that says what happened, and what to do where that is known."""
    if isinstance(error, OutOfMemoryError):
        return _out_of_memory(str(error))
    if isinstance(error, OutOfDiskError):
        return f"the disk with Ray's folder is full; make room there, or set TMPDIR to another ({first_line(error)})"
    if isinstance(error, RuntimeEnvSetupError):
        text = " ".join(str(error).split())
        return f"Ray could not prepare the environment of a worker: {text[:500]}"
    return f"{type(error).__name__}: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """Return the first line of the message of an error."""
    return str(error).strip().partition("\n")[0]


def unwrapped(error: RayTaskError) -> BaseException:
    """Return the error that a worker raised; one of Ray's own errors is explained as a ClusterError."""
    cause = error.cause
    if isinstance(cause, RayError):
        return ClusterError(f"Ray failed on a worker: {explained(cause)}")
    if not isinstance(cause, BaseException):
        return ClusterError(str(error))
    cause.add_note(f"on the worker:\n{error}")
    return cause


def _out_of_memory(text: str) -> str:
    found = _USED.search(text)
    used = f" {found[1]} of {found[2]} were used on its node" if found else " the memory of its node was nearly full"
    return (
        f"Ray's memory monitor ended the worker, because{used}, by all programs there: {LESS_MEMORY}, end other "
        "programs, or start Ray's nodes with RAY_memory_monitor_refresh_ms=0 in their environment"
    )
