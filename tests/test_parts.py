"""Parts of the slow suites."""

from dataclasses import dataclass

import pytest

from tests.parts import chosen, seconds


@dataclass(frozen=True)
class Item:
    nodeid: str


ITEMS = [
    Item(f"tests/{name}[{number}]")
    for name in ("slurm/test_slurm.py::test_requeued", "test_docs.py::test_the_tutorial", "test_x.py::test_y")
    for number in range(7)
]


@pytest.mark.parametrize("parts", [1, 3, 4, 50])
def test_runs_in_a_row_take_each_test_once_and_parts_take_about_as_long(parts):
    runs = [chosen(ITEMS, f"{number}/{parts}") for number in range(17, 17 + parts)]

    assert sorted(item.nodeid for run in runs for item in run) == sorted(item.nodeid for item in ITEMS)
    lengths = [sum(seconds(item.nodeid) for item in run) for run in runs]
    assert max(lengths) - min(lengths) <= max(seconds(item.nodeid) for item in ITEMS)


def test_the_same_part_begins_with_another_test_the_next_time():
    first, second = (chosen(ITEMS, f"{number}/3") for number in (1, 4))

    assert set(first) == set(second)
    assert first[0] != second[0]
    assert {chosen(ITEMS, f"{1 + 3 * number}/3")[0] for number in range(12)} >= set(first[::3])
