"""Decide which code that stored records name may be run.

``module:name`` in a config is code: reading it imports the module and calls what it names. In a
user's own config, on the command line and in Python, the user asked for that. A record, such as the
``config.yaml`` of a run directory, may come from anybody. Code that a record names is therefore
imported only if the user named the same code, or said that the record is to be trusted.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fedrobust.errors import ConfigError

CURE = "read that code first; if you trust where it comes from, say --trust (trust=True in Python)"
"""The advice about a record that names code."""


class UntrustedError(ConfigError):
    """A stored record that names code which the user has not named and does not trust."""


@dataclass(frozen=True)
class Trusted:
    """The objects that a record may name: those of ``blocks``, or ``everything``.

    A block is a mapping with ``name: module:name``. A block of a record is allowed where it repeats
    one of ``blocks``. The object is then made from the user's block.
    """

    blocks: tuple[Mapping[str, Any], ...] = ()
    everything: bool = False

    @classmethod
    def of(cls, *configs: object) -> "Trusted":
        """Trust the code that these configs name. They are plain data and the user's own."""
        found: list[Mapping[str, Any]] = []
        for config in configs:
            found += [block for block in _own(config) if block not in found]
        return cls(tuple(found))

    def meant(self, block: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the user's block that ``block`` of a record repeats; None where there is none.

        ``block`` may lack fields of the user's block.
        """
        return next((known for known in self.blocks if _repeats(block, known)), None)


NOTHING = Trusted()
EVERYTHING = Trusted(everything=True)


def trusting(trust: "bool | Trusted") -> Trusted:
    """Return ``trust`` as a ``Trusted``; True trusts everything, and False nothing."""
    if isinstance(trust, Trusted):
        return trust
    return EVERYTHING if trust is True else NOTHING


def _own(node: object) -> Iterator[Mapping[str, Any]]:
    """Yield the blocks of a config that name code, nested ones too."""
    if isinstance(node, Mapping):
        name = node.get("name")
        if isinstance(name, str) and ":" in name:
            yield node
        for item in node.values():
            yield from _own(item)
    elif isinstance(node, list | tuple):
        for item in node:
            yield from _own(item)


def _repeats(block: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    return all(key in known and same(item, known[key]) for key, item in block.items())


def same(one: object, other: object) -> bool:
    """Whether two pieces of plain data are equal. 1 equals 1.0, and true equals neither."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
