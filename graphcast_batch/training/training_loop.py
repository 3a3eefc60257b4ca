"""Train to the end of a recipe: make updates, validate, write checkpoints and a record, and survive dead workers."""

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
"""About how long one call of the workers takes, and so how long a request to stop waits."""
_LOSSES: Final = 3
"""How often in a row workers may be lost without progress before the training ends."""
_WINDOW: Final = 50
"""Number of updates whose median loss is looked at."""
_TIMES: Final = 10.0
"""A training has diverged when the median loss is this many times the lowest one of the phase."""


class Group(Protocol):
    """Workers that train together."""

    @property
    def update(self) -> int:
        """How many updates have been made."""

    def advance(self, updates: int) -> Sequence[Line]:
        """Make updates; return a line of the record for each."""

    def validate(self) -> tuple[float, float]:
        """Return the loss of the validation samples, and that of persistence."""

    def save(self) -> None:
        """Write a checkpoint."""

    def restart(self) -> None:
        """Start all workers again, from the last checkpoint."""


def train(recipe: TrainingRecipe, group: Group, report: Callable[[Line], None], asked: Callable[[], bool]) -> bool:
    """Train to the end of the recipe, or until asked to stop.

    Args:
        recipe: the recipe.
        group: the workers, which have made as many updates as the folder's state.
        report: called with each line of the record.
        asked: returns whether to stop.

    Returns:
        Whether the end of the recipe was reached.

    Raises:
        WorkersLostError: workers die again and again.
        TrainingError: the loss is not finite any more, or has grown too much, and the last checkpoint stays; or another
            training uses the folder.
        StoreError: the folder cannot be written.
    """
    folder = TrainingFolder(recipe.folder)
    with folder.alone():
        return _train_on(recipe, group, folder, report, asked)


def _train_on(
    recipe: TrainingRecipe,
    group: Group,
    folder: TrainingFolder,
    report: Callable[[Line], None],
    asked: Callable[[], bool],
) -> bool:
    """Train, and go on from the last checkpoint after the death of workers."""
    lost, furthest = 0, group.update
    while True:
        try:
            if lost:
                group.restart()
            folder.begin(group.update, recipe)
            return _train(recipe, group, folder, report, asked)
        except WorkersLostError as error:
            lost = 1 if group.update > furthest else lost + 1
            furthest = max(furthest, group.update)
            if lost > _LOSSES:
                raise
            if asked():
                return False
            report({"update": group.update, "lost": str(error)})


def _train(
    recipe: TrainingRecipe,
    group: Group,
    folder: TrainingFolder,
    report: Callable[[Line], None],
    asked: Callable[[], bool],
) -> bool:
    watch, saved = _Watch(), group.update
    while group.update < recipe.updates and not asked():
        phase, within = recipe.phase_of(group.update)
        until = [every - group.update % every for every in (recipe.validation.every, recipe.checkpoint_every)]
        lines = group.advance(min(watch.updates_in(_CALL_SECONDS, phase.rollout), phase.updates - within, *until))
        _note(folder, lines, report)
        watch.check(lines, folder)
        done = group.update == recipe.updates
        if done or group.update % recipe.validation.every == 0:
            loss, persistence = group.validate()
            _note(folder, [{"update": group.update, "validation": loss, "persistence": persistence}], report)
        if done or group.update % recipe.checkpoint_every == 0:
            group.save()
            saved = group.update
    if saved < group.update:
        group.save()
    return group.update == recipe.updates


def _note(folder: TrainingFolder, lines: Sequence[Line], report: Callable[[Line], None]) -> None:
    folder.note(lines)
    for line in lines:
        report(line)


class _Watch:
    """Measures how fast updates are, and checks that the loss of a phase does not diverge."""

    def __init__(self) -> None:
        self._step_seconds = math.inf
        self._rollout = 0
        self._losses: deque[float] = deque(maxlen=_WINDOW)
        self._lowest = math.inf

    def updates_in(self, seconds: float, rollout: int) -> int:
        """Return how many updates fit into some seconds, at least 1, with rollouts of a number of steps."""
        return max(1, int(seconds / (self._step_seconds * rollout)))

    def check(self, lines: Sequence[Line], folder: TrainingFolder) -> None:
        for line in lines:
            seconds, rollout, loss = (float(str(line[key])) for key in ("seconds", "rollout", "loss"))
            self._step_seconds = seconds / rollout
            if rollout != self._rollout:
                self._rollout, self._lowest = int(rollout), math.inf
                self._losses.clear()
            self._losses.append(loss)
            if len(self._losses) < _WINDOW:
                continue
            typical = median(self._losses)  # a single bad sample is no harm
            if typical > _TIMES * self._lowest:
                raise TrainingError(
                    f"the loss must not grow, but half of {_WINDOW} updates had more than {self._lowest:.4g} before "
                    f"and {typical:.4g} up to update {line['update']} (learning rate {line['rate']:.3g}); "
                    f"{folder.weights} is of the last checkpoint: lower the peak or warm up for longer, and train on "
                    "from there into another folder"
                )
            self._lowest = min(self._lowest, typical)
