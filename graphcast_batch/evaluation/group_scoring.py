"""Divide the scores of a name into groups, so that statistics and variables added later are scored alone.

The first group is ``scores/NAME``. Statistics, variables or spectra that a later evaluation adds go to groups
of their own, ``scores/NAME+1`` and so on, each with its own records: existing scores stay as they are, and a Case is
scored only in the groups that lack it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import JsonValue

from graphcast_batch.errors import StoreError
from graphcast_batch.evaluation.regions import Regions
from graphcast_batch.evaluation.score_layout import BOXES, ON_LEVELS, VECTORS, ScoreLayout
from graphcast_batch.evaluation.score_store import ADDED, FORECAST, ScoreStore, mismatch
from graphcast_batch.evaluation.scoring_setup import ScoringSetup
from graphcast_batch.evaluation.stored_members import PastYear, StoredMember, stored_of
from graphcast_batch.files.durable import explained, sync_folder
from graphcast_batch.stores.base import Store

_MAY_GROW = ("statistics", "variables", "spectra")
"""Keys of a layout whose lists a later evaluation may extend."""
_THRESHOLDS = "thresholds"
"""Key of a layout with the thresholds of each variable, which a later evaluation may extend."""


@dataclass(frozen=True, eq=False)
class GroupScoring:
    """One group of scores, with the setup that computes it alone.

    Attributes:
        scores: the group.
        scoring: what is scored against what, with the variables, statistics and spectra of the group.
    """

    scores: ScoreStore
    scoring: ScoringSetup


def lay_out_groups(
    store: Store, name: str, scoring: ScoringSetup, identity: Mapping[str, JsonValue]
) -> list[GroupScoring]:
    """Lay out the scores of a name; add groups for statistics, variables and spectra that existing groups lack.

    Args:
        store: of the forecasts.
        name: of the scores.
        scoring: what is scored against what.
        identity: what makes scores comparable beside variables, levels and regions: truth and climatology.

    Raises:
        StoreMismatchError: existing scores have another truth, climatology, regions or levels, or have statistics,
            variables or spectra that are no longer configured.
        StoreError: the store cannot be read or written.
    """
    regions = scoring.weighed()
    layout = score_layout_of(scoring, regions, identity)
    found = _without_fewer(store, name, layout)
    if not found or (store.only_scores and name == FORECAST):  # without forecasts nothing can be added
        return [GroupScoring(ScoreStore.lay_out(store.path, name, layout), scoring)]
    if found[0].added_to:
        raise StoreError(
            f"{found[0].folder} holds what was added to the scores {name!r}, which must be in the same folder, but are "
            f"not; remove {name}{ADDED}* to score again, or put {name} back"
        )
    _refuse_changed(found, layout, store)
    groups = stored_groups(store.path, name, scoring)
    last = int(found[-1].name.partition(ADDED)[2] or 0)
    for number, added in enumerate(_missing(scoring, groups), last + 1):
        groups.append(GroupScoring(ScoreStore.at(store.path, f"{name}{ADDED}{number}"), added))
    for group in groups:
        ScoreStore.lay_out(store.path, group.scores.name, score_layout_of(group.scoring, regions, identity))
    return groups


def _without_fewer(store: Store, name: str, layout: ScoreLayout) -> list[ScoreStore]:
    """Return the groups of a name, unless they are of fewer members than a layout: these get a name of their own.

    The scores of 7 members, of an ensemble that has more now, are called ``ensemble-7`` from then on.
    """
    found = ScoreStore.groups(store.path, name)
    known, wanted = ({*_texts(each.get("members"))} for each in (found[0].identity if found else {}, layout.known))
    if not known or not known < wanted:
        return found
    before = f"{name}-{len(known) + 1}"  # the first member is in no list
    with explained(f"renaming the scores {name} of fewer members in {store.path}"):
        for scores in reversed(found):  # those that were added first: they need the others
            scores.folder.rename(scores.folder.with_name(scores.name.replace(name, before, 1)))
        sync_folder(found[0].folder.parent)
    return []


def stored_groups(store: Path, name: str, scoring: ScoringSetup) -> list[GroupScoring]:
    """Return the groups that a store has of the scores of a name and that a setup computes, each with its share.

    Another evaluation may have added a group since the setup was made; it computes that group itself.

    Raises:
        StoreError: the scores cannot be read.
    """
    groups = ((scores, scores.identity) for scores in ScoreStore.groups(store, name))
    return [GroupScoring(scores, _share(scoring, known)) for scores, known in groups if _computes(scoring, known)]


def score_layout_of(scoring: ScoringSetup, regions: Regions, identity: Mapping[str, JsonValue]) -> ScoreLayout:
    """Return the layout of the scores that a scoring computes; for the arguments see `lay_out_groups`."""
    boxes = sorted(set(scoring.boxes) & set(regions.names))
    stored = stored_of(scoring.members)
    others = sorted(
        f"{member.path.resolve()}" if member.number is None else f"{_place(member, stored[0])} {member.number}"
        for member in stored[1:]
        if not member.lag_hours
    )
    years: list[JsonValue] = [member.year for member in scoring.members if isinstance(member, PastYear)]
    return ScoreLayout(
        statistics=scoring.statistics,
        on_levels=scoring.on_levels,
        levels=scoring.levels,
        regions=regions.names,
        areas=regions.totals,
        identity={
            **identity,
            **({"members": [*others]} if others else {}),
            **({"lag_hours": [*scoring.lags]} if any(scoring.lags) else {}),
            **({"years": years} if years else {}),
            **_by_name(_THRESHOLDS, scoring.thresholds, scoring),
            **_by_name(VECTORS, scoring.vectors, scoring),
            **({BOXES: {name: scoring.boxes[name].model_dump(mode="json") for name in boxes}} if boxes else {}),
        },
        spectra=scoring.spectra,
        bands=scoring.bands,
        parts=scoring.spectrum_parts,
    )


def _by_name(key: str, values: Mapping[str, Sequence[JsonValue]], scoring: ScoringSetup) -> dict[str, JsonValue]:
    """Return the values of the variables and vectors that are scored, if there are any, for an identity."""
    held: dict[str, JsonValue] = {name: [*values[name]] for name, _ in scoring.on_levels if name in values}
    return {key: held} if held else {}


def _place(member: StoredMember, first: StoredMember) -> str:
    """Return where a member is, in words that stay true when the store of the first one, with the scores, is moved."""
    return "member" if member.path == first.path else f"{member.path.resolve()} member"


def _refuse_changed(found: Sequence[ScoreStore], layout: ScoreLayout, store: Store) -> None:
    """Raise if existing scores have another definition than a layout, or something that the layout lacks."""
    wanted = layout.known
    for scores in found:
        known = scores.identity
        differences = {
            key: (known.get(key), wanted.get(key))
            for key in sorted(known.keys() | wanted.keys())
            if not _agree(key, known.get(key), wanted.get(key))
        }
        if differences:
            raise mismatch(scores.folder, differences, only_scores=store.only_scores)


def _agree(key: str, known: JsonValue, wanted: JsonValue) -> bool:
    if key in _MAY_GROW:
        return set(_texts(known)) <= set(_texts(wanted))
    if key in (_THRESHOLDS, VECTORS):
        theirs, ours = (each if isinstance(each, dict) else {} for each in (known, wanted))
        if key == VECTORS:
            return all(ours.get(name) == parts for name, parts in theirs.items())
        return all(set(_texts(values)) <= set(_texts(ours.get(name))) for name, values in theirs.items())
    return known == wanted or (key == "levels" and not (known and wanted))  # of surface variables alone


def _texts(value: JsonValue) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []


def _computes(scoring: ScoringSetup, known: Mapping[str, JsonValue]) -> bool:
    """Whether a setup has all variables, statistics and spectra of a group."""
    names = {text.removesuffix(ON_LEVELS) for text in _texts(known["variables"])}
    return (
        names <= dict(scoring.on_levels).keys()
        and set(_texts(known["statistics"])) <= set(scoring.statistics)
        and set(_texts(known.get("spectra"))) <= set(scoring.spectra)
    )


def _share(scoring: ScoringSetup, known: Mapping[str, JsonValue]) -> ScoringSetup:
    """Return the setup of one group, whose identity names its variables, statistics and spectra."""
    on_levels = dict(scoring.on_levels)
    names = [text.removesuffix(ON_LEVELS) for text in _texts(known["variables"])]
    spectra, thresholds = tuple(_texts(known.get("spectra"))), known.get(_THRESHOLDS)
    held = thresholds if isinstance(thresholds, dict) else {}
    return replace(
        _narrowed(scoring, [name for name in names if name in on_levels], spectra),
        only=tuple(_texts(known["statistics"])),
        thresholds={name: tuple(map(float, _texts(values))) for name, values in held.items()},
    )


def _missing(scoring: ScoringSetup, groups: Sequence[GroupScoring]) -> list[ScoringSetup]:
    """Return setups for all statistics and spectra that existing groups lack; variables that lack the same together."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, _ in scoring.on_levels:
        having = (group.scoring for group in groups if name in dict(group.scoring.on_levels))
        held = {one for group in having for one in group.statistics_of(name)}
        lacking = tuple(one for one in scoring.statistics_of(name) if one not in held)
        if lacking:
            alike.setdefault(lacking, []).append(name)
    found = [replace(_narrowed(scoring, names, ()), only=statistics) for statistics, names in alike.items()]
    held = {name for group in groups for name in group.scoring.spectra}
    spectra = tuple(name for name in scoring.spectra if name not in held)
    return [*found, *([replace(_narrowed(scoring, spectra, spectra), only=())] if spectra else [])]


def _narrowed(scoring: ScoringSetup, names: Sequence[str], spectra: tuple[str, ...]) -> ScoringSetup:
    """Return a setup with some of the variables, and the spectra of some of these."""
    on_levels = dict(scoring.on_levels)
    chosen = tuple((name, on_levels[name]) for name in names)
    levels = scoring.levels if any(levelled for _, levelled in chosen) else ()
    return replace(scoring, on_levels=chosen, levels=levels, spectra=spectra, bands=scoring.bands if spectra else ())
