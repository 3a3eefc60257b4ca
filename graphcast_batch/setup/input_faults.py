"""Find every reason why a Case cannot be started from the inputs of a run."""

from dataclasses import replace

from graphcast_batch.errors import GridError, InputError
from graphcast_batch.inputs.findings import Finding
from graphcast_batch.inputs.quality.checks import faults_of_values, find_faults
from graphcast_batch.inputs.sources.member_archives import MemberArchives
from graphcast_batch.plan import Case
from graphcast_batch.setup.run_source import AnySource
from graphcast_batch.spec import Task


def input_faults(
    source: AnySource, case: Case, task: Task, resolution: float, state: MemberArchives | None = None
) -> list[Finding]:
    """Read the inputs of a Case, and return every reason why it cannot be started from them; uses no device.

    Args:
        source: source of the inputs.
        case: Case to check.
        task: task of the weights.
        resolution: resolution in degrees that the weights were trained for; 0 for any.
        state: the member of an analysis ensemble that the Case starts from, alone; None to start from the inputs.
    """
    try:
        problems = source.findings(case, task)
        if problems:
            return problems + faults_of_values(source.held(case, task))
        inputs = source.read(case, task)
        if state is not None:
            problems = state.findings(case.init_time)
            if problems:
                return problems
            found = state.replaced(inputs.frames, 0, case.init_time)
            inputs = replace(inputs, frames=found.frames, stated={**inputs.stated, **found.stated})
        return find_faults(inputs, task, source.grid, resolution)
    except (InputError, GridError) as error:
        return [_unreadable(error)]


def _unreadable(error: InputError | GridError) -> Finding:
    """Return an error as a finding, in which the remedy is separate from what was found."""
    found, separator, remedy = str(error).rpartition("; ")
    otherwise = f"{remedy}, or leave the Case out" if separator else "leave the Case out"
    return Finding("the data", "be readable", found or remedy, otherwise)
