"""List what a report can show of a store: complete forecasts, and the statistics of the members of an ensemble."""

from dataclasses import dataclass, replace

from graphcast_batch.config.outputs_section import MEAN, STANDARD_DEVIATION, Statistic
from graphcast_batch.ensemble_statistics import statistic_name, statistic_text
from graphcast_batch.plan import Case
from graphcast_batch.report.summary import Opened
from graphcast_batch.setup.ensemble_store import statistics_in


@dataclass(frozen=True)
class View:
    """A forecast, or a statistic of all members of an initial time, over its lead times.

    Attributes:
        case: the forecast; of a statistic the Case of its initial time, without a member.
        statistic: mean, standard deviation or quantile of the members; None for a forecast.
    """

    case: Case
    statistic: Statistic | None = None

    @property
    def key(self) -> str:
        """Key of the Case, followed by the statistic, such as ``2020-01-01T00_mean``."""
        return self.case.key if self.statistic is None else statistic_name(self.case.key, self.statistic)

    @property
    def title(self) -> str:
        """What the view shows, as the title of a map."""
        if self.statistic is None:
            return "Prediction"
        return "Ensemble spread" if self.is_spread else f"Ensemble {statistic_text(self.statistic)}"

    @property
    def text(self) -> str:
        """Initial time and member or statistic, for people to choose from."""
        time = f"{str(self.case.init_time.astype('datetime64[h]')).replace('T', ' ')} UTC"
        if self.statistic is not None:
            spread = " (spread)" if self.is_spread else ""
            return f"{time}, {statistic_text(self.statistic)} of members{spread}"
        return time if self.case.member is None else f"{time}, member {self.case.member}"

    @property
    def is_spread(self) -> bool:
        """Whether the values are standard deviations, which have another scale than forecasts."""
        return self.statistic == STANDARD_DEVIATION

    @property
    def rank(self) -> int:
        """Place among the views of an initial time, lowest first: mean, spread, first member, quantiles, others."""
        if self.statistic is not None:
            return {MEAN: 0, STANDARD_DEVIATION: 1}.get(str(self.statistic), 3)
        return 4 if self.case.member else 2

    def variable(self, name: str) -> str:
        """Return the name that a variable has in the store of the view."""
        return name if self.statistic is None else statistic_name(name, self.statistic)


def views_of(opened: Opened) -> list[View]:
    """Return the views of the forecasts whose values are kept, and of the statistics of their members.

    Those of one initial time follow each other: first the statistics, then the members.

    Raises:
        StoreError: a ledger cannot be read.
    """
    found = [View(case) for case in opened.store.ledger.complete(opened.cases)]
    ensembles = opened.ensembles
    if ensembles is not None:
        without = dict.fromkeys(replace(case, member=None) for case in opened.cases)
        combined = ensembles.ledger.complete(list(without))
        found += [View(case, statistic) for case in combined for statistic in statistics_in(ensembles)]
    return sorted(found, key=lambda view: view.case)  # stable, and a Case without a member comes before those with one
