"""Give a worker what tells the members of an ensemble apart: perturbed initial states, and weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr

from graphcast_batch.config.ensemble_section import EnsembleConfig
from graphcast_batch.config.model_section import CheckpointWeights
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.errors import CheckpointError
from graphcast_batch.grid import Grid
from graphcast_batch.inputs.sources.member_archives import MemberArchives
from graphcast_batch.inputs.statistics import Statistics
from graphcast_batch.members import Member
from graphcast_batch.models.base import Checkpoint, Parameters
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.model_kinds import MODELS
from graphcast_batch.perturbations.base import Perturbation, perturbation
from graphcast_batch.perturbations.bred_vectors import BredVectors
from graphcast_batch.perturbations.preparation import Preparation
from graphcast_batch.pipeline.member_weights import MemberWeights
from graphcast_batch.pipeline.ports import Perturb
from graphcast_batch.plan import Case
from graphcast_batch.spec import Task


def perturbation_of_members(
    config: RunConfig, statistics: Statistics, task: Task, grid: Grid, members: MemberArchives | None
) -> Perturb | None:
    """Return what perturbs the initial states of members; None where no member is perturbed.

    Args:
        config: config of the run.
        statistics: normalization statistics, which scale the perturbations.
        task: variables and levels of the model.
        grid: points of the inputs.
        members: members of an analysis ensemble, if members start from these.

    Raises:
        ConfigError: the perturbations do not fit the task or the grid.
    """
    ensemble = config.ensemble
    if ensemble is None or ensemble.perturbations is None:
        return None
    perturb = perturbation(ensemble.perturbations, statistics, task, grid, members)
    return _BredStates(ensemble, perturb) if isinstance(perturb, BredVectors) else _MemberStates(ensemble, perturb)


def weights_of_members(
    config: RunConfig, members: Sequence[Member], first: Checkpoint, channels: Channels, kept: int
) -> MemberWeights | None:
    """Return what gives the model the weights of each member; None if all have the same.

    Args:
        config: config of the run.
        members: members of the store.
        first: the checkpoint that the model was loaded with, the first of the ensemble.
        channels: places of the variables of the task.
        kept: number of checkpoints that may be kept in memory.
    """
    ensemble = config.ensemble
    if ensemble is None or len(ensemble.checkpoints) < 2:
        return None
    expected = {
        ensemble.parts_of(member.number).checkpoint: member.weights_sha256 for member in members[: ensemble.size]
    }
    read = partial(_read, config, expected, channels)
    return MemberWeights(partial(_checkpoint_of, ensemble), read, kept, first.parameters)


@dataclass(frozen=True, eq=False)
class _MemberStates:
    """Gives each member its perturbed state; see `Perturb`.

    Attributes:
        ensemble: section ``ensemble`` of the config.
        perturb: makes the perturbed states.
    """

    ensemble: EnsembleConfig
    perturb: Perturbation

    def __call__(self, case: Case, frames: xr.Dataset, preparation: Preparation) -> xr.Dataset:
        state = self._state_of(case)
        if state is None:
            return frames
        with preparation.reading():
            return self.perturb(frames, state, np.datetime64(case.computed.init_time))

    def read_bytes(self, case: Case) -> int:
        """Return how many bytes are read for the state of a member."""
        state = self._state_of(case)
        return 0 if state is None else self.perturb.read_bytes(state, np.datetime64(case.computed.init_time))

    def _state_of(self, case: Case) -> int | None:
        assert case.member is not None
        return self.ensemble.parts_of(case.member).perturbation


@dataclass(frozen=True, eq=False)
class _BredStates:
    """Gives each member its bred state; see `Perturb`.

    Attributes:
        ensemble: section ``ensemble`` of the config.
        perturb: breeds the perturbations.
    """

    ensemble: EnsembleConfig
    perturb: BredVectors

    def __call__(self, case: Case, frames: xr.Dataset, preparation: Preparation) -> xr.Dataset:
        assert case.member is not None
        checkpoint, state, _ = self.ensemble.parts_of(case.member)
        return frames if state is None else self.perturb(case.computed, frames, state, checkpoint, preparation)

    def read_bytes(self, case: Case) -> int:
        """Return 0: how often earlier inputs are read depends on what the worker has made before."""
        return 0


def _checkpoint_of(ensemble: EnsembleConfig, case: Case) -> int:
    assert case.member is not None
    return ensemble.parts_of(case.member).checkpoint


def _read(config: RunConfig, expected: dict[int, str], channels: Channels, number: int) -> Parameters:
    assert config.ensemble is not None
    path = config.ensemble.checkpoints[number]
    chosen = CheckpointWeights(kind="checkpoint", path=path)
    found = MODELS[config.model.implementation].weights(chosen).checkpoint(channels)
    if found.sha256 != expected[number]:
        raise CheckpointError(
            f"the checkpoint {path} must hold the weights of its members in {config.store}, with the checksum "
            f"{expected[number]}, but has {found.sha256}; put the file back, and run again"
        )
    return found.parameters
