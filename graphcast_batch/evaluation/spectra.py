"""Compute and read power by zonal wavenumber, which shows how much a forecast is blurred.

The power at a wavenumber is the part of the mean square along a latitude circle that is due to waves of that number;
over all wavenumbers, 0 to half the longitudes, it adds up to the mean square (Parseval). WeatherBench 2's
ZonalEnergySpectrum (Rasp et al. 2024, https://doi.org/10.1029/2023MS004019) is this times the circumference of the
latitude, except at the last wavenumber of an even number of longitudes: WeatherBench 2 counts it twice, although it has
no conjugate, and so adds up to more than the mean square.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation.pointwise_statistics import Points
from graphcast_batch.evaluation.regions import Regions
from graphcast_batch.evaluation.score_export import SCORES_COLUMN, with_column, write_csv
from graphcast_batch.evaluation.score_groups import ScoreGroup, open_groups, stored_levels
from graphcast_batch.evaluation.score_layout import OF_MEAN, PARTS, SPECTRUM
from graphcast_batch.evaluation.score_store import ScoreStore, places
from graphcast_batch.variables import HOUR

Floats = NDArray[np.float64]
LOST: Final = 0.5
"""Share of the truth's power below which a wavenumber counts as lost."""
_SHOWN_LEVEL: Final = 500
_PLACES: Final = ("variable", "level", "band", "lead_hours", "wavenumber")
_CASES: Final = "cases"
"""Columns of the table before and after those of the parts."""


def bands_of(regions: Regions) -> tuple[str, ...]:
    """Return the names of the regions of complete latitude circles: each circle has one weight all along it."""
    complete = (np.ptp(regions.weights, axis=2) == 0).all(axis=1)
    return tuple(name for name, each in zip(regions.names, complete, strict=True) if each)


def areas_of(regions: Regions, bands: Sequence[str]) -> Floats:
    """Compute the area of each latitude circle within each band, (band, latitude), as a share of the globe."""
    places = [regions.names.index(band) for band in bands]
    return np.asarray(regions.weights[places, :, 0] * regions.weights.shape[2])


def spectra_of(at: Points, areas: Floats) -> Floats:
    """Compute sums of power over the latitudes of bands, each latitude weighted with its area.

    Args:
        at: forecast and truth, (field, point), latitude by latitude; finite in the bands.
        areas: (band, latitude) from `areas_of`.

    Returns:
        float64 (part, field, band, wavenumber), of forecast, truth and error. Of an ensemble: the mean of the powers of
        its members, that of the truth, of the error of its mean, and of its mean.
    """
    truth = at.truth.reshape(len(at.truth), areas.shape[1], -1)
    members = at.forecast.reshape(-1, *truth.shape)
    parts = len(PARTS) + (at.forecast.ndim > at.truth.ndim)
    longitudes = truth.shape[-1]
    held = np.flatnonzero(areas.any(axis=0))  # latitudes outside the bands may have gaps
    weights = areas[:, held]
    sums = np.empty((parts, len(truth), len(areas), longitudes // 2 + 1))
    # Field by field, since in float64 and as waves they take many times their memory.
    for n, field in enumerate(truth):
        theirs = _waves(field[held])
        ours, power = np.zeros_like(theirs), np.zeros(theirs.shape)
        for member in members[:, n]:
            waves = _waves(member[held])
            ours, power = ours + waves / len(members), power + _squares(waves) / len(members)
        for part, squares in zip(sums, (power, *map(_squares, (theirs, ours - theirs, ours))), strict=False):
            part[n] = weights @ squares
    return _both_signs(sums, longitudes)


def _waves(values: NDArray[np.floating]) -> NDArray[np.complex128]:
    """Return the complex amplitudes of wavenumbers 0 and above, (..., wavenumber)."""
    return np.asarray(np.fft.rfft(values.astype(np.float64, copy=False), norm="forward"))


def _squares(waves: NDArray[np.complex128]) -> Floats:
    return np.asarray(waves.real**2 + waves.imag**2)


def _both_signs(power: Floats, longitudes: int) -> Floats:
    """Add the power of negative wavenumbers; 0 and the last one of an even number of longitudes have none."""
    power[..., 1 : (longitudes + 1) // 2] *= 2
    return power


@dataclass(frozen=True, eq=False)
class Spectra:
    """Power of one variable by zonal wavenumber, averaged over initial times.

    Attributes:
        power: (part, prediction_timedelta, [level], band, wavenumber) in the square of the variable's unit; NaN where
            nothing was scored. Of an ensemble the part ``forecast`` is that of a member, and ``mean`` that of its mean.
        cases: (prediction_timedelta,) number of initial times that are averaged.
    """

    power: xr.DataArray
    cases: xr.DataArray

    @property
    def ratio(self) -> xr.DataArray:
        """Power of the forecast over that of the truth; NaN where the truth has no power."""
        truth = self.power.sel(part="truth", drop=True)
        return self.power.sel(part="forecast", drop=True) / truth.where(truth > 0)

    @property
    def effective_wavenumber(self) -> xr.DataArray:
        """The smallest wavenumber from which on `ratio` is below `LOST`, up to the last wavenumber with a ratio.

        NaN if the ratio is not below `LOST` at the last one: then the finest waves have half their power or more.
        """
        ratio = self.ratio
        kept = (ratio >= LOST).isel(wavenumber=slice(None, None, -1)).cumsum("wavenumber") > 0
        beyond = ~kept.isel(wavenumber=slice(None, None, -1)) & ratio.notnull()
        return ratio["wavenumber"].where(beyond).min("wavenumber")


def spectra_in(store: Path, name: str = "forecast") -> list[str]:
    """Return the variables that have spectra among the scores of a store.

    Raises:
        StoreError: there are no scores.
    """
    return list(_groups(store, name))


def bands_in(store: Path, name: str = "forecast") -> list[str]:
    """Return the regions of the spectra among the scores of a store; empty without spectra.

    Raises:
        StoreError: there are no scores.
    """
    groups = list(_groups(store, name).values())
    return list(map(str, groups[0].opened["band"].values.tolist())) if groups else []


def read_spectra(
    store: Path, name: str, variable: str, levels: Sequence[int] | None = None, bands: Sequence[str] | None = None
) -> Spectra:
    """Read the spectra of a variable, one initial time after another, and average their power.

    Args:
        store: its path.
        name: of the scores: ``forecast``, or a baseline.
        variable: name of the variable.
        levels: hPa; None for all.
        bands: names; None for all.

    Raises:
        StoreError: there are no scores, or they cannot be read.
        EvaluationError: the scores lack the variable, a level or band.
    """
    known = _groups(store, name)
    if variable not in known:
        raise EvaluationError(
            f"{ScoreStore.at(store, name).folder} must hold the spectrum of {variable}, but has "
            f"{', '.join(known) or 'none'}; name it in scores.spectra and score again"
        )
    group = known[variable]
    array = group.opened[variable + SPECTRUM]
    # Plain text in place of zarr's own text type, which few functions of NumPy accept yet.
    array = array.assign_coords({dim: np.array(array[dim].values.tolist()) for dim in ("part", "band")})
    for dim, wanted in (("level", levels), ("band", bands)):
        if wanted is not None and dim in array.dims:
            array = array.isel({dim: places(array, dim, wanted, group.scores.folder)})
    return _averaged(array.sel(time=group.times))


def write_spectra(places: Mapping[str, tuple[Path, str]], path: Path) -> int:
    """Write the spectra of all variables of some forecasts as CSV in long form; return the number of rows.

    Args:
        places: path of a store and name of scores in it, by the name that the first column, ``scores``, holds if there
            are several. Of an ensemble there is also the power of the mean of its members.
        path: of the file; an existing one is replaced. None is written without forecasts.

    Raises:
        EvaluationError: the file cannot be written.
        StoreError: there are no scores, or they cannot be read.
    """
    if not places:
        return 0
    opened = (group.opened for at in places.values() for group in _groups(*at).values())
    parts = (*PARTS, *([OF_MEAN] if any(OF_MEAN in each["part"].values.tolist() for each in opened) else ()))
    names = [SCORES_COLUMN] if len(places) > 1 else []
    empty = pd.DataFrame(columns=[*names, *_PLACES, *parts, _CASES])
    try:
        return write_csv(path, chain([empty], _tables(places, parts)))
    except OSError as error:
        raise EvaluationError(f"the table {path} must be writable, but is not: {error}; give another path") from error


def shown_spectra(store: Path, name: str, band: str) -> Iterator[Spectra]:
    """Read the spectra of each variable in one band, on the level nearest to 500 hPa where it is on levels.

    Yields:
        Spectra whose power is (part, prediction_timedelta, wavenumber) and has the name of the variable.

    Raises:
        StoreError: there are no scores, or they cannot be read.
        EvaluationError: the scores lack the band.
    """
    nearest = sorted(stored_levels(store, name), key=lambda level: abs(level - _SHOWN_LEVEL))[:1]
    for variable in spectra_in(store, name):
        spectra = read_spectra(store, name, variable, nearest, [band])
        power = spectra.power.isel(band=0).isel(level=0, missing_dims="ignore")
        yield Spectra(power.rename(variable), spectra.cases)


@dataclass(frozen=True)
class Loss:
    """The wavenumber from which on a forecast has lost half the power of one variable.

    Attributes:
        label: such as ``geopotential 500``.
        hours: the last lead time that was scored.
        wavenumber: see `Spectra.effective_wavenumber`.
        cases: number of initial times that are averaged.
    """

    label: str
    hours: int
    wavenumber: float
    cases: int


def losses(store: Path, name: str, band: str) -> list[Loss]:
    """Compute the loss of each variable, at the level nearest to 500 hPa; empty where no Case was scored.

    Raises:
        StoreError: there are no scores, or they cannot be read.
        EvaluationError: the scores lack the band.
    """
    found = []
    for spectra in shown_spectra(store, name, band):
        last = spectra.cases[spectra.cases.values > 0][-1:]
        level = f" {spectra.power['level'].item()}" if "level" in spectra.power.coords else ""
        for lead, cases in zip(last["prediction_timedelta"].values, last.values, strict=True):
            wavenumber = spectra.effective_wavenumber.sel(prediction_timedelta=lead).item()
            found.append(Loss(f"{spectra.power.name}{level}", int(lead // HOUR), wavenumber, int(cases)))
    return found


def _groups(store: Path, name: str) -> dict[str, ScoreGroup]:
    """Return the group of each variable that has spectra."""
    return {
        str(each).removesuffix(SPECTRUM): group
        for group in open_groups(store, name)
        for each, array in group.opened.data_vars.items()
        if "wavenumber" in array.dims
    }


def _averaged(array: xr.DataArray) -> Spectra:
    """Average over initial times, with one of them in memory at a time."""
    total = xr.zeros_like(array.isel(time=[]).sum("time"))
    cases = xr.zeros_like(total["prediction_timedelta"], np.int64)
    for n in range(array.sizes["time"]):
        one = array.isel(time=n, drop=True).load()
        there = one.notnull().all([str(dim) for dim in one.dims if dim != "prediction_timedelta"])
        total, cases = total + one.where(there, 0.0), cases + there
    return Spectra(total / cases.where(cases > 0), cases)


def _tables(places: Mapping[str, tuple[Path, str]], parts: Sequence[str]) -> Iterator[pd.DataFrame]:
    """Convert the spectra of each variable of each forecast to long form."""
    for name, at in places.items():
        for variable in spectra_in(*at):
            table = _table(read_spectra(*at, variable), variable, parts)
            yield with_column(table, SCORES_COLUMN, name) if len(places) > 1 else table


def _table(spectra: Spectra, variable: str, parts: Sequence[str]) -> pd.DataFrame:
    """Convert spectra to long form: a row for each lead time that was scored, level, band and wavenumber."""
    power = spectra.power if "level" in spectra.power.dims else spectra.power.expand_dims({"level": [pd.NA]})
    power = power.isel(prediction_timedelta=spectra.cases.values > 0)
    places = ("prediction_timedelta", "level", "band", "wavenumber")
    values = power.reindex(part=list(parts)).transpose(*places, "part").values.reshape(-1, len(parts))
    labels = pd.MultiIndex.from_product([power[dim].values.tolist() for dim in places[1:]])
    each = len(labels)
    leads = power["prediction_timedelta"].values
    columns = {
        "variable": variable,
        "level": pd.array(np.tile(labels.get_level_values(0), leads.size), "Int32"),
        "band": np.tile(labels.get_level_values(1), leads.size),
        "lead_hours": np.repeat((leads // HOUR).astype(np.int64), each),
        "wavenumber": np.tile(labels.get_level_values(2), leads.size),
        **dict(zip(parts, values.T, strict=True)),
        _CASES: np.repeat(spectra.cases.sel(prediction_timedelta=leads).values, each),
    }
    return pd.DataFrame(columns, columns=[*_PLACES, *parts, _CASES])
