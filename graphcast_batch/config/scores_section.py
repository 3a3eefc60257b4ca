"""Check the section ``scores`` of a config: what forecasts are scored against, and where."""

from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, Strict, model_validator

from graphcast_batch.config.field_types import File, refuse_address
from graphcast_batch.config.inputs_section import ArchiveInputs, DatasetInputs, SyntheticInputs
from graphcast_batch.config.outputs_section import RegionConfig
from graphcast_batch.spec import FrozenModel, Levels, Names, check_name


class ScoresConfig(FrozenModel):
    """What forecasts are scored against, and where; without a key all that both sides hold."""

    online: bool = False
    """Whether a run scores its forecasts as it makes them; otherwise ``graphcast-batch evaluate`` does it later."""
    truth: Annotated[SyntheticInputs | DatasetInputs | ArchiveInputs, Field(discriminator="kind")] | None = None
    """What came true; without it the run's own inputs."""
    climatology: File | None = None
    """Made by ``graphcast-batch climatology``, or WeatherBench 2's; without it nothing is said of anomalies."""
    variables: Annotated[Names, Field(min_length=1)] | None = None
    """To score; without it all that both sides hold."""
    levels: Annotated[Levels, Field(min_length=1)] | None = None
    """To score, hPa; without it all that both sides hold."""
    derived: Names = ()
    """Variables to make of others before they are scored: ``wind_speed``, ``10m_wind_speed``, ``geopotential_height``,
    ``relative_humidity``, ``total_precipitation_24hr``."""
    regions: Annotated[tuple[str, ...], Strict(False)] = (
        *("global", "tropics", "extra-tropics", "northern-hemisphere", "southern-hemisphere"),
        *("europe", "north-america", "north-atlantic", "north-pacific", "east-asia", "ausnz", "arctic", "antarctic"),
    )
    """Named as in WeatherBench 2, whose headline regions these are; also ``land`` and ``sea``."""
    boxes: dict[Annotated[str, AfterValidator(check_name)], RegionConfig] = {}
    """Further regions."""
    quantiles: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Strict(False)] = ()
    """Of what is usual at the place, day and hour, such as 0.01 and 0.99: how well values beyond them are forecast,
    above those from a half on, below the others; not of precipitation, and only with a climatology."""
    members: Annotated[tuple[Annotated[File, BeforeValidator(refuse_address)], ...], Strict(False)] = ()
    """Stores of other forecasts from the same initial times, which are an ensemble together with that of the run; by
    ``graphcast-batch evaluate`` only."""
    spectra: Names = ()
    """Variables, of those that are scored, whose power by zonal wavenumber is kept too: how much a forecast is blurred;
    in each region of whole latitude circles."""

    @model_validator(mode="after")
    def _quantiles_differ(self) -> Self:
        if len(set(self.quantiles)) < len(self.quantiles):
            raise ValueError(f"quantiles must name each once, but are {', '.join(map(str, self.quantiles))}")
        return self
