"""Draw the figures of a store: maps of every complete Case, mean errors of all Cases, and scores."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from graphcast_batch.app.any_path import AnyPath
from graphcast_batch.app.executing import executor, on_cluster
from graphcast_batch.app.progress import Progress, ProgressChoice, chosen_progress
from graphcast_batch.app.score_drawing import draw_scores
from graphcast_batch.cluster.drain import Drain
from graphcast_batch.config.figures_section import FiguresConfig
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.errors import FigureError
from graphcast_batch.evaluation.score_results import scored
from graphcast_batch.figures.mean_error import ErrorSums, draw_mean_errors, errors_of, wanted_errors
from graphcast_batch.figures.store_figures import check_ensemble_figures, check_figures, draw_stored
from graphcast_batch.plan import Case
from graphcast_batch.setup.kept_config import kept_config
from graphcast_batch.setup.run_setup import RunSetup, assemble
from graphcast_batch.stores.store_kinds import open_store


@dataclass(frozen=True)
class FiguresResult:
    """What was drawn; `figures` returns it.

    Attributes:
        folder: that holds all figures of the store.
        case_figures: number of figures of single Cases.
        score_figures: files of figures of scores.
        mean_error_maps: number of maps of mean errors.
        undrawn: by key of a Case, why its figures were not drawn or why it is left out of the mean errors.
        stopped: whether the drawing was asked to stop before all was drawn.
    """

    folder: Path
    case_figures: int
    score_figures: tuple[Path, ...]
    mean_error_maps: int
    undrawn: dict[str, str]
    stopped: bool


def figures(
    place: AnyPath,
    *,
    against: Sequence[AnyPath] = (),
    region: str = "global",
    address: str | None = None,
    progress: ProgressChoice = None,
    drain: Drain | None = None,
    **changes: object,
) -> FiguresResult:
    """Draw the figures of every complete Case again, and the figures of the scores that a store has.

    >>> gb.figures("runs/demo", variables=["temperature"], levels=[850], projection="robinson")

    Args:
        place: folder of a store, or the path of a run's config.
        against: folders of other scored stores, whose scores are drawn beside those of this store.
        region: name of the region whose scores are drawn.
        address: of a Ray cluster; as for `run`.
        progress: as for `run`.
        drain: as for `run`.
        changes: keys of the section ``figures`` of the config, with values that replace those of the config.

    Raises:
        FigureError: nothing is to be drawn, or the forecasts lack what is to be drawn.
        GraphcastBatchError: something is missing, or one part does not fit another.
    """
    place, shown = Path(place), chosen_progress(progress)
    config = _with_figures(kept_config(place), changes, place)
    folder = config.store / "figures"
    score_figures = _draw_scores(config, [Path(store) for store in against], region, changes.get("format"), shown)
    if config.figures is None and score_figures is not None:
        return FiguresResult(folder, 0, score_figures, 0, {}, stopped=False)
    assembled = _drawable(config, place)
    complete = open_store(config.store).ledger.complete(assembled.plan.cases)
    of_ensembles = assembled.config.figures is not None and assembled.config.figures.of_ensembles
    together = whole_ensembles(assembled, complete, least=2) if of_ensembles else []
    with on_cluster(address, drain, shown) as stopping:
        count, undrawn = draw_cases(assembled, [*complete, *together], stopping, shown)
        maps = 0
        if assembled.config.figures and assembled.config.figures.mean_error:
            maps, unread = _draw_mean_errors(assembled, complete, stopping, shown)
            undrawn = unread | undrawn
        return FiguresResult(folder, count, score_figures or (), maps, undrawn, stopped=stopping.asked)


def whole_ensembles(assembled: RunSetup, complete: Sequence[Case], least: int = 0) -> list[Case]:
    """Return the initial times whose members can be drawn together, as Cases without a member.

    Args:
        assembled: the run.
        complete: complete members.
        least: number of members that is enough; 0 for all of them.
    """
    counts = Counter(replace(case, member=None) for case in complete if case.member is not None)
    enough = least or len(assembled.plan.members)
    return [case for case, count in counts.items() if count >= enough]


def draw_cases(
    assembled: RunSetup, cases: Sequence[Case], drain: Drain, progress: Progress
) -> tuple[int, dict[str, str]]:
    """Draw the figures of complete Cases on the connected cluster, until asked to stop.

    Args:
        assembled: the run.
        cases: to draw.
        drain: asks to stop.
        progress: receives a message for each Case that cannot be drawn.

    Returns:
        The number of figures, and by key of a Case why its figures were not drawn.
    """
    if not cases or drain.asked:
        return 0, {}
    progress.report(f"drawing the figures of {len(cases)} Cases")
    work = [(assembled.config.store, case, assembled.config.figures, assembled.source) for case in cases]
    count, undrawn = 0, dict[str, str]()
    for case, result in zip(cases, executor(drain, progress, "drawing")(draw_stored, work), strict=False):
        if isinstance(result, BaseException):
            undrawn[case.key] = str(result)
            progress.report(f"the figures of {case.key} were not drawn: {result}", "error")
        else:
            count += result
    progress.report(f"{count} figures in {assembled.config.store / 'figures'}")
    return count, undrawn


def _with_figures(config: RunConfig, changes: Mapping[str, object], place: Path) -> RunConfig:
    """Return the config with some keys of its section ``figures`` replaced."""
    if not changes:
        return config
    section = config.figures.model_dump(exclude_none=True) if config.figures else {}
    if changes.get("projection", "orthographic") != "orthographic":
        section.pop("center", None)
    wanted = parse_config(section | dict(changes), FiguresConfig, origin=f"{place}, with the options given,")
    return config.model_copy(update={"figures": wanted})


def _drawable(config: RunConfig, place: Path) -> RunSetup:
    """Open the inputs of a run whose forecasts are to be drawn, and check that they can be."""
    if config.figures is None:
        raise FigureError(
            f"{place} does not say what to draw; name a --variable, or add a section figures to the config"
        )
    if not config.outputs.forecasts:
        raise FigureError(f"{place} keeps only scores (outputs: none), so there are no forecasts to draw")
    assembled = assemble(config)
    kept = [each for each in assembled.plan.members if config.outputs.keeps_member(each.number)]
    if config.figures.of_ensembles and len(kept) < 2:
        raise FigureError(
            f"{place} must keep two members at least to draw them together, but keeps {len(kept)}; leave out "
            "--ensemble and --spaghetti"
        )
    check_figures(config.figures, assembled.plan.layout)
    check_ensemble_figures(config.figures, assembled.plan.layout)
    return assembled


def _draw_scores(
    config: RunConfig, against: Sequence[Path], region: str, kind: object, progress: Progress
) -> tuple[Path, ...] | None:
    """Draw the scores of a store; return the files, or None if it has no scores."""
    if not against and not scored(config.store):
        return None
    kind = kind or (config.figures.format if config.figures else "png")
    drawn = draw_scores(config.store, against, region, str(kind))
    progress.report(f"{len(drawn)} figures of scores in {config.store / 'figures' / 'scores'}")
    return tuple(drawn)


def _draw_mean_errors(
    assembled: RunSetup, cases: Sequence[Case], drain: Drain, progress: Progress
) -> tuple[int, dict[str, str]]:
    """Draw maps of the mean errors of all Cases.

    Returns:
        The number of maps, and by key why a Case is left out.
    """
    wanted, store, kept = assembled.config.figures, assembled.config.store, assembled.plan.layout.kept
    assert wanted is not None
    drawn, unread = 0, dict[str, str]()
    for which in wanted_errors(wanted, kept):
        sums = ErrorSums.none((len(which.hours), kept.latitude.size, kept.longitude.size))
        work = [(store, case, which, assembled.source) for case in cases]
        results = executor(drain, progress, f"errors of {which.name}")(errors_of, work)
        for case, result in zip(cases, results, strict=False):
            if isinstance(result, BaseException):
                unread[case.key] = str(result)
                progress.report(f"{case.key} is left out of mean errors: {result}", "error")
            else:
                sums.add(result)
        if drain.asked:
            break
        drawn += len(draw_mean_errors(store, which, sums, wanted.format))
    progress.report(f"{drawn} maps of mean errors in {store / 'figures'}")
    return drawn, unread
