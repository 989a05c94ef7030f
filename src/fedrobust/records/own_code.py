"""Which version of a user's own code, and of a data file, a run is played with."""

import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from fedrobust.digest import digest
from fedrobust.records.schema.run import Computed

CODE = "code"
"""The key of ``environment.json`` that holds it."""


def own_code(config: object) -> dict[str, dict[str, str]]:
    """Return, under ``CODE``, the digest of each module of a user's that ``config`` names.

    So is that of the file of its data (``npz``), under its path. Installed packages are left out,
    since their versions say what they are, and so is the program that runs. What such a module
    imports is not looked at. Empty where there is no module.
    """
    found = {}
    for name, file in _files(config):
        try:
            found[name] = digest(file.read_bytes(), length=16)
        except OSError:  # a module in an archive, or one that is gone: nothing can be said of it
            continue
    return {CODE: dict(sorted(found.items()))} if found else {}


def _files(config: object) -> Iterator[tuple[str, Path]]:
    """Yield the name and the file of each module and of the data."""
    for name in _names(config):
        module = name.partition(":")[0]
        file = getattr(sys.modules.get(module), "__file__", None)
        if module != "__main__" and file is not None and not _installed(Path(file)):
            yield module, Path(file)
    data = config.get("data") if isinstance(config, Mapping) else None
    if isinstance(data, Mapping) and data.get("name") == "npz" and isinstance(data["path"], str):
        yield data["path"], Path(data["path"]).expanduser()


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


def mixed_code(played: Iterable[tuple[str, Computed]]) -> dict[str, list[str]]:
    """Return, by module, the names of those runs whose version of it is not the first run's."""
    first, others = dict[str, str](), dict[str, list[str]]()
    for name, run in played:
        for module, version in run.code.items():
            if first.setdefault(module, version) != version:
                others.setdefault(module, []).append(name)
    return others


def changed_code(run: Computed) -> list[str]:
    """Return the modules whose code changed while a run was played."""
    parts = [run.code, *(part.code for part in run.resumed)]
    modules = sorted({module for part in parts for module in part})
    return [m for m in modules if len({part[m] for part in parts if m in part}) > 1]
