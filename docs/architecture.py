"""Draw how the packages of fedrobust import each other, and report wrong imports.

``python docs/architecture.py`` draws docs/images/architecture.svg; ``--check`` says whether it is
up to date. Every import counts, also imports within functions and only for type checkers.
"""

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "images" / "architecture.svg"
ROOMS = (
    "typing",
    "errors",
    "files",
    "digest",
    "progress",
    "config",
    "compute",
    "cluster",
    "records",
    "data",
    "models",
    "perturb",
    "objectives",
    "clients",
    "aggregators",
    "federation",
    "evaluation",
    "attacks",
    "experiment",
    "runs",
    "bench",
    "report",
    "display",
    "results",
    "loggers",
    "flower",
    "cli",
)
"""The packages and modules of fedrobust, from the bottom up: each imports only earlier ones."""

Graph = dict[str, set[str]]


def imports(source: Path) -> Graph:
    """Return the modules below ``source``, each with the modules of fedrobust that it imports."""
    paths = {_name(path, source): path for path in sorted(source.rglob("*.py"))}
    return {
        name: set(_imported(ast.parse(path.read_text("utf-8")), set(paths))) - {name}
        for name, path in paths.items()
    }


def _name(path: Path, source: Path) -> str:
    parts = path.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(tree: ast.Module, known: set[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (_module(alias.name, known) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"line {node.lineno}: write imports from their root")
            for alias in node.names:
                yield _module(f"{node.module}.{alias.name}", known)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "__import__":
            raise ValueError(f"line {node.lineno}: __import__ hides what is imported")


def _module(name: str, known: set[str]) -> str:
    """Return the module ``name``, or the module that holds it; empty if it is not ours."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name


def circles(graph: Graph) -> list[list[str]]:
    """Return the sets of modules that import each other in a circle, by Tarjan's algorithm."""
    found: list[list[str]] = []
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in graph:
                continue
            if other not in order:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], order[other])
        if low[node] == order[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return found


def room(module: str) -> str:
    """Return the package, or the module beside the packages, that ``module`` belongs to.

    The package's ``__init__`` at the top and ``__main__`` only pass names on and belong to none.
    """
    name = module.split(".")[1] if "." in module else ""
    return "" if name == "__main__" else name


def upward(graph: Graph) -> list[str]:
    """Return every import of a room above the importing one."""
    place = {name: i for i, name in enumerate(ROOMS)}
    return [
        f"{module} imports {other}"
        for module, others in sorted(graph.items())
        for other in sorted(others)
        if room(module) and room(other) and place[room(module)] < place[room(other)]
    ]


def between(graph: Graph) -> Graph:
    """Return the rooms, each with the rooms that it imports."""
    rooms: Graph = {name: set() for name in ROOMS}
    for module, others in graph.items():
        if room(module):
            rooms[room(module)] |= {room(o) for o in others if room(o)} - {room(module)}
    return rooms


def needed(rooms: Graph) -> Graph:
    """Return the necessary arrows: an arrow is dropped if a longer path leads to its room."""

    def reached(starts: Iterable[str]) -> set[str]:
        found: set[str] = set()
        for start in starts:
            found |= {start} | reached(rooms[start])
        return found

    return {
        name: {
            o for o in others if o not in reached(set().union(*(rooms[p] for p in others - {o})))
        }
        for name, others in rooms.items()
    }


def levels(rooms: Graph) -> list[list[str]]:
    """Return the rooms in rows. Each room is in the lowest row above all rooms that it imports."""
    row: dict[str, int] = {}
    for name in ROOMS:
        row[name] = 1 + max((row[other] for other in rooms[name]), default=-1)
    return [[name for name in ROOMS if row[name] == i] for i in range(1 + max(row.values()))]


def places(rooms: Graph) -> dict[str, tuple[float, float]]:
    """Return the position of each room, from the top down, below the rooms that import it."""
    place: dict[str, tuple[float, float]] = {}
    arrows, rows = needed(rooms), levels(rooms)

    def middle(name: str) -> float:
        above = [place[other][0] for other in place if name in arrows[other]]
        return sum(above) / len(above) if above else 5.0

    for y in reversed(range(len(rows))):
        row = sorted(rows[y], key=middle)
        gap = 10 / (len(row) + 1)
        place |= {name: (gap * (i + 1), float(y)) for i, name in enumerate(row)}
    return place


def picture(rooms: Graph) -> str:
    """Draw the rooms in rows as SVG, with an arrow to each imported room."""
    import io

    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyArrowPatch

    mpl.rcParams |= {"svg.hashsalt": "fedrobust", "svg.fonttype": "none"}
    place = places(rooms)
    height = 1 + max(y for _, y in place.values())
    drawing = Figure(figsize=(9, 0.62 * height))
    axes = drawing.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 10), ylim=(-0.6, height - 0.4))
    axes.axis("off")
    boxes = {name: _box(axes, name, *at) for name, at in place.items()}
    drawing.canvas.draw()  # this gives the boxes their sizes
    for name, others in needed(rooms).items():
        for other in sorted(others):
            arrow = FancyArrowPatch(
                place[name],
                place[other],
                patchA=boxes[name],
                patchB=boxes[other],
                arrowstyle="-|>",
                mutation_scale=9,
                color="#7a8794",
                linewidth=0.9,
            )
            axes.add_patch(arrow)
    buffer = io.StringIO()
    drawing.savefig(buffer, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def _box(axes: Any, name: str, x: float, y: float) -> Any:
    package = (ROOT / "src" / "fedrobust" / name).is_dir()
    text = axes.text(
        x,
        y,
        name if package else f"{name}.py",
        ha="center",
        va="center",
        fontsize=10 if package else 8.5,
        bbox={
            "boxstyle": "round,pad=0.35",
            "facecolor": "#e8f1fb" if package else "#f5f5f2",
            "edgecolor": "#2b6cb0" if package else "#8a8a80",
        },
    )
    return text.get_bbox_patch()


def main() -> int:
    """Draw the picture, or with ``--check`` say whether it differs."""
    found = picture(between(imports(ROOT / "src")))
    if "--check" not in sys.argv:
        PICTURE.write_text(found, "utf-8")
        return 0
    if not PICTURE.exists() or PICTURE.read_text("utf-8") != found:
        print(f"{PICTURE.relative_to(ROOT)} is out of date: make docs")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
