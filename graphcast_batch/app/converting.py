"""Convert weights that were published as a Python pickle into a checkpoint in DeepMind's format."""

import os
import tempfile
import zipfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from graphcast_batch.app.any_path import AnyPath
from graphcast_batch.config.documents import read_mapping
from graphcast_batch.config.messages import parse_config
from graphcast_batch.errors import CheckpointError, ConfigError
from graphcast_batch.models.base import Checkpoint
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.graphcast.checkpoint import load_checkpoint, save_checkpoint
from graphcast_batch.models.graphcast.pickled_parameters import PickledParameters, read_pickled_parameters
from graphcast_batch.spec import TASKS, Architecture, Task


@dataclass(frozen=True)
class ConvertedCheckpoint:
    """A checkpoint that was written; `convert_checkpoint` returns it.

    Attributes:
        path: the file.
        architecture: sizes of the network.
        task: variables, levels and step length.
        parameters: how many numbers the weights are.
        left_out: keys of the pickle whose values were not taken, such as the state of an optimizer.
        sha256: checksum of the file that was written.
    """

    path: Path
    architecture: Architecture
    task: Task
    parameters: int
    left_out: tuple[str, ...]
    sha256: str


def convert_checkpoint(
    source: AnyPath,
    out: AnyPath,
    *,
    architecture: AnyPath,
    task: AnyPath | None = None,
    description: str | None = None,
    license: str | None = None,
) -> ConvertedCheckpoint:
    """Convert weights from a Python pickle into a checkpoint in DeepMind's format, and read it back.

    >>> gb.convert_checkpoint("member1.pkl", "member1.npz", architecture="params/GraphCast_operational.npz")

    Nothing in the pickle is executed: it is read as data, and whatever is no array, number, text or container is
    refused by its name.

    Args:
        source: the pickle: a mapping of Haiku modules to names to arrays, or one that has it as ``params``.
        out: checkpoint to write (.npz); nothing may exist there.
        architecture: checkpoint of a network of the same sizes, or YAML file with the fields of its ``model_config``.
        task: name of a published task, checkpoint with the same task, or YAML file with the fields of its
            ``task_config``; without it that of the checkpoint given as architecture.
        description: free text to store; without it the name and checksum of the pickle.
        license: license of the weights; without it a statement that the pickle has none.

    Raises:
        ConfigError: ``out`` exists, no task is given, or a YAML file does not fit.
        TaskError: the task contradicts itself, or has a variable that is not known.
        CheckpointError: a file cannot be read or holds something else, or the weights do not fit architecture and task.
    """
    source, out = Path(source), Path(out)
    if os.path.lexists(out):
        raise ConfigError(f"{out} must not exist yet, but does; give another name, or remove it")
    sizes, chosen = _architecture_and_task(Path(architecture), task)
    channels = Channels.of(chosen, {})
    read = read_pickled_parameters(source, sizes, channels.inputs, channels.outputs)
    converted = Checkpoint(
        parameters=read.parameters,
        architecture=sizes,
        task=chosen,
        description=_description(source, read) if description is None else description,
        license=f"{source.name} states no license" if license is None else license,
    )
    count = sum(value.size for named in read.parameters.values() for value in named.values())
    return ConvertedCheckpoint(out, sizes, chosen, count, read.left_out, _written(converted, out))


def _architecture_and_task(place: Path, task: AnyPath | None) -> tuple[Architecture, Task]:
    if zipfile.is_zipfile(place):
        model = load_checkpoint(place)
        return model.architecture, model.task if task is None else _task(task)
    architecture = parse_config(read_mapping(place), Architecture, origin=str(place))
    if task is None:
        raise ConfigError(
            f"a task must be given, because {place} is no checkpoint, from which it could be taken; "
            f"give one of {', '.join(TASKS)}, a checkpoint, or a YAML file"
        )
    return architecture, _task(task)


def _task(given: AnyPath) -> Task:
    place = Path(given)
    if str(given) in TASKS:
        return TASKS[str(given)]
    if zipfile.is_zipfile(place):
        return load_checkpoint(place).task
    if not place.is_file():
        raise ConfigError(f"the task must be one of {', '.join(TASKS)}, or a file, but is {given}; give one of these")
    return parse_config(read_mapping(place), Task, origin=str(place))


def _description(source: Path, read: PickledParameters) -> str:
    return (
        f"weights of {source.name}, a pickle with the sha256 {read.sha256}, converted by graphcast-batch "
        f"{version('graphcast-batch')}"
    )


def _written(checkpoint: Checkpoint, out: Path) -> str:
    """Write a checkpoint, read it back, and return its checksum."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".writing-") as private:
        draft = Path(private) / out.name
        save_checkpoint(checkpoint, draft)
        found = load_checkpoint(draft)
        if not _equal(found, checkpoint):
            raise CheckpointError(f"{out} must hold what was written, but does not; try again, or on another disk")
        draft.replace(out)
    return found.sha256


def _equal(first: Checkpoint, second: Checkpoint) -> bool:
    return (
        (first.architecture, first.task, first.description, first.license)
        == (second.architecture, second.task, second.description, second.license)
        and {module: set(named) for module, named in first.parameters.items()}
        == {module: set(named) for module, named in second.parameters.items()}
        and all(
            np.array_equal(value, second.parameters[module][name])
            for module, named in first.parameters.items()
            for name, value in named.items()
        )
    )
