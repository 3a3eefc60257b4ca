"""Say what each member of an ensemble is: which checkpoint made it, from which initial state."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

UNPERTURBED: Final = "none"
"""Perturbation of a member that starts from the initial state as it is."""
NO_SEED: Final = -1
"""Seed of a member that draws no random numbers."""


@dataclass(frozen=True)
class Member:
    """What tells one forecast of an initial time from another; it follows from the number and the config alone.

    Attributes:
        number: number of the member, from 0.
        checkpoint: name of the checkpoint: that of its file without the ending; empty for random weights.
        weights_sha256: checksum of the weights.
        perturbation: kind and number of the perturbed initial state, such as ``gaussian 3``; else `UNPERTURBED`.
        seed: seed of the perturbations; `NO_SEED` without.
        lag: hours before the initial time at which the forecast starts.
    """

    number: int
    checkpoint: str
    weights_sha256: str
    perturbation: str = UNPERTURBED
    seed: int = NO_SEED
    lag: int = 0

    def difference(self, other: "Member") -> str:
        """Return what decides the forecasts of this member and is not so of another, as text; empty if all is equal.

        Names of files do not count, since files can be renamed.
        """
        named = f" ({self.checkpoint})" if self.checkpoint else ""
        deciding = {"weights": "weights_sha256", "perturbation": "perturbation", "seed": "seed", "lag": "lag"}
        return ", ".join(
            f"{what} {getattr(self, name)}{named if what == 'weights' else ''}"
            for what, name in deciding.items()
            if getattr(self, name) != getattr(other, name)
        )


def as_columns(members: Sequence[Member]) -> dict[str, NDArray[np.generic]]:
    """Return the attributes of members as arrays, (number,): text, and integers of 64 bits."""
    rows = [asdict(member) for member in members]
    return {
        field.name: np.array(
            [row[field.name] for row in rows], np.int64 if field.type is int else np.dtypes.StringDType()
        )
        for field in fields(Member)
    }


def from_columns(columns: dict[str, NDArray[np.generic]]) -> tuple[Member, ...]:
    """Return the members whose attributes arrays hold; the opposite of `as_columns`.

    Stores of earlier versions have no lags: their members have none.

    Raises:
        KeyError: another attribute is missing.
    """
    columns = {"lag": np.zeros(len(columns["number"]), np.int64)} | columns
    names = [field.name for field in fields(Member)]
    return tuple(
        Member(**dict(zip(names, row, strict=True)))
        for row in zip(*(columns[name].tolist() for name in names), strict=True)
    )
