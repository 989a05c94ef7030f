"""What a stored record names is code, and is run only where the user named it or said --trust."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from demo import demo_config
from torch import Tensor, nn
from typer.testing import CliRunner

from fedrobust import Experiment, run
from fedrobust.cli import app
from fedrobust.config import beside
from fedrobust.config.component import from_config, from_record, to_config
from fedrobust.config.trust import NOTHING, Trusted, UntrustedError
from fedrobust.errors import ConfigError
from fedrobust.models import RingMlp
from fedrobust.report import write_report
from fedrobust.runs.audited_model import opened
from fedrobust.runs.older_configs import completed
from hostile.folder import RING, put, slots

Tiny = Callable[..., Experiment]
MADE: list[str] = []


@dataclass(frozen=True)
class Steady:
    """A rule of the user's own."""

    scale: float = 1.0
    least: int = 0

    def __post_init__(self) -> None:
        MADE.append("Steady")

    def __call__(self, updates: Tensor) -> Tensor:
        return self.scale * updates.mean(dim=0)


@dataclass(frozen=True)
class OwnNet:
    """A network of the user's own."""

    width: int = 4

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        MADE.append("OwnNet")
        return RingMlp().build(shape, classes)


STEADY = {"name": f"{__name__}:Steady", "scale": 0.5, "least": 0}


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    search, modules, folders = list(sys.path), set(sys.modules), beside.places()
    MADE.clear()
    yield
    sys.path[:] = search
    beside.look_in(folders)
    for name in set(sys.modules) - modules:
        if not name.startswith(("fedrobust", "torch", "numba", "matplotlib")):
            del sys.modules[name]


# Names


@pytest.mark.parametrize(
    "name", ["os:system", "fedrobust.data.download:_run", "fedrobust.runs.sweep:x"]
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_record_names_no_code(name: str, wrapped: bool, tmp_path: Path) -> None:
    block: Any = {"name": name, "command": f"touch {tmp_path / 'PWNED'}"}
    rule = {"name": "bucketing", "s": 2, "rule": block} if wrapped else block
    with pytest.raises(UntrustedError, match=rf"^aggregator(\.rule)?: '{name}' is code") as error:
        from_record(Experiment, demo_config(aggregator=rule))
    assert "run unless you name it yourself" in str(error.value)
    assert not (tmp_path / "PWNED").exists()
    with pytest.raises(UntrustedError):
        from_record(Experiment, demo_config(aggregator=name))


def test_every_slot_is_refused_at_once(tmp_path: Path) -> None:
    mark = tmp_path / "MARK"
    with pytest.raises(UntrustedError) as error:
        from_record(Experiment, demo_config() | slots(mark))
    lines = str(error.value).splitlines()
    assert len([line for line in lines if "is code" in line]) == len(slots(mark))
    assert not mark.exists()


def test_what_is_trusted_is_the_whole_block() -> None:
    known = Trusted.of({"aggregator": {"name": "bucketing", "s": 2, "rule": STEADY}})
    assert known.meant(STEADY) == STEADY
    assert known.meant({k: v for k, v in STEADY.items() if k != "least"}) == STEADY
    assert not known.meant(STEADY | {"scale": 0.25})
    assert not known.meant(STEADY | {"more": 1})
    assert not known.meant(STEADY | {"least": False})
    assert not known.meant(STEADY | {"name": "os:system"})
    nested = Trusted.of({"name": "a:B", "rule": {"name": "krum", "f": 2}, "sizes": [1, 2]})
    assert nested.meant({"name": "a:B", "rule": {"name": "krum", "f": 2}})
    assert not nested.meant({"name": "a:B", "rule": {"name": "krum"}})
    assert not nested.meant({"name": "a:B", "sizes": [1]})
    assert not NOTHING.meant(STEADY)
    less = {k: v for k, v in STEADY.items() if k != "scale"}
    with pytest.raises(UntrustedError, match="is code"):  # it would act by its default
        from_record(Experiment, demo_config(aggregator=less), Trusted.of(STEADY))
    made = from_record(Experiment, demo_config(aggregator=STEADY), known)
    assert made.aggregator == Steady(0.5)


# Going on with a run


def test_each_part_of_a_stored_config_is_completed_on_its_own() -> None:
    asked = to_config(from_config(Experiment, demo_config()))
    stored = json.loads(json.dumps(asked))
    stored["model"] = {"opaque": "somebody's", "fingerprint": None}
    stored["partition"] = {"name": "os:system", "command": "false"}
    stored["rounds"] = "many"
    stored["unheard_of"] = 1
    kept = {key: stored[key] for key in ("model", "partition", "rounds", "unheard_of")}
    for key in ("lr", "projection"):
        del stored["server"][key]
    del stored["objective"]["attack"]["restarts"], stored["participation"]
    assert completed(stored) == asked | kept


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_block_of_the_users_own_config_is_completed(wrapped: bool) -> None:
    rule = {"name": "bucketing", "s": 2, "rule": STEADY} if wrapped else STEADY
    asked = to_config(from_config(Experiment, demo_config(aggregator=rule)))
    stored = json.loads(json.dumps(asked))
    block = stored["aggregator"]["rule"] if wrapped else stored["aggregator"]
    del block["least"]
    MADE.clear()
    assert completed(stored)["aggregator"] == stored["aggregator"], "nobody named it"
    assert not MADE
    found = completed(stored, like=asked)["aggregator"]
    assert MADE
    inner = found["rule"] if wrapped else found
    assert inner["least"] == 0


@pytest.mark.slow
def test_a_run_with_a_rule_of_ones_own_goes_on(tmp_path: Path, tiny: Tiny) -> None:
    own = tiny(aggregator=Steady(0.5), rounds=2)
    run(own, tmp_path / "run")
    path = tmp_path / "run" / "config.yaml"
    (tmp_path / "run" / "summary.json").unlink()
    path.write_text(path.read_text().replace(", least: 0", "").replace("\n  least: 0", ""))
    assert "least" not in path.read_text(), "as if the rule had gained it since"
    assert run(own, tmp_path / "run", resume=True).summary["rounds"] == 2


# An audit and a report


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished cells with a network of the user's own."""
    folder = tmp_path_factory.mktemp("sweep")
    for seed in ("0", "1"):
        changes = {"seed": int(seed), "name": f"ring-{seed}", "model": OwnNet()}
        run(from_config(Experiment, RING | changes), folder / "cells" / seed)
    cells = [{"name": seed, "labels": {"seed": seed}} for seed in ("0", "1")]
    record = {"name": "ring", "axes": {"seed": ["0", "1"]}, "cells": cells, "threads": 1}
    put(folder / "sweep.json", record | {"config": "", "reference": None})
    return folder


@pytest.mark.slow
def test_the_report_of_a_sweep_draws_models_that_are_trusted(sweep: Path, tmp_path: Path) -> None:
    MADE.clear()
    page = write_report([sweep], tmp_path / "a").read_text()
    assert not MADE
    assert f"Cell 0: model: &#39;{__name__}:OwnNet&#39; is code" in page
    assert "--trust" in page
    assert not (tmp_path / "a" / "boundaries.svg").exists()
    mine = Trusted.of({"model": {"name": f"{__name__}:OwnNet", "width": 4}})
    for name, trust in (("b", True), ("c", mine)):
        drawn = write_report([sweep], tmp_path / name, trust=trust).read_text()
        assert "is code" not in drawn
        assert (tmp_path / name / "boundaries.svg").exists()
    words = ["report", str(sweep), "--trust", "--out", str(tmp_path / "d")]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert (tmp_path / "d" / "boundaries.svg").exists()
    other = Trusted.of({"model": {"name": f"{__name__}:OwnNet", "width": 5}})
    assert "is code" in write_report([sweep], tmp_path / "e", trust=other).read_text()


def test_an_audit_makes_a_model_of_somebodys_own_only_on_trust(sweep: Path) -> None:
    cell = str(sweep / "cells" / "0")
    with pytest.raises(UntrustedError, match=r"config\.yaml: model: .*OwnNet' is code.*--trust"):
        opened(cell, None, None, False)
    assert not MADE
    assert opened(cell, None, None, False, trust=True).network == OwnNet()


# Where modules are looked for


def module(folder: Path, name: str, text: str = "") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text or f"class Rule:\n    def __call__(self, u): return {str(folder)!r}\n")
    return path


def rule(name: str) -> Any:
    return from_config(Experiment, demo_config(aggregator={"name": name})).aggregator


def test_a_place_is_searched_only_for_what_is_named(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    module(first, "named_own.py")
    module(second, "named_own.py")
    module(second, "second_own.py", "import neighbour_own\nRule = neighbour_own.Rule\n")
    module(second, "neighbour_own.py")
    module(first, "cupy.py", "raise RuntimeError('imported')")
    module(second, "colorsys.py", "raise RuntimeError('imported')")
    before = list(sys.path)
    beside.look_in([first, second])
    from_config(Experiment, demo_config())
    with pytest.raises(ConfigError, match="rgb_to_hsv refused its arguments"):
        rule("colorsys:rgb_to_hsv")
    assert sys.path == before
    assert rule("second_own:Rule")(None) == str(second), "with its neighbour"
    assert sys.path == [*before, str(second)]
    with pytest.raises(ModuleNotFoundError):
        __import__("cupy")
    # What is on the path by now goes before.
    assert rule("named_own:Rule")(None) == str(second)
    assert sys.path == [*before, str(second)]


def test_the_folder_of_the_config_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module(tmp_path / "here", "twice_own.py")
    module(tmp_path / "there", "twice_own.py")
    config = put(tmp_path / "there" / "a.yaml", demo_config(aggregator="twice_own:Rule", rounds=1))
    monkeypatch.chdir(tmp_path / "here")
    words = ["run", "--no-report", str(config), "--out", str(tmp_path / "run")]
    CliRunner().invoke(app, words)
    assert sys.modules["twice_own"].__file__ == str(tmp_path / "there" / "twice_own.py")
    assert str(tmp_path / "here") not in sys.path


def test_a_folder_without_init_gives_way_to_a_module(tmp_path: Path) -> None:
    module(tmp_path / "a" / "spaced_own", "inner.py")
    beside.look_in([tmp_path / "a"])
    assert rule("spaced_own.inner:Rule")
    module(tmp_path / "a" / "both_own", "data.txt", "results")
    module(tmp_path / "b", "both_own.py")
    beside.look_in([tmp_path / "a", tmp_path / "b"])
    assert rule("both_own:Rule")(None) == str(tmp_path / "b")


def test_a_failed_import_says_what_is_the_matter(tmp_path: Path) -> None:
    module(tmp_path, "code.py")
    module(tmp_path, "lacking_own.py", "import nowhere_own\n")
    module(tmp_path, "broken_own.py", "1 / 0\n")
    beside.look_in([tmp_path])
    hidden = tmp_path / "code.py"
    for name, said in {
        "code:Rule": rf"no attribute 'Rule'; code is .*code\.py here, which hides {hidden}.*rename",
        "code.rules:Rule": rf"'code' is not a package; code is .*which hides {hidden}",
        "absent_own:Rule": rf"there is none among the installed modules or {tmp_path}",
        "lacking_own:Rule": r"No module named 'nowhere_own'$",
        "broken_own:Rule": r"ZeroDivisionError: division by zero$",
    }.items():
        with pytest.raises(ConfigError, match=rf"cannot import {name}: .*{said}"):
            rule(name)


@pytest.mark.long
def test_a_config_beside_hostile_modules_is_read_without_them(tmp_path: Path) -> None:
    """In a process of its own, as what was imported before would not be imported again."""
    for name in ("sklearn/__init__.py", "torch.py", "scipy.py", "cupy.py"):
        module(tmp_path, name, f"open({str(tmp_path / 'MARK')!r}, 'w')")
    module(tmp_path, "mine_own.py")
    put(tmp_path / "own.yaml", demo_config(aggregator="mine_own:Rule"))
    program = (
        "import sys; from pathlib import Path; from fedrobust.cli.app import look_beside\n"
        "look_beside(Path('own.yaml')); from fedrobust import load; load('own.yaml')\n"
        "from fedrobust.data import Digits; Digits().load(); print(sys.path[-1])"
    )
    command = [sys.executable, "-P", "-c", program]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == str(tmp_path.resolve()), "a neighbour of what was named"
    assert not (tmp_path / "MARK").exists()
