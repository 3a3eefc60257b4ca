"""Draw rank histograms: how often the truth has each rank among the members of an ensemble."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from graphcast_batch.errors import FigureError
from graphcast_batch.figures.display_units import named
from graphcast_batch.figures.headings import initial_times_text, lead_time_text
from graphcast_batch.figures.saving import package_style, save

_COLORS: Final = ("#0072b2", "#d55e00", "#009e73")
_LINES: Final = ("-", "--", "-.")


class Histogram(Protocol):
    """How often the truth has each rank, of one variable at some lead times."""

    @property
    def variable(self) -> str:
        """Name of the variable."""

    @property
    def level(self) -> int | None:
        """Pressure, hPa; None at the surface."""

    @property
    def hours(self) -> NDArray[np.int64]:
        """Lead times, (lead,) h, three at most."""

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of each rank, (lead, rank)."""

    @property
    def cases(self) -> int:
        """The most initial times that a share averages over."""


def draw_rank_histograms(path: Path, histograms: Sequence[Histogram], name: str, region: str) -> None:
    """Draw rank histograms, with a panel for each variable and level; 1 is the share of a reliable ensemble.

    Args:
        path: of the picture, PNG, SVG or PDF by its suffix.
        histograms: of all variables that are drawn.
        name: of the ensemble.
        region: name of the region.

    Raises:
        FigureError: there is no histogram.
    """
    if not histograms:
        raise FigureError(f"there must be a rank histogram of {name} to be drawn, but no variable has one; evaluate it")
    with package_style():
        columns = min(len(histograms), 4 if len(histograms) > 6 else 3)
        rows = -(-len(histograms) // columns)
        figure = Figure(figsize=(0.4 + 3.3 * columns, 1.25 + 2.35 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for at, histogram in zip(axes, histograms, strict=False):
            _draw_panel(at, histogram)
        for at in axes[len(histograms) :]:
            at.set_axis_off()
        for at in axes[max(0, len(histograms) - columns) : len(histograms)]:
            at.set_xlabel("Rank of the truth among the members")
        for row in range(rows):
            axes[row * columns].set_ylabel("Frequency, 1 if reliable")
        cases = initial_times_text(max(histogram.cases for histogram in histograms))
        figure.suptitle(f"Ranks of the truth, {name}, {region}\n{cases}")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), handlelength=3.5)
        save(figure, path, _alt(histograms, name, region))


def _draw_panel(axes: Axes, histogram: Histogram) -> None:
    axes.set_facecolor("white")
    ranks = histogram.shares.shape[1]
    edges = np.arange(ranks + 1) - 0.5
    looks = zip(histogram.hours, histogram.shares, _COLORS, _LINES, strict=False)
    for hours, shares, color, line in looks:
        label = lead_time_text(int(hours))
        axes.stairs(ranks * shares, edges, color=color, linestyle=line, linewidth=1.4, label=label, baseline=None)
    axes.axhline(1, color="#404040", linewidth=0.6)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_title(named(histogram.variable, histogram.level), loc="left")


def _alt(histograms: Sequence[Histogram], name: str, region: str) -> str:
    texts = []
    for histogram in histograms:
        below, above = (histogram.shares.shape[1] * histogram.shares[-1, place] for place in (0, -1))
        texts.append(
            f"{named(histogram.variable, histogram.level)} at {histogram.hours[-1]} h: below all members {below:.3g} "
            f"and above all members {above:.3g} times as often as reliable"
        )
    return f"Rank histograms of {name}, {region}. {'; '.join(texts)}."
