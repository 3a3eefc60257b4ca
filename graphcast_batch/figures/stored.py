"""The whole Cases of a store become their figures, beside the forecasts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import xarray as xr

from graphcast_batch.config import Figures
from graphcast_batch.errors import FigureError
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
        FigureError: what is kept of its forecasts lacks what is wanted.
    """
    if layout.outputs.region is not None:
        raise FigureError(
            "figures: maps are of the whole globe, but outputs.region keeps a part of it; leave out one of the two"
        )
    kept = layout.kept
    return expected_figures(wanted, dict(kept.on_levels), kept.levels, kept.lead_hours)


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
    leads = slice(0, store.kept.leads(case.steps))
    forecast = store.forecasts().isel(time=store.index_of(case), prediction_timedelta=leads)
    truth = source.truth(case, list(wanted.variables), list(wanted.levels))
    return len(draw_case(forecast, truth, wanted, _folder(store.path, case)))


def _folder(path: Path, case: Case) -> Path:
    return path / "figures" / case.key
