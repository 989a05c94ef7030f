"""Distillation on the real digits at FAT's numbers: Krum falls for it, the other rules do not."""

from copy import deepcopy
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from demo import demo_config
from torch import nn

from fedrobust.aggregators import Aggregator, Bulyan, Krum, MeanAroundMedian
from fedrobust.attacks import Distillation
from fedrobust.clients.optimizers import Adam
from fedrobust.compute.parameters import write
from fedrobust.config.component import from_config
from fedrobust.evaluation import score
from fedrobust.evaluation.auditing.model_check import Scaled
from fedrobust.experiment import Experiment
from fedrobust.federation.round import run_round
from fedrobust.perturb import Pgd
from fedrobust.runs.prepare import Prepared, prepare

EPS = 0.2
TRAINING: dict[str, Any] = {"name": "pgd", "eps": EPS, "step_size": EPS / 2, "steps": 3}


def prepared(network: nn.Module) -> Prepared:
    """51 clients that train ``network`` for one batch a round, FAT's way."""
    return prepare(
        from_config(
            Experiment,
            demo_config(
                model=network,
                partition={"name": "iid", "clients": 51},
                objective={"name": "adversarial", "ratio": 0.5, "attack": TRAINING},
                client={"batch_size": 16, "batches": 1, "optimizer": Adam(lr=0.005)},
                malicious=0,
                attack=None,
                aggregator={"name": "krum", "f": 24},
                execution={"device": "cpu", "threads": 1, "batch": 512},
            ),
        )
    )


@pytest.fixture(scope="module")
def ready() -> Prepared:
    """A federation whose model adversarial training has made somewhat robust already."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            *(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)),
        ).double()  # so that no processor's rounding decides which row Krum takes
    data, rng = prepared(network).federation.local.data, torch.Generator().manual_seed(0)
    optimizer, attack = torch.optim.Adam(network.parameters(), lr=0.003), Pgd(**TRAINING)
    for _ in range(400):
        index = torch.randperm(len(data), generator=rng)[:128]
        x, y = data.images(index).double(), data.y[index]
        noise = attack.draw(x[:64], rng)
        x[:64] = attack.maximize(network, x[:64], y[:64], lambda noise=noise: noise)
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
    return prepared(network)


class Judged(NamedTuple):
    """Accuracies on 200 held-out digits, and the median lead of the largest logit."""

    clean: float
    plain: float
    rescaled: float
    lead: float


def judged(ready: Prepared, parameters: torch.Tensor) -> Judged:
    """PGD 20 × ε/7 on the model, and the better of two runs of it on rescaled logits."""
    write(ready.model, parameters)
    model = deepcopy(ready.model).float()  # as a claim is made
    x, y = ready.chooses.images(torch.arange(200)), ready.chooses.y[:200]
    with torch.no_grad():
        top = model(x).topk(2).values
    lead = float((top[:, 0] - top[:, 1]).median())
    attack = Pgd(eps=EPS, step_size=EPS / 7, steps=20)
    found = [
        score(
            Scaled(model, factor),
            x,
            y,
            attack=attack,
            generator=torch.Generator().manual_seed(0),
            batch_size=200,
        )
        for factor in (1.0, 1 / lead, 10 / lead)
    ]
    plain, *rescaled = [scores.robust_accuracy for scores in found]
    return Judged(found[0].accuracy, plain, min(rescaled), lead)


def attacked(
    ready: Prepared, rule: Aggregator, malicious: int, rounds: int = 24
) -> tuple[Judged, int]:
    """The model after the attack, and the rounds in which a malicious row was selected."""
    attack = Distillation(epochs=2.0, optimizer=Adam(lr=0.025), shared=True)
    federation = replace(
        ready.federation,
        aggregator=rule,
        attack=attack,
        malicious=frozenset(range(malicious)),
    )
    state, selected = federation.start(ready.start), 0
    for _ in range(rounds):
        state, log = run_round(state, federation, ready.streams)
        selected += bool(set(log.kept or ()) & federation.malicious)
    return judged(ready, state.parameters), selected


@pytest.mark.long
def test_krum_takes_over_a_model_that_only_looks_robust(ready: Prepared) -> None:
    """FAT's Table 3 in the small: accurate, apparently robust, and robust no more."""
    before = judged(ready, ready.start)
    assert before.rescaled > before.plain - 0.05  # nothing is masked
    after, selected = attacked(ready, Krum(f=24), 24)
    assert selected == 24
    assert after.clean > 0.85
    assert after.lead > 20 * before.lead
    assert after.plain > before.plain  # it claims more than the honest model
    assert after.rescaled < 0.6 * before.rescaled
    assert after.rescaled < after.plain - 0.2


@pytest.mark.long
@pytest.mark.parametrize(("rule", "malicious"), [(MeanAroundMedian(f=24), 24), (Bulyan(f=12), 12)])
def test_rules_that_average_about_the_median_do_not_fall_for_it(
    ready: Prepared, rule: Aggregator, malicious: int
) -> None:
    before, (after, _) = judged(ready, ready.start), attacked(ready, rule, malicious)
    assert after.lead < 3 * before.lead
    assert after.plain < after.rescaled + 0.05
    assert after.rescaled > 0.6 * before.rescaled
