"""Repair a store: forget damaged Cases and scores, so that the next run or evaluation makes them again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from graphcast_batch.evaluation.score_verification import repair_scores
from graphcast_batch.stores.flaws import Flaw
from graphcast_batch.stores.store_kinds import kind_at


@dataclass(frozen=True)
class Repair:
    """What was done to a store.

    Attributes:
        forgotten: keys of the Cases that the next run makes again.
        removed: files that were removed, by their path in the store.
        busy: keys of the Cases that were left alone, since another process works on them.
        unscored: keys of the Cases that the next evaluation scores again.
        lost: keys of the Cases whose damaged scores were left as they are, since nothing can make them again.
    """

    forgotten: tuple[str, ...]
    removed: tuple[str, ...]
    busy: tuple[str, ...]
    unscored: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


def repair(path: Path, flaws: Sequence[Flaw]) -> Repair:
    """Forget damaged Cases and scores, and remove damaged and unexpected files; touch nothing else.

    Each Case is leased and verified once more first, so that others may be at work, and a repair that broke off can be
    repeated.

    Args:
        path: the folder of the store.
        flaws: from `verify`.

    Raises:
        StoreError: coordinates are damaged, so that the place of no Case is known, or something cannot be removed.
    """
    kind = kind_at(path)
    cases = kind.repair(path, flaws)
    scores = repair_scores(kind.open(path), flaws)
    return Repair(
        cases.forgotten + scores.forgotten,
        cases.removed + scores.removed,
        cases.busy + scores.busy,
        scores.unscored,
        scores.lost,
    )
