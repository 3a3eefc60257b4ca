"""Write the config of a first run from a few answers and from what an archive holds."""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from graphcast_batch.app.any_path import AnyPath, text_or_none
from graphcast_batch.app.progress import Progress, ProgressChoice, chosen_progress
from graphcast_batch.app.proposing import propose_task, propose_times
from graphcast_batch.config.inputs_section import ArchiveInputs, SyntheticInputs
from graphcast_batch.config.messages import parse_config
from graphcast_batch.config.model_section import CheckpointWeights
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.credentials import references, without_secrets
from graphcast_batch.errors import ConfigError, GridError, InputError, InputNotFoundError
from graphcast_batch.inputs.sources.configured import open_source
from graphcast_batch.inputs.sources.dataset_files import DatasetFiles
from graphcast_batch.models.model_kinds import DEFAULT_MODEL, MODELS
from graphcast_batch.plan import plan_times
from graphcast_batch.setup.run_source import AnySource
from graphcast_batch.spec import TASKS, Task
from graphcast_batch.variables import LEVELS_13

Ask = Callable[[str, Any], Any]
"""Asks a question, with the answer that is proposed, and returns the answer."""

SYNTHETIC, RANDOM = "synthetic", "random"
_RESOLUTION: Final = 6
"""Resolution of the synthetic planet in degrees: a run takes a minute on any machine."""
_EVERY_HOURS: Final = 12
_DRAWN: Final = ("2m_temperature", "geopotential")
_DRAWN_LEVEL: Final = 500
_DRAWN_HOURS: Final = (24, 120, 240)
_STEP_HOURS: Final = TASKS["GraphCast_small"].step_hours
"""Length of a step of every published task, for the question that comes before the weights are read."""
_LONGEST: Final = 100
"""Most characters of YAML on one line."""
_PLAIN: Final = re.compile(
    r"(?!(?i:y|n|yes|no|on|off|true|false|null)$)([A-Za-z/][\w./-]*|\d\w*_\w+|\d{4}-\d\d-\d\dT\d\d)"
)
"""Text that YAML reads as text without quotes."""

_LAYOUT: Final = """\
# graphcast-batch run {file}
#
# {summary}
# All keys and their meaning: graphcast-batch schema. Paths are relative to the working directory.

# The zarr store to write. Running again makes what is missing; a longer period or more steps extend the store.
store: {store}

# Inputs that forecasts start from, and the truth that they are scored against:
# {found}
inputs: {inputs}
{times}
# Number of steps of {step_hours} h of each forecast.
steps: {steps}

model:
  # {about_weights}
  weights:{weights}
  # Mean and standard deviation of each variable, which normalize the inputs; {about_statistics}
{statistics}
# One worker for each GPU; without GPUs one worker for every `threads` cores.
workers: {{device: auto, threads: 2}}

# What the store keeps; without this section all values, unrounded.
# outputs: {{variables: {variables}, every_hours: 24, keep_bits: 10}}

# Maps of every forecast, in STORE/figures; without this section none.
figures: {figures}

# Scores are computed later by graphcast-batch evaluate STORE, or during the run:
# scores: {{online: true}}
"""


@dataclass(frozen=True)
class FirstConfig:
    """A config that was written; `init_config` returns it.

    Attributes:
        file: the YAML file.
        summary: what a run of it makes, in one sentence.
        secrets: environment variables that must be set before a run, because the file holds no secrets.
        left_out: variables and levels of the archive that are not used, each with the reason.
    """

    file: Path
    summary: str
    secrets: tuple[str, ...]
    left_out: Mapping[str, str]


def init_config(
    file: AnyPath = "hindcast.yaml",
    *,
    inputs: AnyPath | None = None,
    weights: AnyPath | None = None,
    statistics: AnyPath | None = None,
    store: AnyPath | None = None,
    steps: int | None = None,
    first: str | None = None,
    last: str | None = None,
    every_hours: int | None = None,
    ask: Ask | None = None,
    progress: ProgressChoice = None,
) -> FirstConfig:
    """Write the config of a first run, with a comment on each part; an existing file is not replaced.

    The archive is read to find what can be forecast from it.

    >>> gb.init_config("first.yaml", inputs="synthetic").summary

    Args:
        file: YAML file to write.
        inputs: archive (file, store, glob pattern, folder or address), or "synthetic".
        weights: checkpoint (.npz), or "random" to try things out.
        statistics: folder of the normalization statistics that a checkpoint was trained with.
        store: zarr store that the run writes.
        steps: number of model steps of each forecast.
        first: first initial time, such as ``2020-01-01T00``, UTC.
        last: last initial time.
        every_hours: hours between initial times.
        ask: asks a person for a value that is not given; without it the proposed value is taken.
        progress: as for `run`.

    Raises:
        ConfigError: the file exists, or the answers do not fit each other.
        GraphcastBatchError: the archive or checkpoint cannot be read or does not suffice.
    """
    file, shown = Path(file), chosen_progress(progress)
    ask = ask or (lambda question, proposed: proposed)
    if file.exists():
        raise ConfigError(f"{file} must not exist yet, but does; give another name, or remove the file")
    inputs = without_secrets(text_or_none(inputs) or ask("archive to run from (or synthetic)", SYNTHETIC))
    source = _opened(inputs)
    shown.report(_description(source))
    weights = text_or_none(weights) or str(ask("checkpoint (or random, to try things out)", RANDOM))
    statistics = text_or_none(statistics) or _statistics_for(weights, ask)
    steps = steps or int(ask(f"{_STEP_HOURS} h steps of each forecast", 8 if weights == RANDOM else 40))
    section, task, left_out = _weights(weights, source, steps, shown)
    content: dict[str, Any] = {
        "store": text_or_none(store) or ask("store to make", f"runs/{file.stem}.zarr"),
        "inputs": _inputs(inputs, source),
        "times": _times(source, task, steps, (first, last, every_hours), ask),
        "steps": steps,
        "model": {"weights": section} | ({"statistics": statistics} if statistics else {}),
    }
    if not str(content["store"]).rstrip("/").endswith(".zarr"):
        shown.report(f"store: some tools read {content['store']} only if its name ends in .zarr")
    config = parse_config({key: part for key, part in content.items() if part}, RunConfig, origin="of these answers")
    summary = _summary(config, task)
    written = _written(file, content | {"figures": _figures(task, steps)}, task, summary, _description(source))
    with file.open("x", encoding="utf-8") as text:
        text.write(written)
    return FirstConfig(file, summary, tuple(references(inputs)), left_out)


def _opened(inputs: str) -> AnySource:
    if inputs == SYNTHETIC:
        return open_source(SyntheticInputs(kind="synthetic", resolution=_RESOLUTION), LEVELS_13)
    try:
        return open_source(parse_config({"kind": "archive", "path": inputs}, ArchiveInputs, origin="of --inputs"), ())
    except InputNotFoundError:
        raise
    except InputError:
        with suppress(InputError, GridError):
            files = DatasetFiles(inputs)
            _ = files.grid  # is read at once, and raises unless these are dataset files
            return files
        raise


def _description(source: AnySource) -> str:
    """Describe a source in one line, with the first and last time of any variable."""
    held = []
    for name, dims in source.dims.items():
        with suppress(InputError):  # the accumulation period of precipitation is not known
            held.append(source.times_of([name]) if "time" in dims else None)
    every = [times for times in held if times is not None and times.size]
    span = f", {_hour(np.min(np.concatenate(every)))} to {_hour(np.max(np.concatenate(every)))}" if every else ""
    return f"{source.origin}: {source.layout}, {source.grid}, {len(source.levels)} levels{span}"


def _inputs(inputs: str, source: AnySource) -> dict[str, Any]:
    if inputs == SYNTHETIC:
        return {"kind": "synthetic", "resolution": _RESOLUTION}
    return {"kind": "datasets" if isinstance(source, DatasetFiles) else "archive", "path": inputs}


def _statistics_for(weights: str, ask: Ask) -> str | None:
    """Return the folder of the statistics of a checkpoint; None for random weights, which take those of the inputs."""
    if weights == RANDOM:
        return None
    given = ask("folder of the statistics that it was trained with", "")
    if not given:
        raise ConfigError(
            f"the checkpoint {weights} needs the statistics that it was trained with, but none are given; give their "
            "folder with --statistics (graphcast-batch fetch stats downloads the published ones)"
        )
    return str(given)


def _times(
    source: AnySource, task: Task, steps: int, given: tuple[str | None, str | None, int | None], ask: Ask
) -> dict[str, Any] | None:
    """Return the section ``times``; None for dataset files, which fix the initial times."""
    first, last, every_hours = given
    if isinstance(source, DatasetFiles):
        if first or last or every_hours:
            raise ConfigError(f"{source.origin} fixes the initial times; leave out --first, --last and --every-hours")
        return None
    if not (first and last and every_hours):
        proposed = propose_times(source, task.input_variables, steps, every_hours)
        proposed = proposed or ("2020-01-01T00", "2020-01-02T12", _EVERY_HOURS)
        first = first or ask("first initial time", proposed[0])
        last = last or ask("last initial time", proposed[1])
        every_hours = every_hours or ask("hours between initial times", proposed[2])
    return {"first": first, "last": last, "every_hours": every_hours}


def _hour(time: np.datetime64) -> str:
    return str(time.astype("datetime64[h]"))


def _weights(
    weights: str, source: AnySource, steps: int, progress: Progress
) -> tuple[dict[str, Any], Task, Mapping[str, str]]:
    """Return the section ``model.weights``, the task, and what of the source is left out.

    The task is that of the checkpoint, or for random weights the largest that the source can start.
    """
    if weights != RANDOM:
        section = {"kind": "checkpoint", "path": weights}
        chosen = parse_config(section, CheckpointWeights, origin="of --weights")
        return section, MODELS[DEFAULT_MODEL].weights(chosen).task, {}
    with progress.waiting("reading the archive"):
        found = propose_task(source, steps)
    for name, reason in found.left_out.items():
        progress.report(f"left out: {name}: {reason}", "warning")
    task = found.name or found.task.model_dump(mode="json", exclude={"input_duration"})
    architecture = {"mesh_size": 3, "latent_size": 32, "gnn_msg_steps": 4}
    drawn = {"kind": "random", "seed": 0, "architecture": architecture, "task": task}
    return drawn, found.task, found.left_out


def _figures(task: Task, steps: int) -> dict[str, Any]:
    drawn = [name for name in task.target_variables if name in _DRAWN][:2]
    variables = drawn or list(task.target_variables[:1])
    levels = [_DRAWN_LEVEL] if _DRAWN_LEVEL in task.pressure_levels else list(task.pressure_levels[-1:])
    hours = [hour for hour in _DRAWN_HOURS if hour <= steps * task.step_hours] or [steps * task.step_hours]
    return {"variables": variables, "levels": levels, "lead_hours": hours}


def _summary(config: RunConfig, task: Task) -> str:
    hours = config.steps * task.step_hours
    if config.times is None:
        return f"forecasts of {hours} h, one from each dataset file"
    times = plan_times(config.times)
    return f"{len(times)} forecasts of {hours} h from {_hour(times[0])} to {_hour(times[-1])}"


def _written(file: Path, content: Mapping[str, Any], task: Task, summary: str, found: str) -> str:
    model, times = content["model"], content["times"]
    is_random, has_statistics = model["weights"]["kind"] == RANDOM, "statistics" in model
    about_random = "Random weights: their forecasts are no weather, but show how everything works."
    return _LAYOUT.format(
        file=" ".join(str(file).split()),  # a line break would end the comment
        summary=summary,
        found=" ".join(found.split()),
        times=f"\n# Initial times, UTC.\ntimes: {_flow(times)}\n" if times else "",
        step_hours=task.step_hours,
        about_weights=about_random if is_random else "The checkpoint also fixes the task and the size of the network.",
        about_statistics="from the training." if has_statistics else "computed from the inputs.",
        statistics=f"  statistics: {_flow(model['statistics'])}\n" if has_statistics else "  # statistics: FOLDER\n",
        weights=_block(model["weights"], 4),
        variables=_flow(content["figures"]["variables"]),
        **{name: _flow(content[name]) for name in ("store", "inputs", "steps", "figures")},
    )


def _block(value: object, indent: int) -> str:
    """Format a value as YAML behind its key, on several lines if one would be long."""
    flow = _flow(value)
    if not isinstance(value, Mapping | list) or indent + len(flow) < _LONGEST:
        return f" {flow}"
    start = "\n" + indent * " "
    if isinstance(value, Mapping):
        return "".join(f"{start}{key}:{_block(part, indent + 2)}" for key, part in value.items())
    return "".join(f"{start}- {_flow(part)}" for part in value)


def _flow(value: object) -> str:
    """Format a value as YAML on one line."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_flow(part)}' for key, part in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    plain = isinstance(value, str) and _PLAIN.fullmatch(value)
    return str(value) if plain else json.dumps(value, ensure_ascii=False)
