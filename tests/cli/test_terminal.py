"""What comes from records is printed, and steers no terminal."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from demo import demo_config
from ruamel.yaml import YAML
from typer.testing import CliRunner

from fedrobust import Experiment, run
from fedrobust.cli import app


@pytest.mark.slow
def test_a_terminal_obeys_no_record(tmp_path: Path, tiny: Callable[..., Experiment]) -> None:
    (tmp_path / "a\x1b]0;title\x07").write_text("")
    config = tmp_path / "config.yaml"
    YAML(typ="safe").dump(demo_config(), config)
    found = CliRunner().invoke(app, ["run", str(config), "--out", str(tmp_path)])
    assert found.exit_code == 2
    assert "\x1b" not in found.output
    run(tiny(rounds=2), tmp_path / "run")
    summary = tmp_path / "run" / "summary.json"
    content = json.loads(summary.read_text())
    summary.write_text(json.dumps(content | {"troubles": ["\x1b[2J\u202ecleared"]}))
    YAML(typ="safe").dump(demo_config(rounds=2), config)
    words = ["run", str(config), "--out", str(tmp_path / "run"), "--resume"]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    assert "\\x1b[2J\\u202ecleared" in found.output
