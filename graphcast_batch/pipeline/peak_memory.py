"""Measure the memory of this process."""

import resource
import sys


def peak_memory_bytes() -> int:
    """Return the most memory in bytes that this process has used at any time so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
