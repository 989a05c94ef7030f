"""The experiments that come with fedrobust are found by name, also where there is no checkout."""

from pathlib import Path

import pytest
from demo import demo_config
from ruamel.yaml import YAML
from typer.testing import CliRunner

from fedrobust import load
from fedrobust.cli import app
from fedrobust.cli.experiments import about, costs
from fedrobust.config.shelf import experiments, found, shelf
from fedrobust.errors import ConfigError
from fedrobust.runs.grid import load_sweep

ROOT = Path(__file__).parents[2]


def test_every_committed_config_has_a_name() -> None:
    committed = {
        path.relative_to(ROOT / "experiments").with_suffix("").as_posix()
        for path in (ROOT / "experiments").rglob("*.yaml")
    }
    assert committed - set(experiments()) == {"fat/reproductions"}
    assert {"demo", "fat/recipe", "drfl/ring"} <= set(experiments())
    for path in experiments().values():
        assert 10 < len(about(path)) < 400


def test_a_name_and_the_path_of_the_repository_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("demo", "demo.yaml", "experiments/demo.yaml"):
        assert found(Path(text)) == shelf("experiments", "demo.yaml")
    Path("demo.yaml").write_text("mine")
    assert found(Path("demo.yaml")) == Path("demo.yaml"), "a user's own file goes first"
    Path("demo.yaml").unlink()
    Path("demo").mkdir()
    assert found(Path("demo")) == shelf("experiments", "demo.yaml"), "a folder is no config"
    with pytest.raises(ConfigError, match="did you mean 'fat/recipe'"):
        found(Path("fat/recip"))


def test_python_takes_the_same_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load("demo", ["rounds=7"]).rounds == 7
    assert len(load_sweep("drfl/ring").cells) > 1
    with pytest.raises(ConfigError, match=r"no experiment 'dem' comes .*did you mean 'demo'"):
        load("dem")
    Path("demo").write_text("name: [")
    with pytest.raises(ConfigError, match="demo"):
        load("demo")  # a user's own file goes first


def test_they_are_listed_and_shown() -> None:
    listed = CliRunner().invoke(app, ["list", "experiments"])
    assert "fat/recipe" in listed.stdout
    shown = CliRunner().invoke(app, ["list", "experiment", "demo"])
    assert shown.stdout == shelf("experiments", "demo.yaml").read_text()
    unknown = CliRunner().invoke(app, ["list", "experiment", "dem"])
    assert unknown.exit_code == 2
    assert "did you mean 'demo'" in unknown.stderr


@pytest.mark.slow
def test_the_list_says_which_command_plays_each_and_what_it_costs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    lines = CliRunner().invoke(app, ["list", "experiments"]).stdout.splitlines()
    assert lines[0].split() == ["name", "command", "cost", "what", "it", "is"]
    told = {line.split()[0]: line for line in lines[1:] if line[:1].strip()}
    for name, path in experiments().items():
        grid = "grid" in YAML(typ="safe").load(path)
        assert told[name].split()[1] == ("sweep" if grid else "run"), name
    assert "about 8 core-hours" in told["drfl/mnist"]
    assert costs()[shelf("experiments", "fat", "table1-mnist-cpu.yaml")] == (
        "two hours on two cores for all of fat-table1"
    )


def test_a_component_or_an_experiment_is_shown_by_its_name_alone() -> None:
    shown = CliRunner().invoke(app, ["list", "krum"])
    assert shown.exit_code == 0, shown.output
    head, rest = shown.stdout.split("\n\n", 1)
    assert head == "krum, an aggregator"
    assert rest == CliRunner().invoke(app, ["list", "aggregator", "krum"]).stdout
    assert "f           required" in rest
    demo = CliRunner().invoke(app, ["list", "demo"])
    assert demo.stdout == shelf("experiments", "demo.yaml").read_text()
    wrong = CliRunner().invoke(app, ["list", "krmu"])
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "there is no kind 'krmu' (did you mean 'krum'?)" in wrong.stderr


@pytest.mark.slow
def test_a_run_ends_in_its_page_unless_it_shall_not(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    YAML(typ="safe").dump(demo_config(rounds=2), config)
    run = ["run", str(config), "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, run)
    page = tmp_path / "run" / "report" / "index.html"
    assert done.stdout.splitlines()[-1] == f"page: {page}"
    assert page.is_file()
    quiet = CliRunner().invoke(app, [*run[:-1], str(tmp_path / "quiet"), "-q"])
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, "", "")
    assert (tmp_path / "quiet" / "summary.json").is_file()
    assert CliRunner().invoke(app, ["run", "-h"]).exit_code == 0
