"""Write matplotlib's outlines in fewer characters."""

import re
from collections.abc import Iterator

UNIT = 100
"""The number of steps in one point. Numbers are rounded to these steps."""
_STEP = re.compile(r"([A-Za-z])|(-?[\d.]+(?:e-?\d+)?)")
_PAIRS = {"M": 1, "L": 1, "Q": 2, "C": 3, "Z": 0}
"""The number of points of each path command."""


def outline(path: str) -> str:
    """Rewrite path data as steps between rounded points, so that rounding errors do not add up.

    Each point is rounded relative to the first, so that the same outline at another place has the
    same steps. A path with other commands than M, L, Q, C and Z is left as it is.
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
    """Yield each command of path data with its points, and "?" for a command that does not fit."""
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
    """Write a number of steps in points, in as few characters as possible."""
    whole, part = divmod(abs(units), UNIT)
    digits = f"{whole or ''}.{part:02d}".rstrip("0") if part else str(whole)
    return f"-{digits}" if units < 0 else digits
