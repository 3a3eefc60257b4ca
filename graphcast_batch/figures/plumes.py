"""Draw plumes: quantiles of the members of an ensemble at a point over time, with control and truth."""

from pathlib import Path
from typing import Final

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from graphcast_batch.figures.headings import label_valid_times
from graphcast_batch.figures.map_points import NamedPoint, nearest
from graphcast_batch.figures.saving import package_style, save
from graphcast_batch.figures.scene import quantity

_BANDS: Final = (
    (0.0, 1.0, "#cfe3f2", "all members"),
    (0.1, 0.9, "#9cc6e4", "10–90 %"),
    (0.25, 0.75, "#5ba3d0", "25–75 %"),
)
_MEDIAN, _CONTROL, _TRUTH = "#00486b", "#d55e00", "#1a1a1a"


def draw_plume(
    path: Path,
    place: NamedPoint,
    members: xr.DataArray,
    target: NDArray[np.float64],
    control: int | None,
    counted: str,
) -> None:
    """Draw a variable of all members at a grid point over time.

    Args:
        path: of the picture, PNG, SVG or PDF by its suffix.
        place: the named point that the grid point is nearest to.
        members: (member, prediction_timedelta) in stored units, with the scalar coordinates ``time`` (initial time),
            ``latitude`` and ``longitude`` of the grid point and, on levels, ``level``.
        target: (prediction_timedelta,) the truth; NaN where it is not available.
        control: index of the control among the members; None if there is none.
        counted: number of members as text.
    """
    of = quantity(members)
    values = of.unit.convert(members.values.astype(np.float64))
    theirs = of.unit.convert(target)
    point = nearest(place, np.atleast_1d(members["latitude"]), np.atleast_1d(members["longitude"]))
    times = members["time"].values + members["prediction_timedelta"].values
    with package_style():
        figure = Figure(figsize=(7.5, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.set_facecolor("white")
        for low, high, color, label in _BANDS:
            below, above = np.quantile(values, (low, high), axis=0)
            axes.fill_between(times, below, above, color=color, linewidth=0, label=label)
        axes.plot(times, np.median(values, axis=0), color=_MEDIAN, linewidth=1.4, label="median")
        if control is not None:
            axes.plot(times, values[control], "--", color=_CONTROL, linewidth=1.2, label="control")
        if np.isfinite(theirs).any():
            axes.plot(times, theirs, "o-", color=_TRUTH, linewidth=0.8, markersize=3, label="target")
        axes.margins(x=0.01)
        label_valid_times(axes)
        figure.legend(loc="outside lower center", ncols=6)
        start = f"{str(members['time'].values.astype('datetime64[m]')).replace('T', ' ')} UTC"
        figure.suptitle(f"{of.title}, {place.name}, {counted}\nInitial time {start}    {point.description}")
        last = f"{values[:, -1].min():.4g} to {values[:, -1].max():.4g}, median {np.median(values[:, -1]):.4g}"
        save(figure, path, f"{of.title}, {place.name} ({point.description}), {counted}: at the last lead time {last}.")
