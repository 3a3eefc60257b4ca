"""What a notebook imports: plans, runs, forecasts, scores and maps as values."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml
from PIL import Image

import graphcast_batch as gb
from graphcast_batch.cli import main
from graphcast_batch.config.loading import load_config
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.errors import ConfigError, EvaluationError, FigureError, InputError, StoreError
from graphcast_batch.stores.case_records import CaseFailure
from tests.conftest import FIGURES, ROOT, SMALL

HEAVY = ("jax", "haiku", "ray", "matplotlib", "xarray", "zarr")
NOTEBOOK = """
import json, os, sys
from collections import Counter

import graphcast_batch as gb
from graphcast_batch.cluster import driver

connected = Counter()
connect = driver.connected

def counted(*arguments):
    connected["times"] += 1
    return connect(*arguments)

driver.connected = counted
config, place = json.loads(sys.argv[1])
outcome = gb.run(gb.plan(config, store=place), address=os.environ["RAY_ADDRESS"], progress="notebook")
first = {
    "complete": outcome.succeeded, "left": outcome.left, "undrawn": outcome.undrawn, "text": repr(outcome),
    "made": [case.key for case in outcome.made], "html": outcome._repr_html_(),
}
print("SILENT FROM HERE", flush=True)
times = {"first": "2020-01-01T00", "last": "2020-01-01T00"}
gb.run(gb.plan(config, store=place + "-silent", times=times))
scores = gb.evaluate(outcome.store, baselines=["persistence"])
print("TO HERE", flush=True)
before = connected["times"]
again = gb.evaluate(outcome.store, baselines=["persistence"], over="each")
assert connected["times"] == before, "what is scored needs no cluster"
rmse = scores["2m_temperature"].sel(metric="rmse", region="global")
print("RESULT", json.dumps([first, {
    "dims": dict(scores.sizes), "each": dict(again.sizes), "attrs": scores.attrs,
    "temperature": scores["2m_temperature"].attrs,
    "forecast": rmse.sel(forecast="forecast").values.tolist(),
    "persistence": rmse.sel(forecast="persistence").values.tolist(),
}]))
"""


class Page(HTMLParser):
    """What a browser would show of an element, and whether every tag is closed in turn."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.shown = [], set(), ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.shown += data


def shown(html):
    """The text of valid HTML that holds nothing but colored text."""
    page = Page(html)
    assert page.open == []
    assert page.tags <= {"pre", "span"}
    return "\n".join(line.rstrip() for line in page.shown.splitlines())


def imported(code):
    """Which heavy packages a fresh Python has imported after it ran the code."""
    after = f"\nimport sys; print('HEAVY', *[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code + after], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.splitlines()[-1].split()[1:]


def test_importing_the_package_imports_nothing_heavy():
    assert imported("import graphcast_batch as gb; assert 'plan' in dir(gb)") == []


def test_opening_forecasts_needs_no_network_and_no_cluster():
    loaded = imported("import graphcast_batch as gb; gb.open_forecasts")
    assert not {"jax", "haiku", "ray", "matplotlib"} & set(loaded)


def test_help_comes_without_jax_ray_and_matplotlib():
    help_of = "from graphcast_batch.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    assert not {"jax", "haiku", "ray", "matplotlib"} & set(imported(help_of))


def test_every_public_name_is_there_and_others_are_not():
    assert {name for name in gb.__all__ if getattr(gb, name).__doc__} == set(gb.__all__)
    with pytest.raises(AttributeError, match="no attribute 'forecast_everything'"):
        gb.forecast_everything  # noqa: B018 - the look-up is what is tested


def content(tmp_path, **changes):
    return SMALL | {"store": str(tmp_path / "run")} | changes


def test_a_plan_tells_cases_bytes_and_memory(tmp_path):
    plan = gb.plan(content(tmp_path))

    # 15°: 13 latitudes by 24 longitudes; 5 variables at the surface and 6 on 13 levels; float32.
    frame_bytes = 4 * 13 * 24 * (5 + 6 * 13)
    assert (plan.case_bytes, plan.store_bytes) == (3 * frame_bytes, 4 * 3 * frame_bytes)
    assert (
        plan.init_times.tolist()
        == np.arange("2020-01-01", "2020-01-02", 6, "datetime64[h]").astype("datetime64[ns]").tolist()
    )
    assert set(plan.memory) == {"float32 on CPU, fast, 1 step a call", "float32 on CPU, lean, 1 step a call"}
    assert all(plan.memory[use] < plan.host_memory[use] for use in plan.memory)
    assert (plan.states, plan.skipped) == ({}, {})
    assert not (tmp_path / "run").exists()


def test_a_plan_shows_what_the_command_prints(small_config, capsys):
    config = small_config()
    with pytest.raises(SystemExit, match="0"):
        main(["plan", str(config)])
    printed = capsys.readouterr().out
    plan = gb.plan(config)

    words = " ".join(printed.split())
    assert " ".join(repr(plan).split()) == words
    assert " ".join(shown(plan._repr_html_()).split()) == words
    assert "4: 2020-01-01T00 to 2020-01-01T18, 3 steps (18 h) each" in repr(plan)


def test_file_mapping_and_checked_config_give_the_same_plan(tmp_path):
    given = content(tmp_path)
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(given))

    plans = [gb.plan(kind) for kind in (path, str(path), given, load_config(path))]
    assert [plan.config for plan in plans] == 4 * [parse_config(given, RunConfig, origin="here")]


def test_changes_narrow_a_section_and_one_of_another_kind_takes_its_place(tmp_path):
    plan = gb.plan(content(tmp_path), steps=5, model={"precision": "bfloat16"}, outputs={"levels": [500]})
    assert (plan.cases[0].steps, plan.config.model.precision, plan.config.outputs.levels) == (5, "bfloat16", (500,))
    assert plan.config.model.weights.kind == "random"

    other = gb.plan(content(tmp_path), inputs={"kind": "synthetic", "resolution": 30})
    assert str(other.assembled.source.grid) == "7 x 12 (30°)"
    assert other.config.inputs.seed == 0


def test_a_wrong_key_is_refused_by_its_path(tmp_path):
    with pytest.raises(ConfigError, match=r"given, with changes.*\n.*model\.precison"):
        gb.plan(content(tmp_path), model={"precison": "float32"})


def test_what_is_shown_is_escaped(tmp_path):
    plan = gb.plan(content(tmp_path))
    bad = "<script>alert('&')</script> [red]"
    failure = CaseFailure(
        key="2020-01-01T00", error="OSError", message=bad, traceback="", attempts=2, host="h", failed_at=""
    )
    outcome = gb.RunResult(plan, tmp_path / bad.replace("/", ""), (), (), (failure,), 3, {"x": bad}, 0.0, None)

    text = shown(outcome._repr_html_())
    assert text.count(bad) == 2
    assert "<script" not in outcome._repr_html_()
    assert repr(outcome) == text.rstrip("\n")
    assert not outcome.succeeded


@pytest.fixture(scope="module")
def noted(run_on_ray, tmp_path_factory):
    """A run with figures and its scores, as a notebook makes them; what it told."""
    folder = tmp_path_factory.mktemp("notebook")
    order = json.dumps([SMALL | {"store": "unused", "figures": FIGURES}, str(folder / "run")])
    done = run_on_ray(NOTEBOOK, order, cwd=folder, kind="python")
    assert done.returncode == 0, done.stderr
    result = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    return folder / "run", done.stdout, *json.loads(result.removeprefix("RESULT"))


def test_a_run_makes_what_the_command_makes_and_tells_how_it_goes(noted, finished):
    store, told, outcome, _ = noted

    assert outcome["complete"]
    assert (len(outcome["made"]), outcome["left"], outcome["undrawn"]) == (4, 0, {})
    assert "4 of 4 Cases complete, 4 of them made now, 0 failed, 0 left" in outcome["text"]
    assert shown(outcome["html"]).rstrip("\n") == outcome["text"]
    assert "2020-01-01T18 complete" in told
    xr.testing.assert_allclose(xr.open_zarr(store), xr.open_zarr(finished.store), rtol=1e-5)
    names = [{str(path.relative_to(each)) for path in each.rglob("*.png")} for each in (store, finished.store)]
    assert names[0] == names[1]
    assert len(names[0]) == 8


def test_nothing_is_printed_without_progress(noted):
    told = noted[1]

    assert re.search("SILENT FROM HERE\n(.*)TO HERE", told, re.DOTALL)[1] == ""


def test_scores_are_those_of_the_definition_beside_persistence(noted):
    store, _, _, scores = noted

    assert scores["dims"] | {"region": 13, "level": 13} == scores["dims"]
    assert (scores["dims"]["forecast"], scores["dims"]["prediction_timedelta"]) == (2, 3)
    assert scores["each"]["time"] == 4
    assert (scores["attrs"]["not_scored"], scores["attrs"]["without_truth"]) == ("", "")
    assert scores["temperature"] == {"cases": 4, "variable_units": "K"}
    truth = gb.plan(load_config(store / "run.yaml")).assembled.source
    held = gb.open_forecasts(store)
    # A cell reaches half-way to its neighbors, and those at the poles end there: differences of sines of its edges.
    edges = np.deg2rad(np.clip(np.arange(-97.5, 98, 15), -90, 90))
    area = xr.DataArray(np.diff(np.sin(edges)), dims="latitude")
    errors = [
        (held["2m_temperature"].isel(time=n) - truth.truth(case, ["2m_temperature"])["2m_temperature"]) ** 2
        for n, case in enumerate(gb.plan(load_config(store / "run.yaml")).cases)
    ]
    means = [error.drop_vars("latitude").weighted(area).mean(("latitude", "longitude")) for error in errors]
    expected = np.sqrt(np.mean([mean.values for mean in means], axis=0))
    np.testing.assert_allclose(scores["forecast"], expected, rtol=1e-5)
    assert not np.allclose(scores["persistence"], scores["forecast"], rtol=0.01)


def test_a_store_that_nothing_is_scored_of_says_so(finished):
    with pytest.raises(EvaluationError, match=r"needs scores\.climatology"):
        gb.evaluate(finished.store, baselines=["climatology"])


def test_paths_are_taken_as_text_or_as_objects(finished, tmp_path):
    made = gb.init_config(
        tmp_path / "a.yaml", inputs=Path("synthetic"), weights=Path("random"), store=tmp_path / "s", first="2020-01-01"
    )
    text = gb.init_config(
        str(tmp_path / "b.yaml"), inputs="synthetic", weights="random", store=str(tmp_path / "s"), first="2020-01-01"
    )
    assert made.summary == text.summary
    assert made.file.read_text() == text.file.read_text().replace("b.yaml", "a.yaml")
    with pytest.raises(EvaluationError, match=r"nowhere has no scores"):
        gb.evaluate(finished.store, baselines=[Path("nowhere")])
    with pytest.raises(InputError, match=r"nowhere"):
        gb.climatology(tmp_path / "nowhere", tmp_path / "c.zarr")
    with pytest.raises(InputError, match=r"nowhere"):
        gb.evaluate(finished.store, truth=tmp_path / "nowhere")


def test_a_baseline_that_is_neither_known_nor_scored_is_refused(finished):
    with pytest.raises(EvaluationError, match=r"persistance has no scores; did you mean persistence\?"):
        gb.evaluate(finished.store, baselines=["persistance"])


def test_forecasts_are_those_of_the_store_with_valid_times(finished):
    forecasts = gb.open_forecasts(finished.store)

    assert not forecasts["geopotential"].variable._in_memory
    xr.testing.assert_equal(
        forecasts.drop_vars(["valid_time", "complete_hours"]), xr.open_zarr(finished.store, chunks=None)
    )
    assert forecasts["valid_time"].values[1, 2] == np.datetime64("2020-01-02T00")
    assert forecasts["complete_hours"].values.tolist() == [18, 18, 18, 18]
    assert forecasts.attrs["incomplete"] == ""


@pytest.fixture
def partial(finished, tmp_path):
    """A store of which one Case is not whole, although its files are there."""
    finished.copy(tmp_path / "run")
    (record,) = (tmp_path / "run" / "ledger").rglob("2020-01-01T06.json")
    record.unlink()
    return tmp_path / "run"


def test_forecasts_that_are_not_whole_are_left_out_and_named(partial):
    forecasts = gb.open_forecasts(partial)

    assert [str(time)[11:13] for time in forecasts["time"].values] == ["00", "12", "18"]
    assert forecasts.attrs["incomplete"] == "2020-01-01T06"
    assert np.isfinite(forecasts["2m_temperature"].values).all()

    everything = gb.open_forecasts(str(partial), only_complete=False)
    assert everything["complete_hours"].values.tolist() == [18, 0, 18, 18]


def test_a_store_without_a_whole_forecast_is_refused(partial):
    for record in (partial / "ledger").rglob("2020-*.json"):
        record.unlink()

    with pytest.raises(StoreError, match="holds none of 4"):
        gb.open_forecasts(partial)


def pixels(picture):
    with Image.open(BytesIO(picture._repr_png_())) as image:
        return image.size, image.text["Description"]


def test_a_map_is_of_the_field_that_was_asked_for(finished, tmp_path):
    forecasts = gb.open_forecasts(finished.store)
    picture = gb.plot(forecasts, "geopotential", 500, init_time="2020-01-01T12", lead_hours=6)

    _, described = pixels(picture)
    assert "at 500 hPa" in described
    assert "Initial time 2020-01-01 12:00 UTC" in described
    assert "Lead time +6 h" in described
    assert picture == gb.plot(finished.store, "geopotential", 500, init_time="2020-01-01T12", lead_hours=6)
    picture.save(tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes() == picture.content


def test_without_a_lead_time_all_are_drawn_and_the_truth_stands_beside(finished):
    field = gb.open_forecasts(finished.store)["2m_temperature"]
    (narrow, low), _ = pixels(gb.plot(field, lead_hours=6))
    (_, high), _ = pixels(gb.plot(field))
    (wide, _), described = pixels(gb.plot(field, lead_hours=6, truth=field + 1))

    assert high > 2 * low
    assert wide > 1.5 * narrow
    assert "Target" in described


def test_a_field_that_is_not_there_is_refused_with_those_that_are(finished):
    forecasts = gb.open_forecasts(finished.store)
    with pytest.raises(FigureError, match=r"variable must be one of .*2m_temperature.*, but is 2m_temprature"):
        gb.plot(forecasts, "2m_temprature")
    with pytest.raises(FigureError, match=r"level of geopotential, hPa must be one of 50, .*1000, but is None"):
        gb.plot(forecasts, "geopotential")
    with pytest.raises(FigureError, match=r"lead_hours must be one of 6.0, 12.0, 18.0, but is 24"):
        gb.plot(forecasts, "2m_temperature", lead_hours=24)
    with pytest.raises(FigureError, match=r"init_time must be one of 2020-01-01T00.*, but is 1999-01-01"):
        gb.plot(forecasts, "2m_temperature", init_time="1999-01-01")


def test_a_plan_of_a_store_that_is_there_knows_what_is_whole(partial):
    plan = gb.plan(load_config(partial / "run.yaml"), store=str(partial))

    assert plan.states == {
        "2020-01-01T00": "complete",
        "2020-01-01T06": "missing",
        "2020-01-01T12": "complete",
        "2020-01-01T18": "complete",
    }
    assert Path(plan.config.store) == partial
