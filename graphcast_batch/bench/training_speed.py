"""Measure time and memory of a training, by the length of rollouts and by the number of workers that share a batch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from graphcast_batch.bench.records import BenchmarkFigure, BenchmarkResult
from graphcast_batch.cluster import driver
from graphcast_batch.cluster.drain import Drain
from graphcast_batch.cluster.training_group import TrainingGroup
from graphcast_batch.config.inputs_section import SyntheticInputs
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.times_section import TimesConfig
from graphcast_batch.inputs.sources.configured import open_source
from graphcast_batch.inputs.statistics import write_statistics
from graphcast_batch.recipe import TrainingRecipe
from graphcast_batch.setup.run_statistics import computed_statistics
from graphcast_batch.spec import TASKS
from graphcast_batch.training.training_setup import training_setup
from graphcast_batch.variables import LEVELS_13

_ROLLOUTS: Final = (1, 4, 12)
_WORKERS: Final = (1, 2, 4)
_BATCH: Final = 4
"""Number of samples of an update, which the workers share."""
_SETTLING: Final = 2
"""First updates, which are not counted: they read the fields that later ones find in memory."""
_COUNTED: Final = 4
_VALUES: Final = 6 * len(LEVELS_13) + 5
"""Number of values of a frame at a point: variables on levels, and at the surface."""


class TrainedNetwork(NamedTuple):
    """The network that is trained.

    Attributes:
        resolution: grid spacing in degrees.
        mesh_size: refinements of the icosahedron.
        latent_size: features of a node.
        gnn_msg_steps: rounds of messages.
    """

    resolution: float
    mesh_size: int
    latent_size: int
    gnn_msg_steps: int


class _Measured(NamedTuple):
    """Time and memory of updates.

    Attributes:
        seconds: duration of an update.
        peak_bytes: peak memory of a worker.
    """

    seconds: float
    peak_bytes: float


_LARGE: Final = TrainedNetwork(3, 4, 128, 8)
"""A network whose activations take more memory than Python and JAX."""


def measure(
    rounds: int,
    network: TrainedNetwork = _LARGE,
    rollouts: Sequence[int] = _ROLLOUTS,
    workers: Sequence[int] = _WORKERS,
) -> BenchmarkResult:
    """Train on the synthetic planet, each time from the beginning, with each setting in turn.

    Args:
        rounds: how often each setting is measured.
        network: the network that is trained.
        rollouts: lengths, the shortest first; of one sample each, on one worker of one thread.
        workers: of one thread each, the fewest first, that share a batch of `_BATCH`.
    """
    by_rollout: dict[int, list[_Measured]] = {rollout: [] for rollout in rollouts}
    by_workers: dict[int, list[_Measured]] = {count: [] for count in workers}
    with driver.connected(None, Drain()), TemporaryDirectory(prefix="bench-training-") as folder:
        place = Path(folder)
        _keep_statistics(network, place)
        for _ in range(rounds):
            for rollout, found in by_rollout.items():
                found.append(_train(network, place, rollout=rollout, batch=1, workers=1))
            for count, found in by_workers.items():
                found.append(_train(network, place, rollout=1, batch=_BATCH, workers=count))
    return BenchmarkResult(
        bench="training",
        what=f"training at {network.resolution:g}°, latent size {network.latent_size}, {network.gnn_msg_steps} "
        "message steps: by the length of rollouts, and by workers of one thread each that share a batch",
        command=f"graphcast-batch bench training --rounds {rounds}",
        figures=[*_of_rollouts(network, by_rollout), *_of_workers(by_workers)],
        settings={**network._asdict(), "batch": _BATCH},
    )


def _of_rollouts(network: TrainedNetwork, found: Mapping[int, Sequence[_Measured]]) -> list[BenchmarkFigure]:
    first, last = min(found), max(found)
    pairs = list(zip(found[first], found[last], strict=True))
    points = round(180 / network.resolution + 1) * round(360 / network.resolution)
    figures = [
        BenchmarkFigure(
            f"memory of a worker, {last} steps more than {first}",
            "GB",
            [(long.peak_bytes - short.peak_bytes) / 1e9 for short, long in pairs],
            limit=(last - first) * points * _VALUES * 4 / 1e9,  # the frames of the rollout
        ),
        BenchmarkFigure(
            f"a step of {last} / a step of {first}, with its gradient",
            "times",
            [long.seconds / last / (short.seconds / first) for short, long in pairs],
        ),
    ]
    for rollout, measured in found.items():
        figures += [
            BenchmarkFigure(
                f"a step of {rollout}, with its gradient", "s", [one.seconds / rollout for one in measured]
            ),
            BenchmarkFigure(
                f"peak memory of a worker, rollouts of {rollout}", "GB", [one.peak_bytes / 1e9 for one in measured]
            ),
        ]
    return figures


def _of_workers(found: Mapping[int, Sequence[_Measured]]) -> list[BenchmarkFigure]:
    few = min(found)
    return [
        BenchmarkFigure(
            f"{many} workers / {few}",
            "times",
            [one.seconds / other.seconds for one, other in zip(found[few], found[many], strict=True)],
            limit=float(many / few),
        )
        for many in found
        if many != few
    ]


def _keep_statistics(network: TrainedNetwork, folder: Path) -> None:
    inputs = parse_config(_inputs(network), SyntheticInputs, origin="of the benchmark")
    times = parse_config({"list": ["2010-01-01T06", "2010-07-01T18"]}, TimesConfig, origin="of the benchmark")
    task = TASKS["GraphCast_small"]
    write_statistics(computed_statistics(open_source(inputs, task.pressure_levels), task, times), folder)


def _train(network: TrainedNetwork, folder: Path, *, rollout: int, batch: int, workers: int) -> _Measured:
    """Measure the first updates of a training."""
    recipe = {
        "folder": str(folder / "training"),
        "inputs": _inputs(network),
        "times": {"list": ["2010-01-01T06"]},
        "validation": {"times": {"list": ["2011-01-01T06"]}},
        "model": {
            "weights": {
                "kind": "random",
                "architecture": {name: value for name, value in network._asdict().items() if name != "resolution"},
                "task": "GraphCast_small",
            },
            "statistics": str(folder),
            "precision": "float32",
        },
        "phases": [{"rollout": rollout, "updates": _SETTLING + _COUNTED, "peak": 1e-4}],
        "batch": batch,
        "workers": {"device": "cpu", "count": workers, "threads": 1},
    }
    group = TrainingGroup(training_setup(parse_config(recipe, TrainingRecipe, origin="of the benchmark")))
    try:
        group.advance(_SETTLING)
        lines = group.advance(_COUNTED)
    finally:
        group.stop()
    seconds, peaks = ([float(str(line[key])) for line in lines] for key in ("seconds", "peak_bytes"))
    return _Measured(median(seconds), max(peaks))


def _inputs(network: TrainedNetwork) -> dict[str, Any]:
    return {"kind": "synthetic", "resolution": network.resolution}
