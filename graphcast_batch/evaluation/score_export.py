"""Write the scores of a store as a table in long form, CSV or Parquet, with pandas and pyarrow."""

import importlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from graphcast_batch.errors import EvaluationError
from graphcast_batch.evaluation.metrics import VECTORS
from graphcast_batch.evaluation.score_groups import stored_variables
from graphcast_batch.evaluation.score_results import Over, Results, average, average_pieces, pieces
from graphcast_batch.variables import HOUR

SCORES_COLUMN: Final = "scores"
"""Column of the name of scores, in a table of several."""
_ROWS_AT_ONCE: Final = 2**16
"""The most rows in memory at once; each batch is a row group of a Parquet file."""


def write_table(store: Path, path: Path, name: str = "forecast", over: Over = "all") -> int:
    """Write all metrics in long form, one variable after another; return the number of rows.

    Args:
        store: its path.
        path: of the file; an existing one is replaced. Parquet if the name ends in .parquet, otherwise CSV.
        name: of the scores.
        over: initial times to average over.

    Raises:
        EvaluationError: the file cannot be written, or no Case was scored.
        StoreError: there are no scores, or they cannot be read.
    """
    return write_results(path, _by_variable(store, name, over))


def write_tables(places: Mapping[str, tuple[Path, str]], path: Path, over: Over = "all") -> int:
    """Write all metrics of several forecasts like `write_table`; return the number of rows.

    Args:
        places: path of a store and name of scores in it, by the name that the first column, ``scores``, holds if there
            are several.
        path: of the file; an existing one is replaced. None is written without forecasts.
        over: initial times to average over.

    Raises:
        EvaluationError: the file cannot be written, or no Case was scored.
        StoreError: there are no scores, or they cannot be read.
    """
    named = ((name, table) for name, at in places.items() for each in _by_variable(*at, over) for table in tables(each))
    batches = (with_column(table, SCORES_COLUMN, name) if len(places) > 1 else table for name, table in named)
    return _write(path, batches) if places else 0


def with_column(table: pd.DataFrame, column: str, value: str) -> pd.DataFrame:
    """Return a table with a further first column of one value."""
    return pd.concat([pd.Series(value, table.index, object, name=column), table], axis=1)


def write_results(path: Path, results: Iterable[Results]) -> int:
    """Write results in long form, one below another; return the number of rows.

    Args:
        path: of the file; an existing one is replaced. Parquet if the name ends in .parquet, otherwise CSV.
        results: averaged over the same groups of initial times.

    Raises:
        EvaluationError: the file cannot be written.
    """
    return _write(path, chain.from_iterable(map(tables, results)))


def _write(path: Path, found: Iterable[pd.DataFrame]) -> int:
    try:
        return _write_parquet(path, found) if _is_parquet(path) else write_csv(path, found)
    except OSError as error:
        raise EvaluationError(f"the table {path} must be writable, but is not: {error}; give another path") from error


def check_table(path: Path) -> None:
    """Check that `write_table` can write to a path, before hours are spent on scoring.

    Raises:
        EvaluationError: the folder does not exist, or the package that writes Parquet is not installed.
    """
    if not path.absolute().parent.is_dir():
        raise EvaluationError(f"the table {path} must be in a folder that exists, but is not; give another path")
    if _is_parquet(path):
        _arrow(path)


def tables(results: Results) -> Iterator[pd.DataFrame]:
    """Convert results to long form, some rows at a time.

    A row stands for each value that exists, or that is undefined although Cases were scored (NaN).
    """
    group = {"all": None, "each": "time"}.get(results.over, results.over)
    for variable, values in results.values.data_vars.items():
        name, dims = str(variable), tuple(map(str, values.dims))
        counts, held = (each[name].transpose(*dims).values for each in (results.counts, results.held))
        there = np.argwhere(held > 0)
        for start in range(0, len(there), _ROWS_AT_ONCE):
            at = tuple(there[start : start + _ROWS_AT_ONCE].T)
            labels = {dim: values[dim].values[indices] for dim, indices in zip(dims, at, strict=True)}
            columns = {
                "variable": np.full(at[0].size, name, object),
                "level": pd.array(labels.get("level", [pd.NA] * at[0].size), "Int32"),
                "region": labels["region"],
                "lead_hours": (labels["prediction_timedelta"] // HOUR).astype(np.int32),
                **({} if group is None else {group: _group_labels(labels[group])}),
                "metric": labels["metric"],
                "value": values.values[at],
                "cases": counts[at].astype(np.int64),
            }
            yield pd.DataFrame(columns)


def write_csv(path: Path, batches: Iterable[pd.DataFrame]) -> int:
    """Write tables of the same columns one below another as CSV; return the number of rows.

    An undefined value is written as ``nan``; a variable that is not on levels has an empty level.

    Raises:
        OSError: the file cannot be written.
    """
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        for n, batch in enumerate(batches):
            level = batch["level"].astype(object).where(batch["level"].notna(), "")
            batch.assign(level=level).to_csv(file, header=n == 0, index=False, na_rep="nan", lineterminator="\r\n")
            count += len(batch)
    return count


def _group_labels(labels: NDArray[Any]) -> NDArray[Any]:
    """Return labels of initial times, hours, months or seasons as text."""
    return np.datetime_as_string(labels, "h") if labels.dtype.kind == "M" else labels.astype(str)


def _by_variable(store: Path, name: str, over: Over) -> Iterator[Results]:
    """Average all metrics of one variable after another; for each initial time, some initial times after others."""
    variables = stored_variables(store, name)
    variables += [vector for vector, parts in VECTORS.items() if all(part in variables for part in parts)]
    for variable in variables:
        means = pieces(store, name, [variable])
        if over == "each":
            yield from (average(some, over) for some in means)
        else:
            yield average_pieces(means, over)


def _write_parquet(path: Path, batches: Iterable[pd.DataFrame]) -> int:
    arrow, count = _arrow(path), 0
    kinds = {"level": arrow.int32(), "lead_hours": arrow.int32(), "value": arrow.float64(), "cases": arrow.int64()}
    first = next(iter(batches := iter(batches)))
    schema = arrow.schema([(column, kinds.get(column, arrow.string())) for column in first.columns])
    with arrow.parquet.ParquetWriter(path, schema) as writer:
        for batch in chain([first], batches):
            # Column by column, as pyarrow would take the NaN of a whole pandas table for missing values.
            columns = [arrow.array(batch[field.name].array, field.type, from_pandas=False) for field in schema]
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema))
            count += len(batch)
    return count


def _is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet"


def _arrow(path: Path) -> ModuleType:
    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise EvaluationError(
            f"the package pyarrow must be installed to write {path}, but cannot be imported: {error}; pip install "
            "'graphcast-batch[parquet]', or give a name that ends in .csv"
        ) from error
