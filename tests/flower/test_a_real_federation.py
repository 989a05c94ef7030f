"""The example with real processes: a malicious client, a kill of the server, and the same bits."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

pytest.importorskip("flwr")

from flwr.app import Context, RecordDict
from loopback import Loopback

from fedrobust import flatten
from fedrobust.flower import RobustStrategy

pytestmark = pytest.mark.flower

EXAMPLE = Path(__file__).parents[2] / "examples" / "flower"
ROUNDS = 2
WITHIN = 240


@pytest.fixture(autouse=True)
def _example_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))


def started(out: Path) -> "subprocess.Popen[bytes]":
    words = [sys.executable, EXAMPLE / "run.py", "--out", out, "--rounds", ROUNDS, "--samples", 40]
    # One thread for each: the processes share the cores.
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    with (out.parent / "run.log").open("ab") as log:
        return subprocess.Popen([str(word) for word in words], stdout=log, stderr=log, env=env)


def server_of(process: "subprocess.Popen[bytes]") -> psutil.Process | None:
    """Return the process in which the server's app runs, below ``process``."""
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if any("flwr-serverapp" in word for word in child.cmdline()):
                return child
        except psutil.NoSuchProcess:
            continue
    return None


def killed_after_a_round(out: Path) -> list[psutil.Process]:
    """Start the example, kill its server after the first checkpoint; return all processes.

    The rest is then ended as a user does it: the SuperLink waits for a minute for a lost server.
    """
    process = started(out)
    end = time.monotonic() + WITHIN
    while not (out / "checkpoint.pt").exists():
        assert process.poll() is None, (out.parent / "run.log").read_text()
        assert time.monotonic() < end
        time.sleep(0.1)
    everyone = psutil.Process(process.pid).children(recursive=True)
    server = server_of(process)
    assert server is not None
    server.send_signal(signal.SIGKILL)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=WITHIN) == 143
    return everyone


def in_this_process(out: Path, third: str, rounds: int = ROUNDS) -> Any:
    """Play the same federation without a stop, by calling the same apps here.

    The ``third`` client is malicious, honest or absent.
    """
    from digits_federation import client_app
    from digits_federation.experiment import CLIENTS, experiment

    config = {"rounds": rounds, "seed": 0}

    def node(client: int) -> Any:
        about: dict[str, Any] = {"partition-id": client}
        if third == "malicious" and client == 2:
            about["malicious"] = True
        context = Context(1, 50 + client, about, RecordDict(), config)
        return lambda message: client_app.app(message, context)

    there = range(CLIENTS - (third == "absent"))
    strategy = RobustStrategy(experiment(rounds, 0), out, minimum=len(there))
    strategy.start(grid=Loopback({50 + client: node(client) for client in there}))
    assert strategy.run is not None
    return strategy.run


def test_a_federation_with_a_malicious_client_survives_a_kill_of_its_server(tmp_path: Path) -> None:
    out = tmp_path / "federation"
    everyone = killed_after_a_round(out)
    assert not (out / "summary.json").exists()
    assert len(everyone) > 8
    assert psutil.wait_procs(everyone, timeout=10)[1] == []  # it ended what it started
    assert started(out).wait(timeout=WITHIN) == 0, (tmp_path / "run.log").read_text()

    lines = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [1, 2]
    assert [line["dropped"] for line in lines] == [[2], []]
    assert all(line["applied"] for line in lines)
    assert lines[0]["refused"] == {"2": "its parameters are not finite"}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["clients"] == 3
    assert summary["malicious"] == []  # the server does not know who attacks
    assert "rows of client 2 were refused in 1 round" in " ".join(summary["troubles"])
    assert summary["test"]["final"]["accuracy"] > 0.9
    assert summary["test"]["final"]["robust_accuracy"] > 0.35

    page = (out / "report" / "index.html").read_text()
    assert "Nothing of client 2 was used in round 1: its parameters are not" in page
    audit = json.loads((tmp_path / "federation-audit" / "audit.json").read_text())
    assert audit["verdict"] != "masked"
    assert audit["clean"] > 0.8

    alone = tmp_path / "alone"
    attacked = in_this_process(alone, "malicious")
    for name in ("model.safetensors", "best.safetensors", "rounds.jsonl"):
        assert (out / name).read_bytes() == (alone / name).read_bytes()
    assert torch.isfinite(flatten(attacked.model)).all()


def test_the_rule_is_not_moved_by_the_malicious_client(tmp_path: Path) -> None:
    runs = {third: in_this_process(tmp_path / third, third) for third in ("malicious", "honest")}
    final = {third: run.summary.test.final for third, run in runs.items()}
    assert final["malicious"].accuracy > final["honest"].accuracy - 0.05
    assert final["malicious"].robust_accuracy > final["honest"].robust_accuracy - 0.1
    nan, absent = (
        in_this_process(tmp_path / f"{third}-1", third, rounds=1)
        for third in ("malicious", "absent")
    )
    assert torch.equal(flatten(nan.model), flatten(absent.model))
    line = json.loads((tmp_path / "absent-1" / "rounds.jsonl").read_text())
    assert line["refused"] == {"2": "not connected"}
