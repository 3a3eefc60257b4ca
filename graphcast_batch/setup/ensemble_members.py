"""Find out what the members of a run's ensemble are, and check that its checkpoints belong together."""

from collections.abc import Sequence
from pathlib import Path

from graphcast_batch.config.ensemble_section import EnsembleConfig
from graphcast_batch.config.model_section import CheckpointWeights, RandomWeights
from graphcast_batch.config.perturbations_section import FilePerturbations, Perturbations
from graphcast_batch.errors import CheckpointError
from graphcast_batch.members import NO_SEED, UNPERTURBED, Member
from graphcast_batch.models.base import Checkpoint, ModelKind
from graphcast_batch.models.channels import Channels


def ensemble_members(
    ensemble: EnsembleConfig,
    kind: ModelKind,
    only: RandomWeights | CheckpointWeights,
    first: Checkpoint,
    channels: Channels,
) -> tuple[Member, ...]:
    """Return the members of each initial time, by number; reads every checkpoint.

    Args:
        ensemble: section ``ensemble`` of the config.
        kind: the model of the run.
        only: weights of a run without a list of checkpoints.
        first: the first checkpoint, or the only weights.
        channels: places of the variables of the task.

    Raises:
        CheckpointError: a checkpoint cannot be read, has another architecture or task than the first, or holds the
            weights of another one.
    """
    checksums = _checksums(ensemble.checkpoints, kind, first, channels)
    paths = ensemble.checkpoints or ([only.path] if isinstance(only, CheckpointWeights) else [])
    names = [path.stem for path in paths] or [""]
    members = []
    for number in range(ensemble.size):
        checkpoint, state, lag = ensemble.parts_of(number)
        start = _start(ensemble.perturbations, state)
        members.append(Member(number, names[checkpoint], checksums[checkpoint], *start, lag))
    return tuple(members)


def _start(chosen: Perturbations | None, state: int | None) -> tuple[str, int]:
    """Return the perturbation of a member, and its seed."""
    if chosen is None or state is None:
        return UNPERTURBED, NO_SEED
    return f"{chosen.kind} {state}", NO_SEED if isinstance(chosen, FilePerturbations) else chosen.seed


def _checksums(paths: Sequence[Path], kind: ModelKind, first: Checkpoint, channels: Channels) -> list[str]:
    """Return the checksum of each checkpoint, read one after another, as each takes much memory."""
    found = {first.sha256: paths[0] if paths else None}
    for path in paths[1:]:
        other = kind.weights(CheckpointWeights(kind="checkpoint", path=path)).checkpoint(channels)
        _refuse_other(other, path, first, paths[0])
        if other.sha256 in found:
            raise CheckpointError(
                f"the checkpoints of an ensemble must differ, but {path} holds the same weights as "
                f"{found[other.sha256]}; leave one of them out"
            )
        found[other.sha256] = path
    return list(found)


def _refuse_other(other: Checkpoint, path: Path, first: Checkpoint, first_path: Path) -> None:
    for what in ("architecture", "task"):
        ours, theirs = (getattr(each, what).model_dump(exclude_none=True) for each in (first, other))
        differing = [key for key in sorted(ours.keys() | theirs.keys()) if ours.get(key) != theirs.get(key)]
        if differing:
            key = differing[0]
            raise CheckpointError(
                f"all checkpoints of an ensemble must have one {what}, but {key} is {theirs.get(key)} in {path} and "
                f"{ours.get(key)} in {first_path}; give those of one architecture and task"
            )
