"""Import optional packages, or raise an error that names what to install."""

import importlib
from types import ModuleType

from graphcast_batch.errors import InputError


def extra_module(module: str, extra: str) -> ModuleType:
    """Imports a module of a package that only some users need.

    Args:
        module: by its full name.
        extra: of this package, that brings it.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"the package {module.partition('.')[0]} must be installed to read this kind of input, but cannot be "
            f"imported: {error}; pip install 'graphcast-batch[{extra}]'"
        ) from error
