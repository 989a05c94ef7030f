"""Find a user's own modules: among the installed ones, or beside the config that names them.

A folder beside a config may hold anything, so it is not part of Python's search path. An installed
module is always imported from where it is installed, even if the folder has one of the same name.
The folders are searched only when a user names a module that is not installed. The folder that has
the module is then added at the end of the search path, so that the module finds its neighbours.
"""

import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from types import ModuleType

_SAFE_PATH = "PYTHONSAFEPATH"
_places: tuple[str, ...] = ()


def look_in(folders: Iterable[object]) -> None:
    """Set the folders to search for a user's modules, in this order. They replace earlier ones."""
    global _places
    _places = tuple(dict.fromkeys(map(str, folders)))


def places() -> tuple[str, ...]:
    """Return the folders that are searched."""
    return _places


def module(name: str) -> ModuleType:
    """Import and return the module of this name. The import runs the module's code.

    Raises: ``ModuleNotFoundError`` where there is none, and whatever the module itself raises.
    """
    top = name.partition(".")[0]
    if not _installed(top):
        importlib.invalidate_caches()
        found = list(_in_places(top))
        # As in Python's own search, a module comes before a mere folder of the same name.
        found.sort(key=lambda at: _is_folder(at[1]))
        if found and found[0][0] not in sys.path:
            sys.path.append(found[0][0])
    return importlib.import_module(name)


def hint(name: str, error: BaseException) -> str:
    """Return a hint about a failed import of ``name``; empty where there is nothing to add.

    The hint says that the module was not found, or that another module of the same name hides it.
    """
    top = name.partition(".")[0]
    loaded = sys.modules.get(top)
    if loaded is None:
        if isinstance(error, ModuleNotFoundError) and error.name == top:
            where = " or ".join(("among the installed modules", *_places))
            return f"; there is none {where}"
        return ""
    there = getattr(loaded, "__file__", None)
    for place, spec in _in_places(top):
        if not _is_folder(spec) and spec.origin != there:
            other = there or "built into Python"
            return f"; {top} is {other} here, which hides {spec.origin} ({place}): rename that one"
    return ""


def _in_places(top: str) -> Iterator[tuple[str, ModuleSpec]]:
    for place in _places:
        spec = PathFinder.find_spec(top, [place])
        if spec is not None:
            yield place, spec


def _installed(top: str) -> bool:
    """Whether Python finds the module by itself. A module beside the config beats a mere folder."""
    if top in sys.modules:
        return True
    spec = find_spec(top)
    return spec is not None and not (_is_folder(spec) and any(_modules(top)))


def _modules(top: str) -> Iterator[ModuleSpec]:
    return (spec for _, spec in _in_places(top) if not _is_folder(spec))


def _is_folder(spec: ModuleSpec) -> bool:
    """Whether a module is a folder without ``__init__.py``."""
    return spec.origin is None and spec.submodule_search_locations is not None


@contextmanager
def safe_path() -> Iterator[str | None]:
    """Within the context, a new Python process does not import from the working directory.

    Otherwise it would do so before it receives this process's search path. This concerns the
    process of a cell and the one that ``multiprocessing`` starts beside it. The files in the
    working directory may come from anybody. Yields the variable's old value.
    """
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield before
    finally:
        restore(before)


def restore(before: str | None) -> None:
    """Give the environment variable its value ``before`` again."""
    if before is None:
        os.environ.pop(_SAFE_PATH, None)
    else:
        os.environ[_SAFE_PATH] = before
