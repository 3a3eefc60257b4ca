"""The tree of errors: each says what it is about, what was expected, what was found and what to do.

Every error is also the builtin that a caller would expect, so that ``except ValueError`` and the like still work.
"""


class GraphcastBatchError(Exception):
    """Whatever this package raises on purpose."""


class ConfigError(GraphcastBatchError, ValueError):
    """A run's configuration cannot be used as it stands."""


class GridError(GraphcastBatchError, ValueError):
    """Latitudes or longitudes do not form a usable global grid."""


class TaskError(GraphcastBatchError, ValueError):
    """A task (which variables in, which out) contradicts itself, the model or the data."""


class CheckpointError(GraphcastBatchError, ValueError):
    """A file of weights is truncated, foreign or does not fit its own configuration."""


class StatisticsError(GraphcastBatchError, ValueError):
    """A normalisation constant is missing or unusable."""


class PackageError(GraphcastBatchError, ImportError):
    """A package that a run asks for is absent, another one, or cannot work with what else is installed."""


class OutsideTransformError(GraphcastBatchError, RuntimeError):
    """A Haiku module was used outside ``hk.transform``."""


class InputError(GraphcastBatchError, ValueError):
    """An archive or dataset file does not hold what a Case needs."""


class InputNotFoundError(InputError, FileNotFoundError):
    """A path that should hold input does not exist."""


class LayoutError(InputError):
    """A file holds nothing that is known by name."""


class StoreError(GraphcastBatchError, OSError):
    """A store cannot be opened, laid out, read or written."""


class StoreUnwritableError(StoreError):
    """The disk, a quota or permissions refuse what every Case would have to write: a run had better stop."""


class StoreMismatchError(StoreError, ValueError):
    """A store exists already and was laid out for something else."""


class ForecastError(GraphcastBatchError, ArithmeticError):
    """A forecast left the numbers it can be written in."""


class ClusterError(GraphcastBatchError, RuntimeError):
    """Workers could not be started or kept."""


class WorkersLostError(ClusterError):
    """A worker died that others cannot do without."""


class AllocationError(GraphcastBatchError, ValueError):
    """What a scheduler says of a job cannot be read, or contradicts itself."""


class SubmissionError(GraphcastBatchError, RuntimeError):
    """A job cannot be submitted as it is asked for."""


class StageTimeoutError(GraphcastBatchError, TimeoutError):
    """A Case was in one stage for too long, so that its worker was ended."""


class BenchError(GraphcastBatchError, RuntimeError):
    """A benchmark cannot be measured."""


class EvaluationError(GraphcastBatchError, ValueError):
    """Forecasts cannot be scored as asked: truth, climatology or baseline do not fit them."""


class FigureError(GraphcastBatchError, ValueError):
    """A figure was asked for that the data cannot give."""


class TrainingError(GraphcastBatchError, ValueError):
    """A training cannot be begun, taken up or gone on with as asked."""
