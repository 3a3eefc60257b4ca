"""Check the section ``figures`` of a config: the maps and diagrams that are drawn of each Case."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, Strict, model_validator

from graphcast_batch.config.field_types import Latitude, Longitude
from graphcast_batch.spec import FrozenModel, Levels, Names, check_name


class ContoursConfig(FrozenModel):
    """Contour lines of a second field over the colors of a map."""

    variable: Annotated[str, AfterValidator(check_name)]
    """Name of the variable whose contour lines are drawn."""
    level: Annotated[int, Field(gt=0, lt=2**31)] | None = None
    """Pressure level of the contour lines in hPa; required for a variable on levels, and only for one."""


class FiguresConfig(FrozenModel):
    """Maps and diagrams that are drawn of every complete Case."""

    variables: Annotated[Names, Field(min_length=1)]
    """Variables that are drawn, each in figures of its own."""
    levels: Levels = ()
    """Pressure levels in hPa at which variables on levels are drawn."""
    lead_hours: Annotated[tuple[Annotated[int, Field(gt=0)], ...] | None, Strict(False)] = None
    """Lead times that are drawn, in hours; by default all."""
    projection: Literal["plate_carree", "robinson", "orthographic", "north_polar", "south_polar"] = "plate_carree"
    """Projection of the maps."""
    center: Annotated[tuple[Latitude, Longitude], Strict(False)] | None = None
    """Latitude and longitude of the center of an orthographic map, in degrees; for that projection only."""
    contours: ContoursConfig | None = None
    """A second field whose contour lines are drawn over the colors."""
    wind: Literal["none", "barbs", "streamlines"] = "none"
    """How the wind at the level of the field is drawn over it: as barbs, as streamlines, or not at all."""
    format: Literal["png", "svg", "pdf"] = "png"
    """File format of the figures."""
    strip: bool = False
    """Whether all lead times are drawn in one figure; by default each has a figure of its own."""
    animation: Literal["none", "gif", "mp4"] = "none"
    """File format of an animation of all lead times, which is drawn beside the figures; mp4 needs the program ffmpeg.
    """
    points: Names = ()
    """Points at which each variable is drawn over time: names of cities, or "LATITUDE, LONGITUDE" in degrees."""
    hovmoller: Annotated[tuple[Latitude, Latitude], Strict(False)] | None = None
    """Southern and northern edge of a latitude band in degrees, whose mean is drawn as a Hovmöller diagram (longitude
    by time)."""
    sections: bool = False
    """Whether zonal means of variables on levels are drawn as latitude by pressure."""
    ensemble: bool = False
    """Whether the members of each initial time are drawn together: maps of their mean and spread, and at ``points``
    their quantiles over time."""
    spaghetti: dict[Annotated[str, AfterValidator(check_name)], float] = {}
    """Values, by variable and in the unit that figures show, such as ``geopotential: 552`` (dam), whose contour lines
    of all members are drawn on one map."""
    mean_error: bool = False
    """Whether ``graphcast-batch figures`` draws maps of bias and root mean square error over all Cases."""

    @model_validator(mode="after")
    def _middle(self) -> Self:
        if (self.projection == "orthographic") != (self.center is not None):
            raise ValueError(
                "projection: orthographic and center: [latitude, longitude] belong together, "
                f"but projection is {self.projection} and center {list(self.center) if self.center else 'not given'}"
            )
        return self

    @property
    def of_ensembles(self) -> bool:
        """Whether anything is drawn of all members of an initial time together."""
        return self.ensemble or bool(self.spaghetti)

    @model_validator(mode="after")
    def _northward(self) -> Self:
        if self.hovmoller is not None and self.hovmoller[0] >= self.hovmoller[1]:
            raise ValueError(f"hovmoller must be [south, north], but is {list(self.hovmoller)}")
        return self
