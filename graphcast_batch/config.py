"""A YAML file becomes a frozen RunConfig, or an error that names the key and what it should have been."""

import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, model_validator

from graphcast_batch.credentials import options_without_secrets, without_secrets
from graphcast_batch.documents import as_yaml, read_lines
from graphcast_batch.documents import read_mapping as read_mapping  # callers have it from here, as `parse_config`
from graphcast_batch.validation import brief, is_plain
from graphcast_batch.validation import parse_config as parse_config
from graphcast_batch.variables import LEVELS_13, LEVELS_37, VARIABLES

STEP_HOURS: Final = 6
"""GraphCast's time step (Lam et al. 2023)."""

_NAME: Final = re.compile(r"[^\s./\\][^\0-\x1f/\\]{0,99}")
_FIRST_YEAR, _LAST_YEAR = 1678, 2261
"""Whole years that fit into 64 bits of nanoseconds around 1970, which valid times are kept in."""
_MOST_HOURS: Final = 2**63 // (3600 * 10**9)
"""The longest span that fits into as many."""
_MOST_TIMES: Final = 1_000_000
"""Initial times of a run: one an hour for 114 years."""
_MOST_FRAMES: Final = 40
"""Published models take 2."""


def _read_time(value: object) -> object:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime):
        if not _FIRST_YEAR <= value.year <= _LAST_YEAR:
            raise ValueError(
                f"an initial time must be in the years {_FIRST_YEAR} to {_LAST_YEAR}, but is {value.isoformat()}"
            )
        value = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
        if value.minute or value.second or value.microsecond:
            raise ValueError("an initial time must be a whole hour")
    return value


def _lines(path: object) -> list[str]:
    """Lines of the file of initial times."""
    if not isinstance(path, str):
        raise ValueError(f"file must be a path, but is {path!r}")
    try:
        return read_lines(Path(_absolute(path)))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"file must be a text file with one initial time a line, but cannot be read: {error}"
        ) from error


def _absolute(path: str) -> str:
    """A path or glob as it holds in any working directory; an address such as ``s3://bucket/store.zarr`` stays."""
    try:
        found = path if "://" in path else os.path.join(os.getcwd(), os.path.expanduser(path))
    except FileNotFoundError as error:
        raise ValueError("the working directory was removed; change to one that is there") from error
    if not is_plain(found):
        raise ValueError(
            "a path, with the working directory where it is relative, must be UTF-8 without line breaks and other "
            f"control characters, but is {found!r}"
        )
    return found


def _absolute_file(path: Path) -> Path:
    return Path(_absolute(str(path)))


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            "a variable names files too, so its name must have up to 100 characters, no slash and no dot in front, "
            f"but is {brief(name)}"
        )
    return name


def _refuse_address(value: object) -> object:
    if isinstance(value, str) and "://" in value:
        raise ValueError(f"stores on object stores are not supported yet; give a folder, not {value}")
    return value


def _read_limits(value: object) -> object:
    if value is False:  # as YAML 1.1 reads the word off, and so whoever loads a config with another library
        return "off"
    if isinstance(value, Mapping):
        for name, pair in value.items():
            if not (isinstance(name, str) and _is_range(pair)):
                raise ValueError(
                    f"a variable has its [low, high], two numbers of which the first is less, but {name} has {pair!r}"
                )
    elif value not in ("auto", "off"):
        raise ValueError(f"give auto, off, or a mapping of variables to [low, high], not {value!r}")
    return value


def _read_cache(value: object) -> object:
    if value is False:  # as YAML 1.1 reads the word off, and so whoever loads a config with another library
        return "off"
    if not isinstance(value, str | Path) or "://" in str(value):
        raise ValueError(f"give a folder or off, not {value!r}")
    return value


def _is_range(pair: object) -> bool:
    if not isinstance(pair, list | tuple) or len(pair) != 2 or {type(side) for side in pair} - {int, float}:
        return False
    low, high = pair
    return bool(-math.inf < low < high < math.inf)


Time = Annotated[datetime, BeforeValidator(_read_time, json_schema_input_type=str)]
"""A whole hour, UTC, naive."""
File = Annotated[Path, Strict(False), AfterValidator(_absolute_file)]
"""Absolute; in a config relative to the working directory, where ~ stands for the home folder."""
Pattern = Annotated[str, AfterValidator(_absolute), AfterValidator(without_secrets)]
"""The same of a path that may be a glob, or an address, of which secrets are kept apart."""
Implementation = Literal["native", "deepmind"]
"""Of the network: ours, or DeepMind's own package."""
DialectName = Literal["graphcast", "weatherbench2", "weatherbench2-hres", "arco-era5", "cds", "cds-legacy", "grib"]
Accumulation = Literal["hourly", "since_start"]
"""Precipitation of the hour before, or since the start of a forecast."""
FrameLimits = Annotated[
    Literal["auto", "off"] | dict[str, Annotated[tuple[float, float], Strict(False)]], BeforeValidator(_read_limits)
]
Names = Annotated[tuple[Annotated[str, AfterValidator(_check_name)], ...], Strict(False)]
Levels = Annotated[tuple[Annotated[int, Field(gt=0, lt=2**31)], ...], Strict(False)]
Latitude = Annotated[float, Field(ge=-90, le=90)]
Longitude = Annotated[float, Field(ge=-180, le=360)]
KeepBits = Annotated[int, Field(ge=1, le=22)]


class _Frozen(BaseModel):
    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # which may hold secrets; `parse_config` shows what may be shown
    )


class Task(_Frozen):
    """Which variables go in and out: the ``task_config`` of a checkpoint, field by field."""

    input_variables: Names
    """All that goes in: of the state, forcings, and what does not change with time."""
    target_variables: Names
    """What is forecast."""
    forcing_variables: Names
    """What is known of the time to be forecast: solar radiation, time of the day and year."""
    pressure_levels: Levels
    """hPa, ascending."""
    input_duration: str = "12h"
    """Time that the frames span which go in; 12h for two."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.target_variables:
            raise ValueError("target_variables must name at least one variable")
        for field in ("input_variables", "target_variables", "forcing_variables", "pressure_levels"):
            names = getattr(self, field)
            twice = sorted(str(name) for name, count in Counter(names).items() if count > 1)
            if twice:
                raise ValueError(f"{field} must name each once, but repeats {', '.join(twice)}")
        both = sorted(set(self.target_variables) & set(self.forcing_variables))
        if both:
            raise ValueError(f"a variable is a target or a forcing, but {', '.join(both)} is both")
        if list(self.pressure_levels) != sorted(self.pressure_levels):
            raise ValueError(f"pressure_levels must ascend, but are {list(self.pressure_levels)}")
        if self.input_frames < 1:
            raise ValueError(f"input_duration must be a multiple of {STEP_HOURS}h, but is {self.input_duration}")
        if self.input_frames > _MOST_FRAMES:
            raise ValueError(
                f"input_duration must be at most {STEP_HOURS * _MOST_FRAMES}h, but is {self.input_duration}"
            )
        return self

    @property
    def input_frames(self) -> int:
        """How many frames go in, the last of them at the initial time."""
        hours = self.input_duration.removesuffix("h")
        if not hours.isdecimal() or int(hours) % STEP_HOURS:
            return 0
        return int(hours) // STEP_HOURS


class Architecture(_Frozen):
    """The ``model_config`` of a checkpoint, field by field.

    The published sizes are 6, 512, 16 and 1 (Lam et al. 2023): what is far above them is refused before anything of
    that size is made.
    """

    mesh_size: Annotated[int, Field(ge=0, le=8)]
    """How often the icosahedron is refined."""
    latent_size: Annotated[int, Field(gt=0, le=8192)]
    """Numbers for each node and edge."""
    gnn_msg_steps: Annotated[int, Field(gt=0, le=256)]
    """Rounds of messages on the mesh."""
    hidden_layers: Annotated[int, Field(ge=0, le=64)] = 1
    """Of each perceptron."""
    radius_query_fraction_edge_length: Annotated[float, Field(gt=0, le=4)] = 0.6
    """How far from a mesh node grid points send to it, in lengths of the finest mesh's longest edge."""
    resolution: Annotated[float, Field(ge=0)] = 0.0
    """Degrees between grid points; 0 for any."""
    mesh2grid_edge_normalization_factor: Annotated[float, Field(gt=0)] | None = None
    """Length by which those of edges to the grid are divided; without it that of the longest."""


def _published(*, levels: tuple[int, ...], precipitation_in: bool) -> Task:
    kinds = {kind: tuple(v.name for v in VARIABLES.values() if v.kind == kind) for kind in ("surface", "level")}
    forcings = tuple(v.name for v in VARIABLES.values() if v.kind == "forcing")
    static = tuple(v.name for v in VARIABLES.values() if v.kind == "static")
    targets = kinds["surface"] + kinds["level"]
    inputs = targets if precipitation_in else tuple(name for name in targets if name != "total_precipitation_6hr")
    return Task(
        input_variables=inputs + forcings + static,
        target_variables=targets,
        forcing_variables=forcings,
        pressure_levels=levels,
    )


TASKS: Final[Mapping[str, Task]] = {
    "GraphCast": _published(levels=LEVELS_37, precipitation_in=True),
    "GraphCast_operational": _published(levels=LEVELS_13, precipitation_in=False),
    "GraphCast_small": _published(levels=LEVELS_13, precipitation_in=True),
}
"""The tasks of the three published checkpoints (Lam et al. 2023)."""


_TaskName = Literal["GraphCast", "GraphCast_operational", "GraphCast_small"]


def _named_task(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value not in TASKS:
        raise ValueError(f"a task is one of {', '.join(TASKS)} or a mapping of its fields, but is {value!r}")
    return TASKS[value]


class RandomWeights(_Frozen):
    """Weights drawn at random, for trying out everything but the forecast."""

    kind: Literal["random"]
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the weights."""
    architecture: Architecture
    """Sizes of the network."""
    task: Annotated[Task, BeforeValidator(_named_task, json_schema_input_type=_TaskName | Task)]
    """Which variables go in and out: the name of a published task, or a mapping."""


class CheckpointWeights(_Frozen):
    """Weights from a file in DeepMind's format; its task and architecture come with it."""

    kind: Literal["checkpoint"]
    path: File
    """Of an .npz file."""


class Model(_Frozen):
    """Which network, in which precision, with which normalisation."""

    implementation: Implementation = "native"
    """``deepmind`` runs DeepMind's own package, if it is installed, for comparison with ours."""
    weights: Annotated[RandomWeights | CheckpointWeights, Field(discriminator="kind")]
    """A checkpoint, or numbers drawn at random."""
    statistics: File | None = None
    """Folder of the three normalisation files; without it they are computed from the inputs."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: bfloat16 on an accelerator, float32 on CPU."""
    memory: Literal["auto", "fast", "lean"] = "auto"
    """Whether what never changes is kept on the device or, where it is large, computed again in every step; ``auto``:
    kept if there is room."""
    steps_per_call: Annotated[int, Field(gt=0)] = 4
    """At most so many steps in one call of the compiled program."""
    cases_per_call: Annotated[int, Field(gt=0)] = 1
    """So many Cases of a worker are computed together; a small network keeps a large device busier so."""

    @model_validator(mode="after")
    def _only_ours_computes_together(self) -> Self:
        if self.implementation == "deepmind" and self.cases_per_call > 1:
            raise ValueError(f"cases_per_call must be 1 with implementation: deepmind, but is {self.cases_per_call}")
        return self


class SyntheticInputs(_Frozen):
    """The planet that comes with the package."""

    kind: Literal["synthetic"]
    resolution: Annotated[float, Field(ge=0.05, le=30)]
    """Degrees between grid points, a divisor of 180."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the weather; the climate is the same."""


class DatasetInputs(_Frozen):
    """GraphCast dataset files: a glob."""

    kind: Literal["datasets"]
    path: Pattern
    """Of the files; may be a glob."""
    per_file: Literal["first", "all"] = "first"
    """A Case from the first frames of each file, or from every time of it that has the frame before."""
    names: dict[str, str] = {}
    """Their names to ours, where they are others than GraphCast's."""
    units: dict[str, str] = {}
    """Units by our names, or of ``level``, where the files say none or a wrong one."""


class ArchiveInputs(_Frozen):
    """Fields at absolute times, in one or more files or stores of any known layout."""

    kind: Literal["archive"]
    path: Pattern | Annotated[tuple[Pattern, ...], Strict(False), Field(min_length=1)]
    """Files, zarr stores, globs, folders of files, or addresses of remote stores; all together are the archive."""
    statics: Pattern | None = None
    """A further file or store, of which only fields without time are taken; they win over what ``path`` holds."""
    dialect: DialectName | None = None
    """Layout of the files; without it each is recognised."""
    names: dict[str, str] = {}
    """Their names to ours, where the dialect does not know them."""
    units: dict[str, str] = {}
    """Units by our names, or of ``level``, where the data say none or a wrong one."""
    precipitation: Accumulation | None = None
    """Since when ``total_precipitation`` is summed up, whatever messages of GRIB say; without it as they or the dialect
    have it."""
    regrid: Literal["subsample", "conservative", "linear"] | None = None
    """How a finer grid is brought to that of the weights; without it a finer grid is refused."""
    anonymous: bool = False
    """Whether remote stores are read without credentials."""
    storage: dict[str, str] = {}
    """Options of remote stores, such as region or endpoint; ``${NAME}`` stands for the environment variable."""

    @model_validator(mode="before")
    @classmethod
    def _secrets_apart(cls, content: object) -> object:
        """With references in place of secrets, so that nothing that is written or printed of a config holds one."""
        options = content.get("storage") if isinstance(content, dict) else None
        if not isinstance(content, dict) or not isinstance(options, dict):
            return content
        texts = {name: value for name, value in options.items() if isinstance(name, str) and isinstance(value, str)}
        path = content.get("path")
        paths = [path] if isinstance(path, str) else path if isinstance(path, list | tuple) else []
        addresses = [each for each in paths if isinstance(each, str)]
        return {**content, "storage": {**options, **options_without_secrets(texts, addresses)}}

    @property
    def paths(self) -> tuple[str, ...]:
        """All paths."""
        return (self.path,) if isinstance(self.path, str) else self.path


def _with_file(schema: dict[str, Any]) -> None:
    """Adds the key that `Times` turns into its list."""
    schema["properties"]["file"] = {"type": "string", "description": "Text file with one initial time a line."}


class Times(_Frozen):
    """Initial times: a list, a file with one a line, or first, last and every; hours and exclude narrow them."""

    model_config = ConfigDict(json_schema_extra=_with_file)

    list: Annotated[tuple[Time, ...] | None, Strict(False)] = None
    """Each by itself, UTC."""
    first: Time | None = None
    """UTC, a whole hour, such as 2020-01-01T00."""
    last: Time | None = None
    """It is one of them, if the steps from the first lead there."""
    every_hours: Annotated[int, Field(gt=0, le=_MOST_HOURS)] | None = None
    """From one initial time to the next."""
    hours: Annotated[tuple[Annotated[int, Field(ge=0, le=23)], ...], Strict(False)] = ()
    """Hours of the day to keep; none for all."""
    exclude: Annotated[tuple[Time, ...], Strict(False)] = ()
    """Times to leave out."""

    @model_validator(mode="before")
    @classmethod
    def _from_file(cls, content: object) -> object:
        """With the lines of ``file`` as the list, so that a store's copy of the config needs no other file."""
        if not isinstance(content, dict) or "file" not in content:
            return content
        if "list" in content:
            raise ValueError("give either list or file, not both")
        return {key: value for key, value in content.items() if key != "file"} | {"list": _lines(content["file"])}

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        span = (self.first, self.last, self.every_hours)
        if self.list is not None and any(part is not None for part in span):
            raise ValueError("give either list, or first, last and every_hours, not both")
        if self.list is None and any(part is None for part in span):
            raise ValueError("give list, file, or all of first, last and every_hours")
        if self.list is not None and not self.list:
            raise ValueError("list must hold at least one time")
        if self.list is not None and len(set(self.list)) < len(self.list):
            raise ValueError("list must hold each time once")
        if self.first and self.last and self.last < self.first:
            raise ValueError(f"last ({self.last:%Y-%m-%dT%H}) must not be before first ({self.first:%Y-%m-%dT%H})")
        if self.first and self.last and self.every_hours:
            count = (self.last - self.first) // timedelta(hours=self.every_hours) + 1
            if count > _MOST_TIMES:
                raise ValueError(
                    f"there must be at most {_MOST_TIMES} initial times, but from {self.first:%Y-%m-%dT%H} to "
                    f"{self.last:%Y-%m-%dT%H} every {self.every_hours} h makes {count}; bring last nearer to first, or "
                    "raise every_hours"
                )
        return self


class Workers(_Frozen):
    """How many processes, on what."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    """What they compute on; ``auto``: GPUs if there are any."""
    count: Annotated[int, Field(gt=0)] | None = None
    """Without it: one for each GPU, or on CPU one for each ``threads`` cores."""
    threads: Annotated[int, Field(gt=0)] = 2
    """Cores that a CPU worker computes with."""


class Contours(_Frozen):
    """A field to be drawn in lines over the colours of another."""

    variable: Annotated[str, AfterValidator(_check_name)]
    """Its name."""
    level: Annotated[int, Field(gt=0, lt=2**31)] | None = None
    """hPa; for a variable on levels, and only for one."""


class Figures(_Frozen):
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
    contours: Contours | None = None
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


class Region(_Frozen):
    """A part of the globe; its edges belong to it."""

    latitude: Annotated[tuple[Latitude, Latitude], Strict(False)]
    """South and north, degrees."""
    longitude: Annotated[tuple[Longitude, Longitude], Strict(False)]
    """West and east, degrees; with west behind east across 0° or 180°."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        south, north = self.latitude
        if south > north:
            raise ValueError(f"latitude must be [south, north], but is {list(self.latitude)}")
        if self.longitude[0] == self.longitude[1]:
            raise ValueError(f"longitude must be [west, east], two meridians, but is {list(self.longitude)}")
        return self


def _or_word(schema: dict[str, Any]) -> None:
    """Adds the word that `Outputs` may be."""
    mapping = schema.copy()
    schema.clear()
    schema["anyOf"] = [{"const": "none"}, mapping]


class Outputs(_Frozen):
    """What a store keeps of each forecast, and how; without a key all of it, and every bit."""

    model_config = ConfigDict(json_schema_extra=_or_word)

    forecasts: bool = True
    """Whether it keeps them at all; ``outputs: none`` is short for ``forecasts: false``, and leaves nothing but the
    scores of what it would have kept."""
    variables: Annotated[Names, Field(min_length=1)] | None = None
    """To keep; without it all."""
    levels: Annotated[Levels, Field(min_length=1)] | None = None
    """To keep, hPa; without it all."""
    lead_hours: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Strict(False), Field(min_length=1)] | None = None
    """Lead times to keep; the last of them is the last of the forecast."""
    every_hours: Annotated[int, Field(gt=0, multiple_of=STEP_HOURS)] | None = None
    """Or every so many hours."""
    region: Region | None = None
    """Part of the globe to keep; without it all."""
    keep_bits: KeepBits | dict[str, KeepBits] | None = None
    """Bits of the mantissa to keep, of 23, of all variables or by variable: what is kept of a value is within
    2**-(keep_bits + 1) of it."""
    compression: Literal["lz4", "zstd", "none"] = "lz4"
    """Always without loss: lz4 for speed, zstd for size."""
    max_files: Annotated[int, Field(gt=0)] | None = None
    """At most so many files a Case; without it one for each 8 lead times of a variable."""

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, content: object) -> object:
        return {"forecasts": False} if content == "none" else content

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.lead_hours is not None and self.every_hours is not None:
            raise ValueError("give either lead_hours or every_hours, not both")
        return self

    def bits_of(self, name: str) -> int | None:
        """How many bits of a variable's mantissa are kept; None for all."""
        return self.keep_bits.get(name) if isinstance(self.keep_bits, dict) else self.keep_bits


class Scores(_Frozen):
    """What forecasts are scored against, and where; without a key all that both sides hold."""

    during: bool = False
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
    boxes: dict[Annotated[str, AfterValidator(_check_name)], Region] = {}
    """Further regions."""
    quantiles: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Strict(False)] = ()
    """Of what is usual at the place, day and hour, such as 0.01 and 0.99: how well values beyond them are forecast,
    above those from a half on, below the others; not of precipitation, and only with a climatology."""
    members: Annotated[tuple[Annotated[File, BeforeValidator(_refuse_address)], ...], Strict(False)] = ()
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


class TimeLimits(_Frozen):
    """Seconds that a Case may stay in one stage without getting on; after that its worker is given up."""

    read: Annotated[float, Field(gt=0)] = 1800
    """Until the state that it starts from is there."""
    compute: Annotated[float, Field(gt=0)] = 3600
    """Until the next frames are there; the first come after the program was compiled."""
    write: Annotated[float, Field(gt=0)] = 1800
    """Until the next block is written."""


class RunConfig(_Frozen):
    """All that a run is made of."""

    store: Annotated[File, BeforeValidator(_refuse_address, json_schema_input_type=str)]
    """Folder of the zarr store to make, relative to the working directory."""
    inputs: Annotated[SyntheticInputs | DatasetInputs | ArchiveInputs, Field(discriminator="kind")]
    """Where the states come from that forecasts start from."""
    times: Times | None = None
    """Initial times; left out for dataset files, which fix them."""
    steps: Annotated[int, Field(gt=0, le=_MOST_HOURS // STEP_HOURS)]
    """Of 6 h, of each forecast; 40 are 10 days."""
    model: Model
    """The network and its weights."""
    workers: Workers = Workers()
    """Processes that compute."""
    retries: Annotated[int, Field(ge=0)] = 1
    """How often a failed Case is tried again before it is set aside."""
    limits: FrameLimits = "auto"
    """What a frame may hold; one beyond ends its Case. ``auto``: what could be weather, with a wide margin; ``off``:
    all that is finite; a mapping of variables to lowest and highest value: these so, the others as with auto."""
    time_limits: TimeLimits = TimeLimits()
    """After how long a Case that hangs is given up."""
    cache: Annotated[Literal["off"] | File, BeforeValidator(_read_cache)] | None = None
    """Where graphs and compiled programs are kept for later workers; ``off``: nowhere; without it the user's own cache
    folder, ``$XDG_CACHE_HOME/graphcast-batch`` or ``~/.cache/graphcast-batch``."""
    outputs: Outputs = Outputs()
    """What is kept of each forecast."""
    figures: Figures | None = None
    """What is drawn of it."""
    scores: Scores = Scores()
    """What it is held against."""

    @model_validator(mode="after")
    def _times_fit_inputs(self) -> Self:
        if self.inputs.kind == "datasets" and self.times is not None:
            raise ValueError("times must be left out with inputs.kind: datasets, whose files fix them")
        if self.inputs.kind != "datasets" and self.times is None:
            raise ValueError(f"times is required with inputs.kind: {self.inputs.kind}")
        return self

    @model_validator(mode="after")
    def _something_remains(self) -> Self:
        if not self.outputs.forecasts and not self.scores.during:
            raise ValueError("outputs: none needs scores.during: true, or nothing would remain of a forecast")
        if not self.outputs.forecasts and self.figures:
            raise ValueError("figures must be left out with outputs: none, which keeps no forecasts to draw")
        return self


def load_config(path: Path) -> RunConfig:
    """Reads and checks a run's configuration.

    Raises:
        ConfigError: the file is missing, is not YAML, or a key or value is not what it must be; every finding is
            named by its dotted path.
    """
    return parse_config(read_mapping(path), RunConfig, origin=str(path))


def dump_config(config: BaseModel) -> str:
    """The configuration as YAML that `load_config` reads back to an equal one."""
    return as_yaml(config.model_dump(mode="json", exclude_none=True))
