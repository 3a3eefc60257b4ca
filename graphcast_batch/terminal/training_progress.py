"""Lines of the record of a training become a bar, or a line now and then."""

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
"""Updates over which loss and speed are means."""
_SAY_SECONDS: Final = 20.0


class TrainingWatcher:
    """Shows how a training gets on: a bar on a terminal, and elsewhere a line now and then."""

    def __init__(
        self, console: Console, steps_after: Callable[[int], int], updates: int, done: int, level: Level = "normal"
    ) -> None:
        """Shows nothing yet.

        Args:
            console: to show it on.
            steps_after: how many steps of rollouts are left after some updates: what the time left goes by.
            updates: of the whole training.
            done: how many were made before.
            level: how much is shown; all that is verbose is normal here.
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
        self._said = -math.inf
        self._seconds = self._waited = 0.0
        self._recent: deque[tuple[float, float, int]] = deque(maxlen=_RECENT)

    def __enter__(self) -> "TrainingWatcher":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    @property
    def waited(self) -> float:
        """Share of the time of updates that they waited for samples, 0 to 1."""
        return self._waited / self._seconds if self._seconds else 0.0

    def tell(self, line: Mapping[str, Any]) -> None:
        """Takes a line of the record."""
        if "lost" in line:
            text = f"after update {line['update']}: {line['lost']}; all workers start anew"
            self._console.print(Text(text, "yellow"), soft_wrap=True)
        elif "validation" in line:
            share = line["validation"] / line["persistence"] if line["persistence"] else math.inf
            self._say(
                f"update {line['update']}: validation loss {line['validation']:.4g}, {share:.3g} of persistence's "
                f"{line['persistence']:.4g}"
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
        if not self._console.is_interactive and self._seconds - self._said > _SAY_SECONDS:
            self._said = self._seconds
            self._say(
                f"update {line['update']} of {self._updates}: loss {loss:.4g}, rollout {line['rollout']}, learning "
                f"rate {line['rate']:.3g}, {1 / seconds:.3g} updates/s, {left} left"
            )

    def _say(self, text: str) -> None:
        if not self._quiet:
            self._console.print(text, highlight=False, soft_wrap=True)
