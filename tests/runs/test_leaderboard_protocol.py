"""A protocol leaves only the rule free; the committed protocols, results and ranking are sound."""

from pathlib import Path

import pytest
from demo import ROOT
from leaderboards import protocol, written
from ruamel.yaml import YAML
from typer.testing import CliRunner

from fedrobust.cli import app
from fedrobust.config.component import to_config
from fedrobust.errors import ConfigError
from fedrobust.report.leaderboard.page import leaderboard_values
from fedrobust.runs.grid import load_sweep
from fedrobust.runs.leaderboard.check import checked
from fedrobust.runs.leaderboard.entry import write_entry
from fedrobust.runs.leaderboard.protocol import Protocol, _granted


def test_data_of_benign_clients_are_more_than_own_data() -> None:
    threat = {"colluders": False, "benign": False, "rule": False, "data": 3}
    assert _granted({"malicious": 2, "threat": threat}) == "benign updates"
    assert _granted({"malicious": 2, "threat": threat | {"data": 0}}) == "own data"


def test_an_entry_changes_only_the_rule(tmp_path: Path) -> None:
    path = protocol(tmp_path / "tiny.yaml")
    with pytest.raises(ConfigError, match="leaves only the rule free"):
        write_entry(tmp_path / "a.yaml", path, ["aggregator={name: mean}", "rounds=9"])
    with pytest.raises(ConfigError, match="kruum"):
        write_entry(tmp_path / "a.yaml", path, ["aggregator={name: kruum}"])
    with pytest.raises(ConfigError, match=r"-s 'aggregator=\{name: krum, f: 2\}'$"):
        write_entry(tmp_path / "a.yaml", path, ["aggregator=krum"])
    assert not (tmp_path / "a.yaml").exists()
    command = ["leaderboard", "begin", str(tmp_path / "a.yaml"), "--protocol", str(path)]
    command += ["-s", "aggregator={name: median}", "--seed", "1", "--seed", "2"]
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, "a.yaml, 4 cells" in done.output.replace("\n", "")) == (0, True)
    cells = load_sweep(tmp_path / "a.yaml").cells
    assert {cell.experiment.seed for cell in cells} == {1, 2}
    assert Protocol.read(tmp_path / "a.yaml").digest == Protocol.read(path).digest
    assert {Protocol.read(path).place(to_config(c.experiment)) for c in cells} == {
        "none",
        "reversed",
    }


def test_a_sweep_in_which_more_differs_is_no_protocol(tmp_path: Path) -> None:
    path = protocol(tmp_path / "tiny.yaml")
    content = YAML(typ="safe").load(path)
    content["grid"]["rule"]["krum"]["client.batch_size"] = 8
    written(path, content)
    with pytest.raises(ConfigError, match=r"client\.batch_size is 8, there 16"):
        Protocol.read(path)
    content["grid"]["rule"]["krum"].pop("client.batch_size")
    content["evaluation"].pop("audit")
    written(path, content)
    with pytest.raises(ConfigError, match=r"it has no evaluation\.audit"):
        Protocol.read(path)


def test_the_committed_protocols_and_results_are_sound() -> None:
    folder = ROOT / "experiments" / "leaderboard"
    protocols = [Protocol.read(folder / f"{name}.yaml") for name in ("mnist", "fashion-mnist")]
    assert protocols[0].choices == protocols[1].choices
    assert len(protocols[0].attacks) == 7
    assert set(protocols[0].knowledge.values()) == {"own data", "other attackers", "benign updates"}
    checked(ROOT / "results" / "leaderboard", protocols)


def test_the_committed_ranking_is_that_of_the_results() -> None:
    folder = ROOT / "results" / "leaderboard"
    _, files = leaderboard_values(folder)
    for name, content in files.items():
        kept = (folder / "report" / name).read_bytes()
        assert kept == content, "run fedrobust report results/leaderboard"
