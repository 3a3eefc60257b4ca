"""Scores during a run, compared with those that an evaluation of the stored forecasts gives."""

import shutil
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
import xarray as xr
import yaml

from graphcast_batch.cli import main
from graphcast_batch.config.loading import dump_config
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.outputs_section import RegionConfig
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.config.scores_section import ScoresConfig
from graphcast_batch.errors import ConfigError, EvaluationError, InputError, StoreError
from graphcast_batch.evaluation.group_scoring import score_layout_of
from graphcast_batch.evaluation.online_scores import OnlineScorer, PendingFrames
from graphcast_batch.evaluation.score_store import FORECAST, ScoreStore
from graphcast_batch.evaluation.store_scoring import lay_out, score_stored, scoring_of
from graphcast_batch.inputs.case_inputs import CaseInputs
from graphcast_batch.inputs.formats.chunks import ReadCost
from graphcast_batch.inputs.statistics import run_serially
from graphcast_batch.integrity.repair import repair
from graphcast_batch.integrity.verify import verify
from graphcast_batch.pipeline.worker_context import WorkerContext
from graphcast_batch.setup.synthetic_archive import synthetic_archive
from graphcast_batch.spec import Task
from graphcast_batch.stores.flaws import FlawKind
from graphcast_batch.stores.store_kinds import open_store
from graphcast_batch.stores.zarr.ledger import FileLedger
from tests.conftest import FIGURES, SMALL
from tests.evaluation.made import LEVELS, VARIABLES, cases, stored, truth
from tests.evaluation.test_stored import times, written

EUROPE = RegionConfig(latitude=(30, 70), longitude=(-20, 40))
RAINY = (*VARIABLES, ("total_precipitation_6hr", False))
DERIVED = ("10m_wind_speed", "total_precipitation_24hr")


def task_of(names):
    return Task(input_variables=names, target_variables=names, forcing_variables=(), pressure_levels=LEVELS)


class Source:
    """States of the wave planet."""

    def __init__(self):
        self.grid, self.dims = truth().grid, truth().dims

    def read(self, case, task):
        return CaseInputs(xr.Dataset(coords={"time": [case.init_time.astype("datetime64[ns]")]}), xr.Dataset())

    def truth(self, case, names, levels=None):
        return None

    def cost(self, case, task):
        return ReadCost(1, 1, "temperature", (1,))


class Noisy:
    """Forecasts that are the truth with noise which the Case repeats, some steps a call."""

    device = "paper"

    def __init__(self, per_call, names):
        self.per_call, self.names, self.task = per_call, names, task_of(names)

    def forecast(self, inputs, forcings, steps):
        start = inputs["time"].values[-1]
        for first in range(0, steps, self.per_call):
            leads = np.arange(first, min(first + self.per_call, steps))
            hours = start + (leads + 1) * np.timedelta64(6, "h")
            fields = truth().fields(self.names, hours, LEVELS)
            yield {name: fields[name].values + noise(start, leads, fields[name].shape[1:]) for name in fields.data_vars}


def noise(start, leads, shape):
    seeds = [[int(start.astype("datetime64[h]").astype(int)), int(lead)] for lead in leads]
    return np.stack([np.random.default_rng(seed).normal(size=shape).astype(np.float32) for seed in seeds])


def scorer_of(store, source, wanted=None):
    scoring = scoring_of(wanted or ScoresConfig(), store, source)
    regions = scoring.weighed()
    scores = ScoreStore.lay_out(store.path, FORECAST, score_layout_of(scoring, regions, {}))
    return OnlineScorer(store, scores, scoring, regions)


def bench_of(store, scorer=None, per_call=1, source=None):
    limits = lambda start: lambda name, level: None  # noqa: E731
    made = Noisy(per_call, store.kept.variables)
    return WorkerContext(source or Source(), lambda inputs: None, made, store, limits, "tester", scorer=scorer)


def run(store, planned, scorer=None, per_call=1):
    context = bench_of(store, scorer, per_call)
    return [made_by(context, case) for case in planned]


def made_by(context, case):
    lease = context.store.ledger.lease(case, 60)
    try:
        return context.run_case(case, lease, 1)
    finally:
        lease.release()


def evaluated(store, source, wanted=None):
    """Scores what is left; returns that."""
    found = lay_out(store, FORECAST, scoring_of(wanted or ScoresConfig(), store, source), {})
    for case in found.left:
        score_stored(found.path, found.name, found.scoring, case)
    return found


def assert_same_scores(first, second):
    ours, theirs = (ScoreStore.at(store.path, FORECAST) for store in (first, second))
    xr.testing.assert_identical(ours.dataset().load(), theirs.dataset().load())
    fields = [{key: record.fields for key, record in scores.records().items()} for scores in (ours, theirs)]
    assert fields[0] == fields[1]


@pytest.mark.parametrize(
    ("outputs", "wanted"),
    [
        ({}, ScoresConfig()),
        ({"keep_bits": 9}, ScoresConfig()),
        ({"every_hours": 12, "levels": (850,), "region": EUROPE}, ScoresConfig(regions=("global",))),
        ({}, ScoresConfig(levels=(850,), variables=("temperature",), regions=("global", "land"))),
    ],
)
def test_scores_during_a_run_are_those_of_the_stored_forecasts_to_the_last_bit(tmp_path, outputs, wanted):
    planned = cases(2, steps=12)
    online, after = (stored(tmp_path / name, planned, None, filled=[], **outputs) for name in ("during", "after"))

    made = run(online, planned, scorer_of(online, truth(), wanted), per_call=5)
    run(after, planned, per_call=5)
    evaluated(after, truth(), wanted)

    assert [each.unscored for each in made] == ["", ""]
    assert {"truth", "score"} <= {span.stage for span in made[0].spans}
    assert_same_scores(online, after)
    assert evaluated(online, truth(), wanted).left == ()


@pytest.mark.parametrize(
    ("per_call", "outputs", "wanted", "days"),
    [
        (1, {"keep_bits": 9}, {}, 9),
        (12, {"keep_bits": 9}, {}, 9),
        (5, {"forecasts": False, "region": EUROPE}, {"regions": ("global",)}, 9),
        (5, {}, {"variables": ("temperature",), "levels": (850,)}, 9),
        (5, {"lead_hours": (6, 12, 18, 24, 30, 48, 54, 60, 66, 72)}, {}, 4),
        (5, {"every_hours": 12}, {}, 0),
    ],
)
def test_derived_variables_have_the_same_scores_during_a_run_and_afterwards(tmp_path, per_call, outputs, wanted, days):
    planned, wanted = cases(2, steps=12), ScoresConfig(**wanted, derived=DERIVED)
    stays = {key: value for key, value in outputs.items() if key != "forecasts"}
    online, after = (
        stored(tmp_path / name, planned, None, filled=[], variables=RAINY, **kept)
        for name, kept in (("during", outputs), ("after", stays))
    )

    made = run(online, planned, scorer_of(online, truth(), wanted), per_call)
    run(after, planned)
    evaluated(after, truth(), wanted)

    assert [each.unscored for each in made] == ["", ""]
    assert_same_scores(online, after)
    found = ScoreStore.at(online.path, FORECAST).dataset()
    assert np.isfinite(found["10m_wind_speed"]).all()
    of_days = np.isfinite(found["total_precipitation_24hr"]).all(("statistic", "region"))
    assert of_days.sum("prediction_timedelta").values.tolist() == [days] * 2


def test_of_frames_that_were_scored_nothing_is_held_but_what_sums_need(tmp_path):
    store = stored(tmp_path / "s", cases(1, steps=12), None, filled=[], variables=RAINY)
    frames = PendingFrames(store, {"total_precipitation_6hr": 4})
    complete = np.zeros((8, 4, *truth().grid.shape), np.float32)
    alive = weakref.ref(complete)
    rain = {"total_precipitation_6hr": complete[:, 0] + np.arange(8, dtype=np.float32)[:, None, None]}
    frames.take(0, {"temperature": complete[:, :2], "10m_u_component_of_wind": complete[:, 2]} | rain)
    del complete

    assert frames.fields(cases(1)[0], ["temperature"], [48], [850])["temperature"].shape[:2] == (1, 1)
    frames.drop_before(8)

    assert alive() is None
    held = frames.fields(cases(1)[0], ["total_precipitation_6hr"], [36, 42, 48], ())["total_precipitation_6hr"]
    assert held[:, 0, 0].tolist() == [5, 6, 7]
    for gone in (["total_precipitation_6hr"], [30]), (["temperature"], [48]):
        with pytest.raises(KeyError):
            frames.fields(cases(1)[0], *gone, (850,))


@pytest.mark.parametrize("per_call", [1, 12])
def test_truth_in_part_is_scored_as_far_as_it_goes(tmp_path, per_call):
    planned = cases(2, steps=12)
    source = written(tmp_path / "truth.zarr", times(11), lacking=())
    online, after = (stored(tmp_path / name, planned, None, filled=[]) for name in ("during", "after"))

    run(online, planned, scorer_of(online, source), per_call)
    run(after, planned)
    evaluated(after, source)

    assert_same_scores(online, after)


def test_a_case_without_truth_is_whole_and_told_and_scored_once_there_is_truth(tmp_path):
    planned = cases(3)
    store = stored(tmp_path / "s", planned, None, filled=[])
    short = written(tmp_path / "short.zarr", times(5))

    made = run(store, planned, scorer_of(store, short))

    assert [bool(each.unscored) for each in made] == [False, False, True]
    assert "2020-01-02T00: there must be truth at one lead time at least" in made[2].unscored
    assert len(store.ledger.complete(planned)) == 3
    assert [case.key for case in evaluated(store, truth()).left] == ["2020-01-01T12", "2020-01-02T00"]


class Failing:
    """Truth that cannot be read from a time on."""

    def __init__(self, source, last):
        self._source, self._last = source, last

    def __getattr__(self, name):
        return getattr(self._source, name)

    def fields(self, names, times, levels):
        if len(times) and times[-1] > self._last:
            raise InputError(f"truth of {times[-1]} is damaged")
        return self._source.fields(names, times, levels)


def test_truth_that_cannot_be_read_leaves_the_forecast_whole_and_to_be_scored(tmp_path):
    planned = cases(1, steps=20)
    store = stored(tmp_path / "s", planned, None, filled=[])
    source = Failing(truth(), planned[0].init_time + np.timedelta64(60, "h"))

    (made,) = run(store, planned, scorer_of(store, source))

    assert "is damaged" in made.unscored
    assert len(store.ledger.complete(planned)) == 1
    assert ScoreStore.at(store.path, FORECAST).records() == {}
    assert evaluated(store, truth()).left == tuple(planned)


def only_scores(path, planned, **outputs):
    store = stored(path, planned, None, filled=[], identity={"outputs": "none"}, forecasts=False, **outputs)
    assert store.only_scores
    return store


@pytest.mark.parametrize("outputs", [{}, {"keep_bits": 9, "region": EUROPE}])
def test_a_run_that_keeps_only_scores_has_those_of_stored_forecasts_to_the_last_bit(tmp_path, outputs):
    planned = cases(2, steps=12)
    wanted = ScoresConfig(regions=("global",))
    alone = only_scores(tmp_path / "alone", planned, **outputs)
    after = stored(tmp_path / "after", planned, None, filled=[], **outputs)

    made = run(alone, planned, scorer_of(alone, truth(), wanted), per_call=5)
    run(after, planned)
    evaluated(after, truth(), wanted)

    assert_same_scores(alone, after)
    assert [(each.record.files, each.record.bytes, each.record.details["outputs"]) for each in made] == [
        ({}, 0, "none")
    ] * 2
    assert not [path for name in alone.variables for path in (alone.path / name).iterdir() if path.name != "zarr.json"]
    assert len(alone.ledger.complete(planned)) == 2
    assert [str(flaw) for flaw in verify(alone.path, deep=True).flaws if flaw.kind != "statistics"] == []
    found = evaluated(alone, truth(), wanted)
    assert (found.left, found.done, found.only_scores) == ((), tuple(case.key for case in planned), True)


def test_where_only_scores_are_kept_a_case_without_them_is_not_whole(tmp_path):
    planned = cases(3)
    store = only_scores(tmp_path / "s", planned)
    scorer = scorer_of(store, written(tmp_path / "short.zarr", times(5)))

    run(store, planned[:2], scorer)
    with pytest.raises(EvaluationError, match="2020-01-02T00: there must be truth at one lead time at least"):
        run(store, planned[2:], scorer)

    assert store.ledger.complete(planned) == planned[:2]
    assert evaluated(store, truth()).incomplete == ("2020-01-02T00",)
    with pytest.raises(StoreError, match=r"keeps scores only, .* but nothing scores them; set scores\.online: true"):
        bench_of(store)


def test_killed_before_its_record_a_case_that_keeps_only_scores_is_made_again_to_the_same_scores(tmp_path, monkeypatch):
    planned = cases(2)
    store, complete = only_scores(tmp_path / "s", planned), only_scores(tmp_path / "whole", planned)
    run(complete, planned, scorer_of(complete, truth()))
    with monkeypatch.context() as patch:
        patch.setattr(FileLedger, "enter", killed)
        with pytest.raises(Killed):
            run(store, planned, scorer_of(store, truth()))
    assert store.ledger.complete(planned) == []

    run(store, planned, scorer_of(store, truth()))

    assert_same_scores(store, complete)
    assert len(store.ledger.complete(planned)) == 2


def test_killed_before_its_scores_are_written_a_case_is_whole_and_left_to_an_evaluation(tmp_path, monkeypatch):
    planned = cases(2)
    store, complete = (stored(tmp_path / name, planned, None, filled=[]) for name in ("s", "whole"))
    run(complete, planned, scorer_of(complete, truth()))
    with monkeypatch.context() as patch:
        patch.setattr(ScoreStore, "write", killed)
        with pytest.raises(Killed):
            run(store, planned, scorer_of(store, truth()))

    run(store, planned[1:], scorer_of(store, truth()))

    assert store.ledger.complete(planned) == planned
    assert evaluated(store, truth()).left == tuple(planned[:1])
    assert_same_scores(store, complete)


SCORED = {"store": "s", "scores": {"online": True}}


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        ({"store": "s"}, r"outputs: none .* scores\.online: true"),
        ({**SCORED, "figures": FIGURES}, "figures must be left out with outputs: none"),
    ],
)
def test_a_config_of_which_nothing_would_remain_is_refused(sections, text):
    with pytest.raises(ConfigError, match=text):
        parse_config(SMALL | {"outputs": "none"} | sections, RunConfig, origin="here")


def test_outputs_none_may_be_written_out_to_say_what_is_scored():
    short = parse_config(SMALL | SCORED | {"outputs": "none"}, RunConfig, origin="here")
    long = yaml.safe_load(dump_config(short))

    assert parse_config(long, RunConfig, origin="there") == short
    assert long["outputs"]["forecasts"] is False


@pytest.mark.parametrize("lost", ["records/2020-01-01T12.json", "temperature/c.0.1.0.0.0"])
def test_where_only_scores_are_kept_a_case_whose_scores_are_damaged_is_made_again(tmp_path, lost):
    planned = cases(2)
    store = only_scores(tmp_path / "s", planned)
    run(store, planned, scorer_of(store, truth()))
    before = ScoreStore.at(store.path, FORECAST).dataset().load()
    (store.path / "scores" / "forecast" / lost).unlink()

    flaws = [flaw for flaw in verify(store.path, deep=False).flaws if flaw.kind is FlawKind.SCORES]
    done = repair(store.path, flaws)

    assert [(flaw.key, flaw.path) for flaw in flaws] == [("2020-01-01T12", f"scores/forecast/{lost}")]
    assert "so that the next run makes the Case again" in str(flaws[0])
    assert (done.forgotten, done.unscored) == (("2020-01-01T12",), ())
    assert store.ledger.complete(planned) == planned[:1]
    run(store, planned[1:], scorer_of(store, truth()))
    xr.testing.assert_identical(ScoreStore.at(store.path, FORECAST).dataset().load(), before)


def test_where_only_scores_are_kept_and_their_folder_is_lost_all_cases_are_made_again(tmp_path):
    planned = cases(2)
    store = only_scores(tmp_path / "s", planned)
    run(store, planned, scorer_of(store, truth()))
    shutil.rmtree(store.path / "scores")

    done = repair(store.path, verify(store.path, deep=False).flaws)

    assert done.forgotten == tuple(case.key for case in planned)
    assert [made.unscored for made in run(store, planned, scorer_of(store, truth()))] == ["", ""]


class Killed(BaseException):
    """Nothing of ours catches it."""


def killed(*arguments):
    raise Killed


class Alone:
    """A source of which no two parts may be read at once."""

    def __init__(self, source, lock):
        self._source, self._lock = source, lock

    def __getattr__(self, name):
        return getattr(self._source, name)

    def read(self, *arguments):
        return self._alone(self._source.read, *arguments)

    def fields(self, *arguments):
        return self._alone(self._source.fields, *arguments)

    def _alone(self, function, *arguments):
        assert self._lock.acquire(blocking=False), "two threads read at once"
        try:
            time.sleep(0.002)
            return function(*arguments)
        finally:
            self._lock.release()


def test_cases_in_several_threads_read_inputs_and_truth_in_turn_and_all_get_on(tmp_path):
    planned = cases(8, steps=12)
    store = stored(tmp_path / "s", planned, None, filled=[])
    lock = threading.Lock()
    context = bench_of(store, scorer_of(store, Alone(truth(), lock)), source=Alone(Source(), lock))

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda case: made_by(context, case), planned))

    assert [each.unscored for each in made] == [""] * 8
    assert len(ScoreStore.at(store.path, FORECAST).records()) == 8


def told(capsys, *arguments):
    """How a command that needs no cluster ends, and what it says."""
    with suppress(SystemExit):
        main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return said.out + said.err


def test_a_run_that_keeps_only_scores_gives_those_of_the_stored_run_and_every_command_knows(
    tmp_path, command, small_config, finished, capsys
):
    derived = ["wind_speed", "10m_wind_speed", "geopotential_height", "relative_humidity", "total_precipitation_24hr"]
    config = small_config("alone", outputs="none", scores={"online": True, "derived": derived})
    alone, after = tmp_path / "alone", tmp_path / "after"
    finished.copy(after)

    made = command("run", config)
    scored = command("evaluate", small_config("after", scores={"derived": derived}))

    assert (made.returncode, scored.returncode) == (0, 0), made.stderr + scored.stderr
    assert "4 of 4 Cases complete, 4 of them made now" in made.stdout
    assert_same_scores(open_store(alone), open_store(after))
    again = told(capsys, "evaluate", config)
    assert "forecast: 0 to score, 4 scored before" in again
    assert "only the scores of these forecasts are stored" in again
    assert "RMSE of forecast, global" in again
    assert "(outputs: none)" in told(capsys, "status", alone)
    assert "2 figures of scores" in told(capsys, "figures", alone)
    assert "there are no forecasts to draw" in told(capsys, "figures", alone, "--variable", "2m_temperature")
    assert "4 complete Cases, 0 B" in told(capsys, "verify", alone)
    opened = ScoreStore.at(alone, FORECAST).dataset()
    assert np.isfinite(opened[derived[:-1]]).to_dataarray().all()  # of 18 h there is no day's precipitation
    refused = told(capsys, "run", small_config("alone", scores={"online": True}))
    assert "outputs: the store has none, this run has (absent)" in refused


def test_a_run_tells_of_cases_without_truth_and_goes_on(tmp_path, command, small_config):
    there = np.datetime64("2020-01-01T00", "h") + np.arange(4) * np.timedelta64(6, "h")
    synthetic_archive(tmp_path / "truth.zarr", 15, (500, 850), there, 0, run_serially)
    wanted = {"online": True, "truth": {"kind": "archive", "path": str(tmp_path / "truth.zarr")}, "levels": [500]}

    done = command("run", small_config("run", scores=wanted))

    assert done.returncode == 0, done.stderr
    assert "4 of 4 Cases complete" in done.stdout
    assert "not scored: 2020-01-01T18: there must be truth at one lead time at least" in done.stdout
    assert set(ScoreStore.at(tmp_path / "run", FORECAST).records()) == {
        f"2020-01-01T{hour}" for hour in ("00", "06", "12")
    }
