"""Score one Case: read forecast, truth and climatology piece by piece and add up the weighted sums of statistics."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation.energy_score import ENERGY, VectorPoints, energy_score
from graphcast_batch.evaluation.pointwise_statistics import (
    DRY_BELOW,
    SEEPS,
    Points,
    PrecipitationClimatology,
    applies,
    statistic,
)
from graphcast_batch.evaluation.rank_histogram import is_rank, rank_sums
from graphcast_batch.evaluation.regions import Regions
from graphcast_batch.evaluation.reliability import count_sums, is_count, places_of
from graphcast_batch.evaluation.score_layout import SPECTRUM
from graphcast_batch.evaluation.scoring_setup import Fields, ScoringSetup, valid_times
from graphcast_batch.evaluation.spectra import areas_of, spectra_of
from graphcast_batch.evaluation.weighted_sums import WeightedSums
from graphcast_batch.inputs.quality.values import find_blank
from graphcast_batch.plan import Case
from graphcast_batch.timing import Stopwatch

_PIECE_BYTES: Final = 2**27
"""The most bytes of a forecast, or of all members of an ensemble, that are read at once; more only where one variable
at one lead time has more. Truth and climatology are read besides, and all while the piece before is scored."""
_BATCH_FIELDS: Final = 32
"""The most fields whose statistics at a run of points are computed together."""
_HEAVY: Final = " heavy"
_DRY: Final = " dry"
_DEVIATION: Final = " deviation"
"""Suffixes of a variable's name for its other climatological fields, beside its climatological mean."""


def score_case(
    scoring: ScoringSetup,
    case: Case,
    watch: Stopwatch,
    advanced: Callable[[], None] = lambda: None,
    reading: AbstractContextManager[object] | None = None,
) -> dict[str, WeightedSums]:
    """Compute the weighted sums of statistics of one Case.

    Args:
        scoring: what is scored against what.
        case: whose forecast.
        watch: records the seconds spent reading and computing; reading overlaps computing.
        advanced: called whenever something more was read.
        reading: context within which truth and climatology are read, where other threads read too; it is entered again
            and again.

    Returns:
        By variable, sums over (statistic, lead time, [level], region), with weight 0 where there is no truth; by the
        name of its spectrum, sums over (part, lead time, [level], band, wavenumber).

    Raises:
        EvaluationError: forecast, truth or climatology is not finite somewhere.
        GraphcastBatchError: forecast, truth or climatology cannot be read.
    """
    regions = scoring.weighed()
    sums = empty_sums(scoring, case, regions)
    pieces, given = scoring_pieces(scoring, case, scoring.times()), (watch, reading or nullcontext())
    with ThreadPoolExecutor(1) as ahead:
        read = [ahead.submit(_read, scoring, case, piece, *given) for piece in pieces[:1]]
        for n, piece in enumerate(pieces):
            fields = read.pop().result()
            advanced()
            read += [ahead.submit(_read, scoring, case, later, *given) for later in pieces[n + 1 : n + 2]]
            with watch.stage("compute"):
                add_piece(sums, scoring, regions, case, piece, fields)
    return sums


@dataclass(frozen=True, eq=False)
class ScoringPiece:
    """Some variables at some lead times, all with truth, that are read and scored together.

    Attributes:
        names: of the variables.
        leads: (lead,) indices of the lead times, counted from 0.
        hours: (lead,) the same lead times, h.
        block: range of lead time indices that the piece was taken from; pieces of one block follow each other.
    """

    names: tuple[str, ...]
    leads: NDArray[np.intp]
    hours: NDArray[np.int64]
    block: range


def empty_sums(scoring: ScoringSetup, case: Case, regions: Regions) -> dict[str, WeightedSums]:
    """Return sums of zero with the shapes of a Case's scores, by variable and spectrum."""
    leads, sums = scoring.leads_of(case).size, dict[str, WeightedSums]()
    for name, levelled in scoring.on_levels:
        between = (leads, *((len(scoring.levels),) if levelled else ()))
        if scoring.statistics:
            sums[name] = WeightedSums.none((len(scoring.statistics), *between, len(regions.names)))
        if name in scoring.spectra:
            wavenumbers = scoring.part.columns.size // 2 + 1
            sums[name + SPECTRUM] = WeightedSums.none(
                (len(scoring.spectrum_parts), *between, len(scoring.bands), wavenumbers)
            )
    return sums


def scoring_pieces(
    scoring: ScoringSetup, case: Case, times: Mapping[str, NDArray[np.datetime64] | None]
) -> list[ScoringPiece]:
    """Divide all that can be scored of a Case into pieces that fit into memory.

    Args:
        scoring: what is scored against what.
        case: whose forecast.
        times: from `ScoringSetup.times`.
    """
    return list(_pieces(scoring, case, times))


def _pieces(
    scoring: ScoringSetup, case: Case, times: Mapping[str, NDArray[np.datetime64] | None]
) -> Iterator[ScoringPiece]:
    hours, held = scoring.leads_of(case), scoring.held(case, times)
    points = 4 * scoring.part.rows.size * scoring.part.columns.size * max(1, len(scoring.members))
    size = {
        name: points * len(scoring.parts_of([name])) * (len(scoring.levels) if levelled else 1)
        for name, levelled in scoring.on_levels
    }
    block = max(1, min(scoring.block, _PIECE_BYTES // sum(size.values())))
    for start in range(0, hours.size, block):
        alike: dict[bytes, list[str]] = {}
        for name, there in held.items():
            alike.setdefault(there[start : start + block].tobytes(), []).append(name)
        for pattern, names in alike.items():
            leads = start + np.flatnonzero(np.frombuffer(pattern, bool))
            for group in _groups(names, size) if leads.size else ():
                yield ScoringPiece(group, leads, hours[leads], range(start, min(start + block, hours.size)))


def _groups(names: Sequence[str], size: Mapping[str, int]) -> Iterator[tuple[str, ...]]:
    """Group names so that the fields of a group at one lead time fit into a piece, or the group has one name."""
    group: list[str] = []
    for name in names:
        if group and sum(size[one] for one in [*group, name]) > _PIECE_BYTES:
            yield tuple(group)
            group = []
        group.append(name)
    yield tuple(group)


def _read(
    scoring: ScoringSetup, case: Case, piece: ScoringPiece, watch: Stopwatch, reading: AbstractContextManager[object]
) -> dict[str, Points]:
    """Read forecast, truth and climatology of a piece, each variable as (field, point)."""
    with watch.stage("read"):
        parts = scoring.parts_of(piece.names)
        forecast = scoring.forecasts.fields(case, parts, piece.hours.tolist(), scoring.levels)
        with reading:
            expected = expectation(scoring, case, piece)
        return as_points(scoring, piece.names, forecast, expected)


def expectation(scoring: ScoringSetup, case: Case, piece: ScoringPiece) -> tuple[Fields, Fields]:
    """Read the truth, and the climatology if there is one, of a piece on the forecasts' points.

    No forecast is needed, so that this can be done while the forecast is being computed.

    Raises:
        GraphcastBatchError: truth or climatology cannot be read, or a variable of the truth is 0 everywhere.
    """
    times, levels = valid_times(case, piece.hours), scoring.levels
    parts, single = scoring.parts_of(piece.names), [name for name in piece.names if name not in scoring.vectors]
    truth = scoring.truth.fields(parts, times, levels)
    check_filled(scoring, case, truth)
    climatology = dict(scoring.climatology.fields(single, times, levels)) if scoring.climatology and single else {}
    for name in set(piece.names) & set(scoring.seeps_variables):
        assert scoring.climatology is not None
        climatology |= {
            name + _HEAVY: scoring.climatology.heavy_threshold(name, times),
            name + _DRY: scoring.climatology.dry_fraction(name),
        }
    gaussian = [name for name in piece.names if name in scoring.gaussian]
    if gaussian:
        assert scoring.climatology is not None
        deviations = scoring.climatology.deviations(gaussian, times, levels)
        climatology |= {name + _DEVIATION: values for name, values in deviations.items()}
    return {name: scoring.part.of(truth[name].values) for name in parts}, climatology


def check_filled(scoring: ScoringSetup, case: Case, truth: xr.Dataset) -> None:
    """Check that no variable of the truth is 0 all over the globe: some archives store that for missing fields.

    Raises:
        EvaluationError: one is.
    """
    for array in truth.data_vars.values():
        blank = find_blank(array)
        if blank:
            raise EvaluationError(
                f"{case.key}: the truth {scoring.truth.origin} cannot be scored against: {blank}, or leave the "
                "variable out of scores.variables"
            )


def as_points(
    scoring: ScoringSetup, names: Sequence[str], forecast: Fields, expected: tuple[Fields, Fields]
) -> dict[str, Points]:
    """Combine forecast, truth and climatology of a piece, each variable and vector as (field, point).

    Args:
        scoring: what is scored against what.
        names: of the variables and vectors of the piece.
        forecast: by variable.
        expected: truth and climatology, from `expectation`.
    """
    truth, climatology = expected
    found = dict[str, Points]()
    for name in names:
        if name in scoring.vectors:
            parts = scoring.vectors[name]
            found[name] = VectorPoints.of(
                tuple(_as_points(forecast[part], truth[part], part, {}, ()) for part in parts)
            )
        else:
            thresholds = scoring.thresholds.get(name, ())
            found[name] = _as_points(forecast[name], truth[name], name, climatology, thresholds)
    return found


def _as_points(
    forecast: NDArray[np.float32],
    truth: NDArray[np.float32],
    name: str,
    climatology: Fields,
    thresholds: tuple[float, ...],
) -> Points:
    points = truth.shape[-2] * truth.shape[-1]
    flat = truth.reshape(-1, points)
    there = {kind: climatology.get(name + kind) for kind in ("", _HEAVY, _DRY, _DEVIATION)}
    mean, heavy_threshold, dry_fraction, deviation = (
        None if each is None else each.reshape(-1, points) for each in there.values()
    )
    precipitation = (
        None
        if heavy_threshold is None or dry_fraction is None
        else PrecipitationClimatology(heavy_threshold, dry_fraction.ravel(), DRY_BELOW[name])
    )
    members = forecast.shape[: forecast.ndim - truth.ndim]
    return Points(forecast.reshape(*members, *flat.shape), flat, mean, precipitation, deviation, thresholds)


def add_piece(
    sums: Mapping[str, WeightedSums],
    scoring: ScoringSetup,
    regions: Regions,
    case: Case,
    piece: ScoringPiece,
    fields: Mapping[str, Points],
) -> None:
    """Add the statistics of a piece of a Case to the sums of its variables.

    Args:
        sums: to add to, from `empty_sums`.
        scoring: what is scored against what.
        regions: with the weights of the points.
        case: whose forecast, for messages.
        piece: variables and lead times.
        fields: of the piece, from `as_points`.

    Raises:
        EvaluationError: forecast, truth or climatology is not finite somewhere.
    """
    for name in piece.names:
        if scoring.statistics:
            _add(sums[name], scoring, regions, case, piece, name, fields[name])
        if name in scoring.spectra:
            _add_spectra(sums[name + SPECTRUM], scoring, regions, case, piece, name, fields[name])


def _add(
    sums: WeightedSums, scoring: ScoringSetup, regions: Regions, case: Case, piece: ScoringPiece, name: str, at: Points
) -> None:
    """Add the statistics of one variable of a piece."""
    with np.errstate(invalid="ignore", over="ignore"):  # values that are not finite are refused just below
        found = weighted_sums(at, scoring.statistics, regions)
    if not np.isfinite(found).all():
        raise EvaluationError(_gap(scoring, case, piece, name, at))
    found = found.reshape(found.shape[0], piece.leads.size, *sums.totals.shape[2:])
    sums.totals[:, piece.leads] += found
    weights = _weights(scoring.statistics, regions, at)
    sums.weights[:, piece.leads] += weights.reshape(len(weights), *(1,) * (found.ndim - 2), -1)


def _add_spectra(
    sums: WeightedSums, scoring: ScoringSetup, regions: Regions, case: Case, piece: ScoringPiece, name: str, at: Points
) -> None:
    """Add the spectra of one variable of a piece."""
    areas = areas_of(regions, scoring.bands)
    with np.errstate(invalid="ignore", over="ignore"):  # values that are not finite are refused just below
        found = spectra_of(at, areas)
    if not np.isfinite(found).all():
        raise EvaluationError(_gap(scoring, case, piece, name, at))
    sums.totals[:, piece.leads] += found.reshape(len(found), piece.leads.size, *sums.totals.shape[2:])
    sums.weights[:, piece.leads] += areas.sum(axis=1)[:, np.newaxis]


def _weights(statistics: Sequence[str], regions: Regions, at: Points) -> NDArray[np.float64]:
    """Return the area of the points that count, (statistic, region)."""
    weights = np.tile(regions.totals, (len(statistics), 1))
    for n, name in enumerate(statistics):
        if not _applies(name, at):
            weights[n] = 0
        elif name == SEEPS and at.precipitation is not None:
            weights[n] = regions.weights.reshape(len(regions.names), -1) @ at.precipitation.counted
    return weights


def weighted_sums(at: Points, statistics: Sequence[str], regions: Regions) -> NDArray[np.float64]:
    """Compute weighted sums of statistics of fields.

    Args:
        at: forecast, truth and climatology, (field, point).
        statistics: their names.
        regions: with the weights of the points.

    Returns:
        float64 (statistic, field, region).
    """
    fields, together = len(at.truth), max(1, _BATCH_FIELDS // at.members)
    applied = [(n, name) for n, name in enumerate(statistics) if _applies(name, at)]
    found = [(n, _function(name)) for n, name in applied if not (is_count(name) or is_rank(name))]
    counted, ranks = places_of(statistics, at), np.array([n for n, name in applied if is_rank(name)], np.intp)
    sums = np.zeros((len(statistics), fields, len(regions.names)))
    for first in range(0, fields, together):
        batch = slice(first, first + together)
        for run, here, weights in regions.blocks:
            few = at.part(batch, run)
            for n, value in found:
                sums[n][batch][:, here] += value(few) @ weights
            if ranks.size:
                sums[np.ix_(ranks, np.arange(fields)[batch], here)] += rank_sums(few, weights)
            for event, places in counted.items():
                added = count_sums(few, event, weights)
                sums[np.ix_(places.ravel(), np.arange(fields)[batch], here)] += added.reshape(-1, *added.shape[2:])
    return sums


def _applies(name: str, at: Points) -> bool:
    """Whether a statistic is defined for the variable or vector whose values are given."""
    vector = isinstance(at, VectorPoints)
    return vector if name == ENERGY else not vector and applies(name, at)


def _function(name: str) -> Callable[[Points], NDArray[np.float64]]:
    return energy_score if name == ENERGY else statistic(name)


def _gap(
    scoring: ScoringSetup, case: Case, piece: ScoringPiece, name: str, at: Points, *, levelled: bool | None = None
) -> str:
    """Describe the first value that is not finite: whose it is, where, and what to do."""
    levelled = dict(scoring.on_levels)[name] if levelled is None else levelled
    if isinstance(at, VectorPoints):
        pairs = list(zip(scoring.vectors[name], at.components, strict=True))
        gaps = (pair for pair in pairs if not np.isfinite(pair[1].error).all())
        first = next(gaps, pairs[0])
        return _gap(scoring, case, piece, *first, levelled=levelled)
    kinds = {"forecast": at.forecast, "truth": at.truth, "climatology": at.climatology}
    kinds["standard deviation of the climatology"] = at.deviation
    for kind, values in kinds.items():
        bad = np.argwhere(~np.isfinite(values)) if values is not None else np.empty((0, 2), int)
        if bad.size:
            *member, field, point = bad[0]
            whose = f" of {scoring.members[member[0]]}" if member else ""
            levels = len(scoring.levels) if levelled else 1
            level = f" at {scoring.levels[field % levels]} hPa" if levelled else ""
            row, column = divmod(int(point), scoring.part.columns.size)
            remedy = {
                "forecast": "verify the store with --deep and --repair, and make the Case again",
                "truth": f"repair {scoring.truth.origin}, or leave the variable out of scores.variables",
            }.get(kind, "make the climatology again, or leave it out")
            assert values is not None
            return (
                f"{case.key}: the {kind}{whose} must be finite everywhere, but {name}{level} is "
                f"{values[tuple(bad[0])]} after {piece.hours[field // levels]} h at latitude "
                f"{scoring.part.latitude[row]:g}, longitude {scoring.part.longitude[column]:g} "
                f"({len(bad)} values in all); {remedy}"
            )
    return f"{case.key}: the scores of {name} must be finite, but are too large for float64; check the values of {name}"
