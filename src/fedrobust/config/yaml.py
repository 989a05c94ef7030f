"""Read YAML 1.2 as plain data, within limits: texts, numbers, flags, lists and mappings.

A config is small. A text that is too deep, too large, or grows too large by aliases is refused
before it is built, so that reading takes about a second at most and little memory.
"""

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent

from fedrobust.config.explain import shown
from fedrobust.config.text import quoted, reason, shortened
from fedrobust.errors import ConfigError

TEXT = 500_000
"""The largest number of characters in a text."""
NODES = 20_000
"""The largest number of keys and values. Those that an alias repeats count each time."""
DEPTH = 64
"""The largest number of nested levels."""

_LARGEST = 2**63 - 1
_RECORD = NODES // 2
"""The largest number of characters in a text that is read by its parts. Without aliases a character
makes at most one and a half keys and values, so no such text has more than ``NODES``."""
_SINGLE = re.compile(r"[A-Za-z_][\w-]*:(?=[ \n]|$)", re.ASCII)
"""The beginning of a line that opens a part: a plain key in the first column."""
_CONTINUED = re.compile(r"[ #]|- |-?$")
"""The beginning of a line that continues the part before it, is a comment, or is empty."""
_NAME = re.compile(r"name: ([A-Za-z][\w.]*-[\w.-]*)\n", re.ASCII)
"""The part that differs between records. YAML can read a word with a hyphen only as a text."""
_WHOLE = re.compile("[&*!\ufeff]|[^\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\U0010ffff]")
"""Characters that make parts depend on each other, or that break a line without a newline."""
_SURROGATE = re.compile("[\ud800-\udfff]")


class _TooMuchError(Exception):
    """A text that exceeds a limit; the message says which one."""


class _Bounded(Composer):
    """Composes YAML and counts nodes and levels, as if every alias were written out."""

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader)
        self.warn_double_anchors = False
        self._count, self._level, self._reached = 0, 0, 0
        self._extents: dict[int, tuple[int, int]] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Return the node if it is within the limits. Raises: ``_TooMuchError``."""
        if self.parser.check_event(AliasEvent):
            node = self.anchors.get(self.parser.peek_event().anchor)
            if node is not None:
                if id(node) not in self._extents:
                    raise _TooMuchError("has an alias that contains itself, which never ends")
                count, height = self._extents[id(node)]
                self._add(count, height)
            return super().compose_node(parent, index)
        count, reached = self._count, self._reached
        self._level += 1
        self._reached = 0
        self._add(1, 0)
        node = super().compose_node(parent, index)
        self._extents[id(node)] = self._count - count, self._reached - self._level + 1
        self._reached = max(self._reached, reached)
        self._level -= 1
        return node

    def _add(self, count: int, height: int) -> None:
        self._count += count
        self._reached = max(self._reached, self._level + height)
        if self._count > NODES:
            raise _TooMuchError(f"has more than {NODES:,} keys and values, aliases written out")
        if self._reached > DEPTH:
            raise _TooMuchError(f"is more than {DEPTH} levels deep")


def read_yaml(source: Path | str) -> Any:
    """Return the content of a YAML 1.2 file, or of a piece of text.

    Raises: ``ConfigError`` for a file that cannot be read, for invalid YAML, for content beyond the
    limits (``TEXT``, ``NODES``, ``DEPTH``), and for values that are not plain data, such as a date.
    """
    if isinstance(source, Path):
        what = _named(source)
        return _whole(_text(source, what), what)
    return _whole(source, shortened(quoted(source, 60), 1000))


def read_stored_yaml(path: Path) -> Any:
    """Read a file as :func:`read_yaml` does, but fast for many similar files, as a sweep has.

    The text of each key of a stored mapping is parsed on its own, and only once for all files with
    the same text. An unusual file is parsed as a whole.

    Raises: ``ConfigError`` as :func:`read_yaml` does.
    """
    what = _named(path)
    text = _text(path, what)
    content = _by_parts(text)
    return _whole(text, what) if content is None else content


def _by_parts(text: str) -> dict[Any, Any] | None:
    """Build the mapping of a text from its parts; None where it must be read as a whole."""
    parts = _parts(text)
    content: dict[Any, Any] = {}
    for found in map(_part, parts):
        if found is None or not found.keys().isdisjoint(content):
            return None
        content |= _plain(found, ())  # a copy: the caller may change it
    return content or None


def _parts(text: str) -> list[str]:
    """Split a text into the texts of its keys; an empty list where that is impossible."""
    if len(text) > _RECORD or _WHOLE.search(text):
        return []
    parts: list[str] = []
    for line in text.splitlines(keepends=True):
        if _SINGLE.match(line):
            parts.append(line)
        elif parts and _CONTINUED.match(line):
            parts[-1] += line
        else:
            return []
    return parts


@lru_cache(maxsize=512)
def _part(text: str) -> dict[Any, Any] | None:
    """Read a text as a mapping of one key; None where it is none.

    Reading the whole text then reports the mistake.
    """
    if name := _NAME.fullmatch(text):
        return {"name": name[1]}
    try:
        content = _whole(text, "")
    except ConfigError:
        return None
    return content if isinstance(content, dict) and len(content) == 1 else None


def _named(path: Path) -> str:
    return shortened(str(path), 1000)


def _whole(text: str, what: str) -> Any:
    """Return the content of a text that messages call ``what``. Raises: ``ConfigError``."""
    if len(text) > TEXT:
        raise ConfigError(f"{what} has more than {TEXT:,} characters: no config has so many")
    if _SURROGATE.search(text):
        raise ConfigError(f"{what} is not valid text: it holds bytes that are not UTF-8")
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _Bounded
    try:
        content = yaml.load(text)
    except _TooMuchError as error:
        raise ConfigError(f"{what} {error}") from error
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1
        raise ConfigError(
            f"{what} is not valid YAML: {_repeated(error)} stands twice; the second time is in "
            f"line {line}: keep one"
        ) from error
    except YAMLError as error:
        why = str(error).partition("\n\nTo suppress")[0]  # a hint for programmers
        raise ConfigError(f"{what} is not valid YAML: {shortened(why, 600)}") from error
    except Exception as error:  # a tag or a date that its constructor stumbles over
        raise ConfigError(f"{what} is not valid YAML: {reason(error)}") from error
    try:
        return _plain(content, ())
    except ValueError as error:
        raise ConfigError(f"{what}: {error}") from error


def _repeated(error: DuplicateKeyError) -> str:
    found = re.match(r'found duplicate key ("?.*?"?) with value', str(error.problem))
    return f"the key {shortened(found[1], 60)}" if found else "a key"


def _text(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(4 * TEXT)  # enough to see that it is too much
        return content.decode("utf-8", "strict" if len(content) < 4 * TEXT else "replace")
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read {what}: it is not UTF-8 text ({error.reason})") from error
    except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
        why = error.strerror if isinstance(error, OSError) and error.strerror else reason(error)
        inside = path / "config.yaml"
        hint = f"; its config is {_named(inside)}" if os.path.isfile(inside) else ""
        raise ConfigError(f"cannot read {what}: {why}{hint}") from error


def _plain(node: Any, path: tuple[Any, ...]) -> Any:
    """Copy ``node`` so that nothing is in it twice. An override then changes only one copy.

    Raises: ``ValueError`` that says where something is not plain data.
    """
    if type(node) is dict:
        return {_key(key, path): _plain(value, (*path, key)) for key, value in node.items()}
    if type(node) is list:
        return [_plain(item, (*path, i)) for i, item in enumerate(node)]
    where = f"{shown(path)}: " if path else ""
    if type(node) is int and abs(node) > _LARGEST:
        raise ValueError(f"{where}is a whole number of more than 64 bits: use a smaller one")
    if type(node) is str and _SURROGATE.search(node):
        raise ValueError(f"{where}holds half a character (\\ud800 to \\udfff), which is no text")
    if node is None or type(node) in (bool, int, float, str):
        return node
    raise ValueError(
        f"{where}{quoted(node)} is read as a value of type {type(node).__name__}, which no config "
        "holds: put it in quotes to make it a text"
    )


def _key(key: Any, path: tuple[Any, ...]) -> Any:
    where = f"{shown(path)}: " if path else ""
    if type(key) is str and not _SURROGATE.search(key):
        return key
    if key is None or type(key) in (bool, float) or (type(key) is int and abs(key) <= _LARGEST):
        return key
    raise ValueError(f"{where}{quoted(key)} cannot be a key: put it in quotes to make it a text")
