"""`fedrobust init`: every choice gives a config that plays, or one message that says why not."""

import json
import re
import shlex
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from fedrobust.aggregators import AGGREGATORS
from fedrobust.attacks import ATTACKS
from fedrobust.cli import app
from fedrobust.cli.starter import SETTINGS, Choices, starter
from fedrobust.config.component import to_config
from fedrobust.config.kind import name_of
from fedrobust.experiment import load
from fedrobust.federation.attack import requirements
from fedrobust.objectives import OBJECTIVES


def invoke(*arguments: object, asked: str | None = None) -> Result:
    words = [str(a) for a in arguments]
    return CliRunner().invoke(app, words, input=asked, catch_exceptions=False)


EVERY = [
    (kind, name_of(member))
    for kind, members in (
        ("aggregator", AGGREGATORS),
        ("attack", ATTACKS),
        ("objective", OBJECTIVES),
    )
    for member in members
]


@pytest.mark.slow
@pytest.mark.parametrize("data", SETTINGS)
def test_every_choice_is_a_config_that_fits(data: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    for kind, name in EVERY:
        # 30 clients: all subsets of rows are tried by one rule, and buckets of two are enough.
        choices = Choices("x", data=data, clients=30, malicious=3, **{kind: name})
        path.write_text(starter(choices)[1])
        found = to_config(load(path))
        assert found[kind]["name"] == name
        assert found["partition"]["clients"] == 30
        assert found["malicious"] == 3
        plain = name == "learned"  # its simulation is of plain steps
        assert found["client"]["optimizer"]["name"] == ("sgd" if plain else "adam")
        assert found["client"]["keep_optimizer"] is not plain
        for rule in (found["aggregator"], found["aggregator"].get("rule", {})):
            assert rule.get("f", 3) == 3


@pytest.mark.parametrize("data", SETTINGS)
def test_the_comments_on_evaluations_say_what_the_config_does(data: str, tmp_path: Path) -> None:
    """Of `every: 1000` one could think that it counts rounds, more than there are."""
    path = tmp_path / "x.yaml"
    path.write_text(starter(Choices("x", data=data))[1])
    text = " ".join(path.read_text().split()).replace("# ", "")
    evaluation, rounds = load(path).evaluation, load(path).rounds
    assert f"Every {evaluation.every} rounds the model is evaluated on" in text
    assert f"on {evaluation.samples} held-out examples" in text
    assert "The `every` of an audit counts evaluations, not rounds." in text
    assert evaluation.audit is not None
    assert f"A run of fewer than {evaluation.audit.every} evaluations" in text
    assert rounds / evaluation.every < evaluation.audit.every
    assert all(len(line) <= 100 for line in path.read_text().splitlines() if "#" in line[:4])


@pytest.mark.long
def test_it_plays_what_it_writes(tmp_path: Path) -> None:
    path, out = tmp_path / "mine.yaml", tmp_path / "run"
    assert invoke("init", path, "--attack", "min-max", "--aggregator", "krum").exit_code == 0
    text = path.read_text()
    assert text.count("#") >= 8, "it is commented"
    done = invoke("run", path, "--out", out, "-s", "rounds=2", "--json", "--no-report")
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert told["summary"]["name"] == "mine"
    assert told["summary"]["test"]["final"]["audit"]["verdict"]
    assert told["page"] is None
    assert not (out / "report").exists()


def test_what_an_attack_must_know_is_granted(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    assert invoke("init", path, "--attack", "mimic").exit_code == 0
    assert YAML(typ="safe").load(path)["threat"] == {"benign": True}
    assert invoke("init", tmp_path / "y.yaml", "--attack", "none").exit_code == 0
    honest = YAML(typ="safe").load(tmp_path / "y.yaml")
    assert honest["malicious"] == 0
    assert "attack" not in honest


def test_it_asks_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedrobust.cli.init.terminal", lambda: True)
    path = tmp_path / "asked.yaml"
    done = invoke("init", path, asked="mnist\nmany\n20\nsign-flop\nsign-flip\n4\nkrum\nerm\n7\n")
    assert done.exit_code == 0
    assert "Clients [51]" in done.stdout
    assert "write a whole number from 1 on" in done.output
    assert "did you mean 'sign-flip'?" in done.output
    found = load(path)
    assert (name_of(type(found.data)), found.malicious, found.rounds) == ("mnist", 4, 7)
    assert (name_of(type(found.attack)), name_of(type(found.aggregator))) == ("sign-flip", "krum")


def test_answers_that_do_not_fit_are_asked_for_again_and_none_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedrobust.cli.init.terminal", lambda: True)
    path = tmp_path / "asked.yaml"
    first, again = "digits\n12\nsign-flip\n4\nbulyan\nerm\n7\n", "\n\n\n2\n\n\n\n"
    done = invoke("init", path, asked=first + again)
    assert done.exit_code == 0
    assert "error: Bulyan needs n >= 4f + 3: n = 12, f = 4 needs 19" in done.stdout
    assert "Clients [12]" in done.stdout
    found = load(path)
    assert (found.partition.clients, found.malicious, found.rounds) == (12, 2, 7)
    assert (name_of(type(found.attack)), name_of(type(found.objective))) == ("sign-flip", "erm")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "mnis"], "did you mean 'mnist'?"),
        (["--aggregator", "krumm"], "did you mean 'krum'?"),
        (["--attack", "non"], "did you mean 'none'?"),
        (["--malicious", "9"], "9 of 11 clients are malicious: no rule tolerates half of"),
        (
            ["--malicious", "9", "--aggregator", "bulyan"],
            "Bulyan needs n >= 4f + 3: n = 11, f = 9 needs 39",
        ),
        (["--attack", "none", "--malicious", "2"], "need an attack"),
        (["--aggregator", "bulyan", "--clients", "5"], "Bulyan needs n >= 4f + 3: n = 5, f = 1"),
        (["--attack", "a-little-is-enough", "--clients", "4"], "needs 2 malicious clients"),
        (["--attack", "a-little-is-enough", "--malicious", "1"], "needs 2 malicious clients"),
    ],
)
def test_what_does_not_fit_writes_nothing(options: list[str], message: str, tmp_path: Path) -> None:
    done = invoke("init", tmp_path / "x.yaml", *options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_as_many_attack_by_default_as_the_rule_takes(tmp_path: Path) -> None:
    """Ten clients: Bulyan needs 4f + 3, so one attacks, whose attack needs no colluder."""
    path = tmp_path / "x.yaml"
    assert invoke("init", path, "--clients", 10, "--attack", "sign-flip").exit_code == 0
    assert load(path).malicious == 1
    assert invoke("init", tmp_path / "z.yaml", "--aggregator", "krum").exit_code == 0
    assert load(tmp_path / "z.yaml").malicious == 2


@pytest.mark.parametrize(
    ("options", "malicious", "attack", "rule"),
    [
        ("", 2, "a-little-is-enough", "bulyan"),
        ("--malicious 1", 1, "sign-flip", "bulyan"),  # a deviation takes two rows
        ("--malicious 4", 4, "a-little-is-enough", "krum"),  # Bulyan takes two at most
        ("--malicious 0", 0, None, "bulyan"),
        ("--clients 2", 0, None, "median"),
        ("--clients 3", 1, "sign-flip", "median"),
        ("--clients 5", 1, "sign-flip", "krum"),
        ("--aggregator bucketing", 1, "sign-flip", "bucketing"),  # six rows are left: 2f + 3
        ("--attack local-model-poisoning", 3, "local-model-poisoning", "krum"),
    ],
)
def test_what_is_left_out_suits_what_was_said(
    options: str, malicious: int, attack: str | None, rule: str, tmp_path: Path
) -> None:
    done = invoke("init", tmp_path / "x.yaml", "--data", "digits", *options.split())
    assert done.exit_code == 0, done.stderr
    found = load(tmp_path / "x.yaml")
    assert found.malicious == malicious
    assert name_of(type(found.aggregator)) == rule
    assert (name_of(type(found.attack)) if attack else found.attack) == attack
    assert rule in done.stdout
    assert (f"{malicious} malicious ({attack})" if attack else "none malicious") in done.stdout


@pytest.mark.parametrize("rounds", [1, 12, 100, 2000])
@pytest.mark.parametrize("attack", ["delayed", "distillation", "learned"])
def test_an_attack_that_begins_later_acts_in_half_of_the_rounds(
    attack: str, rounds: int, tmp_path: Path
) -> None:
    path = tmp_path / "x.yaml"
    done = invoke("init", path, "--data", "digits", "--attack", attack, "--rounds", rounds)
    assert done.exit_code == 0, done.stderr
    found = load(path).attack
    needs = requirements(found)
    assert rounds + 1 - (needs.latest_start or needs.first_round) >= rounds // 2
    assert attack != "learned" or found.horizon <= max(10, rounds)


@pytest.mark.parametrize("stem", ["1", "no", "my config", "-x", "ünï"])
def test_a_file_may_have_any_name(stem: str, tmp_path: Path) -> None:
    """Its run gets a name that a folder can have; the comment has the command for a shell."""
    path = tmp_path / f"{stem}.yaml"
    done = CliRunner().invoke(app, ["init", "--data", "digits", "--", str(path)])
    assert done.exit_code == 0, done.output
    assert load(path).name
    told = re.search(r"fedrobust run (.*)\n", path.read_text())
    assert told is not None
    assert shlex.split(told[1]) == [str(path)]


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("mine")
    done = invoke("init", path)
    assert done.exit_code == 2
    assert "exists; name another file" in done.stderr
    assert path.read_text() == "mine"
    nowhere = invoke("init", tmp_path / "no" / "folder.yaml")
    assert nowhere.exit_code == 2
    assert "cannot write" in nowhere.stderr
