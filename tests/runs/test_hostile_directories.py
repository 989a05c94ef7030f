"""A stranger's folder is opened by every command, and nothing that lies in it is run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hostile.folder import made

pytestmark = pytest.mark.long

HERE = Path(__file__).parents[1]
Said = dict[str, tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile").resolve()
    made(folder)
    return folder


@pytest.fixture(scope="module")
def said(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Said:
    """What every command said, in one process that works in the folder."""
    out = tmp_path_factory.mktemp("out").resolve()
    (out / "temp").mkdir()
    command = [sys.executable, str(HERE / "hostile" / "watched.py"), str(folder), str(out)]
    temporary = dict.fromkeys(("TMPDIR", "TORCHINDUCTOR_CACHE_DIR"), str(out / "temp"))
    environment = os.environ | temporary | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert "CAUGHT" not in ended.stdout, ended.stdout
    assert ended.returncode == 0, ended.stderr
    found: Said = json.loads(ended.stdout.splitlines()[-1])
    return found | {"out": (0, str(out), "")}


def test_nothing_of_it_was_run(said: Said, folder: Path) -> None:
    assert said
    assert not (folder / "MARK").exists(), (folder / "MARK").read_text()
    assert not (folder / "cache").exists()
    assert not (folder.parent.parent.parent / "escaped").exists()


@pytest.mark.parametrize(
    "name",
    ["run", "sweep", "audit", "audit radius", "audit shallow trust", "report", "report sweep"],
)
def test_what_needs_no_code_of_theirs_works(name: str, said: Said) -> None:
    code, text, error = said[name]
    assert code == 0, (text, error)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resume run", "holds a run of another config"),
        ("resume sweep", "holds a sweep of another config"),
        ("audit own claim", "name the radius of the ball: --eps 0.3"),
        ("audit own model", "model: 'os:system' is code"),
        ("audit own model", "data: 'os:system' is code"),
        ("audit own model", "read that code first; if you trust where it comes from, say --trust"),
        ("audit other data", "model: 'os:system' is code"),
        ("escape", "name: '../../../escaped' cannot name a folder"),
    ],
)
def test_what_would_need_it_says_so(name: str, message: str, said: Said) -> None:
    code, text, error = said[name]
    assert code == 2, (text, error)
    assert message in text


def test_the_report_says_what_it_leaves_out(said: Said) -> None:
    page = Path(said["out"][1]) / "sweep-page"
    text = " ".join((page / "index.html").read_text().split())
    assert (
        "The decision boundaries are not drawn. Cell 0: model: &#39;os:system&#39; is code" in text
    )
    assert "say --trust" in text
    assert not (page / "boundaries.svg").exists()
    assert (page / "table.json").exists()


def test_python_m_does_not_import_from_the_working_directory(folder: Path) -> None:
    command = [sys.executable, "-m", "fedrobust", "--version"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("fedrobust ")
    assert not (folder / "MARK").exists(), (folder / "MARK").read_text()
