"""Rounds of chaos become a JSON file: ``python -m tests.chaos --rounds 8 --seed 1 --out chaos.json``."""

import argparse
import json
import os
import platform
import tempfile
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.chaos.storm import CASES, Storm, begin, nodes, small_disk, write_run


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--faults", type=int, default=16, help="in a round")
    parser.add_argument("--seed", type=int, default=1, help="of the first round")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory(prefix="chaos") as name, nodes(Path(name, "programs")) as cluster:
        folder = Path(name)
        config, trouble, _ = write_run(folder, "calm", folder / "calm", read_seconds=0)
        assert begin(cluster, config, trouble, folder / "calm.log").wait() == 0, (folder / "calm.log").read_text()
        for seed in range(options.seed, options.seed + options.rounds):
            with small_disk(folder / f"disk-{seed}") as mounted:
                storm = Storm(cluster, folder, folder / f"disk-{seed}" / "run", mounted, seed, options.faults)
                try:
                    storm.blow()
                    rounds.append(storm.check(folder / "calm"))
                finally:
                    options.out.with_suffix(f".{seed}.log").write_text(storm.told)
            print(rounds[-1], flush=True)
            options.out.write_text(json.dumps(summary(rounds), indent=1))


def summary(rounds):
    """The rounds with their sums, and where and when they were made."""
    faults = sum((each.faults for each in rounds), Counter())
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"platform": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("graphcast-batch", "ray", "jax", "zarr", "numpy")},
        "rounds": len(rounds),
        "cases": len(rounds) * CASES,
        "faults": faults.total(),
        "faults_by_kind": dict(sorted(faults.items())),
        "losses": sum(len(each.losses) for each in rounds),
        "damaged_found_and_made_again": sum(each.damaged for each in rounds),
        "begun_again": sum(each.again for each in rounds),
        "begun_again_at_most": sum(each.most for each in rounds),
        "seconds": round(sum(each.seconds for each in rounds), 1),
        "each": [vars(each) for each in rounds],
    }


if __name__ == "__main__":
    main()
