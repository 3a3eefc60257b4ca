"""DeepMind's ``.npz`` files become checked weights with their task and architecture, and back, bit by bit."""

import hashlib
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from graphcast_batch.config import Architecture, Task, parse_config
from graphcast_batch.errors import CheckpointError, ConfigError
from graphcast_batch.model.parameters import Parameters

_FOREIGN = "take a file in the format of the published GraphCast checkpoints"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Weights and what belongs to them.

    Attributes:
        parameters: float32 arrays by Haiku module, then by name.
        architecture: sizes of the network.
        task: which variables go in and out.
        description: free text.
        license: free text, of the weights.
        sha256: of the file; empty for weights that are not from one.
    """

    parameters: Parameters
    architecture: Architecture
    task: Task
    description: str = ""
    license: str = ""
    sha256: str = ""


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint.

    Raises:
        CheckpointError: the file is missing, truncated, foreign, or lacks a part; nothing in it is ever executed.
    """
    entries = _read_entries(path)
    strange = sorted(key for key in entries if not re.fullmatch(_KEY, key))
    if strange:
        raise CheckpointError(f"the checkpoint {path} holds the entry {strange[0]!r}, which is none of its format's")
    parameters: dict[str, dict[str, NDArray[np.float32]]] = {}
    for key, value in entries.items():
        if key.startswith("params:"):
            _, module, name = key.split(":")
            parameters.setdefault(module, {})[name] = _checked_weight(path, key, value)
    if not parameters:
        raise CheckpointError(f"the checkpoint {path} holds no params; {_FOREIGN}")
    return Checkpoint(
        parameters=parameters,
        architecture=_read_fields(path, entries, "model_config", Architecture),
        task=_read_fields(path, entries, "task_config", Task),
        description=str(entries.get("description", "")),
        license=str(entries.get("license", "")),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Writes a checkpoint, first under another name, so that no half of one is ever seen."""
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


_KEY = r"params:[^:]+:[^:]+|(model|task)_config:[^:]+(:\d+)?|description|license"


def _read_entries(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise CheckpointError(f"the checkpoint {path} is not a file; give the path of an .npz file of weights")
    try:
        # Opened here: NumPy leaves a file that it cannot read open.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise CheckpointError(f"the checkpoint {path} is a single array; {_FOREIGN}")
            with archive:
                return {key: archive[key] for key in archive.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError) as error:
        raise CheckpointError(f"the checkpoint {path} is truncated or damaged ({error}); copy it again") from error
    except CheckpointError:
        raise
    except (ValueError, OSError, SyntaxError, MemoryError) as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read as arrays ({error}); {_FOREIGN}") from error


def _checked_weight(path: Path, key: str, value: NDArray[Any]) -> NDArray[np.float32]:
    if value.dtype != np.float32:
        raise CheckpointError(f"the checkpoint {path}: {key} must be float32, but is {value.dtype}; {_FOREIGN}")
    if not np.isfinite(value).all():
        raise CheckpointError(
            f"the checkpoint {path}: {key} must be finite, but {np.count_nonzero(~np.isfinite(value))} of its "
            f"{value.size} values are not; take another checkpoint of the training"
        )
    return value


def _read_fields(path: Path, entries: Mapping[str, NDArray[Any]], prefix: str, kind: type[BaseModel]) -> Any:  # noqa: ANN401 - an instance of ``kind``
    fields: dict[str, Any] = {}
    lists: dict[str, dict[int, Any]] = {}
    for key, value in entries.items():
        if not key.startswith(f"{prefix}:"):
            continue
        if value.ndim:
            raise CheckpointError(f"the checkpoint {path}: {key} must be one value, but has shape {value.shape}")
        _, field, *index = key.split(":")
        if index:
            lists.setdefault(field, {})[int(index[0])] = value.item()
        else:
            fields[field] = value.item()
    fields |= {field: [items[k] for k in sorted(items)] for field, items in lists.items()}
    # An empty list leaves no entry behind.
    for name in ("input_variables", "forcing_variables") if prefix == "task_config" and lists else ():
        fields.setdefault(name, [])
    try:
        return parse_config(fields, kind, origin=prefix)
    except ConfigError as error:
        raise CheckpointError(f"the checkpoint {path}: {error}; {_FOREIGN}") from error
