"""Vertex cover: can f rows be removed such that no two rows in conflict remain?

A graph is a list of bit sets: bit j of ``graph[i]`` says that i and j are in conflict.
"""

from collections.abc import Iterator
from typing import TypeAlias

Graph: TypeAlias = list[int]

_MOST = 50_000
"""The most branches of all searches together; more would take minutes."""


class Search:
    """Searches for covers, with a limit on the total number of branches.

    Raises: ``RecursionError``, from any method, beyond this limit.
    """

    def __init__(self) -> None:
        self.branches = 0

    def keeping_first(self, graph: Graph, f: int, order: list[int]) -> list[int]:
        """Return len(graph) − f vertices without a conflict, as early in ``order`` as can be."""
        kept: list[int] = []
        alive = (1 << len(graph)) - 1
        for vertex in order:
            if len(kept) == len(graph) - f:
                break
            if not alive >> vertex & 1:
                continue
            alive &= ~(1 << vertex)
            without = alive & ~graph[vertex]
            gone = len(graph) - without.bit_count() - len(kept) - 1
            if self.coverable(graph, f - gone, without):
                kept.append(vertex)
                alive = without
        return kept

    def coverable(self, graph: Graph, f: int, alive: int | None = None) -> bool:
        """Whether some f of the vertices ``alive`` (default all) cover all conflicts among them."""
        self.branches += 1
        if self.branches > _MOST:
            raise RecursionError
        alive = (1 << len(graph)) - 1 if alive is None else alive
        while True:
            if f < 0:
                return False
            degrees = {v: (graph[v] & alive).bit_count() for v in _bits(alive)}
            alive = sum(1 << v for v, degree in degrees.items() if degree)
            if not alive:
                return True
            most = max(degrees, key=degrees.__getitem__)
            # f vertices cover at most f times the greatest degree of conflicts.
            if sum(degrees.values()) > 2 * f * degrees[most]:
                return False
            leaf = next((v for v in degrees if degrees[v] == 1), None)
            if leaf is not None:
                # The partner of a vertex with one conflict covers at least as much.
                alive &= ~graph[leaf]
                f -= 1
            elif degrees[most] > f:
                # Without it, all its partners would be needed, which are too many.
                alive &= ~(1 << most)
                f -= 1
            elif degrees[most] == 2:
                # Only rings are left; each needs every second vertex.
                return _rings(graph, alive) <= f
            else:
                break
        if _matching(graph, alive) > f:
            return False
        partners = graph[most] & alive
        return self.coverable(graph, f - 1, alive & ~(1 << most)) or self.coverable(
            graph, f - degrees[most], alive & ~partners & ~(1 << most)
        )


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def _rings(graph: Graph, alive: int) -> int:
    """Return the size of the least cover of disjoint rings: ⌈length / 2⌉ for each ring."""
    needed = 0
    while alive:
        ring = alive & -alive
        while (more := _reached(graph, ring) & alive & ~ring) != 0:
            ring |= more
        needed += (ring.bit_count() + 1) // 2
        alive &= ~ring
    return needed


def _reached(graph: Graph, vertices: int) -> int:
    reached = 0
    for vertex in _bits(vertices):
        reached |= graph[vertex]
    return reached


def _matching(graph: Graph, alive: int) -> int:
    """Return the number of some conflicts without a common vertex: each needs its own vertex."""
    size = 0
    while alive:
        vertex = (alive & -alive).bit_length() - 1
        alive &= ~(1 << vertex)
        partners = graph[vertex] & alive
        if partners:
            alive &= ~(partners & -partners)
            size += 1
    return size
