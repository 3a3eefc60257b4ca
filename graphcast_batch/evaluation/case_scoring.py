"""One forecast, with what came true of it, becomes weighted sums: a pass over the data, some lead times at a time."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.config.outputs_section import RegionConfig
from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation.metrics import (
    DRY_BELOW,
    PLAIN,
    SEEPS,
    STATISTICS,
    Points,
    Rain,
    applies,
    at_quantiles,
    of_ensemble,
    statistic,
)
from graphcast_batch.evaluation.regions import Regions, weigh
from graphcast_batch.evaluation.score_layout import PARTS, SPECTRUM
from graphcast_batch.evaluation.spectra import areas_of, spectra_of
from graphcast_batch.evaluation.weighted_sums import Sums
from graphcast_batch.grid import SAME_PLACE_DEGREES
from graphcast_batch.inputs.case_inputs import Timeline
from graphcast_batch.inputs.quality.geography import is_of_sea
from graphcast_batch.inputs.quality.values import find_blank
from graphcast_batch.plan import Case
from graphcast_batch.timing import Stopwatch
from graphcast_batch.variables import HOUR

_PIECE_BYTES: Final = 2**27
"""Of a forecast, or of all members of an ensemble, that are read at once, or one variable at one lead time if that has
more; truth and climatology with them, and all while the piece before is scored."""
_BATCH_FIELDS: Final = 32
"""Fields at a run of points that go through the statistics together."""
_HEAVY: Final = " heavy"
_DRY: Final = " dry"
_DEVIATION: Final = " deviation"
"""Behind the name of a variable, beside whose climatological mean they are."""

Fields = Mapping[str, NDArray[np.float32]]
"""By variable, float32 (time, [level], latitude, longitude)."""


class ForecastReader(Protocol):
    """What is scored: a store, or a baseline."""

    def fields(self, case: Case, names: Sequence[str], lead_hours: Sequence[int], levels: Sequence[int]) -> Fields:
        """Variables of one Case at some of its lead times, and at those levels if they are on levels.

        Those of an ensemble have its members before all other dimensions.

        Raises:
            GraphcastBatchError: they are not there, or cannot be read.
        """


class ClimatologyReader(Protocol):
    """What is usual at a time of the year and of the day."""

    def fields(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> Fields:
        """Climatological means at valid times, on the points of the forecasts.

        Raises:
            GraphcastBatchError: they are not there, or cannot be read.
        """

    def deviations(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> Fields:
        """Climatological standard deviations, as the means."""

    def heavy(self, name: str, times: NDArray[np.datetime64]) -> NDArray[np.float32]:
        """(time, latitude, longitude) the least precipitation that is heavy at valid times; NaN where none is."""

    def dry(self, name: str) -> NDArray[np.float32]:
        """(latitude, longitude) share of times without precipitation."""


@dataclass(frozen=True, eq=False)
class ScoredSubset:
    """Where the points of forecasts lie on the grid of the truth.

    Attributes:
        rows: indices of their latitudes.
        columns: indices of their longitudes, in the order of the forecasts.
        latitude: degrees of the forecasts' points, for messages.
        longitude: the same.
        complete: whether they are all of it, in its order.
    """

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    latitude: NDArray[np.float32]
    longitude: NDArray[np.float32]
    complete: bool

    def of(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """What of fields on the truth's grid lies on the forecasts' points, (..., latitude, longitude)."""
        return values if self.complete else values[..., self.rows[:, np.newaxis], self.columns]


@dataclass(frozen=True, eq=False)
class ScoringSetup:
    """What is scored against what; small, to be sent to where it is done.

    Attributes:
        forecasts: what is scored.
        truth: what came true.
        usual: climatology; None to score without anomalies.
        on_levels: for each variable that is scored, whether it is on levels.
        levels: hPa, ascending, of those that are.
        lead_hours: of a whole forecast; a shorter Case has the first of them.
        part: where the forecasts' points lie on the truth's grid.
        regions: names of regions.
        boxes: further regions.
        block: how many lead times are read at once, at most.
        steps: of variables that are sums over several steps of 6 h, of how many.
        rainy: variables of which the climatology says what SEEPS needs.
        quantiles: of what is usual, beyond which a value is extreme.
        gaussian: variables that have such extremes.
        members: stores that are an ensemble together, the first being that to which the scores go; none for a single
            forecast.
        spectra: variables whose power by zonal wavenumber is summed up too; whole latitude circles are there then.
        bands: the regions in which it is.
    """

    forecasts: ForecastReader
    truth: Timeline
    usual: ClimatologyReader | None
    on_levels: tuple[tuple[str, bool], ...]
    levels: tuple[int, ...]
    lead_hours: tuple[int, ...]
    part: ScoredSubset
    regions: tuple[str, ...]
    boxes: Mapping[str, RegionConfig]
    block: int
    steps: Mapping[str, int] = field(default_factory=dict)
    rainy: tuple[str, ...] = ()
    quantiles: tuple[float, ...] = ()
    gaussian: tuple[str, ...] = ()
    members: tuple[Path, ...] = ()
    spectra: tuple[str, ...] = ()
    bands: tuple[str, ...] = ()

    @property
    def statistics(self) -> tuple[str, ...]:
        """Names of the statistics that are summed up."""
        plain, quantiles = PLAIN if self.usual is None else STATISTICS, self.quantiles if self.gaussian else ()
        if self.members:
            return (*plain, *of_ensemble(len(self.members), quantiles))
        return (*plain, *((SEEPS,) if self.rainy else ()), *at_quantiles(quantiles))

    def weighed(self) -> Regions:
        """The regions, with what each point weighs in them.

        Raises:
            EvaluationError: one is unknown or empty, or the truth has no land-sea mask for it.
        """
        part = None if self.part.complete else (self.part.rows, self.part.columns)
        return weigh(self.regions, self.boxes, self.truth.grid, lambda: _land(self.truth), part)

    def leads_of(self, case: Case) -> NDArray[np.int64]:
        """(lead,) hours of the lead times that a Case has, of those that are scored."""
        hours = np.array(self.lead_hours, np.int64)
        return hours[hours <= case.hours]

    def times(self) -> dict[str, NDArray[np.datetime64] | None]:
        """By variable, the times at which its truth is held; None for every time."""
        return {name: self.truth.times_of([name]) for name, _ in self.on_levels}

    def held(self, case: Case, times: Mapping[str, NDArray[np.datetime64] | None]) -> dict[str, NDArray[np.bool_]]:
        """For each variable, at which lead times of a Case its truth is held.

        Args:
            case: which.
            times: from `times`, which takes longer than one Case should.
        """
        valid, there = _valid(case, self.leads_of(case)), self.forecast(case)
        return {name: there[name] if at is None else there[name] & np.isin(valid, at) for name, at in times.items()}

    def forecast(self, case: Case) -> dict[str, NDArray[np.bool_]]:
        """For each variable, at which lead times of a Case there are forecasts: sums need those before too."""
        hours = self.leads_of(case)
        before = {name: case.step_hours * np.arange(self.steps.get(name, 1)) for name, _ in self.on_levels}
        earlier = {name: np.subtract.outer(hours, each) for name, each in before.items()}
        return {name: np.asarray(np.isin(each, hours).all(axis=1)) for name, each in earlier.items()}


def part_of(
    origin: str,
    held: tuple[NDArray[np.floating], NDArray[np.floating]],
    wanted: tuple[NDArray[np.float32], NDArray[np.float32]],
    remedy: str,
) -> ScoredSubset:
    """Where the points of forecasts lie among those of a truth or climatology.

    Args:
        origin: what holds them, for messages.
        held: its latitudes and longitudes, degrees, in any order.
        wanted: those of the forecasts.
        remedy: what to do if they are not there.

    Raises:
        EvaluationError: one is not there.
    """
    rows = np.abs(np.subtract.outer(wanted[0].astype(np.float64), held[0]))
    columns = np.abs(np.subtract.outer(wanted[1].astype(np.float64) % 360, np.asarray(held[1], np.float64) % 360))
    columns = np.minimum(columns, 360 - columns)
    at = rows.argmin(axis=1), columns.argmin(axis=1)
    there = max(rows.min(axis=1).max(), columns.min(axis=1).max()) <= SAME_PLACE_DEGREES
    if not (there and _adjoin(at[0], held[0].size) and _adjoin(at[1], held[1].size)):
        raise EvaluationError(
            f"the {origin} must be on the grid of the forecasts, {_points(wanted)}, but has {_points(held)}; {remedy}"
        )
    complete = all(np.array_equal(found, np.arange(axis.size)) for found, axis in zip(at, held, strict=True))
    return ScoredSubset(*at, *wanted, complete)


def _adjoin(places: NDArray[np.intp], size: int) -> bool:
    """Whether places follow each other, in either direction and across the end: those of a finer grid do not."""
    steps = np.diff(places) % size
    return bool(np.all(steps == 1) or np.all(steps == size - 1))


def _points(axes: tuple[NDArray[np.floating], NDArray[np.floating]]) -> str:
    (rows, columns) = axes
    return f"{rows.size} x {columns.size} from {rows[0]:g}, {columns[0]:g} to {rows[-1]:g}, {columns[-1]:g} degrees"


def score_case(scoring: ScoringSetup, case: Case, watch: Stopwatch) -> dict[str, Sums]:
    """Sums of one Case.

    Args:
        scoring: what is scored against what.
        case: whose forecast.
        watch: takes the seconds spent reading and computing; the former overlap the latter.

    Returns:
        By variable, sums over (statistic, lead time, [level], region), with weight 0 where no truth is held; by its
        spectrum, over (part, lead time, [level], band, wavenumber).

    Raises:
        EvaluationError: forecast, truth or climatology is not finite somewhere.
        GraphcastBatchError: they cannot be read.
    """
    regions = scoring.weighed()
    sums = no_sums(scoring, case, regions)
    pieces = pieces_of(scoring, case, scoring.times())
    with ThreadPoolExecutor(1) as ahead:
        reading = [ahead.submit(_read, scoring, case, piece, watch) for piece in pieces[:1]]
        for n, piece in enumerate(pieces):
            fields = reading.pop().result()
            reading += [ahead.submit(_read, scoring, case, later, watch) for later in pieces[n + 1 : n + 2]]
            with watch.stage("compute"):
                add_piece(sums, scoring, regions, case, piece, fields)
    return sums


@dataclass(frozen=True, eq=False)
class ScorePart:
    """Some variables at some lead times, for all of which truth is held.

    Attributes:
        names: of the variables.
        leads: which lead times, counted from 0.
        hours: the same.
        block: the lead times that they are of; pieces of one block follow each other.
    """

    names: tuple[str, ...]
    leads: NDArray[np.intp]
    hours: NDArray[np.int64]
    block: range


def no_sums(scoring: ScoringSetup, case: Case, regions: Regions) -> dict[str, Sums]:
    """Sums of a Case of which nothing was scored yet, by variable and spectrum."""
    leads, sums = scoring.leads_of(case).size, dict[str, Sums]()
    for name, levelled in scoring.on_levels:
        between = (leads, *((len(scoring.levels),) if levelled else ()))
        sums[name] = Sums.none((len(scoring.statistics), *between, len(regions.names)))
        if name in scoring.spectra:
            wavenumbers = scoring.part.columns.size // 2 + 1
            sums[name + SPECTRUM] = Sums.none((len(PARTS), *between, len(scoring.bands), wavenumbers))
    return sums


def pieces_of(scoring: ScoringSetup, case: Case, times: Mapping[str, NDArray[np.datetime64] | None]) -> list[ScorePart]:
    """All that can be scored of a Case, in pieces that fit into memory.

    Args:
        scoring: what is scored against what.
        case: which.
        times: from `ScoringSetup.times`.
    """
    return list(_pieces(scoring, case, times))


def _pieces(
    scoring: ScoringSetup, case: Case, times: Mapping[str, NDArray[np.datetime64] | None]
) -> Iterator[ScorePart]:
    hours, held = scoring.leads_of(case), scoring.held(case, times)
    points = 4 * scoring.part.rows.size * scoring.part.columns.size * max(1, len(scoring.members))
    size = {name: points * (len(scoring.levels) if levelled else 1) for name, levelled in scoring.on_levels}
    block = max(1, min(scoring.block, _PIECE_BYTES // sum(size.values())))
    for start in range(0, hours.size, block):
        alike: dict[bytes, list[str]] = {}
        for name, there in held.items():
            alike.setdefault(there[start : start + block].tobytes(), []).append(name)
        for pattern, names in alike.items():
            leads = start + np.flatnonzero(np.frombuffer(pattern, bool))
            for group in _groups(names, size) if leads.size else ():
                yield ScorePart(group, leads, hours[leads], range(start, min(start + block, hours.size)))


def _groups(names: Sequence[str], size: Mapping[str, int]) -> Iterator[tuple[str, ...]]:
    """Names in runs whose fields at one lead time fit into a piece, or that are of one name."""
    group: list[str] = []
    for name in names:
        if group and sum(size[one] for one in [*group, name]) > _PIECE_BYTES:
            yield tuple(group)
            group = []
        group.append(name)
    yield tuple(group)


def _read(scoring: ScoringSetup, case: Case, piece: ScorePart, watch: Stopwatch) -> dict[str, Points]:
    """Forecast, truth and climatology, of each variable (field, point)."""
    with watch.stage("read"):
        forecast = scoring.forecasts.fields(case, piece.names, piece.hours.tolist(), scoring.levels)
        return beside(scoring, forecast, expectation(scoring, case, piece))


def expectation(scoring: ScoringSetup, case: Case, piece: ScorePart) -> tuple[Fields, Fields]:
    """Truth, and climatology if there is one, for a piece, on the forecasts' points; they need no forecast.

    Raises:
        GraphcastBatchError: they cannot be read, or truth is 0 where it never is.
    """
    times, levels = _valid(case, piece.hours), scoring.levels
    truth = scoring.truth.fields(piece.names, times, levels)
    _check_filled(scoring, case, truth)
    usual = dict(scoring.usual.fields(piece.names, times, levels)) if scoring.usual else {}
    for name in set(piece.names) & set(scoring.rainy):
        assert scoring.usual is not None
        usual |= {name + _HEAVY: scoring.usual.heavy(name, times), name + _DRY: scoring.usual.dry(name)}
    gaussian = [name for name in piece.names if name in scoring.gaussian]
    if gaussian:
        assert scoring.usual is not None
        deviations = scoring.usual.deviations(gaussian, times, levels)
        usual |= {name + _DEVIATION: values for name, values in deviations.items()}
    return {name: scoring.part.of(truth[name].values) for name in piece.names}, usual


def _check_filled(scoring: ScoringSetup, case: Case, truth: xr.Dataset) -> None:
    """Raises where a variable is 0 all over the globe: archives hold that in place of what they have not."""
    for array in truth.data_vars.values():
        blank = find_blank(array)
        if blank:
            raise EvaluationError(
                f"{case.key}: the truth {scoring.truth.origin} cannot be scored against: {blank}, or leave the "
                "variable out of scores.variables"
            )


def beside(scoring: ScoringSetup, forecast: Fields, expected: tuple[Fields, Fields]) -> dict[str, Points]:
    """Forecast, truth and climatology of a piece side by side, of each variable (field, point)."""
    truth, usual = expected
    return {name: _as_points(values, truth[name], name, usual) for name, values in forecast.items()}


def _as_points(forecast: NDArray[np.float32], truth: NDArray[np.float32], name: str, usual: Fields) -> Points:
    points = truth.shape[-2] * truth.shape[-1]
    flat = truth.reshape(-1, points)
    there = {kind: usual.get(name + kind) for kind in ("", _HEAVY, _DRY, _DEVIATION)}
    mean, heavy, dry, deviation = (None if each is None else each.reshape(-1, points) for each in there.values())
    rain = None if heavy is None or dry is None else Rain(heavy, dry.ravel(), DRY_BELOW[name])
    members = forecast.shape[: forecast.ndim - truth.ndim]
    return Points(forecast.reshape(*members, *flat.shape), flat, mean, rain, deviation)


def add_piece(
    sums: Mapping[str, Sums],
    scoring: ScoringSetup,
    regions: Regions,
    case: Case,
    piece: ScorePart,
    fields: Mapping[str, Points],
) -> None:
    """Adds what a piece of a Case gives to the sums of its variables.

    Raises:
        EvaluationError: forecast, truth or climatology is not finite somewhere.
    """
    for name in piece.names:
        _add(sums[name], scoring, regions, case, piece, name, fields[name])
        if name in scoring.spectra:
            _add_spectra(sums[name + SPECTRUM], areas_of(regions, scoring.bands), piece, fields[name])


def _add(
    sums: Sums, scoring: ScoringSetup, regions: Regions, case: Case, piece: ScorePart, name: str, at: Points
) -> None:
    """Adds the sums of one variable of a piece."""
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is looked for at once
        found = sums_of(at, scoring.statistics, regions)
    if not np.isfinite(found).all():
        raise EvaluationError(_gap(scoring, case, piece, name, at))
    found = found.reshape(found.shape[0], piece.leads.size, *sums.totals.shape[2:])
    sums.totals[:, piece.leads] += found
    weights = _weights(scoring.statistics, regions, at)
    sums.weights[:, piece.leads] += weights.reshape(len(weights), *(1,) * (found.ndim - 2), -1)


def _add_spectra(sums: Sums, areas: NDArray[np.float64], piece: ScorePart, at: Points) -> None:
    """Adds the spectra of one variable of a piece, which is finite."""
    found = spectra_of(at, areas)
    sums.totals[:, piece.leads] += found.reshape(len(found), piece.leads.size, *sums.totals.shape[2:])
    sums.weights[:, piece.leads] += areas.sum(axis=1)[:, np.newaxis]


def _weights(statistics: Sequence[str], regions: Regions, at: Points) -> NDArray[np.float64]:
    """(statistic, region) area of the points that count."""
    weights = np.tile(regions.totals, (len(statistics), 1))
    for n, name in enumerate(statistics):
        if not applies(name, at):
            weights[n] = 0
        elif name == SEEPS and at.rain is not None:
            weights[n] = regions.weights.reshape(len(regions.names), -1) @ at.rain.counted
    return weights


def sums_of(at: Points, statistics: Sequence[str], regions: Regions) -> NDArray[np.float64]:
    """Weighted sums of statistics of fields.

    Args:
        at: forecast, truth and climatology, (field, point).
        statistics: their names.
        regions: with the weights of the points.

    Returns:
        float64 (statistic, field, region).
    """
    fields, together = len(at.truth), max(1, _BATCH_FIELDS // at.members)
    found = [(n, statistic(name)) for n, name in enumerate(statistics) if applies(name, at)]
    sums = np.zeros((len(statistics), fields, len(regions.names)))
    for first in range(0, fields, together):
        batch = slice(first, first + together)
        for run, here, weights in regions.blocks:
            few = at.part(batch, run)
            for n, value in found:
                sums[n][batch][:, here] += value(few) @ weights
    return sums


def _gap(scoring: ScoringSetup, case: Case, piece: ScorePart, name: str, at: Points) -> str:
    """What is not finite, where."""
    kinds = {"forecast": at.forecast, "truth": at.truth, "climatology": at.usual}
    kinds["standard deviation of the climatology"] = at.deviation
    for kind, values in kinds.items():
        bad = np.argwhere(~np.isfinite(values)) if values is not None else np.empty((0, 2), int)
        if bad.size:
            *member, field, point = bad[0]
            whose = f" of {scoring.members[member[0]]}" if member else ""
            levels = len(scoring.levels) if dict(scoring.on_levels)[name] else 1
            level = f" at {scoring.levels[field % levels]} hPa" if dict(scoring.on_levels)[name] else ""
            row, column = divmod(int(point), scoring.part.columns.size)
            remedy = {
                "forecast": "verify the store with --deep and --repair, and make the Case again",
                "truth": f"mend {scoring.truth.origin}, or leave the variable out of scores.variables",
            }.get(kind, "make the climatology again, or leave it out")
            assert values is not None
            return (
                f"{case.key}: the {kind}{whose} must be finite everywhere, but {name}{level} is "
                f"{values[tuple(bad[0])]} after {piece.hours[field // levels]} h at latitude "
                f"{scoring.part.latitude[row]:g}, longitude {scoring.part.longitude[column]:g} "
                f"({len(bad)} values in all); {remedy}"
            )
    return f"{case.key}: the scores of {name} must be finite, but are too large for float64; look at its values"


def _valid(case: Case, hours: NDArray[np.int64]) -> NDArray[np.datetime64]:
    return np.asarray(case.init_time.astype("datetime64[ns]") + hours * HOUR)


def _land(truth: Timeline) -> NDArray[np.float32]:
    name = "land_sea_mask"
    if name not in truth.dims:
        raise EvaluationError(
            f"the regions land and sea need {name} of the truth, but {truth.origin} has {', '.join(sorted(truth.dims))}"
            "; leave them out of scores.regions, or name a file with it in statics of scores.truth"
        )
    times = np.zeros(0, "datetime64[ns]") if truth.times is None else truth.times[:1]
    found = truth.fields([name], times, ())[name]
    mask = found.isel(time=0) if "time" in found.dims else found
    if is_of_sea(mask):
        raise EvaluationError(
            f"{name} of the truth must be the share of land, but that of {truth.origin} is one of the sea; give 1 less "
            "its values, or name a file with the right one in statics of scores.truth"
        )
    return np.asarray(mask.values, np.float32)
