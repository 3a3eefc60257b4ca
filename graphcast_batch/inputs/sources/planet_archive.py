"""Provide the synthetic planet as a source that holds every time."""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.grid import Grid, regular_grid
from graphcast_batch.inputs.case_inputs import CaseInputs, findings, read_held, read_inputs, read_truth
from graphcast_batch.inputs.findings import Finding
from graphcast_batch.inputs.provenance import Provenance
from graphcast_batch.plan import Case
from graphcast_batch.spec import Task
from graphcast_batch.variables import DIMS_OF_KIND, VARIABLES


class Planet(Protocol):
    """Computes fields at any time and on any grid."""

    def fields(
        self, names: Sequence[str], times: NDArray[np.datetime64], grid: Grid, levels: Sequence[int]
    ) -> xr.Dataset:
        """Compute the fields of some variables; static variables have no time."""


class SyntheticArchive:
    """A synthetic planet as an archive that holds every time.

    Raises:
        GridError: the resolution does not divide the half circle.
    """

    times: None = None
    origin = "the synthetic planet"
    layout = "computed during the run"
    provenance: Final = Provenance()
    changes: Final[Mapping[str, str]] = {}

    def __init__(self, planet: Planet, resolution: float, levels: Sequence[int]) -> None:
        self.grid = regular_grid(resolution)
        self.levels = tuple(sorted(levels))
        self.dims: Mapping[str, tuple[str, ...]] = {
            name: DIMS_OF_KIND[variable.kind] for name, variable in VARIABLES.items() if variable.kind in DIMS_OF_KIND
        }
        self._planet = planet

    def fields(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> xr.Dataset:
        """Compute fields of variables that ``dims`` names, at any time and on any level."""
        if not names:
            return xr.Dataset(coords={"time": times, "latitude": self.grid.latitude, "longitude": self.grid.longitude})
        return self._planet.fields(names, times, self.grid, levels)

    def times_of(self, names: Sequence[str]) -> None:
        """Return None, which stands for every time."""

    def findings(self, case: Case, task: Task) -> list[Finding]:
        """Return the reasons why the planet cannot start a Case; empty if it can."""
        return findings(self, case, task)

    def held(self, case: Case, task: Task) -> xr.Dataset:
        """Compute the input fields of a Case that the planet has; see `read_held`."""
        return read_held(self, case, task)

    def read(self, case: Case, task: Task) -> CaseInputs:
        """Compute the input frames and forcings of a Case.

        Raises:
            InputError: the planet lacks a variable or level.
        """
        return read_inputs(self, case, task)

    def truth(self, case: Case, names: Sequence[str], levels: Sequence[int] | None = None) -> xr.Dataset | None:
        """Return the fields of the planet at the valid times of a Case; see `read_truth`."""
        return read_truth(self, case, names, levels)

    def cost(self, case: Case, task: Task) -> None:
        """Return None, because nothing is read."""
