"""A small model of attempts at one Case that hang, die and land late, explored exhaustively.

The file system does one call after another, in any order in which they may reach it. An attempt is a list of calls; at
each of them it may stop for any time, or die, while the call still lands at any later time or never. A lease may end at
any moment. A call may be delivered twice. Handles outlive names: what was asked of a file or folder is done for as long
as the file has any name and the folder has not been removed.

``tests/stores/test_staging.py`` holds the lists to the calls that `Attempt.commit` really makes.
"""

from collections import deque
from dataclasses import dataclass, replace

FILES = ("a", "b")
OLD = "old"
DONE, DEAD = -1, -2
MUTATING = {"away", "unlink", "link", "rename", "record"}


@dataclass(frozen=True)
class Folder:
    """The private folder of an attempt: names in it, and what was taken away into it."""

    made: bool = False
    closed: bool = False
    names: frozenset = frozenset()
    aside: frozenset = frozenset()
    generation: int = 0


@dataclass(frozen=True)
class World:
    """What the server holds, and where each attempt is."""

    lease: int | None
    places: tuple  # of FILES: whose file is there
    record: object  # whose attempt is recorded as whole, at full length
    folders: tuple
    steps: tuple
    late: frozenset = frozenset()
    copies: tuple = ()


def program(rivals, *, extending=False):
    """The calls of an attempt from the claim to the end.

    Args:
        rivals: numbers of the other attempts.
        extending: whether the first file is part of a shorter forecast that is recorded.
    """
    calls = [("take",), ("make",), ("held",)]
    for rival in rivals:
        calls += [("list", rival), *(("erase", rival, name) for name in (*FILES, "record", "aside")), ("closed", rival)]
    calls += [("stands",)]
    calls += [("away", file) for file in (FILES[1:] if extending else FILES)] + [("drop",)]
    calls += [("link", file) for file in (FILES[1:] if extending else FILES)]
    calls += [("rename", FILES[0])] if extending else []
    calls += [("own", file) for file in FILES]
    return (*calls, ("held",), ("note",), ("record",), ("remove",), ("release",))


def with_change(world, number, **changes):
    """The world with another private folder of an attempt."""
    folders = list(world.folders)
    folders[number] = replace(folders[number], **changes)
    return replace(world, folders=tuple(folders))


def placed(world, file, owner):
    places = list(world.places)
    places[FILES.index(file)] = owner
    return replace(world, places=tuple(places))


def alive(world, number, file):
    """Whether a file of an attempt has any name."""
    return (
        file in world.folders[number].names
        or (file in FILES and world.places[FILES.index(file)] == number)
        or (file == "record" and world.record == number)
        or any((number, file) in folder.aside for folder in world.folders)
    )


def land(world, number, call, generation):
    """What a call does when it reaches the server: the world after it, and whether it succeeded."""
    kind, *rest = call
    folder = world.folders[number]
    if kind == "away":
        found = world.places[FILES.index(rest[0])]
        if found is None:
            return world, True
        if "aside" not in folder.names or folder.generation != generation:
            return world, False
        world = with_change(world, number, aside=folder.aside | {(found, rest[0])})
        return placed(world, rest[0], None), True
    if kind == "unlink":
        return placed(world, rest[0], None), True
    if kind == "link":
        if world.places[FILES.index(rest[0])] is not None or not alive(world, number, rest[0]):
            return world, world.places[FILES.index(rest[0])] == number
        return placed(world, rest[0], number), True
    if kind == "rename":
        if rest[0] not in folder.names:
            return world, False
        world = with_change(world, number, names=folder.names - {rest[0]})
        return placed(world, rest[0], number), True
    assert kind == "record"
    if world.record is not None or not alive(world, number, "record"):
        return world, world.record == number
    return replace(world, record=number), True


def moved(world, number, step):
    steps = list(world.steps)
    steps[number] = step
    return replace(world, steps=tuple(steps))


def run(world, number, programs):
    """One call of an attempt, done at once."""
    step, calls = world.steps[number], programs[number]
    kind, *rest = calls[step]
    folder, onward = world.folders[number], step + 1 if step + 1 < len(calls) else DONE
    if kind == "take":
        return moved(replace(world, lease=number), number, onward)
    if kind == "make":
        world = with_change(world, number, made=True, names=frozenset({*FILES, "aside"}))
    elif kind == "held":
        if world.lease != number:
            return moved(world, number, len(calls) - 2)
    elif kind == "list":
        if not world.folders[rest[0]].made or world.folders[rest[0]].closed:
            return moved(world, number, calls.index(("closed", rest[0])) + 1)
    elif kind == "erase":
        names = world.folders[rest[0]].names - {rest[1]}
        aside = frozenset() if rest[1] == "aside" else world.folders[rest[0]].aside
        world = with_change(world, rest[0], names=names, aside=aside)
    elif kind == "closed":
        if world.folders[rest[0]].names:
            return moved(world, number, calls.index(("list", rest[0])))
        world = with_change(world, rest[0], closed=True)
    elif kind == "stands":
        if world.record is not None:
            return moved(world, number, len(calls) - 2)
    elif kind == "drop":
        if "aside" not in folder.names:
            return moved(world, number, len(calls) - 2)
        world = with_change(world, number, aside=frozenset(), generation=folder.generation + 1)
    elif kind == "own":
        if world.places[FILES.index(rest[0])] != number:
            return moved(world, number, len(calls) - 2)
    elif kind == "note":
        if folder.closed:
            return moved(world, number, len(calls) - 2)
        world = with_change(world, number, names=folder.names | {"record"})
    elif kind == "remove":
        world = with_change(world, number, names=frozenset(), aside=frozenset(), closed=True)
    elif kind == "release":
        world = replace(world, lease=None) if world.lease == number else world
    else:
        world, well = land(world, number, (kind, *rest), folder.generation)
        if not well:
            return moved(world, number, len(calls) - 2)
    return moved(world, number, onward)


def following(world, programs):
    """All worlds that may come next."""
    for call in world.late:
        after, _ = land(world, *call)
        yield replace(after, late=world.late - {call})
    for number, step in enumerate(world.steps):
        if step < 0:
            continue
        call = programs[number][step]
        yield run(world, number, programs)
        in_flight = (number, call, world.folders[number].generation)
        yield moved(world, number, DEAD)
        if call[0] in MUTATING:
            yield moved(replace(world, late=world.late | {in_flight}), number, DEAD)
            if number in world.copies:
                copies = tuple(other for other in world.copies if other != number)
                yield run(replace(world, late=world.late | {in_flight}, copies=copies), number, programs)


def fault(world, *, extending):
    """What must never be seen; None if all is well."""
    if world.record is not None and any(place != world.record for place in world.places):
        return "a recorded Case has files of another attempt, or none"
    if extending and world.places[0] is None:
        return "a reader misses what was whole"
    return None


def explore(programs, *, extending=False, twice=True):
    """Looks at every world that can be reached; how many there are.

    Raises:
        AssertionError: in one of them something is wrong; with the way there.
    """
    count = len(programs)
    first = World(
        None, (OLD if extending else None, None), None, (Folder(),) * count, (0,) * count,
        copies=tuple(range(count)) if twice else (),
    )  # fmt: skip
    seen, before = {first}, {first: None}
    waiting = deque([first])
    while waiting:
        world = waiting.popleft()
        for after in following(world, programs):
            if after in seen:
                continue
            seen.add(after)
            before[after] = world
            wrong = fault(after, extending=extending)
            if wrong:
                raise AssertionError(f"{wrong}:\n" + "\n".join(map(str, way(before, after))))
            waiting.append(after)
    return seen


def way(before, world):
    """The worlds that led to one."""
    worlds = []
    while world is not None:
        worlds.append(world)
        world = before[world]
    return worlds[::-1]


def settled(world, programs):
    """What becomes of a world in which all have died and one more attempt, the last, has the place to itself."""
    number = len(programs) - 1
    while world.steps[number] >= 0:
        world = run(world, number, programs)
    return world
