"""What a shell offers when a user presses Tab, and that it offers it without loading PyTorch."""

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from fedrobust.cli import app, completion
from fedrobust.cli.experiments import experiments, reproductions
from fedrobust.cli.starter import SETTINGS
from fedrobust.evaluation.auditing.battery import Budget
from fedrobust.experiment import Evaluation
from fedrobust.models import LOCAL, BatchNorm
from fedrobust.perturb.geometry import Norm
from fedrobust.runs import reproduce


def asked(line: str) -> dict[str, str]:
    """What bash says to the program when Tab is pressed at the end of ``line``."""
    last = len(line.split(" ")) - 1
    return {"_FEDROBUST_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(last)}


def offered(line: str) -> list[str]:
    found = CliRunner().invoke(app, [], env=asked(line), prog_name="fedrobust")
    return found.stdout.split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("fedrobust run byz", ["byzantine/digits"]),
        ("fedrobust sweep leader", ["leaderboard/fashion-mnist", "leaderboard/mnist"]),
        ("fedrobust init --aggregator kr", ["krum"]),
        ("fedrobust init --attack no", ["none"]),
        ("fedrobust init --objective e", ["erm"]),
        ("fedrobust init --data cif", ["cifar10"]),
        ("fedrobust reproduce fat-table1 --scale ", ["smoke", "cpu", "paper"]),
        ("fedrobust reproduce fat-f", [f"fat-figure{i}" for i in (1, 2, 3, 4)]),
        ("fedrobust list aggr", ["aggregator"]),
        ("fedrobust list bul", ["bulyan"]),
        ("fedrobust list attacks mim", ["mimic"]),
        ("fedrobust list experiments dem", ["demo"]),
        ("fedrobust data get fas", ["fashion-mnist"]),
        ("fedrobust audit runs/x --budget f", ["full"]),
        ("fedrobust sweep demo --on s", ["slurm"]),
        (
            "fedrobust run demo -s evaluation.s",
            ["evaluation.split=validation", "evaluation.split=train"],
        ),
        ("fedrobust run demo -s client.optimizer=a", ["client.optimizer=adam"]),
        (
            "fedrobust run demo -s server.p",
            [f"server.projection={n}" for n in ("none", "ball", "box")],
        ),
    ],
)
def test_tab_offers_names_and_choices(line: str, words: list[str]) -> None:
    assert offered(line) == words


def test_files_and_folders_are_offered_beside_experiments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("dear.yaml", "deep/inner.yml", "dear.txt", ".hidden.yaml"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    assert offered("fedrobust run de") == ["demo", "dear.yaml", "deep/"]
    assert offered("fedrobust run deep/") == ["deep/inner.yml"]
    assert offered("fedrobust run ./de") == ["./dear.yaml", "./deep/"]
    assert offered(f"fedrobust run {tmp_path}/dee") == [f"{tmp_path}/deep/"]
    assert offered("fedrobust run nowhere/") == []
    assert ".hidden.yaml" not in offered("fedrobust run ")
    Path("best.safetensors").touch()
    assert offered("fedrobust audit ") == ["best.safetensors", "deep/"]


def test_the_words_that_are_written_out_are_those_that_there_are() -> None:
    assert set(completion.STARTERS) == set(SETTINGS)
    assert get_args(Budget) == completion.BUDGETS
    assert get_args(Norm) == completion.NORMS
    assert set(completion.BATCH_NORMS) == set(get_args(BatchNorm)) - set(LOCAL)
    assert completion._CHOICES["batch_norm"] == get_args(BatchNorm)
    assert completion.SCALES == reproduce.SCALES
    splits = Evaluation.__dataclass_fields__["split"].type
    assert completion._CHOICES["evaluation.split"] == get_args(splits)
    assert set(reproductions()) == {*reproduce.known(), *reproduce.figures()}
    assert set(completion._KINDS.values()) <= set(completion.listing())


def test_nothing_heavy_is_loaded_for_it() -> None:
    """In a process of its own, since PyTorch is loaded in this one."""
    program = """if True:
        import sys
        from fedrobust.cli import app, completion
        completion.config(""), completion.listed(""), completion.setting("")
        assert "pydantic" not in sys.modules
        completion.reproduction("")
        print([name for name in ("torch", "numpy", "matplotlib") if name in sys.modules])
    """
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ
    )
    assert found.stdout.strip() == "[]"
    assert len(experiments()) > 40
