"""Start from the members of an analysis ensemble in place of the initial state."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from graphcast_batch.errors import InputError
from graphcast_batch.inputs.quality.checks import faults_of_values
from graphcast_batch.inputs.quality.locations import stamp
from graphcast_batch.inputs.sources.member_archives import MemberArchives


@dataclass(frozen=True, eq=False)
class MemberStates:
    """Replaces variables of the input frames by those of a member, at all input times.

    Attributes:
        archives: members of the analysis ensemble.
    """

    archives: MemberArchives

    def __call__(self, frames: xr.Dataset, number: int, init_time: np.datetime64) -> xr.Dataset:
        """Return the input frames of a member; see `graphcast_batch.perturbations.base.Perturbation`."""
        found = self.archives.replaced(frames, number, init_time)
        faults = faults_of_values(found.frames, stated=found.stated)
        if faults:
            lines = "\n".join(f"  {fault}" for fault in faults)
            raise InputError(
                f"{self.archives.members[number].origin} cannot start a forecast at {stamp(init_time)}:\n{lines}"
            )
        return found.frames

    def read_bytes(self, number: int, init_time: np.datetime64) -> int:
        """Return how many bytes are read for the state of a member."""
        cost = self.archives.cost(number, init_time)
        return cost.touched_bytes if cost else 0
