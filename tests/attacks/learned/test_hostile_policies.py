"""Policies that somebody made, or another version: a message with the file's name and a cure."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from damaged import ODD, put
from modest import modestly
from ring import experiment, known_after, learned
from safetensors import safe_open
from safetensors.torch import save_file

from fedrobust.attacks.learned.policy_files import _digest, load_policy
from fedrobust.errors import ConfigError
from fedrobust.runs.learn_policy import learn_policy

TRAINED = {"observe": 0, "inversion": None, "training": {"algorithm": "constant", "steps": 30}}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "policy.safetensors"
    learn_policy(experiment(**learned(**TRAINED)), path)
    return path


Tensors = dict[str, torch.Tensor]


def forged(
    policy: Path, path: Path, change: Callable[[Any, Tensors], Any], seals: bool = True
) -> None:
    """The policy with other content, sealed as one of ours: anybody can do that."""
    with safe_open(policy, framework="pt") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    about = json.loads(metadata["about"])
    told = change(about, tensors)
    text = told if isinstance(told, str) else json.dumps(about)
    metadata |= {"about": text, "seal": _digest(text, tensors)}
    if not seals:
        del metadata["seal"]
    save_file(tensors, path, metadata)


def refused(path: Path) -> str:
    """What is said when the policy is read, and when a config names it."""
    with modestly(), pytest.raises(ConfigError) as error:
        load_policy(path)
    with modestly(), pytest.raises(ConfigError) as other:
        experiment(**learned(**TRAINED, policy=str(path)))
    said = str(error.value)
    assert str(path) in said
    assert str(path) in str(other.value)
    assert len(said) < 1000
    return said


ABOUT: dict[str, tuple[Callable[[Any, Tensors], Any], str]] = {
    "none": (lambda a, t: "", "Expecting value"),
    "no JSON": (lambda a, t: "{", "Expecting"),
    "a list": (lambda a, t: "[]", "dictionary|instance"),
    "100,000 levels": (lambda a, t: "[" * 100_000 + "]" * 100_000, "nested too deep"),
    "NaN": (lambda a, t: '{"gamma": NaN}', "NaN is no JSON"),
    "no attack": (lambda a, t: a.pop("attack"), "attack: Field required"),
    "an attack without its encoding": (lambda a, t: a["attack"].pop("encoding"), "has no encoding"),
    "an attack that is a name": (lambda a, t: a.update(attack="learned"), "attack: "),
    "no threat": (lambda a, t: a.pop("threat"), "threat: Field required"),
    "a threat without data": (lambda a, t: a["threat"].pop("data"), "threat.data: "),
    "a rule that is a text": (lambda a, t: a["threat"].update(rule="yes"), "threat.rule: "),
    "no parameters": (lambda a, t: a.pop("parameters"), "parameters: "),
    "half a parameter": (lambda a, t: a.update(parameters=1.5), "parameters: "),
    "no report": (lambda a, t: a.pop("report"), "report: "),
    "no value": (lambda a, t: a["report"].pop("value"), "report.value: "),
    "no gamma": (lambda a, t: a.pop("gamma"), "gamma: "),
    "a rule of texts": (lambda a, t: a.update(rule={"clients": 3, "answers": ["x"]}), "answers"),
}


@pytest.mark.slow
@pytest.mark.parametrize("seals", [True, False])
@pytest.mark.parametrize("kind", ABOUT)
def test_a_policy_about_nothing(policy: Path, tmp_path: Path, kind: str, seals: bool) -> None:
    change, message = ABOUT[kind]
    path = tmp_path / "forged.safetensors"
    forged(policy, path, change, seals)
    said = refused(path)
    assert said.startswith(f"{path} cannot be read as a policy: ")
    assert message.split("|")[0] in said or message.split("|")[-1] in said
    assert said.endswith("; train it again, with fedrobust attack learn, or restore it")


def put_in(name: str, value: torch.Tensor | None) -> Callable[[Any, Tensors], None]:
    def change(about: Any, tensors: Tensors) -> None:
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value

    return change


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        put_in("mean", None),
        put_in("0.weight", None),
        put_in("0.weight", torch.tensor(1.0)),
        put_in("0.weight", torch.zeros(1, 0)),
        put_in("0.bias", torch.zeros(7, 1)),
        put_in("deviation", torch.zeros(1)),
        put_in("mean", torch.zeros(1, 1)),
        put_in("more", torch.zeros(1)),
        put_in("1.weight", torch.zeros(3, 3)),
        lambda a, t: t.update(mean=t["mean"].fill_(float("nan"))),
        lambda a, t: t.update(deviation=t["deviation"].zero_()),
        lambda a, t: t.update({"0.weight": t["0.weight"].long()}),
        lambda a, t: t.update({"0.weight": t["0.weight"].to(torch.complex64)}),
        lambda a, t: t.update({"0.bias": t["0.bias"] * float("inf")}),
    ],
)
def test_tensors_that_are_no_policy(
    policy: Path, tmp_path: Path, change: Callable[[Any, Tensors], Any]
) -> None:
    path = tmp_path / "forged.safetensors"
    forged(policy, path, lambda about, tensors: change(about, tensors) and None)
    with modestly(), pytest.raises(ConfigError, match="cannot be read as a policy") as error:
        load_policy(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("format", "message"),
    [
        (
            "fedrobust policy 3",
            "is of format 3, which this version of fedrobust does not know; update",
        ),
        ("fedrobust policy 1", "holds no policy"),
        ("fedrobust policy " + "9" * 5000, "holds no policy"),
        ("fedrobust policy ²", "holds no policy"),
        ("pt", "holds no policy"),
        (None, "holds no policy"),
    ],
)
def test_a_policy_of_another_format(tmp_path: Path, format: str | None, message: str) -> None:
    path = tmp_path / "p.safetensors"
    save_file({"mean": torch.zeros(1)}, path, None if format is None else {"format": format})
    assert message in refused(path)


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_file_is_no_policy(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "p.safetensors"
    put(kind, path)
    with modestly(), pytest.raises(ConfigError, match=ODD[kind]):
        load_policy(path)
    with modestly(), pytest.raises(ConfigError, match=r"p\.safetensors"):
        experiment(**learned(**TRAINED, policy=str(path)))


@pytest.mark.slow
def test_a_policy_that_is_sound_acts(policy: Path, tmp_path: Path) -> None:
    """Also one of an earlier version, which has no seal."""
    path = tmp_path / "older.safetensors"
    forged(policy, path, lambda about, tensors: None, seals=False)
    for file in (policy, path):
        known, _ = known_after(2, **learned(**TRAINED, policy=str(file)))
        assert known.troubles == []
        assert known.policy is not None


@pytest.mark.slow
def test_a_policy_that_names_code_runs_none(policy: Path, tmp_path: Path) -> None:
    """At each place of what it says of its training."""
    mark = tmp_path / "MARK"
    code = {"name": "os:mkdir", "path": str(mark)}

    def change(about: Any, tensors: Tensors) -> None:
        about["attack"] |= dict.fromkeys(("encoding", "ascent", "inversion", "training"), code)
        about |= {"rule": code | {"clients": 10, "answers": [0.0]}}

    forged(policy, tmp_path / "policy.safetensors", change)
    _, about = load_policy(tmp_path / "policy.safetensors")
    assert about["attack"]["encoding"] == code
    known, _ = known_after(2, **learned(**TRAINED, policy=str(tmp_path / "policy.safetensors")))
    assert known.report()["troubles"]
    assert not mark.exists()
