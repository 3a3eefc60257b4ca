"""What costs nothing to forecast becomes forecasts, through the same door as those of a store."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from graphcast_batch.evaluation.case_scoring import ClimatologyReader, Fields, ScoredSubset
from graphcast_batch.inputs.case_inputs import Timeline
from graphcast_batch.plan import Case
from graphcast_batch.variables import HOUR

PERSISTENCE: Final = "persistence"
CLIMATOLOGY: Final = "climatology"


@dataclass(frozen=True, eq=False)
class Persistence:
    """The truth at the initial time, for all lead times.

    Attributes:
        truth: what came true.
        part: where the forecasts' points lie on its grid.
    """

    truth: Timeline
    part: ScoredSubset

    def fields(self, case: Case, names: Sequence[str], lead_hours: Sequence[int], levels: Sequence[int]) -> Fields:
        """The initial state, again and again.

        Raises:
            InputError: the truth lacks the initial time, or cannot be read.
        """
        start = case.init_time.astype("datetime64[ns]")
        state = self.truth.fields(list(names), np.array([start]), levels)
        return {name: np.repeat(self.part.of(state[name].values), len(lead_hours), axis=0) for name in names}


@dataclass(frozen=True, eq=False)
class Climatological:
    """What is usual at each valid time.

    Attributes:
        usual: the climatology.
    """

    usual: ClimatologyReader

    def fields(self, case: Case, names: Sequence[str], lead_hours: Sequence[int], levels: Sequence[int]) -> Fields:
        """The climatological mean."""
        times = case.init_time.astype("datetime64[ns]") + np.array(lead_hours) * HOUR
        return self.usual.fields(names, np.asarray(times), levels)
