"""Commands that help with a config: a first one made of a few answers, and what may stand in one."""

import json
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

import typer

from graphcast_batch.cli.application import FORECASTS, app, console, examples, say, waiting, warn
from graphcast_batch.errors import ConfigError, GridError, InputError, InputNotFoundError

if TYPE_CHECKING:
    import numpy as np

    from graphcast_batch.config.run_config import RunConfig
    from graphcast_batch.setup.run_source import AnySource
    from graphcast_batch.spec import Task

Answer = TypeVar("Answer", str, int)

_SYNTHETIC, _RANDOM = "synthetic", "random"
_RESOLUTION: Final = 6
"""Of the synthetic planet, degrees: a minute's work for any machine."""
_EVERY_HOURS: Final = 12
_DRAWN: Final = ("2m_temperature", "geopotential")
_DRAWN_LEVEL: Final = 500
_DRAWN_HOURS: Final = (24, 120, 240)
_LONGEST: Final = 100
_PLAIN: Final = re.compile(
    r"(?!(?i:y|n|yes|no|on|off|true|false|null)$)([A-Za-z/][\w./-]*|\d\w*_\w+|\d{4}-\d\d-\d\dT\d\d)"
)
"""Text that YAML takes for itself without quotes."""

_LAYOUT: Final = """\
# graphcast-batch run {file}
#
# {summary}
# All keys and what they mean: graphcast-batch schema. Paths are relative to the working directory.

# The zarr store to make. Running again makes what is missing; a longer period or more steps extend it.
store: {store}

# Where states come from, and the truth that forecasts are held against:
# {found}
inputs: {inputs}
{times}
# Steps of 6 h of each forecast.
steps: {steps}

model:
  # {about_weights}
  weights:{weights}
  # The mean and spread of variables, by which the network's numbers are scaled; {about_statistics}
{statistics}
# One worker for each GPU, without GPUs one for each `threads` cores.
workers: {{device: auto, threads: 2}}

# What the store keeps; without this section everything, unrounded.
# outputs: {{variables: {variables}, every_hours: 24, keep_bits: 10}}

# Maps of every forecast, in STORE/figures; without this section none.
figures: {figures}

# Scores are made later by graphcast-batch evaluate STORE, or during the run:
# scores: {{during: true}}
"""


@app.command(
    rich_help_panel=FORECASTS,
    epilog=examples(
        "graphcast-batch init first.yaml --inputs synthetic",
        "graphcast-batch init hindcast.yaml --inputs /data/era5_1deg.zarr --weights params/GraphCast_small.npz "
        "--statistics stats --steps 40",
    ),
)
def init(
    file: Annotated[Path, typer.Argument(help="YAML file to write.", metavar="[FILE]")] = Path("hindcast.yaml"),
    inputs: Annotated[
        str | None, typer.Option(help="Archive (file, store, glob, folder or address), or synthetic.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Checkpoint (.npz), or random to try things out.")] = None,
    statistics: Annotated[
        str | None, typer.Option(help="Folder of the statistics that a checkpoint was trained with.")
    ] = None,
    store: Annotated[str | None, typer.Option(help="Store to make.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="6 h steps of each forecast.")] = None,
    first: Annotated[str | None, typer.Option(help="First initial time, such as 2020-01-01T00.")] = None,
    last: Annotated[str | None, typer.Option(help="Last initial time.")] = None,
    every_hours: Annotated[int | None, typer.Option(min=1, help="Hours between initial times.")] = None,
) -> None:
    """Writes the config of a first run, with a comment on each part.

    It looks into the archive for what can be forecast. On a terminal it asks for what is not given; elsewhere it takes
    what it would propose there. Nothing is overwritten.
    """
    from graphcast_batch.config.messages import parse_config
    from graphcast_batch.config.run_config import RunConfig
    from graphcast_batch.credentials import references, without_secrets

    if file.exists():
        raise ConfigError(f"{file} must not be there yet, but is; give another name, or remove it")
    inputs = without_secrets(inputs or _ask("archive to run from (or synthetic)", _SYNTHETIC))
    source = _looked_into(inputs)
    say(_described(source))
    weights = weights or _ask("checkpoint (or random, to try things out)", _RANDOM)
    statistics = statistics or _statistics_for(weights)
    steps = steps or _ask("6 h steps of each forecast", 8 if weights == _RANDOM else 40)
    section, task = _weights(weights, source, steps)
    content: dict[str, Any] = {
        "store": store or _ask("store to make", f"runs/{file.stem}"),
        "inputs": _inputs(inputs, source),
        "times": _times(source, task, steps, (first, last, every_hours)),
        "steps": steps,
        "model": {"weights": section} | ({"statistics": statistics} if statistics else {}),
    }
    config = parse_config({key: part for key, part in content.items() if part}, RunConfig, origin="of these answers")
    figures = _figures(task, steps)
    summary = _summary(config, task)
    with file.open("x", encoding="utf-8") as text:
        text.write(_written(file, content | {"figures": figures}, summary, _described(source)))
    for name in references(inputs):
        say(f"{file} holds no secrets: before a run, set the environment variable {name} to what stood in the address")
    say(f"{file}: {summary}\nnext: graphcast-batch plan {file}")


@app.command(
    rich_help_panel=FORECASTS,
    epilog=examples(
        "graphcast-batch schema > run.schema.json",
        "graphcast-batch schema recipe > recipe.schema.json",
        "# yaml-language-server: $schema=run.schema.json",
    ),
)
def schema(
    kind: Annotated[Literal["run", "recipe"], typer.Argument(help="Config of a run, or recipe of a training.")] = "run",
) -> None:
    """Prints the JSON schema of a config, by which editors explain, complete and check it.

    Many editors take it from a first line as the last example.
    """
    from graphcast_batch.config.run_config import RunConfig
    from graphcast_batch.recipe import TrainingRecipe

    model = RunConfig if kind == "run" else TrainingRecipe
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}  # pydantic writes it, and does not say so
    print(json.dumps(dialect | model.model_json_schema(), indent=2, ensure_ascii=False))


def _ask(question: str, default: Answer) -> Answer:
    """The answer of whoever sits at the terminal; where nobody does, the default."""
    if not (sys.stdin.isatty() and console.is_terminal):
        return default
    answer: Answer = typer.prompt(question, default=default)
    return answer


def _looked_into(inputs: str) -> "AnySource":
    from graphcast_batch.config.inputs_section import ArchiveInputs, SyntheticInputs
    from graphcast_batch.config.messages import parse_config
    from graphcast_batch.inputs.sources.configured import open_source
    from graphcast_batch.inputs.sources.dataset_files import DatasetFiles
    from graphcast_batch.variables import LEVELS_13

    if inputs == _SYNTHETIC:
        return open_source(SyntheticInputs(kind="synthetic", resolution=_RESOLUTION), LEVELS_13)
    try:
        return open_source(parse_config({"kind": "archive", "path": inputs}, ArchiveInputs, origin="of --inputs"), ())
    except InputNotFoundError:
        raise
    except InputError:
        with suppress(InputError, GridError):
            files = DatasetFiles(inputs)
            _ = files.grid  # is read at once, which tells whether they are dataset files
            return files
        raise


def _described(source: "AnySource") -> str:
    """What a source is, with the first and last time of any variable."""
    import numpy as np

    held = []
    for name, dims in source.dims.items():
        with suppress(InputError):  # it is not known how precipitation is summed up
            held.append(source.times_of([name]) if "time" in dims else None)
    every = [times for times in held if times is not None and times.size]
    span = f", {_hour(np.min(np.concatenate(every)))} to {_hour(np.max(np.concatenate(every)))}" if every else ""
    return f"{source.origin}: {source.spoken}, {source.grid}, {len(source.levels)} levels{span}"


def _inputs(inputs: str, source: "AnySource") -> dict[str, Any]:
    from graphcast_batch.inputs.sources.dataset_files import DatasetFiles

    if inputs == _SYNTHETIC:
        return {"kind": "synthetic", "resolution": _RESOLUTION}
    return {"kind": "datasets" if isinstance(source, DatasetFiles) else "archive", "path": inputs}


def _statistics_for(weights: str) -> str | None:
    """None for those of the inputs, which only weights that have learnt nothing may be given."""
    if weights == _RANDOM:
        return None
    given = _ask("folder of the statistics that it was trained with", "")
    if not given:
        raise ConfigError(
            f"the checkpoint {weights} needs the statistics that it was trained with, but none are given; give their "
            "folder with --statistics (graphcast-batch fetch stats brings the published ones)"
        )
    return given


def _times(
    source: "AnySource", task: "Task", steps: int, given: tuple[str | None, str | None, int | None]
) -> dict[str, Any] | None:
    """Section ``times``; None for dataset files, which fix them."""
    from graphcast_batch.cli.proposals import propose_times
    from graphcast_batch.inputs.sources.dataset_files import DatasetFiles

    first, last, every_hours = given
    if isinstance(source, DatasetFiles):
        if first or last or every_hours:
            raise ConfigError(f"{source.origin} fixes the initial times; leave out --first, --last and --every-hours")
        return None
    if not (first and last and every_hours):
        proposed = propose_times(source, task.input_variables, steps, every_hours)
        proposed = proposed or ("2020-01-01T00", "2020-01-02T12", _EVERY_HOURS)
        first = first or _ask("first initial time", proposed[0])
        last = last or _ask("last initial time", proposed[1])
        every_hours = every_hours or _ask("hours between initial times", proposed[2])
    return {"first": first, "last": last, "every_hours": every_hours}


def _hour(time: "np.datetime64") -> str:
    return str(time.astype("datetime64[h]"))


def _weights(weights: str, source: "AnySource", steps: int) -> tuple[dict[str, Any], "Task"]:
    """Section ``model.weights`` and the task: the checkpoint's, or for random weights what the source can start."""
    from graphcast_batch.cli.proposals import propose_task
    from graphcast_batch.config.messages import parse_config
    from graphcast_batch.config.model_section import CheckpointWeights
    from graphcast_batch.models.graphcast.weights import ConfiguredWeights

    if weights != _RANDOM:
        section = {"kind": "checkpoint", "path": weights}
        return section, ConfiguredWeights(parse_config(section, CheckpointWeights, origin="of --weights")).task
    with waiting("looking into the archive"):
        found = propose_task(source, steps)
    for name, reason in found.left_out.items():
        warn(f"left out: {name}: {reason}")
    task = found.name or found.task.model_dump(mode="json", exclude={"input_duration"})
    architecture = {"mesh_size": 3, "latent_size": 32, "gnn_msg_steps": 4}
    return {"kind": "random", "seed": 0, "architecture": architecture, "task": task}, found.task


def _figures(task: "Task", steps: int) -> dict[str, Any]:
    drawn = [name for name in task.target_variables if name in _DRAWN][:2]
    variables = drawn or list(task.target_variables[:1])
    levels = [_DRAWN_LEVEL] if _DRAWN_LEVEL in task.pressure_levels else list(task.pressure_levels[-1:])
    hours = [hour for hour in _DRAWN_HOURS if hour <= steps * task.step_hours] or [steps * task.step_hours]
    return {"variables": variables, "levels": levels, "lead_hours": hours}


def _summary(config: "RunConfig", task: "Task") -> str:
    from graphcast_batch.plan import plan_times

    hours = config.steps * task.step_hours
    if config.times is None:
        return f"forecasts of {hours} h, one from each dataset file"
    times = plan_times(config.times)
    return f"{len(times)} forecasts of {hours} h from {_hour(times[0])} to {_hour(times[-1])}"


def _written(file: Path, content: Mapping[str, Any], summary: str, found: str) -> str:
    model, times = content["model"], content["times"]
    is_random, has_statistics = model["weights"]["kind"] == _RANDOM, "statistics" in model
    return _LAYOUT.format(
        file=" ".join(str(file).split()),  # a line break would end the comment
        summary=summary,
        found=" ".join(found.split()),
        times=f"\n# Initial times, UTC.\ntimes: {_flow(times)}\n" if times else "",
        about_weights="Random: these forecasts show the way, not weather." if is_random else "With task and sizes.",
        about_statistics="those of its training." if has_statistics else "computed from the inputs.",
        statistics=f"  statistics: {_flow(model['statistics'])}\n" if has_statistics else "  # statistics: FOLDER\n",
        weights=_block(model["weights"], 4),
        variables=_flow(content["figures"]["variables"]),
        **{name: _flow(content[name]) for name in ("store", "inputs", "steps", "figures")},
    )


def _block(value: object, indent: int) -> str:
    """A value as YAML behind its key, on several lines where one would be long."""
    flow = _flow(value)
    if not isinstance(value, Mapping | list) or indent + len(flow) < _LONGEST:
        return f" {flow}"
    start = "\n" + indent * " "
    if isinstance(value, Mapping):
        return "".join(f"{start}{key}:{_block(part, indent + 2)}" for key, part in value.items())
    return "".join(f"{start}- {_flow(part)}" for part in value)


def _flow(value: object) -> str:
    """A value as YAML on one line."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_flow(part)}' for key, part in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    plain = isinstance(value, str) and _PLAIN.fullmatch(value)
    return str(value) if plain else json.dumps(value, ensure_ascii=False)
