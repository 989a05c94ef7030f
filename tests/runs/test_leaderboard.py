"""Results of a leaderboard come from finished runs of its protocol, and are never written over."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from cells_here import in_this_process
from leaderboards import protocol
from typer.testing import CliRunner

from fedrobust.cli import app
from fedrobust.errors import ConfigError, RecordError
from fedrobust.records.leaderboard import results_in, sealed
from fedrobust.report import write_report
from fedrobust.runs.grid import load_sweep
from fedrobust.runs.leaderboard.check import checked
from fedrobust.runs.leaderboard.entry import write_entry
from fedrobust.runs.leaderboard.protocol import Protocol
from fedrobust.runs.leaderboard.submission import Added, add
from fedrobust.runs.sweep import run_sweep

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a protocol, a sweep of two rules, two attacks and two seeds; its results."""
    here = tmp_path_factory.mktemp("board")
    path = protocol(here / "tiny.yaml")
    with in_this_process():
        assert not run_sweep(load_sweep(path), here / "sweep")
    command = ["leaderboard", "add", str(here / "sweep"), "--by", "a test"]
    command += ["--out", str(here / "board"), "--protocol", str(path)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("8 results added; page: fedrobust report ")
    return here


@pytest.fixture
def here(played: Path, tmp_path: Path) -> Path:
    """A copy, to be changed."""
    return Path(shutil.copytree(played, tmp_path / "copy"))


def added(here: Path, *runs: Path, rule: str | None = None) -> Added:
    return add(runs, here / "board", [Protocol.read(here / "tiny.yaml")], "another", rule)


def refused(here: Path, run: Path, rule: str | None = None) -> str:
    """Why a run is refused; nothing in the leaderboard changes."""
    before = {p: p.read_bytes() for p in (here / "board").rglob("*.json")}
    told = added(here, run, rule=rule)
    assert not told.files
    assert {p: p.read_bytes() for p in (here / "board").rglob("*.json")} == before
    (why,) = told.refused.values()
    return why


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert re.search(old, text)
    path.write_text(re.sub(old, new, text, count=1))


def test_a_result_says_what_the_run_says(played: Path) -> None:
    found = {result.file: result for result in results_in(played / "board")}
    assert len(found) == 8
    result = found["tiny/krum-reversed-1.json"]
    run = played / "sweep" / "cells" / "krum-reversed-1"
    final = json.loads((run / "summary.json").read_text())["test"]["final"]
    assert result.audit.robust == final["audit"]["robust"]
    assert result.audit.claimed == final["audit"]["claimed"]
    assert (result.clean, result.seed, result.submitted_by) == (final["accuracy"], 1, "a test")
    assert result.rule.config["f"] == 2
    assert result.rule.knows_f
    assert (result.attack.label, result.attack.malicious) == ("reversed", 2)
    assert result.protocol.attacks == {"none": "own data", "reversed": "benign updates"}
    assert checked(played / "board", [Protocol.read(played / "tiny.yaml")]) == 8


def test_results_that_are_there_stay_as_they_are(here: Path) -> None:
    told = added(here, here / "sweep")
    assert (told.files, len(told.there), told.refused) == ([], 8, {})
    assert {r.submitted_by for r in results_in(here / "board")} == {"a test"}


def test_a_run_of_another_protocol_is_refused_by_its_keys(here: Path) -> None:
    run = here / "sweep" / "cells" / "krum-reversed-0"
    edited(run / "config.yaml", "batch_size: 16", "batch_size: 17")
    why = refused(here, run)
    assert why == "it is no run of the protocol tiny: client.batch_size is 17, there 16"
    edited(run / "config.yaml", "batch_size: 17", "batch_size: 16")
    edited(run / "config.yaml", r"epsilon: 10\.0", "epsilon: 0.1")
    why = refused(here, run)
    assert why == "it is no run of the protocol tiny: attack.epsilon is 0.1, there 10.0"


def test_an_unfinished_run_is_refused(here: Path) -> None:
    run = here / "sweep" / "cells" / "mean-none-0"
    (run / "summary.json").unlink()
    assert refused(here, run) == "it is not finished: go on with --resume"
    shutil.rmtree(run)  # not begun
    told = added(here, here / "sweep")
    assert told.refused == {str(run): "it is not finished: go on with --resume"}
    assert len(told.there) == 7


def test_runs_that_are_refused_alike_are_told_of_in_one_line(here: Path) -> None:
    for cell in ("mean-none-0", "mean-none-1", "krum-none-1"):
        (here / "sweep" / "cells" / cell / "summary.json").unlink()
    edited(here / "sweep" / "cells" / "krum-reversed-0" / "config.yaml", "rounds: 2", "rounds: 3")
    command = ["leaderboard", "add", str(here / "sweep"), "--by", "another"]
    command += ["--out", str(here / "board"), "--protocol", str(here / "tiny.yaml")]
    done = CliRunner().invoke(app, command)
    told = [line for line in done.stderr.splitlines() if line.startswith("refused: ")]
    assert done.exit_code == 1
    assert len(told) == 2
    assert "mean-none-0 and 2 more: it is not finished" in told[0]
    assert "krum-reversed-0: it is no run of the protocol tiny: rounds is 3" in told[1]
    assert "0 results added, 4 were there" in done.stdout


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"validation.final.accuracy": 0.99}, "not that of metrics.jsonl"),
        ({"test.final.round": 1}, "it is not of the 2 rounds of config.yaml"),
        ({"name": "another"}, "it is of the run another, and config.yaml of leaderboard-tiny"),
        ({"malicious": []}, "it has 0 malicious clients, and config.yaml 2"),
        ({"malicious": [97, 98]}, "its malicious clients are not those of rounds.jsonl"),
        ({"threat": None}, "it is of a run with an attack, or config.yaml is"),
        ({"test.final.accuracy": 0.975}, "its chosen and its last model are one"),
        ({"audit.claimed": 1.0}, "is not what plain PGD leaves"),
        ({"audit.robust": 1.0}, "more standing than one of its attacks alone"),
        ({"audit.examples": 41}, "41 examples were audited, and 40 tested"),
        ({"audit.examples": 20}, "audit.examples is 20, there 10"),
        ({"audit.under": {}, "audit.claimed": 0.95, "audit.robust": 0.95}, "claimed is 0.95"),
        ({"audit.under": {}, "audit.claimed": 0.1, "audit.robust": 1.0}, "plain PGD alone"),
    ],
)
def test_a_summary_that_was_edited_is_refused(
    here: Path, changes: dict[str, object], told: str
) -> None:
    run = here / "sweep" / "cells" / "mean-reversed-0"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["best_round"] == 2, "one model, so that its two audits are edited alike"
    test = summary["test"]
    for key, value in changes.items():
        for content in (test["best"], test["final"]) if key.startswith("audit") else (summary,):
            put(content, key, value)
    (run / "summary.json").write_text(json.dumps(summary))
    assert told in refused(here, run)


def put(content: dict[str, Any], key: str, value: object) -> None:
    *above, last = key.split(".")
    for step in above:
        content = content[step]
    content[last] = value


def test_a_run_under_the_config_of_another_is_refused(here: Path) -> None:
    cells = here / "sweep" / "cells"
    shutil.copy(cells / "mean-reversed-0" / "config.yaml", cells / "mean-none-0" / "config.yaml")
    shutil.rmtree(here / "board")
    told = added(here, cells / "mean-none-0")
    assert not told.files
    (why,) = told.refused.values()
    assert "it is of the run leaderboard-tiny-mean-none-0" in why
    assert not (here / "board" / "leaderboard.json").exists()


def test_a_folder_that_is_no_leaderboard_is_left_alone(here: Path) -> None:
    run = here / "sweep" / "cells" / "mean-none-0"
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    with pytest.raises(RecordError, match=r"is no leaderboard, since it has no leaderboard\.json"):
        add([run], run, [Protocol.read(here / "tiny.yaml")], "another")
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_the_same_rule_attack_and_seed_is_not_added_twice(here: Path) -> None:
    run = here / "sweep" / "cells" / "krum-none-0"
    edited(run / "config.yaml", "name: leaderboard-tiny-krum-none-0", "name: again")
    edited(run / "summary.json", "leaderboard-tiny-krum-none-0", "again")
    assert "tiny/krum-none-0.json is the same rule, attack and seed" in refused(here, run, "krum")
    assert "tiny/krum-none-0.json is the same rule" in refused(here, run, "better-krum")
    edited(run / "config.yaml", "f: 2", "f: 1")
    assert "calls another rule krum" in refused(here, run, "krum")
    assert added(here, run, rule="krum-1").files == ["tiny/krum-1-none-0.json"]


def test_another_name_for_a_rule_that_is_there_is_refused_and_not_ignored(here: Path) -> None:
    run = here / "sweep" / "cells" / "krum-none-0"
    assert refused(here, run, "other") == (
        "it is there already as tiny/krum-none-0.json, and its rule keeps the name krum: leave out "
        "--rule"
    )
    assert added(here, run, rule="krum").there == ["tiny/krum-none-0.json"]
    assert added(here, run).there == ["tiny/krum-none-0.json"]


def test_messages_name_the_option_that_helps(here: Path) -> None:
    run = here / "sweep" / "cells" / "krum-none-0"
    (here / "board" / "tiny" / "krum-none-0.json").unlink()
    assert refused(here, run, "another-name").endswith("with --rule krum")
    edited(run / "config.yaml", "f: 2", "f: 1")
    assert refused(here, run, "krum").endswith("give this rule a name of its own with --rule")
    for wrong in ("two words", "-x", "", "x" * 61):
        with pytest.raises(ConfigError, match=r"give another one with --rule"):
            added(here, run, rule=wrong)
    for by in ("", "  ", "x" * 201):
        with pytest.raises(ConfigError, match=r"--by: name who submits, in 1 to 200 characters"):
            add([run], here / "board", [Protocol.read(here / "tiny.yaml")], by)


def test_a_result_that_was_edited_is_noticed(here: Path) -> None:
    path = here / "board" / "tiny" / "mean-none-0.json"
    edited(path, '"clean": [0-9.]+', '"clean": 0.987')
    for use in (lambda: results_in(here / "board"), lambda: write_report([here / "board"])):
        with pytest.raises(RecordError, match=r"mean-none-0\.json is broken: it was edited"):
            use()
    command = ["leaderboard", "check", str(here / "board"), "--protocol", str(here / "tiny.yaml")]
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, "it was edited" in done.output) == (2, True)


def test_a_result_of_another_version_of_the_protocol_is_noticed(here: Path) -> None:
    edited(here / "tiny.yaml", "rounds: 2", "rounds: 3")
    with pytest.raises(RecordError, match="another version of the protocol: rounds is 2, there 3"):
        checked(here / "board", [Protocol.read(here / "tiny.yaml")])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("rounds", 1), "rounds is 1, there 2"),
        (("protocol.data", "cifar10"), "data is cifar10, there"),
        (("protocol.settings", {"rounds": 1}), "settings.name|settings.rounds is 1"),
        (("audit.budget", "none at all"), "audit.budget is none at all, there quick"),
        (("audit.examples", 7), "audit.examples is 7, there"),
        (("clean", 0.9876), "clean is 0.9876, which is no whole number of 40 examples"),
        (("audit.high", 1.0), "the interval of robust is not that of so many examples"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_result_that_cannot_be_of_the_protocol_is_noticed(
    change: tuple[str, Any], told: str, here: Path
) -> None:
    """Its digest is right: whoever edits a result can make that too."""
    path = here / "board" / "tiny" / "mean-reversed-0.json"
    content = json.loads(path.read_text())
    *above, last = change[0].split(".")
    (content[above[0]] if above else content)[last] = change[1]
    path.write_text(json.dumps(sealed(content)))
    with pytest.raises(RecordError, match=told):
        checked(here / "board", [Protocol.read(here / "tiny.yaml")])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"malicious": 1}, "malicious is 1, there 2"),
        ({"threat": {"benign": True}}, "threat.colluders is left out"),
    ],
)
def test_a_result_whose_attack_is_not_the_protocols_is_noticed(
    change: dict[str, Any], told: str, here: Path
) -> None:
    path = here / "board" / "tiny" / "mean-reversed-0.json"
    content = json.loads(path.read_text())
    content["attack"] |= change
    path.write_text(json.dumps(sealed(content)))
    with pytest.raises(RecordError, match=f"attack reversed: {told}"):
        checked(here / "board", [Protocol.read(here / "tiny.yaml")])


def test_the_page_ranks_and_lists_apart_what_is_incomplete(here: Path) -> None:
    for path in (here / "board" / "tiny").glob("krum-reversed-*.json"):
        path.unlink()
    html = write_report([here / "board"]).read_text()
    ranked, apart = html.split("Without a rank", 1)
    assert "<b>mean</b>" in ranked
    assert "<b>krum</b>" in apart.split("</details>")[0]
    assert "not played yet: reversed" in apart
    assert "<script" not in html
    for chosen in ("data-0", "knows-2"):
        assert f'id="{chosen}" checked' in html
    for hidden in ("f", "root"):
        assert f'id="needs-{hidden}" checked' in html
        assert f"main:has(#needs-{hidden}:not(:checked)) .needs-{hidden}" in html
    assert '<details class="rule needs-f">' in apart
    assert '<details class="rule">' in ranked
    rows = json.loads((here / "board" / "report" / "table.json").read_text())["rows"]
    under = [r for r in results_in(here / "board") if r.rule.label == "mean"]
    found = [(r["rule"], r["rank"], r["seeds"], r["missing"]) for r in rows]
    assert found == [("mean", 1, [0, 1], []), ("krum", None, [], ["reversed"])]
    assert rows[0]["worst"] == min(rows[0]["under"], key=lambda line: line["robust"])
    for line in rows[0]["under"]:
        of = [r for r in under if r.attack.label == line["attack"]]
        assert line["robust"] == next(r.audit.robust for r in of if r.seed == 0)
        assert line["claimed"] == next(r.audit.claimed for r in of if r.seed == 0)
        assert line["low"] <= line["robust"] <= line["high"]


OWN = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Halved:
    share: float = 0.5

    def __call__(self, updates):
        return self.share * updates.mean(dim=0)
"""


def test_a_rule_of_ones_own_is_one_config_one_sweep_and_results(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "halving.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(here))
    rule = "aggregator={name: 'halving:Halved', share: 0.25}"
    assert write_entry(here / "halved.yaml", here / "tiny.yaml", [rule]) == 2
    with pytest.raises(ConfigError, match="exists"):
        write_entry(here / "halved.yaml", here / "tiny.yaml", [rule])
    with in_this_process():
        assert not run_sweep(load_sweep(here / "halved.yaml"), here / "own")
    told = added(here, here / "own")
    assert told.files == ["tiny/halved-none-0.json", "tiny/halved-reversed-0.json"], told
    html = write_report([here / "board"]).read_text()
    assert "(code of its author)" in html
    assert "It is told nothing." in html
