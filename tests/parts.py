"""Divide tests into parts that take about as long, one of which is run each time."""

from pathlib import Path

import yaml

_SECONDS = yaml.safe_load(Path(__file__).with_name("seconds.yaml").read_text())
_OTHERS = 2


def chosen(items, part):
    """Return the tests of a part, in the order in which they are to run.

    Args:
        items: all tests.
        part: ``K/N``, for the K-th run in N parts. N runs in a row take all parts. After that another test comes
            first, so that it is not always the same tests for which there is no time left.
    """
    number, parts = map(int, part.split("/"))
    bins = [[] for _ in range(parts)]
    for item in sorted(items, key=lambda item: -seconds(item.nodeid)):  # the longest first, each to the emptiest part
        min(bins, key=lambda held: sum(seconds(each.nodeid) for each in held)).append(item)
    held = set(bins[number % parts])
    ordered = [item for item in items if item in held]  # tests that share fixtures stay together
    first = number // parts * (len(ordered) // 4 + 1) % max(1, len(ordered))
    return ordered[first:] + ordered[:first]


def seconds(nodeid):
    """Return about how many seconds a test takes."""
    return max((each for name, each in _SECONDS.items() if name in nodeid), default=_OTHERS)
