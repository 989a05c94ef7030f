"""Write the page of every rule and attack, from its docstring, its fields and the benchmark.

``python docs/components.py`` fills docs/aggregators/ and docs/attacks/; ``--check`` says whether
they are up to date. A new component needs an entry in ``RULES`` or ``ATTACK_PAGES`` here: an
example of its fields and what it costs.
"""

import inspect
import re
import sys
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from measured import measured, measured_pages

from fedrobust.aggregators import AGGREGATORS
from fedrobust.attacks import ATTACKS
from fedrobust.config.component import from_config
from fedrobust.config.kind import name_of
from fedrobust.experiment import read_yaml
from fedrobust.federation.attack import requirements
from fedrobust.federation.threat import ThreatModel

HERE = Path(__file__).parent

RULES: dict[str, tuple[str, str]] = {
    "mean": ("", "O(n·d)"),
    "median": ("", "O(n log² n · d) comparisons, blocks of columns"),
    "trimmed-mean": ("f: 12", "O(n log² n · d) comparisons, blocks of columns"),
    "mean-around-median": ("f: 24", "O(n log² n · d) comparisons, blocks of columns"),
    "krum": ("f: 24", "O(n²·d): the distances; [n, n] in float64"),
    "multi-krum": ("f: 12, m: 10", "O(n²·d): the distances; [n, n] in float64"),
    "bulyan": ("f: 12", "that of krum (once: distances are reused) and of mean-around-median"),
    "geometric-median": ("", "O(n²·d): distances and a Gram matrix; O(n²) an iteration"),
    "centered-clipping": ("radius: 1.0", "O(n·d) an iteration"),
    "norm-bound": ("bound: 1.0", "O(n·d)"),
    "nearest-neighbor-mixing": (
        "f: 2, rule: {name: trimmed-mean, f: 2}",
        "O(n²·d): the distances and a product; one more [n, d]; and the rule's",
    ),
    "bucketing": ("s: 2, rule: {name: krum, f: 2}", "O(n·d), and the rule's on ⌈n/s⌉ rows"),
    "minimum-diameter-averaging": (
        "f: 4",
        "O(n²·d): the distances; then a search that is exponential in f at worst",
    ),
    "smallest-maximum-eigenvalue-averaging": (
        "f: 2",
        "O(n²·d): a Gram matrix; then C(n, f) eigenvalue problems of size n − f",
    ),
    "fl-trust": ("", "O(n·d), and the server's own training"),
}
ATTACK_PAGES: dict[str, tuple[str, str]] = {
    "gaussian-noise": ("scale: 0.1", "O(m·d)"),
    "zero-update": ("", "nothing"),
    "shrink": ("scale: 10.0", "O(m·d), and honest training"),
    "sign-flip": ("scale: 1.0", "O(m·d), and honest training"),
    "inner-product": ("epsilon: 10.0", "O(h·d) for h honest rows"),
    "a-little-is-enough": ("k: -1.0", "O(h·d)"),
    "local-model-poisoning": (
        "against: krum",
        "O(h²·d) against krum, and one aggregation for each λ tried where the rule is known; "
        "else O(h·d)",
    ),
    "min-max": ("", "O(h²·d): the distances of honest rows"),
    "min-sum": ("", "O(h²·d): the distances of honest rows"),
    "mimic": ("", "O(b·d) for b benign rows"),
    "label-flip": ("", "honest training on other labels"),
    "distillation": (
        "start: 100",
        "honest training up to its start; then two trainings on clean data for each malicious "
        "client, or on the data of all of them where they share",
    ),
    "learned": (
        "observe: 20, horizon: 300",
        "an inversion for each round observed, then the simulated rounds of its training, both "
        "reported; after that two ascents and two gradients on `samples` examples a round, where "
        "`harm` is among the directions",
    ),
    "budgeted": (
        "budget: 10.0, attack: {name: inner-product, epsilon: 30.0}",
        "that of the attack within, and O(m·d)",
    ),
    "delayed": (
        "start: 451, attack: {name: shrink, scale: 10.0}",
        "honest training, and from its start on that of the attack within",
    ),
    "jittered": (
        "radius: 0.1, attack: {name: inner-product, epsilon: 10.0}",
        "that of the attack within, and O(m·d)",
    ),
    "optimized": (
        "attack: {name: inner-product, epsilon: 1.0}",
        "an aggregation and an attack for each of grid + refine values tried",
    ),
}


def page(cls: type, kind: str, example: str, cost: str) -> str:
    """The Markdown page of one component."""
    name = name_of(cls)
    first, *paragraphs = inspect.cleandoc(cls.__doc__ or "").split("\n\n")
    own = from_config(cls, read_yaml(f"{{name: {name}, {example}}}"))
    parts = [f"# {cls.__name__}", markdown(first), *map(markdown, paragraphs)]
    if kind == "attack":
        parts.append(f"## What it needs\n\n{needs(own)}")
    parts.append(f"## Cost\n\n{cost}.{measured(cls)}")
    parts.append(f"## Fields\n\n{table(cls)}" if table(cls) else "It has no fields.")
    braces = f"{{name: {name}{', ' if example else ''}{example}}}"
    written = read_yaml(f"{{{example}}}")
    given = ", ".join(f"{field}={getattr(own, field)!r}" for field in written)
    module = "aggregators" if kind == "aggregator" else "attacks"
    parts.append(f"## In a config\n\n```yaml\n{kind}: {braces}\n```")
    call = re.sub(r"(, )?name='[a-z-]+'", "", given).replace("'", '"')
    inner = sorted({cls.__name__, *re.findall(r"\b([A-Z]\w+)\(", call)})
    parts.append(
        f"## In Python\n\n```python\nfrom fedrobust.{module} import {', '.join(inner)}\n\n"
        f"{cls.__name__}({call})\n```"
    )
    return "\n\n".join(parts) + "\n"


def markdown(paragraph: str) -> str:
    """A docstring's paragraph as Markdown."""
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
    """What an attack must know, in words."""
    found = requirements(attack)
    known = ThreatModel(colluders=False).lacks(found.knowledge)
    lines = [f"Knowledge: own data{''.join(', ' + w for w in known)}."]
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
    """The fields of a component."""
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
    """A default as one writes it."""
    cls = type(default)
    plain = is_dataclass(cls) and all(
        item.default is not MISSING or item.default_factory is not MISSING for item in fields(cls)
    )
    if plain and default == cls():
        return f"{cls.__name__}()"
    return re.sub(r", name='[a-z-]+'", "", repr(default))


def typed(hint: Any) -> str:
    """A field's type in words."""
    from annotated_types import Ge, Gt, Le, Lt

    from fedrobust.config.scalars import MOST

    text = str(hint)
    if "Discriminator" in text:
        kinds = {"aggregator": "a rule", "encoding": "an encoding", "optimizer": "an optimiser"}
        return next((said for kind, said in kinds.items() if kind in text.lower()), "an attack")
    base, bounds = hint, []
    while get_origin(base) is not None and hasattr(base, "__metadata__"):
        for mark in base.__metadata__:
            for kind, sign in ((Ge, "≥"), (Gt, ">"), (Le, "≤"), (Lt, "<")):
                # The largest number of any kind says nothing of this one.
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
    """Every page by its path, and the index."""
    made: dict[Path, str] = {}
    index = [
        "# Rules and attacks",
        "Made from the docstrings by `make docs`; the code is the source.",
    ]
    for title, kind, members, entries in (
        ("Aggregation rules", "aggregator", AGGREGATORS, RULES),
        ("Attacks on training", "attack", ATTACKS, ATTACK_PAGES),
    ):
        folder = HERE / f"{kind}s"
        lines = [f"## {title}\n"]
        for cls in members:
            name = name_of(cls)
            made[folder / f"{name}.md"] = page(cls, kind, *entries[name])
            first = markdown(inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].split("\n")[0])
            lines.append(f"- [{name}]({kind}s/{name}.md): {first}")
        index.append("\n".join(lines))
    made |= measured_pages(HERE)
    made[HERE / "components.md"] = "\n\n".join(index) + "\n"
    return made


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
