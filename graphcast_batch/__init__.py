"""Make many GraphCast forecasts from many initial times, in one zarr store, and score them.

What the command ``graphcast-batch`` does (but for ``launch`` and ``bench``) can be called from Python:

    >>> import graphcast_batch as gb
    >>> gb.plan("run.yaml")                                # what a run would do; starts nothing
    >>> result = gb.run("run.yaml", progress="notebook")   # makes what is missing
    >>> forecasts = gb.open_forecasts(result.store)        # an xarray.Dataset; values are read when they are used
    >>> scores = gb.evaluate(result.store, baselines=["persistence"])
    >>> gb.plot(forecasts, "2m_temperature", lead_hours=48)

Nothing heavy is imported before a name is used.
"""

import sys
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from graphcast_batch.app.averaging import climatology
    from graphcast_batch.app.checking import InputCheck, check
    from graphcast_batch.app.comparing import ScoreComparison, compare
    from graphcast_batch.app.config_schemas import config_schema
    from graphcast_batch.app.converting import ConvertedCheckpoint, convert_checkpoint
    from graphcast_batch.app.copying import CopiedForecasts, copy_forecasts
    from graphcast_batch.app.demo import demo, write_examples
    from graphcast_batch.app.diagnosing import doctor
    from graphcast_batch.app.drawing import FiguresResult, figures
    from graphcast_batch.app.evaluating import evaluate
    from graphcast_batch.app.fetching import FetchResult, fetch, published_files
    from graphcast_batch.app.finetuning import TrainingResult, finetune
    from graphcast_batch.app.first_config import FirstConfig, init_config
    from graphcast_batch.app.forecasts import open_forecasts
    from graphcast_batch.app.normalization_statistics import statistics
    from graphcast_batch.app.planning import PlannedRun, plan
    from graphcast_batch.app.plotting import Picture, plot
    from graphcast_batch.app.potential import potential_crps
    from graphcast_batch.app.progress import Progress
    from graphcast_batch.app.reporting import report
    from graphcast_batch.app.retrying import retry_failed
    from graphcast_batch.app.running import RunResult, run
    from graphcast_batch.app.single_forecast import Inference, infer
    from graphcast_batch.app.store_status import StoreStatus, status
    from graphcast_batch.app.submitting import Submission, submit
    from graphcast_batch.app.synthesizing import synthetic_archive
    from graphcast_batch.app.verifying import StoreVerification, verify

    __version__: str

__all__ = [
    "ConvertedCheckpoint",
    "CopiedForecasts",
    "FetchResult",
    "FiguresResult",
    "FirstConfig",
    "Inference",
    "InputCheck",
    "Picture",
    "PlannedRun",
    "Progress",
    "RunResult",
    "ScoreComparison",
    "StoreStatus",
    "StoreVerification",
    "Submission",
    "TrainingResult",
    "__version__",
    "check",
    "climatology",
    "compare",
    "config_schema",
    "convert_checkpoint",
    "copy_forecasts",
    "demo",
    "doctor",
    "evaluate",
    "fetch",
    "figures",
    "finetune",
    "infer",
    "init_config",
    "open_forecasts",
    "plan",
    "plot",
    "potential_crps",
    "published_files",
    "report",
    "retry_failed",
    "run",
    "statistics",
    "status",
    "submit",
    "synthetic_archive",
    "verify",
    "write_examples",
]
_HOMES: Final = {
    "averaging": ("climatology",),
    "checking": ("InputCheck", "check"),
    "comparing": ("ScoreComparison", "compare"),
    "config_schemas": ("config_schema",),
    "converting": ("ConvertedCheckpoint", "convert_checkpoint"),
    "copying": ("CopiedForecasts", "copy_forecasts"),
    "demo": ("demo", "write_examples"),
    "diagnosing": ("doctor",),
    "drawing": ("FiguresResult", "figures"),
    "evaluating": ("evaluate",),
    "fetching": ("FetchResult", "fetch", "published_files"),
    "finetuning": ("TrainingResult", "finetune"),
    "first_config": ("FirstConfig", "init_config"),
    "forecasts": ("open_forecasts",),
    "normalization_statistics": ("statistics",),
    "planning": ("PlannedRun", "plan"),
    "plotting": ("Picture", "plot"),
    "potential": ("potential_crps",),
    "progress": ("Progress",),
    "reporting": ("report",),
    "retrying": ("retry_failed",),
    "running": ("RunResult", "run"),
    "single_forecast": ("Inference", "infer"),
    "store_status": ("StoreStatus", "status"),
    "submitting": ("Submission", "submit"),
    "synthesizing": ("synthetic_archive",),
    "verifying": ("StoreVerification", "verify"),
}
"""Public names by the module of ``graphcast_batch.app`` that defines them."""
_MODULE_OF: Final = {name: module for module, names in _HOMES.items() for name in names}


class _Package(ModuleType):
    """This package, in which the functions ``plan``, ``figures`` and ``report`` come before modules of these names.

    The import system sets each imported submodule as an attribute of its package, which would hide the function.
    Statements such as ``from graphcast_batch.plan import Case`` do not read that attribute, and work as ever.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _MODULE_OF and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> object:
    if name == "__version__":
        return version("graphcast-batch")
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.app.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
