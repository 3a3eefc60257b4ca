"""Describe what is wrong or suspicious in the inputs of a Case, as sentences for messages."""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.inputs.provenance import Provenance
from graphcast_batch.variables import VARIABLES

_MOST_LISTED: Final = 20
"""Largest number of names in a message."""
_NEAREST: Final = 5
_NEAR: Final = 0.7
"""Least ratio of `difflib` at which two names are taken for two spellings of one name."""
_TRAINED_ON: Final = re.compile(r"(?:trained|tuned) on (?:the )?([a-z]\w*)", re.IGNORECASE)
_YEARS: Final = re.compile(
    r"\b([A-Z]{2,}\d?)\b\S*\D{0,30}?((?:19|20)\d\d)(?: (?:to|and|until|through) | ?[-–] ?)((?:19|20)\d\d)"
)
"""Matches the name of a data set, its first year and its last year, as in "HRES-fc0 data from 2016 to 2021"."""


@dataclass(frozen=True)
class Finding:
    """A reason why a forecast cannot start.

    Attributes:
        variable: name of the variable or coordinate that is wrong, or several names.
        expected: the requirement, worded to follow "must".
        found: the violation, worded to follow "but".
        remedy: what the user can do.
        level: level of the first violation in hPa; None if it concerns no level.
        time: time of the first violation; None if it concerns no time.
    """

    variable: str
    expected: str
    found: str
    remedy: str
    level: float | None = None
    time: np.datetime64 | None = None

    def __str__(self) -> str:
        return f"{self.variable} must {self.expected}, but {self.found}; {self.remedy}"


@dataclass(frozen=True)
class Stated:
    """The unit of a variable as the data or the configuration state it, if it differs from the model's.

    Attributes:
        unit: unit that the values were converted from; empty if they were not converted.
        key: name of the variable in ``inputs.units``, if that differs from its own name.
    """

    unit: str = ""
    key: str = ""

    def __str__(self) -> str:
        return f", after their conversion from {self.unit!r}, the unit that is stated" if self.unit else ""


SILENT: Final = Stated()


def listed(held: Iterable[str], wanted: Iterable[str]) -> str:
    """Return names as text for a message: all of them, or of many those that are most similar to wanted names.

    Args:
        held: the names.
        wanted: names that are sought, in all their spellings.
    """
    names, sought = sorted(held), list(wanted)
    if len(names) <= _MOST_LISTED or not sought:
        return ", ".join(names) or "none"
    unknown = [name for name in names if name not in VARIABLES] or names
    nearness = {name: max(_nearness(name, one) for one in sought) for name in unknown}
    nearby = sorted(unknown, key=lambda name: -nearness[name])[:_NEAREST]
    return f"{len(names)} others, of which {', '.join(nearby)} are nearest by name"


def near_pair(held: Iterable[str], wanted: Iterable[str]) -> tuple[str, str] | None:
    """Return the most similar pair of a name that is not in `VARIABLES` and a wanted name; None if none is similar."""
    unknown, sought = [name for name in held if name not in VARIABLES], list(wanted)
    pairs = [(_nearness(name, one), name, one) for name in unknown for one in sought]
    nearness, name, one = max(pairs, default=(0.0, "", ""))
    return (name, one) if nearness >= _NEAR else None


def _nearness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one.lower(), other.lower()).ratio()


def input_warnings(description: str, data: Provenance, init_times: NDArray[np.datetime64]) -> list[str]:
    """Return warnings about inputs that the weights accept, but on which they are expected to perform worse or better.

    Args:
        description: description of the checkpoint, free text; only what it mentions is compared.
        data: provenance of the inputs.
        init_times: initial times of the Cases, (init time,) datetime64.
    """
    text = " ".join(description.split())
    return [*_other_analyses(text, data), *_training_years(text, init_times)]


def _other_analyses(text: str, data: Provenance) -> list[str]:
    """Warn if the inputs are other analyses than those that the weights were last trained on."""
    named = [name.upper() for name in _TRAINED_ON.findall(text)]
    if not data.kind or not named or named[-1] not in ("ERA5", "HRES") or named[-1] == data.kind:
        return []
    how = "fine-tuned" if len(named) > 1 else "trained"
    return [
        f"the weights were last {how} on {named[-1]}, but the inputs are {data}: forecasts will be worse than "
        "published, most of all in the first days and near the ground; use weights for these inputs"
    ]


def _training_years(text: str, init_times: NDArray[np.datetime64]) -> list[str]:
    periods = [(name, int(first), int(last)) for name, first, last in _YEARS.findall(text)]
    years = init_times.astype("datetime64[Y]").astype(np.int64) + 1970
    seen = np.zeros(years.shape, bool)
    for _, first, last in periods:
        seen |= (first <= years) & (years <= last)
    if not seen.any():
        return []
    what = ", ".join(f"{name} {first} to {last}" for name, first, last in periods)
    return [
        f"{np.count_nonzero(seen)} of {seen.size} initial times, in {_spans(sorted({*years[seen].tolist()}))}, lie in "
        f"the years that the weights were trained on ({what}): their scores look better than those of new weather; "
        f"judge the weights by times after {max(last for _, _, last in periods)}"
    ]


def _spans(years: Sequence[int]) -> str:
    """Return years as text, consecutive ones in the form "first to last"."""
    starts = [year for year in years if year - 1 not in years]
    ends = [year for year in years if year + 1 not in years]
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in zip(starts, ends, strict=True))
