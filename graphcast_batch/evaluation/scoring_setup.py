"""Define what is scored against what: readers of forecasts and climatologies, and the setup of a scoring."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.config.outputs_section import RegionConfig
from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation.energy_score import ENERGY
from graphcast_batch.evaluation.pointwise_statistics import (
    CRPS_GAUSSIAN,
    PLAIN,
    SEEPS,
    STATISTICS,
    at_events,
    defined,
    events_of,
    of_ensemble,
)
from graphcast_batch.evaluation.regions import Regions, weigh
from graphcast_batch.evaluation.reliability import of_reliability
from graphcast_batch.evaluation.score_layout import OF_MEAN, PARTS
from graphcast_batch.evaluation.stored_members import PastYear, StoredMember
from graphcast_batch.grid import SAME_PLACE_DEGREES
from graphcast_batch.inputs.case_inputs import Timeline
from graphcast_batch.inputs.quality.geography import is_of_sea
from graphcast_batch.plan import Case
from graphcast_batch.variables import HOUR

Fields = Mapping[str, NDArray[np.float32]]
"""Fields by variable, float32 (time, [level], latitude, longitude)."""
TERM_HOURS: Final = 6
"""Hours between the values of which a derived variable is the sum, whatever the step of the model."""


class ForecastReader(Protocol):
    """Reader of the forecasts that are scored: those of a store, or a baseline."""

    def fields(self, case: Case, names: Sequence[str], lead_hours: Sequence[int], levels: Sequence[int]) -> Fields:
        """Read variables of one Case at some of its lead times, and at the given levels where they are on levels.

        The fields of an ensemble have its members before all other dimensions.

        Args:
            case: whose forecast.
            names: of the variables.
            lead_hours: lead times, h.
            levels: hPa, ascending.

        Raises:
            GraphcastBatchError: a field is missing, or cannot be read.
        """


class ClimatologyReader(Protocol):
    """Reader of a climatology: long-term statistics by day of the year and hour of the day."""

    def fields(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> Fields:
        """Read climatological means at valid times, on the points of the forecasts.

        Raises:
            GraphcastBatchError: a mean is missing, or cannot be read.
        """

    def deviations(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> Fields:
        """Read climatological standard deviations, laid out like the means from `fields`."""

    def deviating(self, names: Sequence[str]) -> tuple[str, ...]:
        """Select the variables that count as Gaussian and whose standard deviation is there."""

    def heavy_threshold(self, name: str, times: NDArray[np.datetime64]) -> NDArray[np.float32]:
        """Read the least precipitation that counts as heavy at valid times, (time, latitude, longitude) m.

        NaN where no precipitation ever falls.
        """

    def dry_fraction(self, name: str) -> NDArray[np.float32]:
        """Read the share of times without precipitation, (latitude, longitude) 0..1."""


@dataclass(frozen=True, eq=False)
class ScoredSubset:
    """Where the points of forecasts lie on the grid of the truth.

    Attributes:
        rows: (latitude,) indices of the forecasts' latitudes among those of the truth.
        columns: (longitude,) indices of the forecasts' longitudes, in the order of the forecasts.
        latitude: (latitude,) degrees of the forecasts' points, for messages.
        longitude: (longitude,) degrees of the forecasts' points, for messages.
        complete: whether the forecasts have all points of the truth, in the same order.
    """

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    latitude: NDArray[np.float32]
    longitude: NDArray[np.float32]
    complete: bool

    def of(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the values on the forecasts' points, (..., latitude, longitude), of fields on the truth's grid."""
        return values if self.complete else values[..., self.rows[:, np.newaxis], self.columns]


@dataclass(frozen=True, eq=False)
class ScoringSetup:
    """What is scored against what. Small, so that it can be sent to the process that does the scoring.

    Attributes:
        forecasts: reader of the forecasts that are scored.
        truth: the verification that forecasts are scored against.
        climatology: climatology to compute anomalies from; None to score without anomalies.
        on_levels: for each variable that is scored, whether it is on levels.
        levels: hPa, ascending, of the variables on levels.
        lead_hours: lead times of a forecast of full length; a shorter Case has the first of them.
        part: where the forecasts' points lie on the truth's grid.
        regions: names of regions.
        boxes: further regions, by name.
        block: the most lead times that are read at once.
        steps: for each derived variable, how many values, 6 h apart, it is the sum of.
        seeps_variables: variables of which the climatology holds what SEEPS needs.
        quantiles: of the climatology, beyond which a value counts as extreme.
        gaussian: variables of which the standard deviation of the climatology is read, for extremes and ensembles.
        thresholds: by variable, in its unit; a value above one is an event that is scored.
        vectors: names of the components of each vector, whose energy score is computed for ensembles.
        dressed: whether a single forecast is scored as a Gaussian distribution too, with the standard deviation of the
            climatology.
        reliability: whether the events of an ensemble are counted by the number of members that have them.
        members: the members of an ensemble, beginning with those in the store that the scores are written to; empty
            for a single forecast.
        spectra: variables whose power by zonal wavenumber is summed up too; requires whole latitude circles.
        bands: the regions for which spectra are computed.
        only: the statistics to compute, of those that the setup allows; None for all.
    """

    forecasts: ForecastReader
    truth: Timeline
    climatology: ClimatologyReader | None
    on_levels: tuple[tuple[str, bool], ...]
    levels: tuple[int, ...]
    lead_hours: tuple[int, ...]
    part: ScoredSubset
    regions: tuple[str, ...]
    boxes: Mapping[str, RegionConfig]
    block: int
    steps: Mapping[str, int] = field(default_factory=dict)
    seeps_variables: tuple[str, ...] = ()
    quantiles: tuple[float, ...] = ()
    gaussian: tuple[str, ...] = ()
    thresholds: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    vectors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    dressed: bool = False
    reliability: bool = False
    members: tuple[StoredMember | PastYear, ...] = ()
    spectra: tuple[str, ...] = ()
    bands: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None

    @property
    def statistics(self) -> tuple[str, ...]:
        """Names of the statistics that are summed up, in the order of the arrays."""
        if self.only is not None:
            return self.only
        plain = PLAIN if self.climatology is None else STATISTICS
        events = events_of(self.quantiles if self.gaussian else (), self.thresholds)
        if self.members:
            members, counted = len(self.members), events if self.reliability else ()
            ours = of_ensemble(members, events, deviations=bool(self.gaussian))
            return (*plain, *ours, *of_reliability(members, counted), *((ENERGY,) if self.vectors else ()))
        dressed = (CRPS_GAUSSIAN,) if self.dressed and self.gaussian else ()
        return (*plain, *((SEEPS,) if self.seeps_variables else ()), *at_events(events), *dressed)

    def statistics_of(self, name: str) -> tuple[str, ...]:
        """Return the names of the statistics that are defined for a variable."""
        if name in self.vectors:
            return tuple(one for one in self.statistics if one == ENERGY)
        seeps, gaussian = name in self.seeps_variables, name in self.gaussian
        thresholds = self.thresholds.get(name, ())
        return tuple(
            one
            for one in self.statistics
            if one != ENERGY and defined(one, seeps=seeps, gaussian=gaussian, thresholds=thresholds)
        )

    def parts_of(self, names: Sequence[str]) -> list[str]:
        """Return the variables to read for some variables and vectors, each once."""
        return list(dict.fromkeys(part for name in names for part in self.vectors.get(name, (name,))))

    @property
    def spectrum_parts(self) -> tuple[str, ...]:
        """Labels of the parts of spectra."""
        return (*PARTS, OF_MEAN) if self.members else PARTS

    @property
    def lags(self) -> tuple[int, ...]:
        """Lags of the members, each once, ascending, h; empty for a single forecast."""
        return tuple(sorted({member.lag_hours for member in self.members}))

    def weighed(self) -> Regions:
        """Compute the weight of each point in each region.

        Raises:
            EvaluationError: a region is unknown or empty, or needs a land-sea mask that the truth lacks.
        """
        part = None if self.part.complete else (self.part.rows, self.part.columns)
        return weigh(self.regions, self.boxes, self.truth.grid, lambda: _land(self.truth), part)

    def leads_of(self, case: Case) -> NDArray[np.int64]:
        """Return the lead times of a Case that are scored, (lead,) h."""
        hours = np.array(self.lead_hours, np.int64)
        return hours[hours <= case.hours]

    def times(self) -> dict[str, NDArray[np.datetime64] | None]:
        """Return for each variable the times at which its truth is available; None for every time."""
        return {name: self.truth.times_of(self.parts_of([name])) for name, _ in self.on_levels}

    def held(self, case: Case, times: Mapping[str, NDArray[np.datetime64] | None]) -> dict[str, NDArray[np.bool_]]:
        """Find for each variable the lead times of a Case at which it can be scored: forecast and truth are available.

        Args:
            case: whose forecast.
            times: from `times`, computed once for many Cases because it takes long.

        Returns:
            By variable, (lead,) bool.
        """
        valid, there = valid_times(case, self.leads_of(case)), self.forecast(case)
        return {name: there[name] if at is None else there[name] & np.isin(valid, at) for name, at in times.items()}

    def forecast(self, case: Case) -> dict[str, NDArray[np.bool_]]:
        """Find for each variable the lead times of a Case at which its forecast is available, (lead,) bool.

        A variable that is a sum of several values needs the lead times before too, and a member from an earlier initial
        time the lead times that are as much longer.
        """
        hours, lags = self.leads_of(case), self.lags or (0,)
        steps = {name: max(self.steps.get(part, 1) for part in self.parts_of([name])) for name, _ in self.on_levels}
        before = {name: TERM_HOURS * np.arange(count) for name, count in steps.items()}
        shifts = {name: np.subtract.outer(lags, each).ravel() for name, each in before.items()}
        needed = {name: np.add.outer(hours, each) for name, each in shifts.items()}
        return {name: np.asarray(np.isin(each, self.lead_hours).all(axis=1)) for name, each in needed.items()}


def part_of(
    origin: str,
    held: tuple[NDArray[np.floating], NDArray[np.floating]],
    wanted: tuple[NDArray[np.float32], NDArray[np.float32]],
    remedy: str,
) -> ScoredSubset:
    """Find the points of forecasts among those of a truth or climatology.

    Args:
        origin: name of the truth or climatology, for messages.
        held: its latitudes and longitudes, degrees, in any order.
        wanted: latitudes and longitudes of the forecasts, degrees.
        remedy: advice for the error message.

    Raises:
        EvaluationError: a point of the forecasts is not among them.
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


def _adjoin(indices: NDArray[np.intp], size: int) -> bool:
    """Whether indices are consecutive, in either direction and across the end: on a finer grid they are not."""
    steps = np.diff(indices) % size
    return bool(np.all(steps == 1) or np.all(steps == size - 1))


def _points(axes: tuple[NDArray[np.floating], NDArray[np.floating]]) -> str:
    (rows, columns) = axes
    return f"{rows.size} x {columns.size} from {rows[0]:g}, {columns[0]:g} to {rows[-1]:g}, {columns[-1]:g} degrees"


def valid_times(case: Case, hours: NDArray[np.int64]) -> NDArray[np.datetime64]:
    """Return the valid times of a Case at lead times in hours, (lead,)."""
    return np.asarray(case.init_time.astype("datetime64[ns]") + hours * HOUR)


def _land(truth: Timeline) -> NDArray[np.float32]:
    """Read the share of land in each cell of the truth's grid, (latitude, longitude) 0..1."""
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
            f"{name} of the truth must be the share of land, but that of {truth.origin} is the share of sea; replace "
            "its values by 1 minus them, or name a file with the share of land in statics of scores.truth"
        )
    return np.asarray(mask.values, np.float32)
