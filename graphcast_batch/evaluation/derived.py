"""Derive further variables from stored ones, for scores and climatologies; names are WeatherBench 2's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation.scoring_setup import TERM_HOURS, Fields, ForecastReader
from graphcast_batch.grid import Grid
from graphcast_batch.inputs.case_inputs import Timeline
from graphcast_batch.plan import Case

GRAVITY: Final = 9.80665
"""m s**-2, standard acceleration of free fall (CGPM 1901): that by which geopotential height is defined."""
_VAPOR_OVER_DRY: Final = 0.622
"""Ratio of the gas constants of dry air and water vapor, with WeatherBench 2's digits."""
Values = NDArray[np.float32]


@dataclass(frozen=True)
class Derivation:
    """How a variable is derived from others.

    Attributes:
        parts: names of the variables that it is computed from.
        levelled: whether it is on levels.
        units: of the derived variable.
        made: computes it from its parts, (time, [level], latitude, longitude) each, and the levels, hPa.
        steps: how many values, `TERM_HOURS` apart, are summed up.
    """

    parts: tuple[str, ...]
    levelled: bool
    units: str
    made: Callable[..., NDArray[np.floating]]
    steps: int = 1


def _speed(u: Values, v: Values, levels: NDArray[np.float64]) -> NDArray[np.floating]:
    return np.hypot(u, v)


def saturation_pressure(temperature: NDArray[np.floating]) -> NDArray[np.float64]:
    """Compute the saturation pressure of water vapor over water, below freezing too.

    Bolton 1980, https://doi.org/10.1175/1520-0493(1980)108<1046:TCOEPT>2.0.CO;2, equation 10.

    Args:
        temperature: K.

    Returns:
        Pa.
    """
    celsius = np.asarray(temperature, np.float64) - 273.15
    return np.asarray(611.2 * np.exp(17.67 * celsius / (celsius + 243.5)))


def _relative_humidity(temperature: Values, humidity: Values, levels: NDArray[np.float64]) -> NDArray[np.floating]:
    """Compute the mixing ratio over that of saturated air, as WeatherBench 2 does, whose climatology it is scored with.

    ERA5's own relative humidity is over ice where it is cold, and larger there. The result is meaningless where
    saturated air would be all vapor, at 3 hPa and higher up.
    """
    pressure, held = 100.0 * levels[:, np.newaxis, np.newaxis], humidity.astype(np.float64)
    saturated = saturation_pressure(temperature)
    return np.asarray(held / (1 - held) * (pressure - saturated) / (_VAPOR_OVER_DRY * saturated))


def _itself(values: Values, levels: NDArray[np.float64]) -> NDArray[np.floating]:
    return values


def _height(geopotential: Values, levels: NDArray[np.float64]) -> NDArray[np.floating]:
    return geopotential.astype(np.float64) / GRAVITY


DERIVATIONS: Final = {
    "wind_speed": Derivation(("u_component_of_wind", "v_component_of_wind"), True, "m s**-1", _speed),
    "10m_wind_speed": Derivation(("10m_u_component_of_wind", "10m_v_component_of_wind"), False, "m s**-1", _speed),
    "geopotential_height": Derivation(("geopotential",), True, "m", _height),
    "relative_humidity": Derivation(("temperature", "specific_humidity"), True, "1", _relative_humidity),
    "total_precipitation_24hr": Derivation(("total_precipitation_6hr",), False, "m", _itself, steps=4),
}
"""Derived variables by name, with WeatherBench 2's definitions; geopotential height is not one of WeatherBench 2's.
Relative humidity is a share, not percent."""


@dataclass(frozen=True, eq=False)
class DerivedTimeline:
    """A timeline with derived variables added.

    Attributes:
        held: the timeline.
        derived: names of the derived variables; the timeline has their parts, but not the variables themselves.
    """

    held: Timeline
    derived: tuple[str, ...]

    @property
    def origin(self) -> str:
        """Where the fields come from."""
        return self.held.origin

    @property
    def grid(self) -> Grid:
        """The points."""
        return self.held.grid

    @property
    def times(self) -> NDArray[np.datetime64] | None:
        """(time,) times held."""
        return self.held.times

    @property
    def levels(self) -> tuple[int, ...]:
        """hPa, ascending."""
        return self.held.levels

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Dimensions of every variable; a derived variable has those of its first part."""
        return {**self.held.dims, **{name: self.held.dims[DERIVATIONS[name].parts[0]] for name in self.derived}}

    def times_of(self, names: Sequence[str]) -> NDArray[np.datetime64] | None:
        """Return the times at which all variables are available or can be derived, (time,); None for every time."""
        own = [name for name in names if name not in self.derived]
        found = self.held.times_of(own) if own else None
        for name in set(names) & set(self.derived):
            times = self.held.times_of(DERIVATIONS[name].parts)
            if times is not None:
                before = (times - np.timedelta64(n * TERM_HOURS, "h") for n in range(DERIVATIONS[name].steps))
                times = times[np.all([np.isin(each, times) for each in before], axis=0)]
                found = times if found is None else np.intersect1d(found, times)
        return found

    def fields(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> xr.Dataset:
        """Read or derive variables at times and levels, float32."""
        found = self.held.fields(_parts(names, self.derived), times, levels)

        def read(parts: Sequence[str], steps: int) -> Fields:
            before = np.asarray(times - np.timedelta64(steps * TERM_HOURS, "h"), "datetime64[ns]")
            fields = self.held.fields(parts, before, levels) if steps else found
            return {part: fields[part].values for part in parts}

        made = {name: (self.dims[name], _made(name, read, levels)) for name in names if name in self.derived}
        return found[[name for name in names if name not in made]].assign(made)


@dataclass(frozen=True, eq=False)
class DerivedForecasts:
    """A reader of forecasts with derived variables added.

    Attributes:
        held: reader of the forecasts.
        derived: names of the derived variables.
    """

    held: ForecastReader
    derived: tuple[str, ...]

    def fields(self, case: Case, names: Sequence[str], lead_hours: Sequence[int], levels: Sequence[int]) -> Fields:
        """Read or derive variables of one Case at some of its lead times."""
        found = self.held.fields(case, _parts(names, self.derived), lead_hours, levels)

        def read(parts: Sequence[str], steps: int) -> Fields:
            before = [hours - steps * TERM_HOURS for hours in lead_hours]
            return self.held.fields(case, parts, before, levels) if steps else found

        return {name: _made(name, read, levels) if name in self.derived else found[name] for name in names}


def derivable(wanted: Sequence[str], held: Mapping[str, bool], where: str) -> dict[str, bool]:
    """Return which of some variables must be derived, and whether they are on levels; available ones are left out.

    Args:
        wanted: names of variables.
        held: for each available variable, whether it is on levels.
        where: the variables are available, for messages.

    Raises:
        EvaluationError: a variable is unknown, or one of its parts is not available.
    """
    unknown = [name for name in wanted if name not in DERIVATIONS]
    if unknown:
        raise EvaluationError(
            f"derived variables must be some of {', '.join(DERIVATIONS)}, but {unknown[0]} is not; correct the name"
        )
    chosen = {name: DERIVATIONS[name] for name in wanted if name not in held}
    for name, recipe in chosen.items():
        absent = [part for part in recipe.parts if held.get(part) != recipe.levelled]
        if absent:
            raise EvaluationError(
                f"{name} is derived from {' and '.join(recipe.parts)}, but {where} lacks {absent[0]}; leave {name} out "
                "of the derived variables"
            )
    return {name: recipe.levelled for name, recipe in chosen.items()}


def steps_of_parts(derived: Sequence[str]) -> dict[str, int]:
    """Return for each part of some derived variables how many values are needed, the last at the time itself."""
    steps: dict[str, int] = {}
    for recipe in (DERIVATIONS[name] for name in derived):
        steps |= {part: max(steps.get(part, 1), recipe.steps) for part in recipe.parts}
    return steps


def with_derived(held: Timeline, names: tuple[str, ...]) -> Timeline:
    """Add derived variables to a timeline; return the timeline itself if there are none."""
    return DerivedTimeline(held, names) if names else held


def with_derived_forecasts(held: ForecastReader, names: tuple[str, ...]) -> ForecastReader:
    """Add derived variables to a reader of forecasts; return the reader itself if there are none."""
    return DerivedForecasts(held, names) if names else held


def _parts(names: Sequence[str], derived: Sequence[str]) -> list[str]:
    """Return the names of all variables to read for some variables, each once."""
    parts = (DERIVATIONS[name].parts if name in derived else (name,) for name in names)
    return list(dict.fromkeys(part for each in parts for part in each))


def _made(name: str, read: Callable[[Sequence[str], int], Fields], levels: Sequence[int]) -> Values:
    """Compute a derived variable; ``read`` returns its parts a number of steps before."""
    recipe, heights = DERIVATIONS[name], np.asarray(levels, np.float64)
    steps = (read(recipe.parts, n) for n in range(recipe.steps))
    terms = [recipe.made(*(fields[part] for part in recipe.parts), heights) for fields in steps]
    return np.asarray(np.sum(terms, axis=0), np.float32)
