"""Choose the forecasts, statistics of members, lead times and fields that are shown in a page of limited size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, TypeVar

from graphcast_batch.report.views import View
from graphcast_batch.stores.layout import OutputGrid

Item = TypeVar("Item")
HEADLINES: Final = (
    ("2m_temperature", None),
    ("geopotential", 500),
    ("mean_sea_level_pressure", None),
    ("total_precipitation_6hr", None),
    ("temperature", 850),
    ("10m_u_component_of_wind", None),
    ("10m_v_component_of_wind", None),
    ("specific_humidity", 700),
    ("u_component_of_wind", 850),
    ("v_component_of_wind", 850),
)
"""Variables with levels that come first, after the headline scores of Rasp et al. 2024,
https://doi.org/10.1029/2023MS004019."""
_ENOUGH: Final = {"fields": len(HEADLINES), "views": 4, "leads": 10}
"""Numbers to which fields, views and lead times are reduced, in this order, before any of them is reduced further."""
_COARSE: Final = 1.5
"""Spacing of the points in a map, in degrees: a map in a page has some 500 pixels, which show no finer points."""


_TOGETHER: Final = 4
"""Views of one initial time that are shown before another initial time is: members are compared with their mean."""


@dataclass(frozen=True)
class Choice:
    """The views, lead times, fields and points that are shown.

    Attributes:
        views: forecasts and statistics of members that are shown.
        lead_hours: lead times in hours that are shown of each view.
        fields: variables that are shown, each with a level (hPa; None at the surface).
        left_out: numbers of views, lead times and fields that are not shown.
        stride: step along latitude and longitude from one shown point to the next.
    """

    views: tuple[View, ...]
    lead_hours: tuple[int, ...]
    fields: tuple[tuple[str, int | None], ...]
    left_out: tuple[int, int, int]
    stride: int

    @property
    def texts(self) -> list[str]:
        """How much of what is left out is shown, as texts."""
        of_views = "forecasts and statistics" if any(view.statistic for view in self.views) else "forecasts"
        names = (of_views, "lead times", "fields (variables and levels)")
        counts = zip(self.left_out, (self.views, self.lead_hours, self.fields), names, strict=True)
        texts = [f"{len(shown)} of {len(shown) + left} {name}" for left, shown, name in counts if left]
        return texts + ([f"one point in {self.stride} along latitude and longitude"] if self.stride > 1 else [])


def choose(views: Sequence[View], kept: OutputGrid, frames: int) -> Choice:
    """Choose initial and lead times, evenly from the first to the last, and variables, headline variables first.

    Args:
        views: of complete forecasts, in order of time, with those of one initial time together.
        kept: variables, levels, lead times and points that the store keeps.
        frames: largest number of maps.
    """
    reach = max((view.case.hours for view in views), default=0)
    hours, fields = kept.lead_hours[: kept.leads(reach)], _fields(kept)
    there = {"fields": len(fields), "views": len(views), "leads": len(hours)}
    take = affordable(there, frames)
    shown = (_together(views, take["views"]), evenly(hours, take["leads"]), tuple(fields[: take["fields"]]))
    left_out = (len(views) - len(shown[0]), len(hours) - len(shown[1]), len(fields) - len(shown[2]))
    return Choice(*shown, left_out, stride_of(kept))


def affordable(there: dict[str, int], frames: int) -> dict[str, int]:
    """Return the numbers of fields, views and lead times to take, each at least 1.

    Args:
        there: numbers that there are, by ``fields``, ``views`` and ``leads``.
        frames: largest product of the three numbers.
    """
    take = dict(there)
    for least in (_ENOUGH, dict.fromkeys(_ENOUGH, 1)):
        for name, most in least.items():
            others = math.prod(count for other, count in take.items() if other != name)
            if math.prod(take.values()) > frames:
                take[name] = max(min(most, there[name]), frames // others)
    return take


def evenly(items: Sequence[Item], count: int) -> tuple[Item, ...]:
    """Return ``count`` items, evenly spaced from the first to the last."""
    if count < 2 or len(items) <= count:
        return tuple(items[: max(count, 0)])
    return tuple(items[round(n * (len(items) - 1) / (count - 1))] for n in range(count))


def stride_of(kept: OutputGrid) -> int:
    """Return the step from one shown point to the next, so that points are no closer than a map can show."""
    axis = kept.latitude if kept.latitude.size > 1 else kept.longitude
    spacing = float(axis[1] - axis[0]) if axis.size > 1 else 180.0
    return max(1, math.ceil(_COARSE / spacing - 1e-3))


def _together(views: Sequence[View], count: int) -> tuple[View, ...]:
    """Return ``count`` views at most, of evenly spaced initial times with several views each, in their order."""
    if count >= len(views):
        return tuple(views)
    by_time = [list(group) for _, group in groupby(views, key=lambda view: view.case.init_time)]
    most = max(map(len, by_time), default=1)
    times = min(len(by_time), max(1, count // min(_TOGETHER, most)))
    return tuple(view for group in evenly(by_time, times) for view in _foremost(group, count // times))


def _foremost(group: Sequence[View], count: int) -> list[View]:
    """Return the first views of an initial time by `View.rank`, in their order."""
    ranked = sorted(range(len(group)), key=lambda place: group[place].rank)  # stable: members stay in their order
    return [group[place] for place in sorted(ranked[:count])]


def _fields(kept: OutputGrid) -> list[tuple[str, int | None]]:
    """Return all fields that are kept: headline variables, then others at the surface, then others on levels."""
    on_levels = dict(kept.on_levels)
    every = [(name, level) for name, levelled in on_levels.items() for level in (kept.levels if levelled else (None,))]
    first = [field for field in HEADLINES if field in every]
    return first + sorted((field for field in every if field not in first), key=lambda field: field[1] is not None)
