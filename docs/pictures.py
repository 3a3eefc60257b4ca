"""Make the pictures of the README: a map, a scorecard and a report, from forecasts on the synthetic planet.

Run it in a clone, with the extra ``test`` and a Chromium installed: ``.venv/bin/python docs/pictures.py``. It takes
some minutes on two cores, keeps its stores in ``runs/``, and writes ``docs/_static/*.png``.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
STATIC = ROOT / "docs" / "_static"
MAP = "2m_temperature"
WIDTH = 1200


def main() -> None:
    """Make the three pictures."""
    run("run", "configs/demo.yaml")
    run("evaluate", "runs/demo", "--baseline", "persistence")
    shutil.copy(last_map(ROOT / "runs" / "demo" / "figures"), STATIC / "map.png")
    run("run", "configs/hindcast.yaml")
    run("evaluate", "runs/hindcast", "--baseline", "persistence")
    run("compare", "runs/hindcast", "persistence", "--scorecard", str(STATIC / "scorecard.png"))
    run("report", "runs/demo", "--out", "runs/report.html")
    photograph(ROOT / "runs" / "report.html", STATIC / "report.png")
    for name in ("map", "scorecard", "report"):
        shrink(STATIC / f"{name}.png")


def run(*words: str) -> None:
    """Run a command of graphcast-batch in the clone."""
    subprocess.run([sys.executable, "-m", "graphcast_batch", *words], cwd=ROOT, check=True)


def last_map(figures: Path) -> Path:
    """Return the map of the last lead time of the first Case."""
    case = min(folder for folder in figures.iterdir() if folder.is_dir())
    return max(case.glob(f"{MAP}*.png"))


def photograph(page: Path, picture: Path) -> None:
    """Photograph the top of a page in a browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": WIDTH, "height": 900})
        tab.goto(page.as_uri())
        tab.wait_for_timeout(2000)
        tab.screenshot(path=picture)
        browser.close()


def shrink(picture: Path) -> None:
    """Make a picture at most `WIDTH` pixels wide, with 256 colors, so that a clone stays small."""
    with Image.open(picture) as image:
        image.thumbnail((WIDTH, 4 * WIDTH))
        image.convert("RGB").quantize(256).save(picture, optimize=True)


if __name__ == "__main__":
    main()
