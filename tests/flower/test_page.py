"""The blocks of docs/flower.md are what the code takes."""

import re

import pytest

pytest.importorskip("flwr")

from demo import ROOT
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedrobust.config.component import from_config
from fedrobust.config.yaml import read_yaml
from fedrobust.data import Remote
from fedrobust.experiment import Experiment

pytestmark = pytest.mark.flower

PAGE = (ROOT / "docs" / "flower.md").read_text("utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.S)


def test_the_python_of_the_page_makes_both_apps() -> None:
    made = []
    for block in blocks("python"):
        scope: dict[str, object] = {"__name__": "app"}
        exec(block, scope)
        made.append(type(scope["app"]))
    assert made == [ServerApp, ClientApp]


def test_the_experiment_of_the_page_is_one() -> None:
    (block,) = blocks("yaml")
    found = from_config(Experiment, read_yaml(block))
    assert found.partition == Remote(clients=5, counts=(1200, 900, 4000, 800, 2500))
