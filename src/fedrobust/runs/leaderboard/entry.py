"""Write the sweep that plays one rule under every attack of a protocol."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from fedrobust.config.docstring import example
from fedrobust.config.overrides import named_alone
from fedrobust.config.text import quoted
from fedrobust.config.yaml import read_yaml
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.files import remove_empty, require_new, written
from fedrobust.runs.grid import load_sweep
from fedrobust.runs.leaderboard.protocol import Protocol, require_label

_HEAD = "# The rule {rule} in the leaderboard {protocol}: all else is the protocol's.\n"


def write_entry(
    path: Path, protocol: Path, settings: Sequence[str], seeds: Sequence[int] = (0,)
) -> int:
    """Write the sweep of one rule to the new file ``path``; return how many cells it has.

    ``settings`` are the rule's keys, ``aggregator=...`` and ``server.root=...``.

    Raises: ``ConfigError`` for other keys, for a rule that cannot be played, for a file that exists
    and for one whose name no rule can have.
    """
    require_label(path.stem, "the rule is named by the file: choose another name for it")
    found = Protocol.read(protocol)
    keys = dict(map(_rule, settings))
    if not any(key.partition(".")[0] == "aggregator" for key in keys):
        raise ConfigError("name the rule: -s 'aggregator={name: \"my_rules:Mine\"}'")
    _require_whole(found, keys)
    content = {
        "name": path.stem,
        **found.written,
        "grid": {"rule": {path.stem: keys}, "attack": dict(found.choices), "seed": list(seeds)},
    }
    made = [folder for folder in path.parents if not folder.exists()]
    require_new(path)
    written(path, _HEAD.format(rule=path.stem, protocol=found.name) + _yaml(content))
    try:
        return len(load_sweep(path).cells)
    except BaseException:
        path.unlink()
        remove_empty(made)
        raise


def _require_whole(protocol: Protocol, keys: Mapping[str, Any]) -> None:
    """Refuse a rule's name alone where it needs more. Raises: ``ConfigError``."""
    found = named_alone(Experiment, keys, ("aggregator",))
    if found is not None:
        most = max(choice.get("malicious", 0) for choice in protocol.choices.values())
        written = example(found, f=most)
        raise ConfigError(f"the rule needs more than its name: -s 'aggregator={written}'")


def _rule(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not (key.partition(".")[0] == "aggregator" or key == "server.root"):
        raise ConfigError(
            f"-s {quoted(text)}: the protocol leaves only the rule free: write aggregator=... or "
            "server.root=..."
        )
    return key, read_yaml(value)


def _yaml(content: Mapping[str, Any]) -> str:
    stream, yaml = io.StringIO(), YAML(typ="safe", pure=True)
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.default_flow_style = None
    yaml.width = 4096
    yaml.allow_unicode = True
    yaml.dump(content, stream)
    return stream.getvalue()
