"""The site has every page in its place, and its links lead somewhere. `make site` builds it."""

import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import nbformat
import pytest
from demo import ROOT
from ruamel.yaml import YAML


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return import_module("site_pages")


def named(node: Any) -> Iterator[str]:
    """Every page of a part of the navigation."""
    if isinstance(node, str):
        yield node
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from named(each)


def test_every_page_is_in_the_navigation_once(pages: ModuleType) -> None:
    found = list(named(YAML().load(ROOT / "mkdocs.yml")["nav"]))
    assert sorted(found) == sorted(set(found))
    own = {pages.placed(path).as_posix() for path in pages.sources() if path.suffix in CONTENT}
    assert set(found) == own | {place.as_posix() for place, _ in pages.reference()}


CONTENT = (".md", ".ipynb")


def test_every_link_of_every_page_leads_to_a_file(pages: ModuleType) -> None:
    seen: list[Path] = []
    for source in pages.sources():
        text = (ROOT / source).read_text("utf-8")
        if source.suffix == ".ipynb":
            text = "\n\n".join(cell.source for cell in nbformat.reads(text, as_version=4).cells)
        pages.linked(text, source, seen.append)
    assert len(seen) > 200
    with pytest.raises(pages.WrongLinkError, match=r"docs/fat\.md links to nowhere\.md"):
        pages.linked("[x](nowhere.md)", Path("docs/fat.md"), seen.append)


@pytest.mark.parametrize(
    ("source", "text", "there"),
    [
        ("README.md", "[a](docs/fat.md)", "[a](fat.md)"),
        ("docs/own/model.md", "[a](../configuration.md#data)", "[a](../configuration.md#data)"),
        ("docs/fat.md", "[a](../results/README.md)", "[a](results/index.md)"),
        ("docs/fat.md", "[a](../examples/trades.py)", "[a](code/examples/trades.py.md)"),
        ("docs/fat.md", "![a](images/architecture.svg)", "![a](images/architecture.svg)"),
        (
            "docs/first-use.md",
            "[a](tutorials/a-learned-attack.ipynb)",
            "[a](tutorials/a-learned-attack.md)",
        ),
        ("docs/fat.md", "[a](#b) [c](https://d.org/e)", "[a](#b) [c](https://d.org/e)"),
        ("docs/fat.md", "```text\nx[0](no.md)\n```\n", "```text\nx[0](no.md)\n```\n"),
    ],
)
def test_links_are_right_for_the_new_places(
    pages: ModuleType, source: str, text: str, there: str
) -> None:
    assert pages.linked(text, Path(source), lambda _: None) == there


def test_all_pages_are_put_together(pages: ModuleType, tmp_path: Path) -> None:
    pages.assemble(tmp_path)
    for page in named(YAML().load(ROOT / "mkdocs.yml")["nav"]):
        assert (tmp_path / page).is_file(), page
    tutorial = (tmp_path / "tutorials" / "train-under-attack.md").read_text("utf-8")
    assert "<table>" in tutorial
    (picture,) = re.findall(r"!\[.*\]\((.*\.png)\)", tutorial)
    assert (tmp_path / "tutorials" / picture).read_bytes().startswith(b"\x89PNG")
    assert "```text\nExperiment: attack mimic needs benign updates" in tutorial
    assert "[everything that is needed to go on](../resume.md)" in tutorial
    assert "class Trades:" in (tmp_path / "code" / "examples" / "trades.py.md").read_text("utf-8")
    assert (tmp_path / "results" / "drfl" / "ring" / "report" / "index.html").is_file()


def test_the_reference_has_every_public_name(pages: ModuleType) -> None:
    named_there = {module for modules in pages.REFERENCE.values() for module in modules}
    packages = [path.parent for path in (ROOT / "src" / "fedrobust").glob("*/__init__.py")]
    packages = [path for path in packages if path.name != "cli"]  # commands, not calls
    public = {
        f"fedrobust.{path.name}" for path in packages if pages.public(f"fedrobust.{path.name}")
    }
    assert public <= named_there
    text = dict(pages.reference())[Path("reference/fedrobust.md")]
    import fedrobust

    assert all(f"'{name}'" in text for name in fedrobust.__all__)
    rules = dict(pages.reference())[Path("reference/aggregators.md")]
    assert "'Aggregation'" in rules
    assert "'Krum'" not in rules, "it has a page of its own"


@pytest.fixture
def markdown(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What docs/docstrings.py makes of a docstring. Griffe is installed for the site only."""
    stand_in = ModuleType("griffe")
    for name in ("Class", "Extension", "Function", "Object", "Parameter", "ParameterKind"):
        setattr(stand_in, name, type(name, (), {}))
    stand_in.Parameters = SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "griffe", stand_in)
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    monkeypatch.delitem(sys.modules, "docstrings", raising=False)
    return import_module("docstrings").markdown


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("See :func:`~fedrobust.data.sources.get`.", "See `get`."),
        ("A :class:`Dataset`, ``x`` of it.", "A `Dataset`, `x` of it."),
        ("In :mod:`.layers`.", "In `layers`."),
        ("One.\n\nRaises: ``ValueError`` for two.", "One.\n\n**Raises:** `ValueError` for two."),
        ("One. Raises: ``ValueError``.", "One. **Raises:** `ValueError`."),
        ("loss [b][a], f[i](x), n <m, `a[i](x)`", "loss [b\\][a], f[i\\](x), n &lt;m, `a[i](x)`"),
        ("So:\n>>> f(1)\n2", "So:\n\n```pycon\n>>> f(1)\n2\n```"),
        ("So\n\n    x = [a][b] <c>", "So\n\n    x = [a][b] <c>"),
    ],
)
def test_docstrings_become_markdown(markdown: Any, text: str, there: str) -> None:
    assert markdown(text) == there


def test_no_role_of_any_docstring_is_left(markdown: Any) -> None:
    for path in (ROOT / "src").rglob("*.py"):
        assert not re.search(
            r":(class|func|meth|mod|data|attr|obj|ref):`", markdown(path.read_text())
        )


def test_the_check_of_the_built_site_finds_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    check = import_module("site_check")
    (tmp_path / "b.html").write_text('<h1 id="here">B</h1><code>:class:`X` | --- </code>')
    a = tmp_path / "a.html"
    a.write_text(
        '<a href="b.html#here">b</a><a href="https://x.org">x</a><img src="data:image/png,">'
    )
    assert check.mistakes(tmp_path) == []
    a.write_text(
        '<a href="b.html#gone"></a><a href="c.html"></a><script src="https://x.org/s.js"></script>'
        '<img src="d.png"><link rel="stylesheet" href="//x.org/s.css"><p>A :class:`X`</p>'
    )
    assert sorted(check.mistakes(tmp_path)) == [
        "a.html: //x.org/s.css is loaded from another host",
        "a.html: b.html#gone has no such anchor",
        "a.html: c.html is not there",
        "a.html: d.png is not there",
        "a.html: https://x.org/s.js is loaded from another host",
        "a.html: raw markup: :class:",
    ]


def test_what_the_site_needs_has_a_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints-site.txt").read_text().splitlines()
    fixed = dict(line.split("==") for line in lines if not line.startswith("#"))
    asked = {re.split(r"[\[>]", each)[0] for each in project["optional-dependencies"]["site"]}
    assert asked <= set(fixed)
    others = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    assert {name: others[name] for name in fixed.keys() & others} == {
        name: fixed[name] for name in fixed.keys() & others
    }
