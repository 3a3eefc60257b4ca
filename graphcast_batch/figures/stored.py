"""The whole Cases of a store become their figures, beside the forecasts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import xarray as xr

from graphcast_batch.config import STEP_HOURS, Figures
from graphcast_batch.figures.case import draw_case, expected_figures
from graphcast_batch.outputs.store import Store
from graphcast_batch.plan import Case, Layout


class Truth(Protocol):
    """Where what came true is read."""

    def truth(self, case: Case, names: Sequence[str], levels: Sequence[int] | None = None) -> xr.Dataset | None:
        """What came true of a Case, as far as it is known."""


def check_figures(wanted: Figures, layout: Layout) -> list[str]:
    """The files that each Case of a layout will give.

    Raises:
        FigureError: its forecasts lack what is wanted.
    """
    hours = [STEP_HOURS * (step + 1) for step in range(layout.steps)]
    return expected_figures(wanted, dict(layout.on_levels), layout.levels, hours)


def undrawn(store: Store, cases: Sequence[Case], names: Sequence[str]) -> list[Case]:
    """Those Cases of which a figure is missing."""
    return [case for case in cases if not all((_folder(store.path, case) / name).exists() for name in names)]


def draw_stored(path: Path, case: Case, wanted: Figures, source: Truth) -> int:
    """Draws the figures of one whole Case of a store.

    Args:
        path: of the store.
        case: to be drawn.
        wanted: variables, levels and lead times.
        source: of the truth.

    Returns:
        How many files were written.

    Raises:
        FigureError: the forecast lacks what is wanted.
        InputError: the truth cannot be read.
    """
    store = Store.open(path)
    forecast = store.forecasts().isel(time=store.index_of(case), prediction_timedelta=slice(0, case.steps))
    truth = source.truth(case, list(wanted.variables), list(wanted.levels))
    return len(draw_case(forecast, truth, wanted, _folder(store.path, case)))


def _folder(path: Path, case: Case) -> Path:
    return path / "figures" / case.key
