"""Check the section ``inputs`` of a config: where initial states and truth are read from."""

from typing import Annotated, Literal

from pydantic import Field, Strict, model_validator

from graphcast_batch.config.field_types import Pattern
from graphcast_batch.credentials import options_without_secrets
from graphcast_batch.spec import FrozenModel

DialectName = Literal["graphcast", "weatherbench2", "weatherbench2-hres", "arco-era5", "cds", "cds-legacy", "grib"]


Accumulation = Literal["hourly", "since_start"]
"""Precipitation of the hour before, or since the start of a forecast."""


class SyntheticInputs(FrozenModel):
    """The planet that comes with the package."""

    kind: Literal["synthetic"]
    resolution: Annotated[float, Field(ge=0.05, le=30)]
    """Degrees between grid points, a divisor of 180."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the weather; the climate is the same."""


class DatasetInputs(FrozenModel):
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


class ArchiveInputs(FrozenModel):
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
