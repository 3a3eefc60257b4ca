"""Find DeepMind's own package among what is installed, and import the modules that are used.

No part of that package is part of this one. Two published packages hold it, by different names.
"""

import warnings
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

import jax
import xarray as xr

from graphcast_batch.errors import PackageError
from graphcast_batch.models.base import Precision

_INSTALL: Final = 'pip install "git+https://github.com/google-deepmind/graphcast@v0.3.0"'


@dataclass(frozen=True)
class Package:
    """One of the names under which DeepMind published its package, and the modules that are used.

    Attributes:
        name: name by which the package is installed and imported.
        network: name of the module with the network.
        wrappers: name of the package with the modules that are put around the network.
        arrays: name of the module that lets xarray hold arrays of JAX.
        copies: whether the package copies a dataset by ``Dataset(dataset)``, which xarray allowed up to 2026.2.0.
    """

    name: str
    network: str
    wrappers: str
    arrays: str
    copies: bool

    @property
    def version(self) -> str:
        """Version that was installed; empty for a folder on the search path."""
        try:
            return metadata.version(self.name)
        except metadata.PackageNotFoundError:
            return ""

    def __str__(self) -> str:
        return f"DeepMind's {self.name} {self.version}".rstrip()


_PACKAGES: Final = (
    Package("weathernext", "weathernext.weathernext1_graph.graphcast", "weathernext.utils", "xarray_jax", copies=False),
    Package("graphcast", "graphcast.graphcast", "graphcast", "graphcast.xarray_jax", copies=True),
)
"""The package from version 0.3 on, and up to version 0.2."""


class PackageModules(NamedTuple):
    """The modules of the package that are used."""

    graphcast: ModuleType
    autoregressive: ModuleType
    casting: ModuleType
    normalization: ModuleType
    rollout: ModuleType
    xarray_jax: ModuleType


def installed_package() -> Package:
    """Return the newest of DeepMind's packages that is installed, without importing it.

    Raises:
        PackageError: none is installed, or only an unrelated package of the same name.
    """
    places = {package: _folders(package.name) for package in _PACKAGES}
    for package, folders in places.items():
        _, *inner = package.network.split(".")
        if any(Path(folder, *inner).with_suffix(".py").is_file() for folder in folders or ()):
            return package
    for package, folders in places.items():
        if folders is not None:
            where = ", ".join(folders) or "a single file"
            raise PackageError(
                f"model.implementation: deepmind needs DeepMind's package, but {package.name} ({where}) is another one "
                f"of that name: it lacks {package.network}. On PyPI graphcast is a tool for graph databases; remove "
                f"it, then {_INSTALL}"
            )
    raise PackageError(
        "model.implementation: deepmind needs DeepMind's package, weathernext or graphcast, but neither is installed "
        f"here; it is not on PyPI: {_INSTALL}"
    )


def check_libraries(package: Package, precision: Precision) -> None:
    """Refuse libraries with which the package is known to fail, as it would fail only in a forecast.

    Raises:
        PackageError: the package needs another version of jax or xarray.
    """
    if package.version.startswith("0.1") and precision == "bfloat16" and not hasattr(jax, "tree_map"):
        raise PackageError(
            f"{package} needs jax.tree_map for bfloat16, but jax {jax.__version__} no longer has it; set "
            f"model.precision to float32, or take the newer {_INSTALL}"
        )
    if package.copies:
        try:
            xr.Dataset(xr.Dataset())
        except TypeError as error:
            raise PackageError(
                f"{package} needs xarray 2026.2.0 or older, but xarray {xr.__version__} is installed; "
                f"pip install xarray==2026.2.0, or take the newer {_INSTALL}"
            ) from error


def imported(package: Package) -> PackageModules:
    """Import the modules of the package that are used.

    Raises:
        PackageError: a module is missing, or cannot work with what else is installed.
    """
    # These warnings are meant for the package's authors, and would come with every forecast.
    warnings.filterwarnings("ignore", category=FutureWarning, module=rf"{package.name}\.")
    wrappers = (f"{package.wrappers}.{name}" for name in PackageModules._fields[1:-1])
    return PackageModules(*(_module(package, name) for name in (package.network, *wrappers, package.arrays)))


def _folders(name: str) -> list[str] | None:
    found = find_spec(name)
    return None if found is None else list(found.submodule_search_locations or ())


def _module(package: Package, name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise PackageError(
            f"{package} must be complete and have what it needs, but importing {name} finds no module {error.name}; "
            f"install that, or the package again: {_INSTALL}"
        ) from error
    except Exception as error:  # a module runs while it is imported, and may fail with any other library
        raise PackageError(
            f"{package} must work with what else is installed, but with jax {jax.__version__} and xarray "
            f"{xr.__version__} {name} raises {type(error).__name__}: {error}; install versions that it was made for, "
            f"or {_INSTALL}"
        ) from error
