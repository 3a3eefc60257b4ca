"""Describe the axis of members of a zarr store: the arrays along it, which say what each member is."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.errors import StoreError
from graphcast_batch.members import Member, as_columns, from_columns

NUMBER: Final = "number"
"""Dimension of the members, which is also the array of their numbers."""
_DESCRIBED: Final[Mapping[str, dict[str, str]]] = {
    NUMBER: {"standard_name": "realization", "long_name": "number of the ensemble member", "axis": "E"},
    "checkpoint": {"long_name": "name of the checkpoint"},
    "weights_sha256": {"long_name": "SHA-256 checksum of the weights"},
    "perturbation": {"long_name": "kind and number of the perturbed initial state"},
    "seed": {"long_name": "seed of the perturbations, -1 without"},
    "lag": {"long_name": "time before the initial time at which the forecast starts", "units": "hours"},
}
COORDINATES: Final = " ".join(name for name in _DESCRIBED if name != NUMBER)
"""Value of the root's attribute ``coordinates``, by which xarray takes the arrays for coordinates."""


def member_arrays(members: Sequence[Member]) -> dict[str, tuple[NDArray[Any], dict[str, str]]]:
    """Return the values and CF attributes of each array along the axis, (number,); none without members."""
    columns = as_columns(members) if members else {}
    return {name: (columns[name], described) for name, described in _DESCRIBED.items() if members}


def members_in(coordinates: Mapping[str, NDArray[Any]]) -> tuple[Member, ...]:
    """Return the members of a store from the values of its arrays of one dimension; none without an axis of members.

    Raises:
        StoreError: an array is missing or damaged.
    """
    if NUMBER not in coordinates:
        return ()
    try:
        found = from_columns(dict(coordinates))
    except (KeyError, ValueError) as error:
        raise StoreError(
            f"the axis number must have the arrays {', '.join(_DESCRIBED)}, all equally long, but has not ({error}); "
            "put them back from a copy of the store"
        ) from error
    if [member.number for member in found] != list(range(len(found))):
        raise StoreError(
            f"the axis number must count from 0, but is {np.array2string(coordinates[NUMBER], threshold=8)}; "
            "put it back from a copy of the store"
        )
    return found


def described_members(held: Sequence[Member], wanted: Sequence[Member]) -> tuple[str, str]:
    """Describe the members of a store and those of a run, in words that are equal if the run may go on in the store.

    It may if it has the members of the store, and maybe more after them.

    Args:
        held: members of the store.
        wanted: members of the run.
    """
    if not held or not wanted or len(held) > len(wanted):
        return _counted(held), _counted(wanted)
    for ours, theirs in zip(held, wanted, strict=False):
        if ours.difference(theirs):
            return (
                f"number {ours.number}: {ours.difference(theirs)}",
                f"number {theirs.number}: {theirs.difference(ours)}",
            )
    return "alike", "alike"


def _counted(members: Sequence[Member]) -> str:
    return f"{len(members)} of each initial time" if members else "no ensemble"
