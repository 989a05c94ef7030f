"""The packages of fedrobust stand above what they import, and nothing goes in circles."""

import re
import sys
from pathlib import Path

import pytest
from demo import ROOT

sys.path.append(str(ROOT / "docs"))

import architecture


@pytest.fixture(scope="module")
def graph() -> architecture.Graph:
    return architecture.imports(ROOT / "src")


@pytest.mark.slow
def test_no_imports_go_in_a_circle(graph: architecture.Graph) -> None:
    """Those within functions and those for type checkers count too."""
    assert len(graph) > 200
    assert architecture.circles(graph) == []


@pytest.mark.slow
def test_no_package_imports_one_above_it(graph: architecture.Graph) -> None:
    assert architecture.upward(graph) == []


def test_every_package_has_its_place_and_its_paragraph(graph: architecture.Graph) -> None:
    found = {architecture.room(module) for module in graph} - {""}
    assert found == set(architecture.ROOMS)
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    for room in found:
        assert f"`{room}" in page, f"docs/architecture.md says nothing of {room}"


def test_files_that_the_page_names_exist() -> None:
    """A bare name is in the package that begins its line, or at the top."""
    source = ROOT / "src" / "fedrobust"
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    for line in page.splitlines():
        package = re.match(r"`(\w+)`", line)
        for name in re.findall(r"`((?!src/)[\w/]+(?:\.py|/))`", line):
            places = [source / name, source / (package[1] if package else "") / name]
            assert any(place.exists() for place in places), f"{name} in: {line}"


@pytest.mark.slow
def test_the_picture_is_up_to_date(graph: architecture.Graph) -> None:
    drawn = architecture.picture(architecture.between(graph))
    assert architecture.PICTURE.read_text("utf-8") == drawn, "make docs"


UP = ("attacks/__init__", "runs/run", "federation/round", "federation/server")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("compute/network.py", "from fedrobust import attacks\n"),
        ("clients/client.py", "def f() -> None:\n    from fedrobust.runs.run import run\n"),
        ("data/dataset.py", "if TYPE_CHECKING:\n    from fedrobust.federation.round import x\n"),
        ("aggregators/krum.py", "import fedrobust.federation.server\n"),
    ],
)
def test_an_import_that_runs_back_up_is_named(name: str, line: str, tmp_path: Path) -> None:
    source = tmp_path / "src"
    for module in ("__init__", name[:-3], *UP):
        path = source / "fedrobust" / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (source / "fedrobust" / name).write_text(line)
    module = "fedrobust." + name[:-3].replace("/", ".")
    assert architecture.upward(architecture.imports(source))[0].startswith(f"{module} imports ")


def test_a_circle_within_a_package_is_named(tmp_path: Path) -> None:
    for name, line in (
        ("a", "import fedrobust.b\n"),
        ("b", "def f():\n    from fedrobust.c import g\n"),
        ("c", "from fedrobust import a\n"),
        ("d", "from fedrobust.a import x\n"),
    ):
        (tmp_path / "fedrobust").mkdir(exist_ok=True)
        (tmp_path / "fedrobust" / f"{name}.py").write_text(line)
    found = architecture.circles(architecture.imports(tmp_path))
    assert found == [["fedrobust.a", "fedrobust.b", "fedrobust.c"]]
