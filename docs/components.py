"""Write the page of every rule and attack, from its docstring, its fields and the benchmark.

``python docs/components.py`` fills docs/aggregators/, docs/attacks/, docs/components.md, the counts
of README.md, the navigation of mkdocs.yml, and what ``fedrobust list`` says; ``--check`` says
whether they are up to date. A new component needs no change here: its docstring ends with its cost
and with an example of it in a config.
"""

import inspect
import re
import sys
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from learned_paper import paper_page
from measured import measured, measured_pages

from fedrobust.aggregators import AGGREGATORS
from fedrobust.attacks import ATTACKS
from fedrobust.cli.components import LISTING, kinds, written
from fedrobust.config.component import from_config
from fedrobust.config.docstring import paragraph
from fedrobust.config.kind import Kind, name_of
from fedrobust.experiment import read_yaml
from fedrobust.federation.attack import requirements
from fedrobust.federation.threat import ThreatModel, in_words

HERE = Path(__file__).parent
TAKEN = ("Cost: ", "Example: ")
"""How the paragraphs begin that have places of their own on a page."""
PAGED = {"aggregator": AGGREGATORS, "attack": ATTACKS}
"""The kinds whose components have a page each."""
TITLES = {
    "aggregator": "Aggregation rules",
    "attack": "Attacks on training",
    "data": "Data sets",
    "partition": "Partitions of the data among clients",
    "model": "Networks",
    "objective": "Objectives of local training",
    "perturbation": "Attacks on inputs: inner maximisation and evaluation",
    "optimizer": "Optimisers of clients",
    "participation": "Participation of clients",
    "projection": "Projections of the parameters",
    "server-optimizer": "Optimisers of the server",
}
README = HERE.parent / "README.md"
NAVIGATION = HERE.parent / "mkdocs.yml"


def page(cls: type, kind: str) -> str:
    """Return the Markdown page of one component."""
    first, *paragraphs = inspect.cleandoc(cls.__doc__ or "").split("\n\n")
    cost, example = paragraph(cls, "Cost"), paragraph(cls, "Example").strip("`")
    written = read_yaml(example)
    own = from_config(cls, written)
    parts = [
        f"# {cls.__name__}",
        markdown(first),
        *map(markdown, (p for p in paragraphs if not p.startswith(TAKEN))),
    ]
    if kind == "attack":
        parts.append(f"## What it needs\n\n{needs(own)}")
    parts.append(f"## Cost\n\n{markdown(cost)}{measured(cls)}")
    parts.append(f"## Fields\n\n{table(cls)}" if table(cls) else "It has no fields.")
    given = ", ".join(f"{each}={getattr(own, each)!r}" for each in written if each != "name")
    module = "aggregators" if kind == "aggregator" else "attacks"
    parts.append(f"## In a config\n\n```yaml\n{kind}: {example}\n```")
    call = re.sub(r"(, )?name='[a-z-]+'", "", given).replace("'", '"')
    inner = sorted({cls.__name__, *re.findall(r"\b([A-Z]\w+)\(", call)})
    parts.append(
        f"## In Python\n\n```python\nfrom fedrobust.{module} import {', '.join(inner)}\n\n"
        f"{cls.__name__}({call})\n```"
    )
    return "\n\n".join(parts) + "\n"


def markdown(paragraph: str) -> str:
    """Turn a paragraph of a docstring into Markdown."""
    text = re.sub(r":(?:class|func|mod|data):`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", paragraph)
    text = text.replace("``", "`")
    text = re.sub(
        r"(?:^|(?<=[.;)]\s))(Raises|References?|Differences from [\w ]+):\s", _heading, text
    )
    text = re.sub(r"\n\n([a-z])", lambda m: "\n\n" + m[1].upper() if "## " in text else m[0], text)
    return text


def _heading(match: re.Match[str]) -> str:
    return f"{chr(10) * 2 if match.start() else ''}## {match[1]}\n\n"


def needs(attack: Any) -> str:
    """Return what an attack must know, in words."""
    found = requirements(attack)
    known = ThreatModel(colluders=False).lacks(found.knowledge)
    lines = [f"Knowledge: own data{''.join(', ' + in_words([what]) for what in known)}."]
    lines.append(
        f"At least {found.min_colluders} malicious client{'s' if found.min_colluders > 1 else ''}"
        + (", unless benign updates are granted." if found.min_colluders > 1 else ".")
    )
    lines.append(
        "Honest updates are trained."
        if found.uses_honest_updates
        else "No honest update is trained."
    )
    return " ".join(lines)


def table(cls: type) -> str:
    """Return the table of a component's fields."""
    hints = get_type_hints(cls, include_extras=True)
    rows = []
    for item in fields(cls):
        if item.name == "name":
            continue
        default = "required" if item.default is MISSING else f"`{shown(item.default)}`"
        rows.append(f"| `{item.name}` | {typed(hints[item.name])} | {default} |")
    head = "| field | what | default |\n|---|---|---|\n"
    return head + "\n".join(rows) if rows else ""


def shown(default: Any) -> str:
    """Write a default as in Python code."""
    cls = type(default)
    plain = is_dataclass(cls) and all(
        item.default is not MISSING or item.default_factory is not MISSING for item in fields(cls)
    )
    if plain and default == cls():
        return f"{cls.__name__}()"
    return re.sub(r", name='[a-z-]+'", "", repr(default))


def typed(hint: Any) -> str:
    """Describe the type of a field in words."""
    from annotated_types import Ge, Gt, Le, Lt

    from fedrobust.config.scalars import MOST

    base, bounds = hint, []
    while get_origin(base) is not None and hasattr(base, "__metadata__"):
        for mark in base.__metadata__:
            if isinstance(mark, Kind):
                return {"aggregator": "a rule", "optimizer": "an optimiser"}.get(
                    mark.name, f"an {mark.name}"
                )
            for kind, sign in ((Ge, "≥"), (Gt, ">"), (Le, "≤"), (Lt, "<")):
                # The bound of all counts is no information about this field.
                if isinstance(mark, kind) and mark != Le(MOST):
                    bounds.append(f"{sign} {getattr(mark, kind.__name__.lower()):g}")
        base = get_args(base)[0]
    if isinstance(base, type) and base.__module__.startswith("fedrobust"):
        return f"`{base.__name__}`"
    known = {int: "whole number", float: "number", bool: "true or false", str: "text"}
    if base in known:
        return " ".join([known[base], ", ".join(bounds)]).strip()
    if "Literal" in str(get_origin(base)) or "Literal" in str(base).split("[")[0]:
        return " or ".join(f"`{value}`" for value in get_args(base))
    if args := [a for a in get_args(base) if a is not type(None)]:
        return " or ".join(typed(a) for a in args) + (
            " or none" if type(None) in get_args(base) else ""
        )
    return f"`{base}`"


def pages() -> dict[Path, str]:
    """Return every page and the index, by path."""
    made: dict[Path, str] = {}
    for kind, members in PAGED.items():
        for cls in members:
            made[HERE / f"{kind}s" / f"{name_of(cls)}.md"] = page(cls, kind)
    made |= measured_pages(HERE) | paper_page(HERE)
    made[HERE / "components.md"] = index()
    made[HERE.parent / "src" / "fedrobust" / "cli" / LISTING.name] = written()
    made[README] = counted(README.read_text("utf-8"))
    made[NAVIGATION] = navigated(NAVIGATION.read_text("utf-8"))
    return made


def index() -> str:
    """Return the page that names every component, by kind, with the first sentence about it."""
    parts = [
        "# Every component",
        "Made from the docstrings by `make docs`; the code is the source. Rules and attacks have\n"
        "a page each. `fedrobust list NAME` shows the fields of any component.",
    ]
    for kind, members in sorted(kinds().items(), key=lambda item: item[0] not in PAGED):
        lines = []
        for cls in members:
            name, first = name_of(cls), first_of(inspect.cleandoc(cls.__doc__ or ""))
            shown = f"[{name}]({kind}s/{name}.md)" if kind in PAGED else f"`{name}`"
            lines.append(f"- {shown}: {markdown(first)}")
        parts.append("\n".join([f"## {TITLES[kind]}\n", *lines]))
    return "\n\n".join(parts) + "\n"


def first_of(doc: str) -> str:
    """Return the first line of a docstring."""
    return doc.split("\n", 1)[0]


def counted(text: str) -> str:
    """Put the numbers of rules and attacks at their marked places in ``text``."""
    for kind, members in PAGED.items():
        begin, end = f"<!-- {kind}s -->", "<!-- end -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.S)
        text = pattern.sub(f"{begin}{len(members)}{end}", text)
    return text


def navigated(text: str) -> str:
    """Put the pages of all rules and attacks at their marked places in the navigation ``text``."""
    for kind, members in PAGED.items():
        names = (name_of(cls) for cls in members)
        lines = "".join(f"          - {name}: {kind}s/{name}.md\n" for name in names)
        pattern = re.compile(f"( *# {kind}s, by make docs\n).*?( *# end\n)", re.S)
        text = pattern.sub(rf"\g<1>{lines}\g<2>", text)
    return text


def main() -> int:
    """Write the pages, or with ``--check`` say which differ."""
    made = pages()
    stale = [p for p, text in made.items() if not p.exists() or p.read_text("utf-8") != text]
    stale += [
        p
        for kind in ("aggregators", "attacks")
        for p in (HERE / kind).glob("*.md")
        if p not in made
    ]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(HERE.parent)} is out of date: make docs")
        return int(bool(stale))
    for path in stale:
        if path in made:
            path.parent.mkdir(exist_ok=True)
            path.write_text(made[path], "utf-8")
        else:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
