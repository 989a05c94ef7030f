"""Where a user's own modules lie: among the installed ones, or beside the config that names them.

A folder beside a config may hold anything, so it is no part of Python's search path: what is
installed is imported from where it is installed, whatever lies there. Only when a user names a
module that is installed nowhere are the places looked in, and only the one that has it is added,
at the end, so that the module finds its own neighbours.
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
    """Look for a user's modules in these folders, in this order, and in no others."""
    global _places
    _places = tuple(dict.fromkeys(map(str, folders)))


def places() -> tuple[str, ...]:
    """The folders that are looked in."""
    return _places


def module(name: str) -> ModuleType:
    """The module of this name, which is imported: whoever calls this runs its code.

    Raises: ``ModuleNotFoundError`` where there is none, and whatever the module itself raises.
    """
    top = name.partition(".")[0]
    if not _installed(top):
        importlib.invalidate_caches()
        found = list(_in_places(top))
        # As in Python's own search, a module goes before a mere folder of its name.
        found.sort(key=lambda at: _is_folder(at[1]))
        if found and found[0][0] not in sys.path:
            sys.path.append(found[0][0])
    return importlib.import_module(name)


def hint(name: str, error: BaseException) -> str:
    """What a user should know of a failed import of ``name``; empty where nothing is to be added.

    Either the module is nowhere, or another one of the same name hides the user's.
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
    """Whether Python finds the module by itself. A mere folder gives way to a module elsewhere."""
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
    """Within, a Python process that begins does not import from the working directory.

    Else it would, before it is told this one's search path: one for the cell, and one of
    ``multiprocessing`` beside it. What lies in the working directory may be anybody's. Gives what
    the environment said before.
    """
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield before
    finally:
        restore(before)


def restore(before: str | None) -> None:
    """Let the environment say again what it said ``before``."""
    if before is None:
        os.environ.pop(_SAFE_PATH, None)
    else:
        os.environ[_SAFE_PATH] = before
