"""Draw the loss and the learning rate of a training from its record."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, StrMethodFormatter

from graphcast_batch.errors import FigureError
from graphcast_batch.figures.saving import package_style, save

_POINTS: Final = 500
"""The most points of a curve; each is the mean over several updates if there are more."""
_COLORS: Final = {"training": "#0072b2", "validation": "#d55e00", "persistence": "#404040"}
"""Colors that can be distinguished with color blindness (Okabe and Ito 2008)."""


def draw_training(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw training and validation loss, and the learning rate, over the updates.

    Args:
        lines: of the record of a training.
        path: of the PNG file.

    Raises:
        FigureError: the record has no update.
    """
    updates = [line for line in lines if "loss" in line]
    checks = [line for line in lines if "validation" in line]
    if not updates:
        raise FigureError("the record of a training must hold an update to be drawn, but holds none; train first")
    with package_style():
        figure = Figure(figsize=(7.0, 5.0), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        for axes in (above, below):
            axes.set_facecolor("white")
        _draw_losses(above, updates, checks)
        figure.legend(loc="outside lower center", ncols=3)
        at, rates = _thinned(updates, "rate")
        below.plot(at, rates, color="#404040", linewidth=1)
        below.set(xlabel="update", ylabel="learning rate")
        title = f"Training over {updates[-1]['update']} updates"
        figure.suptitle(title)
        save(figure, path, _description(updates, checks))


def _draw_losses(axes: Axes, updates: Sequence[Mapping[str, Any]], checks: Sequence[Mapping[str, Any]]) -> None:
    axes.plot(*_thinned(updates, "loss"), color=_COLORS["training"], linewidth=1, label="training")
    at = [line["update"] for line in checks]
    for key, look, label in (("validation", "o-", "validation"), ("persistence", "--", "persistence, validation")):
        axes.plot(at, [line[key] for line in checks], look, color=_COLORS[key], markersize=3, linewidth=1, label=label)
    axes.set(yscale="log", ylabel="loss")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(_between_decades(*axes.get_ylim()))
    for before, line in pairwise(updates):
        if line["rollout"] != before["rollout"]:
            axes.axvline(line["update"], color="#404040", linewidth=0.6)
            axes.annotate(
                f"{line['rollout']} steps",
                (line["update"], 1),
                xytext=(0, 2),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=7,
            )


def _between_decades(low: float, high: float) -> FuncFormatter:
    """Label values between powers of ten, since a loss seldom spans a decade and might show no power of ten."""
    digits = "23456789" if high < 4 * low else "25"
    return FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in digits else "")


def _thinned(lines: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    groups = np.array_split(np.arange(len(lines)), min(len(lines), _POINTS))
    return (
        [float(np.mean([lines[n]["update"] for n in group])) for group in groups],
        [float(np.mean([lines[n][key] for n in group])) for group in groups],
    )


def _description(updates: Sequence[Mapping[str, Any]], checks: Sequence[Mapping[str, Any]]) -> str:
    first, last = (f"{line['loss']:.3g}" for line in (updates[0], updates[-1]))
    text = f"The training loss goes from {first} to {last}" if updates[1:] else f"The training loss is {first}"
    if checks:
        text += f", the validation loss is {checks[-1]['validation']:.3g} where persistence has "
        text += f"{checks[-1]['persistence']:.3g}"
    return f"{text}."
