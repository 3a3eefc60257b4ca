"""Draw maps of one grid beside each other, each with a title, a note and a color bar of its own."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from graphcast_batch.figures.panel import MapBackground, Panel
from graphcast_batch.figures.scales import Scale
from graphcast_batch.figures.scene import Layer


@dataclass(frozen=True, eq=False)
class TitledMap:
    """A map, and what stands above and below it.

    Attributes:
        name: title, above the map's left corner.
        values: (lat, lon) with latitude ascending, in displayed units; NaN where missing.
        scale: of the values.
        colors: name of a color map.
        note: text above the map's right corner.
    """

    name: str
    values: NDArray[np.float32]
    scale: Scale
    colors: str
    note: str


def draw_titled_maps(figure: Figure, axes: Iterable[Axes], ground: MapBackground, maps: Iterable[TitledMap]) -> None:
    """Draw maps, each on axes of its own and with a color bar below.

    Args:
        figure: that the axes belong to.
        axes: one for each map.
        ground: projection and grid of the maps.
        maps: to draw.
    """
    for at, each in zip(axes, maps, strict=True):
        panel = Panel(at, ground, each.scale, each.colors, over=False)
        panel.show(Layer(each.values), each.note)
        at.set_title(each.name, loc="left", fontweight="bold")
        bar = figure.colorbar(
            panel.image, ax=at, location="bottom", extend=each.scale.extend, extendfrac=0.03, shrink=0.8, aspect=35
        )
        positions, labels = each.scale.ticks()
        bar.set_ticks(positions, labels=labels)
        bar.set_label(each.scale.label)
