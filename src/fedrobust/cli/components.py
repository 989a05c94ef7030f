"""What ``fedrobust list`` says of each component, read from its class.

It takes seconds to import all the classes. So ``make docs`` writes this to ``components.json``,
which the command reads, and a test says whether the file is up to date.
"""

import json
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypedDict

LISTING = Path(__file__).with_name("components.json")


class Component(TypedDict):
    """One component: its name, its docstring, and its fields, with their values, in two ways."""

    name: str
    doc: str
    fields: str
    parts: list[tuple[str, str]]
    """Every field, nested ones too, by the names of a config and ``-s``."""
    knowledge: str | None
    """What an attack must know beyond its own data."""


Listing = dict[str, list[Component]]


def kinds() -> dict[str, tuple[type, ...]]:
    """Return the components that ``fedrobust list`` lists, by kind."""
    from fedrobust.aggregators import AGGREGATORS
    from fedrobust.attacks import ATTACKS
    from fedrobust.clients.optimizers import OPTIMIZERS
    from fedrobust.data import DATASETS, PARTITIONS
    from fedrobust.federation.participation import PARTICIPATIONS
    from fedrobust.federation.projection import PROJECTIONS
    from fedrobust.federation.server_optimizer import SERVER_OPTIMIZERS
    from fedrobust.models import MODELS
    from fedrobust.objectives import OBJECTIVES
    from fedrobust.perturb import PERTURBATIONS

    return {
        "data": DATASETS,
        "partition": PARTITIONS,
        "model": MODELS,
        "objective": OBJECTIVES,
        "perturbation": PERTURBATIONS,
        "optimizer": OPTIMIZERS,
        "participation": PARTICIPATIONS,
        "attack": ATTACKS,
        "aggregator": AGGREGATORS,
        "projection": PROJECTIONS,
        "server-optimizer": SERVER_OPTIMIZERS,
    }


def described() -> Listing:
    """Describe all components by kind, from their classes."""
    return {
        kind: [_component(member, of_attack=kind == "attack") for member in members]
        for kind, members in kinds().items()
    }


def written() -> str:
    """Return the content that ``components.json`` should have."""
    return json.dumps(described(), indent=1, ensure_ascii=False) + "\n"


def listing() -> Listing:
    """Return the description of all components as ``make docs`` has written it."""
    found: Listing = json.loads(LISTING.read_text("utf-8"))
    return found


def _component(member: type, of_attack: bool) -> Component:
    from fedrobust.config.docstring import text
    from fedrobust.config.kind import name_of

    return {
        "name": name_of(member),
        "doc": text(member),
        "fields": _fields(member),
        "parts": _parts(member),
        "knowledge": _knowledge(member) if of_attack else None,
    }


def _fields(member: type) -> str:
    shown = []
    for item in fields(member):
        default: Any = getattr(member, item.name, MISSING)
        if item.name != "name":
            shown.append(item.name if default is MISSING else f"{item.name}={_shown(default)}")
    return ", ".join(shown)


def _parts(owner: Any, path: str = "") -> list[tuple[str, str]]:
    """Return the fields of a component class or value, with nested components spelled out."""
    found = []
    for item in fields(owner):
        value, at = getattr(owner, item.name, MISSING), f"{path}{item.name}"
        if item.name == "name":
            found.append((at, str(value)))
        elif value is MISSING:
            found.append((at, "required"))
        elif is_dataclass(value):
            found += _parts(value, f"{at}.")
        else:
            found.append((at, _shown(value)))
    return found


def _shown(value: Any) -> str:
    """Write a value as in YAML; a component by its name and the fields that are not default."""
    from fedrobust.config.component import to_config

    if not is_dataclass(value):
        return value if isinstance(value, str) else json.dumps(to_config(value))
    names = [item.name for item in fields(value) if item.name != "name"]
    told = [
        f"{name}={_shown(getattr(value, name))}"
        for name in names
        if getattr(value, name) != getattr(type(value), name, MISSING)
    ]
    title = getattr(value, "name", type(value).__name__.lower())
    return f"{title}({', '.join(told)})" if told else str(title)


def _knowledge(member: type) -> str:
    """Return what an attack must know beyond its own data."""
    from fedrobust.config.component import from_config
    from fedrobust.config.docstring import paragraph
    from fedrobust.config.yaml import read_yaml
    from fedrobust.federation.attack import Requirements, requirements
    from fedrobust.federation.threat import ThreatModel, in_words

    requires: Any = getattr(member, "requires", None)
    fixed = isinstance(requires, Requirements)
    if not fixed:
        example: Any = from_config(member, read_yaml(paragraph(member, "Example").strip("`")))
        requires = requirements(example)
    lacking = ThreatModel(colluders=False).lacks(requires.knowledge)
    known = in_words(lacking, ", ") or "nothing more"
    return known if fixed else f"{known}, in its example; fields may change it"
