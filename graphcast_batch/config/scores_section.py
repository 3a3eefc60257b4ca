"""Check the section ``scores`` of a config: what forecasts are scored against, and where."""

from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, Strict, model_validator

from graphcast_batch.config.field_types import File, refuse_address
from graphcast_batch.config.inputs_section import ArchiveInputs, DatasetInputs, SyntheticInputs
from graphcast_batch.config.outputs_section import RegionConfig
from graphcast_batch.spec import FrozenModel, Levels, Names, check_name


def _check_lags(lags: tuple[int, ...]) -> tuple[int, ...]:
    """Return the lags of an ensemble, ascending.

    Raises:
        ValueError: a lag is not above 0, or is named twice.
    """
    if any(lag <= 0 for lag in lags):
        raise ValueError(
            f"lags must be above 0 h, but are {', '.join(map(str, lags))}; the forecast without lag is always a member"
        )
    if len(set(lags)) < len(lags):
        raise ValueError(f"lags must be named once each, but are {', '.join(map(str, lags))}")
    return tuple(sorted(lags))


class YearsConfig(FrozenModel):
    """Years that follow each other."""

    first: Annotated[int, Field(ge=1700, le=2200)]
    """The first year."""
    last: Annotated[int, Field(ge=1700, le=2200)]
    """The last year."""

    @model_validator(mode="after")
    def _several(self) -> Self:
        if self.last <= self.first:
            raise ValueError(f"the last year must be after the first, {self.first}, but is {self.last}")
        return self


class ScoresConfig(FrozenModel):
    """What forecasts are scored against, and where; by default all that the forecasts and the truth both have."""

    online: bool = False
    """Whether a run scores its forecasts as it makes them; otherwise ``graphcast-batch evaluate`` scores them later."""
    truth: Annotated[SyntheticInputs | DatasetInputs | ArchiveInputs, Field(discriminator="kind")] | None = None
    """Analyses that the forecasts are scored against; by default the inputs of the run."""
    climatology: File | None = None
    """Folder of a climatology, made by ``graphcast-batch climatology`` or published with WeatherBench 2; without one,
    scores of anomalies are left out."""
    variables: Annotated[Names, Field(min_length=1)] | None = None
    """Variables that are scored; by default all that the forecasts and the truth both have."""
    levels: Annotated[Levels, Field(min_length=1)] | None = None
    """Pressure levels in hPa that are scored; by default all that the forecasts and the truth both have."""
    derived: Names = ()
    """Variables that are derived from others before they are scored: ``wind_speed``, ``10m_wind_speed``,
    ``geopotential_height``, ``relative_humidity``, ``total_precipitation_24hr``."""
    regions: Annotated[tuple[str, ...], Strict(False)] = (
        *("global", "tropics", "extra-tropics", "northern-hemisphere", "southern-hemisphere"),
        *("europe", "north-america", "north-atlantic", "north-pacific", "east-asia", "ausnz", "arctic", "antarctic"),
    )
    """Regions over which scores are averaged, named as in WeatherBench 2; ``land`` and ``sea`` are known too. By
    default the headline regions of WeatherBench 2."""
    boxes: dict[Annotated[str, AfterValidator(check_name)], RegionConfig] = {}
    """Further regions by name, each given by its edges."""
    quantiles: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Strict(False)] = ()
    """Quantiles of the climatology at the place, day and hour, such as 0.01 and 0.99: scores of how well values above
    those from 0.5 on, and below the others, are forecast. They need a climatology, and leave precipitation out."""
    thresholds: dict[str, Annotated[tuple[Annotated[float, Field(allow_inf_nan=False)], ...], Strict(False)]] = {}
    """Thresholds by variable, in its unit, such as ``{total_precipitation_6hr: [0.001, 0.01]}`` in meters: scores of
    how well values above them are forecast."""
    vectors: dict[
        Annotated[str, AfterValidator(check_name)], Annotated[tuple[str, ...], Strict(False), Field(min_length=2)]
    ] = {}
    """Vectors by name, such as ``{wind: [u_component_of_wind, v_component_of_wind]}``, whose energy score is computed
    for ensembles; the components are variables that are scored, of one unit."""
    reliability: bool = False
    """Whether to count, for an ensemble, how often each number of members is beyond the quantiles and above the
    thresholds, and how often the truth is then: the data of a reliability diagram."""
    members: Annotated[tuple[Annotated[File, BeforeValidator(refuse_address)], ...], Strict(False)] = ()
    """Stores of other forecasts from the same initial times, which form an ensemble with the forecasts of the run; for
    ``graphcast-batch evaluate`` only."""
    lagged: Annotated[tuple[int, ...], Strict(False), AfterValidator(_check_lags)] = ()
    """Hours, such as 6, 12 and 18, by which earlier forecasts of the run form a lagged ensemble with each forecast, at
    the same valid times; for ``graphcast-batch evaluate`` only."""
    climatology_years: YearsConfig | None = None
    """Years, such as ``{first: 1990, last: 2019}``, of which the truth at the same times of the year forms an ensemble
    to compare with: one that knows the season and the hour alone; for ``graphcast-batch evaluate`` only."""
    spectra: Names = ()
    """Variables, among those that are scored, whose power spectrum by zonal wavenumber is kept too, in each region of
    complete latitude circles: it shows how much a forecast is blurred."""

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        """Check that each quantile, threshold and component is named once, and that reliability has events."""
        named: dict[str, tuple[object, ...]] = {
            "quantiles": self.quantiles,
            **{f"thresholds.{name}": each for name, each in self.thresholds.items()},
        }
        named |= {f"vectors.{name}": parts for name, parts in self.vectors.items()}
        for key, values in named.items():
            if len(set(values)) < len(values):
                raise ValueError(f"{key} must name each once, but are {', '.join(map(str, values))}")
        if self.reliability and not (self.quantiles or any(self.thresholds.values())):
            raise ValueError(
                "reliability needs events, but neither quantiles nor thresholds name any; add some, or leave it out"
            )
        return self
