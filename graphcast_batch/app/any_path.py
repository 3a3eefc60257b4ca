"""Take paths as callers give them, as text or as any object that stands for one."""

import os
from pathlib import Path
from typing import TypeAlias

AnyPath: TypeAlias = str | os.PathLike[str]


def path_or_none(given: AnyPath | None) -> Path | None:
    """Return a path, if one is given."""
    return None if given is None else Path(given)


def text_or_none(given: AnyPath | None) -> str | None:
    """Return a path as text, if one is given; what may also be an address or a name must stay text."""
    return None if given is None else os.fspath(given)
