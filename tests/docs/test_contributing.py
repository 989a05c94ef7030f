"""What CONTRIBUTING.md says is enough: it is done on a copy, and the files are counted."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from demo import ROOT

from fedrobust.aggregators import AGGREGATORS
from fedrobust.attacks import ATTACKS

KINDS = {
    "A rule": ["tests/aggregators", "-k", "trimmed-midrange or table"],
    "An attack": ["tests/attacks/test_attacks_in_rounds.py", "-k", "same-value or table"],
    "An objective": ["tests/objectives/test_every_objective.py"],
    "A data set": ["tests/data/test_every_data_set.py", "-k", "moons or table"],
    "A model": ["tests/attacks/test_distillation.py", "-k", "fewest"],
}
GENERATED = ("docs/", "README.md")


def sections() -> dict[str, str]:
    """The walk-through of each kind, by its heading."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    parts = re.split(r"^### (.*)$", text, flags=re.M)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def applied(section: str, copy: Path) -> set[str]:
    """Do what the blocks of ``section`` say; the files that they touch."""
    touched = set()
    for kind, name, block in re.findall(r"```(python|diff)\n# (\S+)\n(.*?)```", section, re.S):
        path = copy / name
        touched.add(name)
        if kind == "python":
            assert not path.exists(), name
            path.write_text(block)
            continue
        lines = block.splitlines()
        old = "\n".join(line[1:] for line in lines if line[0] != "+")
        new = "\n".join(line[1:] for line in lines if line[0] != "-")
        content = path.read_text()
        assert content.count(old) == 1, f"{name} has not one place such as:\n{old}"
        path.write_text(content.replace(old, new))
    return touched


def called(copy: Path, *command: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=copy, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with all five components added."""
    copy = tmp_path_factory.mktemp("copy") / "fedrobust"
    for folder in ("src", "tests", "docs"):
        skipped = shutil.ignore_patterns("__pycache__", ".hypothesis")
        shutil.copytree(ROOT / folder, copy / folder, ignore=skipped)
    for name in ("README.md", "pyproject.toml", "mkdocs.yml"):
        shutil.copy(ROOT / name, copy / name)
    for section in sections().values():
        applied(section, copy)
    return copy


@pytest.fixture(scope="module")
def said(copy: Path) -> str:
    """What is printed where the pages are made again and checked, all is listed, a run is played,
    and then the tests: in one process, for each new one imports PyTorch.
    """
    (copy / "config.yaml").write_text(RUN)
    files = [KINDS[kind][0] for kind in KINDS]
    chosen = "trimmed-midrange or same-value or noisy or moons or fewest or (test and table)"
    late = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    tests = ["-p", "no:cacheprovider", *late, "-q", "-x", *files, "-k", chosen]
    return called(copy, "-c", PROGRAM, json.dumps(tests))


PROGRAM = """
import json, runpy, sys

words = json.loads(sys.argv[1])
sys.path.insert(0, "docs")
for more in ([], ["--check"]):
    sys.argv = ["components.py", *more]
    try:
        runpy.run_path("docs/components.py", run_name="__main__")
    except SystemExit as end:
        assert not end.code, end.code
from fedrobust.cli import app
app(["list"], standalone_mode=False)
app(["run", "--no-report", "config.yaml", "--out", "out"], standalone_mode=False)
import pytest
sys.exit(pytest.main(words))
"""


def test_every_kind_touches_three_files(tmp_path: Path) -> None:
    assert list(sections()) == list(KINDS)
    for section in sections().values():
        for name in re.findall(r"```diff\n# (\S+)\n", section):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
        for name in re.findall(r"```python\n# (\S+)\n", section):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        assert len(applied(section, tmp_path)) == 3, section[:200]


@pytest.mark.long
def test_pages_and_lists_follow_by_themselves(copy: Path, said: str) -> None:
    for kind, name in (("aggregator", "trimmed-midrange"), ("attack", "same-value")):
        page = (copy / "docs" / f"{kind}s" / f"{name}.md").read_text("utf-8")
        assert "## Cost" in page
        assert f"]({kind}s/{name}.md)" in (copy / "docs" / "components.md").read_text("utf-8")
        assert f"{name}: {kind}s/{name}.md" in (copy / "mkdocs.yml").read_text("utf-8")
    readme = (copy / "README.md").read_text("utf-8")
    assert f"{len(AGGREGATORS) + 1}<!-- end --> rules and " in readme
    assert f"{len(ATTACKS) + 1}<!-- end --> attacks" in readme
    for name in ("trimmed-midrange", "same-value", "noisy", "moons", "logistic-regression"):
        assert name in said


@pytest.mark.long
def test_its_tests_pass_and_a_run_plays(copy: Path, said: str) -> None:
    assert "[100%]" in said
    assert (copy / "out" / "summary.json").is_file()


RUN = """
name: all-new
rounds: 2
data: {name: moons, n: 600, test: 100, validation: 100}
partition: {name: iid, clients: 7}
model: logistic-regression
objective: {name: noisy, sigma: 0.1}
client: {batches: 1, batch_size: 8, optimizer: {name: sgd, lr: 0.1}}
malicious: 2
attack: {name: same-value, value: 1.0}
aggregator: {name: trimmed-midrange, f: 2}
evaluation:
  attack: {name: pgd, eps: 0.1, step_size: 0.05, steps: 2, box: false}
  every: 1
execution: {device: cpu, threads: 1, batch: 64}
"""
