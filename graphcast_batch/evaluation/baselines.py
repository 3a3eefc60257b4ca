"""Read the baselines persistence and climatology like forecasts of a store, so that both are scored alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from graphcast_batch.evaluation.scoring_setup import ClimatologyReader, Fields, ScoredSubset
from graphcast_batch.inputs.case_inputs import Timeline
from graphcast_batch.plan import Case
from graphcast_batch.variables import HOUR

PERSISTENCE: Final = "persistence"
CLIMATOLOGY: Final = "climatology"


@dataclass(frozen=True, eq=False)
class Persistence:
    """Reader of persistence: the truth at the initial time, at all lead times.

    To compare ensembles with, it is also scored as a Gaussian distribution about that truth, whose standard deviation
    is that of the climatology at the valid time; see `graphcast_batch.evaluation.store_scoring.dressed`.

    Attributes:
        truth: the verification.
        part: where the forecasts' points lie on the truth's grid.
    """

    truth: Timeline
    part: ScoredSubset

    def fields(self, case: Case, names: Sequence[str], lead_hours: Sequence[int], levels: Sequence[int]) -> Fields:
        """Read the initial state and repeat it for each lead time.

        Raises:
            InputError: the truth lacks the initial time, or cannot be read.
        """
        start = case.init_time.astype("datetime64[ns]")
        state = self.truth.fields(list(names), np.array([start]), levels)
        return {name: np.repeat(self.part.of(state[name].values), len(lead_hours), axis=0) for name in names}


@dataclass(frozen=True, eq=False)
class ClimatologyForecast:
    """Reader of the climatological mean as a forecast.

    Attributes:
        climatology: whose mean is the forecast.
    """

    climatology: ClimatologyReader

    def fields(self, case: Case, names: Sequence[str], lead_hours: Sequence[int], levels: Sequence[int]) -> Fields:
        """Read the climatological mean at the valid times."""
        times = case.init_time.astype("datetime64[ns]") + np.array(lead_hours) * HOUR
        return self.climatology.fields(names, np.asarray(times), levels)
