"""Overrides: ``dotted.key=value`` on the command line, and the keys that a grid sets."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedrobust.config.explain import component_in, field_types, members, shown
from fedrobust.config.kind import required_fields
from fedrobust.config.text import quoted, shortened
from fedrobust.config.yaml import DEPTH, read_yaml
from fedrobust.errors import ConfigError, OverrideWarning

Path = tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """A dotted key and its new value."""

    path: Path
    value: Any

    @property
    def key(self) -> str:
        """The dotted key as messages show it."""
        return shortened(shown(self.path), 200)


def dotted(key: str) -> Path:
    """Split a dotted key into steps. Raises: ``ConfigError`` for an empty step or too many."""
    path = tuple(step.strip() for step in key.split("."))
    if not all(path) or len(path) > DEPTH:
        raise ConfigError(f"{quoted(key)} is no dotted key: write one such as aggregator.f")
    return path


def override(cls: Any, content: dict[str, Any], texts: Sequence[str]) -> list[Setting]:
    """Apply each ``dotted.key=value`` of ``texts`` to the config ``content`` of a ``cls``.

    Warns: ``OverrideWarning`` that names the keys that :func:`apply` dropped.

    Raises: ``ConfigError`` for a text of another form, and for a step that has no keys.
    """
    if isinstance(texts, str | Mapping):
        raise ConfigError('overrides must be a list of texts, such as ["rounds=1"]')
    settings = [_read(text) for text in texts]
    for message in apply(cls, content, settings):
        warnings.warn(message, OverrideWarning, stacklevel=3)
    return settings


def _read(text: str) -> Setting:
    key, equals, value = text.partition("=")
    shown = f"-s {shortened(text)}"
    try:
        path = dotted(key) if equals else ()
    except ConfigError:
        path = ()
    if not path:
        raise ConfigError(f"{shown}: write dotted.key=value, such as aggregator.f=12")
    try:
        return Setting(path, read_yaml(value))
    except ConfigError as error:
        raise ConfigError(f"{shown}: {error}") from error


def apply(
    cls: Any, content: dict[str, Any], settings: Sequence[Setting], held: Sequence[Setting] = ()
) -> list[str]:
    """Put ``settings`` into ``content`` in order. Of two with the same key, the last one counts.

    Where a component gets another name, the keys of the old block that the new component does not
    have are dropped; shared keys stay. For a user's own class, whose keys are unknown, all old keys
    are dropped. A key that a setting gives, or one ``held`` from before, is never dropped; if the
    new component does not take it, the config is refused.

    Returns: a message about the dropped keys for each new name. Raises: ``ConfigError`` as
    :func:`override` does.
    """
    last = {setting.path: i for i, setting in enumerate(settings)}
    said = [*held, *settings]
    dropped: list[str] = []
    for i, setting in enumerate(settings):
        if last[setting.path] == i:
            whole = [s.path for s in (*held, *settings[:i])]
            dropped += _put(cls, content, setting, [s.path for s in said], whole)
    return dropped


def _put(
    cls: Any, content: dict[str, Any], setting: Setting, said: list[Path], whole: list[Path]
) -> Iterator[str]:
    """Set one key. ``said`` are all keys that are set; ``whole`` are those set before this one."""
    place, node = _Place(cls), content
    *above, last = setting.path
    for step in above:
        place = place.below(node, step)
        below = node.get(step)
        if below is None and (place.is_component or step not in node):
            below = {}
        elif isinstance(below, str) and place.choices:
            below = {"name": below}
        if not isinstance(below, dict):
            raise ConfigError(
                f"{setting.key}: {shown([step])} is {quoted(below)}, which has no keys"
            )
        node[step] = node = below
    if last == "name" and isinstance(setting.value, str):
        block = setting.path[:-1]
        if not any(block[: len(path)] == path for path in whole):
            within = [path for path in said if path[: len(block)] == block and path != block]
            yield from _dropped(place, node, setting, {path[len(block)] for path in within})
    node[last] = setting.value


def _dropped(
    place: "_Place", node: dict[str, Any], setting: Setting, kept: set[str]
) -> Iterator[str]:
    """Drop the keys of ``node`` that belong to its old name, and yield a message about them."""
    old, new = place.name(node), setting.value
    own = ":" in new
    if old == new or not place.choices or not (own or new in place.choices):
        return
    has = set() if own else set(field_types(place.choices[new]))
    going = [key for key in node if key != "name" and key not in has | kept]
    for key in going:
        del node[key]
    if going:
        keys = shortened(", ".join(shown([key]) for key in going), 200)
        lacks = "" if own else f", which {new} does not have"
        yield f"{setting.key}={shortened(new)}: dropped {keys} of {shown([old])}{lacks}"


def named_alone(cls: Any, content: Mapping[str, Any], path: Path) -> type | None:
    """Return the component that a name alone stands for at ``path``, if it needs more than that."""
    place, node = _Place(cls), content
    for step in path[:-1]:
        place, below = place.below(node, step), node.get(step)
        if not isinstance(below, Mapping):
            return None
        node = below
    value = node.get(path[-1])
    found = place.below(node, path[-1]).choices.get(value) if isinstance(value, str) else None
    return found if found is not None and required_fields(found) else None


class _Place:
    """The place of a block in a config: its type, and the default value at that place."""

    def __init__(self, hint: Any, default: Any = None) -> None:
        found = members(hint)
        self.hint, self.default = hint, default
        self.choices: Mapping[Any, type] = (
            {tag: each for tag, each in found.items() if tag != "own"} if "own" in found else {}
        )

    @property
    def is_component(self) -> bool:
        """Whether a component stands here."""
        return bool(self.choices) or component_in(self.hint) is not None

    def name(self, node: Mapping[str, Any]) -> Any:
        """Return the name of the block ``node``, or of the default."""
        return node.get("name", getattr(self.default, "name", None))

    def below(self, node: Mapping[str, Any], key: str) -> "_Place":
        """Return the place of the field ``key`` of ``node``; of type Any where it is unknown."""
        name = self.name(node) if self.choices else None
        cls = component_in(self.hint) if not self.choices else None
        if isinstance(name, str):
            cls = self.choices.get(name)
        types = field_types(cls)
        return _Place(types[key], getattr(cls, key, None)) if key in types else _Place(Any)
