"""Records read by their parts: the same content and the same messages, and far less parsing."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from fedrobust.config import yaml as plain_yaml
from fedrobust.config.yaml import NODES, read_stored_yaml, read_yaml
from fedrobust.errors import ConfigError

ROOT = Path(__file__).parents[2]
TEXTS = [
    "a: 1\nb: {x: 1,\n  y: [2, 3]}\nc: last\n",
    "a: {x: 1,\nb: 2}\n",
    'a: "over\n\n  two lines\n# no comment\n  b: c"\nd: 1\n',
    "a: 'it''s\nb: c'\n",
    "a: plain\n  over lines\nb: 2\n",
    "a: |\n  kept\n\n  so\n\nb: >+\n  folded\n  text\n\n\nc: |2\n    two\n",
    "a:\n- 1\n- b: 2\n  c: 3\n-\nd:\n  - 4\n",
    "a: 1\r\nb: 2\r\n",
    "a: 1\rb: 2\n",
    "a: 1\n...\n",
    "a: 1\n---\nb: 2\n",
    "a: 1\r...\r\nb: 2\n",
    "%YAML 1.1\n---\na: yes\n",
    "a: &x {b: 1}\nc: *x\n",
    "<<: {a: 1}\nb: 2\n",
    "a: !!str 1\nb: 2\n",
    "a: 2020-01-01\nb: 2\n",
    "a: 1\na: 2\n",
    "a: {b: 1, b: 2}\n",
    "true: 1\nTRUE: 2\nnull: 3\n",
    "# said first\na: 1 # said\n# said last\n",
    "a: 1\n b: 2\n",
    "a: b: c\n",
    "a: 1\n- 2\n",
    "a: 1\nb\n",
    "a: 1\nb:2\n",
    " a: 1\n b: 2\n",
    "a:\n\tb\n",
    "? a\n: 1\n",
    "a: \u2028b: 1\nc: 2\n",
    "\ufeffa: 1\n",
    "name: a-b\nseed: 0\n",
    "name: 2020-01-01\n",
    "name: -b\nname: a-b\n",
    "a: 99999999999999999999\n",
    'a: "\\ud800"\n',
    "a: " + "[" * 70 + "]" * 70 + "\n",
    "",
    "a:",
    "[a, b]\n",
]


def outcome(read: Any, path: Path) -> str:
    try:
        return json.dumps(read(path))
    except ConfigError as error:
        return f"refused: {error}"


def check(path: Path, text: str) -> None:
    path.write_bytes(text.encode())
    for _ in range(2):  # once more from memory
        assert outcome(read_stored_yaml, path) == outcome(read_yaml, path), text


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_read_as_a_whole_would_be(tmp_path: Path, text: str) -> None:
    check(tmp_path / "config.yaml", text)


LINES = sorted({line for text in TEXTS for line in text.splitlines(keepends=True)})


@pytest.mark.slow
@given(st.lists(st.sampled_from(LINES), max_size=8))
def test_lines_put_together_are_read_as_a_whole_would_be(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    check(tmp_path_factory.getbasetemp() / "lines.yaml", "".join(lines))


@given(st.text(alphabet="ab:-# \n\"'{}[],|>?\r\t.&*!1", max_size=40))
def test_odd_texts_are_read_as_a_whole_would_be(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    check(tmp_path_factory.getbasetemp() / "odd.yaml", text)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(-9, 9)
    | st.text("ab-:#\n ", max_size=90),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab1-", max_size=3), inner),
    max_leaves=12,
)


@pytest.mark.long
@given(st.dictionaries(st.text("abc_", min_size=1, max_size=4), plain), st.booleans())
def test_what_is_written_is_read_as_a_whole_would_be(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any], flow: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "written.yaml"
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None if flow else False
    yaml.dump(content, path)
    assert outcome(read_stored_yaml, path) == outcome(read_yaml, path)


@pytest.mark.slow
def test_committed_records_are_read_as_before_and_by_their_parts() -> None:
    paths = sorted((ROOT / "results").rglob("config.yaml"))
    few = paths[:: max(1, len(paths) // 60)]
    for path in few:
        assert outcome(read_stored_yaml, path) == outcome(read_yaml, path)
        assert plain_yaml._by_parts(path.read_text()) is not None


def test_the_parser_is_not_asked_for_the_same_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    load = YAML.load

    def counted(self: YAML, stream: Any) -> Any:
        asked.append(stream)
        return load(self, stream)

    monkeypatch.setattr(YAML, "load", counted)
    plain_yaml._part.cache_clear()
    for i in range(100):
        text = f"name: cell-{i}\nseed: {i % 5}\nmodel: {{name: mlp,\n  size: 3}}\nrule:\n  f: 1\n"
        (tmp_path / "config.yaml").write_text(text)
        found = read_stored_yaml(tmp_path / "config.yaml")
        assert (found["name"], found["seed"], found["rule"]) == (f"cell-{i}", i % 5, {"f": 1})
    assert len(asked) == 5 + 2


def test_a_reader_may_change_what_it_gets(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: {b: [1, 2]}\n")
    read_stored_yaml(tmp_path / "config.yaml")["a"]["b"].append(3)
    assert read_stored_yaml(tmp_path / "config.yaml") == {"a": {"b": [1, 2]}}


@pytest.mark.slow
@pytest.mark.parametrize("unit", [":,", "a,", "?,"])
def test_no_text_that_is_cut_has_more_values_than_a_whole_may(unit: str) -> None:
    """The bounds are of the whole file; below this length no file reaches them."""
    half = plain_yaml._RECORD // (2 * len(unit)) - 4
    text = "".join(f"{key}: [{unit * half}]\n" for key in "ab")
    assert len(text) > 0.9 * plain_yaml._RECORD
    found = plain_yaml._by_parts(text)
    assert found is not None

    def count(node: Any) -> int:
        if isinstance(node, dict):
            return 1 + sum(1 + count(value) for value in node.values())
        return 1 + sum(map(count, node)) if isinstance(node, list) else 1

    assert count(found) <= NODES
