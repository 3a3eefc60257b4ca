import re
import shutil
from dataclasses import replace
from datetime import datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from graphcast_batch.app import planning
from graphcast_batch.config.figures_section import FiguresConfig
from graphcast_batch.config.loading import load_config
from graphcast_batch.config.outputs_section import OutputsConfig, RegionConfig
from graphcast_batch.config.times_section import TimesConfig
from graphcast_batch.errors import ConfigError, FigureError, TaskError
from graphcast_batch.figures.store_figures import check_figures
from graphcast_batch.grid import Grid
from graphcast_batch.plan import Case, parse_key, plan_cases, plan_times
from graphcast_batch.setup.resources import check_memory, memory_uses
from graphcast_batch.setup.run_setup import assemble
from graphcast_batch.setup.run_warnings import run_warnings
from graphcast_batch.spec import TASKS
from graphcast_batch.stores.layout import Layout, plan_layout
from graphcast_batch.variables import is_on_levels
from tests.conftest import SMALL

QUARTER = Grid(np.linspace(-90, 90, 721, dtype=np.float32), np.arange(0, 360, 0.25, dtype=np.float32))
COARSE = Grid(np.linspace(-90, 90, 19, dtype=np.float32), np.arange(0, 360, 10, dtype=np.float32))
START = datetime(2020, 1, 1)  # noqa: DTZ001 - UTC without a zone


def test_a_case_is_named_by_its_initial_time_and_knows_its_lead_times():
    case = Case(np.datetime64("2020-01-01T06", "ns"), 3, 6)

    assert case.key == "2020-01-01T06"
    assert case.lead_times.astype("timedelta64[h]").astype(int).tolist() == [6, 12, 18]
    assert sorted([Case(np.datetime64("2020-01-02"), 1, 6), case])[0] is case


def test_the_lead_times_of_a_case_are_multiples_of_the_step_of_its_model():
    assert Case(START, 4, 12).hours == 48
    assert Case(START, 4, 12).lead_times.astype(int).tolist() == [12, 24, 36, 48]


def test_a_member_is_in_the_key_and_comes_after_the_case_without():
    alone, members = (
        Case(np.datetime64("2020-01-01T06"), 3, 6),
        [Case(np.datetime64("2020-01-01T06"), 3, 6, member=number) for number in (7, 1000, 0)],
    )

    assert [case.key for case in members] == ["2020-01-01T06-m007", "2020-01-01T06-m1000", "2020-01-01T06-m000"]
    assert [case.member for case in sorted([*members, alone])] == [None, 0, 7, 1000]
    assert len({alone, *members, replace(alone, member=7)}) == 4
    with pytest.raises(ValueError, match="member of a Case must be 0 or more, but is -1"):
        replace(alone, member=-1)


@given(st.integers(-719_528 * 24, 2_932_896 * 24), st.none() | st.integers(0, 2**31))
def test_a_key_gives_back_the_initial_time_and_the_member(hours, member):
    case = Case(np.datetime64(hours, "h"), 1, 6, member=member)

    if 0 <= int(str(case.init_time.astype("datetime64[Y]"))) <= 9999:
        assert parse_key(case.key) == (case.init_time, member)


@pytest.mark.parametrize("key", ["", "2020-01-01", "2020-01-01T06-m7", "2020-01-01T06-m", "2020-01-01T06.json"])
def test_what_is_no_key_of_a_case_is_refused(key):
    with pytest.raises(ValueError, match=r"like 2020-01-01T06 or 2020-01-01T06-m007, but is"):
        parse_key(key)


@given(st.integers(1, 48), st.integers(0, 400))
def test_a_span_gives_every_time_from_first_to_last(every, hours):
    times = plan_times(TimesConfig(first=START, last=START + timedelta(hours=hours), every_hours=every))

    assert times[0] == np.datetime64(START)
    assert set(np.diff(times).astype(int).tolist()) <= {every}
    assert times[-1] <= np.datetime64(START + timedelta(hours=hours)) < times[-1] + np.timedelta64(every, "h")


def test_a_list_is_put_in_order():
    times = plan_times(TimesConfig(list=(START + timedelta(hours=6), START)))

    assert [str(time) for time in times] == ["2020-01-01T00", "2020-01-01T06"]


def test_times_that_the_archive_cannot_start_are_set_aside_with_what_is_lacking():
    held = np.arange("2020-01-01T00", "2020-01-01T19", 6, dtype="datetime64[h]").astype("datetime64[ns]")
    wanted = [np.datetime64("2020-01-01T00"), np.datetime64("2020-01-01T06"), np.datetime64("2020-01-02T00")]

    cases, aside = plan_cases(wanted, 4, held, TASKS["GraphCast"])

    assert [case.key for case in cases] == ["2020-01-01T06"]
    assert aside == (
        ("2020-01-01T00", "the archive lacks 2019-12-31T18"),
        ("2020-01-02T00", "the archive lacks 2020-01-02T00"),
    )


def test_lead_times_beyond_what_can_be_stored_are_refused():
    with pytest.raises(ConfigError, match=r"steps must be 427007 at most, .* of 6 h .*, but is 427008"):
        plan_layout(TASKS["GraphCast"], COARSE, 427_008, {})


def test_a_run_without_any_case_is_refused():
    with pytest.raises(ConfigError, match="none of the 1 initial times can be run; the first: 2020-01-01T00"):
        plan_cases([np.datetime64("2020-01-01T00")], 4, [], TASKS["GraphCast"])


def test_a_layout_counts_what_graphcast_writes():
    layout = plan_layout(TASKS["GraphCast"], QUARTER, 40, {})

    assert layout.channels == 227
    assert layout.frame_bytes == 227 * 721 * 1440 * 4
    assert layout.case_bytes == 40 * layout.frame_bytes
    assert layout.case_files == 11 * 5
    assert list(layout.kept.variables) == sorted(layout.kept.variables)


@given(st.integers(1, 100))
def test_shards_cover_the_steps(steps):
    layout = Layout(COARSE, (500,), (("a", True), ("b", False)), steps, 6)

    assert 1 <= layout.block_steps <= min(8, steps)
    assert layout.case_files == 2 * -(-steps // layout.block_steps)


@given(st.integers(1, 60), st.integers(2, 600))
def test_shards_are_as_long_as_few_files_need(steps, max_files):
    layout = Layout(COARSE, (500,), (("a", True), ("b", False)), steps, 6, OutputsConfig(max_files=max_files))

    assert layout.case_files <= max_files
    # Shorter ones, of which there may be no fewer than usual, would make more files than that.
    shorter = layout.block_steps - 1
    assert layout.block_steps <= min(8, steps) or 2 * -(-steps // shorter) > max_files


def test_what_is_kept_is_counted_and_what_is_computed_too():
    outputs = OutputsConfig(
        variables=("temperature", "2m_temperature"),
        levels=(850, 500),
        every_hours=24,
        region=RegionConfig(latitude=(30, 60), longitude=(350, 20)),
    )
    layout = plan_layout(TASKS["GraphCast"], QUARTER, 40, {}, outputs)

    assert layout.kept.on_levels == (("2m_temperature", False), ("temperature", True))
    assert layout.kept.levels == (500, 850)
    assert layout.kept.lead_hours == tuple(range(24, 241, 24))
    assert (layout.kept.latitude.size, layout.kept.longitude.size) == (121, 121)
    assert layout.kept.longitude[[0, -1]].tolist() == [-10, 20]
    assert layout.case_bytes == 3 * 121 * 121 * 4 * 10
    assert layout.case_files == 2 * 2
    assert (layout.channels, layout.frame_bytes) == (227, 227 * 721 * 1440 * 4)


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        (
            {"variables": ("geopotential",), "levels": (500,)},
            r"figures\.variables: geopotential is not in the forecast",
        ),
        ({"variables": ("temperature",), "levels": (850,)}, r"figures\.levels: temperature has no level 850 hPa"),
        (
            {"variables": ("temperature",), "levels": (500,), "lead_hours": (6,)},
            r"figures\.lead_hours: .* of 6 h, but 24",
        ),
    ],
)
def test_figures_of_what_is_not_kept_are_refused(figures, message):
    outputs = OutputsConfig(variables=("temperature",), levels=(500,), every_hours=24)
    layout = plan_layout(TASKS["GraphCast"], COARSE, 8, {}, outputs)

    check_figures(FiguresConfig(variables=("temperature",), levels=(500,), lead_hours=(24,)), layout)
    with pytest.raises(FigureError, match=message):
        check_figures(FiguresConfig(**figures), layout)


def test_figures_of_a_region_are_refused():
    outputs = OutputsConfig(region=RegionConfig(latitude=(30, 60), longitude=(350, 20)))
    with pytest.raises(FigureError, match=r"complete globe, but outputs\.region"):
        check_figures(
            FiguresConfig(variables=("2m_temperature",)), plan_layout(TASKS["GraphCast"], COARSE, 8, {}, outputs)
        )


def test_without_a_variable_on_levels_there_are_none():
    assert (
        plan_layout(TASKS["GraphCast"], COARSE, 4, {}, OutputsConfig(variables=("2m_temperature",))).kept.levels == ()
    )


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (
            OutputsConfig(variables=("temprature",)),
            r"outputs\.variables: temprature must be .* did you mean temperature\?",
        ),
        (
            OutputsConfig(variables=("ozone",)),
            r"outputs\.variables: ozone must be .*; take some of 10m_u_component_of_wind, ",
        ),
        (
            OutputsConfig(keep_bits={"geopotentia": 9}),
            r"outputs\.keep_bits: geopotentia must .* did you mean geopotential\?",
        ),
        (
            OutputsConfig(variables=("geopotential",), keep_bits={"temperature": 9}),
            r"outputs\.keep_bits: temperature must be among the variables that are kept",
        ),
        (
            OutputsConfig(levels=(510,)),
            r"outputs\.levels: 510 hPa must be among .*, 500, .* but is not; the nearest is 500",
        ),
        (
            OutputsConfig(variables=("2m_temperature",), levels=(500,)),
            r"outputs\.levels: leave them out, since no variable that is kept is on levels",
        ),
        (
            OutputsConfig(lead_hours=(23, 60)),
            r"outputs\.lead_hours: 23 h must .* up to 60 h, but is not; the nearest is 24 h",
        ),
        (OutputsConfig(lead_hours=(240,)), r"outputs\.lead_hours: 240 h must .*; the nearest is 60 h"),
        (OutputsConfig(every_hours=24), r"the last of 10 steps, 60 h, must be .*; set steps to 8, or keep 60 h too"),
        (OutputsConfig(every_hours=10), r"outputs\.every_hours must be a multiple of 6, the model's step, but is 10"),
        (OutputsConfig(every_hours=72), r"the last of 10 steps, 60 h, must be .*; set steps to 12, or keep 60 h too"),
        (OutputsConfig(lead_hours=(24,)), r"the last of 10 steps, 60 h, must be .*; set steps to 4, or keep 60 h too"),
        (
            OutputsConfig(region=RegionConfig(latitude=(41, 49), longitude=(0, 90))),
            r"outputs\.region must hold points of the grid, but between latitudes 41 and 49 .* \(10°\); widen it",
        ),
        (OutputsConfig(max_files=10), r"outputs\.max_files must be 11 at least, one for each variable, but is 10"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_what_can(outputs, message):
    with pytest.raises(ConfigError, match=message):
        plan_layout(TASKS["GraphCast"], COARSE, 10, {}, outputs)


def test_data_overrule_what_is_commonly_known_of_a_variable():
    assert is_on_levels("temperature", {})
    assert not is_on_levels("temperature", {"temperature": ("time", "latitude", "longitude")})
    assert is_on_levels("ozone", {"ozone": ("time", "level")})


@pytest.mark.parametrize(
    ("name", "dims", "message"),
    [
        (
            "temperature",
            ("time", "pressure_level", "latitude", "longitude"),
            "temperature must have the dimension level, but has time, pressure_level, latitude, longitude; say in "
            "inputs.names which it is, such as inputs.names {pressure_level: level}",
        ),
        (
            "2m_temperature",
            ("time", "height", "latitude", "longitude"),
            "2m_temperature must have dimensions among .*, but has time, height, .*; select one place along height",
        ),
        ("ozone", ("time", "level", "member"), "ozone must have dimensions among .*; select one place along member"),
    ],
)
def test_a_variable_along_a_dimension_that_is_not_ours_is_refused(name, dims, message):
    with pytest.raises(TaskError, match=message):
        is_on_levels(name, {name: dims})


def test_an_archive_whose_levels_have_another_name_is_refused_before_anything_is_run(small_config, tmp_path):
    dims = ("time", "layer", "latitude", "longitude")
    times = np.arange("2020-01-01", "2020-01-03", 6, dtype="datetime64[h]").astype("datetime64[ns]")
    coords = {"time": times, "layer": [500, 850], "latitude": COARSE.latitude, "longitude": COARSE.longitude}
    fields = xr.Dataset({"temperature": (dims, np.zeros((8, 2, *COARSE.shape), np.float32))}, coords)
    fields.to_netcdf(tmp_path / "archive.nc", engine="netcdf4")
    config = load_config(small_config(inputs={"kind": "archive", "path": str(tmp_path / "archive.nc")}))

    with pytest.raises(TaskError, match="temperature must have the dimension level, but has time, layer"):
        assemble(config)


def test_a_run_that_does_not_fit_the_memory_is_refused_with_the_numbers(small_config):
    run = assemble(load_config(small_config()))
    uses = memory_uses(run, accelerated=False)
    surely = int(0.8 * uses[-1].host_bytes)

    check_memory(run, uses, 3, 3 * surely)
    with pytest.raises(ConfigError, match=r"3 workers must have .* GB each, .* in float32, but .*workers\.count: 2"):
        check_memory(run, uses, 3, 3 * surely - 1)
    with pytest.raises(ConfigError, match="take a coarser grid, a smaller model or a larger machine"):
        check_memory(run, uses, 1, surely - 1)


def with_memory(monkeypatch, found):
    monkeypatch.setattr(planning, "usable_bytes", lambda: found)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))


@pytest.mark.parametrize(("threads", "count", "times", "expected"), [(1, None, 4, 4), (2, None, 4, 4), (4, None, 4, 2)])
@pytest.mark.parametrize("shortage", [0, 1])
def test_memory_is_checked_for_as_many_workers_as_start(
    small_config, monkeypatch, threads, count, times, expected, shortage
):
    workers = {"device": "cpu", "threads": threads}
    run = planning.plan(small_config(workers=workers))
    needed = int(0.8 * run.memory_uses[-1].host_bytes)
    with_memory(monkeypatch, expected * needed - shortage)

    if not shortage:
        run.check_memory()
        return
    with pytest.raises(ConfigError, match=rf"^{expected} workers must have .*; take fewer workers \(workers\.count: "):
        run.check_memory()


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("h100", "fast, 4 steps a call .*taken on h100"),
        ("a100-40gb", "fast, 4 steps a call .*taken on a100-40gb"),
        ("tpu-v5e", "lean, 4 steps a call .*taken on tpu-v5e, but runs do not use TPUs yet"),
    ],
)
def test_a_plan_shows_which_way_an_accelerator_that_is_absent_would_take(small_config, command, device, expected):
    architecture = {"mesh_size": 6, "latent_size": 512, "gnn_msg_steps": 16}
    weights = {"kind": "random", "architecture": architecture, "task": "GraphCast"}
    config = small_config(
        inputs={"kind": "synthetic", "resolution": 0.25}, model={"weights": weights}, steps=4, workers={"device": "gpu"}
    )

    done = command("plan", config, "--device", device)

    assert re.search(rf"bfloat16 on accelerator, {expected}", done.stdout), done.stdout
    assert done.stdout.count("taken on") == 1


def test_an_accelerator_that_no_worker_would_use_is_refused(small_config):
    run = planning.plan(small_config(workers={"device": "cpu"}))

    with pytest.raises(ConfigError, match=r"h100 .* but workers\.device is cpu; .* leave --device out"):
        run.show(Console(), "h100")


def test_a_batch_larger_than_the_run_needs_no_memory_for_cases_that_are_not_there(small_config):
    run = {size: planning.plan(small_config(), model={"batch_size": size}) for size in (1, 10**5)}
    cases = len(run[1].cases)

    assert {use.batch_size for use in run[10**5].memory_uses} == {cases}
    with pytest.raises(ConfigError, match=r"take a smaller model\.batch_size, a coarser grid"):
        check_memory(run[10**5].assembled, run[10**5].memory_uses, 1, 10**6)


def test_a_plan_shows_that_this_machine_has_too_little_memory(small_config, monkeypatch):
    run = planning.plan(small_config(workers={"device": "auto", "count": 2, "threads": 2}))
    with_memory(monkeypatch, int(0.7 * 2 * min(run.host_memory.values())))

    assert re.search("lean, .*too much for 2 workers here", repr(run))


@pytest.mark.parametrize(("room", "mode"), [(1.26, "fast"), (1.24, "lean")])
def test_a_plan_shows_what_workers_on_this_machine_would_take(small_config, monkeypatch, room, mode):
    run = planning.plan(small_config(workers={"device": "auto", "count": 2, "threads": 2}))
    with_memory(monkeypatch, int(2 * room * run.host_memory["float32 on CPU, fast, 1 step a call"]))

    shown = repr(run)

    assert [line.split()[3] for line in shown.splitlines() if "(taken here)" in line] == [f"{mode},"]
    assert re.search(r"on accelerator, fast, 3 steps a call +\S+ [kMG]B on the device, \S+ [MG]B on the host", shown)
    assert re.search(r"bfloat16 on accelerator, lean, 3 steps a call", shown)
    assert "at least" not in shown


def test_the_memory_of_another_implementation_is_shown_as_a_lower_bound(small_config):
    shown = repr(planning.plan(small_config(model=SMALL["model"] | {"implementation": "deepmind"})))

    assert "of each worker, at least: the model's own need is not known" in shown


def test_a_disk_that_is_too_small_for_all_forecasts_is_told(small_config, monkeypatch):
    run = assemble(load_config(small_config()))
    assert run_warnings(run) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=run.plan.store_bytes // 2))
    (doubt,) = run_warnings(run)
    assert re.search(r"all forecasts need about .* GB, .* but .* GB are free at ", doubt)

    # Compression to 1 / 1.37 would fit into this; the bytes as they are do not.
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=0.9 * run.plan.store_bytes))
    assert run_warnings(run) == []
    assert len(run_warnings(assemble(load_config(small_config(outputs={"compression": "none"}))))) == 1


@pytest.mark.parametrize(
    ("steps", "asked", "warned"), [(40, 4, ""), (41, 4, "calls of 1 step, .*; 40 or 44"), (3, 4, "")]
)
def test_calls_that_are_shorter_than_asked_for_are_a_warning(small_config, steps, asked, warned):
    run = assemble(load_config(small_config(steps=steps, model=SMALL["model"] | {"steps_per_call": asked})))

    found = [warning for warning in run_warnings(run) if warning.startswith("model.steps_per_call")]
    assert len(found) == bool(warned)
    assert not warned or re.search(warned, found[0])
