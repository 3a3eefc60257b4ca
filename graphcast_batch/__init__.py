"""Many initial times become many GraphCast forecasts in one store.

In a notebook, each with the same code as the command of that name:

    >>> import graphcast_batch as gb
    >>> gb.PlannedRun("run.yaml")                                # what a run would do; starts nothing
    >>> outcome = gb.run("run.yaml")                       # makes what is missing
    >>> forecasts = gb.open_forecasts(outcome.store)       # an xarray.Dataset, read when it is looked at
    >>> scores = gb.evaluate(outcome.store, baselines=["persistence"])
    >>> gb.plot(forecasts, "2m_temperature", lead_hours=48)

Nothing of that is imported until it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from graphcast_batch.app.evaluating import evaluate
    from graphcast_batch.app.forecasts import open_forecasts
    from graphcast_batch.app.planning import PlannedRun
    from graphcast_batch.app.plotting import Picture, plot
    from graphcast_batch.app.running import RunResult, run

__all__ = ["Picture", "PlannedRun", "RunResult", "evaluate", "open_forecasts", "plot", "run"]
_HOMES: Final = {
    "RunResult": "running",
    "Picture": "plotting",
    "PlannedRun": "planning",
    "evaluate": "evaluating",
    "open_forecasts": "forecasts",
    "plot": "plotting",
    "run": "running",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.app.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
