"""Configs as users, and their mistakes, write them: those of this repository, mutated."""

import datetime
import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from io import StringIO
from typing import Any

from demo import ROOT, demo_config
from ruamel.yaml import YAML

from fedrobust.cli import kinds
from fedrobust.config.kind import name_of

Path = tuple[Any, ...]


@dataclass(frozen=True)
class Case:
    """The text of a config file, and the overrides that it is loaded with."""

    text: str
    overrides: tuple[str, ...]
    sweep: bool


ODD_KEYS: tuple[Any, ...] = (
    *("learning-rate", "my key", "", " ", "own", "name", "opaque", "krum", "f", "a.b", "rounds"),
    *("<<", "x" * 5000, "\n", "\x1b[31m", "ключ", 1, -1, 2.5, True, None, 10**30),
)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 10**9, 2**31, 2**63, 10**30, 10**400, -(10**30)),
    *(0.0, -0.0, 0.5, 1e-320, 1e308, -1e308, float("nan"), float("inf"), float("-inf")),
    *("", " ", "8/255", "1/0", "nan/1", "1e999/1", "krum", "mean", "max", "all", "none", "quick"),
    *("x" * 200_000, "\n\n", "\x07", "../up", "/dev/zero", "a" * 300, "ё", "{name: krum}"),
    *([], {}, [[]], [1, 2, 3], ["a"] * 300, [{}] * 300, {"name": None}, {"name": 3}, {"name": []}),
    *({"opaque": "a:b", "fingerprint": None}, {"opaque": ["x"] * 99}, {"a": {"b": {"c": 1}}}),
    *(datetime.date(2001, 1, 1), datetime.datetime(2001, 1, 1, 12), b"\xff\x00", {1, 2}),
)
OWN_NAMES = (
    *(":", ":x", "x:", "a:b:c", ".:x", "..a:b", ".a:b", "os:", "os:nothing", "os.path:sep", "\0:x"),
    *("sys:exit", "os:getcwd", "builtins:str", "builtins:dict", "builtins:KeyError", "math:pi"),
    *("builtins:len", "builtins:object", "collections:OrderedDict", "json:loads", "re:compile"),
    *("fuzz_own:Raising", "fuzz_own:Leaving", "fuzz_own:Empty", "fuzz_own:Nothing", "no such:x"),
    *("torch.nn:Linear", "torch:Tensor", "torch.optim:SGD", "types:SimpleNamespace", "x" * 9999),
    *("fedrobust.aggregators:Krum", "fedrobust.attacks:SignFlip", "decimal:Decimal", "abc:ABC"),
)
TEXTS = (
    *("a: 2001-99-99", "a: !!int abc", "a: !!python/object:os.system {}", "!!set {a, b}", "\0"),
    *("[" * 1500, "[" * 1500 + "]" * 1500, "a: &a [*a]", "&a {<<: *a}", "a: *b", "a:\n\tb: 1"),
    *('a: "\\ud800"', "a: !!bool x", 'a: "\\U99999999"', "%YAML 9.9\n---\na: 1", "- a\n- b", "3"),
    *("a: 1\n---\na: 2", "a: !!binary '%%'", "? [1]\n: 2", "? {a: 1}\n: 2", "a: !!int ''", ""),
    *("a: 1\na: 2", "a: 0x" + "f" * 5000, "a: " + "9" * 5000, "a: !!omap [b: 1]", "!!map x", "{"),
    "\n".join(
        ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
        + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    ),
    "\n".join(["a0: &a0 " + "[" * 50 + "]" * 50, "a1: " + "[" * 50 + "*a0" + "]" * 50]),
    "a: [" + "1, " * 100_000 + "]",
    "a: " + "x " * 1_000_000,
    "threat: {classes: [" + "x, " * 10_000 + "]}",
)


@cache
def _originals() -> tuple[dict[str, Any], ...]:
    read = YAML(typ="safe", pure=True)
    paths = sorted((ROOT / "experiments").rglob("*.yaml"))
    return (demo_config(), *(read.load(path) for path in paths))


@cache
def _names() -> tuple[str, ...]:
    return tuple(name_of(each) for members in kinds().values() for each in members)


def _places(node: Any, path: Path = ()) -> Iterator[Path]:
    """The paths of all that a config holds."""
    items: Any = ()
    if isinstance(node, dict):
        items = node.items()
    elif isinstance(node, list):
        items = enumerate(node)
    for key, value in items:
        yield (*path, key)
        yield from _places(value, (*path, key))


def _at(content: Any, path: Path) -> Any:
    for key in path:
        content = content[key]
    return content


def _value(draw: random.Random) -> Any:
    kind = draw.random()
    if kind < 0.5:
        return deepcopy(draw.choice(ODD_VALUES))
    if kind < 0.65:
        return draw.choice(_names())
    if kind < 0.75:
        return {"name": draw.choice(_names())}
    if kind < 0.85:
        return {"name": draw.choice(OWN_NAMES), draw.choice(("f", "x", "my key")): 1}
    if kind < 0.9:
        deep: Any = 1
        for _ in range(draw.choice((3, 60, 70, 90))):
            deep = [deep] if draw.random() < 0.5 else {"attack": deep, "name": "delayed"}
        return deep
    other = draw.choice(_originals())
    return deepcopy(_at(other, draw.choice(list(_places(other)))))


def _rename(content: Any, path: Path, draw: random.Random) -> None:
    node = _at(content, path[:-1])
    if isinstance(node, dict):
        key = path[-1]
        text = str(key)
        typo = text[:-1] + draw.choice(("", "x", text[-1:] * 2))
        node[draw.choice((typo, *ODD_KEYS))] = node.pop(key)


def _delete(content: Any, path: Path, draw: random.Random) -> None:
    del _at(content, path[:-1])[path[-1]]


def _add(content: Any, path: Path, draw: random.Random) -> None:
    node = _at(content, path[:-1])
    if isinstance(node, dict):
        node[draw.choice(ODD_KEYS)] = _value(draw)


def _replace(content: Any, path: Path, draw: random.Random) -> None:
    _at(content, path[:-1])[path[-1]] = _value(draw)


def _move(content: Any, path: Path, draw: random.Random) -> None:
    other = draw.choice(list(_places(content)))
    value = deepcopy(_at(content, path))
    _at(content, other[:-1])[other[-1]] = value


def _scale(content: Any, path: Path, draw: random.Random) -> None:
    """A number of the same type, far from what it was."""
    number = _at(content, path)
    if type(number) is int:
        _at(content, path[:-1])[path[-1]] = draw.choice((0, -number, number + 1, number * 10**6))
    if type(number) is float:
        far = number * draw.choice((0.0, -1.0, 1e-9, 1e9, 1e-300, 1e300))
        _at(content, path[:-1])[path[-1]] = far


def _rename_component(content: Any, path: Path, draw: random.Random) -> None:
    named = [p for p in _places(content) if p[-1] == "name" and len(p) > 1]
    if named:
        where = draw.choice(named)
        _at(content, where[:-1])["name"] = draw.choice((*_names(), *OWN_NAMES))


_MUTATIONS: tuple[Callable[[Any, Path, random.Random], None], ...] = (
    *(_rename, _delete, _add, _replace, _replace, _move, _rename_component),
    *(_scale, _scale, _scale, _scale),
)


def _override(content: Any, draw: random.Random) -> str:
    place = draw.choice(list(_places(content)) or [("seed",)])
    key = ".".join(map(str, place))
    kind = draw.random()
    if kind < 0.3:
        key = ".".join([*map(str, place[:-1]), "name"])
        return f"{key}={draw.choice((*_names(), *OWN_NAMES))}"
    if kind < 0.4:
        return draw.choice(("", "=", "a", ".=1", "a..b=1", "a.b.c=1", ".".join("x" * 999) + "=1"))
    if kind < 0.5:
        return f"{key}={draw.choice(TEXTS)}"
    if kind < 0.6:
        key = f"{key}.{draw.choice(('f', 'x', 'name', 'my key', 'attack.name'))}"
    value = _value(draw)
    return f"{key}={value if isinstance(value, str) else _dumped(value).strip()}"


def _dumped(value: Any) -> str:
    text = StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = True
    yaml.width = 10**9
    yaml.dump(value, text)
    return text.getvalue().removesuffix("...\n")


def case(seed: int) -> Case:
    """The case of a seed, the same whenever it is asked for."""
    draw = random.Random(seed)
    if draw.random() < 0.05:
        return Case(draw.choice(TEXTS), (), draw.random() < 0.3)
    content = deepcopy(draw.choice(_originals()))
    sweep = "grid" in content
    for _ in range(draw.choice((0, 1, 1, 1, 1, 1, 2, 4))):
        if places := list(_places(content)):
            draw.choice(_MUTATIONS)(content, draw.choice(places), draw)
    overrides = tuple(_override(content, draw) for _ in range(draw.choice((0, 0, 1, 1, 2, 4))))
    return Case(_dumped(content), overrides, sweep if draw.random() < 0.9 else not sweep)
