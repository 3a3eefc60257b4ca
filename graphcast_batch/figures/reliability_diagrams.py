"""Draw reliability diagrams of an ensemble, each over a histogram of the probabilities that it gives."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from numpy.typing import NDArray

from graphcast_batch.errors import FigureError
from graphcast_batch.figures.display_units import named, unit_of
from graphcast_batch.figures.headings import initial_times_text, lead_time_text
from graphcast_batch.figures.saving import package_style, save

Floats = NDArray[np.float64]
_LOOKS: Final = (("#0072b2", "-", "o"), ("#d55e00", "--", "s"), ("#009e73", "-.", "^"))
_FEW: Final = 20
"""The most members with which points have markers."""
_GRAY: Final = "#404040"


class Diagram(Protocol):
    """How often an event is in the truth, by the probability that an ensemble of M members gives it."""

    @property
    def variable(self) -> str:
        """Name of the variable."""

    @property
    def level(self) -> int | None:
        """Pressure, hPa; None at the surface."""

    @property
    def units(self) -> str:
        """Units of the variable, in CF spelling."""

    @property
    def quantile(self) -> float | None:
        """Quantile of the climatology, beyond which the event is; None for a threshold."""

    @property
    def threshold(self) -> float | None:
        """Threshold in the unit of the variable, above which the event is; None for a quantile."""

    @property
    def hours(self) -> NDArray[np.int64]:
        """Lead times, (lead,) h, three at most."""

    @property
    def issued(self) -> Floats:
        """Share of places and times at which the probability is k / M, (lead, M + 1)."""

    @property
    def observed(self) -> Floats:
        """Share of these at which the event is in the truth, (lead, M + 1); NaN where there are none."""

    @property
    def skill(self) -> Floats:
        """Brier skill score over the frequency of the event, (lead,); NaN where unknown."""

    @property
    def cases(self) -> int:
        """The most initial times that a share averages over."""


def draw_reliability(path: Path, diagrams: Sequence[Diagram], name: str, region: str) -> None:
    """Draw reliability diagrams, with a panel for each variable, level and threshold.

    Args:
        path: of the picture, PNG, SVG or PDF by its suffix.
        diagrams: of one quantile, or of thresholds.
        name: of the ensemble.
        region: name of the region.

    Raises:
        FigureError: there is no diagram.
    """
    if not diagrams:
        raise FigureError(
            f"there must be a reliability diagram of {name} to be drawn, but its events were not counted; set "
            "scores.reliability, and evaluate it"
        )
    with package_style():
        columns = min(len(diagrams), 4 if len(diagrams) > 6 else 3)
        rows = -(-len(diagrams) // columns)
        # Wide enough for the heading, also over a single panel.
        figure = Figure(figsize=(max(4.6, 0.5 + 2.9 * columns), 1.3 + 3.9 * rows), layout="constrained")
        axes = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=(3, 1.1) * rows)
        places = [(row, column) for row in range(rows) for column in range(columns)]
        for n, (row, column) in enumerate(places):
            pair = axes[2 * row, column], axes[2 * row + 1, column]
            if n < len(diagrams):
                _draw_panel(*pair, diagrams[n], first=column == 0)
            else:
                for at in pair:
                    at.set_axis_off()
        times = initial_times_text(max(diagram.cases for diagram in diagrams))
        figure.suptitle(f"Reliability of {name}, {region}\n{_events(diagrams[0])}, {times}")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)), handlelength=3.5)
        save(figure, path, _alt(diagrams, name, region))


def _draw_panel(above: Axes, below: Axes, diagram: Diagram, *, first: bool) -> None:
    """Draw observed frequencies over probabilities, and below them how often each probability is given."""
    members = diagram.issued.shape[1] - 1
    probabilities = np.arange(members + 1) / members
    rate = float(np.nansum(diagram.issued[-1] * np.nan_to_num(diagram.observed[-1])))
    above.plot([0, 1], [0, 1], color=_GRAY, linewidth=0.8, label="reliable")
    above.axhline(rate, color=_GRAY, linewidth=0.8, linestyle=(0, (1, 2)), label="frequency of the event")
    for (color, line, marker), hours, issued, observed in zip(
        _LOOKS, diagram.hours, diagram.issued, diagram.observed, strict=False
    ):
        given = np.isfinite(observed)
        mark = marker if members <= _FEW else None
        label = lead_time_text(int(hours))
        (drawn,) = above.plot(probabilities[given], observed[given], line, color=color, label=label, clip_on=False)
        drawn.set(linewidth=1.3, marker=mark or "", markersize=3.5)
        edges = (np.arange(members + 2) - 0.5) / members
        below.stairs(
            np.where(issued > 0, issued, np.nan), edges, color=color, linestyle=line, linewidth=1.2, baseline=None
        )
    ends = -0.5 / members, 1 + 0.5 / members  # one axis for both, on which a probability has a bar around it
    above.set(xlim=ends, ylim=(0, 1), facecolor="white", xticklabels=[])
    below.set(xlim=ends, yscale="log", facecolor="white")
    below.set_ylim(top=1)
    below.set_xlabel("Probability")
    for axis in (above.xaxis, above.yaxis, below.xaxis):
        axis.set_major_locator(MultipleLocator(0.2))
    if first:
        above.set_ylabel("Observed frequency")
        below.set_ylabel("Share")
    above.set_title(_heading(diagram), loc="left")


def _heading(diagram: Diagram) -> str:
    name = named(diagram.variable, diagram.level)
    if diagram.threshold is None:
        return name
    unit = unit_of(diagram.variable, diagram.units)
    value = unit.convert(np.array(diagram.threshold))
    return f"{name} > {value:.6g} {unit.text}".rstrip()


def _events(diagram: Diagram) -> str:
    """Return in words what the events are."""
    if diagram.quantile is None:
        return "above thresholds"
    side = "above" if diagram.quantile >= 0.5 else "below"
    return f"{side} the quantile {diagram.quantile:g} of the climatology"


def _alt(diagrams: Sequence[Diagram], name: str, region: str) -> str:
    texts = [
        f"{_heading(diagram)} at {diagram.hours[-1]} h: Brier skill score "
        + ("unknown" if np.isnan(diagram.skill[-1]) else f"{diagram.skill[-1]:.2f}")
        for diagram in diagrams
    ]
    return f"Reliability diagrams of {name}, {region}, {_events(diagrams[0])}. {'; '.join(texts)}."
