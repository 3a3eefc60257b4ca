"""All errors that this package raises on purpose.

A message names the file or key that is wrong, what was expected, what was found and what to do. Each class also
inherits from the matching builtin exception, so that ``except ValueError`` catches it too.
"""


class GraphcastBatchError(Exception):
    """Base class of all errors that this package raises on purpose."""


class ConfigError(GraphcastBatchError, ValueError):
    """A configuration is invalid."""


class GridError(GraphcastBatchError, ValueError):
    """Latitudes or longitudes do not form a global grid that the model can use."""


class TaskError(GraphcastBatchError, ValueError):
    """A task (the variables and levels that a model reads and predicts) contradicts itself, the model or the data."""


class CheckpointError(GraphcastBatchError, ValueError):
    """A file of weights is truncated, is no checkpoint, or does not agree with the configuration that it contains."""


class StatisticsError(GraphcastBatchError, ValueError):
    """Normalization statistics are missing or unusable."""


class PackageError(GraphcastBatchError, ImportError):
    """A package that a run needs is missing, has another version, or does not work with the installed packages."""


class OutsideTransformError(GraphcastBatchError, RuntimeError):
    """A Haiku module was used outside ``hk.transform``."""


class InputError(GraphcastBatchError, ValueError):
    """An archive or dataset file does not hold what a Case needs."""


class InputNotFoundError(InputError, FileNotFoundError):
    """A path that should hold input does not exist."""


class LayoutError(InputError):
    """A file holds no variable with a known name."""


class StoreError(GraphcastBatchError, OSError):
    """A store cannot be opened, laid out, read or written."""


class StoreUnwritableError(StoreError):
    """The store cannot be written by any Case, because of a full disk, a quota or permissions; the run stops."""


class StoreMismatchError(StoreError, ValueError):
    """A store exists already and holds other forecasts than those that are to be written."""


class ForecastError(GraphcastBatchError, ArithmeticError):
    """A forecast holds values that are not finite or too large for the store."""


class ClusterError(GraphcastBatchError, RuntimeError):
    """Workers cannot be started, or die again and again."""


class WorkersLostError(ClusterError):
    """A worker died without which the others cannot continue."""


class AllocationError(GraphcastBatchError, ValueError):
    """The scheduler's description of a job cannot be read or contradicts itself."""


class SubmissionError(GraphcastBatchError, RuntimeError):
    """A job cannot be submitted with the given options."""


class StageTimeoutError(GraphcastBatchError, TimeoutError):
    """A Case exceeded the time limit of a stage, and its worker was stopped."""


class BenchError(GraphcastBatchError, RuntimeError):
    """A benchmark cannot be measured."""


class EvaluationError(GraphcastBatchError, ValueError):
    """Forecasts cannot be scored, because truth, climatology or baseline do not fit them."""


class FigureError(GraphcastBatchError, ValueError):
    """A figure cannot be drawn from the given data."""


class TrainingError(GraphcastBatchError, ValueError):
    """A training cannot be started, resumed or continued."""
