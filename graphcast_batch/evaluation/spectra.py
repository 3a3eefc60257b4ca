"""Fields become power by zonal wavenumber, which tells how much a forecast is blurred: added up, kept, and read again.

The power at a wavenumber is that part of the mean square along a latitude circle which waves of so many crests make up;
over all wavenumbers, 0 to half the longitudes, it adds up to the mean square (Parseval). WeatherBench 2's
ZonalEnergySpectrum (Rasp et al. 2024, https://doi.org/10.1029/2023MS004019) is this times the circumference of the
latitude, except at the last wavenumber of an even number of longitudes: theirs counts it twice, although it has no
conjugate, and so adds up to more than the mean square.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation.metrics import Points
from graphcast_batch.evaluation.regions import Regions
from graphcast_batch.evaluation.score_layout import PARTS, SPECTRUM
from graphcast_batch.evaluation.score_store import ScoreStore, places
from graphcast_batch.variables import HOUR

Floats = NDArray[np.float64]
LOST: Final = 0.5
"""Share of the truth's power below which a wavenumber counts as lost."""
_SHOWN_LEVEL: Final = 500


def bands_of(regions: Regions) -> tuple[str, ...]:
    """Names of those regions that hold whole latitude circles: each has one weight all along it."""
    complete = (np.ptp(regions.weights, axis=2) == 0).all(axis=1)
    return tuple(name for name, each in zip(regions.names, complete, strict=True) if each)


def areas_of(regions: Regions, bands: Sequence[str]) -> Floats:
    """(band, latitude) area of each latitude circle, in shares of the globe, as far as it is in a band."""
    places = [regions.names.index(band) for band in bands]
    return np.asarray(regions.weights[places, :, 0] * regions.weights.shape[2])


def spectra_of(at: Points, areas: Floats) -> Floats:
    """Sums of power over the latitudes of bands, each weighted with its area.

    Args:
        at: forecast and truth, (field, point), latitude by latitude; finite in the bands.
        areas: (band, latitude) from `areas_of`.

    Returns:
        float64 (part, field, band, wavenumber), of forecast, truth and error.
    """
    forecast, truth = (values.reshape(len(values), areas.shape[1], -1) for values in (at.forecast, at.truth))
    longitudes = forecast.shape[-1]
    held = np.flatnonzero(areas.any(axis=0))  # the others may have gaps
    weights = areas[:, held]
    sums = np.empty((len(PARTS), len(forecast), len(areas), longitudes // 2 + 1))
    # One by one, since in float64 and as waves they take many times their memory.
    for n, pair in enumerate(zip(forecast, truth, strict=True)):
        ours, theirs = (_waves(field[held]) for field in pair)
        for part, waves in zip(sums, (ours, theirs, ours - theirs), strict=True):
            part[n] = weights @ _squares(waves)
    return _both_signs(sums, longitudes)


def _waves(values: NDArray[np.floating]) -> NDArray[np.complex128]:
    """(..., wavenumber) complex amplitudes of wavenumbers that are not negative."""
    return np.asarray(np.fft.rfft(values.astype(np.float64, copy=False), norm="forward"))


def _squares(waves: NDArray[np.complex128]) -> Floats:
    return np.asarray(waves.real**2 + waves.imag**2)


def _both_signs(power: Floats, longitudes: int) -> Floats:
    """Power with that of negative wavenumbers, which all have but 0 and the last of an even number of longitudes."""
    power[..., 1 : (longitudes + 1) // 2] *= 2
    return power


@dataclass(frozen=True, eq=False)
class Spectra:
    """Power of one variable by zonal wavenumber, averaged over initial times.

    Attributes:
        power: (part, prediction_timedelta, [level], band, wavenumber) in the square of the variable's unit; NaN where
            nothing was scored.
        cases: (prediction_timedelta,) how many initial times went in.
    """

    power: xr.DataArray
    cases: xr.DataArray

    @property
    def ratio(self) -> xr.DataArray:
        """Power of the forecast over that of the truth; NaN where the truth has none."""
        truth = self.power.sel(part="truth", drop=True)
        return self.power.sel(part="forecast", drop=True) / truth.where(truth > 0)

    @property
    def effective_wavenumber(self) -> xr.DataArray:
        """The smallest wavenumber from which on `ratio` is below `LOST`, up to the last at which there is one.

        NaN if it is not below at that last one: then the finest waves have half their power or more.
        """
        ratio = self.ratio
        kept = (ratio >= LOST).isel(wavenumber=slice(None, None, -1)).cumsum("wavenumber") > 0
        beyond = ~kept.isel(wavenumber=slice(None, None, -1)) & ratio.notnull()
        return ratio["wavenumber"].where(beyond).min("wavenumber")


def spectra_in(store: Path, name: str = "forecast") -> list[str]:
    """The variables whose spectra are among the scores of a store.

    Raises:
        StoreError: there are no scores.
    """
    opened = ScoreStore.at(store, name).dataset()
    return [str(each).removesuffix(SPECTRUM) for each, array in opened.data_vars.items() if "wavenumber" in array.dims]


def bands_in(store: Path, name: str = "forecast") -> list[str]:
    """The regions for which there are spectra among the scores of a store; none without spectra.

    Raises:
        StoreError: there are no scores.
    """
    opened = ScoreStore.at(store, name).dataset()
    return list(map(str, opened["band"].values.tolist())) if "band" in opened.coords else []


def read_spectra(
    store: Path, name: str, variable: str, levels: Sequence[int] | None = None, bands: Sequence[str] | None = None
) -> Spectra:
    """Reads the spectra of a variable, one initial time after another, and averages them: the mean of the power.

    Args:
        store: its path.
        name: of the scores: ``forecast``, or a baseline.
        variable: which.
        levels: hPa; None for all.
        bands: names; None for all.

    Raises:
        StoreError: there are no scores, or they cannot be read.
        EvaluationError: they lack the variable, a level or band.
    """
    scores, known = ScoreStore.at(store, name), spectra_in(store, name)
    if variable not in known:
        raise EvaluationError(
            f"{scores.folder} must hold the spectrum of {variable}, but has "
            f"{', '.join(known) or 'none'}; name it in scores.spectra and score anew"
        )
    array = scores.dataset()[variable + SPECTRUM]
    # Plain text in place of zarr's own type of it, which little of NumPy takes yet.
    array = array.assign_coords({dim: np.array(array[dim].values.tolist()) for dim in ("part", "band")})
    for dim, wanted in (("level", levels), ("band", bands)):
        if wanted is not None and dim in array.dims:
            array = array.isel({dim: places(array, dim, wanted, scores.folder)})
    times = np.intersect1d(np.array(list(scores.records()), "datetime64[ns]"), array["time"].values)
    return _averaged(array.sel(time=times))


def write_spectra(store: Path, path: Path, name: str = "forecast") -> int:
    """Writes the spectra of all variables as CSV in long form; returns how many rows.

    Args:
        store: its path.
        path: of the file; one that is there is replaced.
        name: of the scores.

    Raises:
        EvaluationError: the file cannot be written.
        StoreError: there are no scores, or they cannot be read.
    """
    count = 0
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("variable", "level", "band", "lead_hours", "wavenumber", *PARTS, "cases"))
            for variable in spectra_in(store, name):
                for row in _rows(read_spectra(store, name, variable)):
                    writer.writerow((variable, *row))
                    count += 1
    except OSError as error:
        raise EvaluationError(f"the table {path} must be writable, but is not: {error}; give another path") from error
    return count


def shown_spectra(store: Path, name: str, band: str) -> Iterator[Spectra]:
    """The spectra of each variable in one band, those on levels at the one nearest to 500 hPa.

    Yields:
        With the power (part, prediction_timedelta, wavenumber) under the name of the variable.

    Raises:
        StoreError: there are no scores, or they cannot be read.
        EvaluationError: they lack the band.
    """
    levels = ScoreStore.at(store, name).dataset().get("level", xr.DataArray([])).values.tolist()
    nearest = sorted(levels, key=lambda level: abs(level - _SHOWN_LEVEL))[:1]
    for variable in spectra_in(store, name):
        spectra = read_spectra(store, name, variable, nearest, [band])
        power = spectra.power.isel(band=0).isel(level=0, missing_dims="ignore")
        yield Spectra(power.rename(variable), spectra.cases)


@dataclass(frozen=True)
class Loss:
    """From where on a forecast has lost half the power of one variable.

    Attributes:
        label: such as ``geopotential 500``.
        hours: the last lead time that was scored.
        wavenumber: see `Spectra.effective_wavenumber`.
        cases: how many initial times are behind it.
    """

    label: str
    hours: int
    wavenumber: float
    cases: int


def losses(store: Path, name: str, band: str) -> list[Loss]:
    """What is lost of each variable, at the level nearest to 500 hPa; none where no Case was scored.

    Raises:
        StoreError: there are no scores, or they cannot be read.
        EvaluationError: they lack the band.
    """
    found = []
    for spectra in shown_spectra(store, name, band):
        last = spectra.cases[spectra.cases.values > 0][-1:]
        level = f" {spectra.power['level'].item()}" if "level" in spectra.power.coords else ""
        for lead, cases in zip(last["prediction_timedelta"].values, last.values, strict=True):
            wavenumber = spectra.effective_wavenumber.sel(prediction_timedelta=lead).item()
            found.append(Loss(f"{spectra.power.name}{level}", int(lead // HOUR), wavenumber, int(cases)))
    return found


def _averaged(array: xr.DataArray) -> Spectra:
    """Means over initial times, no more than one of which is in memory."""
    total = xr.zeros_like(array.isel(time=[]).sum("time"))
    cases = xr.zeros_like(total["prediction_timedelta"], np.int64)
    for n in range(array.sizes["time"]):
        one = array.isel(time=n, drop=True).load()
        there = one.notnull().all([str(dim) for dim in one.dims if dim != "prediction_timedelta"])
        total, cases = total + one.where(there, 0.0), cases + there
    return Spectra(total / cases.where(cases > 0), cases)


def _rows(spectra: Spectra) -> Iterator[tuple[object, ...]]:
    """Level, band, hours, wavenumber, the parts' power and Cases, of all that was scored."""
    power = spectra.power if "level" in spectra.power.dims else spectra.power.expand_dims({"level": [""]})
    power = power.transpose("prediction_timedelta", "level", "band", "wavenumber", "part")
    for of_lead, cases in zip(power, spectra.cases.values.tolist(), strict=True):
        hours = int(of_lead["prediction_timedelta"].values // HOUR)
        for of_level in of_lead if cases else ():
            for of_band in of_level:
                place = (of_level["level"].item(), of_band["band"].item(), hours)
                for wavenumber, parts in enumerate(of_band.values.tolist()):
                    yield *place, wavenumber, *parts, cases
