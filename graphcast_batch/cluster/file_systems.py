"""Find the file system that a path is on, in Linux's table of mounts."""

import os
import re
from pathlib import Path

_OCTAL = re.compile(r"\\([0-7]{3})")


def file_system(path: Path) -> tuple[str, Path]:
    """Find the kind of file system that a path is on, and where it is mounted.

    Args:
        path: any path; of one that does not exist yet the nearest existing folder above it counts.

    Returns:
        the kind, such as ``nfs4``, ``lustre`` or ``tmpfs``, empty where it cannot be found out; and the mount point.
    """
    there = Path(os.path.realpath(path))
    try:
        table = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "", Path("/")
    found = "", Path("/")
    for line in table:  # proc_pid_mountinfo(5); of several on one place, the last one hides the others
        fields, _, rest = line.partition(" - ")
        mount = Path(_OCTAL.sub(lambda match: chr(int(match[1], 8)), fields.split()[4]))
        if there.is_relative_to(mount) and len(mount.parts) >= len(found[1].parts):
            found = rest.split()[0], mount
    return found
