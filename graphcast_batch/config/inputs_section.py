"""Check the section ``inputs`` of a config: where initial states and truth are read from."""

from typing import Annotated, Literal

from pydantic import Field, Strict, model_validator

from graphcast_batch.config.field_types import Pattern
from graphcast_batch.credentials import options_without_secrets
from graphcast_batch.spec import FrozenModel

DialectName = Literal["graphcast", "weatherbench2", "weatherbench2-hres", "arco-era5", "cds", "cds-legacy", "grib"]


Accumulation = Literal["hourly", "since_start"]
"""Period of precipitation: the hour before each time, or since the start of the forecast."""


class SyntheticInputs(FrozenModel):
    """Weather of the synthetic planet that comes with the package."""

    kind: Literal["synthetic"]
    """The inputs are computed: the weather of a synthetic planet, for trying things out."""
    resolution: Annotated[float, Field(ge=0.05, le=30)]
    """Distance between grid points in degrees; it must divide 180."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the random weather; the climate of the planet is the same for every seed."""


class DatasetInputs(FrozenModel):
    """Dataset files as DeepMind publishes them for GraphCast, each with a few consecutive times."""

    kind: Literal["datasets"]
    """The inputs are GraphCast's own dataset files, which determine the initial times."""
    path: Pattern
    """Path of the dataset files; may be a glob such as ``/data/*.nc``."""
    per_file: Literal["first", "all"] = "first"
    """Number of Cases from each file: ``first`` makes one Case from the first input frames, ``all`` makes one from
    every time whose input frames are in the file."""
    names: dict[str, str] = {}
    """Mapping from names in the files to GraphCast's names, for variables and dimensions that are named otherwise."""
    units: dict[str, str] = {}
    """Units of variables (by GraphCast's names) or of ``level``, for files that state no unit or a wrong one."""


class ArchiveKeys(FrozenModel):
    """The keys that say where an archive is and how it is read, of every section that names one."""

    kind: str
    """Kind of the section."""
    path: Pattern | Annotated[tuple[Pattern, ...], Strict(False), Field(min_length=1)]
    """Paths of the archive: files, zarr stores, globs, folders of files, or addresses of remote stores; together they
    are one archive."""
    dialect: DialectName | None = None
    """Layout of the files, which decides how names and units are translated; by default it is recognized for each file.
    """
    names: dict[str, str] = {}
    """Mapping from names in the archive to GraphCast's names, for variables and dimensions that the layout does not
    know."""
    units: dict[str, str] = {}
    """Units of variables (by GraphCast's names) or of ``level``, for data that state no unit or a wrong one."""
    precipitation: Accumulation | None = None
    """Period over which ``total_precipitation`` is summed up: ``hourly`` is the hour before each time, ``since_start``
    is since the start of the forecast; by default as GRIB messages or the layout say."""
    regrid: Literal["subsample", "conservative", "linear"] | None = None
    """Method that brings a finer grid to the grid of the weights; by default a finer grid is refused."""
    anonymous: bool = False
    """Whether remote stores are read without credentials."""
    storage: dict[str, str] = {}
    """Options for remote stores, such as the region or the endpoint; ``${NAME}`` stands for an environment variable."""

    @model_validator(mode="before")
    @classmethod
    def _secrets_apart(cls, content: object) -> object:
        """Replace secrets by references, so that a config that is written or printed holds none."""
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
        """All paths of the archive."""
        return (self.path,) if isinstance(self.path, str) else self.path


class ArchiveInputs(ArchiveKeys):
    """An archive: fields at absolute times, in files or zarr stores of any known layout."""

    kind: Literal["archive"]
    """The inputs are an archive: files with any number of times, in any supported layout."""
    statics: Pattern | None = None
    """Path of another file or store from which the fields without time (orography, land-sea mask) are read, in place of
    those in ``path``."""
