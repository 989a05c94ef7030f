"""Which version of a user's own code a run is played with."""

import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fedrobust.digest import digest

CODE = "code"
"""The key of ``environment.json`` that holds it."""
_NAMED = 4
"""The number of runs that are named."""


def own_code(config: object) -> dict[str, dict[str, str]]:
    """Return, under ``CODE``, the digest of each module of a user's that ``config`` names.

    Installed packages are left out, since their versions say what they are, and so is the program
    that runs. What such a module imports is not looked at. Empty where there is no module.
    """
    found = {}
    for name in _names(config):
        module = name.partition(":")[0]
        file = getattr(sys.modules.get(module), "__file__", None)
        if module == "__main__" or file is None or _installed(Path(file)):
            continue
        try:
            found[module] = digest(Path(file).read_bytes(), length=16)
        except OSError:  # a module in an archive, or one that is gone: nothing can be said of it
            continue
    return {CODE: dict(sorted(found.items()))} if found else {}


def _names(value: object) -> Iterator[str]:
    """Yield the texts module:name of a config, wherever a component names one."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key in ("name", "opaque") and isinstance(item, str) and ":" in item:
                yield item
            yield from _names(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _names(item)


def _installed(file: Path) -> bool:
    own = Path(__file__).resolve().parents[1]
    places = [Path(sysconfig.get_path(key)) for key in ("stdlib", "purelib", "platlib")]
    return any(file.resolve().is_relative_to(place) for place in (own, *places))


def mixed_code(environments: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Return, for named runs that should differ in nothing else, whose code is not the same.

    A text names the module, and the runs that were played with other code than the first one.
    """
    seen: dict[str, dict[str, list[str]]] = {}
    for name, environment in environments:
        for module, version in (environment.get(CODE) or {}).items():
            seen.setdefault(module, {}).setdefault(version, []).append(name)
    texts = []
    for module, versions in seen.items():
        others = [name for names in list(versions.values())[1:] for name in names]
        if others:
            more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
            texts.append(
                f"{', '.join(others[:_NAMED])}{more}: played with another version of {module} than "
                "the other runs; if it computes something else, they are not comparable"
            )
    return texts


def changed_code(environment: Mapping[str, Any]) -> list[str]:
    """Return the modules whose code changed while the run of an ``environment.json`` was played."""
    resumed = environment.get("resumed", [])
    parts = [environment, *(resumed if isinstance(resumed, list) else [])]
    versions: dict[str, set[str]] = {}
    for part in parts:
        for module, version in (part.get(CODE) or {}).items():
            versions.setdefault(module, set()).add(version)
    return sorted(module for module, seen in versions.items() if len(seen) > 1)
