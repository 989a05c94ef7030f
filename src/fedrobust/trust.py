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

    A block is a mapping with ``name: module:name``. One of a record is allowed where each of its
    fields is as in one of ``blocks``. It may lack some, which the object has gained since.
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

    def allows(self, block: Mapping[str, Any]) -> bool:
        """Whether the object that a record's ``block`` names may be made."""
        return self.everything or any(_within(block, known) for known in self.blocks)


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


def _within(part: object, whole: object) -> bool:
    """Whether all that ``part`` says stands in ``whole``."""
    if isinstance(part, Mapping) and isinstance(whole, Mapping):
        return all(key in whole and _within(item, whole[key]) for key, item in part.items())
    if isinstance(part, list | tuple) and isinstance(whole, list | tuple):
        return len(part) == len(whole) and all(map(_within, part, whole))
    return isinstance(part, bool) == isinstance(whole, bool) and bool(part == whole)
