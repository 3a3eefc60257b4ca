"""Check the machine or cluster that a run relies on."""

from pathlib import Path

from graphcast_batch.app.any_path import AnyPath
from graphcast_batch.app.executing import on_cluster
from graphcast_batch.app.progress import SILENT
from graphcast_batch.cluster import driver
from graphcast_batch.cluster.diagnostics.diagnosis import Diagnosis
from graphcast_batch.cluster.diagnostics.doctor import diagnose
from graphcast_batch.cluster.nodes import resources
from graphcast_batch.config.loading import load_config


def doctor(
    place: AnyPath | None = None, *, folder: AnyPath | None = None, address: str | None = None
) -> list[Diagnosis]:
    """Check what a run relies on: disks, memory, devices, versions, clocks and caches.

    >>> [finding.text for finding in gb.doctor("hindcast.yaml") if finding.state == "problem"]

    Args:
        place: path of a run's config, or folder of its store; without it the working directory is checked.
        folder: to check instead of that of the store.
        address: of a Ray cluster, each node of which is checked; without it only this machine.
    """
    place = None if place is None else Path(place)
    config = load_config(place) if place and not place.is_dir() else None
    wanted = Path(folder or (config.store if config else place) or Path.cwd()).absolute()
    there = next(parent for parent in (wanted, *wanted.parents) if parent.is_dir())
    if address is None:
        return diagnose(there, config)
    with on_cluster(address, None, SILENT):
        return diagnose(there, config, resources(), driver.on_each_node)
