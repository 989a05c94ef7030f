"""The client: what goes wrong there becomes one error reply, and the next message is answered."""

from typing import Any

import pytest
import torch

pytest.importorskip("flwr")

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity
from torch import nn

from fedrobust import Client
from fedrobust.errors import ConfigError
from fedrobust.flower import client_app
from fedrobust.models import DigitsCnn
from fedrobust.objectives import WassersteinDRO

pytestmark = pytest.mark.flower

X, Y = torch.rand(40, 4, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3


@pytest.fixture(autouse=True)
def _task() -> None:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def asked(app: ClientApp, arrays: Any = None, **config: Any) -> Message:
    record = ArrayRecord(model().state_dict()) if arrays is None else arrays
    told = ConfigRecord({"server-round": 1, **config})
    message = Message(RecordDict({"arrays": record, "config": told}), 5, "train")
    return app(message, Context(1, 5, {"partition-id": 2}, RecordDict(), {}))


def reason(reply: Message) -> str:
    assert reply.has_error()
    text = reply.error.reason
    assert text is not None
    assert "\n" not in text
    return text


def test_a_plain_flower_server_can_use_our_client() -> None:
    reply = asked(client_app(model=model(), data=lambda context: (X, Y)))
    assert reply.has_content()
    assert reply.content["metrics"]["num-examples"] == 40
    found, start = reply.content["arrays"].to_torch_state_dict(), model().state_dict()
    assert found.keys() == start.keys()
    assert not torch.equal(found["weight"], start["weight"])


def test_what_a_client_draws_comes_from_seed_round_and_number() -> None:
    app = client_app(model=model(), data=lambda context: (X, Y), client=Client(5, batches=2))

    def weight(**config: Any) -> torch.Tensor:
        return asked(app, **config).content["arrays"].to_torch_state_dict()["weight"]

    base = {"fedrobust-seed": 3, "fedrobust-client": 1}
    assert torch.equal(weight(**base), weight(**base))
    for change in ({"fedrobust-seed": 4}, {"fedrobust-client": 0}, {"server-round": 2}):
        assert not torch.equal(weight(**base), weight(**(base | change)))
    here = weight(**{"fedrobust-seed": 3})  # the number of the node, 2, where the server says none
    assert torch.equal(here, weight(**(base | {"fedrobust-client": 2})))


def no_data(context: Context) -> Any:
    raise OSError("the disk\nis gone")


def frozen() -> nn.Module:
    made = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    made[0].requires_grad_(False)
    return made


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no data": ({"data": no_data}, {}, "OSError: the disk is gone"),
    "other data": ({"data": lambda c: 7}, {}, "the client's data must be a pair"),
    "no examples": ({"data": lambda c: (X[:0], Y[:0])}, {}, "is empty"),
    "labels beyond the classes": ({"data": lambda c: (X, Y + 9)}, {}, "labels"),
    "another shape": ({"data": lambda c: (X[:, :3], Y)}, {}, "model"),
    "another model": ({"model": nn.Linear(4, 5)}, {}, "weight is 'float32' [3, 4]"),
    "diverges": (
        {"data": lambda c: (X * 1e30, Y), "client": Client(batches=9)},
        {},
        "not finite",
    ),
    "BatchNorm": (
        {"model": nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3))},
        {},
        "changes in training outside the parameters",
    ),
    "other frozen parameters": (
        {"model": frozen()},
        {"fedrobust-fixed": "0" * 16},
        "differ from the server's",
    ),
    "no round": ({}, {"server-round": -1}, "server-round = -1"),
    "no seed": ({}, {"fedrobust-seed": "x"}, "fedrobust-seed = x"),
    "classes unknown": ({"model": DigitsCnn()}, {}, "how many classes"),
    "a price of all data": (
        {"objective": WassersteinDRO(gamma={"relative": 0.04})},
        {},
        "known to no client",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_goes_wrong_is_one_error_reply(name: str) -> None:
    parts, config, told = CASES[name]
    given = {"model": model(), "data": lambda context: (X, Y)} | parts
    assert told in reason(asked(client_app(**given), **config))


def test_a_node_without_a_number_says_how_to_give_it_one() -> None:
    app = client_app(model=model(), data=lambda context: (X, Y))
    question = Message(RecordDict({"config": ConfigRecord()}), 5, "query.fedrobust")
    reply = app(question, Context(1, 5, {}, RecordDict(), {}))
    assert "--node-config 'partition-id=N'" in reason(reply)
    reply = app(question, Context(1, 5, {"partition-id": 4}, RecordDict(), {}))
    assert reply.content["config"]["partition-id"] == 4


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"data": (X, Y)}, "data must be a function"),
        ({"model": 7}, "model"),
        ({"objective": {"name": "ermm"}}, "objective: .*did you mean 'erm'"),
        ({"client": {"batchs": 1}}, "client: "),
        ({"batch_norm": "local"}, "choose to_group_norm or frozen"),
    ],
)
def test_arguments_that_fit_no_experiment_are_refused(parts: dict[str, Any], told: str) -> None:
    given = {"model": model(), "data": lambda context: (X, Y)} | parts
    with pytest.raises(ConfigError, match=told):
        client_app(**given)
