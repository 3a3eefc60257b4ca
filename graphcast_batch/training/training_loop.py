"""Workers in step become checkpoints and a record, update after update; asked to stop, they leave all to go on from."""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Final, Protocol

from pydantic import JsonValue

from graphcast_batch.errors import TrainingError, WorkersLostError
from graphcast_batch.recipe import TrainingRecipe
from graphcast_batch.training.training_folder import TrainingFolder

Line = Mapping[str, JsonValue]
_CALL_SECONDS: Final = 2.0
"""That one call of the workers takes about: how long a wish to stop waits."""
_LOSSES: Final = 3
"""Of workers, one after another without getting further, that a training bears."""
_WINDOW: Final = 50
_TIMES: Final = 10.0
"""So many times the lowest median loss of some updates of a phase is a training that has gone astray."""


class Group(Protocol):
    """Workers that train together."""

    @property
    def update(self) -> int:
        """How many updates were made."""

    def advance(self, updates: int) -> Sequence[Line]:
        """Makes updates; a line of what each said."""

    def validate(self) -> tuple[float, float]:
        """The loss of the validation samples, and that of persistence."""

    def save(self) -> None:
        """Writes a checkpoint."""

    def restart(self) -> None:
        """Starts all workers anew, from the last checkpoint."""


def train(recipe: TrainingRecipe, group: Group, tell: Callable[[Line], None], asked: Callable[[], bool]) -> bool:
    """Trains to the end of the recipe, or until asked to stop; whether the end was reached.

    Args:
        recipe: of the training.
        group: the workers, as far as the folder's state.
        tell: is told each line of the record.
        asked: whether to stop.

    Raises:
        WorkersLostError: workers die again and again.
        TrainingError: the loss is not finite any more, or has grown beyond measure, and the last checkpoint stays; or
            another training uses the folder.
        StoreError: the folder cannot be written.
    """
    folder = TrainingFolder(recipe.folder)
    with folder.alone():
        return _train_on(recipe, group, folder, tell, asked)


def _train_on(
    recipe: TrainingRecipe,
    group: Group,
    folder: TrainingFolder,
    tell: Callable[[Line], None],
    asked: Callable[[], bool],
) -> bool:
    """Trains, and goes on after the death of workers."""
    lost, furthest = 0, group.update
    while True:
        try:
            if lost:
                group.restart()
            folder.begin(group.update, recipe)
            return _train(recipe, group, folder, tell, asked)
        except WorkersLostError as error:
            lost = 1 if group.update > furthest else lost + 1
            furthest = max(furthest, group.update)
            if lost > _LOSSES:
                raise
            if asked():
                return False
            tell({"update": group.update, "lost": str(error)})


def _train(
    recipe: TrainingRecipe,
    group: Group,
    folder: TrainingFolder,
    tell: Callable[[Line], None],
    asked: Callable[[], bool],
) -> bool:
    watch, saved = _Watch(), group.update
    while group.update < recipe.updates and not asked():
        phase, within = recipe.phase_of(group.update)
        until = [every - group.update % every for every in (recipe.validation.every, recipe.checkpoint_every)]
        lines = group.advance(min(watch.updates_in(_CALL_SECONDS, phase.rollout), phase.updates - within, *until))
        _note(folder, lines, tell)
        watch.look(lines, folder)
        done = group.update == recipe.updates
        if done or group.update % recipe.validation.every == 0:
            loss, persistence = group.validate()
            _note(folder, [{"update": group.update, "validation": loss, "persistence": persistence}], tell)
        if done or group.update % recipe.checkpoint_every == 0:
            group.save()
            saved = group.update
    if saved < group.update:
        group.save()
    return group.update == recipe.updates


def _note(folder: TrainingFolder, lines: Sequence[Line], tell: Callable[[Line], None]) -> None:
    folder.note(lines)
    for line in lines:
        tell(line)


class _Watch:
    """Sees how fast updates are, and whether the loss of a phase goes astray."""

    def __init__(self) -> None:
        self._step_seconds = math.inf
        self._rollout = 0
        self._losses: deque[float] = deque(maxlen=_WINDOW)
        self._lowest = math.inf

    def updates_in(self, seconds: float, rollout: int) -> int:
        """How many updates that takes, with rollouts of some steps; 1 at least."""
        return max(1, int(seconds / (self._step_seconds * rollout)))

    def look(self, lines: Sequence[Line], folder: TrainingFolder) -> None:
        for line in lines:
            seconds, rollout, loss = (float(str(line[key])) for key in ("seconds", "rollout", "loss"))
            self._step_seconds = seconds / rollout
            if rollout != self._rollout:
                self._rollout, self._lowest = int(rollout), math.inf
                self._losses.clear()
            self._losses.append(loss)
            if len(self._losses) < _WINDOW:
                continue
            usual = median(self._losses)  # a single bad sample is no harm
            if usual > _TIMES * self._lowest:
                raise TrainingError(
                    f"the loss must not grow, but half of {_WINDOW} updates had more than {self._lowest:.4g} before "
                    f"and {usual:.4g} up to update {line['update']} (learning rate {line['rate']:.3g}); "
                    f"{folder.weights} is of the last checkpoint: lower the peak or warm up for longer, and train on "
                    "from there into another folder"
                )
            self._lowest = min(self._lowest, usual)
