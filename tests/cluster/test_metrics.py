"""What a run tells Ray of its Cases, and the dashboard that shows it."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from ray.util import metrics as of_ray

from graphcast_batch.cluster.ray_metrics import METRICS, RayMetric, RunMetrics
from graphcast_batch.pipeline.worker_context import CompletedCase
from graphcast_batch.stores.case_records import CaseRecord
from graphcast_batch.timing import Span
from tests.conftest import ROOT, SMALL

DASHBOARD = ROOT / "docs" / "grafana-dashboard.json"
TRIED = '''
"""A run of four Cases of which reading one fails twice; prints what Ray was given, and what it exports."""
import json, os, sys, time, urllib.request

import ray
from ray.util import metrics

from graphcast_batch.setup.run_setup import assemble
from graphcast_batch.cluster import driver
from graphcast_batch.cluster.drain import Drain
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.inputs.sources.planet_archive import SyntheticArchive


class Faulty(SyntheticArchive):
    def read(self, case, task):
        if case.key.endswith("T06"):
            raise OSError("stale file handle")
        return super().read(case, task)


class Quiet:
    def __getattr__(self, name):
        return lambda *told: None


def spied(self, value, tags=None, record=metrics.Metric._record):
    given.append((self.info["name"], value, {**self.info["default_tags"], **(tags or {})}))
    record(self, value, tags)


def exported():
    node = ray.nodes()[0]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    until = time.monotonic() + 40
    while time.monotonic() < until:
        time.sleep(1)
        with urllib.request.urlopen(address, timeout=5) as answer:
            text = answer.read().decode()
        if "graphcast_batch" in text:
            return [line for line in text.splitlines() if line.startswith("ray_graphcast_batch")]
    return []


given, (content, also_exported) = [], json.loads(sys.argv[1])
metrics.Metric._record = spied
assembled = assemble(parse_config(content, RunConfig, origin="here"))
assembled.source.__class__ = Faulty
with driver.connected(os.environ["RAY_ADDRESS"], Drain()):
    driver.run(assembled, Quiet(), Drain())
    print(json.dumps([given, exported() if also_exported else []]))
'''


@pytest.fixture
def recorded(monkeypatch):
    """What Ray is given: names, values and tags."""
    given = []

    def spied(self, value, tags=None, record=of_ray.Metric._record):
        given.append((self.info["name"], value, {**self.info["default_tags"], **(tags or {})}))
        record(self, value, tags)

    monkeypatch.setattr(of_ray.Metric, "_record", spied)
    return given


def made(**changes):
    known = {
        "key": "2020-01-01T00",
        "init_time": "2020-01-01T00:00:00Z",
        "steps": 40,
        "bytes": 5000,
        "files": {},
        "seconds": {"read": 3.0, "compute": 8.0, "write": 0.0},
        "host": "node7",
        "device": "gpu",
        "worker": "node7:12",
        "attempts": 1,
        "finished_at": "2020-01-01T00:00:00Z",
        "details": {},
    }
    spans = (Span("compute", 103.0, 111.0, "a"), Span("read", 100.0, 103.0, "b"), Span("commit", 111.5, 112.0, "a"))
    return CompletedCase(CaseRecord(**known | changes), spans)


def silent(text):
    raise AssertionError(text)


def test_a_whole_case_is_counted_with_its_frames_bytes_stages_and_time_from_first_to_last(recorded):
    RunMetrics(Path("/scratch/hindcast-2020"), silent).complete(made())

    tags = {"store": "hindcast-2020", "host": "node7"}
    assert sorted(recorded, key=lambda each: (each[0], each[1])) == [
        ("graphcast_batch_case_seconds", 12.0, tags),
        ("graphcast_batch_cases_complete", 1, tags),
        ("graphcast_batch_frames", 40, tags),
        ("graphcast_batch_stage_seconds", 3.0, tags | {"stage": "read"}),
        ("graphcast_batch_stage_seconds", 8.0, tags | {"stage": "compute"}),
        ("graphcast_batch_written_bytes", 5000, tags),
    ]


def test_a_case_of_which_only_scores_are_kept_counts_no_bytes(recorded):
    RunMetrics(Path("run"), silent).complete(made(bytes=0))

    assert "graphcast_batch_written_bytes" not in {name for name, _, _ in recorded}


def test_metrics_that_ray_refuses_are_told_once_and_raise_nothing(monkeypatch):
    def refuse(self):
        raise RuntimeError("no metrics today")

    monkeypatch.setattr(RayMetric, "instrument", refuse)
    told = []
    metrics = RunMetrics(Path("run"), told.append)
    metrics.complete(made())
    metrics.retried("OSError")
    metrics.failed("OSError")
    metrics.set_counts(3, 2, 1)

    assert len(told) == 1
    assert "RuntimeError('no metrics today')" in told[0]


@pytest.fixture(scope="module")
def tried(run_on_ray, tmp_path_factory):
    """Of a real run: all that Ray was given, and what it exports where it can."""
    store = tmp_path_factory.mktemp("metrics") / "night"
    content = SMALL | {"store": str(store), "retries": 1}
    order = json.dumps([content, find_spec("opencensus") is not None])
    done = run_on_ray(TRIED, order, cwd=ROOT, kind="python")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_run_counts_whole_retried_and_failed_cases_and_ends_with_none_in_flight(tried):
    given, _ = tried
    assert all(tags["store"] == "night" for _, _, tags in given)
    totals = {name: sum(value for each, value, _ in given if each == name) for name, _, _ in given}
    assert totals["graphcast_batch_cases_complete"] == 3
    assert totals["graphcast_batch_frames"] == 9
    assert totals["graphcast_batch_written_bytes"] > 0
    assert [(value, tags["error"]) for name, value, tags in given if name == "graphcast_batch_cases_retried"] == [
        (1, "OSError")
    ]
    assert [(value, tags["error"]) for name, value, tags in given if name == "graphcast_batch_cases_failed"] == [
        (1, "OSError")
    ]
    stood = {name: [value for each, value, _ in given if each == name] for name, _, _ in given}
    assert (max(stood["graphcast_batch_cases_left"]), stood["graphcast_batch_cases_left"][-1]) == (4, 0)
    assert (max(stood["graphcast_batch_workers"]), stood["graphcast_batch_workers"][-1]) == (1, 0)
    assert max(stood["graphcast_batch_cases_in_flight"]) > 0
    assert stood["graphcast_batch_cases_in_flight"][-1] == 0


@pytest.mark.skipif(find_spec("opencensus") is None, reason="Ray exports no metrics without ray[default]")
def test_prometheus_reads_every_metric_under_the_names_that_we_say(tried):
    _, exported = tried
    names = {re.match(r"[a-z_]+", line)[0] for line in exported}
    assert names == set().union(*(metric.exported for metric in METRICS))
    assert [line.split()[-1] for line in exported if line.startswith("ray_graphcast_batch_cases_failed_total{")] == [
        "1.0"
    ]


def test_the_dashboard_shows_every_metric_by_names_and_tags_that_there_are():
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += [variable["query"]["query"] for variable in dashboard["templating"]["list"] if variable["name"] == "store"]
    shown = set()
    for text in asked:
        names = set(re.findall(r"ray_[a-z_]+", text))
        metrics = [metric for metric in METRICS if names & metric.exported]
        assert names <= set().union(*(metric.exported for metric in metrics)), text
        grouped = {tag for tags in re.findall(r"by \(([^)]*)\)", text) for tag in tags.split(", ")}
        allowed = set.intersection(*({"store", *metric.tags} for metric in metrics))
        assert grouped <= allowed | ({"le"} if "_bucket" in text else set()), text
        shown |= set(metrics)
    assert shown == set(METRICS)


def test_no_panels_of_the_dashboard_overlap():
    places = [panel["gridPos"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
