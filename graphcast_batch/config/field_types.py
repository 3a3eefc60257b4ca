"""Check values that several sections of a config share: paths, addresses and places on the globe."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, Strict

from graphcast_batch.credentials import without_secrets
from graphcast_batch.text import is_plain


def absolute_path(path: str) -> str:
    """Return a path or glob made absolute; an address such as ``s3://bucket/store.zarr`` stays as it is.

    Raises:
        ValueError: the working directory is gone, or the path has characters that a path must not have.
    """
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


def refuse_address(value: object) -> object:
    """Refuse the address of a store on other machines; other values pass.

    Raises:
        ValueError: the value is an address.
    """
    if isinstance(value, str) and "://" in value:
        raise ValueError(f"stores on object stores are not supported yet; give a folder, not {value}")
    return value


File = Annotated[Path, Strict(False), AfterValidator(lambda path: Path(absolute_path(str(path))))]
"""A path, made absolute: relative paths start from the working directory, and ~ is the home folder."""


Pattern = Annotated[str, AfterValidator(absolute_path), AfterValidator(without_secrets)]
"""A path, glob or address, made absolute; secrets in an address are replaced by references."""


Latitude = Annotated[float, Field(ge=-90, le=90)]


Longitude = Annotated[float, Field(ge=-180, le=360)]
