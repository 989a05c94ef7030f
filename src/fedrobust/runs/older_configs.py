"""Read configs that earlier versions of fedrobust stored."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from fedrobust.compute.execution import Execution
from fedrobust.config.component import to_config
from fedrobust.config.explain import explain, field_types
from fedrobust.config.text import quoted
from fedrobust.config.trust import Trusted
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment

_BEFORE = {
    "attack.encoding=basis.draws": "fixed",
    "attack.training.check_episodes": 1,
    "attack.training.start": "random",
    "execution.gradients": "autograd",
}


def completed(stored: Mapping[str, Any], like: object = None) -> dict[str, Any]:
    """Return a stored config with the fields that fedrobust has gained since, at their defaults.

    Where the default differs from what was done before the field existed, ``_BEFORE`` gives the
    value. A value that cannot be read, such as an object that no file can rebuild, stays as it is.
    So does code that ``like``, the user's own config as plain data, does not name in the same way.

    Raises: ``ConfigError`` where it is no config, or where its execution plan is invalid.
    """
    if not isinstance(stored, Mapping):
        raise ConfigError(f"a stored config must be a mapping of keys; it is {quoted(stored)}")
    content = deepcopy(dict(stored))
    for path, value in _BEFORE.items():
        *way, last = path.split(".")
        for node in _nodes(content, way):
            node.setdefault(last, value)
    trusted, found = Trusted.of(like), dict(stored)
    for field in fields(cast("Any", Experiment)):
        key = field.name
        if key not in content:
            if field.default is not MISSING:
                found[key] = to_config(field.default)
            continue
        try:
            found[key] = to_config(_adapter(key).validate_python(content[key], context=trusted))
        except ValidationError as error:
            if key == "execution":
                raise ConfigError(explain(error, Execution)) from error
    return found


@cache
def _adapter(key: str) -> TypeAdapter[Any]:
    return TypeAdapter(field_types(Experiment)[key])


def _nodes(content: Any, way: Sequence[str]) -> list[dict[str, Any]]:
    """Return the mappings at ``way``, also inside attacks that wrap another attack.

    A step ``key=name`` leads only to a component with that name.
    """
    if not isinstance(content, dict):
        return []
    if not way:
        return [content]
    key, _, name = way[0].partition("=")
    first, rest = content.get(key), way[1:]
    if name and (not isinstance(first, dict) or first.get("name") != name):
        first = None
    wrapped = _nodes(first, way) if way[0] == "attack" else []
    return [*_nodes(first, rest), *wrapped]
