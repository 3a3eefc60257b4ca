"""Commands for clusters: a Ray cluster of an allocation's nodes, jobs of Slurm, what is wrong with a machine."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from graphcast_batch.cli.application import CLUSTER, Address, ConfigPath, Exit, app, console, examples, say
from graphcast_batch.cluster.drain import Drain
from graphcast_batch.cluster.slurm.allocation import allocation
from graphcast_batch.errors import ConfigError


@app.command(
    rich_help_panel=CLUSTER,
    epilog=examples("srun --ntasks-per-node=1 graphcast-batch launch --folder F -- graphcast-batch run hindcast.yaml"),
)
def launch(
    command: Annotated[list[str], typer.Argument(help="What to run on the cluster.", metavar="COMMAND...")],
    folder: Annotated[Path, typer.Option(help="New folder on a shared disk, the same for all copies.")],
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for all nodes.")] = 300.0,
    without_missing: Annotated[
        bool, typer.Option("--without-missing", help="Go on without nodes that have not joined by then.")
    ] = False,
) -> None:
    """Makes one Ray cluster of the nodes of an allocation, with one copy of this on each, and runs COMMAND on it.

    Ends with the exit code of COMMAND, and 75 if a signal ended it.
    """
    from graphcast_batch.cluster.slurm.launch import launch

    here = allocation(os.environ)
    raise typer.Exit(launch(command, folder, here, say, wait_seconds=wait, without_missing=without_missing))


@app.command(
    rich_help_panel=CLUSTER,
    epilog=examples(
        "graphcast-batch submit hindcast.yaml --nodes 4 --gpus-per-node 4 --time 12:00:00 --evaluate-after",
        "graphcast-batch submit hindcast.yaml --array 1-16%8 -- --qos=low",
    ),
)
def submit(
    config: ConfigPath,
    more: Annotated[
        list[str] | None, typer.Argument(help="Other flags of sbatch, after --.", metavar="[-- FLAGS]")
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes of the Ray cluster.")] = 1,
    gpus_per_node: Annotated[int, typer.Option(min=0, help="Workers on each node; 0 computes on CPUs.")] = 0,
    cpus_per_node: Annotated[int, typer.Option(min=1, help="Cores on each node.")] = 8,
    time: Annotated[str, typer.Option(help="Walltime; the job requeues itself while work is left.")] = "1:00:00",
    partition: Annotated[str | None, typer.Option(help="Partition.")] = None,
    account: Annotated[str | None, typer.Option(help="Account.")] = None,
    array: Annotated[
        str | None, typer.Option(help="Independent jobs of one node in place of a Ray cluster, such as 1-16%8.")
    ] = None,
    evaluate_after: Annotated[
        bool, typer.Option("--evaluate-after", help="Score the forecasts in a job that waits for this one.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the batch script, and submit nothing.")] = False,
) -> None:
    """Hands CONFIG to Slurm, as jobs that run and go on by themselves until all Cases are made.

    Their scripts and output are in STORE/slurm; graphcast-batch status STORE shows how far they are.
    """
    from graphcast_batch.cluster.slurm import submit
    from graphcast_batch.config.loading import load_config
    from graphcast_batch.figures.store_figures import check_figures
    from graphcast_batch.setup.run_setup import assemble
    from graphcast_batch.setup.store_identity import existing_store

    if array and nodes > 1:
        raise ConfigError(
            f"the jobs of an --array have one node each, but --nodes is {nodes}; leave one of the two out"
        )
    assembled = assemble(load_config(config))
    wanted = assembled.config.workers.device
    if wanted != "auto" and (wanted == "gpu") != bool(gpus_per_node):
        raise ConfigError(
            f"workers.device in {config} and --gpus-per-node must go together, but are {wanted} and {gpus_per_node}; "
            "set workers.device: auto, or change one of the two"
        )
    if assembled.config.figures:
        check_figures(assembled.config.figures, assembled.plan.layout)
    existing_store(assembled)
    asked = {"nodes": nodes, "gpus-per-node": gpus_per_node or None, "cpus-per-task": cpus_per_node, "time": time}
    asked |= {"partition": partition, "account": account, "array": array, "chdir": str(Path.cwd())}
    job = submit.Job(
        "array" if array else "ray",
        config.resolve(),
        assembled.config.store.absolute() / submit.JOBS,
        (sys.executable, "-m", "graphcast_batch"),
        tuple((name, str(value)) for name, value in asked.items() if value is not None),
        tuple(more or ()),
    )
    if dry_run:
        print(submit.script(job), end="")
        return
    submit.check_shared(assembled.config.store)
    name = submit.submit(job)
    say(f"job {name}: {job.folder}")
    if evaluate_after:
        after = submit.submit(job.evaluation(name))
        say(f"job {after}: evaluates once {name} has ended")
    say(f"how far it is: graphcast-batch status {assembled.config.store}")


@app.command(
    rich_help_panel=CLUSTER,
    epilog=examples(
        "graphcast-batch doctor hindcast.yaml",
        "graphcast-batch doctor --address HOST:PORT",
    ),
)
def doctor(
    place: Annotated[
        Path | None, typer.Argument(help="Config of a run, or its store.", metavar="CONFIG|STORE", show_default=False)
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="Folder to look at in place of the store's.")] = None,
    address: Address = None,
) -> None:
    """Looks at what a run relies on, on every node of a Ray cluster if there is one, else on this machine.

    Exit codes: 0 all is well, 1 there is a problem.
    """
    from graphcast_batch.cluster import driver
    from graphcast_batch.cluster.diagnostics.doctor import diagnose
    from graphcast_batch.cluster.nodes import resources
    from graphcast_batch.config.loading import load_config
    from graphcast_batch.terminal import show_diagnosis

    config = load_config(place) if place and not place.is_dir() else None
    wanted = (folder or (config.store if config else place) or Path.cwd()).absolute()
    there = next(parent for parent in (wanted, *wanted.parents) if parent.is_dir())
    if address is None:
        findings = diagnose(there, config)
    else:
        with Drain() as drain, driver.connected(address, drain):
            findings = diagnose(there, config, resources(), driver.on_each_node)
    show_diagnosis(console, findings)
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(Exit.COULD_NOT_RUN)
