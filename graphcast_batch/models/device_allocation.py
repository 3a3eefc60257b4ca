"""Set how a process that computes forecasts gets its memory from the operating system."""

from typing import Final

ALLOCATION: Final = {
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**28),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""Environment variables to start such a process with, as glibc reads them once, at the start.

Frames of megabytes are allocated and freed all the time: glibc is to give large ones back to the system, but to keep
what the next call needs at once. New memory is faster to touch in pages of 2 MB than in pages of 4 kB.
"""
