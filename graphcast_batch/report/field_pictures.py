"""Encode forecasts, statistics of members and differences from the truth as gray pictures, of which a page has maps."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from PIL import Image

from graphcast_batch.errors import ConfigError, EvaluationError, GridError, InputError
from graphcast_batch.evaluation.scoring_setup import ScoredSubset, part_of
from graphcast_batch.evaluation.store_scoring import truth_of
from graphcast_batch.figures.conventions import convention
from graphcast_batch.figures.display_units import Unit, named, unit_of
from graphcast_batch.figures.scales import difference_scale, field_scale
from graphcast_batch.inputs.case_inputs import Timeline
from graphcast_batch.plan import Case
from graphcast_batch.report.choice import Choice, choose, stride_of
from graphcast_batch.report.summary import Opened
from graphcast_batch.report.views import View
from graphcast_batch.setup.ensemble_store import statistics_in
from graphcast_batch.stores.layout import OutputGrid
from graphcast_batch.variables import HOUR, attributes

Frames = NDArray[np.float32]
Json = dict[str, Any]
_Pair = tuple[Frames, Frames | None]
"""Frames of forecast and truth."""
_GRAYS: Final = 254
"""Steps between the lowest and the highest value, which are 1 and 255; 0 stands for a missing value."""
_SPREAD: Final = "cividis"
"""Color map of standard deviations."""
_CHARACTERS: Final = 1.1
"""Characters of base64 for each point of a map: fields in 8 bits are compressed to 0.55 to 0.85, measured at 6°."""


@dataclass(frozen=True)
class Browsable:
    """The maps of a store for a page.

    Attributes:
        content: the maps, to be written as JSON; empty if there are none.
        left_out: texts on the parts of the store that are not shown.
        notes: texts on why there are no maps or no truth.
    """

    content: Json
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def browsable(opened: Opened, views: Sequence[View], most_bytes: int) -> Browsable:
    """Encode the maps of as many forecasts and statistics of members as fit into a page.

    Args:
        opened: the store.
        views: of the store, to choose from.
        most_bytes: largest size of all maps, encoded; the last fields are left out if they do not fit.

    Raises:
        StoreError: the forecasts cannot be read.
    """
    if opened.store.only_scores:
        return Browsable({}, (), ("The store keeps only the scores of each forecast (outputs: none).",))
    removed = _removed(opened)
    if not views:
        return Browsable({}, (), removed or ("No forecast is complete yet.",))
    choice = choose(views, opened.store.kept, int(most_bytes / _frame_bytes(opened.store.kept)))
    statistics = opened.ensembles.forecasts() if opened.ensembles and statistics_in(opened.ensembles) else None
    fields, notes = _with_truth(_Reader(opened, choice, opened.store.forecasts(), statistics, None), most_bytes)
    if not fields:
        return Browsable({}, (), ("There is no space for maps in the page.",))
    dropped = len(choice.fields) - len(fields)
    content = {
        "name": opened.name,
        "views": [
            {"key": view.key, "text": view.text, "title": view.title, "isSpread": view.is_spread}
            for view in choice.views
        ],
        "hours": choice.lead_hours,
        "grid": _grid(opened, choice.stride),
        "fields": fields,
    }
    lost = [f"all but {dropped} fields, for which there is no space"] if dropped else []
    return Browsable(content, (*choice.texts, *lost), removed + notes)


def _removed(opened: Opened) -> tuple[str, ...]:
    """Return a note on members whose values were removed; none if all that were made are kept."""
    dropped = opened.store.ledger.dropped_steps()
    removed = sum(case.key in dropped for case in opened.cases)
    if not removed:
        return ()
    kept = opened.config.outputs.members
    listed = kept if isinstance(kept, str) else f"[{', '.join(map(str, kept))}]"
    of_all = f"{removed} of {len(opened.cases)} forecasts"
    return (f"The values of {of_all} were removed once their ensembles were complete (outputs.members: {listed}).",)


def quantized(frames: Frames) -> tuple[NDArray[np.uint8], list[float], list[float]]:
    """Quantize each frame in 254 steps between its lowest and its highest value.

    Args:
        frames: (lead, row, column) values; values that are not finite are missing.

    Returns:
        (lead, row, column) grays, 1 for the lowest and 255 for the highest value, 0 for a missing value; and the lowest
        and the highest value at each lead time, 0 if all are missing.
    """
    there = np.isfinite(frames)
    low, high = (
        np.where(there.any(axis=(1, 2)), extreme, 0.0).astype(np.float64)
        for extreme in (
            np.where(there, frames, np.inf).min(axis=(1, 2)),
            np.where(there, frames, -np.inf).max(axis=(1, 2)),
        )
    )
    span = np.where(high > low, high - low, 1.0)[:, np.newaxis, np.newaxis]
    shares = (np.where(there, frames, 0.0) - low[:, np.newaxis, np.newaxis]) / span
    grays = np.where(there, 1 + np.round(_GRAYS * shares), 0).astype(np.uint8)
    return grays, low.tolist(), high.tolist()


def stacked(frames: Frames) -> Json:
    """Encode frames as one picture, one below the other, with the lowest and highest value of each."""
    grays, low, high = quantized(frames)
    content = BytesIO()
    Image.fromarray(grays.reshape(-1, grays.shape[-1])).save(content, "png", optimize=True)
    png = base64.b64encode(content.getvalue()).decode("ascii")
    return {"png": png, "low": [_short(value) for value in low], "high": [_short(value) for value in high]}


@dataclass(frozen=True, eq=False)
class _Truth:
    """The truth on the points of a store."""

    source: Timeline
    part: ScoredSubset

    def frames(self, case: Case, hours: Sequence[int], name: str, levels: Sequence[int]) -> xr.DataArray | None:
        """Read the truth of a variable, (time, [level], latitude, longitude), as far as there is any; None for none."""
        if name not in self.source.dims:
            return None
        times = _valid(case, hours)
        known = self.source.times_of([name])
        held = times if known is None else times[np.isin(times, known)]
        if not held.size:
            return None
        there = [level for level in levels if level in self.source.levels]
        if levels and not there:
            return None
        found = self.source.fields([name], held, there)[name]
        placed = self.part.of(found.values)
        coords = {"time": held, **({"level": found["level"].values} if "level" in found.dims else {})}
        return xr.DataArray(placed, dims=found.dims, coords=coords)


def _truth(opened: Opened) -> _Truth:
    kept, source = opened.store.kept, truth_of(opened.config, opened.store.kept)
    held = (source.grid.latitude, source.grid.longitude)
    part = part_of(f"truth {source.origin}", held, (kept.latitude, kept.longitude), "set scores.truth")
    return _Truth(source, part)


@dataclass(frozen=True, eq=False)
class _Reader:
    """Reads the chosen part of the forecasts of a store, and the truth for it."""

    opened: Opened
    choice: Choice
    forecasts: xr.Dataset
    statistics: xr.Dataset | None
    truth: _Truth | None

    def pairs(self, name: str, levels: Sequence[int | None]) -> list[_Pair]:
        """Read the values of each view and the truth, (lead, level, latitude, longitude); NaN where there is none."""
        return [self._pair(view, name, [level for level in levels if level is not None]) for view in self.choice.views]

    def _pair(self, view: View, name: str, levels: Sequence[int]) -> _Pair:
        store, values = (
            (self.opened.store, self.forecasts) if view.statistic is None else (self.opened.ensembles, self.statistics)
        )
        assert store is not None
        assert values is not None, "a statistic is in the store of ensembles"
        case, hours = view.case, self.choice.lead_hours
        thinned: dict[str, Any] = dict.fromkeys(("latitude", "longitude"), slice(None, None, self.choice.stride))
        places = thinned | {"prediction_timedelta": [store.kept.lead_hours.index(hour) for hour in hours]}
        wanted: dict[str, Any] = {"time": _valid(case, hours)}
        if levels:
            places["level"] = [store.kept.levels.index(level) for level in levels]
            wanted["level"] = list(levels)
        frames = values[view.variable(name)].isel(places | store.place_of(case))
        shape = (len(hours), max(1, len(levels)), frames.sizes["latitude"], frames.sizes["longitude"])
        truth = self.truth.frames(case, hours, name, levels) if self.truth and not view.is_spread else None
        target = None if truth is None else truth.reindex(wanted).isel(thinned).values.reshape(shape)
        return frames.values.reshape(shape), target


def _with_truth(reader: _Reader, most_bytes: int) -> tuple[list[Json], tuple[str, ...]]:
    """Encode the chosen fields with the truth; without it, and with a note, if it cannot be read."""
    try:
        return _encoded(replace(reader, truth=_truth(reader.opened)), most_bytes), ()
    except (ConfigError, InputError, GridError, EvaluationError) as error:  # ConfigError: a secret is missing
        note = f"Forecasts are shown without the truth: {error}"
        return _encoded(reader, most_bytes), (note,)


def _encoded(reader: _Reader, most_bytes: int) -> list[Json]:
    """Encode the chosen fields in their order, as far as they fit."""
    found, spent, fields = list[Json](), 0, reader.choice.fields
    spreads = [view.is_spread for view in reader.choice.views]
    read: dict[str, list[_Pair]] = {}
    for name, level in fields:
        levels = [other_level for other, other_level in fields if other == name]
        if name not in read:  # all levels at once, because they are in the same files
            read[name] = reader.pairs(name, levels)
        place = levels.index(level)
        pairs = [(ours[:, place], None if truth is None else truth[:, place]) for ours, truth in read[name]]
        encoded = _field(name, level, pairs, spreads)
        spent += sum(len(stack["png"]) for stacks in encoded["stacks"] for stack in stacks if stack)
        if spent > most_bytes:
            break
        found.append(encoded)
    return found


def _valid(case: Case, hours: Sequence[int]) -> NDArray[np.datetime64]:
    """Return the valid times of a Case at some lead times, (lead,)."""
    return np.asarray(case.init_time.astype("datetime64[ns]") + np.array(hours) * HOUR)


def _field(name: str, level: int | None, pairs: Sequence[_Pair], spreads: Sequence[bool]) -> Json:
    """Encode one variable at one level of all chosen views, in its unit for figures; some of them are spreads."""
    unit = unit_of(name, attributes(name).get("units", ""))
    units = [unit.of_differences if is_spread else unit for is_spread in spreads]
    ours = [each.convert(frames).astype(np.float32) for each, (frames, _) in zip(units, pairs, strict=True)]
    apart = [None if truth is None else _difference(unit, frames, truth) for frames, truth in pairs]
    style = convention(name)
    values, deviations = (
        [frames for frames, is_spread in zip(ours, spreads, strict=True) if is_spread == wanted]
        for wanted in (False, True)
    )
    scale = (difference_scale if style.is_signed else field_scale)(values, unit.text)
    of_spread = field_scale(deviations, unit.of_differences.text)
    spread = {"colors": _SPREAD, "limits": [_short(of_spread.low), _short(of_spread.high)]}
    most = difference_scale([frames for frames in apart if frames is not None], unit.text).high
    return {
        "variable": name,
        "level": level,
        "label": named(name),
        "colors": style.colors,
        "units": unit.text,
        "differenceUnits": unit.of_differences.text,
        "limits": [_short(scale.low), _short(scale.high)],
        "differenceLimit": _short(most),
        "spread": spread if deviations else None,
        "stacks": [
            [stacked(mine), None if off is None else stacked(off)] for mine, off in zip(ours, apart, strict=True)
        ],
    }


def _difference(unit: Unit, ours: Frames, truth: Frames) -> Frames:
    return unit.of_differences.convert(ours - truth).astype(np.float32)


def _grid(opened: Opened, stride: int) -> Json:
    """Return the coordinates of the pictures: first value, step and count of rows (south to north) and of columns."""
    kept = opened.store.kept
    axes = {"latitude": kept.latitude, "longitude": kept.longitude}
    found: Json = {
        name: {
            "first": _short(float(axis[0])),
            "step": _short(stride * (float(axis[-1]) - float(axis[0])) / max(axis.size - 1, 1)),
            "count": axis[::stride].size,
        }
        for name, axis in axes.items()
    }
    circle: float = found["longitude"]["step"] * found["longitude"]["count"]
    return found | {"isRound": bool(abs(circle - 360) < 1e-2)}


def _frame_bytes(kept: OutputGrid) -> float:
    """Return the expected size of one field at one lead time and its difference, in bytes of base64."""
    rows, columns = (axis[:: stride_of(kept)].size for axis in (kept.latitude, kept.longitude))
    return 2 * _CHARACTERS * rows * columns


def _short(value: float) -> float:
    return float(f"{value:.6g}")
