"""Define what the doctor returns: the finding of one check."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Diagnosis:
    """The finding of one check.

    Attributes:
        state: ``ok``, ``problem``, or ``note`` where the check cannot decide.
        what: name of the check.
        text: what was found, and what to do.
    """

    state: Literal["ok", "note", "problem"]
    what: str
    text: str
