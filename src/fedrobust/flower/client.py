"""The client: a Flower ``ClientApp`` that trains with any objective of fedrobust."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from torch import Tensor, nn

from fedrobust.clients.client import Client
from fedrobust.clients.local_training import LocalTraining
from fedrobust.clients.turn import OptimizerState
from fedrobust.compute.execution import Execution
from fedrobust.compute.memory_format import channels_last
from fedrobust.compute.parameters import read
from fedrobust.compute.randomness import Streams
from fedrobust.config.component import read_as
from fedrobust.data import Split
from fedrobust.errors import ConfigError, UserError
from fedrobust.flower.client_data import examples, places
from fedrobust.flower.exchange import told
from fedrobust.flower.tensors import RefusedError, Tensors, fixed
from fedrobust.flower.words import (
    ARRAYS,
    CLASSES,
    CLIENT,
    CONFIG,
    EXAMPLES,
    FIXED,
    METRICS,
    PARTITION,
    ROUND,
    SEED,
    WHO,
)
from fedrobust.models import LOCAL, AnyModel, BatchNorm
from fedrobust.objectives import ERM, AnyObjective, settled

_LOG = logging.getLogger("flwr")
_STATE, _WHEN = "fedrobust-optimizer", "fedrobust-optimizer-of"
"""The records in the client's context: the state of its optimiser, and of which round it is."""


def client_app(
    *,
    model: Any,
    data: Callable[[Context], Any],
    objective: Any = None,
    client: Any = None,
    batch_norm: BatchNorm = "refuse",
    execution: Execution | None = None,
) -> ClientApp:
    """Return a ``ClientApp`` that trains ``model`` on the examples of ``data(context)``.

    ``data`` gives a pair (x, y) of tensors, a PyTorch data set, or a ``Split``. ``model``,
    ``objective``, ``client`` and ``batch_norm`` are those of an ``Experiment``; left out, the
    objective is ERM, and local training one batch of 64 by SGD at rate 0.1. The server must have
    the same model. ``execution`` says where and with how many threads to train; its ``batch``,
    256 if it is left out, is the number of examples that an inner maximisation moves at a time.

    All that a client draws is derived from the seed, the round and the client's number in the
    server's message, so that a round that is played again gives the same bits. Where ``client``
    keeps the optimiser's state, it is in the context of the node.

    A message that cannot be answered gets an error reply with one text, and the node goes on.

    Raises: ``ConfigError`` for arguments that fit no experiment.
    """
    task = _Task(
        read_as(AnyModel, model, "model"),
        data,
        read_as(AnyObjective, objective or ERM(), "objective"),
        read_as(Client, client or Client(batches=1), "client"),
        read_as(BatchNorm, batch_norm, "batch_norm"),
        execution or Execution(),
    )
    app = ClientApp()
    app.train()(_answering(task.train))
    category, _, action = WHO.partition(".")
    getattr(app, category)(action)(_answering(_who))
    return app


def _answering(
    answer: Callable[[Message, Context], RecordDict],
) -> Callable[[Message, Context], Message]:
    """Return a function that replies with ``answer``, or with an error that says why not."""

    def reply(message: Message, context: Context) -> Message:
        try:
            return Message(answer(message, context), reply_to=message)
        except (UserError, RefusedError) as error:
            _LOG.error("%s", error)
            text = told(str(error))
        except Exception as error:  # a user's model or data may fail in any way
            _LOG.error("the client failed", exc_info=error)
            text = told(error)
        code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
        return Message(Error(code=code, reason=text), reply_to=message)

    return reply


def _who(message: Message, context: Context) -> RecordDict:
    """Say with which number this node was started."""
    number = context.node_config.get(PARTITION)
    if type(number) is not int:
        raise ConfigError("start this SuperNode with --node-config 'partition-id=N', N from 0 on")
    return RecordDict({CONFIG: ConfigRecord({PARTITION: number})})


class _Task:
    """What a client does in each round."""

    def __init__(
        self,
        model: Any,
        data: Callable[[Context], Any],
        objective: Any,
        client: Client,
        batch_norm: BatchNorm,
        execution: Execution,
    ) -> None:
        if not callable(data):
            raise ConfigError("data must be a function of Flower's context: data(context)")
        if batch_norm in LOCAL:
            raise ConfigError(
                f"batch_norm: {batch_norm} keeps tensors at the clients, with which the server "
                "cannot evaluate: choose to_group_norm or frozen"
            )
        self._model, self._data, self._objective = model, data, objective
        self._client, self._batch_norm, self._execution = client, batch_norm, execution

    def train(self, message: Message, context: Context) -> RecordDict:
        """Return the client's parameters after its local training of one round."""
        config = dict(next(iter(message.content.config_records.values()), {}))
        number, seed = _whole(config, ROUND, 1), _whole(config, SEED, 0)
        client = _whole(config, CLIENT, context.node_config.get(PARTITION, context.node_id))
        data = examples(self._data(context))
        if settled(self._objective, data) != self._objective:
            raise ConfigError(
                "objective: a value that depends on all training data is known to no client: give "
                "it as a number"
            )
        local = self._local(data, config.get(CLASSES))
        if config.get(FIXED, here := fixed(local.model)) != here:
            raise ConfigError(
                "the model's buffers or frozen parameters differ from the server's, and they do "
                "not travel: build the same model on both sides, from the same seed"
            )
        sent = list(message.content.array_records.values())
        if len(sent) != 1:
            raise ConfigError(f"the server sent {len(sent)} records of arrays instead of one")
        tensors = Tensors.of(local.model)
        parameters = tensors.vector(sent[0], read(local.model))
        store = {} if (kept := _kept(context, seed, number)) is None else {client: kept}
        with replace(self._execution, device=_kind(local.device)).active():
            row = local.updates(parameters, store, [client], Streams(seed), number)[0]
        if not bool(row.isfinite().all()):
            raise ConfigError("the training gave parameters that are not finite: lower its rate")
        if self._client.keep_optimizer:
            _keep(context, seed, number, store.get(client))
        # The server gets this row back to the bit: fl(fl(θ + Δ) - θ) = Δ for a Δ = fl(θ' - θ).
        return RecordDict(
            {
                ARRAYS: tensors.record(parameters + row),
                METRICS: MetricRecord({EXAMPLES: len(local.data)}),
            }
        )

    def _local(self, data: Split, classes: object) -> LocalTraining:
        """Return the local training on ``data``. Raises: ``ConfigError``, ``DataError``."""
        device = self._execution.device or ("cuda" if torch.cuda.is_available() else "cpu")
        model = self._built(data, classes).to(device)
        batch = self._execution.batch or 256
        local = LocalTraining.of(
            model, [data], self._objective, self._client, batch, self._batch_norm
        )
        channels_last(
            local.model, data.images(torch.arange(min(2, len(data)))).to(read(local.model))
        )
        precision = self._execution.precision
        return replace(local, clients=places(len(local.data)), precision=precision)

    def _built(self, data: Split, classes: object) -> nn.Module:
        if isinstance(self._model, nn.Module):
            return self._model
        if type(classes) is not int:
            raise ConfigError(
                "the server does not say how many classes there are: give client_app "
                "a torch.nn.Module as its model"
            )
        found: nn.Module = self._model.build(tuple(data.x.shape[1:]), classes)
        return found


def _kind(device: torch.device) -> Literal["cpu", "cuda"]:
    return "cuda" if device.type == "cuda" else "cpu"


def _whole(config: dict[str, Any], key: str, default: Any) -> int:
    value = config.get(key, default)
    if type(value) is not int or value < 0:
        raise ConfigError(f"the server's message has {key} = {told(value)}, not a whole number")
    return value


def _kept(context: Context, seed: int, number: int) -> OptimizerState | None:
    """Return the optimiser's state from an earlier round of the same run, if there is one."""
    when, record = context.state.get(_WHEN), context.state.get(_STATE)
    if not isinstance(when, ConfigRecord) or not isinstance(record, ArrayRecord):
        return None
    # A server that was stopped may play rounds again that this client has played already.
    if when.get(SEED) != seed or not int(when[ROUND]) < number:
        _LOG.warning("the optimiser's state is of another run or a later round: it starts anew")
        return None
    return dict(record.to_torch_state_dict())


def _keep(context: Context, seed: int, number: int, state: OptimizerState | None) -> None:
    """Put the optimiser's state into the context of this node."""
    for key in (_STATE, _WHEN):
        context.state.pop(key, None)
    if state is None:
        return
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError("keep_optimizer: this optimiser's state holds more than tensors")
    context.state[_STATE] = ArrayRecord({k: v.detach().cpu() for k, v in state.items()})
    context.state[_WHEN] = ConfigRecord({SEED: seed, ROUND: number})
