"""Define what a perturbation of initial states is, and make the one that a config chooses."""

from typing import Protocol

import numpy as np
import xarray as xr

from graphcast_batch.config.perturbations_section import (
    BredPerturbations,
    FilePerturbations,
    GaussianPerturbations,
    Perturbations,
    RandomPerturbations,
    SphericalPerturbations,
)
from graphcast_batch.errors import ConfigError
from graphcast_batch.grid import Grid
from graphcast_batch.inputs.sources.member_archives import MemberArchives
from graphcast_batch.inputs.statistics import Statistics
from graphcast_batch.perturbations.additive import AdditivePerturbation, RandomField
from graphcast_batch.perturbations.bred_vectors import BredVectors
from graphcast_batch.perturbations.member_states import MemberStates
from graphcast_batch.perturbations.scales import scales
from graphcast_batch.perturbations.smooth_field import SmoothField
from graphcast_batch.perturbations.white_noise import WhiteNoise
from graphcast_batch.spec import Task


class Perturbation(Protocol):
    """Makes perturbed initial states of a Case, each of which can be made again alone, to the last bit.

    A perturbation can be sent to other processes. It may read files: one thread at a time calls it, and none reads
    inputs meanwhile.
    """

    def __call__(self, frames: xr.Dataset, number: int, init_time: np.datetime64) -> xr.Dataset:
        """Return perturbed input frames.

        The perturbation depends on the number and the initial time alone, besides what was given to `perturbation`:
        neither on the worker, nor on other states that it made before.

        Args:
            frames: input frames of the Case, as `graphcast_batch.inputs.case_inputs.CaseInputs` holds them; they stay
                as they are.
            number: number of the perturbed state, from 0.
            init_time: initial time of the Case.

        Returns:
            New frames, float32. Variables that are not perturbed share the memory of the given ones.

        Raises:
            InputError: a perturbed value is beyond the limits of its variable, or a state cannot be read.
        """

    def read_bytes(self, number: int, init_time: np.datetime64) -> int:
        """Return how many bytes of files are read for a perturbed state.

        Args:
            number: number of the perturbed state, from 0.
            init_time: initial time of the Case.
        """


def perturbation(
    chosen: Perturbations, statistics: Statistics, task: Task, grid: Grid, members: MemberArchives | None = None
) -> Perturbation | BredVectors:
    """Return the perturbation that a config chooses; bred vectors need forecasts, and so other arguments.

    Args:
        chosen: the perturbations of the config.
        statistics: normalization statistics, whose ``diffs_stddev`` scales the amplitudes.
        task: variables and levels of the model.
        grid: grid of the input frames.
        members: members of the analysis ensemble that the config names; None for random perturbations.

    Raises:
        ConfigError: a variable or level cannot be perturbed, statistics are missing, the grid is too coarse, or a cycle
            has no whole number of steps.
    """
    if isinstance(chosen, FilePerturbations):
        assert members is not None
        return MemberStates(members)
    if isinstance(chosen, BredPerturbations):
        steps, rest = divmod(chosen.cycle_hours, task.step_hours)
        if rest:
            raise ConfigError(
                f"ensemble.perturbations.cycle_hours must be a multiple of {task.step_hours} h, the model's step, but "
                f"is {chosen.cycle_hours}"
            )
        how = chosen.cycles, steps, chosen.seed
        return BredVectors(scales(chosen, statistics, task), WhiteNoise(grid), task, grid, *how)
    return AdditivePerturbation(
        scales(chosen, statistics, task), _field(chosen, task, grid), chosen.centred, chosen.seed
    )


def _field(chosen: RandomPerturbations, task: Task, grid: Grid) -> RandomField:
    match chosen:
        case GaussianPerturbations():
            return WhiteNoise(grid)
        case SphericalPerturbations():
            return SmoothField(grid, chosen.length_km, chosen.level_scale, task.pressure_levels)
