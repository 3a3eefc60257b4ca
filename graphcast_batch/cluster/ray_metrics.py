"""Export metrics of a run through Ray, for its dashboard, Prometheus and Grafana.

The driver sets them from the records that it gets anyway. Ray exports them only where ``ray[default]`` is installed
when it starts: each node then answers at ``http://NODE:PORT/metrics``. The port is that of ``ray start
--metrics-export-port``, or any; ``ray.nodes()`` has it as ``MetricsExportPort``, which is -1 without ``ray[default]``
(ray 2.60). Ray exports new values every 10 seconds. ``docs/grafana-dashboard.json`` shows them.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from ray.util.metrics import Counter, Gauge, Histogram

from graphcast_batch.pipeline.worker_context import CompletedCase

_BOUNDS: Final = [base * scale for scale in (1.0, 10.0, 100.0, 1000.0) for base in (1.0, 2.0, 5.0)]
"""Bounds of the histogram in seconds, from a small network on a coarse grid to ten days at 0.25° on a slow device."""


@dataclass(frozen=True)
class RayMetric:
    """A metric, which has a value for each combination of its tags.

    Attributes:
        name: its name in this package.
        kind: a ``counter`` only rises, a ``gauge`` is a present value, a ``histogram`` counts values by size.
        text: its description, with the unit.
        tags: names of its tags, beside ``store``, the name of the store's folder.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    tags: tuple[str, ...] = ()

    @property
    def exported(self) -> frozenset[str]:
        """Names of the metric and its parts in Prometheus (ray 2.60)."""
        ends = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
        return frozenset(f"ray_{self.name}{end}" for end in ends[self.kind])

    def instrument(self) -> Any:  # noqa: ANN401 - Ray leaves it without types
        """Return the object of Ray that records the metric."""
        tags = ("store", *self.tags)
        if self.kind == "histogram":
            return Histogram(self.name, self.text, _BOUNDS, tags)
        return (Counter if self.kind == "counter" else Gauge)(self.name, self.text, tags)


COMPLETE: Final = RayMetric("graphcast_batch_cases_complete", "counter", "Cases that were completed", ("host",))
RETRIED: Final = RayMetric("graphcast_batch_cases_retried", "counter", "Failed attempts that are retried", ("error",))
FAILED: Final = RayMetric("graphcast_batch_cases_failed", "counter", "Cases that failed for good", ("error",))
FRAMES: Final = RayMetric("graphcast_batch_frames", "counter", "Model steps of completed Cases", ("host",))
BYTES: Final = RayMetric("graphcast_batch_written_bytes", "counter", "Bytes written for completed Cases", ("host",))
STAGES: Final = RayMetric(
    "graphcast_batch_stage_seconds", "counter", "Seconds that completed Cases spent in a stage", ("host", "stage")
)
SECONDS: Final = RayMetric(
    "graphcast_batch_case_seconds", "histogram", "Seconds from the first reading of a Case to its record", ("host",)
)
LEFT: Final = RayMetric("graphcast_batch_cases_left", "gauge", "Cases that this driver has still to complete")
IN_FLIGHT: Final = RayMetric("graphcast_batch_cases_in_flight", "gauge", "Cases that workers are making")
WORKERS: Final = RayMetric("graphcast_batch_workers", "gauge", "Workers that are ready")
METRICS: Final = (COMPLETE, RETRIED, FAILED, FRAMES, BYTES, STAGES, SECONDS, LEFT, IN_FLIGHT, WORKERS)


class RunMetrics:
    """The metrics of one run, whose errors never disturb the run.

    Args:
        store: the folder of the store.
        warn: called once with a text if Ray takes no metrics.
    """

    def __init__(self, store: Path, warn: Callable[[str], None]) -> None:
        self._warn, self._has_warned = warn, False
        self._instruments: dict[str, Any] = {}
        with self._harmless():
            for metric in METRICS:
                self._instruments[metric.name] = metric.instrument().set_default_tags({"store": store.name})

    def complete(self, made: CompletedCase) -> None:
        """Count a completed Case."""
        record, spans = made.record, made.spans
        host = {"host": record.host}
        with self._harmless():
            self._add(COMPLETE, 1, host)
            self._add(FRAMES, record.steps, host)
            self._add(BYTES, record.bytes, host)
            for stage, seconds in record.seconds.items():
                self._add(STAGES, seconds, host | {"stage": stage})
            if spans:
                seconds = max(span.end for span in spans) - min(span.start for span in spans)
                self._instruments[SECONDS.name].observe(seconds, host)

    def retried(self, error: str) -> None:
        """Count an attempt that failed, with an error of this name, and will be retried."""
        with self._harmless():
            self._add(RETRIED, 1, {"error": error})

    def failed(self, error: str) -> None:
        """Count a Case that failed for good, with an error of this name."""
        with self._harmless():
            self._add(FAILED, 1, {"error": error})

    def set_counts(self, left: int, in_flight: int, workers: int) -> None:
        """Set the numbers of Cases left, of Cases in progress and of ready workers."""
        with self._harmless():
            for metric, count in ((LEFT, left), (IN_FLIGHT, in_flight), (WORKERS, workers)):
                self._instruments[metric.name].set(count)

    def _add(self, metric: RayMetric, amount: float, tags: Mapping[str, str]) -> None:
        if amount > 0:  # Ray takes no other
            self._instruments[metric.name].inc(amount, tags)

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # no error of a metric may end the run
            if not self._has_warned:
                self._has_warned = True
                self._warn(f"Ray takes no metrics of this run, which goes on without them: {error!r}")
