"""Draw a scorecard: a table of colors that shows how much better one forecast is than another, by lead time."""

import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from graphcast_batch.errors import FigureError
from graphcast_batch.figures.display_units import named
from graphcast_batch.figures.headings import initial_times_text
from graphcast_batch.figures.saving import package_style, save

Floats = NDArray[np.float64]


class Scorecard(Protocol):
    """The errors of one forecast relative to those of another."""

    @property
    def rows(self) -> Sequence[tuple[str, int | None]]:
        """Variable and level (hPa; None at the surface) of each row; rows of one variable follow each other."""

    @property
    def hours(self) -> Sequence[int]:
        """Lead times of the columns, ascending."""

    @property
    def relative(self) -> Floats:
        """Score over that of the other minus 1, (row, column): below 0 where better; NaN where unknown."""

    @property
    def significant(self) -> NDArray[np.bool_]:
        """Whether each difference is significant, (row, column)."""

    @property
    def tested(self) -> NDArray[np.bool_]:
        """Whether each difference could be tested, (row, column)."""

    @property
    def cases(self) -> int:
        """The most initial times that a cell averages over."""


_MOST_COLUMNS: Final = 12
"""The most columns with all lead times; with more lead times only multiples of 24 h are drawn."""
_MOST_NUMBERED: Final = 16
"""The most columns for which cells have room for a number."""
_MISSING: Final = "#d9d9d9"
_CELL: Final = (0.34, 0.2)
"""Width and height of a cell with a number, inches."""
_NARROW: Final = 0.16
_PAGE: Final = 17.0
"""Width of all panels of a row together, inches."""
_SURFACE: Final = "Surface"


def draw_scorecard(path: Path, card: Scorecard, names: tuple[str, str], region: str) -> None:
    """Draw a panel for the surface variables and one for each variable on levels, with lead times as columns.

    Blue is better, red is worse, on a symmetric color scale. A dot marks significant differences.

    Args:
        path: of the picture, PNG, SVG or PDF by its suffix.
        card: the root mean square errors of the first forecast relative to those of the second.
        names: of the first and the second forecast.
        region: name of the region.

    Raises:
        FigureError: there is nothing to draw.
    """
    if not np.isfinite(card.relative).any():
        raise FigureError(
            f"a scorecard of {names[0]} against {names[1]} needs a score that both have, but there is none; evaluate "
            "the same variables and times of both"
        )
    columns = _columns(card.hours)
    limit = _limit(card.relative[:, columns])
    panels = _panels(card.rows)
    with package_style():
        figure, axes = _laid_out(panels, len(columns))
        image = None
        for at, (title, rows) in zip(axes, panels, strict=False):
            image = _draw_panel(at, title, [card.rows[n] for n in rows], [card.hours[n] for n in columns])
            cells = np.ix_(rows, columns)
            image.set_data(np.ma.masked_invalid(card.relative[cells]))
            image.set_norm(Normalize(-limit, limit))
            _mark(at, card.relative[cells], card.significant[cells], limit)
        assert image is not None
        _explain(figure, image, card, limit, names)
        figure.suptitle(f"RMSE of {names[0]} against {names[1]}, {region}\n{_times(card)}")
        save(figure, path, _alt(card, columns, names, region))


def _columns(hours: Sequence[int]) -> list[int]:
    """Return the indices of the lead times to draw."""
    daily = [n for n, hour in enumerate(hours) if hour % 24 == 0]
    return daily if len(hours) > _MOST_COLUMNS and daily else list(range(len(hours)))


def _limit(relative: Floats) -> float:
    """Return a round color limit that about 95 % of the values do not exceed, at least 0.001."""
    sizes = np.abs(relative[np.isfinite(relative)])
    most = max(1e-3, float(np.percentile(sizes, 95))) if sizes.size else 1e-3
    power = 10.0 ** math.floor(math.log10(most))
    return power * next(step for step in (1, 2, 3, 5, 10) if most <= step * power * (1 + 1e-9))


def _panels(rows: Sequence[tuple[str, int | None]]) -> list[tuple[str, list[int]]]:
    """Return the title and the row indices of each panel."""
    surface = [n for n, (_, level) in enumerate(rows) if level is None]
    aloft = groupby((n for n, (_, level) in enumerate(rows) if level is not None), key=lambda n: rows[n][0])
    return [*([(_SURFACE, surface)] if surface else []), *((named(name), list(group)) for name, group in aloft)]


def _laid_out(panels: Sequence[tuple[str, list[int]]], columns: int) -> tuple[Figure, list[Axes]]:
    """Lay out the panels in rows, each as high as the highest of its row."""
    width = columns * _cell_width(columns)
    across = max(1, min(len(panels), 4, int(_PAGE / (width + 0.75))))
    down = -(-len(panels) // across)
    highest = [max(len(rows) for _, rows in panels[n * across : (n + 1) * across]) for n in range(down)]
    heights = [_CELL[1] * high for high in highest]
    size = (max(7.0, across * (width + 0.75) + 0.9), sum(heights) + 0.6 * down + 1.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, height_ratios=heights).ravel().tolist()
    for at in axes[len(panels) :]:
        at.set_axis_off()
    return figure, axes


def _cell_width(columns: int) -> float:
    return _CELL[0] if columns <= _MOST_NUMBERED else _NARROW


def _draw_panel(axes: Axes, title: str, rows: Sequence[tuple[str, int | None]], hours: Sequence[int]) -> AxesImage:
    """Draw empty cells, with labels of rows and columns."""
    colors = colormaps["RdBu_r"].with_extremes(bad=_MISSING)
    # Cells have one size in all panels, even where a panel has few rows.
    image = axes.imshow(np.zeros((len(rows), len(hours))), cmap=colors, aspect=_CELL[1] / _cell_width(len(hours)))
    axes.grid(visible=False)
    axes.set_title(title, loc="left")
    axes.set_yticks(range(len(rows)), [named(name) if level is None else f"{level}" for name, level in rows])
    axes.set_xticks(range(len(hours)), _lead_labels(hours))
    axes.tick_params(length=0)
    axes.set_xlabel("Lead time (days)" if _in_days(hours) else "Lead time (h)")
    if rows[0][1] is not None:
        axes.set_ylabel("hPa")
    for n in range(1, len(hours)):
        axes.axvline(n - 0.5, color="white", linewidth=0.6)
    for n in range(1, len(rows)):
        axes.axhline(n - 0.5, color="white", linewidth=0.6)
    return image


def _in_days(hours: Sequence[int]) -> bool:
    return all(hour % 24 == 0 for hour in hours)


def _lead_labels(hours: Sequence[int]) -> list[str]:
    return [f"{hour // 24}" if _in_days(hours) else f"{hour}" for hour in hours]


def _mark(axes: Axes, relative: Floats, significant: NDArray[np.bool_], limit: float) -> None:
    """Draw numbers where they have room, and dots where the difference is significant."""
    numbered = relative.shape[1] <= _MOST_NUMBERED
    decimals = 0 if limit >= 0.1 else 1
    for (row, column), value in np.ndenumerate(relative):
        ink = "white" if abs(value) > 0.6 * limit else "black"
        if numbered and np.isfinite(value):
            axes.text(column - 0.05, row, _percent(value, decimals), ha="center", va="center", fontsize=6.5, color=ink)
        if significant[row, column]:
            at = (column + 0.38, row - 0.3) if numbered else (column, row)
            axes.plot(*at, ".", color=ink, markersize=3 if numbered else 4, markeredgewidth=0)


def _percent(value: float, decimals: int) -> str:
    text = f"{100 * value:+.{decimals}f}".replace("-", "−")
    return text if float(text.replace("−", "-")) else f"{0:.{decimals}f}"


def _explain(figure: Figure, image: AxesImage, card: Scorecard, limit: float, names: tuple[str, str]) -> None:
    """Draw the color bar, and the legend of dots and gray cells."""
    finite = card.relative[np.isfinite(card.relative)]
    low, high = bool((finite < -limit).any()), bool((finite > limit).any())
    extend = "both" if low and high else "min" if low else "max" if high else "neither"
    for at in figure.axes:
        at.set_anchor("N")
    bar = figure.colorbar(
        image, ax=figure.axes, location="bottom", panchor=False, extend=extend, aspect=50, shrink=0.6, pad=0.02
    )
    ticks = np.linspace(-limit, limit, 5)
    decimals = next(n for n in range(6) if np.allclose(np.round(100 * ticks, n), 100 * ticks))
    bar.set_ticks(ticks.tolist(), labels=[_percent(tick, decimals) for tick in ticks])
    bar.set_label(f"% of RMSE: blue where {names[0]} is better, red where {names[1]} is")
    handles: list[Line2D | Patch] = []
    if card.significant.any():
        dot = Line2D([], [], color="black", marker=".", linestyle="", markersize=5)
        dot.set_label("significant at 95 % (paired t-test, with the autocorrelation of initial times)")
        handles.append(dot)
    if np.isnan(card.relative).any():
        handles.append(Patch(facecolor=_MISSING, label="no score"))
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=2)


def _times(card: Scorecard) -> str:
    times = initial_times_text(card.cases)
    if not card.tested.any():
        return f"{times}, too few to test for significance"
    return times if card.significant.any() else f"{times}; no difference is significant at 95 %"


def _alt(card: Scorecard, columns: Sequence[int], names: tuple[str, str], region: str) -> str:
    relative, significant = card.relative[:, columns], card.significant[:, columns]
    count = int(np.isfinite(relative).sum())
    better = int((relative < 0).sum())
    sure = int(((relative < 0) & significant).sum()), int(((relative > 0) & significant).sum())
    return (
        f"Scorecard of the RMSE of {names[0]} against {names[1]}, {region}: of {count} cells {better} are better, "
        f"{sure[0]} of them significantly, and {int((relative > 0).sum())} worse, {sure[1]} of them significantly; "
        f"from {100 * np.nanmin(relative):+.1f} % to {100 * np.nanmax(relative):+.1f} %."
    )
