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
    """What makes fields up, at any time and place."""

    def fields(
        self, names: Sequence[str], times: NDArray[np.datetime64], grid: Grid, levels: Sequence[int]
    ) -> xr.Dataset:
        """Fields of some variables; static ones without time."""


class SyntheticArchive:
    """A made-up planet as an archive that holds every time.

    Raises:
        GridError: the resolution does not divide the half circle.
    """

    times: None = None
    origin = "the synthetic planet"
    spoken = "made on the fly"
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
        """Fields of variables that ``dims`` names at any time, on any level."""
        if not names:
            return xr.Dataset(coords={"time": times, "latitude": self.grid.latitude, "longitude": self.grid.longitude})
        return self._planet.fields(names, times, self.grid, levels)

    def times_of(self, names: Sequence[str]) -> None:
        """Every time."""

    def findings(self, case: Case, task: Task) -> list[Finding]:
        """Why it cannot start a Case; empty when it can."""
        return findings(self, case, task)

    def held(self, case: Case, task: Task) -> xr.Dataset:
        """What there is of the input variables of a Case that it cannot start."""
        return read_held(self, case, task)

    def read(self, case: Case, task: Task) -> CaseInputs:
        """Makes what a Case starts from.

        Raises:
            InputError: the planet lacks a variable or level.
        """
        return read_inputs(self, case, task)

    def truth(self, case: Case, names: Sequence[str], levels: Sequence[int] | None = None) -> xr.Dataset | None:
        """Return the fields of the planet at the valid times of a Case; see `read_truth`."""
        return read_truth(self, case, names, levels)

    def cost(self, case: Case, task: Task) -> None:
        """Nothing is read."""
