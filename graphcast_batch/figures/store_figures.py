"""Draw the figures of the complete Cases of a store, in its folder ``figures``."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

import xarray as xr

from graphcast_batch.config.figures_section import FiguresConfig
from graphcast_batch.errors import FigureError
from graphcast_batch.figures.animation import ffmpeg
from graphcast_batch.figures.case_figures import draw_case, expected_figures, names_wanted
from graphcast_batch.figures.ensemble_figures import draw_ensemble, expected_ensemble_figures
from graphcast_batch.figures.reduced import Truth, draw_diagrams, expected_diagrams
from graphcast_batch.plan import Case
from graphcast_batch.stores.base import Store
from graphcast_batch.stores.layout import Layout
from graphcast_batch.stores.store_kinds import open_store


def check_figures(wanted: FiguresConfig, layout: Layout) -> list[str]:
    """Return the names of the figures of each Case of a layout; check that they can be drawn.

    Raises:
        FigureError: the layout lacks a variable, level or lead time of a figure, or ffmpeg is missing.
    """
    if wanted.animation == "mp4":
        ffmpeg()
    if layout.outputs.region is not None:
        raise FigureError(
            "figures: maps need the complete globe, but outputs.region keeps a part of it; leave out one of the two"
        )
    kept = layout.kept
    held = dict(kept.on_levels), kept.levels, kept.lead_hours
    return [*expected_figures(wanted, *held), *expected_diagrams(wanted, *held)]


def check_ensemble_figures(wanted: FiguresConfig, layout: Layout) -> list[str]:
    """Return the names of the figures of all members of an initial time together, of the forecasts of a layout.

    Raises:
        FigureError: a contour line is asked for of a variable that is not drawn.
    """
    kept = layout.kept
    return expected_ensemble_figures(wanted, dict(kept.on_levels), kept.lead_hours) if wanted.of_ensembles else []


def undrawn(store: Store, cases: Sequence[Case], names: Sequence[str]) -> list[Case]:
    """Return the Cases that lack a figure."""
    return [case for case in cases if not all((_folder(store.path, case) / name).exists() for name in names)]


def draw_stored(path: Path, case: Case, wanted: FiguresConfig, source: Truth) -> int:
    """Draw the figures of one complete Case of a store, or of all members of an initial time together.

    Args:
        path: of the store.
        case: to be drawn; in a store of an ensemble one without a member stands for all members.
        wanted: section ``figures`` of the configuration.
        source: of the truth.

    Returns:
        Number of files written.

    Raises:
        FigureError: the forecast lacks a variable, level or lead time.
        InputError: the truth cannot be read.
    """
    store = open_store(path)
    if store.members and case.member is None:
        return draw_ensemble(store, case, wanted, source, _folder(store.path, case))
    leads = slice(0, store.kept.leads(case.hours))
    forecast = store.forecasts().isel(store.place_of(case) | {"prediction_timedelta": leads})
    truth = source.truth(case, *names_wanted(wanted, dict(store.kept.on_levels)))
    folder = _folder(store.path, case)
    drawn = draw_case(forecast, truth, wanted, folder, credit=_credit(forecast))
    return len(drawn) + len(draw_diagrams(forecast, case, source, wanted, folder))


def _credit(forecast: xr.Dataset) -> str:
    """Return who made a forecast, from the store's attributes, in one line."""
    # The attributes are those of the first checkpoint of an ensemble.
    source = forecast["checkpoint"].item() if "checkpoint" in forecast.coords else forecast.attrs.get("source", "")
    parts = [shorten(str(source), 100, placeholder=" ..."), forecast.attrs.get("precision")]
    return ", ".join(str(part) for part in parts if part)


def _folder(path: Path, case: Case) -> Path:
    return path / "figures" / case.key
