"""Many initial times become many GraphCast forecasts in one store.

In a notebook, each with the same code as the command of that name:

    >>> import graphcast_batch as gb
    >>> gb.Plan("run.yaml")                                # what a run would do; starts nothing
    >>> outcome = gb.run("run.yaml")                       # makes what is missing
    >>> forecasts = gb.open_forecasts(outcome.store)       # an xarray.Dataset, read when it is looked at
    >>> scores = gb.evaluate(outcome.store, baselines=["persistence"])
    >>> gb.plot(forecasts, "2m_temperature", lead_hours=48)

Nothing of that is imported until it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from graphcast_batch.api.forecasts import open_forecasts
    from graphcast_batch.api.pictures import Picture, plot
    from graphcast_batch.api.plans import Plan
    from graphcast_batch.api.runs import Outcome, run
    from graphcast_batch.api.scores import evaluate

__all__ = ["Outcome", "Picture", "Plan", "evaluate", "open_forecasts", "plot", "run"]
_HOMES: Final = {
    "Outcome": "runs",
    "Picture": "pictures",
    "Plan": "plans",
    "evaluate": "scores",
    "open_forecasts": "forecasts",
    "plot": "pictures",
    "run": "runs",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.api.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
