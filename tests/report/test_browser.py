"""Pages in a real browser, as people use them: Debian's chromium, driven by Playwright."""

import re
import shutil
from contextlib import suppress

import numpy as np
import pytest

from graphcast_batch.report.page import write_page
from tests.evaluation.made import cases, truth
from tests.evaluation.test_stored import score
from tests.report.made import better, ensemble, fail, hole, journal, run, weather, worse

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SHOWN = "document.documentElement.dataset.shown"


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None:
        pytest.skip("there is no chromium; apt-get install chromium")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Three Cases too high by 2 K, scored, one that failed, and one that is still to be made."""
    folder = tmp_path_factory.mktemp("browser")
    found = run(folder / "s", better, count=5, complete=3, archive=weather(folder / "truth.zarr"))
    score(found, truth())
    journal(found)
    fail(found, cases(4)[3], "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>")
    return found


@pytest.fixture(scope="module")
def written(store):
    out = store.path.parent / "report.html"
    write_page(store.path, out)
    return out


@pytest.fixture
def opened(chromium):
    """Opens a page; at the end nothing may have been said on the console, and nothing asked of the world."""
    contexts, told, asked = [], [], []

    def open_page(path, anchor="", **options):
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"file://{path}{anchor}")
        until(page, f"{SHOWN} !== undefined || !document.getElementById('browser')")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert told == []
    assert [url for url in asked if not url.startswith(("file://", "data:"))] == []


def until(page, condition):
    """Waits; Playwright's own way would have the page evaluate text, which its policy forbids."""
    for _ in range(600):
        with suppress(sync_api.Error):  # a page that is just loading itself anew has no answer
            if page.evaluate(condition):
                return
        page.wait_for_timeout(50)
    pytest.fail(f"{condition} did not come true; shown is {page.evaluate(SHOWN)}")


def picture(page, number=0):
    return page.evaluate(f"document.querySelectorAll('canvas.field')[{number}].toDataURL()")


def shown(page):
    return page.evaluate(SHOWN).split("/")


def wait_for(page, *parts):
    until(page, f"{SHOWN} === {'/'.join(map(str, parts))!r}")


def point_at(page, number, latitude, longitude):
    """Moves the mouse over a place of a map of the globe."""
    canvas = page.locator("canvas.field").nth(number)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    x, y = (longitude + 180) / 360, (90 - latitude) / 180
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    return page.inner_text("#readout")


def numbers(text):
    return [float(found.replace("−", "-")) for found in re.findall(r"[+−]?\d+(?:\.\d+)?(?= (?:°C|K|m/s))", text)]


def test_the_slider_and_the_choices_change_the_picture(written, opened):
    page = opened(written)
    first = picture(page)

    page.fill("#lead", "3")
    wait_for(page, "2020-01-01T00", "temperature", 850, 24)
    later = picture(page)
    page.select_option("#case", "2020-01-02T00")
    wait_for(page, "2020-01-02T00", "temperature", 850, 24)

    assert len({first, later, picture(page)}) == 3
    page.select_option("#variable", "10m_u_component_of_wind")
    wait_for(page, "2020-01-02T00", "10m_u_component_of_wind", "", 24)
    assert not page.is_visible("#level")


def test_keys_move_through_lead_times_levels_variables_and_initial_times(written, opened):
    page = opened(written)
    page.focus("#browser")

    for key, expected in (
        ("ArrowRight", ("2020-01-01T00", "temperature", 850, 12)),
        ("ArrowUp", ("2020-01-01T00", "temperature", 500, 12)),
        ("ArrowDown", ("2020-01-01T00", "temperature", 850, 12)),
        ("ArrowLeft", ("2020-01-01T00", "temperature", 850, 6)),
        ("t", ("2020-01-01T12", "temperature", 850, 6)),
        ("T", ("2020-01-01T00", "temperature", 850, 6)),
        ("v", ("2020-01-01T00", "10m_u_component_of_wind", "", 6)),
    ):
        page.keyboard.press(key)
        wait_for(page, *expected)


def test_space_plays_and_pauses(written, opened):
    page = opened(written)
    page.focus("#browser")

    page.keyboard.press(" ")
    assert page.inner_text("#play") == "Pause"
    wait_for(page, "2020-01-01T00", "temperature", 850, 18)
    page.keyboard.press(" ")

    assert page.inner_text("#play") == "Play"


def test_the_value_under_the_pointer_is_that_of_the_store(store, written, opened):
    page = opened(written)
    field = store.forecasts()["temperature"].sel(level=850).isel(time=0, prediction_timedelta=0)
    half_a_gray = float(field.max() - field.min()) / 254 / 2

    for latitude, longitude, place in (
        (40, 100, "40°N 100°E"),
        (-60, -120, "60°S 120°W"),
        (0, -170, "0° 170°W"),
        (80, 0, "80°N 0°"),
    ):
        text = point_at(page, 0, latitude, longitude)
        expected = float(field.sel(latitude=latitude, longitude=longitude % 360)) - 273.15
        prediction, target, difference = numbers(text)
        assert text.startswith(f"{place}: ")
        assert prediction == pytest.approx(expected, abs=half_a_gray + 0.01)
        assert target == pytest.approx(expected - 2, abs=half_a_gray + 0.01)
        assert difference == pytest.approx(2, abs=0.01)


def test_where_nothing_is_known_the_map_says_so_and_has_a_color_of_its_own(tmp_path, opened):
    store = run(tmp_path / "s", hole, count=1)
    write_page(store.path, tmp_path / "r.html")
    page = opened(tmp_path / "r.html")

    assert "no data" in point_at(page, 0, 40, 120)
    assert "no data" not in point_at(page, 0, 40, 40)
    # Read from a copy, as a browser complains of a canvas that is drawn on and read.
    alphas = """() => {
      const map = document.querySelector("canvas.field"), copy = document.createElement("canvas");
      [copy.width, copy.height] = [map.width, map.height];
      const context = copy.getContext("2d", { willReadFrequently: true });
      context.drawImage(map, 0, 0);
      return [125, 45].map((east) => context.getImageData(map.width * (east + 180) / 360, 50, 1, 1).data[3]);
    }"""
    assert page.evaluate(alphas) == [0, 255]


def test_light_and_dark_are_as_the_system_says_until_the_switch_is_used(written, opened):
    def paper(page):
        return sum(map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]))

    light, dark = (opened(written, color_scheme=scheme) for scheme in ("light", "dark"))

    assert (paper(light) > 600, paper(dark) < 150) == (True, True)
    for page in (light, dark):
        page.click("#theme")
    assert (paper(light) < 150, paper(dark) > 600) == (True, True)
    for _ in range(20):  # on a busy machine Chromium may load the page before it has stored what the last one kept
        light.reload()
        if paper(light) < 150:
            return
    pytest.fail("the choice was not kept")


def test_links_lead_to_their_parts_of_the_page(written, opened):
    page = opened(written, reduced_motion="reduce")
    links = page.eval_on_selector_all("nav a", "(links) => links.map((link) => link.getAttribute('href'))")

    assert len(links) == 6
    for link in links:
        page.click(f"nav a[href='{link}']")
        assert page.evaluate(f"document.querySelector('{link}').getBoundingClientRect().top < innerHeight")


def test_a_view_has_an_address_that_leads_back_to_it(written, opened):
    page = opened(written)
    page.focus("#browser")
    for key in ("t", "ArrowUp", "ArrowRight"):
        page.keyboard.press(key)
    wait_for(page, "2020-01-01T12", "temperature", 500, 12)

    again = opened(written, anchor=page.evaluate("location.hash"))

    assert shown(again) == ["2020-01-01T12", "temperature", "500", "12"]


def test_a_page_that_is_watched_loads_itself_anew_and_keeps_the_view(store, tmp_path, opened):
    write_page(store.path, tmp_path / "r.html", reload_seconds=3)
    page = opened(tmp_path / "r.html")
    page.focus("#browser")
    page.keyboard.press("ArrowRight")
    wait_for(page, "2020-01-01T00", "temperature", 850, 12)

    page.evaluate("window.isOld = true")

    until(page, f"window.isOld === undefined && {SHOWN} === '2020-01-01T00/temperature/850/12'")


def test_texts_of_errors_are_text(written, opened):
    page = opened(written)
    page.click("#failures summary")

    assert "<script>document.title='taken'</script>" in page.inner_text("#failures pre")
    assert page.title() == "s · graphcast-batch"


def test_curves_tell_their_values_under_the_pointer(written, opened):
    page = opened(written)
    svg = page.locator("#charts .chart", has_text="Temperature at 850 hPa").locator("svg")
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()

    page.mouse.move(box["x"] + 0.98 * box["width"], box["y"] + 0.5 * box["height"])

    key = page.locator("#charts .chart", has_text="Temperature at 850 hPa").locator(".key").inner_text()
    assert "1 d" in key
    assert "2 K" in key


def test_nothing_is_wider_than_the_screen(written, opened):
    page = opened(written)

    for width in (1280, 768, 390, 320):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_everything_that_is_seen_has_words_for_those_who_do_not_see_it(written, opened):
    page = opened(written)

    labels = page.eval_on_selector_all(
        "canvas.field, svg[role=img], [role=region], [role=group]",
        "(nodes) => nodes.map((node) => node.getAttribute('aria-label') ?? node.getAttribute('aria-labelledby'))",
    )
    controls = page.eval_on_selector_all("select, input", "(nodes) => nodes.map((node) => node.labels.length)")

    assert all(labels)
    assert np.all(np.array(controls) == 1)
    assert "Temperature at 850 hPa, 2020-01-01 00 UTC, 6 h" in page.get_attribute("canvas.field", "aria-label")


def test_another_store_stands_below_with_differences_of_its_own(store, tmp_path, opened):
    other = run(tmp_path / "other", worse, count=2, archive=weather(tmp_path / "truth.zarr"))
    write_page(store.path, tmp_path / "r.html", against=other.path)
    page = opened(tmp_path / "r.html")

    text = point_at(page, 0, 40, 100)

    titles = page.locator(".map figcaption").all_inner_texts()
    assert titles == [
        *("Prediction of s", "Target", "Prediction of s − target"),
        *("Prediction of other", "Prediction of other − target"),
    ]
    ours, _, off, theirs, theirs_off = numbers(text)
    assert (off, theirs_off) == (pytest.approx(2, abs=0.01), pytest.approx(4, abs=0.01))
    assert theirs - ours == pytest.approx(2, abs=0.06)
    page.select_option("#case", "2020-01-02T00")
    wait_for(page, "2020-01-02T00", "temperature", 850, 6)
    assert "prediction of other no data" in page.inner_text("#readout")


def test_spread_and_mean_of_members_are_choices_beside_the_members(tmp_path, opened):
    store = ensemble(tmp_path / "s", archive=weather(tmp_path / "truth.zarr"))
    write_page(store.path, tmp_path / "r.html")
    page = opened(tmp_path / "r.html")

    options = page.locator("#case option").all_inner_texts()
    assert options[:4] == [
        "2020-01-01 00 UTC, mean of members",
        "2020-01-01 00 UTC, standard deviation of members (spread)",
        "2020-01-01 00 UTC, quantile 0.25 of members",
        "2020-01-01 00 UTC, member 0",
    ]
    *_, difference = numbers(point_at(page, 0, 40, 100))
    assert difference == pytest.approx(3, abs=0.01)
    assert page.locator(".map figcaption").all_inner_texts() == ["Ensemble mean", "Target", "Ensemble mean − target"]

    page.select_option("#case", "2020-01-01T00_standard_deviation")
    wait_for(page, "2020-01-01T00_standard_deviation", "temperature", 850, 6)
    assert page.locator(".map:visible figcaption").all_inner_texts() == ["Ensemble spread"]
    assert numbers(point_at(page, 0, 40, 100)) == [pytest.approx(13**0.5, abs=0.01)]
    again = opened(tmp_path / "r.html", anchor=page.evaluate("location.hash"))
    assert shown(again)[0] == "2020-01-01T00_standard_deviation"

    page.set_viewport_size({"width": 320, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    page.set_viewport_size({"width": 1280, "height": 900})
    page.select_option("#case", "2020-01-01T00-m002")
    wait_for(page, "2020-01-01T00-m002", "temperature", 850, 6)
    assert page.locator(".map:visible figcaption").all_inner_texts() == ["Prediction", "Target", "Prediction − target"]
    assert numbers(point_at(page, 0, 40, 100))[2] == pytest.approx(7, abs=0.01)


def test_pages_without_maps_open_as_quietly(tmp_path, opened):
    (tmp_path / "empty").mkdir()
    write_page(tmp_path / "empty", tmp_path / "waiting.html", reload_seconds=60)
    write_page(run(tmp_path / "s", complete=0).path, tmp_path / "missing.html")

    assert "Not laid out yet" in opened(tmp_path / "waiting.html").inner_text("main")
    assert "0 of 4 Cases are complete" in opened(tmp_path / "missing.html").inner_text("main")
