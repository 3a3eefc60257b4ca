"""Check the section ``figures`` of a config: the maps and diagrams that are drawn of each Case."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, Strict, model_validator

from graphcast_batch.config.field_types import Latitude, Longitude
from graphcast_batch.spec import FrozenModel, Levels, Names, check_name


class ContoursConfig(FrozenModel):
    """A field to be drawn in lines over the colours of another."""

    variable: Annotated[str, AfterValidator(check_name)]
    """Its name."""
    level: Annotated[int, Field(gt=0, lt=2**31)] | None = None
    """hPa; for a variable on levels, and only for one."""


class FiguresConfig(FrozenModel):
    """Maps to draw of every whole Case."""

    variables: Annotated[Names, Field(min_length=1)]
    """To draw, each in pictures of its own."""
    levels: Levels = ()
    """hPa; of variables that have them."""
    lead_hours: Annotated[tuple[Annotated[int, Field(gt=0)], ...] | None, Strict(False)] = None
    """Lead times to draw; without it all of them."""
    projection: Literal["plate_carree", "robinson", "orthographic", "north_polar", "south_polar"] = "plate_carree"
    """Of the maps."""
    center: Annotated[tuple[Latitude, Longitude], Strict(False)] | None = None
    """Latitude and longitude of the middle of an orthographic map, degrees; for that alone."""
    contours: ContoursConfig | None = None
    """Another field in lines over the colours."""
    wind: Literal["none", "barbs", "streamlines"] = "none"
    """How to draw the wind at the field's level over it."""
    format: Literal["png", "svg", "pdf"] = "png"
    """Of the files."""
    strip: bool = False
    """Whether all lead times share a picture, or have one each."""
    animation: Literal["none", "gif", "mp4"] = "none"
    """A film of all lead times beside the pictures; mp4 needs the program ffmpeg."""
    places: Names = ()
    """Cities, or "LATITUDE, LONGITUDE", at which each variable is drawn over time."""
    hovmoller: Annotated[tuple[Latitude, Latitude], Strict(False)] | None = None
    """South and north of a band, degrees, whose mean is drawn as longitude by time."""
    sections: bool = False
    """Whether zonal means of variables on levels are drawn as latitude by pressure."""
    mean_error: bool = False
    """Whether maps of bias and root mean square error over all Cases are drawn by ``graphcast-batch figures``."""

    @model_validator(mode="after")
    def _middle(self) -> Self:
        if (self.projection == "orthographic") != (self.center is not None):
            raise ValueError(
                "projection: orthographic and center: [latitude, longitude] belong together, "
                f"but projection is {self.projection} and center {list(self.center) if self.center else 'not given'}"
            )
        return self

    @model_validator(mode="after")
    def _northward(self) -> Self:
        if self.hovmoller is not None and self.hovmoller[0] >= self.hovmoller[1]:
            raise ValueError(f"hovmoller must be [south, north], but is {list(self.hovmoller)}")
        return self
