"""The commands of the page on first use do what it says, with fewer rounds."""

import re
import shlex
from pathlib import Path

import pytest
from demo import ROOT
from typer.testing import CliRunner

from fedrobust.cli import app

PAGE = (ROOT / "docs" / "first-use.md").read_text("utf-8")
MAKE = (ROOT / "Makefile").read_text("utf-8")


@pytest.mark.long
def test_the_commands_of_the_page_play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    demo = re.search(r"^demo: setup\n((?:\t.*\n)+)", MAKE, re.M)
    assert demo is not None
    commands = re.findall(r"^\t\$\(BIN\)/fedrobust (.*)$", demo[1], re.M)
    commands += re.findall(r"^\$ \.venv/bin/fedrobust (.*)$", PAGE, re.M)
    assert [command.split()[0] for command in commands] == [
        "run",
        "run",
        "report",
        "audit",
    ]
    for command in commands:
        shorter = {"run": ["-s", "rounds=2"], "audit": ["--samples", "30"]}
        words = shlex.split(command)
        done = CliRunner().invoke(app, [*words, *shorter.get(words[0], [])])
        assert done.exit_code == 0, done.output
    assert (tmp_path / "runs" / "demo" / "report" / "index.html").is_file()
    assert (tmp_path / "runs" / "compared" / "index.html").is_file()
    assert (tmp_path / "runs" / "demo-audit" / "audit.json").is_file()
