"""List the Cases of a run that can be started: those of which all states that members start from are there."""

import numpy as np

from graphcast_batch.config.run_config import RunConfig
from graphcast_batch.errors import ConfigError, InputError
from graphcast_batch.inputs.case_inputs import times_of_inputs
from graphcast_batch.inputs.sources.dataset_files import DatasetFiles
from graphcast_batch.inputs.sources.member_archives import MemberArchives
from graphcast_batch.plan import Case, plan_cases, plan_times
from graphcast_batch.setup.run_source import AnySource
from graphcast_batch.spec import Task
from graphcast_batch.variables import HOUR

Cases = tuple[tuple[Case, ...], tuple[tuple[str, str], ...]]
"""Cases, and the keys of others that are skipped, each with the reason."""


def run_cases(config: RunConfig, source: AnySource, members: MemberArchives | None, task: Task, *, able: bool) -> Cases:
    """Return one Case, without a member, for each initial time of a run.

    Args:
        config: config of the run.
        source: source of initial states.
        members: members of the analysis ensemble that the config names; None if it names none.
        task: task of the model.
        able: whether Cases that the inputs cannot start are skipped; otherwise they are among the others.

    Raises:
        ConfigError: no Case can be started, or lags do not fit the model.
        InputError: as `ConfigError`, for a reason that is in the files.
    """
    _check_lags(config, task)
    before = config.start_hours
    if isinstance(source, DatasetFiles):
        cases, skipped = source.cases(config.steps, task)
    else:
        assert config.times is not None
        wanted = plan_times(config.times)
        if not able:
            return tuple(Case(time, config.steps, task.step_hours) for time in wanted), ()
        cases, skipped = _cases(
            sorted({time - hours * HOUR for time in wanted for hours in before}), config, source, task
        )
    if members and able:
        cases, skipped = _startable_by(members, cases, skipped)
    return (cases, skipped) if len(before) == 1 else _with_all(before, wanted, cases, dict(skipped))


def _check_lags(config: RunConfig, task: Task) -> None:
    for lag in config.ensemble.lagged.hours if config.ensemble else ():
        if lag % task.step_hours:
            raise ConfigError(
                f"each of ensemble.lagged.hours must be a multiple of {task.step_hours} h, the model's step, but {lag} "
                "is not"
            )


def _with_all(
    before: tuple[int, ...], wanted: list[np.datetime64], starts: tuple[Case, ...], lacking: dict[str, str]
) -> Cases:
    """Return the Cases for which all forecasts can start.

    Args:
        before: how long before an initial time they start, in hours.
        wanted: initial times.
        starts: one Case for each time at which a forecast can start.
        lacking: why a forecast cannot start at other times, by the key of its Case.
    """
    steps, step_hours, known = starts[0].steps, starts[0].step_hours, {case.init_time for case in starts}
    cases, skipped = [], []
    for case in (Case(time, steps, step_hours) for time in wanted):
        absent = [hours for hours in before if case.init_time - hours * HOUR not in known]
        if absent:
            why = lacking[Case(case.init_time - absent[0] * HOUR, steps, step_hours).key]
            skipped.append((case.key, f"{absent[0]} h before: {why}" if absent[0] else why))
        else:
            cases.append(case)
    if not cases:
        raise ConfigError(
            f"none of the {len(wanted)} initial times can be run with all that starts earlier; the first: "
            f"{skipped[0][0]}: {skipped[0][1]}; shorten ensemble.lagged or the cycles of ensemble.perturbations, or "
            "take later times"
        )
    return tuple(cases), tuple(skipped)


def _cases(init_times: list[np.datetime64], config: RunConfig, source: AnySource, task: Task) -> Cases:
    """Return the Cases whose input frames the source has, in every variable."""
    cases, skipped = _startable(init_times, config.steps, source, task)
    problems = {case: source.findings(case, task) for case in cases} if source.findings(cases[0], task) else {}
    startable = tuple(case for case in cases if not problems.get(case))
    if not startable:
        raise InputError(
            f"{source.origin} cannot start any of {len(cases)} Cases: {'; '.join(map(str, problems[cases[0]]))}"
        )
    unable = tuple((case.key, "; ".join(map(str, found))) for case, found in problems.items() if found)
    return startable, skipped + unable


def _startable(init_times: list[np.datetime64], steps: int, source: AnySource, task: Task) -> Cases:
    """Return the Cases whose input times the source has; if it has none, the error names what it lacks."""
    try:
        return plan_cases(init_times, steps, times_of_inputs(source, task), task)
    except ConfigError as error:
        first = Case(init_times[0], steps, task.step_hours)
        problems = source.findings(first, task)
        if not problems:
            raise
        raise ConfigError(
            f"none of the {len(init_times)} initial times can be run; the first, {first.key}: "
            f"{'; '.join(map(str, problems))}"
        ) from error


def _startable_by(members: MemberArchives, cases: tuple[Case, ...], skipped: tuple[tuple[str, str], ...]) -> Cases:
    """Skip the initial times at which a member of an analysis ensemble is missing."""
    findings = members.findings(cases[0].init_time)
    always = [finding for finding in findings if finding.time is None]
    if always:
        raise InputError(f"ensemble.perturbations cannot start any Case: {'; '.join(map(str, always))}")
    unable = {case: members.findings(case.init_time) for case in cases if not members.hold(case.init_time)}
    startable = tuple(case for case in cases if case not in unable)
    if not startable:
        raise InputError(
            f"ensemble.perturbations cannot start any of {len(cases)} Cases; the first, {cases[0].key}: "
            f"{'; '.join(map(str, findings))}"
        )
    return startable, skipped + tuple((case.key, "; ".join(map(str, found))) for case, found in unable.items())
