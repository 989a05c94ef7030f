"""A record says with which version of a user's own code it was played."""

import json
import os
from pathlib import Path

import pytest
from demo import demo_config

from fedrobust import run
from fedrobust.config.component import from_config
from fedrobust.errors import RecordError
from fedrobust.experiment import Experiment
from fedrobust.progress import Progress
from fedrobust.records.own_code import changed_code, mixed_code, own_code
from fedrobust.records.reading import json_of
from fedrobust.records.schema.run import Computed
from fedrobust.report import write_report

CODE = """
from dataclasses import dataclass


@dataclass(frozen=True)
class Halved:
    share: float = 0.5

    def __call__(self, updates):
        return self.share * updates.mean(dim=0)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / f"halving_{os.getpid()}_{tmp_path.name[-4:].replace('-', '_')}.py"
    path.write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return path


def experiment(module: Path, rounds: int) -> Experiment:
    quick = {"objective": {"name": "erm"}, "malicious": 0, "attack": None, "rounds": rounds}
    rule = {"name": f"{module.stem}:Halved"}
    return from_config(Experiment, demo_config(**quick | {"aggregator": rule}))


@pytest.mark.usefixtures("quick_pages")
def test_code_that_changed_between_two_parts_of_a_run_is_told(module: Path, tmp_path: Path) -> None:
    out, told = tmp_path / "run", list[str]()
    run(experiment(module, 2), out)
    began = json.loads((out / "environment.json").read_text())["code"]
    assert list(began) == [module.stem]
    module.write_text(CODE + "\n# another version\n")
    run(experiment(module, 2), out, resume=True)
    assert changed_code(json_of(out / "environment.json", Computed)) == []
    run(experiment(module, 4), out, resume=True, progress=Progress(repaired=told.append))
    assert changed_code(json_of(out / "environment.json", Computed)) == [module.stem]
    assert any(f"{module.stem} is no longer" in text for text in told)
    page = write_report([out]).read_text()
    assert f"{module.stem} changed while this run was played" in page


def test_fedrobusts_own_parts_and_installed_ones_are_no_code_of_the_users() -> None:
    assert own_code({"aggregator": {"name": "krum", "f": 2}}) == {}
    assert own_code({"client": {"optimizer": {"name": "torch.optim:AdamW", "lr": 0.1}}}) == {}
    assert own_code({"model": {"opaque": "fedrobust.models:RingMlp"}}) == {}


def test_a_data_file_has_a_version_too(tmp_path: Path) -> None:
    """Cells that were played before and after it was replaced are not comparable."""
    file, found = tmp_path / "my.npz", []
    config = {"data": {"name": "npz", "path": str(file), "validation": 5}}
    for content in (b"first", b"second", b"first"):
        file.write_bytes(content)
        found.append(own_code(config)["code"])
    assert [list(each) for each in found] == [[str(file)]] * 3
    assert found[0] == found[2] != found[1]
    cells = [(name, Computed(code=code)) for name, code in zip("abc", found, strict=True)]
    assert mixed_code(cells) == {str(file): ["b"]}
    file.unlink()
    assert own_code(config) == {}


def test_runs_of_several_versions_are_named() -> None:
    def played(**code: str) -> Computed:
        return Computed(code=code)

    assert mixed_code([("a", played(mine="1")), ("b", played(mine="1")), ("c", played())]) == {}
    runs = [("a", played(mine="1", yours="5")), ("b", played(mine="2")), ("c", played(mine="2"))]
    assert mixed_code(runs) == {"mine": ["b", "c"]}


@pytest.mark.usefixtures("quick_pages")
def test_a_record_whose_code_is_no_mapping_is_refused(module: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(experiment(module, 2), out)
    content = json.loads((out / "environment.json").read_text())
    (out / "environment.json").write_text(json.dumps(content | {"code": 5}))
    for use in (
        lambda: write_report([out]),
        lambda: run(experiment(module, 4), out, resume=True),
    ):
        with pytest.raises(RecordError, match=r"environment\.json is broken: .*code"):
            use()
