"""Draw the pictures of the README: maps of a forecast, a scorecard and the report, all of the synthetic planet.

Run it in a clone, with the extra ``test`` and a Chromium installed: ``.venv/bin/python docs/pictures.py``. It takes
some minutes on two cores, keeps its stores in ``runs/pictures``, and writes three files in ``docs/_static``.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.sync_api import sync_playwright

import graphcast_batch as gb
from graphcast_batch.app.score_drawing import draw_comparison
from graphcast_batch.evaluation.baselines import PERSISTENCE
from graphcast_batch.evaluation.score_store import FORECAST

ROOT: Final = Path(__file__).parents[1]
RUNS: Final = Path("runs", "pictures")
PICTURES: Final = Path("docs", "_static")
VARIABLE: Final = "2m_temperature"
LEAD_HOURS: Final = 48
SEASON: Final = {"first": "2016-01-01T00", "last": "2016-04-15T00", "every_hours": 60}
"""Initial times of the scorecard, enough of them for the test of significance."""
WIDTH: Final = 1200
"""Width of the pictures in pixels."""
COLORS: Final = 256
"""Number of colors of a picture, which keeps its file small."""


def main() -> None:
    """Draw the three pictures."""
    os.chdir(ROOT)
    store = forecasts("demo", figures={"variables": [VARIABLE], "levels": [], "lead_hours": [LEAD_HOURS]})
    first = min(folder for folder in (store / "figures").iterdir() if folder.is_dir())
    shrink(first / f"{VARIABLE}_{LEAD_HOURS:03}h.png", PICTURES / "map.png")

    season, card = forecasts("forecast", times=SEASON, steps=20, figures=None), RUNS / "scorecard.png"
    # The command compares a baseline with forecasts; a picture of forecasts compared with their baseline says more.
    draw_comparison(card, (season, FORECAST), (season, PERSISTENCE), ("forecast", "persistence"), "global")
    shrink(card, PICTURES / "scorecard.png")

    page, screenshot = gb.report(store, RUNS / "report.html"), RUNS / "report.png"
    photograph(page, screenshot)
    shrink(screenshot, PICTURES / "report.png")


def forecasts(name: str, **changes: object) -> Path:
    """Make forecasts like those of the demo, score them beside persistence, and return their store."""
    planned = gb.plan("configs/demo.yaml", store=str(RUNS / name), **changes)
    result = gb.run(planned, progress="notebook")
    if not result.succeeded:
        sys.exit(f"the forecasts of {result.store} must all be complete, but are not:\n{result}")
    gb.evaluate(result.store, baselines=["persistence"], progress="notebook")
    return result.store


def photograph(page: Path, picture: Path) -> None:
    """Save what a browser shows of the maps of a report."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": WIDTH, "height": 900})
        tab.goto(f"{page.absolute().as_uri()}#forecasts")
        tab.wait_for_timeout(2000)  # for the maps to be drawn
        tab.screenshot(path=picture)
        browser.close()


def shrink(source: Path, picture: Path) -> None:
    """Write a picture that is at most `WIDTH` pixels wide, with `COLORS` colors."""
    with Image.open(source) as image:
        image.thumbnail((WIDTH, 4 * WIDTH), Image.Resampling.LANCZOS)
        few = image.convert("RGB").quantize(COLORS, kmeans=1, dither=Image.Dither.NONE)
        few.save(picture, optimize=True)


if __name__ == "__main__":
    main()
