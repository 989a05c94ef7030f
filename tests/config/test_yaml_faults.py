"""What a YAML text may hold that no config should, and how large it may be."""

import time
from pathlib import Path

import pytest

from fedrobust.config.yaml import DEPTH, NODES, TEXT
from fedrobust.errors import ConfigError
from fedrobust.experiment import read_yaml
from fedrobust.runs.older_configs import completed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 2001-99-99", "is not valid YAML: ValueError: month must be in 1..12"),
        ("a: !!int abc", "is not valid YAML: ValueError"),
        ("a: !!bool x", "is not valid YAML: KeyError"),
        ("a: !!python/object:os.system {}", "could not determine a constructor"),
        ('a: "\\U99999999"', "is not valid YAML: OverflowError"),
        ("a: 1\na: 2", 'the key "a" stands twice; the second time is in line 2'),
        ("a: \0", "special characters are not allowed"),
        ("a:\n\tb: 1", "cannot start any token"),
        ('a: {b: "\\ud800"}', "a.b: holds half a character"),
        ("a: [0, 2001-01-01]", r"a.1: datetime.date\(2001, 1, 1\) is read as a value of type date"),
        ("!!set {a, b}", "is read as a value of type set"),
        ("a: !!binary aGk=", "a: b'hi' is read as a value of type bytes"),
        ("2001-01-01: 1", "cannot be a key: put it in quotes to make it a text"),
        ("a: 9223372036854775808", "a: is a whole number of more than 64 bits"),
        ("a: 0x" + "f" * 5000, "a: is a whole number of more than 64 bits"),
        ("a: " + "9" * 5000, "is not valid YAML: ValueError"),
        ("&a [*a]", "has an alias that contains itself, which never ends"),
        ("&a {<<: *a}", "has an alias that contains itself, which never ends"),
        ("a: *b", "found undefined alias"),
        ("a: 1\n---\na: 2", "expected a single document"),
    ],
    ids=lambda text: text[:20],
)
def test_what_yaml_cannot_mean_here(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        read_yaml(path)
    assert str(path) in str(error.value)
    with pytest.raises(ConfigError, match=message):
        read_yaml(text)


def test_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError, match="it is not UTF-8 text"):
        read_yaml(tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match=r"cannot read .*: Is a directory; its config is .*yaml"):
        read_yaml(tmp_path)
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(ConfigError, match=r"cannot read .*: Is a directory$"):
        read_yaml(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot read .*null byte"):
        read_yaml(Path("a\0b"))


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.slow
def test_levels_are_bounded() -> None:
    content = read_yaml(nested(DEPTH))
    for _ in range(DEPTH - 1):
        (content,) = content
    assert content == []
    for text in (nested(DEPTH + 1), nested(1500), "[" * 1500, "- " * (DEPTH + 1)):
        with pytest.raises(ConfigError, match="is more than 64 levels deep"):
            read_yaml(text)


def test_levels_are_counted_with_aliases_written_out() -> None:
    half = DEPTH // 2
    held = f"a: &a {nested(half)}\nb: "
    assert read_yaml(held + "[" * (half - 1) + "*a" + "]" * (half - 1))["a"] != []
    with pytest.raises(ConfigError, match="is more than 64 levels deep"):
        read_yaml(held + "[" * half + "*a" + "]" * half)


def billion(lines: int) -> str:
    first = "a0: &a0 [x, x, x, x, x, x, x, x, x]"
    rest = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, lines)]
    return "\n".join([first, *rest])


@pytest.mark.long
def test_values_are_bounded_with_aliases_written_out() -> None:
    assert read_yaml(billion(3))["a2"] == [[["x"] * 9] * 9] * 9
    begun = time.process_time()
    with pytest.raises(ConfigError, match=f"has more than {NODES:,} keys and values, aliases"):
        read_yaml(billion(9))
    assert time.process_time() - begun < 0.5
    assert len(read_yaml("[" + "1," * (NODES - 1) + "]")) == NODES - 1
    with pytest.raises(ConfigError, match=f"has more than {NODES:,} keys and values"):
        read_yaml("[" + "1," * NODES + "]")


def test_the_text_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("a: " + "x" * (TEXT - 3))
    assert len(read_yaml(path)["a"]) == TEXT - 3
    path.write_text("a: " + "x" * TEXT)
    with pytest.raises(ConfigError, match=r"has more than 500,000 characters"):
        read_yaml(path)
    with pytest.raises(ConfigError, match=r"has more than 500,000 characters"):
        read_yaml(Path("/dev/zero"))


def test_an_anchor_used_anew_is_no_warning() -> None:
    assert read_yaml("[&a 1, *a, &a 2, *a]") == [1, 1, 2, 2]


def test_a_stored_config_that_is_none() -> None:
    for stored in (None, [1], "x"):
        with pytest.raises(ConfigError, match="a stored config must be a mapping of keys; it is"):
            completed(stored)  # type: ignore[arg-type]
