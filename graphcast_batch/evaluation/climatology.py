"""Read a climatology by day of the year and hour of the day that this program or WeatherBench 2 wrote."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation import climatology_store as written
from graphcast_batch.evaluation.climatology_window import days_of_year, hours_of_day, is_precipitation
from graphcast_batch.evaluation.scoring_setup import Fields, ScoredSubset, part_of
from graphcast_batch.stores.layout import OutputGrid


@dataclass(frozen=True, eq=False)
class Climatology:
    """A climatology on disk, written by `make_climatology` or by WeatherBench 2, read on the forecasts' points.

    Attributes:
        path: of the zarr group.
        kept: the output grid of the forecasts.
    """

    path: Path
    kept: OutputGrid

    def fields(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> Fields:
        """Read climatological means at valid times, (time, [level], latitude, longitude) by variable.

        Raises:
            EvaluationError: the climatology lacks a variable, level, hour or point.
        """
        opened, part = self._opened
        self.check(names, levels)
        places = list(zip(self._places(hours_of_day(times)), days_of_year(times), strict=True))
        return {name: np.stack([_field(opened[name], *at, levels, part) for at in places]) for name in names}

    def deviations(self, names: Sequence[str], times: NDArray[np.datetime64], levels: Sequence[int]) -> Fields:
        """Read climatological standard deviations at valid times, laid out like the means.

        Raises:
            EvaluationError: the climatology lacks a variable, level, hour or point.
        """
        found = self.fields([name + written.DEVIATION for name in names], times, levels)
        return {name: found[name + written.DEVIATION] for name in names}

    def gaussian(self, names: Sequence[str], levels: Sequence[int]) -> tuple[str, ...]:
        """Select the variables whose quantiles follow from mean and standard deviation: all but precipitation.

        Raises:
            EvaluationError: the climatology lacks the standard deviation of one of them.
        """
        chosen = tuple(name for name in names if not is_precipitation(name))
        self.check([name + written.DEVIATION for name in chosen], levels)
        return chosen

    def deviating(self, names: Sequence[str]) -> tuple[str, ...]:
        """Select the variables that count as Gaussian, all but precipitation, and whose standard deviation is there.

        Raises:
            EvaluationError: the climatology cannot be read.
        """
        opened, _ = self._opened
        return tuple(name for name in names if not is_precipitation(name) and name + written.DEVIATION in opened)

    def seeps_variables(self, names: Sequence[str]) -> tuple[str, ...]:
        """Select the variables for which the climatology holds what SEEPS needs; the others have no such score.

        Raises:
            EvaluationError: the climatology cannot be read.
        """
        opened, _ = self._opened
        seeps_variables = (name for name in names if is_precipitation(name))
        return tuple(
            name for name in seeps_variables if name + written.DRY in opened and name + written.HEAVY in opened
        )

    def heavy_threshold(self, name: str, times: NDArray[np.datetime64]) -> NDArray[np.float32]:
        """Read the least heavy precipitation, (time, latitude, longitude) m; NaN where it never rains."""
        return self.fields([name + written.HEAVY], times, ())[name + written.HEAVY]

    def dry_fraction(self, name: str) -> NDArray[np.float32]:
        """Read the share of dry times over all days and hours, (latitude, longitude) 0..1."""
        return self._opened[1].of(_mean_of(self.path, name + written.DRY))

    def check(self, names: Sequence[str], levels: Sequence[int]) -> None:
        """Check that the climatology holds variables and levels, for all days of the year.

        Raises:
            EvaluationError: the climatology lacks a variable, level or point, or covers less than a year.
        """
        opened, _ = self._opened
        absent = [name for name in names if name not in opened]
        lacking = [level for level in levels if level not in opened.get("level", xr.DataArray([])).values]
        if absent or (lacking and any("level" in opened[name].dims for name in names if name in opened)):
            has = ", ".join(map(str, opened.data_vars)) if absent else f"{opened['level'].values.tolist()} hPa"
            raise EvaluationError(
                f"the climatology {self.path} must hold {', '.join(absent) or f'the levels {lacking} hPa'}, but has "
                f"{has}; make it again with what is scored (--variable, --levels, and --derived for derived "
                "variables), or score less (scores.variables, scores.levels)"
            )
        if opened.sizes["dayofyear"] != written.DAYS:
            raise EvaluationError(
                f"the climatology {self.path} must have all {written.DAYS} days of the year, but has "
                f"{opened.sizes['dayofyear']}; make it from whole years"
            )

    @cached_property
    def identity(self) -> str:
        """Path, and a digest of attributes, axes and one field, by which a climatology made anew differs."""
        opened, _ = self._opened
        fields = (name for name, array in opened.data_vars.items() if {"hour", "dayofyear"} <= {*array.dims})
        name = min(fields, key=lambda name: ("level" in opened[name].dims, str(name)))  # the least to read
        first = opened[name].isel({dim: 0 for dim in ("hour", "dayofyear", "level") if dim in opened[name].dims})
        digest = hashlib.sha256(repr((name, sorted(opened.attrs.items()))).encode())
        axes = (opened[dim] for dim in ("hour", "dayofyear", "level", *first.dims) if dim in opened)
        for array in (*axes, first):
            digest.update(np.ascontiguousarray(array.values).tobytes())
        return f"{self.path} (sha256 {digest.hexdigest()[:16]})"

    def _places(self, hours: NDArray[np.int64]) -> list[int]:
        known = self._opened[0]["hour"].values.tolist()
        absent = sorted(set(hours.tolist()) - set(known))
        if absent:
            raise EvaluationError(
                f"the climatology {self.path} must have the hours at which forecasts are valid, but lacks {absent} and "
                f"has {known}; make it with a smaller --every-hours"
            )
        return [known.index(hour) for hour in hours.tolist()]

    @cached_property
    def _opened(self) -> tuple[xr.Dataset, ScoredSubset]:
        try:
            opened: xr.Dataset = xr.open_zarr(self.path, chunks=None)
            axes = opened["latitude"].values, opened["longitude"].values
            opened["hour"], opened["dayofyear"]
        except (OSError, KeyError, ValueError) as error:
            raise EvaluationError(
                f"{self.path} must be a climatology over hour, dayofyear, latitude and longitude, but cannot be read "
                f"as one: {error}; make it with graphcast-batch climatology"
            ) from error
        origin = f"climatology {self.path}"
        return opened, part_of(origin, axes, (self.kept.latitude, self.kept.longitude), "make one on that grid")


@cache
def _mean_of(path: Path, name: str) -> NDArray[np.float32]:
    """Compute the mean of a variable over all hours and days; cached in the process, since it takes seconds."""
    array = xr.open_zarr(path, chunks=None)[name].transpose("hour", "dayofyear", "latitude", "longitude")
    hours = [array.isel(hour=hour).values.mean(axis=0, dtype=np.float64) for hour in range(array.sizes["hour"])]
    return np.asarray(np.mean(hours, axis=0), np.float32)


def _field(array: xr.DataArray, hour: int, day: int, levels: Sequence[int], part: ScoredSubset) -> NDArray[np.float32]:
    """Read one field on the forecasts' points, ([level], latitude, longitude)."""
    at = array.isel(hour=hour, dayofyear=day)
    if "level" in at.dims:
        # Given a list of levels, zarr reads each by itself, even where the list has all of them.
        at = at if at["level"].values.tolist() == list(levels) else at.sel(level=list(levels))
        at = at.transpose("level", "latitude", "longitude")
    else:
        at = at.transpose("latitude", "longitude")
    return part.of(np.asarray(at.values, np.float32))
