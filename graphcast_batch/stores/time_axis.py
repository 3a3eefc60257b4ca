"""Keep the time axis of a store ascending, by refusing initial times between or before those that are there.

A reader that has a store open finds values by their index. Files that were renamed to make room would give it the
values of other initial times, without an error; a new time at the end leaves an axis that `sel` with a slice, and
tools that expect an ascending axis, do not accept.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graphcast_batch.errors import StoreMismatchError
from graphcast_batch.stores.layout import Plan


def check_appended(path: Path, present: NDArray[np.datetime64], plan: Plan) -> None:
    """Refuse a plan with new initial times that do not lie behind all that a store has, unless its config allows them.

    Args:
        path: the folder of the store, for the message.
        present: (time,) datetime64[h] initial times of the store, in any order.
        plan: the Cases of a run.

    Raises:
        StoreMismatchError: one of them is earlier than the last initial time of the store, and not in it.
    """
    if plan.layout.outputs.time_axis == "any":
        return
    last = present.max()
    new = np.setdiff1d(np.array([case.init_time for case in plan.cases], "datetime64[h]"), present)
    early = new[new < last]
    if early.size:
        earlier = "one is" if early.size == 1 else "ones are"
        raise StoreMismatchError(
            f"{path} can be extended only by initial times after its last one, {last}, because whoever reads it finds "
            f"values by their index along the time axis; but {early.size} new {earlier} earlier, the first "
            f"{early[0]}. "
            "Choose another `store` path in the config, for the whole period; graphcast-batch copy-forecasts CONFIG "
            f"--from {path} then puts the forecasts that are complete there, and a run makes the others. Or set "
            "outputs.time_axis: any, which puts the new ones at the end of the axis: it is not ascending then"
        )
