"""Open what a config names, and plan the Cases of the run."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphcast_batch.config.ensemble_section import EnsembleConfig
from graphcast_batch.config.model_section import ModelConfig
from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.errors import ConfigError
from graphcast_batch.inputs.quality.checks import check_statistics
from graphcast_batch.inputs.sources.member_archives import MemberArchives
from graphcast_batch.inputs.statistics import (
    Statistics,
)
from graphcast_batch.members import Member
from graphcast_batch.models.base import Checkpoint
from graphcast_batch.models.channels import Channels
from graphcast_batch.models.model_kinds import MODELS
from graphcast_batch.models.normalization import normalization
from graphcast_batch.perturbations.base import perturbation
from graphcast_batch.setup.ensemble_members import ensemble_members
from graphcast_batch.setup.ensemble_store import ensemble_plan
from graphcast_batch.setup.run_cases import run_cases
from graphcast_batch.setup.run_source import AnySource, open_run_members, open_run_source
from graphcast_batch.setup.run_statistics import STATISTICS_FOLDER, given_statistics
from graphcast_batch.spec import Task
from graphcast_batch.stores.layout import Plan, plan_layout


@dataclass(frozen=True, eq=False)
class RunSetup:
    """A config with everything that it names, opened and checked.

    Attributes:
        config: config of the run.
        source: source of initial states and truth.
        members: members of the analysis ensemble that the config names; None if it names none.
        checkpoint: weights with their task and architecture.
        channels: positions of the variables of the task in the vectors of the network.
        statistics: normalization statistics; None if they are still to be computed from the inputs.
        plan: the Cases, and the layout of what they write.
        ensembles: the Cases of what is computed of all members together, and the layout of what they write; None if
            there are none.
    """

    config: RunConfig
    source: AnySource
    members: MemberArchives | None
    checkpoint: Checkpoint
    channels: Channels
    statistics: Statistics | None
    plan: Plan
    ensembles: Plan | None

    @property
    def store_bytes(self) -> int:
        """Size of all that the run writes before compression, in bytes: forecasts, and statistics over members."""
        return self.plan.store_bytes + (self.ensembles.store_bytes if self.ensembles else 0)

    @property
    def files(self) -> int:
        """Number of files of forecasts and of statistics over members that the run writes."""
        return sum(plan.layout.case_files * len(plan.cases) for plan in (self.plan, self.ensembles) if plan)


def assemble(config: RunConfig, *, able: bool = True) -> RunSetup:
    """Open inputs, weights and statistics, and plan the Cases; writes nothing and uses no device.

    Args:
        config: config of the run.
        able: whether Cases that the inputs cannot start are skipped; otherwise they are planned too.

    Raises:
        GraphcastBatchError: something that the config names is missing or cannot be read, or two parts do not fit.
    """
    _check_model(config.model)
    model = MODELS[config.model.implementation]
    weights = model.weights(config.weights)
    source = open_run_source(config, weights)
    channels = weights.channels(source.dims)
    _check_limited(config, weights.task)
    layout = plan_layout(weights.task, source.grid, config.steps, source.dims, config.outputs)
    members = open_run_members(config, weights, source.grid)
    cases, skipped = run_cases(config, source, members, weights.task, able=able)
    statistics = given_statistics(config)
    if statistics:
        origin = str(config.model.statistics or config.store / STATISTICS_FOLDER)
        check_statistics(statistics.by_kind, origin, weights.task, lambda: source.held(cases[0], weights.task))
        normalization(channels, statistics.by_kind)
        if config.ensemble and config.ensemble.perturbations:
            chosen = config.ensemble.perturbations
            perturbation(chosen, statistics, weights.task, source.grid, members)  # for its checks
    checkpoint = weights.checkpoint(channels)
    plan = Plan(cases, layout, skipped)
    if config.ensemble:
        plan = _of_members(
            plan, ensemble_members(config.ensemble, model, config.weights, checkpoint, channels), config.ensemble
        )
    return RunSetup(config, source, members, checkpoint, channels, statistics, plan, ensemble_plan(plan, config))


def _of_members(plan: Plan, members: Sequence[Member], ensemble: EnsembleConfig) -> Plan:
    """Return a plan in which each member of each initial time is a Case, and those of a checkpoint follow each other.

    For each state that it reads, a worker changes its weights as often as there are checkpoints, and no more.
    """
    parts = {member.number: ensemble.parts_of(member.number) for member in members}
    numbers = sorted(parts, key=lambda number: (parts[number].lag, parts[number].checkpoint))
    cases = tuple(
        replace(case, member=number, lag_steps=parts[number].lag // case.step_hours)
        for case in plan.cases
        for number in numbers
    )
    return replace(plan, cases=cases, members=tuple(members))


def _check_model(chosen: ModelConfig) -> None:
    """Refuse what the model that a config chooses cannot do."""
    model, name = MODELS[chosen.implementation], f"model.implementation: {chosen.implementation}"
    if chosen.batch_size not in (1, "auto") and not model.batches:
        raise ConfigError(f"model.batch_size must be 1 or auto with {name}, but is {chosen.batch_size}")
    if model.takes_noise:
        raise ConfigError(f"{name} needs random noise, which runs do not give yet; choose another implementation")
    if chosen.memory not in ("auto", *model.memory_modes):
        modes = ", ".join(("auto", *model.memory_modes))
        raise ConfigError(f"model.memory must be one of {modes} with {name}, but is {chosen.memory}")


def _check_limited(config: RunConfig, task: Task) -> None:
    targets = task.target_variables
    for name in config.limits if isinstance(config.limits, dict) else ():
        if name not in targets:
            near = difflib.get_close_matches(name, targets, n=1)
            hint = f"did you mean {near[0]}?" if near else f"take one of {', '.join(sorted(targets))}"
            raise ConfigError(f"limits: each must be of a variable that is predicted, but {name} is not; {hint}")
