"""Find how the forecasts of a run differ from those that a zarr store was laid out for."""

import json
import zlib
from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import JsonValue

from graphcast_batch.members import Member
from graphcast_batch.stores.layout import OutputGrid, Plan
from graphcast_batch.stores.zarr.member_axis import described_members
from graphcast_batch.stores.zarr.shards import Encoding


class LaidOut(Protocol):
    """The store that a run is compared with: what is used of a `ZarrStore`."""

    @property
    def identity(self) -> dict[str, JsonValue]:
        """What all forecasts in the store have in common."""

    @property
    def kept(self) -> OutputGrid:
        """What the store keeps of each forecast."""

    @property
    def members(self) -> tuple[Member, ...]:
        """The members of each initial time."""

    @property
    def encodings(self) -> dict[str, Encoding]:
        """The encoding of each variable."""

    @property
    def block_steps(self) -> int:
        """How many lead times are one shard."""


def differences_from(store: LaidOut, plan: Plan, identity: Mapping[str, JsonValue]) -> list[str]:
    """Return what differs, a line each; neither more nor fewer initial and lead times, nor more members, do.

    Args:
        store: the store.
        plan: layout and members of the run.
        identity: what the forecasts of the run have in common.
    """
    layout, size = plan.layout, store.block_steps
    wanted = {name: Encoding.wanted(layout.outputs, name, size) for name in layout.kept.variables}
    ours: dict[str, Any] = store.identity | _described(store.kept, store.encodings)
    theirs = json.loads(json.dumps(dict(identity))) | _described(layout.kept, wanted)
    both = slice(min(len(store.kept.lead_hours), len(layout.kept.lead_hours)))  # either may extend the other
    ours["lead hours"], theirs["lead hours"] = store.kept.lead_hours[both], layout.kept.lead_hours[both]
    most = layout.outputs.max_files
    files = len(store.kept.variables) * -(-len(layout.kept.lead_hours) // size)
    if most is not None and files > most:
        ours["files"], theirs["files"] = f"{files} a Case", f"at most {most}"
    ours["members"], theirs["members"] = described_members(store.members, plan.members)
    absent = "(absent)"
    return [
        f"  {key}: the store has {ours.get(key, absent)}, this run has {theirs.get(key, absent)}"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key, absent) != theirs.get(key, absent)
    ]


def _described(kept: OutputGrid, encodings: Mapping[str, Encoding]) -> dict[str, Any]:
    rows, columns = kept.latitude, kept.longitude
    checksum = zlib.crc32(rows.astype("<f4").tobytes() + columns.astype("<f4").tobytes())
    return {
        "grid": f"{rows.size} x {columns.size} at latitudes {rows[0]:g} to {rows[-1]:g}, longitudes {columns[0]:g} to "
        f"{columns[-1]:g} (coordinates {checksum:08x})",
        "levels": list(kept.levels),
        "variables": [f"{name} (on levels)" if levelled else name for name, levelled in kept.on_levels],
    } | {f"encoding of {name}": str(encoding) for name, encoding in encodings.items()}
