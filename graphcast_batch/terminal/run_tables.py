"""Print plans, the state of stores, and their problems."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from graphcast_batch.cluster.diagnostics.diagnosis import Diagnosis
from graphcast_batch.cluster.slurm.submit import JobState
from graphcast_batch.inputs.findings import Finding
from graphcast_batch.integrity.repair import Repair
from graphcast_batch.integrity.verify import Verification
from graphcast_batch.members import UNPERTURBED
from graphcast_batch.models.mesh import mesh_counts
from graphcast_batch.plan import Case
from graphcast_batch.setup.resources import MemoryUse
from graphcast_batch.stores.case_records import CaseFailure, CaseState
from graphcast_batch.stores.layout import Plan
from graphcast_batch.text import byte_size as _size
from graphcast_batch.timing import Balance

MOST_SHOWN: Final = 20
"""Most rows of one kind that are printed; the others are counted."""


@dataclass(frozen=True)
class PlannedMemory:
    """What a plan shows of the memory of its workers.

    Attributes:
        uses: the ways to use memory.
        taken: the ways that workers take, with where: on this machine, or on an accelerator that was named.
        exact: whether the bytes are those of the model, and not a lower bound.
    """

    uses: Sequence[MemoryUse]
    taken: Mapping[MemoryUse, str]
    exact: bool

    @property
    def rows(self) -> dict[str, str]:
        """A row for each mode on each kind of device, with the steps of a call that are taken or else the most."""
        found: dict[tuple[bool, str], MemoryUse] = {}
        for use in (*self.taken, *self.uses):
            found.setdefault((use.accelerated, use.mode), use)
        rows = {"memory": "of each worker" + ("" if self.exact else ", at least: the model's own need is not known")}
        return rows | {f"  {use}": self._text(use) for use in sorted(found.values(), key=self.uses.index)}

    def _text(self, use: MemoryUse) -> str:
        taken = f" ({self.taken[use]})" if use in self.taken else ""
        if use.accelerated:
            return f"{_size(use.device_bytes)} on the device, {_size(use.host_bytes)} on the host{taken}"
        return f"{_size(use.host_bytes)}, {_size(use.device_bytes)} of it to compute{taken}"


def show_plan(
    console: Console,
    plan: Plan,
    reading: Mapping[str, str],
    states: Mapping[str, CaseState],
    mesh_size: int,
    memory: PlannedMemory,
    ensembles: Plan | None = None,
) -> None:
    """Print what a run would do.

    Args:
        console: console to print on.
        plan: plan of the run.
        reading: description of the inputs, as rows of label and text.
        states: state of each Case, by key; empty without a store.
        mesh_size: number of refinements of the icosahedral mesh.
        memory: the memory that the workers need.
        ensembles: what is computed of all members together; None if nothing is.
    """
    layout, kept, cases = plan.layout, plan.layout.kept, plan.cases
    nodes, edges = mesh_counts(mesh_size)
    hours = layout.step_hours * layout.steps
    remains = "kept" if layout.outputs.forecasts else "scored"
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = {
        "Cases": f"{len(cases)}: {cases[0].key} to {cases[-1].key}, {layout.steps} steps ({hours} h) each",
        **({"members": _members(plan)} if plan.members else {}),
        "complete": f"{sum(state is CaseState.COMPLETE for state in states.values())}",
        **reading,
        "grid": str(layout.grid),
        "mesh": f"{nodes} nodes, {edges} edges (size {mesh_size})",
        remains: f"{len(kept.variables)} variables, {len(kept.levels)} levels, {kept.fields} of {layout.channels} "
        f"fields, {len(kept.lead_hours)} of {layout.steps} lead times, {kept.latitude.size} x {kept.longitude.size} "
        "points",
        "chunks": f"one lead time of one variable; {layout.block_steps} lead times in a shard (one file)",
        "bytes": f"{_size(layout.case_bytes)} for each Case, {_size(plan.store_bytes)} in all, before compression",
        "files": f"{layout.case_files} for each Case, {layout.case_files * len(cases)} in all",
        **({"ensembles": _ensembles(ensembles)} if ensembles else {}),
        **memory.rows,
    }
    for name, value in rows.items():
        table.add_row(Text(name, "bold"), Text(value))
    console.print(table)
    show_skipped(console, plan)


def _members(plan: Plan) -> str:
    """Return how many members an ensemble has, and what they are made of."""
    checkpoints = len({member.weights_sha256 for member in plan.members})
    states = {member.perturbation for member in plan.members}
    control = ", one of them unperturbed" if UNPERTURBED in states and len(states) > 1 else ""
    lags = {member.lag for member in plan.members}
    counts = ((checkpoints, "checkpoint"), (len(states), "initial state"))
    made_of = " and ".join(f"{count} {what}{'s' * (count != 1)}" for count, what in counts)
    lagged = f", starting at {len(lags)} times" if len(lags) > 1 else ""
    return f"{len(plan.members)} of each initial time, from {made_of}{control}{lagged}"


def _ensembles(ensembles: Plan) -> str:
    """Return what is computed of all members of an initial time, and what that writes."""
    layout, count = ensembles.layout, len(ensembles.cases)
    if not layout.outputs.forecasts:
        return f"{count} to score"
    return (
        f"{count} with {len(layout.kept.variables)} statistics of variables: {_size(layout.case_bytes)} and "
        f"{layout.case_files} files for each, {_size(ensembles.store_bytes)} in all, before compression"
    )


def show_skipped(console: Console, plan: Plan) -> None:
    """Print which Cases are skipped, and why."""
    for key, reason in plan.skipped[:MOST_SHOWN]:
        console.print(Text(f"skipped: {key}: {reason}", "yellow"), soft_wrap=True)
    if len(plan.skipped) > MOST_SHOWN:
        console.print(f"... and {len(plan.skipped) - MOST_SHOWN} more skipped")


def show_warnings(console: Console, warnings: Sequence[str]) -> None:
    """Print what a user should know before a run, although it does not stop the run."""
    for warning in warnings:
        console.print(Text(f"warning: {warning}", "yellow"), soft_wrap=True)


def show_faults(
    console: Console, found: Mapping[Case, Sequence[Finding] | BaseException], *, of_states: bool = False
) -> None:
    """Print why Cases cannot be run: a row for each fault, with the Cases that have it.

    Args:
        console: where to print.
        found: faults by Case.
        of_states: whether each Case stands for an initial state, from which several members start.
    """
    rows: dict[tuple[object, ...], list[tuple[Case, Finding]]] = {}
    for case, result in found.items():
        for fault in _as_findings(result):
            alike = (fault.variable, fault.level, fault.expected, fault.remedy)
            rows.setdefault(alike, []).append((case, fault))
    bad = {case for row in rows.values() for case, _ in row}
    what, can = ("initial states", "start a forecast") if of_states else ("Cases", "be run")
    console.print(f"{len(found) - len(bad)} of {len(found)} {what} can {can}, {len(bad)} cannot", highlight=False)
    if not rows:
        return
    table = Table(show_lines=True)
    first_title = "initial states" if of_states else "Cases"
    for title, ratio in ((first_title, None), ("variable", None), ("hPa", None), ("fault", 3), ("remedy", 2)):
        table.add_column(title, overflow="fold", ratio=ratio, no_wrap=title in (first_title, "hPa"))
    for row in list(rows.values())[:MOST_SHOWN]:
        case, first = row[0]
        where = case.key if len(row) == 1 else f"{case.key}\nand {len(row) - 1} more"
        level = "" if first.level is None else f"{first.level:g}"
        texts = (where, first.variable, level, f"must {first.expected}, but {first.found}", first.remedy)
        table.add_row(*(Text(text) for text in texts))
    console.print(table)
    if len(rows) > MOST_SHOWN:
        console.print(f"... and {len(rows) - MOST_SHOWN} more faults")


def _as_findings(result: Sequence[Finding] | BaseException) -> Sequence[Finding]:
    if isinstance(result, BaseException):
        return [Finding("the check", "end", str(result), "look at the inputs, or check again")]
    return result


def show_verification(console: Console, found: Verification) -> None:
    """Print the differences between a store and its ledger."""
    counts = Counter(flaw.kind.value for flaw in found.flaws)
    what = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "no difference"
    console.print(
        f"{found.cases} complete Cases, {_size(found.bytes)}, checked in {found.seconds:.1f} s: {what}", highlight=False
    )
    for flaw in found.flaws[:MOST_SHOWN]:
        console.print(Text(f"{flaw.kind.value}: {flaw}", "yellow" if flaw.harmless else "red"), soft_wrap=True)
    if len(found.flaws) > MOST_SHOWN:
        console.print(f"... and {len(found.flaws) - MOST_SHOWN} more")


def show_repair(console: Console, done: Repair) -> None:
    """Print what a repair did to a store."""
    console.print(
        f"{len(done.forgotten)} Cases will be made again by the next run: {' '.join(done.forgotten[:MOST_SHOWN])}\n"
        f"{len(done.unscored)} Cases will be scored again by the next evaluation: "
        f"{' '.join(done.unscored[:MOST_SHOWN])}\n"
        f"{len(done.removed)} files removed; {len(done.busy)} Cases left as they are, because another process works on "
        "them",
        highlight=False,
        soft_wrap=True,
    )
    if done.lost:
        lost = (
            f"{len(done.lost)} Cases keep damaged scores, which neither an evaluation nor the next run can make again: "
        )
        console.print(Text(lost + " ".join(done.lost[:MOST_SHOWN]), "red"), soft_wrap=True)


def show_states(
    console: Console,
    states: Mapping[str, CaseState],
    failures: list[CaseFailure],
    ensembles: Mapping[str, CaseState] = MappingProxyType({}),
) -> None:
    """Print how many Cases of a store, and how many of its ensembles, are in which state, and why some failed."""
    console.print(_counts(states), highlight=False)
    if ensembles:
        console.print(f"ensembles: {_counts(ensembles)}", highlight=False)
    for state in (CaseState.RUNNING, CaseState.MISSING):
        keys = [key for key, found in states.items() if found is state]
        if keys:
            rest = f" and {len(keys) - MOST_SHOWN} more" if len(keys) > MOST_SHOWN else ""
            console.print(f"{state.value}: {' '.join(keys[:MOST_SHOWN])}{rest}", highlight=False, soft_wrap=True)
    show_failures(console, failures)


def _counts(states: Mapping[str, CaseState]) -> str:
    counts = Counter(states.values())
    return ", ".join(f"{counts[state]} {state.value}" for state in CaseState)


def show_diagnosis(console: Console, findings: Sequence[Diagnosis]) -> None:
    """Print what `doctor` found."""
    colors = {"ok": "green", "note": "yellow", "problem": "red"}
    for finding in findings:
        line = Text(f"{finding.state:8}", colors[finding.state])
        console.print(line + Text(f"{finding.what}: {finding.text}", "default"), soft_wrap=True)


def show_jobs(console: Console, jobs: Sequence[JobState]) -> None:
    """Print the states of the Slurm jobs of a store."""
    for job in jobs:
        state = job.state or "not known to Slurm here"
        console.print(Text(f"job {job.job} ({job.kind}): {state}"), soft_wrap=True)


def show_balance(console: Console, balance: Balance) -> None:
    """Print how long workers were busy in each stage, and the ratio of the wall time to the slowest stage."""
    busy = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in balance.busy.items())
    console.print(
        f"busy: {busy}; {balance.wall:.1f} s of wall time without starting workers, {balance.ratio:.2f} times the "
        f"slowest stage, {balance.slowest}",
        highlight=False,
        soft_wrap=True,
    )


def show_failures(console: Console, failures: Sequence[CaseFailure]) -> None:
    """Print why Cases failed, and how to try them again."""
    for failure in failures[:MOST_SHOWN]:
        text = f"{failure.key} failed after {failure.attempts} attempts on {failure.host}: {failure.error}: "
        console.print(Text(text + failure.message, "red"), soft_wrap=True)
    if len(failures) > MOST_SHOWN:
        console.print(f"... and {len(failures) - MOST_SHOWN} more failed")
    if failures:
        console.print(
            "once the cause is fixed, let the next run try them again: graphcast-batch retry-failed STORE",
            highlight=False,
        )
