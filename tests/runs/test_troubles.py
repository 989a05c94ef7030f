"""What a run says of its own figures, and what hostile rows cannot do to it."""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedrobust import run
from fedrobust.aggregators import Aggregation, Context, SmallestMaximumEigenvalueAveraging
from fedrobust.aggregators.aggregator import NoAnswerError
from fedrobust.attacks import Delayed, InnerProduct, LabelFlip, Optimized, Shrink, ZeroUpdate
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.federation.round import run_round
from fedrobust.federation.server import aggregate
from fedrobust.federation.threat import View
from fedrobust.report import ReportRun
from fedrobust.runs.prepare import prepare
from fedrobust.runs.summary import certificate_warnings
from fedrobust.runs.tally import Tally

SENT = dict.fromkeys("01", "the attack sent a tensor [3, 5] in place of rows [2, 5]")
SOUND: dict[str, Any] = {"gamma": 2.0, "rho": 0.04, "curvature": 3.0, "residual": 1e-4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"curvature": 4.6}, r"gamma = 2 is too small .* up to 4.6 > 2·gamma"),
        ({"residual": 0.3}, r"left a residual of 0.3"),
        ({"rho": None}, r"not finite"),
    ],
)
def test_a_doubtful_certificate_is_said(changes: dict[str, Any], message: str) -> None:
    (trouble,) = certificate_warnings(SOUND | changes)
    assert re.search(message, trouble)
    assert certificate_warnings(SOUND) == certificate_warnings(None) == []


def test_one_huge_entry_does_not_end_smea() -> None:
    rows = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows[2, 1] = 9e153
    outcome = aggregate(SmallestMaximumEigenvalueAveraging(1), rows, Context())
    assert outcome.kept is not None
    assert outcome.kept.tolist() == [0, 1, 3, 4, 5, 6]


def test_a_search_goes_on_where_the_rule_has_no_answer(tiny: Callable[..., Experiment]) -> None:
    class Silent:
        def aggregate(self, updates: torch.Tensor, context: Context) -> Aggregation:
            raise NoAnswerError("too many sets nearly win")

    attack = Optimized(attack=InnerProduct(epsilon=1.0), grid=3, refine=0)
    threat = {"benign": True, "rule": True, "clients": True}
    ready = prepare(tiny(attack=attack, threat=threat, aggregator=Silent()))
    _, log = run_round(ready.federation.start(ready.start), ready.federation, ready.streams)
    assert log.outcome.reason == "too many sets nearly win"


def test_a_step_that_overflows_leaves_the_rules_memory_alone(
    tiny: Callable[..., Experiment],
) -> None:
    class Overflowing:
        def aggregate(self, updates: torch.Tensor, context: Context) -> Aggregation:
            return Aggregation(torch.full_like(updates[0], 3e38), memory=torch.ones(1))

    ready = prepare(tiny(aggregator=Overflowing(), server={"lr": 10.0}))
    state = replace(ready.federation.start(ready.start), memory=torch.zeros(1))
    after, log = run_round(state, ready.federation, ready.streams)
    assert log.outcome.vector is None
    assert torch.equal(after.memory, torch.zeros(1))  # type: ignore[call-overload]


def test_labels_that_the_data_do_not_have_are_the_users_mistake(
    tiny: Callable[..., Experiment],
) -> None:
    with pytest.raises(ConfigError, match="labels go from 0 to 9"):
        run(tiny(attack={"name": "label-flip", "source": 11, "target": 0}))


def line(round: int, dropped: list[int], reason: str | None = None) -> dict[str, Any]:
    return {
        "round": round,
        "dropped": dropped,
        "malicious": [],
        "kept": None,
        "applied": reason is None,
        "reason": reason,
    }


def test_refused_rows_and_rounds_without_a_step_are_told_shortly() -> None:
    refused = "not finite, or no dense rows [d] of real numbers"
    assert Tally.of([line(1, []), line(2, [4])]).troubles() == [
        f"rows of client 4 were refused in 1 round, the first 2: they were {refused}"
    ]
    (trouble,) = Tally.of([line(3, [7, 5]), line(4, list(range(3000)))]).troubles()
    assert trouble == (
        "rows of clients 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2990 more were refused in 2 rounds, "
        f"the first 3: they were {refused}"
    )
    assert Tally.of([line(1, []), line(2, [], "1 client took part: too few")]).troubles() == [
        "1 round made no step, the first 2: 1 client took part: too few"
    ]


def test_each_refused_client_has_its_own_reason() -> None:
    rounds = [line(1, [4]), *(line(n, [0, 1, 4]) | {"refused": SENT} for n in (2, 3))]
    own, attacks = Tally.of(rounds).troubles()
    assert own.startswith("rows of client 4 were refused in 3 rounds, the first 1: they were not f")
    assert attacks == f"rows of clients 0, 1 were refused in 2 rounds, the first 2: {SENT['0']}"
    assert Tally.stored(asdict(Tally.of(rounds))) == Tally.of(rounds)
    # What clients elsewhere say may differ each time.
    many = [line(n, [n, 3]) | {"refused": {str(n): f"reason {n}"}} for n in range(10, 5010)]
    *told, others = Tally.of(many).troubles()
    assert len(told) == 8
    assert others.endswith("were refused in 4993 rounds, the first 17: for other reasons")
    long = Tally.of([line(1, [1]) | {"refused": {"1": "x" * 5000}}])
    assert len(str(asdict(long))) < 1000


def test_a_tally_of_an_earlier_version_blames_no_client_for_another() -> None:
    """It kept one reason, whoever the client was."""
    older = {"refused": 2, "first_refused": 1, "refused_clients": [0, 4], "why_refused": "no reply"}
    tally = Tally.stored(older)
    tally.add(line(3, [4]) | {"refused": {"4": "it is asleep"}})
    assert tally.troubles() == [
        "rows of clients 0, 4 were refused in 2 rounds, the first 1: for one of them, no reply",
        "rows of client 4 were refused in 1 round, the first 3: it is asleep",
    ]
    (told,) = Tally.stored(older | {"refused_clients": [4]}).troubles()
    assert told.endswith(": no reply")
    (told,) = Tally.stored(older | {"why_refused": None}).troubles()
    assert told.endswith(": they were not finite, or no dense rows [d] of real numbers")
    with pytest.raises(ValueError, match="refused_clients"):
        Tally.stored(older | {"refused_clients": "all"})


def test_a_round_with_too_few_clients_is_not_blamed_on_refused_rows(
    tiny: Callable[..., Experiment],
) -> None:
    class Few:
        def size(self, clients: int) -> int:
            return clients

        def choose(self, clients: int, generator: torch.Generator) -> tuple[int, ...]:
            return (0, 1, 3)

    result = run(
        tiny(
            objective={"name": "erm"},
            participation=Few(),
            rounds=2,
            malicious=0,
            aggregator={"name": "krum", "f": 2},
        )
    )
    assert result.summary.troubles == (
        "2 rounds made no step, the first 1: 3 clients took part: "
        "Krum needs n >= 2f + 3: n = 3, f = 2 needs 7",
    )


class Observer:
    """Sends what its clients would send anyway."""

    def craft(self, state: Any, view: View, rng: torch.Generator) -> tuple[torch.Tensor, Any]:
        return view.own, state


class InPlace:
    """Writes its rows over the honest ones that it was shown."""

    def craft(self, state: Any, view: View, rng: torch.Generator) -> tuple[torch.Tensor, Any]:
        return view.own.mul_(-1), state


class OneOfTwo:
    """Only the first of its clients sends anything but its honest update."""

    def craft(self, state: Any, view: View, rng: torch.Generator) -> tuple[torch.Tensor, Any]:
        return torch.cat([view.own[:1] + 1.0, view.own[1:]]), state


@pytest.mark.parametrize(
    ("attack", "share"),
    [
        (Observer(), 0.0),
        (InPlace(), 1.0),
        (OneOfTwo(), 1.0),
        (Shrink(scale=0.5), 1.0),
        (Delayed(attack=Shrink(scale=0.5), start=4), 0.25),
        (LabelFlip(source=1, target=7), None),
        (ZeroUpdate(), None),
    ],
)
@pytest.mark.parametrize("colluders", [True, False])
def test_an_attack_that_never_acts_is_told(
    plain: Callable[..., Experiment], attack: Any, share: float | None, colluders: bool
) -> None:
    threat = {"colluders": colluders}
    result = run(plain(rounds=4, malicious=2, attack=attack, threat=threat))
    assert result.summary.attack_acted == share
    told = [text for text in result.summary.troubles if "honest updates" in text]
    assert told == [
        "the attack sent the honest updates in all 4 rounds with malicious clients, so that this "
        "run is one without an attack"
    ] * (share == 0.0)


@dataclass(frozen=True)
class Patient:
    """Reverses its updates from a round on that nobody was told."""

    start: int

    def craft(self, state: Any, view: View, rng: torch.Generator) -> tuple[torch.Tensor, Any]:
        return (view.own if view.round < self.start else -20 * view.own), state


def delayed(start: int) -> Delayed:
    return Delayed(attack=InnerProduct(epsilon=20.0), start=start)


@pytest.mark.parametrize("attack", [delayed, Patient])
@pytest.mark.parametrize(("rounds", "start", "chosen"), [(8, 6, {6, 7, 8}), (4, 6, {1, 2, 3, 4})])
def test_a_model_of_before_the_attack_is_not_chosen(
    plain: Callable[..., Experiment],
    tmp_path: Path,
    attack: Callable[[int], Any],
    rounds: int,
    start: int,
    chosen: set[int],
) -> None:
    """It is the better one, and its scores would stand under the name of the attack."""
    judge = {"name": "pgd", "eps": 0.1, "step_size": 0.05, "steps": 2}
    evaluation = {"every": 1, "samples": 100, "attack": judge}
    setting = {"malicious": 2, "attack": attack(start), "aggregator": {"name": "mean"}}
    experiment = plain(rounds=rounds, evaluation=evaluation, **setting)
    result = run(experiment, tmp_path / "run")
    flagged = [e["round"] for e in result.metrics if e.get("before_attack")]
    assert flagged == list(range(1, min(rounds + 1, start)))
    scores = {e["round"]: (e["robust_accuracy"], e["accuracy"]) for e in result.metrics}
    best = result.summary.best_round
    assert best in chosen
    assert scores[best] == max(scores[round] for round in chosen)
    assert max(scores.values()) > scores[best] or rounds < start
    read = ReportRun.read(tmp_path / "run")
    assert replace(read, summary=None).chosen_round == read.chosen_round == best


def test_a_round_before_any_malicious_client_took_part_is_before_the_attack(
    plain: Callable[..., Experiment],
) -> None:
    """Also for an attack on the data, of whose rows nothing tells whether they are honest."""
    setting: dict[str, Any] = {"malicious": 1, "attack": LabelFlip(), "seed": 2}
    setting |= {"aggregator": {"name": "mean"}, "participation": {"name": "sample", "clients": 1}}
    judge = {"name": "pgd", "eps": 0.1, "step_size": 0.05, "steps": 2}
    evaluation = {"every": 1, "samples": 20, "attack": judge}
    experiment = plain(rounds=6, evaluation=evaluation, **setting)
    ready = prepare(experiment)
    federation = ready.federation
    first = next(
        number
        for number in range(1, 100)
        if federation.malicious & set(federation.chosen(number, ready.streams))
    )
    assert 1 < first < 6, "another seed, please"
    metrics = run(experiment).metrics
    assert [e.get("before_attack", False) for e in metrics] == [r < first for r in range(1, 7)]


class EveryOther:
    """Acts when it is called the first time, the third time, and so on."""

    def __init__(self) -> None:
        self.calls = 0

    def craft(self, state: Any, view: View, rng: torch.Generator) -> tuple[torch.Tensor, Any]:
        self.calls += 1
        return view.own + self.calls % 2, state


@pytest.mark.parametrize(("colluders", "share"), [(True, 0.5), (False, 1.0)])
def test_one_of_two_malicious_clients_acts_for_both(
    plain: Callable[..., Experiment], colluders: bool, share: float
) -> None:
    """Without collusion the second client, which is asked last, is honest in every round."""
    threat = {"colluders": colluders}
    result = run(plain(rounds=4, malicious=2, attack=EveryOther(), threat=threat))
    assert result.summary.attack_acted == share


def test_without_malicious_clients_nothing_is_said_of_an_attack(
    plain: Callable[..., Experiment],
) -> None:
    result = run(plain(rounds=2, malicious=0))
    assert result.summary.attack_acted is None
    assert result.summary.troubles == ()


def test_a_run_that_an_older_version_began_claims_nothing_of_its_attack() -> None:
    new = line(3, []) | {"malicious": [1], "acted": False}
    assert Tally.of([new]).acted_share == 0.0
    assert Tally.of([line(2, []) | {"malicious": [1]}, new]).acted_share is None


def test_too_few_colluders_are_told_once() -> None:
    (told,) = Tally.of([line(1, []) | {"malicious": [1], "acted": False}]).troubles(least=2)
    assert "fewer than 2 took part" in told
