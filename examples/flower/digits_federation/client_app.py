"""The clients: any objective of fedrobust. One of them is malicious."""

import torch
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp import ClientApp

from digits_federation.experiment import experiment
from fedrobust import Execution
from fedrobust.data import Split
from fedrobust.flower import client_app, part_of


def data(context: Context) -> Split:
    """Return this client's examples."""
    setting = experiment(context.run_config["rounds"], context.run_config["seed"])
    return part_of(setting, context.node_config["partition-id"])


setting = experiment(rounds=1, seed=0)
honest = client_app(
    model=setting.model,
    objective=setting.objective,
    client=setting.client,
    data=data,
    execution=Execution(batch=16),
)

app = ClientApp()


@app.query("fedrobust")
def who(message: Message, context: Context) -> Message:
    """Tell the server which client this is."""
    return honest(message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train. A node that was started with ``malicious=true`` then attacks."""
    reply = honest(message, context)
    return attacked(message, reply) if context.node_config.get("malicious") else reply


def attacked(message: Message, reply: Message) -> Message:
    """Send NaN in odd rounds, and ten times the opposite update in even ones.

    In each round, claim a billion examples.
    """
    start, own = message.content["arrays"], reply.content["arrays"]
    odd = message.content["config"]["server-round"] % 2 == 1
    sent = {}
    for name, array in own.items():
        before, after = torch.tensor(start[name].numpy()), torch.tensor(array.numpy())
        moved = torch.full_like(after, torch.nan) if odd else before - 10 * (after - before)
        sent[name] = Array(moved.numpy())
    reply.content["arrays"] = ArrayRecord(sent)
    reply.content["metrics"]["num-examples"] = 1_000_000_000
    return reply
