"""Define the commands for clusters: a Ray cluster in a Slurm allocation, Slurm jobs, and the check of a machine."""

import os
from pathlib import Path
from typing import Annotated

import typer

from graphcast_batch.cli.application import CLUSTER, Address, ConfigPath, Exit, app, console, examples, print_line
from graphcast_batch.cluster.slurm.allocation import allocation


@app.command(
    rich_help_panel=CLUSTER,
    epilog=examples("srun --ntasks-per-node=1 graphcast-batch launch --folder F -- graphcast-batch run hindcast.yaml"),
)
def launch(
    command: Annotated[list[str], typer.Argument(help="Command to run on the cluster.", metavar="COMMAND...")],
    folder: Annotated[
        Path,
        typer.Option(help="New folder on a shared disk through which the nodes find each other, the same for all."),
    ],
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for all nodes to join.")] = 300.0,
    without_missing: Annotated[
        bool,
        typer.Option(
            "--without-missing",
            help="Go on without nodes that have not joined when the wait is over. Default: end with an error.",
        ),
    ] = False,
) -> None:
    """Start one Ray cluster on the nodes of an allocation and run COMMAND on it.

    Start one copy of this command on each node, with srun. It ends with the exit code of COMMAND, or with 75 if a
    signal ended it.
    """
    from graphcast_batch.cluster.slurm.launch import launch

    here = allocation(os.environ)
    raise typer.Exit(launch(command, folder, here, print_line, wait_seconds=wait, without_missing=without_missing))


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
        list[str] | None, typer.Argument(help="Other flags of sbatch, behind two dashes.", metavar="[-- FLAGS]")
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, help="Number of nodes of the Ray cluster.")] = 1,
    gpus_per_node: Annotated[
        int, typer.Option(min=0, help="Number of GPUs, and so of workers, on each node; 0 computes on CPUs.")
    ] = 0,
    cpus_per_node: Annotated[int, typer.Option(min=1, help="Number of cores on each node.")] = 8,
    time: Annotated[
        str,
        typer.Option(help="Time limit of a job (HOURS:MINUTES:SECONDS); the job requeues itself while work is left."),
    ] = "1:00:00",
    partition: Annotated[str | None, typer.Option(help="Slurm partition. Default: that of the site.")] = None,
    account: Annotated[str | None, typer.Option(help="Slurm account. Default: that of the user.")] = None,
    array: Annotated[
        str | None,
        typer.Option(
            help="Tasks of a job array, such as 1-16%8: independent jobs of one node each. Default: one Ray cluster."
        ),
    ] = None,
    evaluate_after: Annotated[
        bool, typer.Option("--evaluate-after", help="Submit a second job that scores the forecasts afterwards.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the batch script, and submit nothing.")] = False,
) -> None:
    """Submit CONFIG to Slurm as jobs that requeue themselves until all Cases are made.

    The scripts and the output of the jobs are in STORE/slurm; graphcast-batch status STORE shows their progress.
    """
    from graphcast_batch.app import submitting

    submitted = submitting.submit(
        config,
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        cpus_per_node=cpus_per_node,
        time=time,
        partition=partition,
        account=account,
        array=array,
        flags=more or (),
        evaluate_after=evaluate_after,
        dry_run=dry_run,
    )
    if dry_run:
        print(submitted.script, end="")
        return
    print_line(f"job {submitted.job}: {submitted.folder}")
    if submitted.evaluation:
        print_line(f"job {submitted.evaluation}: evaluates once {submitted.job} has ended")
    print_line(f"progress: graphcast-batch status {submitted.store}")


@app.command(
    rich_help_panel=CLUSTER,
    epilog=examples(
        "graphcast-batch doctor hindcast.yaml",
        "graphcast-batch doctor --address HOST:PORT",
    ),
)
def doctor(
    place: Annotated[
        Path | None,
        typer.Argument(
            help="Path of a run's config, or folder of its store. Default: the working directory is checked.",
            metavar="CONFIG|STORE",
            show_default=False,
        ),
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="Folder to check. Default: the folder of the store.")] = None,
    address: Address = None,
) -> None:
    """Check what a run relies on, on every node of a Ray cluster, or without --address on this machine.

    Exit codes: 0 no problem, 1 a problem.
    """
    from graphcast_batch.app import diagnosing
    from graphcast_batch.terminal import show_diagnosis

    findings = diagnosing.doctor(place, folder=folder, address=address)
    show_diagnosis(console, findings)
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(Exit.COULD_NOT_RUN)
