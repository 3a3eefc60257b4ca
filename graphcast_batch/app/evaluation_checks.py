"""Check, before hours are spent on scores, that they can be compared and written."""

import difflib
from pathlib import Path
from typing import Final

from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.errors import ConfigError, EvaluationError
from graphcast_batch.evaluation.baselines import CLIMATOLOGY, PERSISTENCE
from graphcast_batch.evaluation.score_results import scored

COMPUTED_BASELINES: Final = (PERSISTENCE, CLIMATOLOGY)
"""Baselines that are computed here; others are stores."""


def check_baseline(other: str) -> None:
    """Refuse a baseline that is neither computed here nor a scored store."""
    if not scored(Path(other)):
        near = difflib.get_close_matches(other, COMPUTED_BASELINES, n=1)
        hint = f"did you mean {near[0]}?" if near else "evaluate that store first"
        raise EvaluationError(
            f"a baseline must be {', '.join(COMPUTED_BASELINES)} or the folder of a scored store, but {other} has no "
            f"scores; {hint}"
        )


def check_spectra_out(path: Path, config: RunConfig) -> None:
    """Check that there will be spectra and that they can be written, before hours are spent on computing them."""
    if not config.scores.spectra:
        raise ConfigError(
            "--spectra-out needs spectra, but scores.spectra of the config names no variables; add some, or leave the "
            "option out"
        )
    if path.suffix != ".csv" or not path.absolute().parent.is_dir():
        raise ConfigError(f"--spectra-out must be a .csv file in an existing folder, but is {path}; give another path")
