"""What the loggers of other projects hold of a run is what its records hold."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedrobust import Callback, Experiment, run
from fedrobust.errors import ConfigError
from fedrobust.loggers import MLflow, TensorBoard, WeightsAndBiases

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


class Stops(Callback):
    def on_round(self, log: Any) -> None:
        if log.round == 5:
            raise InterruptedError


def test_tensorboard_reads_each_round_once_also_after_a_stop(
    tiny: Callable[..., Experiment], tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out, board = tmp_path / "run", tmp_path / "board"
    with pytest.raises(InterruptedError):
        run(tiny(), out, callbacks=[TensorBoard(board), Stops()])
    found = run(tiny(), out, resume=True, callbacks=[TensorBoard(board)])
    read = EventAccumulator(str(board)).Reload()
    points = [(event.step, event.value) for event in read.Scalars("robust_accuracy")]
    wanted = [(m["round"], pytest.approx(m["robust_accuracy"], abs=1e-6)) for m in found.metrics]
    assert points == wanted
    (last,) = read.Scalars("test/best/robust_accuracy")
    assert last.value == pytest.approx(found.summary.test.best.robust_accuracy, abs=1e-6)
    text, *_ = read.Tensors("config/text_summary")  # one for each time that the run began
    assert b"client.optimizer.lr: 0.005" in text.tensor_proto.string_val[0]


def test_mlflow_in_a_folder(
    tiny: Callable[..., Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    found = run(tiny(), callbacks=[MLflow()])
    (stored,) = mlflow.search_runs(output_format="list")
    assert stored.info.run_name == "tiny"
    assert stored.info.status == "FINISHED"
    assert stored.data.params["client.optimizer.lr"] == "0.005"
    history = mlflow.MlflowClient().get_metric_history(stored.info.run_id, "robust_accuracy")
    assert [(m.step, m.value) for m in history] == [
        (m["round"], m["robust_accuracy"]) for m in found.metrics
    ]
    best = found.summary.test.best
    assert stored.data.metrics["test.best.robust_accuracy"] == best.robust_accuracy


def test_weights_and_biases_offline(
    tiny: Callable[..., Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    found = run(tiny(), callbacks=[WeightsAndBiases(mode="offline", dir=tmp_path, project="x")])
    (file,) = tmp_path.rglob("*.wandb")
    late = time.monotonic() + 60  # wandb writes in a process of its own
    while b"test.best.robust_accuracy" not in file.read_bytes() and time.monotonic() < late:
        time.sleep(0.1)
    content, at = file.read_bytes(), 0  # records of protobuf, with each value as JSON
    for line in found.metrics:
        for name in ("round", "robust_accuracy"):
            place = content.find(json.dumps(line[name]).encode(), at)
            assert place >= 0, (name, line)
        at = place
    assert b"test.best.robust_accuracy" in content[at:]


@pytest.mark.parametrize(
    ("logger", "library", "package"),
    [
        (lambda: TensorBoard("x"), "torch.utils.tensorboard", "tensorboard"),
        (MLflow, "mlflow", "mlflow"),
        (WeightsAndBiases, "wandb", "wandb"),
    ],
)
def test_a_library_that_is_missing_is_named(
    logger: Callable[[], object], library: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"needs {package}: pip install {package}, or "):
        logger()


def test_a_run_that_was_stopped_leaves_no_logger_open(
    tiny: Callable[..., Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow has one active run in a process, so the next one would fail."""
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    with pytest.raises(InterruptedError):
        run(tiny(), callbacks=[MLflow(), Stops()])
    run(tiny(rounds=2), callbacks=[MLflow()])
    stored = mlflow.search_runs(output_format="list")
    assert sorted(one.info.status for one in stored) == ["FAILED", "FINISHED"]
