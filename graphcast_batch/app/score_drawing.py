"""Draw the scores of a store: curves by lead time, scorecards and spectra."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from graphcast_batch.errors import FigureError
from graphcast_batch.evaluation.baselines import CLIMATOLOGY, PERSISTENCE
from graphcast_batch.evaluation.ensemble import ENSEMBLE
from graphcast_batch.evaluation.ensemble_curves import (
    crps_curves,
    energy_curves,
    is_ensemble,
    rank_histograms,
    spread_curves,
)
from graphcast_batch.evaluation.lagged import LAGGED
from graphcast_batch.evaluation.past_years import CLIMATOLOGY_YEARS
from graphcast_batch.evaluation.reliability_diagrams import reliability_diagrams
from graphcast_batch.evaluation.score_curves import curves
from graphcast_batch.evaluation.score_differences import score_differences
from graphcast_batch.evaluation.score_results import scored
from graphcast_batch.evaluation.score_store import FORECAST
from graphcast_batch.evaluation.spectra import bands_in, shown_spectra
from graphcast_batch.figures.case_figures import figure_stem
from graphcast_batch.figures.lead_time_curves import draw_curves
from graphcast_batch.figures.rank_histograms import draw_rank_histograms
from graphcast_batch.figures.reliability_diagrams import draw_reliability
from graphcast_batch.figures.scorecard import draw_scorecard
from graphcast_batch.figures.spectrum_curves import draw_spectra


def draw_scores(store: Path, against: Sequence[Path], region: str, kind: str) -> list[Path]:
    """Draw all scores of a store into its folder ``figures/scores``.

    Args:
        store: folder of the store.
        against: folders of other scored stores, whose scores are drawn beside those of the store.
        region: name of the region.
        kind: of the files: png, svg or pdf.

    Returns:
        The files.

    Raises:
        FigureError: two stores have the same name.
        EvaluationError: the scores of two stores cannot be compared.
        StoreError: a store has no scores, or they cannot be read.
    """
    folder, scores = store / "figures" / "scores", _named_scores(store, against)
    return [
        *_curves(scores, region, folder, kind),
        *_scorecards(scores, region, folder, kind),
        *_spectra(store, region, folder, kind),
        *_ensembles(scores, region, folder, kind),
    ]


def draw_comparison(
    path: Path, ours: tuple[Path, str], other: tuple[Path, str], names: tuple[str, str], region: str
) -> None:
    """Draw a scorecard: how much better the scores of one forecast are than those of another.

    Args:
        path: file to write.
        ours: folder of a store, and the name of scores in it.
        other: the same of the scores to compare with.
        names: what the two forecasts are called in the picture.
        region: name of the region.

    Raises:
        EvaluationError: the scores cannot be compared.
        FigureError: the file name ends in a format that is not supported.
        StoreError: there are no scores.
    """
    draw_scorecard(path, score_differences(ours, other, region), names, region)


def _named_scores(store: Path, against: Sequence[Path]) -> dict[str, tuple[Path, str]]:
    """Return which scores are drawn, by their names in the figures: the store's own, its baselines, other stores."""
    computed = {
        name: (store, name)
        for name in (ENSEMBLE, LAGGED, CLIMATOLOGY_YEARS, PERSISTENCE, CLIMATOLOGY)
        if scored(store, name)
    }
    found = {store.resolve().name: (store, FORECAST)} | computed
    for other in against:
        name = other.resolve().name
        if name in found:
            raise FigureError(
                f"stores drawn together must have different folder names, but two are called {name}; rename one, or "
                "leave it out of --against"
            )
        found[name] = (other, FORECAST)
    return found


def _curves(scores: dict[str, tuple[Path, str]], region: str, folder: Path, kind: str) -> Iterator[Path]:
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


def _ensembles(scores: dict[str, tuple[Path, str]], region: str, folder: Path, kind: str) -> Iterator[Path]:
    """Draw the scores that only ensembles have, and the CRPS of all forecasts beside each other."""
    of_ensembles = {name: where for name, where in scores.items() if is_ensemble(*where)}
    if not of_ensembles:
        return
    for name, where in of_ensembles.items():
        path = folder / f"spread_of_{name}_{region}.{kind}"
        draw_curves(path, spread_curves(*where, region), region)
        yield path
        path = folder / f"ranks_of_{name}_{region}.{kind}"
        draw_rank_histograms(path, rank_histograms(*where, region), name, region)
        yield path
        for quantile, group in groupby(reliability_diagrams(*where, region), key=lambda diagram: diagram.quantile):
            event = "thresholds" if quantile is None else f"quantile_{quantile}"
            path = folder / f"reliability_of_{name}_{event}_{region}.{kind}"
            draw_reliability(path, list(group), name, region)
            yield path
    path = folder / f"curves_crps_{region}.{kind}"
    draw_curves(path, crps_curves(scores, region), region)
    yield path
    energy = energy_curves(of_ensembles, region)
    if energy:
        path = folder / f"curves_energy_score_{region}.{kind}"
        draw_curves(path, energy, region)
        yield path


def _spectra(store: Path, region: str, folder: Path, kind: str) -> Iterator[Path]:
    """Draw spectra of a region of complete latitude circles; other regions have none."""
    for name in (FORECAST, ENSEMBLE):
        if not scored(store, name) or region not in bands_in(store, name):
            continue
        whose = "" if name == FORECAST else f"of_{name}_"
        for spectra in shown_spectra(store, name, region):
            level = spectra.power["level"].item() if "level" in spectra.power.coords else None
            path = folder / f"spectra_{whose}{figure_stem(str(spectra.power.name), level)}_{region}.{kind}"
            draw_spectra(path, spectra.power, region, int(spectra.cases.max()))
            yield path
