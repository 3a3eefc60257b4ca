"""Train weights by a recipe, and draw the curves of the training."""

from dataclasses import dataclass
from pathlib import Path

from graphcast_batch.app.any_path import AnyPath
from graphcast_batch.app.executing import on_cluster
from graphcast_batch.app.progress import Progress, ProgressChoice, chosen_progress
from graphcast_batch.cluster.drain import Drain
from graphcast_batch.cluster.training_group import TrainingGroup
from graphcast_batch.figures.training_curves import draw_training
from graphcast_batch.recipe import load_recipe
from graphcast_batch.training.training_folder import TrainingFolder
from graphcast_batch.training.training_loop import Line, train
from graphcast_batch.training.training_setup import TrainingSetup, training_setup


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended; `finetune` returns it.

    Attributes:
        complete: whether the end of the recipe was reached.
        update: number of updates that were made, before and now.
        updates: number of updates of the recipe.
        waited: share of the time of the updates made now that was spent waiting for samples, 0 to 1.
        weights: file of the trained weights.
        curves: picture of loss and learning rate; None if there is nothing to draw.
    """

    complete: bool
    update: int
    updates: int
    waited: float
    weights: Path
    curves: Path | None


def finetune(
    recipe: AnyPath,
    *,
    address: str | None = None,
    progress: ProgressChoice = None,
    drain: Drain | None = None,
) -> TrainingResult:
    """Train weights, from random ones or from a checkpoint, on forecasts of an archive.

    Call it again after an interruption: the training goes on from the last checkpoint.

    >>> gb.finetune("configs/training/planet.yaml", progress="notebook").weights

    Args:
        recipe: path of a YAML file.
        address: of a Ray cluster; as for `run`.
        progress: as for `run`.
        drain: as for `run`.

    Raises:
        TrainingError: the loss is not finite any more or has grown beyond bounds; the last checkpoint stays.
        GraphcastBatchError: the recipe does not fit, or workers cannot be started or kept.
    """
    wanted, shown = load_recipe(Path(recipe)), chosen_progress(progress)
    setup, folder = training_setup(wanted), TrainingFolder(wanted.folder)
    for line in setup.summary:
        shown.report(line)
    with on_cluster(address, drain, shown) as stopping:
        group = TrainingGroup(setup)
        try:
            complete, waited = _trained(setup, group, stopping, shown)
        finally:
            group.stop()
            curves = _draw_curves(folder, shown)
    return TrainingResult(complete, group.update, wanted.updates, waited, folder.weights, curves)


def _trained(setup: TrainingSetup, group: TrainingGroup, drain: Drain, progress: Progress) -> tuple[bool, float]:
    """Train until the end of the recipe or until asked to stop; return whether it ended, and the share of waiting."""
    recipe, times = setup.recipe, _WaitingTime()
    with progress.training(recipe.steps_after, recipe.updates, group.update) as watcher:

        def record(line: Line) -> None:
            times.add(line)
            watcher.record(line)

        complete = train(recipe, group, record, lambda: drain.asked)
    return complete, times.share


class _WaitingTime:
    """Adds up how long updates took and how long they waited for samples."""

    def __init__(self) -> None:
        self._seconds = self._waited = 0.0

    def add(self, line: Line) -> None:
        """Add a line of the record, if it is about an update."""
        seconds, waited = line.get("seconds"), line.get("waited")
        if isinstance(seconds, float | int) and isinstance(waited, float | int):
            self._seconds += seconds
            self._waited += waited

    @property
    def share(self) -> float:
        """Share of the time that was spent waiting, 0 to 1."""
        return self._waited / self._seconds if self._seconds else 0.0


def _draw_curves(folder: TrainingFolder, progress: Progress) -> Path | None:
    """Draw the curves; if that fails, only report it, because the weights are complete without them."""
    lines, picture = list(folder.lines()), folder.path / "curves.png"
    if not any("loss" in line for line in lines):
        return None
    try:
        draw_training(lines, picture)
    except OSError as error:
        progress.report(f"{type(error).__name__}: {error}", "error")
        return None
    progress.report(f"curves: {picture}")
    return picture
