"""Put the pages of the site together: ``make site`` builds the site from them.

The pages are README.md, CONTRIBUTING.md, CHANGELOG.md, docs/, and what these link to. They are
copied to build/pages/, with their links made right for the new places. Notebooks become pages with
their stored outputs. Code that a page links to becomes a page. The reference of the API is written
for the public modules. ``mkdocs.yml`` says which page stands where.
"""

import ast
import base64
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
BUILT = ROOT / "build" / "pages"
PLACES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "results/README.md": "results/index.md",
}
"""Pages whose name on the site differs from their path."""
CODE = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", "": "text"}
REFERENCE = {
    "fedrobust": ("fedrobust", "fedrobust.errors", "fedrobust.typing"),
    "data": ("fedrobust.data",),
    "models": ("fedrobust.models",),
    "perturb": ("fedrobust.perturb",),
    "objectives": ("fedrobust.objectives",),
    "clients": ("fedrobust.clients.optimizers",),
    "aggregators": ("fedrobust.aggregators", "fedrobust.aggregators.in_blocks"),
    "attacks": ("fedrobust.attacks", "fedrobust.attacks.learned"),
    "federation": (
        "fedrobust.federation.participation",
        "fedrobust.federation.projection",
        "fedrobust.federation.server_optimizer",
        "fedrobust.federation.round",
        "fedrobust.federation.backends",
        "fedrobust.federation.on_ray",
    ),
    "evaluation": (
        "fedrobust.evaluation",
        "fedrobust.evaluation.auditing",
        "fedrobust.evaluation.shift",
        "fedrobust.evaluation.wasserstein_metrics",
    ),
    "runs": (
        "fedrobust.runs.sweep",
        "fedrobust.runs.reproduce",
        "fedrobust.runs.audit",
        "fedrobust.runs.launchers.processes",
        "fedrobust.runs.launchers.on_ray",
        "fedrobust.runs.launchers.slurm",
    ),
    "report": ("fedrobust.report", "fedrobust.loggers"),
    "flower": ("fedrobust.flower",),
}
"""The pages of the reference, each with the modules that it describes."""
LINK = re.compile(r"(\]\()([^()\s]+)(\))")
FENCE = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2`*~*[ ]*$", re.M | re.S)


class WrongLinkError(Exception):
    """A link to a file that is not there."""


def sources() -> list[Path]:
    """Return the files that the site begins with, relative to the root."""
    found = [Path(name) for name in PLACES]
    for pattern in ("*.md", "*.ipynb", "*.js", "*.css"):
        found += sorted(path.relative_to(ROOT) for path in (ROOT / "docs").rglob(pattern))
    return found


def placed(source: Path) -> Path:
    """Return where the site has the file ``source``; both relative."""
    if source.as_posix() in PLACES:
        return Path(PLACES[source.as_posix()])
    if source.suffix == ".ipynb":
        source = source.with_suffix(".md")
    if source.suffix in CODE:
        return Path("code") / f"{source}.md"
    return source.relative_to("docs") if source.parts[0] == "docs" else source


def linked(text: str, source: Path, seen: Callable[[Path], None]) -> str:
    """Return a page with links for its place on the site; ``seen`` gets each linked file.

    Raises: ``WrongLinkError`` for a link to a file that is not there.
    """

    def moved(match: re.Match[str]) -> str:
        target, _, anchor = match[2].partition("#")
        if not target or "//" in target or target.startswith("mailto:"):
            return match[0]
        file = Path(os.path.normpath(source.parent / target))
        if not (ROOT / file).is_file():
            raise WrongLinkError(f"{source} links to {target}, which is no file")
        seen(file)
        there = os.path.relpath(placed(file), placed(source).parent)
        return f"{match[1]}{there}{'#' + anchor if anchor else ''}{match[3]}"

    parts, end = [], 0
    for fence in FENCE.finditer(text):
        parts += [LINK.sub(moved, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, LINK.sub(moved, text[end:])])


def public(module: str) -> list[str] | None:
    """Return the ``__all__`` of a module; None where it has none."""
    path = ROOT.joinpath("src", *module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return None


def with_pages() -> set[str]:
    """Return the classes that have a page of their own: rules and attacks."""
    pages = [
        path for kind in ("aggregators", "attacks") for path in (ROOT / "docs" / kind).iterdir()
    ]
    return {path.read_text("utf-8").split("\n", 1)[0].removeprefix("# ") for path in pages}


def reference() -> Iterator[tuple[Path, str]]:
    """Yield the pages of the reference, with their places."""
    for page, modules in REFERENCE.items():
        shown = with_pages()
        title = "fedrobust" if page == "fedrobust" else f"fedrobust.{page}"
        parts = [f"# {title}"]
        if page in ("aggregators", "attacks"):
            parts.append(f"The {page} themselves have [pages of their own](../components.md).")
        for module in modules:
            options = []
            if module == title:
                options += ["show_root_heading: false", "show_root_toc_entry: false"]
            if (names := public(module)) is not None:
                options.append(f"members: {[each for each in names if each not in shown]}")
                shown.update(names)
            lines = [f"::: {module}", *["    options:"][: len(options)]]
            parts.append("\n".join([*lines, *(f"      {option}" for option in options)]))
        yield Path("reference") / f"{page}.md", "\n\n".join(parts) + "\n"


def assemble(built: Path = BUILT) -> None:
    """Write all pages. Raises: ``WrongLinkError``."""
    shutil.rmtree(built, ignore_errors=True)
    waiting, known = sources(), set()
    while waiting:
        source = waiting.pop()
        if source in known:
            continue
        known.add(source)
        path, place = ROOT / source, built / placed(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".ipynb":
            place.write_text(rendered(source, place, waiting.append), "utf-8")
        elif source.suffix == ".md":
            place.write_text(linked(path.read_text("utf-8"), source, waiting.append), "utf-8")
        elif source.suffix in CODE:
            fence = f"````{CODE[source.suffix]}\n{path.read_text('utf-8')}````"
            place.write_text(f"# {source.name}\n\n`{source}`\n\n{fence}\n", "utf-8")
        else:  # a picture, a record, or the page of a run with the figures beside it
            beside = path.parent.iterdir() if source.suffix == ".html" else [path]
            for each in filter(Path.is_file, beside):
                shutil.copy(each, place.parent)
    for place, text in reference():
        (built / place).parent.mkdir(parents=True, exist_ok=True)
        (built / place).write_text(text, "utf-8")


def rendered(notebook: Path, place: Path, seen: Callable[[Path], None]) -> str:
    """Return the Markdown of a notebook; the pictures among its outputs are put beside it."""
    parts = []
    for cell in json.loads((ROOT / notebook).read_text("utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(linked(source, notebook, seen))
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            picture = place.with_name(f"{notebook.stem}-{len(parts)}.png")
            parts.append(_shown(output, picture))
    return "\n\n".join(parts) + "\n"


def _shown(output: dict[str, Any], picture: Path) -> str:
    """Return the Markdown of one output of a cell, in the richest of its forms."""
    data = output.get("data", {})
    if "image/png" in data:
        picture.write_bytes(base64.b64decode(data["image/png"]))
        return f"![What the cell draws]({picture.name})"
    if "text/html" in data:  # a table of pandas
        table = re.search(r"<table.*</table>", "".join(data["text/html"]), re.S)
        return re.sub(r"<table[^>]*>", "<table>", table[0]) if table else ""
    text = "".join(output.get("text") or data["text/plain"])
    return f"```text\n{text.rstrip()}\n```"


def main() -> int:
    """Put the pages together; a wrong link is told in one line."""
    try:
        assemble()
    except WrongLinkError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
