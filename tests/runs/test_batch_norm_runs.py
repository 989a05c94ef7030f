"""Runs of networks with BatchNorm: what is trained, kept, resumed, and built for an audit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from demo import demo_config
from normed import NormedCnn
from ruamel.yaml import YAML
from run_contents import contents
from safetensors.torch import load_file
from typer.testing import CliRunner

from fedrobust import Experiment, Progress, load, run
from fedrobust.aggregators import Mean
from fedrobust.attacks import SignFlip
from fedrobust.attacks.learned.simulation import simulated
from fedrobust.cli import app
from fedrobust.compute.network import evaluating
from fedrobust.config.component import to_config
from fedrobust.data import Digits, Npz
from fedrobust.errors import RecordError
from fedrobust.federation.adversary import view_of
from fedrobust.federation.participation import All
from fedrobust.models import DigitsCnn, build_model
from fedrobust.progress import UNWATCHED
from fedrobust.runs.audited_model import opened
from fedrobust.runs.older_configs import completed
from fedrobust.runs.prepare import prepare
from fedrobust.runs.surrogates import surrogates

Tiny = Callable[..., Experiment]
FEW = {
    "every": 2,
    "samples": 20,
    "test_samples": 20,
    "attack": {"name": "pgd", "eps": 0.15, "step_size": 0.05, "steps": 1},
}
HOW = ["frozen", "to_group_norm"]


def stopped(experiment: Experiment, out: Path) -> None:
    """Play to round 3 of 4, saved after round 2."""

    def stop(log: Any) -> None:
        if log.round == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(experiment, out, progress=Progress(played=stop))


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
def test_a_run_is_resumed_and_audited_with_the_same_network(
    tiny: Tiny, tmp_path: Path, how: Any
) -> None:
    experiment = tiny(model=NormedCnn(measured=True), batch_norm=how, rounds=4, evaluation=FEW)
    result = run(experiment, tmp_path / "run")
    stopped(experiment, tmp_path / "stopped")
    run(experiment, tmp_path / "stopped", resume=True)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "run")

    audited = opened(str(tmp_path / "run"), None, None, last=True, trust=True).model
    x = torch.rand(20, 1, 8, 8)
    with evaluating(audited):
        assert torch.equal(audited(x), result.model(x))
    notes = [note for note in result.summary["notes"] if note.startswith(f"batch_norm: {how}")]
    layers = "1, 4" if how == "frozen" else "1 (groups: 2), 4 (groups: 1)"
    assert notes[0].endswith(f"The layers: {layers}")

    weights = load_file(tmp_path / "run" / "model.safetensors")
    came = prepare(experiment).model.state_dict()
    assert ("1.running_mean" in weights) == (how == "frozen")
    for name in weights.keys() & {"1.running_mean", "1.running_var", "1.num_batches_tracked"}:
        assert torch.equal(weights[name], came[name]), "the statistics are those it came with"
    assert not torch.equal(weights["1.weight"], came["1.weight"])


def test_other_statistics_are_another_run(tiny: Tiny, tmp_path: Path) -> None:
    """Of networks that are alike in name, fields and parameters."""

    class Other(NormedCnn):
        def build(self, shape: tuple[int, ...], classes: int) -> Any:
            model = super().build(shape, classes)
            model.get_buffer("1.running_mean").add_(0.01)
            return model

    digests = [
        prepare(tiny(model=model(measured=True), batch_norm="frozen")).digest
        for model in (NormedCnn, Other)
    ]
    assert digests[0] != digests[1]


@pytest.mark.slow
def test_the_commands_take_it(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    plain = demo_config(rounds=1, evaluation=FEW, model={"name": "normed:NormedCnn"})
    YAML(typ="safe").dump(plain, config)
    call = CliRunner().invoke
    refused = call(app, ["run", str(config), "--out", str(tmp_path / "refused")])
    assert refused.exit_code == 2
    assert "set batch_norm: to_group_norm puts GroupNorm in its place" in " ".join(
        refused.output.split()
    )
    wrong = call(app, ["run", str(config), "-s", "batch_norm=to_groupnorm"])
    assert wrong.exit_code == 2
    assert "batch_norm: should be 'refuse', 'frozen'" in " ".join(wrong.output.split())
    out = tmp_path / "run"
    done = call(
        app,
        ["run", "--no-report", str(config), "-s", "batch_norm=to_group_norm", "--out", str(out)],
    )
    assert done.exit_code == 0, done.output
    assert load(out / "config.yaml").batch_norm == "to_group_norm"
    quick = ["--samples", "10", "--eps", "0.1"]
    audit = call(app, ["audit", str(out), "--trust", *quick])
    assert audit.exit_code == 0, audit.output
    known = call(app, ["audit", str(out), "--trust", *quick, "--batch-norm", "frozen"])
    assert "leave --batch-norm out" in " ".join(known.output.split())
    weights = [str(out / "model.safetensors"), "--model", "normed:NormedCnn", "--data", "digits"]
    assert "another network" in " ".join(call(app, ["audit", *weights, *quick]).output.split())
    audit = call(app, ["audit", *weights, *quick, "--batch-norm", "to_group_norm"])
    assert audit.exit_code == 0, audit.output
    audit = call(app, ["audit", *weights, *quick, "--batch-norm", "group"])
    assert "--batch-norm is group; it can be refuse or" in " ".join(audit.output.split())


@pytest.mark.slow
def test_a_run_from_before_there_was_batch_norm_goes_on(tiny: Tiny, tmp_path: Path) -> None:
    experiment = tiny(rounds=4, evaluation=FEW)
    run(experiment, tmp_path / "run")
    stopped(experiment, tmp_path / "old")
    config = tmp_path / "old" / "config.yaml"
    kept = config.read_text()
    assert kept.count("batch_norm: refuse\n") == 1
    config.write_text(kept.replace("batch_norm: refuse\n", ""))
    with pytest.raises(RecordError, match="batch_norm: refuse there, frozen here"):
        run(replace(experiment, batch_norm="frozen"), tmp_path / "old", resume=True)
    run(experiment, tmp_path / "old", resume=True)
    config.write_text(kept)
    assert contents(tmp_path / "old") == contents(tmp_path / "run")
    content = to_config(experiment)
    del content["batch_norm"]
    assert completed(content) == to_config(experiment)


def test_surrogates_of_a_file_are_kept_by_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two projects have a file of one name each; the second one is not taken for the first."""
    found = []
    for folder, seed in (("a", 0), ("b", 1), ("c", 0)):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        x = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(seed)).numpy()
        y = np.arange(40) % 10
        np.savez("mine.npz", x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:])
        places = list[str]()

        def train(experiment: Any, place: Path, progress: Any, places: Any = places) -> Any:
            places.append(place.name)
            return build_model(DigitsCnn(), (1, 8, 8), 10, torch.Generator())

        surrogates(
            Npz("mine.npz", validation=5),
            DigitsCnn(),
            eps=0.15,
            norm="linf",
            cache=tmp_path / "cache",
            train=train,
            progress=UNWATCHED,
        )
        found.append(places)
    assert found[0] == found[2]
    assert not set(found[0]) & set(found[1])


def test_surrogates_are_treated_alike_and_older_ones_are_found(tmp_path: Path) -> None:
    asked = dict[str, list[Any]]()
    for how in ("refuse", *HOW):
        calls = asked[how] = []

        def train(experiment: Any, place: Path, progress: Any, calls: Any = calls) -> Any:
            calls.append((experiment.batch_norm, place.name))
            return build_model(DigitsCnn(), (1, 8, 8), 10, torch.Generator())

        surrogates(
            Digits(),
            DigitsCnn(),
            eps=0.15,
            norm="linf",
            cache=tmp_path,
            train=train,
            progress=UNWATCHED,
            batch_norm=how,  # type: ignore[arg-type]
        )
    # The names that the version before this field gave.
    assert [name for _, name in asked["refuse"]] == [
        "natural-e5393a2be762dc64",
        "robust-3788a82191776d65",
    ]
    for how in HOW:
        assert [found for found, _ in asked[how]] == [how, how]
        assert not {name for _, name in asked[how]} & {name for _, name in asked["refuse"]}


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
def test_clients_that_train_together_do_what_they_do_alone(tiny: Tiny, how: Any) -> None:
    """By SGD: where a gradient is nearly 0, Adam makes a whole step of its rounding."""
    found = []
    client = {"batch_size": 8, "batches": 2, "optimizer": {"name": "sgd", "lr": 0.1}}
    for gradients in ("autograd", "vmap"):
        plan = {"device": "cpu", "threads": 1, "batch": 64, "gradients": gradients}
        settings = {"client": client, "execution": plan, "evaluation": FEW}
        experiment = tiny(model=NormedCnn(measured=True), batch_norm=how, rounds=2, **settings)
        result = run(experiment)
        found.append(result.state.parameters)
        if how == "frozen":
            came = prepare(experiment).model.get_buffer("1.running_mean")
            assert torch.equal(result.model.get_buffer("1.running_mean"), came)
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(found[0], prepare(experiment).start, atol=1e-3)


@pytest.mark.parametrize("how", HOW)
def test_the_learned_attacks_simulation_trains_as_the_clients_do(tiny: Tiny, how: Any) -> None:
    prepared = prepare(tiny(model=NormedCnn(measured=True), batch_norm=how))
    federation = prepared.federation
    state = federation.start(prepared.start)
    view = view_of(
        state,
        federation,
        clients=[0],
        own=prepared.start[None][:0],
        participants=11,
        benign=None,
        benign_clients=None,
        rule=None,
    )
    local = federation.local
    imagined = simulated(
        view,
        local.data,
        SignFlip(),
        parts=local.clients,
        malicious=1,
        participation=All(),
        rule=Mean(),
    )
    there, here = (
        each.local.updates(prepared.start, {}, [1, 2], prepared.streams, 1)
        for each in (federation, imagined)
    )
    torch.testing.assert_close(here, there)
    assert type(imagined.local.model[1]) is type(prepared.model[1])  # type: ignore[index]
