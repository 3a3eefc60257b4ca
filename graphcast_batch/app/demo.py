"""Write the example files of the package into a folder, and run the demo there."""

from pathlib import Path
from typing import Any, Final

from graphcast_batch.app.any_path import AnyPath
from graphcast_batch.app.planning import checked
from graphcast_batch.app.progress import ProgressChoice
from graphcast_batch.app.running import RunResult, run
from graphcast_batch.config.documents import read_mapping
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.errors import ConfigError
from graphcast_batch.files.durable import publish

DEMO_FOLDER: Final = "graphcast-batch-demo"
_PACKAGE: Final = Path(__file__).parents[1]
_EXAMPLES: Final = ("configs/**/*.yaml", "slurm/*.sbatch", "stats/README.md", "stats/synthetic/*.n[cp]*")
"""Patterns of the example files; setup.py has the same, and puts the files into a wheel."""
_CONFIG: Final = Path("configs", "demo.yaml")


def demo(folder: AnyPath = DEMO_FOLDER, *, address: str | None = None, progress: ProgressChoice = None) -> RunResult:
    """Write the example files into a folder and make the four forecasts of its ``configs/demo.yaml``.

    The forecasts are of a synthetic planet, so that no data are needed. The store is ``runs/demo`` in the folder.

    >>> gb.demo("graphcast-batch-demo").succeeded
    True

    Args:
        folder: to write to; it is created if it does not exist. Called again with the same folder, the function makes
            only what is missing.
        address: of a Ray cluster, as for `run`.
        progress: as for `run`.

    Returns:
        How the run ended.

    Raises:
        ConfigError: a file in the folder differs from the example file of that name.
        GraphcastBatchError: no worker can be started or kept.
    """
    return run(demo_config(folder), address=address, progress=progress)


def demo_config(folder: AnyPath) -> RunConfig:
    """Write the example files into a folder, and return its ``configs/demo.yaml`` with paths that start there.

    Args:
        folder: to write to; it is created if it does not exist.

    Raises:
        ConfigError: as for `write_examples`.
    """
    place = Path(folder)
    write_examples(place)
    content = read_mapping(place / _CONFIG)
    model = content["model"]
    changes: dict[str, Any] = {
        "store": str(place / content["store"]),
        "model": {
            "weights": {"path": str(place / model["weights"]["path"])},
            "statistics": str(place / model["statistics"]),
        },
    }
    return checked(content, changes)


def write_examples(folder: AnyPath) -> tuple[Path, ...]:
    """Write the example files into a folder: configs, the weights and statistics that they need, and batch scripts.

    >>> [file.name for file in gb.write_examples("graphcast-batch-demo")][:2]
    ['demo.yaml', 'ensemble.yaml']

    Args:
        folder: to write ``configs``, ``slurm`` and ``stats`` to; it is created if it does not exist.

    Returns:
        The paths of all example files in the folder, whether or not they were there before.

    Raises:
        ConfigError: a file in the folder differs from the example file of that name; nothing is written then.
    """
    home = _examples_home()
    sources = sorted(file for pattern in _EXAMPLES for file in home.glob(pattern))
    targets = {Path(folder) / source.relative_to(home): source.read_bytes() for source in sources}
    missing = [target for target, content in targets.items() if not _is_written(target, content)]
    for target in missing:
        target.parent.mkdir(parents=True, exist_ok=True)
        publish(target, targets[target])
    return tuple(targets)


def _examples_home() -> Path:
    """Return the folder of the example files: in the installed package, or at the top of a checkout."""
    installed = _PACKAGE / "examples"
    return installed if installed.is_dir() else _PACKAGE.parent


def _is_written(target: Path, content: bytes) -> bool:
    """Return whether an example file was written before.

    Raises:
        ConfigError: something else has its name.
    """
    if not target.exists():
        return False
    if not target.is_file() or target.read_bytes() != content:
        raise ConfigError(
            f"{target} must be the example file of that name or not exist, but differs; give another folder, or run "
            "your own config with graphcast-batch run"
        )
    return True
