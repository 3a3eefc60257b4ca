"""Plans, progress and outcomes become what a person reads on a terminal, or in a log."""

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from graphcast_batch.cluster.doctor import Finding as Diagnosis
from graphcast_batch.cluster.slurm import JobState
from graphcast_batch.evaluation.comparison import Change
from graphcast_batch.evaluation.results import Results, headlines, shown_hours, skill_of, values_of
from graphcast_batch.evaluation.spectra import Loss
from graphcast_batch.evaluation.stored import Evaluation
from graphcast_batch.inputs.findings import Finding
from graphcast_batch.memory import mesh_counts
from graphcast_batch.outputs.journal import Journal
from graphcast_batch.outputs.ledger import Failure, Record, State
from graphcast_batch.outputs.repair import Repair
from graphcast_batch.outputs.verify import Verification
from graphcast_batch.plan import Case, Plan
from graphcast_batch.timing import Balance

_MOST_SHOWN = 20
_RECENT = 100
"""Updates of a training over which its loss and speed are means."""
_SAY_SECONDS = 20.0


class Watcher:
    """Shows a run's progress, a bar on a terminal and a line for each Case elsewhere, and keeps its journal."""

    def __init__(self, console: Console, journal: Journal) -> None:
        self._console = console
        self._journal = journal
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("failed {task.fields[failed]}"),
            TextColumn("{task.fields[speed]:.1f} steps/s"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._total = self._done = self._failed = self._steps = 0

    def __enter__(self) -> "Watcher":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def started(self, workers: int, device: str, total: int, whole: int) -> None:
        """Workers are starting."""
        self._journal.started(workers, device, total, whole)
        self._total, self._done = total, whole
        self._say(f"{total} Cases, {total - whole} to make; {workers} workers on {device} are starting")
        self._task = self._bar.add_task("forecasts", total=total, completed=whole, failed=0, speed=0.0)

    def finished(self, record: Record) -> None:
        """A Case is whole."""
        self._journal.finished(record)
        self._done += 1
        self._steps += record.steps
        stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in record.seconds.items())
        if not self._console.is_terminal:
            self._say(f"{record.key} whole ({self._done + self._failed}/{self._total}; {stages}; {record.worker})")
        self._update()

    def retried(self, case: Case, error: BaseException) -> None:
        """A Case failed and will be tried again."""
        self._journal.retried(case, error)
        self._say(Text(f"{case.key} failed and will be tried again: {error}", "yellow"))

    def failed(self, failure: Failure) -> None:
        """A Case is set aside."""
        self._journal.failed(failure)
        self._failed += 1
        self._say(Text(f"{failure.key} failed: {failure.error}: {failure.message}", "red"))
        self._update()

    def note(self, event: str, text: str) -> None:
        """Something happened that does not end a Case."""
        self._journal.note(event, text)
        self._say(Text(f"{event}: {text}", "yellow"))

    def _say(self, text: str | Text) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def _update(self) -> None:
        if self._task is None:
            return
        elapsed = self._bar.tasks[0].elapsed or 0.0
        speed = self._steps / elapsed if elapsed else 0.0
        self._bar.update(self._task, completed=self._done + self._failed, failed=self._failed, speed=speed)


def show_plan(
    console: Console,
    plan: Plan,
    reading: Mapping[str, str],
    states: Mapping[str, State],
    mesh_size: int,
    device_bytes: Mapping[str, int],
) -> None:
    """Prints what a run will do."""
    layout, kept, cases = plan.layout, plan.layout.kept, plan.cases
    nodes, edges = mesh_counts(mesh_size)
    remains = "kept" if layout.outputs.forecasts else "scored"
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = {
        "Cases": f"{len(cases)}: {cases[0].key} to {cases[-1].key}, {layout.steps} steps ({6 * layout.steps} h) each",
        "already whole": f"{sum(state is State.WHOLE for state in states.values())}",
        **reading,
        "grid": str(layout.grid),
        "mesh": f"{nodes} nodes, {edges} edges (size {mesh_size})",
        remains: f"{len(kept.variables)} variables, {len(kept.levels)} levels, {kept.fields} of {layout.channels} "
        f"fields, {len(kept.lead_hours)} of {layout.steps} lead times, {kept.latitude.size} x {kept.longitude.size} "
        "points",
        "chunks": f"one lead time of one variable; {layout.block_steps} lead times in a shard (one file)",
        "bytes": f"{_size(layout.case_bytes)} a Case, {_size(plan.store_bytes)} in all, before compression",
        "files": f"{layout.case_files} a Case, {layout.case_files * len(cases)} in all",
        "memory": "; ".join(f"{_size(size)} ({name})" for name, size in device_bytes.items()) + ": a worker's device",
    }
    for name, value in rows.items():
        table.add_row(Text(name, "bold"), Text(value))
    console.print(table)
    show_set_aside(console, plan)


def show_set_aside(console: Console, plan: Plan) -> None:
    """Prints what cannot be run, and why."""
    for key, reason in plan.set_aside[:_MOST_SHOWN]:
        console.print(Text(f"set aside: {key}: {reason}", "yellow"), soft_wrap=True)
    if len(plan.set_aside) > _MOST_SHOWN:
        console.print(f"... and {len(plan.set_aside) - _MOST_SHOWN} more set aside")


def show_notices(console: Console, notices: Sequence[str]) -> None:
    """Prints what does not stop a run, but should be known."""
    for notice in notices:
        console.print(Text(f"note: {notice}", "yellow"), soft_wrap=True)


def show_faults(console: Console, found: Mapping[Case, Sequence[Finding] | BaseException]) -> None:
    """Prints what keeps Cases from being run: a row for each fault, with the Cases that have it."""
    rows: dict[tuple[object, ...], list[tuple[Case, Finding]]] = {}
    for case, result in found.items():
        for fault in _as_findings(result):
            alike = (fault.variable, fault.level, fault.expected, fault.remedy)
            rows.setdefault(alike, []).append((case, fault))
    bad = {case for row in rows.values() for case, _ in row}
    console.print(f"{len(found) - len(bad)} of {len(found)} Cases can be run, {len(bad)} cannot", highlight=False)
    if not rows:
        return
    table = Table(show_lines=True)
    for title, ratio in (("Cases", None), ("variable", None), ("hPa", None), ("fault", 3), ("remedy", 2)):
        table.add_column(title, overflow="fold", ratio=ratio, no_wrap=title in ("Cases", "hPa"))
    for row in list(rows.values())[:_MOST_SHOWN]:
        case, first = row[0]
        where = case.key if len(row) == 1 else f"{case.key}\nand {len(row) - 1} more"
        level = "" if first.level is None else f"{first.level:g}"
        texts = (where, first.variable, level, f"must {first.expected}, but {first.found}", first.remedy)
        table.add_row(*(Text(text) for text in texts))
    console.print(table)
    if len(rows) > _MOST_SHOWN:
        console.print(f"... and {len(rows) - _MOST_SHOWN} more faults")


def _as_findings(result: Sequence[Finding] | BaseException) -> Sequence[Finding]:
    if isinstance(result, BaseException):
        return [Finding("the check", "end", str(result), "look at the inputs, or check again")]
    return result


def show_verification(console: Console, found: Verification) -> None:
    """Prints what is not as it should be."""
    counts = Counter(flaw.kind.value for flaw in found.flaws)
    what = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "nothing amiss"
    console.print(
        f"{found.cases} whole Cases, {_size(found.bytes)}, looked at in {found.seconds:.1f} s: {what}", highlight=False
    )
    for flaw in found.flaws[:_MOST_SHOWN]:
        console.print(Text(f"{flaw.kind.value}: {flaw}", "yellow" if flaw.harmless else "red"), soft_wrap=True)
    if len(found.flaws) > _MOST_SHOWN:
        console.print(f"... and {len(found.flaws) - _MOST_SHOWN} more")


def show_repair(console: Console, done: Repair) -> None:
    """Prints what was done to a store."""
    console.print(
        f"{len(done.forgotten)} Cases will be made again by the next run: {' '.join(done.forgotten[:_MOST_SHOWN])}\n"
        f"{len(done.unscored)} Cases will be scored again by the next evaluation: "
        f"{' '.join(done.unscored[:_MOST_SHOWN])}\n"
        f"{len(done.removed)} files removed; {len(done.busy)} Cases left alone, since someone works on them",
        highlight=False,
        soft_wrap=True,
    )


def show_states(console: Console, states: Mapping[str, State], failures: list[Failure]) -> None:
    """Prints how far a store is."""
    counts = Counter(states.values())
    console.print(", ".join(f"{counts[state]} {state.value}" for state in State), highlight=False)
    for state in (State.RUNNING, State.MISSING):
        keys = [key for key, found in states.items() if found is state]
        if keys:
            rest = f" and {len(keys) - _MOST_SHOWN} more" if len(keys) > _MOST_SHOWN else ""
            console.print(f"{state.value}: {' '.join(keys[:_MOST_SHOWN])}{rest}", highlight=False, soft_wrap=True)
    show_failures(console, failures)


def show_diagnosis(console: Console, findings: Sequence[Diagnosis]) -> None:
    """Prints what a doctor found."""
    colours = {"ok": "green", "note": "yellow", "problem": "red"}
    for finding in findings:
        line = Text(f"{finding.state:8}", colours[finding.state])
        console.print(line + Text(f"{finding.what}: {finding.text}", "default"), soft_wrap=True)


def show_jobs(console: Console, jobs: Sequence[JobState]) -> None:
    """Prints what Slurm knows of a store's jobs."""
    for job in jobs:
        state = job.state or "not known to Slurm here"
        console.print(f"job {job.job} ({job.kind}): {state}", highlight=False, soft_wrap=True)


def show_balance(console: Console, balance: Balance) -> None:
    """Prints how long workers were busy in each stage, and how nearly the slowest of them set the pace."""
    busy = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in balance.busy.items())
    console.print(
        f"busy: {busy}; {balance.wall:.1f} s without the start of workers, {balance.ratio:.2f} times the slowest "
        f"stage, {balance.slowest}",
        highlight=False,
        soft_wrap=True,
    )


def show_failures(console: Console, failures: Sequence[Failure]) -> None:
    """Prints why Cases are set aside, and what can be done."""
    for failure in failures[:_MOST_SHOWN]:
        text = f"{failure.key} failed after {failure.attempts} attempts on {failure.host}: {failure.error}: "
        console.print(Text(text + failure.message, "red"), soft_wrap=True)
    if len(failures) > _MOST_SHOWN:
        console.print(f"... and {len(failures) - _MOST_SHOWN} more failed")
    if failures:
        console.print("once the cause is mended, free them with: graphcast-batch retry-failed STORE", highlight=False)


def show_evaluation(console: Console, evaluation: Evaluation) -> None:
    """Prints what there is to score, and what is left out."""
    counts = f"{len(evaluation.left)} to score, {len(evaluation.done)} scored before"
    console.print(f"{evaluation.name}: {counts}; truth: {evaluation.scoring.truth.origin}", highlight=False)
    if evaluation.only_scores:
        console.print("nothing is kept of these forecasts but the scores that their run gave them", highlight=False)
    everywhere = " in all stores" if evaluation.scoring.members else ""
    left_out = {
        f"left out, as they are not whole{everywhere}": evaluation.not_whole,
        "left out, without any truth": evaluation.without_truth,
        "with truth in part": evaluation.partly,
    }
    for what, keys in left_out.items():
        if keys:
            shown = " ".join(keys[:_MOST_SHOWN]) + (
                f" and {len(keys) - _MOST_SHOWN} more" if keys[_MOST_SHOWN:] else ""
            )
            console.print(Text(f"{len(keys)} {what}: {shown}", "yellow"), soft_wrap=True)


def show_scores(console: Console, results: Mapping[str, Results], region: str) -> None:
    """Prints the root mean square errors of the headline variables by lead time; of baselines the skill as well.

    Args:
        console: to print on.
        results: averaged over all initial times, by name; the first is what the others are held against.
        region: of which they are.
    """
    name, first = next(iter(results.items()))
    hours = shown_hours(first)
    table = _by_lead_time(f"RMSE of {name}, {region}", hours)
    for line in headlines(first, hours):
        table.add_row(line.label, line.unit, *(f"{value:.4g}" for value in line.values), line.cases)
        for other, against in list(results.items())[1:]:
            skill = skill_of(line, against, hours)
            table.add_row(Text(f"  skill over {other}", "dim"), "", *(f"{value:+.2f}" for value in skill), "")
    console.print(table)


def show_ensemble(console: Console, results: Results, region: str) -> None:
    """Prints the continuous ranked probability scores of an ensemble by lead time, and how its spread fits its errors.

    Args:
        console: to print on.
        results: averaged over all initial times.
        region: of which they are.
    """
    hours = shown_hours(results)
    table = _by_lead_time(f"CRPS of the ensemble, {region}", hours)
    for line in headlines(results, hours, "crps"):
        if not all(map(math.isnan, line.values)):  # winds as vectors have none
            table.add_row(line.label, line.unit, *(f"{value:.4g}" for value in line.values), line.cases)
            ratios = values_of(line, results, "spread_skill_ratio", hours)
            table.add_row(Text("  spread / skill", "dim"), "", *(f"{ratio:.2f}" for ratio in ratios), "")
    console.print(table)


def _by_lead_time(title: str, hours: Sequence[int]) -> Table:
    """A table of headline scores, without rows yet."""
    table = Table(title=title, title_justify="left")
    leads = (f"{hour // 24} d" if hour % 24 == 0 else f"{hour} h" for hour in hours)
    for column in ("variable", "unit", *leads, "Cases"):
        table.add_column(column, justify="left" if column in ("variable", "unit") else "right")
    return table


def show_losses(console: Console, losses: Sequence[Loss], band: str) -> None:
    """Prints from which wavenumber on a forecast has less than half the power of what came true."""
    for loss in losses:
        lost = f"half the power is lost from wavenumber {loss.wavenumber:.0f} on"
        found = "half the power or more is there in the shortest waves" if math.isnan(loss.wavenumber) else lost
        text = f"{loss.label}, {band}: {found}, at {loss.hours} h ({loss.cases} Cases)"
        console.print(text, highlight=False, soft_wrap=True)


def show_comparison(console: Console, names: tuple[str, str], changes: Sequence[Change], region: str) -> None:
    """Prints how much better the second of two forecasts is than the first, and how surely."""
    table = Table(title=f"RMSE of {names[1]} against {names[0]}, {region}", title_justify="left")
    for title in ("variable", "lead", "first", "second", "change", "95 % by blocks", "p, paired", "Cases"):
        table.add_column(title, justify="left" if title == "variable" else "right")
    for change in changes:
        span = "" if math.isnan(change.low) else f"{change.low:+.1%} to {change.high:+.1%}"
        p = "" if math.isnan(change.paired.p) else f"{change.paired.p:.2g}{' *' if change.paired.significant else ''}"
        sizes = (f"{change.first:.4g}", f"{change.second:.4g}", f"{change.relative:+.1%}")
        table.add_row(change.label, f"{change.hours} h", *sizes, span, p, str(change.paired.cases))
    console.print(table)
    if any(math.isnan(change.paired.p) for change in changes):
        console.print("too few initial times for a test; a confidence interval needs more than 10 days of them")
    console.print(Text("* significant at 95 %, with the autocorrelation of initial times", "dim"))


def _size(count: int) -> str:
    if count < 1000:
        return f"{count} B"
    power = min(4, int(math.log(count, 1000)))
    return f"{count / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


class TrainingWatcher:
    """Shows how a training gets on: a bar on a terminal, and elsewhere a line now and then."""

    def __init__(self, console: Console, steps_after: Callable[[int], int], updates: int, done: int) -> None:
        """Shows nothing yet.

        Args:
            console: to show it on.
            steps_after: how many steps of rollouts are left after some updates: what the time left goes by.
            updates: of the whole training.
            done: how many were made before.
        """
        self._console, self._steps_after, self._updates = console, steps_after, updates
        self._bar = Progress(
            TextColumn("[bold]updates"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4g}"),
            TextColumn("rate {task.fields[rate]:.2g}"),
            TextColumn("{task.fields[speed]:.3g} updates/s"),
            TextColumn("{task.fields[left]} left"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(
            "updates", total=updates, completed=done, loss=math.nan, rate=0.0, speed=0.0, left="-"
        )
        self._said = -math.inf
        self._seconds = self._waited = 0.0
        self._recent: deque[tuple[float, float, int]] = deque(maxlen=_RECENT)

    def __enter__(self) -> "TrainingWatcher":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    @property
    def waited(self) -> float:
        """Share of the time of updates that they waited for samples, 0 to 1."""
        return self._waited / self._seconds if self._seconds else 0.0

    def tell(self, line: Mapping[str, Any]) -> None:
        """Takes a line of the record."""
        if "lost" in line:
            self._say(Text(f"after update {line['update']}: {line['lost']}; all workers start anew", "yellow"))
        elif "validation" in line:
            share = line["validation"] / line["persistence"] if line["persistence"] else math.inf
            self._say(
                f"update {line['update']}: validation loss {line['validation']:.4g}, {share:.3g} of persistence's "
                f"{line['persistence']:.4g}"
            )
        else:
            self._updated(line)

    def _updated(self, line: Mapping[str, Any]) -> None:
        self._seconds += line["seconds"]
        self._waited += line["waited"]
        self._recent.append((line["loss"], line["seconds"], line["rollout"]))
        loss, seconds, steps = (sum(values) / len(self._recent) for values in zip(*self._recent, strict=True))
        left = timedelta(seconds=round(seconds / steps * self._steps_after(line["update"])))
        update = line["update"]
        self._bar.update(self._task, completed=update, loss=loss, rate=line["rate"], speed=1 / seconds, left=left)
        if not self._console.is_terminal and self._seconds - self._said > _SAY_SECONDS:
            self._said = self._seconds
            self._say(
                f"update {line['update']} of {self._updates}: loss {loss:.4g}, rollout {line['rollout']}, learning "
                f"rate {line['rate']:.3g}, {1 / seconds:.3g} updates/s, {left} left"
            )

    def _say(self, text: str | Text) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)
