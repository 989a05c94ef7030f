"""The protocol of a leaderboard: a sweep over rules and attacks, of which a rule alone is free."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedrobust.config.component import to_config
from fedrobust.config.text import quoted, shortened
from fedrobust.config.yaml import read_yaml
from fedrobust.errors import ConfigError
from fedrobust.records.leaderboard import text_digest
from fedrobust.records.published import at
from fedrobust.records.schema.leaderboard import LONGEST, NAME, Knowledge
from fedrobust.runs.grid import load_sweep
from fedrobust.runs.older_configs import completed

_FREE = ("name", "seed", "aggregator", "execution")
_ATTACK = ("malicious", "attack", "threat")
_ROOT = "server.root"
"""The keys that differ between the results of one protocol: the rule's, and the attack's."""
_NOTHING = object()


@dataclass(frozen=True)
class Protocol:
    """One protocol: what all runs have in common, and the attacks that a rule is played under.

    ``written`` is the experiment as the file has it, and ``choices`` are the keys that each attack
    sets. ``base`` and ``attacks`` are the same with all defaults. The digest is of what is written,
    so that a field that fedrobust gains later does not change it. It leaves out rules and seeds.
    """

    name: str
    written: Mapping[str, Any]
    choices: Mapping[str, Mapping[str, Any]]
    base: Mapping[str, Any]
    attacks: Mapping[str, Mapping[str, Any]]

    @property
    def digest(self) -> str:
        """The SHA-256 of everything that all results have in common."""
        return text_digest({"experiment": self.written, "attacks": self.choices})

    @property
    def knowledge(self) -> dict[str, Knowledge]:
        """The attacks, each with what it is granted."""
        return {label: _granted(config) for label, config in self.attacks.items()}

    @classmethod
    def read(cls, path: Path) -> "Protocol":
        """Read the protocol of a sweep's config.

        Raises: ``ConfigError`` for a sweep in which more differs than rule, attack and seed.
        """
        sweep, content = load_sweep(path), read_yaml(path)
        if not {"rule", "attack"} <= set(sweep.axes) <= {"rule", "attack", "seed"}:
            raise ConfigError(
                f"{path} is no protocol of a leaderboard: its axes are {', '.join(sweep.axes)}, "
                "not rule, attack and seed"
            )
        grids = content["grid"] if isinstance(content["grid"], list) else [content["grid"]]
        choices = {label: keys for grid in grids for label, keys in grid["attack"].items()}
        base, attacks = dict[str, Any](), dict[str, Mapping[str, Any]]()
        for cell in sweep.cells:
            mine = fixed(to_config(cell.experiment))
            attack = {key: mine.pop(key) for key in _ATTACK}
            base = base or mine
            label = cell.labels["attack"]
            before = attacks.setdefault(label, attack)
            if differ := [*differences(mine, base), *differences(attack, before)]:
                raise ConfigError(
                    f"{path} is no protocol of a leaderboard: in the cell {cell.name}, {differ[0]}"
                )
        if not base["evaluation"]["audit"]:
            raise ConfigError(f"{path} is no protocol of a leaderboard: it has no evaluation.audit")
        left = ("grid", "reference", *_FREE)
        written = {key: value for key, value in content.items() if key not in left}
        return cls(sweep.name.removeprefix("leaderboard-"), written, choices, base, attacks)

    def place(self, config: Mapping[str, Any]) -> str:
        """Return the attack that a run with this config is of.

        Raises: ``ConfigError`` for a run of another protocol, which names the keys that differ.
        """
        mine = fixed(completed(config))
        attack = {key: mine.pop(key, None) for key in _ATTACK}
        differ = differences(mine, self.base)
        apart = {label: differences(attack, choice) for label, choice in self.attacks.items()}
        nearest = min(apart, key=lambda label: len(apart[label]))
        differ += apart[nearest]
        if differ:
            more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
            raise ConfigError(
                f"it is no run of the protocol {self.name}: {'; '.join(differ[:3])}{more}"
            )
        return nearest

    def apart(self, config: Mapping[str, Any]) -> int:
        """Return in how many keys a run differs, its attack aside."""
        mine = fixed(completed(config))
        return len(differences({k: v for k, v in mine.items() if k not in _ATTACK}, self.base))


def require_label(name: str, mend: str) -> None:
    """Raises: ``ConfigError`` for a text that cannot be a rule's name, with what ``mend`` says."""
    if len(name) > LONGEST or not re.fullmatch(NAME, name):
        raise ConfigError(
            f"{quoted(name)} cannot be the name of a rule: a name has letters, digits, dots, "
            f"hyphens and underscores, {LONGEST} at most, and begins with a letter or a digit; "
            f"{mend}"
        )


def fixed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config without the keys that a result may choose: the rule's, and its plan."""
    found = {key: value for key, value in config.items() if key not in _FREE}
    found["server"] = {k: v for k, v in (found.get("server") or {}).items() if k != "root"}
    return found


def root_of(config: Mapping[str, Any]) -> int:
    """Return how many examples the server of a run holds."""
    return int(at(config, _ROOT) or 0)


def knows_f(rule: Any) -> bool:
    """Whether a rule, or one that it wraps, is told how many clients to tolerate."""
    return isinstance(rule, Mapping) and ("f" in rule or any(map(knows_f, rule.values())))


def differences(mine: Any, other: Any, path: str = "") -> list[str]:
    """Return each key in which ``mine`` is not ``other``, with both values."""
    return [
        f"{key} is {_told(value)}, there {_told(wanted)}"
        for key, value, wanted in _different(mine, other, path)
    ]


def _different(mine: Any, other: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(mine, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys([*other, *mine]):
            there = f"{path}.{key}" if path else str(key)
            yield from _different(mine.get(key, _NOTHING), other.get(key, _NOTHING), there)
    elif mine != other:
        yield path, mine, other


def _told(value: Any) -> str:
    return "left out" if value is _NOTHING else shortened(str(value), 60)


def _granted(config: Mapping[str, Any]) -> Knowledge:
    threat = config["threat"]
    if not config["malicious"]:
        return "own data"
    if threat["benign"] or threat["rule"] or threat["data"]:  # data of benign clients give updates
        return "benign updates"
    return "other attackers" if threat["colluders"] else "own data"
