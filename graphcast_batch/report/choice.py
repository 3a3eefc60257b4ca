"""More forecasts than fit into a page become those few that show best what the others are like."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from graphcast_batch.plan import Case, OutputGrid

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
"""After the headline scores of Rasp et al. 2024, https://doi.org/10.1029/2023MS004019, what people feel first."""
_ENOUGH: Final = {"fields": len(HEADLINES), "cases": 4, "leads": 10}
"""What is taken from each in turn before more is taken from any."""
_COARSE: Final = 1.5
"""Degrees: a map in a page has some 500 pixels, and no more points than these are seen in it."""


@dataclass(frozen=True)
class Choice:
    """What of forecasts is shown.

    Attributes:
        cases: initial times.
        lead_hours: of each.
        fields: variable and level (hPa; None at the surface).
        left_out: for each of the above, how many there are beside.
        stride: every so many points along latitude and longitude.
    """

    cases: tuple[Case, ...]
    lead_hours: tuple[int, ...]
    fields: tuple[tuple[str, int | None], ...]
    left_out: tuple[int, int, int]
    stride: int

    @property
    def told(self) -> list[str]:
        """What is left out, in words."""
        counts = zip(self.left_out, (self.cases, self.lead_hours, self.fields), _NAMES, strict=True)
        texts = [f"{len(shown)} of {len(shown) + left} {name}" for left, shown, name in counts if left]
        return texts + ([f"one point in {self.stride} along latitude and longitude"] if self.stride > 1 else [])


_NAMES: Final = ("initial times", "lead times", "fields (variables and levels)")


def choose(cases: Sequence[Case], kept: OutputGrid, frames: int) -> Choice:
    """The first, the last and evenly between of initial and lead times; headline variables before others.

    Args:
        cases: whole ones, in order of time.
        kept: what the store keeps of each.
        frames: how many maps there may be.
    """
    reach = max((case.hours for case in cases), default=0)
    hours, fields = kept.lead_hours[: kept.leads(reach)], _fields(kept)
    there = {"fields": len(fields), "cases": len(cases), "leads": len(hours)}
    take = affordable(there, frames)
    shown = (evenly(cases, take["cases"]), evenly(hours, take["leads"]), tuple(fields[: take["fields"]]))
    left_out = (len(cases) - len(shown[0]), len(hours) - len(shown[1]), len(fields) - len(shown[2]))
    return Choice(*shown, left_out, stride_of(kept))


def affordable(there: dict[str, int], frames: int) -> dict[str, int]:
    """How many of each may be taken, so that their product is no more than so many frames, and at least one.

    Args:
        there: how many there are of ``fields``, ``cases`` and ``leads``.
        frames: the largest product.
    """
    take = dict(there)
    for least in (_ENOUGH, dict.fromkeys(_ENOUGH, 1)):
        for name, most in least.items():
            others = math.prod(count for other, count in take.items() if other != name)
            if math.prod(take.values()) > frames:
                take[name] = max(min(most, there[name]), frames // others)
    return take


def evenly(items: Sequence[Item], count: int) -> tuple[Item, ...]:
    """So many of some items, with the first and the last."""
    if count < 2 or len(items) <= count:
        return tuple(items[: max(count, 0)])
    return tuple(items[round(n * (len(items) - 1) / (count - 1))] for n in range(count))


def stride_of(kept: OutputGrid) -> int:
    """Every how many-th point is shown, so that they are no closer than a map can show."""
    axis = kept.latitude if kept.latitude.size > 1 else kept.longitude
    spacing = float(axis[1] - axis[0]) if axis.size > 1 else 180.0
    return max(1, math.ceil(_COARSE / spacing - 1e-3))


def _fields(kept: OutputGrid) -> list[tuple[str, int | None]]:
    """All that are kept: headlines, then what is at the surface, then the rest by level."""
    on_levels = dict(kept.on_levels)
    every = [(name, level) for name, levelled in on_levels.items() for level in (kept.levels if levelled else (None,))]
    first = [field for field in HEADLINES if field in every]
    return first + sorted((field for field in every if field not in first), key=lambda field: field[1] is not None)
