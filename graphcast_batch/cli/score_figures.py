"""The scores of a store become its curves, scorecards and spectra."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from graphcast_batch.errors import FigureError


def draw_scores(store: Path, against: Sequence[Path], region: str, kind: str) -> list[Path]:
    """Draws what is known of the scores of a store, in its folder ``figures/scores``.

    Args:
        store: its path.
        against: other stores that were scored.
        region: which.
        kind: of file: png, svg or pdf.

    Returns:
        The files.

    Raises:
        FigureError: two stores have one name.
        EvaluationError: the others cannot be compared with it.
        StoreError: there are no scores in one of them, or they cannot be read.
    """
    folder = store / "figures" / "scores"
    return [
        *_curves(_names(store, against), region, folder, kind),
        *_scorecards(_names(store, against), region, folder, kind),
        *_spectra(store, region, folder, kind),
    ]


def draw_comparison(
    path: Path, ours: tuple[Path, str], other: tuple[Path, str], names: tuple[str, str], region: str
) -> None:
    """Draws how much better scores are than others.

    Args:
        path: of the picture.
        ours: path of a store, and the name of scores in it.
        other: the same.
        names: what the two are called.
        region: where.

    Raises:
        EvaluationError: they cannot be compared.
        FigureError: the file is to be of a kind that is not written.
        StoreError: there are no scores.
    """
    from graphcast_batch.evaluation.score_differences import score_differences
    from graphcast_batch.figures.scorecard import draw_scorecard

    draw_scorecard(path, score_differences(ours, other, region), names, region)


def _names(store: Path, against: Sequence[Path]) -> dict[str, tuple[Path, str]]:
    """Whose scores are drawn, by what they are called: forecasts first, then baselines, then other stores."""
    from graphcast_batch.evaluation.baselines import CLIMATOLOGY, PERSISTENCE
    from graphcast_batch.evaluation.ensemble import ENSEMBLE
    from graphcast_batch.evaluation.score_results import scored
    from graphcast_batch.evaluation.score_store import FORECAST

    made = {name: (store, name) for name in (ENSEMBLE, PERSISTENCE, CLIMATOLOGY) if scored(store, name)}
    found = {store.resolve().name: (store, FORECAST)} | made
    for other in against:
        name = other.resolve().name
        if name in found:
            raise FigureError(f"--against: stores must differ in their last name to be told apart, but two are {name}")
        found[name] = (other, FORECAST)
    return found


def _curves(scores: dict[str, tuple[Path, str]], region: str, folder: Path, kind: str) -> Iterator[Path]:
    from graphcast_batch.evaluation.score_curves import curves
    from graphcast_batch.figures.lead_time_curves import draw_curves

    for metric, group in groupby(curves(scores, region), key=lambda curve: curve.metric):
        path = folder / f"curves_{metric}_{region}.{kind}"
        draw_curves(path, list(group), region)
        yield path


def _scorecards(scores: dict[str, tuple[Path, str]], region: str, folder: Path, kind: str) -> Iterator[Path]:
    (ours, where), *others = scores.items()
    for name, other in others:
        path = folder / f"scorecard_against_{name}_{region}.{kind}"
        draw_comparison(path, where, other, (ours, name), region)
        yield path


def _spectra(store: Path, region: str, folder: Path, kind: str) -> Iterator[Path]:
    """Those of regions of whole latitude circles; others have none."""
    from graphcast_batch.evaluation.score_store import FORECAST
    from graphcast_batch.evaluation.spectra import bands_in, shown_spectra
    from graphcast_batch.figures.case_figures import figure_stem
    from graphcast_batch.figures.spectrum_curves import draw_spectra

    if region not in bands_in(store, FORECAST):
        return
    for spectra in shown_spectra(store, FORECAST, region):
        level = spectra.power["level"].item() if "level" in spectra.power.coords else None
        path = folder / f"spectra_{figure_stem(str(spectra.power.name), level)}_{region}.{kind}"
        draw_spectra(path, spectra.power, region, int(spectra.cases.max()))
        yield path
