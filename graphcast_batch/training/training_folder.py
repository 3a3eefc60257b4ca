"""Read and write the folder of a training: its weights, the state to resume from, and a record of all updates."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from graphcast_batch.config.loading import dump_config
from graphcast_batch.credentials import bare
from graphcast_batch.errors import TrainingError
from graphcast_batch.files.durable import explained, replace, seal, sync_folder
from graphcast_batch.models.base import Checkpoint
from graphcast_batch.models.graphcast.checkpoint import save_checkpoint
from graphcast_batch.recipe import TrainingRecipe

_WEIGHTS: Final = "weights.npz"
_STATE: Final = "state.npz"
_MAY_CHANGE: Final = {"folder", "workers", "checkpoint_every", "phases", "validation"}
"""Keys of a recipe that may change when a training is resumed; phases that have begun may not change."""


@dataclass(frozen=True)
class TrainingState:
    """The state that a training resumes from.

    Attributes:
        update: how many updates were made.
        arrays: weights and the optimizer's state, by name.
        recipe: the recipe of these updates, as JSON.
        begun_with: SHA-256 of the weights that the training began with.
    """

    update: int
    arrays: Mapping[str, NDArray[Any]]
    recipe: Mapping[str, JsonValue]
    begun_with: str


@dataclass(frozen=True)
class TrainingFolder:
    """The folder of one training."""

    path: Path

    @property
    def weights(self) -> Path:
        """Path of the weights of the last checkpoint, in DeepMind's format."""
        return self.path / _WEIGHTS

    @property
    def record(self) -> Path:
        """Path of the record, which has a line of JSON for each update and validation."""
        return self.path / "record.jsonl"

    def state(self) -> TrainingState | None:
        """Read the state to resume from; return None if there is none yet.

        Raises:
            TrainingError: the state is damaged.
        """
        path = self.path / _STATE
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
                arrays = dict(held)
            known = (arrays.pop(name).item() for name in ("update", "recipe", "begun_with"))
            update, recipe, begun_with = known
            return TrainingState(int(update), arrays, json.loads(recipe), begun_with)
        except FileNotFoundError:
            return None
        except Exception as error:  # zipfile and NumPy raise whatever a damaged file makes them
            raise TrainingError(
                f"{path} must be the state of a training as this program writes it, but cannot be read ({error}); "
                f"remove it to train from the beginning, or begin another folder with {self.weights}"
            ) from error

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Make the folder, and lock it against other trainings within the context, where the disk supports locks.

        Raises:
            TrainingError: another training is using the folder.
            StoreError: the folder cannot be made.
        """
        with explained(f"making {self.path}"):
            self.path.mkdir(parents=True, exist_ok=True)
            place = os.open(self.path, os.O_RDONLY)
        try:
            with suppress(OSError):  # of a disk without locks
                _lock(place, self.path)
            yield
        finally:
            os.close(place)

    def begin(self, update: int, recipe: TrainingRecipe) -> None:
        """Write the recipe into the folder, and remove the updates that will be made again from the record.

        Args:
            update: how many updates were made and saved.
            recipe: recipe of the training.

        Raises:
            StoreError: the folder cannot be written.
        """
        with explained(f"writing to {self.path}"):
            replace(self.path / "recipe.yaml", dump_config(recipe).encode())
            known = [line for line in self.lines() if line["update"] <= update]
            replace(self.record, "".join(map(_text, known)).encode())

    def save(self, state: TrainingState, checkpoint: Checkpoint) -> None:
        """Write weights and state; both are complete before either replaces the one before.

        Raises:
            StoreError: they cannot be written.
        """
        known = {"update": state.update, "recipe": json.dumps(state.recipe), "begun_with": state.begun_with}
        with explained(f"saving the training in {self.path}"), self._drafts() as drafts:
            save_checkpoint(checkpoint, drafts / _WEIGHTS)
            np.savez(drafts / _STATE, allow_pickle=False, **known, **state.arrays)  # type: ignore[arg-type] # NumPy's stub takes them for its flag
            for name in (_WEIGHTS, _STATE):  # the state last: if this is interrupted before, its updates are made again
                seal(drafts / name)
                (drafts / name).replace(self.path / name)
            sync_folder(self.path)

    def note(self, lines: Iterable[Mapping[str, JsonValue]]) -> None:
        """Append lines to the record.

        Raises:
            StoreError: the record cannot be written.
        """
        with explained(f"writing to {self.record}"), self.record.open("a", encoding="utf-8") as file:
            file.writelines(map(_text, lines))

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of the record; an incomplete line is left out."""
        with suppress(FileNotFoundError), self.record.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                with suppress(json.JSONDecodeError):
                    yield json.loads(line)

    @contextmanager
    def _drafts(self) -> Iterator[Path]:
        """Make a temporary folder on the same disk, in place of one that was left behind."""
        place = self.path / ".drafts"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


def refuse_other(state: TrainingState, recipe: TrainingRecipe, begun_with: str, folder: Path) -> None:
    """Check that a state belongs to a recipe.

    Args:
        state: the state in the folder.
        recipe: the recipe to train by.
        begun_with: SHA-256 of the weights that the recipe begins with.
        folder: the folder of the state.

    Raises:
        TrainingError: the state belongs to a training by another recipe or from other weights.
    """
    now, kept = {key: bare(part) for key, part in recipe.model_dump(mode="json").items()}, state.recipe
    before = {**{key: bare(part) for key, part in kept.items()}, "phases": _begun(kept["phases"], state.update)}
    now["phases"] = _begun(now["phases"], state.update)
    keys = [key for key in now if key not in _MAY_CHANGE - {"phases"} and now[key] != before.get(key)]
    if keys:
        key = keys[0]
        raise TrainingError(
            f"{folder} holds a training by another recipe: {key} must be {before.get(key)}, but is {now[key]}; take "
            "another folder, or the recipe that it was begun with"
        )
    if begun_with != state.begun_with:
        raise TrainingError(
            f"{folder} holds a training that began with other weights than those of model.weights, which must be the "
            "same until its end; take another folder, or put them back"
        )


def _lock(place: int, path: Path) -> None:
    """Lock an open folder until it is closed, which the end of the process does as well."""
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise TrainingError(
            f"{path} must be used by one training at a time, but another is using it; wait for its end, stop it, or "
            "take another folder"
        ) from error


def _begun(phases: Any, update: int) -> list[Any]:  # noqa: ANN401 - JSON
    """Return the phases that have begun at an update; the others may change."""
    found = []
    for phase in phases:
        if update <= 0:
            break
        found.append(phase)
        update -= phase["updates"]
    return found


def _text(line: Mapping[str, JsonValue]) -> str:
    return json.dumps(line) + "\n"
