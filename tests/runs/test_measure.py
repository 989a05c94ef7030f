"""Which round is chosen, and whose test examples a client's score is of."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fedrobust import Dataset, run
from fedrobust.compute.randomness import Streams
from fedrobust.data import Digits, Split
from fedrobust.errors import ConfigError
from fedrobust.evaluation import robust_accuracy
from fedrobust.experiment import Experiment
from fedrobust.federation.attack import Requirements, Truth
from fedrobust.federation.threat import View
from fedrobust.perturb import Pgd
from fedrobust.report import write_report
from fedrobust.runs.examples import Examples
from fedrobust.runs.measure import on_test
from fedrobust.runs.prepare import prepare
from fedrobust.runs.summary import best_of
from fedrobust.runs.weights import Weights


def test_robust_accuracy_chooses_then_accuracy_then_the_earlier() -> None:
    scores = [(1, 0.9, 0.3), (2, 0.7, 0.5), (3, 0.8, 0.5), (4, 0.8, 0.5), (5, 0.99, 0.4)]
    metrics = [{"round": r, "accuracy": a, "robust_accuracy": b} for r, a, b in scores]
    assert best_of(metrics)["round"] == 3


class AlwaysThree(nn.Module):
    """Answers 3 whatever it sees: robust, and right on the threes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.eye(10)[3])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.0 * x.flatten(1).sum(dim=1, keepdim=True) + self.bias


class Counting:
    """An attack that reports the sizes of what it is compared with."""

    requires = Requirements(uses_honest_updates=True)

    def craft(self, state: Any, view: View, rng: torch.Generator) -> Any:
        return -view.own, 0

    def report(self, state: Any, truth: Truth) -> dict[str, Any]:
        both = torch.cat([truth.own.x, truth.others.x]).flatten(1)
        sizes = {"own": len(truth.own), "others": len(truth.others)}
        return sizes | {"different": len(torch.unique(both, dim=0))}


@pytest.mark.parametrize("known", [0, 2])
def test_an_attack_is_compared_with_data_that_it_does_not_have(
    tiny: Callable[..., Experiment], known: int
) -> None:
    """Neither with those of its own two clients of eleven, nor with those that it is granted."""
    experiment = tiny(attack=Counting(), malicious=2, threat={"data": known}, rounds=1)
    clients = prepare(experiment).federation.local.clients
    found = run(experiment).summary["attack"]
    each = len(clients[0])
    assert (found["own"], found["others"]) == (2 * each, (9 - known) * each)
    assert found["different"] == (11 - known) * each


@pytest.mark.parametrize("samples", [None, 90])
def test_each_client_is_scored_on_its_own_test_examples(
    tiny: Callable[..., Experiment], samples: int | None
) -> None:
    attack = {"name": "pgd", "eps": 0.1, "step_size": 0.1, "steps": 1}
    evaluation = {"attack": attack, "samples": 100, "test_samples": samples}
    ready = prepare(tiny(model=AlwaysThree(), evaluation=evaluation))
    scores = on_test(ready, Weights(ready.start), 1)
    read = set(ready.test.tolist())
    assert scores["examples"] == (samples or 360)
    counted = 0
    for client, part in enumerate(ready.partition.test):
        mine = [i for i in part.tolist() if i in read]
        threes = sum(int(ready.dataset.test.y[i]) == 3 for i in mine)
        counted += len(mine)
        assert scores["per_client"]["examples"][str(client)] == len(mine)
        assert scores["per_client"]["accuracy"][str(client)] == pytest.approx(threes / len(mine))
    assert scores["clients"]["examples"] == counted


@pytest.mark.usefixtures("quick_pages")
@pytest.mark.parametrize("clients", [3, None])
def test_the_page_has_the_score_over_the_clients_own_test_examples(
    tmp_path: Path, tiny: Callable[..., Experiment], clients: int | None
) -> None:
    """FAT's Table 2 averages over clients. It is said where others hold test examples too."""
    digits = Digits(validation=300).load()
    splits = [
        Split(part.x, part.y, torch.arange(len(part)) % 5) for part in (digits.train, digits.test)
    ]
    data = Dataset("written", *splits, classes=10, validation=300)
    partition = {"name": "by-writer"} | ({"clients": clients} if clients else {})
    changes = {"partition": partition, "aggregator": {"name": "mean"}, "rounds": 1}
    result = run(tiny(data=data, malicious=0, attack=None, **changes), tmp_path / "run")
    found = result.summary.test.best.clients
    page = " ".join(write_report([tmp_path / "run"]).read_text().replace("\u202f", " ").split())
    said = f"On the {found.examples} test examples of those who are clients, the model is"
    assert (said in page) == (clients is not None)
    assert f"{100 * found.accuracy:.1f} % accurate" in page


@pytest.mark.slow
@pytest.mark.usefixtures("quick_pages")
def test_further_attacks_are_measured_alone_on_the_same_test_examples(
    tmp_path: Path, tiny: Callable[..., Experiment]
) -> None:
    # 37 is prime, so no share of 37 examples is one of 90, apart from 0 and 1.
    weak = {"name": "pgd", "eps": 0.01, "step_size": 0.01, "steps": 1, "random_start": False}
    strong = {"name": "pgd", "eps": 0.2, "step_size": 0.05, "steps": 8, "random_start": False}
    evaluation = {"attack": weak, "samples": 100, "test_samples": 90}
    further = {"test_attacks": {"far": strong}, "test_attack_samples": 37}
    experiment = tiny(rounds=8, evaluation=evaluation | further)
    played = run(experiment, tmp_path / "run")
    ready, scores = prepare(experiment), played.summary["test"]["final"]
    some = {count: ready.testing.some(count, ready.streams).index for count in (37, 90)}
    under = scores["under"]["robust_accuracy"]
    assert scores["under"]["examples"] == 37
    assert list(under) == ["evaluation.attack", "far"]
    for attack, count, found in (
        (weak, 90, scores["robust_accuracy"]),
        (weak, 37, under["evaluation.attack"]),
        (strong, 37, under["far"]),
    ):
        x, y = ready.dataset.test.images(some[count]), ready.dataset.test.y[some[count]]
        assert found == robust_accuracy(played.model, x, y, attack=Pgd(**attack))
    assert under["far"] < under["evaluation.attack"] != scores["robust_accuracy"]
    assert len(repr(played)) < 200
    assert "8 rounds" in repr(played)
    assert len(repr(ready.dataset)) < 200
    page = " ".join(write_report([tmp_path / "run"]).read_text().split())
    told = f"Under far, last model, 37 test examples</dt><dd>{100 * under['far']:.1f} %<"
    assert told in page
    plain = run(tiny(rounds=8, evaluation=evaluation)).summary.test.final
    assert plain.under is None
    assert plain == replace(scores, under=None)


def test_a_part_of_the_examples_is_a_fair_one(tiny: Callable[..., Experiment]) -> None:
    """Drawn from all of them and the same each time; a smaller part lies in a larger one."""
    ready = prepare(tiny())
    whole, seen = ready.testing, torch.zeros(len(ready.testing.index))
    few, more = (whole.some(count, ready.streams).index for count in (60, 120))
    assert torch.equal(few, whole.some(60, ready.streams).index)
    assert set(few.tolist()) < set(more.tolist()) < set(whole.index.tolist())
    assert torch.equal(few, few.sort().values)
    assert torch.equal(whole.some(None, ready.streams).index, whole.index)
    for seed in range(200):
        seen[whole.some(60, Streams(seed)).index] += 1
    shares = (
        seen / 200
    )  # each of 360 is one of 60 in a sixth of all draws, with a deviation of .026
    assert (shares - 1 / 6).abs().max() < 0.13
    owned = Examples(whole.split, whole.index, whole.index % 3)
    part = owned.some(60, ready.streams)
    assert torch.equal(part.owner, part.index % 3)


class Failing:
    name = "failing"

    def draw(self, x: torch.Tensor, generator: torch.Generator) -> None:
        return None

    def maximize(self, *words: Any, **keys: Any) -> torch.Tensor:
        raise RuntimeError("out of luck")


def test_a_further_attack_that_fails_is_named_before_the_first_round(
    tiny: Callable[..., Experiment],
) -> None:
    attack = {"name": "pgd", "eps": 0.1, "step_size": 0.1, "steps": 1}
    evaluation = {"attack": attack, "test_attacks": {"mine": Failing()}}
    with pytest.raises(ConfigError, match=r"evaluation.test_attacks.mine fails .* out of luck"):
        prepare(tiny(evaluation=evaluation))
    for name in ("a/b", "evaluation.attack"):
        with pytest.raises(ValueError, match="test_attacks"):
            tiny(evaluation={"attack": attack, "test_attacks": {name: attack}})
