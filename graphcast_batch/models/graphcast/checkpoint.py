"""Read and write checkpoints in DeepMind's ``.npz`` format: weights with their task and architecture, bit by bit."""

import hashlib
import math
import operator
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from graphcast_batch.config.messages import parse_config
from graphcast_batch.errors import CheckpointError, ConfigError
from graphcast_batch.models.base import Checkpoint
from graphcast_batch.models.graphcast.parameters import parameter_shapes
from graphcast_batch.spec import Architecture, Task

_FOREIGN: Final = "take a file in the format of the published GraphCast checkpoints"
_MOST_EXPANSION: Final = 20
"""Largest ratio of the bytes of arrays to those of the file: trained weights hardly compress, but zeros 1000-fold."""


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint. Nothing in the file is executed.

    Raises:
        CheckpointError: the file is missing, truncated or of another format, or lacks a part.
    """
    if not path.is_file():
        raise CheckpointError(f"the checkpoint {path} is not a file; give the path of an .npz file of weights")
    with _explained(path), zipfile.ZipFile(path) as archive:
        members = _members(path, archive)
        weights = {key: member for key, member in members.items() if key.startswith("params:")}
        if not weights:
            raise CheckpointError(f"the checkpoint {path} holds no params; {_FOREIGN}")
        fields = {key: _scalar(path, key, archive, member) for key, member in members.items() if key not in weights}
        architecture: Architecture = _parsed(path, fields, "model_config", Architecture)
        task: Task = _parsed(path, fields, "task_config", Task)
        _check_declared(path, weights, architecture, task)
        parameters: dict[str, dict[str, NDArray[np.float32]]] = {}
        for key, member in weights.items():
            _, module, name = key.split(":")
            parameters.setdefault(module, {})[name] = _weight(path, key, archive, member)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    description, license_text = (str(fields.get(key, "")) for key in ("description", "license"))
    return Checkpoint(parameters, architecture, task, description, license_text, sha256)


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint, first under another name, so that an incomplete one is never seen."""
    entries: dict[str, Any] = {
        f"params:{module}:{name}": value
        for module, named in checkpoint.parameters.items()
        for name, value in named.items()
    }
    for prefix, fields in (("model_config", checkpoint.architecture), ("task_config", checkpoint.task)):
        for field, value in fields.model_dump(exclude_none=True).items():
            if isinstance(value, tuple):
                entries |= {f"{prefix}:{field}:{k}": item for k, item in enumerate(value)}
            else:
                entries[f"{prefix}:{field}"] = value
    entries |= {"description": checkpoint.description, "license": checkpoint.license}
    unfinished = path.with_name(f".{path.name}.unfinished")
    with unfinished.open("wb") as file:
        np.savez(file, allow_pickle=False, **entries)
    unfinished.replace(path)


_KEY: Final = re.compile(r"params:[^:]+:[^:]+|(model|task)_config:[^:]+(:[0-9]{1,6})?|description|license")


class _Member(NamedTuple):
    """The header of one array of an archive."""

    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except CheckpointError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise CheckpointError(
            f"the checkpoint {path} is truncated, damaged or no .npz file ({error}); copy it again, or {_FOREIGN}"
        ) from error
    except Exception as error:  # readers of archives and arrays raise whatever a crafted file makes them
        raise CheckpointError(f"the checkpoint {path} cannot be read as arrays ({error}); {_FOREIGN}") from error


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, _Member]:
    """Return the header of every array by its key."""
    infos = archive.infolist()
    found, size = sum(info.file_size for info in infos), path.stat().st_size
    if found > _MOST_EXPANSION * size:
        raise CheckpointError(
            f"the checkpoint {path} must hold at most {_MOST_EXPANSION} times its {size} bytes, as weights do, but "
            f"expands to {found}; {_FOREIGN}"
        )
    members = {}
    for info in infos:
        key = info.filename.removesuffix(".npy")
        if not _KEY.fullmatch(key):
            raise CheckpointError(f"the checkpoint {path} holds the entry {key!r}, which its format does not have")
        members[key] = _member(path, archive, info)
    return members


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    with archive.open(info) as content:
        version = np.lib.format.read_magic(content)
        if version != (1, 0):  # those with headers of up to 4 GiB
            raise CheckpointError(f"the checkpoint {path}: {info.filename} must be of .npy version 1.0; {_FOREIGN}")
        shape, _, dtype = np.lib.format.read_array_header_1_0(content)
        declared, held = math.prod(shape) * dtype.itemsize, info.file_size - content.tell()
    if dtype.hasobject:
        raise CheckpointError(
            f"the checkpoint {path} cannot be read as arrays: {info.filename} must hold numbers or text, but holds "
            f"Python objects, which are never loaded; {_FOREIGN}"
        )
    if declared != held:
        raise CheckpointError(
            f"the checkpoint {path}: {info.filename} must hold the {declared} bytes of its shape {shape}, but has "
            f"room for {held}; copy it again"
        )
    return _Member(info, shape, dtype)


def _array(archive: zipfile.ZipFile, member: _Member) -> NDArray[Any]:
    with archive.open(member.info) as content:
        return np.asarray(np.lib.format.read_array(content, allow_pickle=False))


def _scalar(path: Path, key: str, archive: zipfile.ZipFile, member: _Member) -> Any:  # noqa: ANN401 - number or text
    if member.shape:
        raise CheckpointError(f"the checkpoint {path}: {key} must be one value, but has shape {member.shape}")
    return _array(archive, member).item()


def _check_declared(path: Path, weights: Mapping[str, _Member], architecture: Architecture, task: Task) -> None:
    """Refuse arrays larger than the architecture and the task can need, before they are read.

    `check_parameters` compares the exact shapes later, when the dimensions of the variables are known.
    """
    levels = max(len(task.pressure_levels), 1)
    inputs = (task.input_frames * len(task.input_variables) + len(task.forcing_variables)) * levels
    listed = parameter_shapes(architecture, inputs, len(task.target_variables) * levels)
    for key, member in weights.items():
        _, module, name = key.split(":")
        most = listed.get(module, {}).get(name)
        if most is None:
            raise CheckpointError(f"the checkpoint {path}: {key} belongs to no part of its architecture; {_FOREIGN}")
        if len(member.shape) != len(most) or any(map(operator.gt, member.shape, most)):
            raise CheckpointError(
                f"the checkpoint {path}: {key} must have at most the shape {most} by its architecture and task, but "
                f"has {member.shape}; {_FOREIGN}"
            )
        if member.dtype != np.float32:
            raise CheckpointError(f"the checkpoint {path}: {key} must be float32, but is {member.dtype}; {_FOREIGN}")


def _weight(path: Path, key: str, archive: zipfile.ZipFile, member: _Member) -> NDArray[np.float32]:
    value = _array(archive, member)
    if not np.isfinite(value).all():
        raise CheckpointError(
            f"the checkpoint {path}: {key} must be finite, but {np.count_nonzero(~np.isfinite(value))} of its "
            f"{value.size} values are not; take another checkpoint of the training"
        )
    return value


def _parsed(path: Path, values: Mapping[str, Any], prefix: str, kind: type[BaseModel]) -> Any:  # noqa: ANN401 - an instance of ``kind``
    fields: dict[str, Any] = {}
    lists: dict[str, dict[int, Any]] = {}
    for key, value in values.items():
        if not key.startswith(f"{prefix}:"):
            continue
        _, field, *index = key.split(":")
        if index:
            lists.setdefault(field, {})[int(index[0])] = value
        else:
            fields[field] = value
    fields |= {field: [items[k] for k in sorted(items)] for field, items in lists.items()}
    # An empty list leaves no entry behind.
    for name in ("input_variables", "forcing_variables") if prefix == "task_config" and lists else ():
        fields.setdefault(name, [])
    try:
        return parse_config(fields, kind, origin=prefix)
    except ConfigError as error:
        raise CheckpointError(f"the checkpoint {path}: {error}; {_FOREIGN}") from error
