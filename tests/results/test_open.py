"""What fedrobust.open gives is what was played, and opening changes nothing."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from demo import ROOT, demo_config
from run_contents import contents
from safetensors.torch import load_file, save_file

import fedrobust
from fedrobust import Callback, Experiment, Run, run
from fedrobust.compute.parameters import read
from fedrobust.config.component import from_config
from fedrobust.config.trust import UntrustedError
from fedrobust.errors import ConfigError, RecordError
from fedrobust.results.sweep import Sweep


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "tiny"


@pytest.fixture(scope="module")
def played(folder: Path) -> Run:
    return run(from_config(Experiment, demo_config()), folder)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def same_content(record: Any, content: Any) -> bool:
    """Whether attributes and keys of a typed record are all that its file holds."""
    if isinstance(content, Mapping):
        values = [(record[key], value) for key, value in content.items()]
        if not isinstance(record, Mapping):
            values += [(getattr(record, key), value) for key, value in content.items()]
        return all(same_content(*pair) for pair in values)
    if isinstance(content, list):
        return all(map(same_content, record, content))
    return bool(record == content)


@pytest.mark.slow
def test_an_opened_run_is_the_run_that_was_played(folder: Path, played: Run) -> None:
    before = files(folder)
    found = fedrobust.open(folder)
    assert isinstance(found, Run)
    assert repr(found) == repr(played)
    assert found.config["aggregator"] == played.config["aggregator"] == {
        "name": "bulyan", "f": 2, "second_stage": "theta-2f"
    }  # fmt: skip
    assert found.metrics == played.metrics
    assert found.summary == played.summary
    assert same_content(found.summary, json.loads((folder / "summary.json").read_text()))
    assert found.summary.test.best.robust_accuracy == played.summary["test"]["best"][
        "robust_accuracy"
    ]  # fmt: skip
    assert torch.equal(found.best, played.best)
    assert torch.equal(read(found.model), played.state.parameters)
    assert torch.equal(found.state.parameters, played.state.parameters)
    assert found.state.round == 6
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(found.best_model(x), played.best_model(x))
    assert found.figures == played.figures == ("accuracy", "kept", "users", "examples")
    assert [type(found.figure(name)).__name__ for name in found.figures] == ["Figure"] * 4
    assert files(folder) == before


@pytest.mark.slow
def test_figures_have_the_width_asked_for_and_show_in_a_notebook(played: Run) -> None:
    figure = played.figure("accuracy", width=5)
    assert figure.get_figwidth() == 5
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert "</svg>" in played._repr_html_()
    assert "Bulyan’s model" in played._repr_html_()


def test_the_table_has_a_line_for_each_evaluation(played: Run) -> None:
    table = played.to_pandas()
    assert list(table["round"]) == [2, 4, 6]
    assert list(table["robust_accuracy"]) == [m["robust_accuracy"] for m in played.metrics]


@pytest.mark.slow
def test_a_run_in_memory_has_its_results_too(played: Run) -> None:
    found = run(from_config(Experiment, demo_config()))
    assert found.path is None
    assert torch.equal(found.best, played.best)
    assert found.figures == ("accuracy", "users")
    assert found.figure().get_axes()
    assert found.summary.test == played.summary.test
    with pytest.raises(RecordError, match=r"no page: play it with out='runs/NAME'"):
        found.report()


@pytest.mark.slow
def test_the_page_of_an_opened_run(folder: Path, played: Run, tmp_path: Path) -> None:
    page = fedrobust.open(folder).report(tmp_path / "page")
    assert page == tmp_path / "page" / "index.html"
    assert "tiny" in page.read_text("utf-8")


class Stops(Callback):
    def on_evaluation(self, metrics: dict[str, Any]) -> None:
        if metrics["round"] == 4:
            raise InterruptedError


@pytest.mark.slow
def test_an_unfinished_run_shows_what_there_is_and_goes_on(played: Run, tmp_path: Path) -> None:
    experiment, out = from_config(Experiment, demo_config()), tmp_path / "run"
    with pytest.raises(InterruptedError):
        run(experiment, out, callbacks=[Stops()])
    found = fedrobust.open(out)
    assert isinstance(found, Run)
    assert not found.finished
    assert "not finished" in repr(found)
    with pytest.raises(RecordError, match=r"no summary yet: .* of 6; go on with resume=True"):
        _ = found.summary
    with pytest.raises(RecordError, match=r"holds no best\.safetensors"):
        _ = found.best_model
    ended = run(experiment, out, resume=True)
    assert torch.equal(ended.best, played.best)
    wanted, there = contents(played.path), contents(out)
    assert wanted == there


def test_code_in_a_config_needs_trust(folder: Path, played: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(folder, out)
    text = (out / "config.yaml").read_text()
    changed = text.replace("name: bulyan,", "name: 'os:system',")
    assert changed != text
    (out / "config.yaml").write_text(changed)
    found = fedrobust.open(out)
    assert found.metrics == played.metrics  # all that is data is there
    with pytest.raises(UntrustedError, match="trust=True"):
        _ = found.experiment


@pytest.mark.slow
def test_a_committed_sweep_is_its_table() -> None:
    path = ROOT / "results" / "drfl" / "ring"
    sweep = fedrobust.open(path)
    assert isinstance(sweep, Sweep)
    assert sweep.missing == ()
    table = sweep.to_pandas()
    assert list(table["cell"]) == [n for n in table["cell"] if n in sweep.cells]
    assert len(table) == len(sweep.cells)
    wanted = json.loads((path / "report" / "table.json").read_text())["rows"]
    for row in wanted:
        here = table[table["cell"].isin(row["cells"])]
        assert here["accuracy"].median() == pytest.approx(row["accuracy"]["middle"])
    cell = sweep[sweep.cells[0]]
    assert cell.summary.test.final.accuracy == table["accuracy"][0]
    assert "course" in sweep.figures or "matrix" in sweep.figures
    assert sweep.figure(sweep.figures[0]).get_axes()
    assert sweep._repr_html_().count("<tr>") == len(wanted) + 1
    with pytest.raises(RecordError, match="has no cell 'krum'; it has: "):
        sweep["krum"]


def test_a_committed_audit() -> None:
    found = fedrobust.open(ROOT / "results" / "audits" / "mnist-krum-distillation")
    assert found.verdict == found.result.verdict == "masked"
    assert found.figures == ("surface", "signs")
    assert found.figure("surface").get_axes()
    assert "masked" in set(found.to_pandas()["word"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "none", "is not a folder"),
        (lambda path: (path / "file").write_text("x") and path / "file", "is not a folder"),
        (lambda path: path, r"holds no config\.yaml, sweep\.json or audit\.json"),
    ],
)
def test_what_is_no_record_is_refused(
    tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(RecordError, match=message):
        fedrobust.open(make(tmp_path))


def test_a_figure_that_is_not_there_names_those_that_are(played: Run) -> None:
    with pytest.raises(ConfigError, match="no figure 'loss' here; there are: accuracy, kept"):
        played.figure("loss")


def test_star_imports_leave_the_builtin_alone() -> None:
    scope: dict[str, object] = {}
    exec("from fedrobust import *", scope)
    assert "open" not in scope
    assert "open" in dir(fedrobust)


def test_what_is_done_to_one_model_does_nothing_to_another() -> None:
    found = run(from_config(Experiment, demo_config(rounds=2)))
    found.model.train().double().requires_grad_(False)
    assert not found.best_model.training
    assert read(found.best_model).dtype == torch.float32
    assert torch.equal(read(found.best_model), found.best)
    assert dict(found.summary)["rounds"] == 2


@pytest.mark.slow
def test_where_clients_have_models_of_their_own_both_say_so(tmp_path: Path) -> None:
    own = demo_config(rounds=2, batch_norm="local", model={"name": "normed:NormedCnn"})
    played = run(from_config(Experiment, own), tmp_path / "run")
    opened = fedrobust.open(tmp_path / "run", trust=True)
    for found in (played, opened):
        with pytest.raises(ConfigError, match=r"take client_model\(client\)"):
            _ = found.best_model
    assert torch.equal(opened.best, played.best)
    file = tmp_path / "run" / "model.safetensors"
    tensors = load_file(file)
    for wrong in (
        torch.zeros(3_000_000, dtype=torch.int8),
        torch.tensor(1.0),
        torch.zeros(2).long(),
    ):
        save_file(tensors | {"clients": wrong}, file)
        with pytest.raises(RecordError, match=r"its clients are .*, not a list of ids"):
            opened.client_model(0)


def test_the_config_in_memory_is_that_in_the_file(folder: Path, played: Run) -> None:
    assert played.config == fedrobust.open(folder).config
    assert played.experiment == fedrobust.open(folder).experiment


def test_published_results_are_shown_too() -> None:
    """Their rounds were not kept."""
    sweep = fedrobust.open(ROOT / "results" / "drfl" / "ring")
    found = sweep[next(iter(sweep))]
    assert len(sweep) == len(sweep.cells)
    assert "</svg>" in found._repr_html_()
    assert found.figure("accuracy").get_axes()


def test_a_run_with_an_object_of_python_says_how_its_weights_are_audited(tmp_path: Path) -> None:
    """Its file is whole, so it is not called broken."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    experiment = from_config(Experiment, demo_config())
    run(replace(experiment, model=model, rounds=1), tmp_path / "own")
    with pytest.raises(RecordError) as error:
        _ = fedrobust.open(tmp_path / "own").best_model
    assert "was the Python object 'torch.nn.modules.container:Sequential'" in str(error.value)
    assert "fedrobust audit DIR/best.safetensors --model" in str(error.value)
    assert "broken" not in str(error.value)
