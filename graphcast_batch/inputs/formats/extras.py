"""Import optional packages, or raise an error that names what to install."""

import importlib
from types import ModuleType

from graphcast_batch.errors import InputError


def extra_module(module: str, extra: str) -> ModuleType:
    """Import a module of an optional package.

    Args:
        module: full name of the module.
        extra: name of this package's extra that installs it.

    Raises:
        InputError: the optional package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"the package {module.partition('.')[0]} must be installed to read this kind of input, but cannot be "
            f"imported: {error}; pip install 'graphcast-batch[{extra}]'"
        ) from error
