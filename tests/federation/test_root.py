"""The server's own examples: nobody else's, trained on as a client trains, given to the rule."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fedrobust import run
from fedrobust.aggregators import Context
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.federation.round import run_round
from fedrobust.runs.prepare import Prepared, prepare

TRUST: dict[str, Any] = {"aggregator": {"name": "fl-trust"}, "server": {"root": 100}}


def pixels(ready: Prepared) -> list[set[bytes]]:
    """What the server holds, then what each client holds."""
    federation = ready.federation
    assert federation.root is not None
    local = federation.local
    held = [federation.root.data.x, *(local.data.x[index] for index in local.clients)]
    return [{x.numpy().tobytes() for x in part} for part in held]


def test_no_client_holds_an_example_of_the_servers(tiny: Callable[..., Experiment]) -> None:
    ready = prepare(tiny(**TRUST))
    assert ready.federation.root is not None
    assert len(ready.federation.root.data) == 100
    server, *clients = pixels(ready)
    assert len(clients) == 11
    for held in clients:
        assert not server & held
    assert len(ready.federation.local.data) == len(prepare(tiny()).federation.local.data) - 100


def test_the_rule_gets_the_update_that_training_on_them_gives(
    tiny: Callable[..., Experiment],
) -> None:
    seen: list[Context] = []

    class Spy:
        name = "spy"

        def aggregate(self, updates: torch.Tensor, context: Context) -> Any:
            from fedrobust.aggregators import Aggregation

            seen.append(context)
            return Aggregation(updates.mean(dim=0))

    ready = prepare(tiny(server={"root": 16}, aggregator=Spy()))
    state = ready.federation.start(ready.start)
    root = ready.federation.root
    assert root is not None
    own = ready.streams.child("root")
    want = root.updates(state.parameters, {}, [0], own, 1)[0]
    state, _ = run_round(state, ready.federation, ready.streams)
    assert seen[0].root is not None
    assert torch.equal(seen[0].root, want)
    assert set(state.root) == {0}, "the server keeps its optimiser's state, as clients do"
    run_round(state, ready.federation, ready.streams)
    assert not torch.equal(seen[1].root, want)  # type: ignore[arg-type]


@pytest.mark.long
def test_trust_stands_where_the_mean_falls(tiny: Callable[..., Experiment]) -> None:
    """Five of eleven send twenty times the opposite."""
    sgd = {"batch_size": 32, "batches": 2, "optimizer": {"name": "sgd", "lr": 0.1}}
    common: dict[str, Any] = {
        "rounds": 40,
        "objective": {"name": "erm"},
        "client": sgd,
        "malicious": 5,
        "attack": {"name": "sign-flip", "scale": 20.0},
    }
    trusted = run(tiny(**common | TRUST)).metrics[-1]["accuracy"]
    mean = run(tiny(**common | {"aggregator": {"name": "mean"}})).metrics[-1]["accuracy"]
    assert trusted > 0.6
    assert mean < 0.3


@pytest.mark.slow
def test_a_run_with_a_root_resumes_to_the_same_bits(
    tiny: Callable[..., Experiment], tmp_path: Path
) -> None:
    experiment = tiny(**TRUST)
    whole = run(experiment)

    def stop(log: Any) -> None:
        if log.round == 4:
            raise KeyboardInterrupt

    from fedrobust.progress import Progress

    with pytest.raises(KeyboardInterrupt):
        run(experiment, tmp_path / "run", progress=Progress(played=stop))
    again = run(experiment, tmp_path / "run", resume=True)
    assert torch.equal(again.state.parameters, whole.state.parameters)


def test_a_rule_that_trusts_needs_something_to_trust(tiny: Callable[..., Experiment]) -> None:
    with pytest.raises(ConfigError, match=r"fl-trust trusts .* set server\.root"):
        tiny(aggregator={"name": "fl-trust"})
    within = {"name": "bucketing", "s": 2, "rule": {"name": "fl-trust"}}
    with pytest.raises(ConfigError, match=r"set server\.root"):
        tiny(aggregator=within)
    with pytest.raises(ConfigError, match="leave none of"):
        prepare(tiny(**TRUST | {"server": {"root": 5000}}))


def test_a_root_that_no_rule_reads_is_said(tiny: Callable[..., Experiment]) -> None:
    notes = prepare(tiny(server={"root": 10})).doubts
    assert any("makes no use of the server's own update" in note for note in notes)
