"""Which of the code that stored records name may be run.

``module:name`` in a config is code: to read it is to import the module and call what it names. In a
user's own config, on the command line and in Python that is what the user asked for. A record, such
as the ``config.yaml`` of a run directory, may come from anybody, so nothing that it names is
imported unless the user named the same, or said that the record is to be trusted.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fedrobust.errors import ConfigError

CURE = "read that code first; if you trust where it comes from, say --trust (trust=True in Python)"
"""What to do about a record that names code."""


class UntrustedError(ConfigError):
    """A stored record that names code which the user has not named and does not trust."""


@dataclass(frozen=True)
class Trusted:
    """What of a record's own objects may be made: those of ``blocks``, or ``everything``.

    A block is a mapping with ``name: module:name``. One of a record is allowed where it repeats one
    of ``blocks``; then that one is made, which is the user's.
    """

    blocks: tuple[Mapping[str, Any], ...] = ()
    everything: bool = False

    @classmethod
    def of(cls, *configs: object) -> "Trusted":
        """Trust in what these configs of the user's name, which are plain data."""
        found: list[Mapping[str, Any]] = []
        for config in configs:
            found += [block for block in _own(config) if block not in found]
        return cls(tuple(found))

    def meant(self, block: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The user's block that a record's ``block`` repeats, which may lack fields of it.

        None where there is no such.
        """
        return next((known for known in self.blocks if _repeats(block, known)), None)


NOTHING = Trusted()
EVERYTHING = Trusted(everything=True)


def trusting(trust: "bool | Trusted") -> Trusted:
    """``trust`` as a value, where a caller may say True or False."""
    if isinstance(trust, Trusted):
        return trust
    return EVERYTHING if trust is True else NOTHING


def _own(node: object) -> Iterator[Mapping[str, Any]]:
    """The blocks of a config that name code, also those within others."""
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
    """Whether two pieces of plain data are the same; 1 and 1.0 are, and true is neither."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
