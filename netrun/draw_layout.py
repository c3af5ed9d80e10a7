"""Where boxes and arrows go: ranks along the flow, an order within each rank with few crossings, then coordinates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

Point = tuple[float, float]
FONT, LINE, CHARACTER = 12.0, 15.0, 7.3
"""Size of the letters, distance of lines, width of a letter, in pixels."""
GAP_ALONG, GAP_ACROSS, MARGIN = 46.0, 14.0, 16.0
SWEEPS = 8


@dataclass
class Arrow:
    """A line from box to box."""

    points: list[Point]
    label: str

    @property
    def middle(self) -> Point:
        """Where its label goes."""
        i = len(self.points) // 2
        (a, b), (c, d) = self.points[i - 1], self.points[i]
        return (a + c) / 2, (b + d) / 2


@dataclass
class Placed:
    """The finished layout: boxes as (x, y, width, height)."""

    size: tuple[float, float]
    boxes: dict[str, tuple[float, float, float, float]] = field(default_factory=dict)
    arrows: list[Arrow] = field(default_factory=list)
    font: float = FONT
    line: float = LINE


def place(
    boxes: Mapping[str, tuple[Sequence[str], bool]], arrows: Sequence[tuple[str, str, str]], rankdir: str
) -> Placed:
    """Lay out a picture.

    Args:
        boxes: for each key its lines of text, and whether its ends are round (then it is a bit wider).
        arrows: (from, to, label); one that leads back is drawn all the same.
        rankdir: "LR", "RL", "TB" or "BT".
    """
    sizes = {
        key: (
            max((len(line) for line in lines), default=1) * CHARACTER + (24 if round_ else 14),
            len(lines) * LINE + 10,
        )
        for key, (lines, round_) in boxes.items()
    }
    ranks = _ranks(list(boxes), arrows)
    paths = _paths(ranks, arrows)
    order = _order(ranks, paths)
    horizontal = rankdir in ("LR", "RL")
    along = {key: size[0 if horizontal else 1] for key, size in sizes.items()}
    across = {key: size[1 if horizontal else 0] for key, size in sizes.items()}
    positions = _across(order, paths, across)
    starts, length = _starts(order, along)
    width = max((positions[n] + across.get(n, 0) / 2 for row in order for n in row), default=0) + MARGIN
    centres = {n: (starts[r], positions[n]) for r, row in enumerate(order) for n in row}

    def turn(u: float, v: float) -> Point:
        u = length - u if rankdir in ("RL", "BT") else u
        return (u, v) if horizontal else (v, u)

    placed = Placed(turn_size(length, width, horizontal))
    for key, (w, h) in sizes.items():
        x, y = turn(*centres[key])
        placed.boxes[key] = (x - w / 2, y - h / 2, w, h)
    for (source, target, label), path in zip(arrows, paths, strict=True):
        forth = ranks[source] < ranks[target]
        sign = 1 if forth else -1
        (u0, v0), (u1, v1) = centres[source], centres[target]
        shift = 0.0 if forth else 6.0  # an arrow back runs beside the one it answers
        points = [(u0 + sign * along[source] / 2, v0 + shift)]
        points += [centres[n] for n in (path[1:-1] if forth else path[-2:0:-1])]
        points.append((u1 - sign * along[target] / 2, v1 + shift))
        placed.arrows.append(Arrow([turn(*p) for p in _curve(points)], label))
    return placed


def turn_size(length: float, width: float, horizontal: bool) -> tuple[float, float]:
    """(width, height) of the picture."""
    return (length, width) if horizontal else (width, length)


def _ranks(keys: Sequence[str], arrows: Sequence[tuple[str, str, str]]) -> dict[str, int]:
    """The longest way to each box; arrows that would close a circle (layers in place) do not count."""
    number = {key: i for i, key in enumerate(keys)}
    ranks = dict.fromkeys(keys, 0)
    forward: dict[str, set[str]] = {key: set() for key in keys}
    for source, target, _ in arrows:
        if source != target and not _reaches(forward, target, source):
            forward[source].add(target)
    waiting = dict.fromkeys(keys, 0)
    for targets in forward.values():
        for target in targets:
            waiting[target] += 1
    ready = sorted((key for key in keys if not waiting[key]), key=number.__getitem__)
    while ready:
        key = ready.pop(0)
        for target in sorted(forward[key], key=number.__getitem__):
            ranks[target] = max(ranks[target], ranks[key] + 1)
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    for key in reversed(keys):  # a source stands right before what reads it
        if forward[key] and not any(key in targets for targets in forward.values()):
            ranks[key] = min(ranks[t] for t in forward[key]) - 1
    low = min(ranks.values(), default=0)
    return {key: rank - low for key, rank in ranks.items()}


def _reaches(forward: Mapping[str, set[str]], start: str, goal: str) -> bool:
    seen, open_ = {start}, [start]
    while open_:
        key = open_.pop()
        if key == goal:
            return True
        open_ += [t for t in forward[key] if t not in seen]
        seen.update(forward[key])
    return False


def _chains(ranks: Mapping[str, int], arrows: Sequence[tuple[str, str, str]]) -> list[list[str]]:
    """For every arrow invisible boxes in the ranks that it crosses, in rising order; the arrow's ends are not in it."""
    found = []
    for i, (source, target, _) in enumerate(arrows):
        low, high = sorted((ranks[source], ranks[target]))
        found.append([f"\0{i}\0{rank}" for rank in range(low + 1, high)])
    return found


def _paths(ranks: Mapping[str, int], arrows: Sequence[tuple[str, str, str]]) -> list[list[str]]:
    """Every arrow as the boxes that it passes in rising order, its ends and the invisible ones."""
    ends = [sorted(arrow[:2], key=ranks.__getitem__) for arrow in arrows]
    return [[first, *chain, last] for (first, last), chain in zip(ends, _chains(ranks, arrows), strict=True)]


def _order(ranks: Mapping[str, int], paths: Sequence[Sequence[str]]) -> list[list[str]]:
    rows: list[list[str]] = [[] for _ in range(max(ranks.values(), default=0) + 1)]
    for key, rank in ranks.items():
        rows[rank].append(key)
    for path in paths:
        for name in path[1:-1]:
            rows[int(name.rpartition("\0")[2])].append(name)
    neighbours = _neighbours(ranks, paths)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for rank in range(len(rows)) if down else reversed(range(len(rows))):
            other = rank - 1 if down else rank + 1
            if 0 <= other < len(rows):
                place_of = {name: i for i, name in enumerate(rows[other])}
                current = {name: i for i, name in enumerate(rows[rank])}
                rows[rank].sort(key=lambda n: _mean(neighbours[n], place_of, current[n]))
    return rows


def _mean(names: Sequence[str], places: Mapping[str, int], own: int) -> float:
    found = [places[n] for n in names if n in places]
    return sum(found) / len(found) if found else float(own)


def _neighbours(names: Iterable[str], paths: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in names}
    for path in paths:
        for a, b in pairwise(path):
            found.setdefault(a, []).append(b)
            found.setdefault(b, []).append(a)
    return found


def _across(
    rows: Sequence[Sequence[str]], paths: Sequence[Sequence[str]], sizes: Mapping[str, float]
) -> dict[str, float]:
    """Centres across the flow: near the neighbours' mean, in order, without overlap."""
    neighbours = _neighbours((name for row in rows for name in row), paths)
    at: dict[str, float] = {}
    for row in rows:
        edge = 0.0
        for name in row:
            half = sizes.get(name, 0.0) / 2
            at[name] = edge + half
            edge += 2 * half + GAP_ACROSS
    for sweep in range(3 * SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wanted = [sum(at[n] for n in neighbours[name]) / len(neighbours[name]) if neighbours[name] else at[name]
                      for name in row]  # fmt: skip
            _spread(row, wanted, sizes, at)
    low = min((at[name] - sizes.get(name, 0.0) / 2 for name in at), default=0.0)
    return {name: value - low + MARGIN for name, value in at.items()}


def _spread(row: Sequence[str], wanted: Sequence[float], sizes: Mapping[str, float], at: dict[str, float]) -> None:
    """The places nearest to those wanted that keep order and distance: groups that collide move as one."""
    groups: list[tuple[float, float, int]] = []  # (mean wanted start, length, members)
    offsets: list[float] = []
    for name, place_ in zip(row, wanted, strict=True):
        half = sizes.get(name, 0.0) / 2
        start, length, members = place_ - half, 2 * half + GAP_ACROSS, 1
        offsets.append(half)
        while groups and groups[-1][0] + groups[-1][1] > start:
            before, reach, count = groups.pop()
            start = (before * count + (start - reach) * members) / (count + members)
            length, members = reach + length, count + members
        groups.append((start, length, members))
    names = iter(zip(row, offsets, strict=True))
    for start, _, members in groups:
        edge = start
        for _ in range(members):
            name, half = next(names)
            at[name] = edge + half
            edge += 2 * half + GAP_ACROSS


def _starts(rows: Sequence[Sequence[str]], along: Mapping[str, float]) -> tuple[list[float], float]:
    found, edge = [], MARGIN
    for row in rows:
        extent = max((along.get(name, 0.0) for name in row), default=0.0)
        found.append(edge + extent / 2)
        edge += extent + GAP_ALONG
    return found, max(edge - GAP_ALONG, 0) + MARGIN


def _curve(points: Sequence[Point]) -> list[Point]:
    """A smooth way through the points, that leaves and enters along the flow."""
    if len(points) == 2 and abs(points[0][1] - points[1][1]) < 0.5:
        return list(points)
    found = [points[0]]
    for (u0, v0), (u1, v1) in pairwise(points):
        for i in range(1, 9):
            t = i / 8
            s = t * t * (3 - 2 * t)
            found.append((u0 + (u1 - u0) * t, v0 + (v1 - v0) * s))
    return found


__all__ = ["Arrow", "Placed", "place"]
