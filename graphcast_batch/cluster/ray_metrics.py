"""What becomes of a run's Cases becomes metrics of Ray, which its dashboard, Prometheus and Grafana show.

They are made where the driver is, of the records that it gets anyway. Ray exports them only where ``ray[default]`` is
installed when it starts: each node then answers at ``http://NODE:PORT/metrics``, the port being that of ``ray start
--metrics-export-port``, or any; ``ray.nodes()`` tells it as ``MetricsExportPort``, which is -1 without (ray 2.60). It
hands on what there is every 10 seconds. ``docs/grafana-dashboard.json`` shows them.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from ray.util.metrics import Counter, Gauge, Histogram

from graphcast_batch.pipeline import CompletedCase

_BOUNDS: Final = [base * scale for scale in (1.0, 10.0, 100.0, 1000.0) for base in (1.0, 2.0, 5.0)]
"""Seconds, from a small network on a coarse grid to ten days at 0.25° on a slow device."""


@dataclass(frozen=True)
class RayMetric:
    """One number by its tags.

    Attributes:
        name: what we call it.
        kind: ``counter`` only rises, ``gauge`` is how things stand, ``histogram`` counts by size.
        text: what it is, with its unit.
        tags: beside ``store``, the name of the store's folder.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    tags: tuple[str, ...] = ()

    @property
    def exported(self) -> frozenset[str]:
        """What Prometheus calls it, and its parts (ray 2.60)."""
        ends = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
        return frozenset(f"ray_{self.name}{end}" for end in ends[self.kind])

    def instrument(self) -> Any:  # noqa: ANN401 - Ray leaves it without types
        """What Ray records it with."""
        tags = ("store", *self.tags)
        if self.kind == "histogram":
            return Histogram(self.name, self.text, _BOUNDS, tags)
        return (Counter if self.kind == "counter" else Gauge)(self.name, self.text, tags)


COMPLETE: Final = RayMetric("graphcast_batch_cases_whole", "counter", "Cases that became whole", ("host",))
RETRIED: Final = RayMetric("graphcast_batch_cases_retried", "counter", "Failed attempts that are repeated", ("error",))
FAILED: Final = RayMetric("graphcast_batch_cases_failed", "counter", "Cases set aside", ("error",))
FRAMES: Final = RayMetric("graphcast_batch_frames", "counter", "6 h steps of Cases that became whole", ("host",))
BYTES: Final = RayMetric("graphcast_batch_written_bytes", "counter", "Bytes of Cases that became whole", ("host",))
STAGES: Final = RayMetric(
    "graphcast_batch_stage_seconds", "counter", "Seconds that whole Cases spent in a stage", ("host", "stage")
)
SECONDS: Final = RayMetric(
    "graphcast_batch_case_seconds", "histogram", "Seconds from the first reading of a Case to its record", ("host",)
)
LEFT: Final = RayMetric("graphcast_batch_cases_left", "gauge", "Cases that are this driver's and not whole")
IN_FLIGHT: Final = RayMetric("graphcast_batch_cases_in_flight", "gauge", "Cases that workers have")
WORKERS: Final = RayMetric("graphcast_batch_workers", "gauge", "Workers that are ready")
METRICS: Final = (COMPLETE, RETRIED, FAILED, FRAMES, BYTES, STAGES, SECONDS, LEFT, IN_FLIGHT, WORKERS)


class RunMetrics:
    """The metrics of one run; they watch it, and never stand in its way.

    Args:
        store: the folder of the store.
        tell: is told, once, if Ray takes no metrics.
    """

    def __init__(self, store: Path, tell: Callable[[str], None]) -> None:
        self._tell, self._was_told = tell, False
        self._instruments: dict[str, Any] = {}
        with self._harmless():
            for metric in METRICS:
                self._instruments[metric.name] = metric.instrument().set_default_tags({"store": store.name})

    def complete(self, made: CompletedCase) -> None:
        """A Case is whole."""
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
        """A Case failed, with an error of this name, and will be tried again."""
        with self._harmless():
            self._add(RETRIED, 1, {"error": error})

    def failed(self, error: str) -> None:
        """A Case is set aside for an error of this name."""
        with self._harmless():
            self._add(FAILED, 1, {"error": error})

    def stands(self, left: int, in_flight: int, workers: int) -> None:
        """How the run stands."""
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
        except Exception as error:  # whatever it is, it is not the run's
            if not self._was_told:
                self._was_told = True
                self._tell(f"Ray takes no metrics of this run, which goes on without them: {error!r}")
