"""The outlines of a figure, as matplotlib writes them, told in fewer characters."""

import re
from collections.abc import Iterator

UNIT = 100
"""Steps within one point, to which numbers are rounded."""
_STEP = re.compile(r"([A-Za-z])|(-?[\d.]+(?:e-?\d+)?)")
_PAIRS = {"M": 1, "L": 1, "Q": 2, "C": 3, "Z": 0}
"""How many points each command of a path has."""


def outline(path: str) -> str:
    """Path data by its steps from point to point, each point rounded: errors do not add up.

    Points are rounded by how far they are from the first, so that the same outline at another
    place is told by the same steps. What is not made of M, L, Q, C and Z is left as it is.
    """
    parts: list[str] = []
    last, origin, at, begun = "", (0.0, 0.0), (0, 0), (0, 0)
    for letter, points in _commands(path):
        if letter not in _PAIRS:
            return path
        if letter == "Z":
            parts.append("z")
            last, at = "z", begun
            continue
        if not parts:
            origin = points[0]
            x, y = (round(v * UNIT) for v in origin)
            parts.append(f"M{_joined([x, y])}")
            last = "M"
            continue
        steps = []
        for px, py in points:
            there = round((px - origin[0]) * UNIT), round((py - origin[1]) * UNIT)
            steps += [there[0] - at[0], there[1] - at[1]]
        at = there
        if letter == "M":
            begun = at
        name, steps = _shortest(letter.lower(), steps)
        told = _joined(steps)
        between = "" if told.startswith("-") else " "
        parts.append(f"{between}{told}" if name == last else f"{name}{told}")
        last = "l" if name == "m" else name
    return "".join(parts)


def _shortest(name: str, steps: list[int]) -> tuple[str, list[int]]:
    if name == "l" and steps[1] == 0:
        return "h", steps[:1]
    if name == "l" and steps[0] == 0:
        return "v", steps[1:]
    return name, steps


def _joined(steps: list[int]) -> str:
    return re.sub(r" (?=-)", "", " ".join(map(decimal, steps)))


def _commands(path: str) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """Each command of path data with its points; an unknown one where it is of another kind."""
    letter, numbers = "", []
    for name, number in [*_STEP.findall(path), ("end", "")]:
        if not name:
            numbers.append(float(number))
            continue
        if letter:
            fits = letter in _PAIRS and len(numbers) == 2 * _PAIRS[letter]
            pairs = list(zip(numbers[::2], numbers[1::2], strict=False))
            yield (letter if fits else "?"), pairs
        letter, numbers = name.upper() if name in "zZ" else name, []


def decimal(units: int) -> str:
    """A number of ``UNIT`` steps, in as few characters as it takes."""
    whole, part = divmod(abs(units), UNIT)
    digits = f"{whole or ''}.{part:02d}".rstrip("0") if part else str(whole)
    return f"-{digits}" if units < 0 else digits
