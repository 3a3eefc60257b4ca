"""Compare the scores of two stores, or of a store and a baseline, with a test of significance."""

import os
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from graphcast_batch.app.any_path import AnyPath, path_or_none
from graphcast_batch.app.displays import as_html, as_text
from graphcast_batch.app.score_drawing import draw_comparison
from graphcast_batch.evaluation import comparison
from graphcast_batch.evaluation.baselines import CLIMATOLOGY, PERSISTENCE
from graphcast_batch.evaluation.comparison import Change
from graphcast_batch.evaluation.ensemble import ENSEMBLE
from graphcast_batch.evaluation.lagged import LAGGED
from graphcast_batch.evaluation.past_years import CLIMATOLOGY_YEARS
from graphcast_batch.evaluation.score_store import FORECAST
from graphcast_batch.terminal import show_comparison


@dataclass(frozen=True, repr=False)
class ScoreComparison:
    """The scores of two forecasts side by side; `compare` returns it, and a notebook shows it as a table.

    Attributes:
        names: of the two forecasts.
        region: name of the region.
        changes: one for each headline variable and lead time.
        scorecard: file of the picture; None if none was asked for.
    """

    names: tuple[str, str]
    region: str
    changes: tuple[Change, ...]
    scorecard: Path | None

    def show(self, console: Console) -> None:
        """Print the comparison as a table."""
        show_comparison(console, self.names, self.changes, self.region)

    def __repr__(self) -> str:
        return as_text(self.show)

    def _repr_html_(self) -> str:
        return as_html(self.show)


def compare(
    first: AnyPath, second: AnyPath, region: str = "global", *, scorecard: AnyPath | None = None
) -> ScoreComparison:
    """Compare the scores of a store with those of another store or of a baseline.

    >>> comparison = gb.compare("runs/a", "runs/b", region="europe")
    >>> [change.label for change in comparison.changes if change.paired.significant]

    Args:
        first: folder of a scored store.
        second: folder of another scored store, or the name of scores in the first: "persistence", "climatology",
            "ensemble", "lagged" or "climatology_years".
        region: name of the region.
        scorecard: picture to draw of every variable, level and lead time, .png, .svg or .pdf.

    Raises:
        EvaluationError: the two were not scored against the same truth, or have no initial time in common.
        FigureError: the picture cannot be of that kind.
        StoreError: there are no scores.
    """
    ours = (Path(first), FORECAST)
    is_baseline = os.fspath(second) in (PERSISTENCE, CLIMATOLOGY, ENSEMBLE, LAGGED, CLIMATOLOGY_YEARS)
    other = (ours[0], os.fspath(second)) if is_baseline else (Path(second), FORECAST)
    picture = path_or_none(scorecard)
    changes = comparison.compare(ours, other, region)
    if picture:
        draw_comparison(picture, other, ours, (Path(second).name, ours[0].resolve().name), region)
    return ScoreComparison((os.fspath(first), os.fspath(second)), region, tuple(changes), picture)
