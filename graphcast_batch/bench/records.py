"""Keep the results of benchmarks as JSON, with machine and versions, and show kept results as tables."""

import json
import os
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from graphcast_batch.errors import ConfigError

_VERSIONS: Final = ("graphcast-batch", "jax", "jaxlib", "numpy", "ray", "xarray", "zarr")

_BEGIN, _END = "<!-- benchmarks: made by graphcast-batch bench table -->", "<!-- benchmarks end -->"


@dataclass(frozen=True)
class BenchmarkFigure:
    """One quantity that was measured.

    Attributes:
        name: name of the quantity, in words.
        unit: unit of the samples.
        samples: one of each round.
        limit: what the machine allows at most, in the same unit, measured in the same run; None where nothing says so.
        goal: what is aimed at, in words such as ``>= 1.8``.
    """

    name: str
    unit: str
    samples: Sequence[float]
    limit: float | None = None
    goal: str = ""

    @property
    def median(self) -> float:
        """Median of the samples."""
        return statistics.median(self.samples)

    @property
    def formatted(self) -> str:
        """Median with the lowest and the highest sample and their number."""
        low, high = min(self.samples), max(self.samples)
        spread = f" ({low:.3g} to {high:.3g}, {len(self.samples)} rounds)" if len(self.samples) > 1 else " (once)"
        return f"{self.median:.3g} {self.unit}".rstrip() + spread


def machine(device: str | None = None) -> dict[str, Any]:
    """Describe this machine, and how busy it is now.

    Args:
        device: the device that computed, as JAX names it; None for the processor.
    """
    return {
        "device": device or _processor(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load": round(os.getloadavg()[0], 1),
    }


@dataclass(frozen=True)
class BenchmarkResult:
    """The result of one run of a benchmark.

    Attributes:
        bench: name of the benchmark.
        what: what was measured, in a sentence.
        command: that measures it again.
        figures: that were measured.
        settings: sizes and numbers that it ran with.
        machine: where.
        versions: of what.
        date: UTC.
    """

    bench: str
    what: str
    command: str
    figures: Sequence[BenchmarkFigure]
    settings: Mapping[str, Any]
    machine: Mapping[str, Any] = field(default_factory=machine)
    versions: Mapping[str, str] = field(default_factory=lambda: dict(_versions()))
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())

    def write(self, folder: Path) -> Path:
        """Write the result to a file named by benchmark, device and date, and replace one of the same name."""
        content = asdict(self)
        for figure, kept in zip(self.figures, content["figures"], strict=True):
            kept["samples"] = [float(f"{sample:.5g}") for sample in figure.samples]
            kept["median"] = float(f"{figure.median:.5g}")
        where = str(self.machine["device"]).lower().replace(" ", "-")
        path = folder / f"bench-{self.bench}-{where}-{self.date}.json"
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n")
        return path


def read_result(path: Path) -> BenchmarkResult:
    """Read a result from its file.

    Raises:
        ConfigError: the file does not hold a result.
    """
    try:
        content = json.loads(path.read_text())
        figures = [
            BenchmarkFigure(**{k: v for k, v in kept.items() if k != "median"}) for kept in content.pop("figures")
        ]
        return BenchmarkResult(**content, figures=figures)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path} must hold the result of a benchmark, but: {error}; remove it") from error


def table(results: Sequence[BenchmarkResult], *, all_figures: bool = True) -> str:
    """Format results as Markdown, one part for each.

    Args:
        results: the results to show.
        all_figures: whether figures without a goal are shown too.
    """
    if all_figures:
        return "\n".join(_part(result, all_figures) for result in results)
    alike: dict[tuple[str, ...], list[BenchmarkResult]] = {}
    for result in results:
        kind, goals = result.bench.partition("-")[0], (figure.name for figure in result.figures if figure.goal)
        alike.setdefault((kind, *goals), []).append(result)
    return "\n".join(_joined(found) if found[1:] else _part(found[0], all_figures) for found in alike.values())


def replaced(page: str, text: str) -> str:
    """Return a page in which the text between the marks is replaced.

    Raises:
        ConfigError: the page has no marks.
    """
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not end:
        raise ConfigError(f"the page must hold {_BEGIN} and then {_END}, but does not; add them on lines of their own")
    return f"{before}{begin}\n{text}\n{end}{after}"


def _joined(results: Sequence[BenchmarkResult]) -> str:
    """Format results with the same figures as one table, a row for each; a column where there are more figures."""
    first = results[0]
    names = [f"{figure.name} ({figure.goal})" for figure in first.figures if figure.goal]
    rows = [
        [f"{r.what} ({r.machine['device']}, {r.date})", *(f.formatted for f in r.figures if f.goal)] for r in results
    ]
    head = f"**{first.bench.partition('-')[0]}, with goals** (`{first.command}` and others)"
    cells = [["", *names], *rows]
    if len(names) > len(results):
        cells = [list(column) for column in zip(*cells, strict=True)]
    lines = [cells[0], ["---"] * len(cells[0]), *cells[1:]]
    return "\n".join([head, "", *(f"| {' | '.join(line)} |" for line in lines), ""])


def _versions() -> Iterator[tuple[str, str]]:
    for name in _VERSIONS:
        with suppress(PackageNotFoundError):  # a machine that is lent for a benchmark need not have Ray
            yield name, version(name)


def _part(result: BenchmarkResult, all_figures: bool) -> str:
    where = f"{result.machine['device']}, {result.machine['cores']} cores, load {result.machine['load']}, {result.date}"
    rows = [f"| {f.name} | {f.formatted} | {_limit(f)} | {f.goal} |" for f in result.figures if f.goal or all_figures]
    head = [
        f"**{result.what}** ({where}; `{result.command}`)",
        "",
        "| | measured | limit | goal |",
        "|---|---|---|---|",
    ]
    return "\n".join([*head, *rows, ""])


def _limit(figure: BenchmarkFigure) -> str:
    return "" if figure.limit is None else f"{figure.limit:.3g} {figure.unit}".rstrip()


def _processor() -> str:
    """Return the name of the processor by Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
