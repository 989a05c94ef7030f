"""Runs in which BatchNorm stays with each client: scores, records, kills, and what is refused."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from demo import demo_config
from forked import begun
from normed import FEW, LOCAL, NormedCnn
from pydantic import ValidationError
from ruamel.yaml import YAML
from run_contents import contents
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import fedrobust
from fedrobust import Callback, Experiment, Progress, load, run
from fedrobust.cli import app
from fedrobust.compute.network import right
from fedrobust.errors import ConfigError, RecordError
from fedrobust.federation.round_log import RoundLog
from fedrobust.models import LocalTensors
from fedrobust.perturb import Pgd
from fedrobust.report import write_report
from fedrobust.runs import checkpoint
from fedrobust.runs.prepare import prepare

Tiny = Callable[..., Experiment]
SOME = {"name": "sample", "clients": 6}


@pytest.mark.slow
def test_each_benign_client_is_scored_with_its_own_model_on_its_own_examples(tiny: Tiny) -> None:
    experiment = tiny(**LOCAL, rounds=4, client={"batch_size": 32, "batches": 4})
    result, prepared = run(experiment), prepare(experiment)
    malicious, tests = prepared.federation.malicious, prepared.dataset.test
    parts = prepared.partition.test
    benign = [client for client in range(11) if client not in malicious]
    final = result.summary["test"]["final"]
    assert final["per_client"]["examples"] == {str(client): 32 for client in benign}
    assert final["examples"] == 32 * 9
    shares = []
    for client in benign:
        model, part = result.client_model(client), parts[client]
        share = right(model, tests.x[part], tests.y[part], 32).double().mean().item()
        assert final["per_client"]["accuracy"][str(client)] == pytest.approx(share)
        shares.append(share)
        other = result.client_model(benign[0] if client != benign[0] else benign[1])
        assert not torch.equal(other(tests.x[part]), model(tests.x[part]))
    assert final["accuracy"] == pytest.approx(sum(shares) / 9)
    assert 0 < final["robust_accuracy"] <= final["accuracy"]
    assert result.state.parameters.shape == (result.summary["parameters"],)
    assert result.summary["parameters"] == 16 * 9 + 16 + 8 * 144 + 8 + 330


@pytest.mark.slow
def test_the_chosen_model_has_the_batch_norm_of_its_round(tiny: Tiny, tmp_path: Path) -> None:
    experiment = tiny(**LOCAL, rounds=5)
    result = run(experiment, tmp_path / "run")
    best, chosen = result.summary["best_round"], load_file(tmp_path / "run" / "best.safetensors")
    assert best < 5, "otherwise this test tells nothing"
    shorter = run(tiny(**LOCAL, rounds=best))
    opened = fedrobust.open(tmp_path / "run", trust=True)
    ids = chosen["clients"].tolist()
    for client in ids:
        own = shorter.client_model(client).state_dict()
        read = opened.client_model(client, last=False).state_dict()
        for name, value in own.items():
            there = chosen.get(f"clients/{name}")
            wanted = there[ids.index(client)] if there is not None else chosen[name]
            assert torch.equal(value, wanted), name
            assert torch.equal(read[name], value)
    last = result.client_model(ids[-1]).state_dict()
    read = opened.client_model(ids[-1]).state_dict()
    assert all(torch.equal(last[name], value) for name, value in read.items())
    with pytest.raises(ConfigError, match=r"each client has a model of its own"):
        _ = opened.best_model
    with pytest.raises(ConfigError, match="client must be one of 0 to 10; it is 11"):
        opened.client_model(11)


@pytest.mark.slow
def test_a_run_with_local_batch_norm_is_extended_to_the_same_bits(
    tiny: Tiny, tmp_path: Path
) -> None:
    """Also where the last evaluation was not due and was the best, so that it is undone."""
    evaluation = FEW | {"every": 4}
    shorter = run(tiny(**LOCAL | {"evaluation": evaluation, "rounds": 6}), tmp_path / "run")
    assert shorter.summary.best_round == 6, "otherwise this test tells nothing"
    longer = tiny(**LOCAL | {"evaluation": evaluation, "rounds": 9})
    for out, last in (("run", 7), ("whole", 5)):  # the checkpoints that chose round 4
        with pytest.raises(InterruptedError):
            run(longer, tmp_path / out, resume=out == "run", callbacks=[StopsIn(last)])
    chosen = [checkpoint.read(tmp_path / out / "checkpoint.pt", "") for out in ("run", "whole")]
    assert torch.equal(*(content["best"] for content in chosen))
    stores = [content["best_store"] for content in chosen]
    assert stores[0].keys() == stores[1].keys() != set()
    for client, kept in stores[0].items():
        assert all(torch.equal(value, stores[1][client][name]) for name, value in kept.items())
    for out in ("run", "whole"):
        run(longer, tmp_path / out, resume=True)
    for name in ("model.safetensors", "best.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


class StopsIn(Callback):
    """Stops a run after a round."""

    def __init__(self, last: int) -> None:
        self.last = last

    def on_round(self, log: RoundLog) -> None:
        if log.round == self.last:
            raise InterruptedError


@pytest.mark.long
def test_sigkill_and_any_number_of_workers_give_the_same_bits(tmp_path: Path) -> None:
    config, straight, killed = (tmp_path / name for name in ("config.yaml", "straight", "killed"))
    plan = {"device": "cpu", "batch": 64}
    changes = LOCAL | {"model": {"name": "normed:NormedCnn"}, "participation": SOME}
    changes["aggregator"] = {"name": "trimmed-mean", "f": 2}
    YAML(typ="safe").dump(demo_config(rounds=12, execution=plan, **changes), config)
    run(load(config), straight)

    def lines() -> int:
        metrics = killed / "metrics.jsonl"
        return len(metrics.read_text().splitlines()) if metrics.exists() else 0

    process = begun(["run", "--no-report", str(config), "--out", str(killed)], tmp_path, threads=2)
    while lines() < 3 and process.is_alive():
        time.sleep(0.005)
    process.kill()
    process.join()
    assert 3 <= lines() < 12
    run(load(config), killed, resume=True)
    assert contents(killed) == contents(straight)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_pages")
def test_what_a_run_leaves(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "run"
    experiment = tiny(**LOCAL, rounds=2, participation=SOME)
    result = run(experiment, out)
    stored = load_file(out / "model.safetensors")
    own = {"1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"}
    own |= {name.replace("1.", "4.") for name in own}
    shared = result.client_model(0).state_dict().keys() - own
    assert stored.keys() == shared | {"clients"} | {f"clients/{name}" for name in own}
    ids = stored["clients"].tolist()
    assert ids == sorted(result.state.store)
    assert stored["clients/4.weight"].shape == (len(ids), 8)
    assert any("never trained" in text for text in result.summary["troubles"])
    assert "weights, biases and statistics stay with each client" in " ".join(
        result.summary["notes"]
    )
    write_report([out])

    # A damaged file is made again.
    changed = stored | {"clients/4.weight": stored["clients/4.weight"] + 1}
    save_file(changed, out / "model.safetensors")
    told: list[str] = []
    again = run(experiment, out, resume=True, progress=Progress(repaired=told.append))
    assert len(told) == 1
    assert "model.safetensors is made again" in told[0]
    assert load_file(out / "model.safetensors").keys() == stored.keys()
    mended = load_file(out / "model.safetensors")
    assert torch.equal(mended["clients/4.weight"], stored["clients/4.weight"])
    for client in (ids[0], 10):
        for name, value in result.client_model(client).state_dict().items():
            assert torch.equal(value, again.client_model(client).state_dict()[name])

    call = CliRunner().invoke(app, ["audit", str(out), "--trust"])
    assert call.exit_code == 2
    assert "each client has a model of its own" in " ".join(call.output.split())
    weights = ["audit", str(out / "model.safetensors"), "--data", "digits", "--eps", "0.1"]
    call = CliRunner().invoke(app, [*weights, "--model", "normed:NormedCnn"])
    assert call.exit_code == 2
    assert "weights of another network" in " ".join(call.output.split())
    call = CliRunner().invoke(
        app, [*weights, "--model", "normed:NormedCnn", "--batch-norm", "local"]
    )
    assert "--batch-norm is local; it can be refuse or" in " ".join(call.output.split())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda kept: kept.pop("batch_norm.4.weight"), "other names than the model's"),
        (
            lambda kept: kept.update({"batch_norm.4.weight": torch.zeros(9)}),
            "4.weight of client . is a tensor torch.float32, .9., not",
        ),
    ],
    ids=["missing", "shape"],
)
@pytest.mark.parametrize("where", ["state", "best"])
def test_a_checkpoint_that_does_not_fit_is_told(
    tiny: Tiny, tmp_path: Path, change: Callable[[Any], Any], message: str, where: str
) -> None:
    out = tmp_path / "run"
    experiment = tiny(**LOCAL, rounds=1)
    run(experiment, out)
    path = out / "checkpoint.pt"
    content = checkpoint.read(path, "")
    store = content["best_store"] if where == "best" else content["state"]["store"]
    change(next(iter(store.values())))
    with path.open("wb") as file:
        checkpoint.write(content, file)
    kept = shutil.copytree(out, tmp_path / "kept")
    with pytest.raises(RecordError, match=message):
        run(experiment, out, resume=True)
    assert path.read_bytes() == (kept / "checkpoint.pt").read_bytes()


AUDITED = {"every": 1, "samples": 20, "attack": Pgd(0.1, 0.1, 1)}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "audit": ({"evaluation": AUDITED | {"audit": "quick"}}, "evaluation.audit: an audit is of one"),
    "certificate": (
        {"evaluation": AUDITED | {"wasserstein": {}}},
        "evaluation.wasserstein: the certificate is of one model",
    ),
    "distillation": ({"attack": "distillation"}, "attack distillation works on the whole model"),
    "learned": (
        {"attack": {"name": "jittered", "radius": 1.0, "attack": {"name": "learned"}}},
        "attack jittered works on the whole model",
    ),
    "vmap": (
        {"execution": {"device": "cpu", "gradients": "vmap"}},
        "execution.gradients: vmap trains several clients as one batch",
    ),
    "compiled": (
        {"execution": {"device": "cpu", "gradients": "compiled"}},
        "execution.gradients: compiled trains several clients as one batch",
    ),
}


@pytest.mark.parametrize("how", ["local", "local_statistics"])
@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_needs_one_model_is_refused(
    tiny: Tiny, case: tuple[dict[str, Any], str], how: str
) -> None:
    changes, message = case
    with pytest.raises((ConfigError, ValidationError), match=message):
        tiny(**LOCAL | changes | {"batch_norm": how})
    tiny(**LOCAL | changes | {"batch_norm": "to_group_norm"})


def test_a_model_without_batch_norm_is_one_model(tiny: Tiny) -> None:
    ready = prepare(tiny(batch_norm="local"))
    assert "batch_norm is local, but the model has no BatchNorm" in ready.doubts
    assert ready.test_by is None
    assert ready.federation.local.own is None


def test_a_batch_of_one_example_is_refused_before_the_first_round(tiny: Tiny) -> None:
    """17 at a time leave one of a client's 103 examples; 49 at a time, one of the server's 50."""
    changes = LOCAL | {"model": NormedCnn(flat=True)}
    with pytest.raises(ConfigError, match="client 0 would train on a batch of one example"):
        prepare(tiny(**changes, client={"batch_size": 17, "epochs": 1}))
    changes |= {"aggregator": {"name": "fl-trust"}, "server": {"root": 50}}
    with pytest.raises(ConfigError, match="the server would train on a batch of one example"):
        prepare(tiny(**changes, client={"batch_size": 49, "epochs": 1}))
    prepare(tiny(**changes, client={"batch_size": 48, "epochs": 1}))


def test_nobody_benign_is_told(tiny: Tiny) -> None:
    changes = LOCAL | {"aggregator": "mean", "attack": {"name": "sign-flip"}}
    with pytest.raises(ConfigError, match="nobody trains honestly"):
        prepare(tiny(**changes, malicious=11))


def test_the_servers_own_training_keeps_a_batch_norm_too(tiny: Tiny) -> None:
    changes = LOCAL | {"aggregator": {"name": "fl-trust"}, "server": {"root": 50}}
    result = run(tiny(**changes, rounds=2))
    assert "batch_norm.1.running_mean" in result.state.root[0]
    assert result.state.parameters.isfinite().all()


def test_statistics_alone_stay(tiny: Tiny) -> None:
    result = run(tiny(**LOCAL | {"batch_norm": "local_statistics"}, rounds=2))
    kept = next(iter(result.state.store.values()))
    own = {name for name in kept if name.startswith("batch_norm.")}
    assert own == {
        f"batch_norm.{layer}.{name}"
        for layer in (1, 4)
        for name in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert result.summary["parameters"] == 16 * 9 + 16 + 8 * 144 + 8 + 330 + 48
    assert isinstance(prepare(tiny(**LOCAL)).federation.local.own, LocalTensors)
