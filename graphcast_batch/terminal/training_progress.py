"""Show the progress of a training: a bar on a terminal, and a line now and then elsewhere."""

import math
from collections import deque
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from graphcast_batch.terminal.run_progress import Level

_RECENT: Final = 100
"""Number of updates that the shown loss and speed are means of."""
_LINE_SECONDS: Final = 20.0
"""Least time between two lines."""


class TrainingWatcher:
    """Shows the progress of a training: a bar on a terminal, and a line now and then elsewhere."""

    def __init__(
        self, console: Console, steps_after: Callable[[int], int], updates: int, done: int, level: Level = "normal"
    ) -> None:
        """Show nothing yet.

        Args:
            console: where to show it.
            steps_after: gives the number of rollout steps that are left after a number of updates, from which the time
                left is estimated.
            updates: number of updates of the whole training.
            done: number of updates made before.
            level: how much is shown; "verbose" is the same as "normal" here.
        """
        self._console, self._steps_after, self._updates = console, steps_after, updates
        self._quiet = level == "quiet"
        self._bar = Progress(
            TextColumn("[bold]updates"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4g}"),
            TextColumn("rate {task.fields[rate]:.2g}"),
            TextColumn("{task.fields[speed]:.3g} updates/s"),
            TextColumn("{task.fields[left]} left"),
            console=console,
            disable=self._quiet or not console.is_interactive,
        )
        self._task = self._bar.add_task(
            "updates", total=updates, completed=done, loss=math.nan, rate=0.0, speed=0.0, left="-"
        )
        self._printed_at = -math.inf
        self._seconds = self._waited = 0.0
        self._recent: deque[tuple[float, float, int]] = deque(maxlen=_RECENT)

    def __enter__(self) -> "TrainingWatcher":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    @property
    def waited(self) -> float:
        """Share of the time of all updates that was spent waiting for samples, 0 to 1."""
        return self._waited / self._seconds if self._seconds else 0.0

    def record(self, line: Mapping[str, Any]) -> None:
        """Show one line of the record of the training."""
        if "lost" in line:
            text = f"after update {line['update']}: {line['lost']}; all workers are started again"
            self._console.print(Text(text, "yellow"), soft_wrap=True)
        elif "validation" in line:
            share = line["validation"] / line["persistence"] if line["persistence"] else math.inf
            self._print(
                f"update {line['update']}: validation loss {line['validation']:.4g}, {share:.3g} of that of "
                f"persistence, {line['persistence']:.4g}"
            )
        else:
            self._updated(line)

    def _updated(self, line: Mapping[str, Any]) -> None:
        self._seconds += line["seconds"]
        self._waited += line["waited"]
        self._recent.append((line["loss"], line["seconds"], line["rollout"]))
        loss, seconds, steps = (sum(values) / len(self._recent) for values in zip(*self._recent, strict=True))
        left = timedelta(seconds=round(seconds / steps * self._steps_after(line["update"])))
        update = line["update"]
        self._bar.update(self._task, completed=update, loss=loss, rate=line["rate"], speed=1 / seconds, left=left)
        if not self._console.is_interactive and self._seconds - self._printed_at > _LINE_SECONDS:
            self._printed_at = self._seconds
            self._print(
                f"update {line['update']} of {self._updates}: loss {loss:.4g}, rollout {line['rollout']}, learning "
                f"rate {line['rate']:.3g}, {1 / seconds:.3g} updates/s, {left} left"
            )

    def _print(self, text: str) -> None:
        if not self._quiet:
            self._console.print(text, highlight=False, soft_wrap=True)
